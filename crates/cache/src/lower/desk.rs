//! Leases of loads: one node at a time for each key (R2).

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock, DynLease, Key, LeaseGrant, LeaseToken};

use super::caller::{Caller, Grounds};
use crate::origin::{Breaker, BreakerState};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What became of the leases that a cache asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LeaseStatistics {
    /// Granted: this node loads the key.
    pub won: u64,
    /// Held by another node, each time it was asked for: its load is waited for.
    pub waited: u64,
    /// Loads that began without asking, because nobody could be asked.
    pub skipped: u64,
    /// Calls that failed or took too long.
    pub failures: u64,
    /// Whether leases are asked for at present.
    pub breaker: BreakerState,
}

/// Where leases are asked for.
pub(crate) struct LeaseDesk {
    lease: Arc<dyn DynLease>,
    caller: Caller,
    won: AtomicU64,
    waited: AtomicU64,
    skipped: AtomicU64,
}

impl LeaseDesk {
    pub(super) fn new(lease: Arc<dyn DynLease>, timeout: Duration, breaker: Breaker) -> Self {
        Self {
            lease,
            caller: Caller::new(timeout, breaker),
            won: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    pub(crate) fn statistics(&self, clock: &Clock) -> LeaseStatistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LeaseStatistics {
            won: count(&self.won),
            waited: count(&self.waited),
            skipped: count(&self.skipped),
            failures: self.caller.failures(),
            breaker: self.caller.breaker(clock),
        }
    }

    /// Asks for leases: a token for each that was granted, and nothing for those
    /// that other nodes hold. `None` if nobody can be asked. One round trip.
    pub(crate) async fn acquire(
        &self,
        keys: &[Key],
        duration: Duration,
        grounds: Grounds<'_>,
    ) -> Option<Vec<Option<LeaseToken>>> {
        let asked = self.caller.call(self.lease.acquire_many(keys, duration), grounds).await;
        let Some(grants) = asked.filter(|grants| grants.len() == keys.len()) else {
            self.skipped.fetch_add(keys.len() as u64, Ordering::Relaxed);
            return None;
        };
        let token = |grant| match grant {
            LeaseGrant::Granted(token) => Some(token),
            LeaseGrant::Held(_) => None,
        };
        let tokens: Vec<_> = grants.into_iter().map(token).collect();
        let won = tokens.iter().flatten().count();
        self.won.fetch_add(won as u64, Ordering::Relaxed);
        self.waited.fetch_add((tokens.len() - won) as u64, Ordering::Relaxed);
        Some(tokens)
    }

    /// Gives leases back and wakes who waits for them. One round trip.
    pub(crate) async fn release(&self, leases: &[(Key, LeaseToken)], grounds: Grounds<'_>) {
        let _ = self.caller.call(self.lease.release_many(leases), grounds).await;
    }

    /// Waits until the key's lease was given back somewhere, at most this long.
    pub(crate) async fn released(&self, key: &Key, at_most: Duration) {
        self.lease.released(key, at_most).await;
    }
}
