use std::fmt;
use std::sync::Arc;

use larder_core::{Clock, Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rate::Rate;
use crate::runtime::Runtime;

/// How hard an origin may be worked (R7). Loads beyond it wait in line, each up
/// to its hard timeout; refreshes that nobody waits for are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LoadBudget {
    concurrent: usize,
    per_second: Option<u32>,
}

impl LoadBudget {
    /// At most this many loads at once; a batch is one load. Default 256.
    pub const fn concurrent(loads: usize) -> Self {
        Self { concurrent: if loads == 0 { 1 } else { loads }, per_second: None }
    }

    /// At most this many loads a second, with bursts of as many. Default: no
    /// such limit. Zero is refused when a cache is built.
    pub const fn per_second(mut self, loads: u32) -> Self {
        self.per_second = Some(loads);
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
    rate: Option<Limited>,
}

/// A limit to loads a second, and the line before it.
struct Limited {
    rate: Rate,
    /// Held by the first in line: who comes later overtakes nobody, and who
    /// gives up takes nothing along.
    turn: Semaphore,
}

/// A place under the budget; dropping it gives it back.
pub(crate) struct Permit {
    _place: Option<OwnedSemaphorePermit>,
}

impl Budgeted {
    pub(crate) fn new(options: LoadBudget) -> Self {
        let concurrent = options.concurrent.min(Semaphore::MAX_PERMITS);
        let limited = |loads| Limited { rate: Rate::per_second(loads), turn: Semaphore::new(1) };
        Self {
            options: LoadBudget { concurrent, ..options },
            places: Arc::new(Semaphore::new(concurrent)),
            rate: options.per_second.map(limited),
        }
    }

    /// Refuses limits under which no load could ever run.
    pub(crate) fn check(&self) -> Result<()> {
        if self.options.per_second == Some(0) {
            let message = "a load budget of zero loads a second lets no load begin";
            return Err(Error::new(ErrorKind::Config, message)
                .with("option", "per_second")
                .remedy("allow at least one, or leave the limit out"));
        }
        Ok(())
    }

    /// Waits for a place, first come first served.
    ///
    /// # Cancel safety
    /// A dropped wait leaves the line.
    pub(crate) async fn permit(&self, runtime: &Runtime, clock: &Clock) -> Permit {
        let Some(Limited { rate, turn }) = &self.rate else {
            return self.place().await;
        };
        // No semaphore here is ever closed; were it, the load would go ahead.
        let _turn = turn.acquire().await.ok();
        loop {
            let ready_at = rate.ready_at();
            if ready_at <= clock.precise_now() {
                break;
            }
            runtime.sleep_until(clock, ready_at).await;
        }
        // Only now, so that a place is taken by what runs and not by what waits.
        let place = self.place().await;
        rate.take(clock.precise_now());
        place
    }

    pub(crate) fn try_permit(&self, clock: &Clock) -> Option<Permit> {
        let Some(Limited { rate, turn }) = &self.rate else {
            return self.try_place();
        };
        let _turn = turn.try_acquire().ok()?;
        let now = clock.precise_now();
        if rate.ready_at() > now {
            return None;
        }
        let place = self.try_place()?;
        rate.take(now);
        Some(place)
    }

    /// How many loads have a place.
    pub(crate) fn running(&self) -> usize {
        self.options.concurrent - self.places.available_permits()
    }

    async fn place(&self) -> Permit {
        Permit { _place: Arc::clone(&self.places).acquire_owned().await.ok() }
    }

    fn try_place(&self) -> Option<Permit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Permit { _place: Some(place) })
    }
}

impl fmt::Debug for Budgeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgeted").field("options", &self.options).finish_non_exhaustive()
    }
}
