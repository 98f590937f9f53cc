use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{Error, ErrorKind, Key, Lease, LeaseGrant, LeaseToken, Result};
use tokio::sync::watch;
use tokio::time::Instant;

/// Leases within one process that keep the contract of [`Lease`] and break it
/// where a test says so. Clones are the same.
///
/// Time is tokio's, so that a test can pause it.
#[derive(Clone, Debug, Default)]
pub struct FaultyLease {
    state: Arc<Mutex<State>>,
    /// Says that a lease was given back.
    released: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    grants: HashMap<Key, (LeaseToken, Instant)>,
    granted: u64,
    /// How often a key was given back.
    releases: HashMap<Key, u64>,
    is_unreachable: bool,
    loses_wake_ups: bool,
}

impl FaultyLease {
    /// Nobody holds anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails every call, or no call any more.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.state().is_unreachable = is_unreachable;
    }

    /// Wakes nobody who waits for a lease, or everybody again.
    pub fn set_losing_wake_ups(&self, loses_wake_ups: bool) {
        self.state().loses_wake_ups = loses_wake_ups;
    }

    /// How many leases were granted so far.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.state().granted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.is_unreachable {
            let unreachable = "the scripted leases are unreachable";
            return Err(Error::new(ErrorKind::Unavailable, unreachable));
        }
        Ok(state)
    }

    fn releases(&self, key: &Key) -> u64 {
        self.state().releases.get(key).copied().unwrap_or_default()
    }
}

impl Lease for FaultyLease {
    async fn acquire_many(&self, keys: &[Key], duration: Duration) -> Result<Vec<LeaseGrant>> {
        let mut state = self.reachable()?;
        let now = Instant::now();
        let acquire = |key: &Key| {
            if let Some((_, until)) = state.grants.get(key)
                && *until > now
            {
                return LeaseGrant::Held(*until - now);
            }
            state.granted += 1;
            let token = LeaseToken(state.granted);
            state.grants.insert(key.clone(), (token, now + duration));
            LeaseGrant::Granted(token)
        };
        Ok(keys.iter().map(acquire).collect())
    }

    async fn release_many(&self, leases: &[(Key, LeaseToken)]) -> Result<()> {
        let mut state = self.reachable()?;
        for (key, token) in leases {
            if state.grants.get(key).is_some_and(|(live, _)| live == token) {
                state.grants.remove(key);
                if !state.loses_wake_ups {
                    *state.releases.entry(key.clone()).or_default() += 1;
                }
            }
        }
        drop(state);
        self.released.send_replace(());
        Ok(())
    }

    async fn released(&self, key: &Key, at_most: Duration) {
        let mut news = self.released.subscribe();
        let before = self.releases(key);
        let wait = news.wait_for(|()| self.releases(key) > before);
        // Whether in time or not: it may come for nothing.
        let _ = tokio::time::timeout(at_most, wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::block_on;

    crate::lease_conformance!(conforms, async { FaultyLease::new() });

    #[test]
    fn faults_are_as_told() {
        block_on(async {
            let lease = FaultyLease::new();
            let key = Key::new("a");
            lease.set_unreachable(true);
            let refused =
                lease.acquire_many(std::slice::from_ref(&key), Duration::from_secs(9)).await;
            assert_eq!(refused.expect_err("the script says so").kind(), ErrorKind::Unavailable);
            lease.set_unreachable(false);
            let granted =
                lease.acquire_many(std::slice::from_ref(&key), Duration::from_secs(9)).await;
            let Ok([LeaseGrant::Granted(token)]) = granted.as_deref() else {
                panic!("not granted: {granted:?}")
            };
            lease.set_losing_wake_ups(true);
            let wait = lease.released(&key, Duration::from_millis(50));
            let release = async {
                tokio::task::yield_now().await;
                lease.release_many(&[(key.clone(), *token)]).await
            };
            let start = Instant::now();
            let ((), released) = tokio::join!(wait, release);
            released.expect("it is reachable");
            assert!(start.elapsed() >= Duration::from_millis(50), "nobody was woken");
            assert_eq!(lease.granted(), 1);
        });
    }

    /// The suite notices leases that break their promises.
    mod is_noticed {
        use super::*;
        use crate::conformance::lease as cases;

        /// Whoever releases is believed to be the holder.
        struct Credulous(FaultyLease);

        impl Lease for Credulous {
            async fn acquire_many(
                &self,
                keys: &[Key],
                at_most: Duration,
            ) -> Result<Vec<LeaseGrant>> {
                self.0.acquire_many(keys, at_most).await
            }

            async fn release_many(&self, leases: &[(Key, LeaseToken)]) -> Result<()> {
                for (key, _) in leases {
                    self.0.state().grants.remove(key);
                }
                Ok(())
            }

            async fn released(&self, key: &Key, at_most: Duration) {
                self.0.released(key, at_most).await;
            }
        }

        #[test]
        #[should_panic(expected = "is held, and the answer is Granted")]
        fn a_wrong_token_that_releases() {
            block_on(cases::a_wrong_token_releases_nothing(Credulous(FaultyLease::new())));
        }

        #[test]
        #[should_panic(expected = "is held, and the answer is Granted")]
        fn a_dead_token_that_ends_the_next_lease() {
            let lease = Credulous(FaultyLease::new());
            block_on(cases::what_runs_out_is_free_and_its_token_is_dead(lease));
        }
    }
}
