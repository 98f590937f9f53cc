use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use larder_core::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::runtime::Runtime;

/// How hard an origin may be worked (R7). Loads beyond it wait in line, each up
/// to its hard timeout; refreshes that nobody waits for are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LoadBudget {
    concurrent: usize,
    per_second: Option<NonZeroU32>,
}

impl LoadBudget {
    /// At most this many loads at once; a batch is one load. Default 256.
    pub const fn concurrent(loads: usize) -> Self {
        Self { concurrent: if loads == 0 { 1 } else { loads }, per_second: None }
    }

    /// At most this many loads a second, with bursts of as many. Default: no
    /// such limit.
    pub const fn per_second(mut self, loads: u32) -> Self {
        self.per_second = NonZeroU32::new(loads);
        self
    }
}

impl Default for LoadBudget {
    fn default() -> Self {
        Self::concurrent(256)
    }
}

pub(crate) struct Budgeted {
    options: LoadBudget,
    places: Arc<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
}

/// A place under the budget; dropping it gives it back.
pub(crate) struct Permit {
    _place: Option<OwnedSemaphorePermit>,
}

impl Budgeted {
    pub(crate) fn new(options: LoadBudget) -> Self {
        let concurrent = options.concurrent.min(Semaphore::MAX_PERMITS);
        Self {
            options: LoadBudget { concurrent, ..options },
            places: Arc::new(Semaphore::new(concurrent)),
            rate: options.per_second.map(|loads| RateLimiter::direct(Quota::per_second(loads))),
        }
    }

    /// Waits for a place, first come first served.
    ///
    /// # Cancel safety
    /// A dropped wait leaves the line.
    pub(crate) async fn permit(&self, runtime: &Runtime, clock: &Clock) -> Permit {
        // The semaphore is never closed; were it, the load would go ahead.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        if let Some(rate) = &self.rate {
            while let Err(not_yet) = rate.check() {
                let wait = not_yet.wait_time_from(DefaultClock::default().now());
                runtime.sleep_until(clock, clock.precise_now() + wait).await;
            }
        }
        Permit { _place: place }
    }

    pub(crate) fn try_permit(&self) -> Option<Permit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let in_rate = self.rate.as_ref().is_none_or(|rate| rate.check().is_ok());
        in_rate.then_some(Permit { _place: Some(place) })
    }

    pub(crate) fn running(&self) -> usize {
        self.options.concurrent - self.places.available_permits()
    }
}

impl fmt::Debug for Budgeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgeted").field("options", &self.options).finish_non_exhaustive()
    }
}
