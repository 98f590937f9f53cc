//! Counters that threads add to without sharing cache lines.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counter {
    Hit,
    StaleRevalidating,
    StaleOriginFailed,
    StaleSoftTimeout,
    StaleSlowLoad,
    StaleSuspect,
    StaleDerived,
    Missed,
    Answered,
    Found,
    Joined,
    Fallback,
    Failed,
    Loaded,
    LoadFailed,
    LoadTimedOut,
    LoadPanicked,
    LoadRefused,
    Refreshed,
    RefreshSkipped,
    Fenced,
    Put,
    Written,
    Updated,
    ExpiredKey,
    RemovedKey,
    ExpiredTag,
    RemovedTag,
    Cleared,
    LeftMemory,
}

const COUNTERS: usize = Counter::LeftMemory as usize + 1;

/// The first so many threads have a stripe each, to which nobody else adds:
/// reading and writing it does what a locked addition would, and a locked
/// addition holds up every load from memory behind it.
const OWNED: usize = 16;

/// Threads beyond these share as many others.
const STRIPES: usize = 2 * OWNED;

/// Two lines of 64 bytes, because processors fetch them in pairs.
#[repr(align(128))]
struct Stripe([AtomicU64; COUNTERS]);

pub(crate) struct Counters {
    stripes: [Stripe; STRIPES],
    stale_age_max_nanos: AtomicU64,
}

impl Counters {
    #[inline]
    pub(crate) fn add(&self, counter: Counter) {
        let stripe = LOCAL.with(|local| local.stripe.get());
        let stripe = if stripe == UNSET { assign_stripe() } else { stripe };
        let count = &self.stripes[stripe % STRIPES].0[counter as usize];
        if stripe < OWNED {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self, counter: Counter) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe.0[counter as usize].load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    pub(crate) fn raise_stale_age(&self, age: Duration) {
        self.stale_age_max_nanos.fetch_max(super::nanos(age), Ordering::Relaxed);
    }

    pub(crate) fn stale_age_max(&self) -> Duration {
        Duration::from_nanos(self.stale_age_max_nanos.load(Ordering::Relaxed))
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            stripes: array::from_fn(|_| Stripe(array::from_fn(|_| AtomicU64::new(0)))),
            stale_age_max_nanos: AtomicU64::new(0),
        }
    }
}

struct Local {
    stripe: Cell<usize>,
    calls: Cell<u32>,
}

const UNSET: usize = usize::MAX;

thread_local! {
    static LOCAL: Local = const { Local { stripe: Cell::new(UNSET), calls: Cell::new(0) } };
}

/// True for one in 1024 calls of a thread.
#[inline]
pub(crate) fn is_sampled() -> bool {
    LOCAL.with(|local| {
        let calls = local.calls.get().wrapping_add(1);
        local.calls.set(calls);
        calls % 1024 == 0
    })
}

#[cold]
fn assign_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let stripe = if number < OWNED { number } else { OWNED + number % OWNED };
    LOCAL.with(|local| local.stripe.set(stripe));
    stripe
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn no_count_is_lost_between_threads() {
        let counters = Arc::new(Counters::default());
        let threads: Vec<_> = (0..STRIPES + 3)
            .map(|_| {
                let counters = Arc::clone(&counters);
                std::thread::spawn(move || (0..1000).for_each(|_| counters.add(Counter::Hit)))
            })
            .collect();
        for thread in threads {
            thread.join().expect("counting does not panic");
        }
        assert_eq!(counters.sum(Counter::Hit), 1000 * (STRIPES as u64 + 3));
        assert_eq!(counters.sum(Counter::Put), 0);
    }
}
