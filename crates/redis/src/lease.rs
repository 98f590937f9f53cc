use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use larder_core::{Error, ErrorKind, Key, Lease, LeaseGrant, LeaseToken, Result};
use redis::Value;

use crate::keys;
use crate::script::{ACQUIRE, AWAIT, Call, RELEASE};
use crate::shared::Shared;
use crate::store::batches;

/// The leases of one cache in Redis.
///
/// A token is random and names one grant. A primary that fails may lose a lease
/// that it gave: then two nodes load, which costs a load and nothing else.
///
/// Who waits leaves a mark at the lease, so that only those who have somebody to
/// wake publish anything. The mark costs each wait a round trip, and goes with the
/// lease or when the wait is over.
#[derive(Clone)]
pub struct RedisLease {
    shared: Arc<Shared>,
    cache: String,
    leases: Vec<u8>,
}

impl RedisLease {
    pub(crate) fn new(shared: Arc<Shared>, cache: &str) -> Self {
        let leases = shared.names.leases(cache);
        Self { shared, cache: cache.to_owned(), leases }
    }
}

impl Lease for RedisLease {
    async fn acquire_many(&self, keys: &[Key], duration: Duration) -> Result<Vec<LeaseGrant>> {
        let names: Vec<Vec<u8>> = keys.iter().map(|key| keys::join(&self.leases, key)).collect();
        let tokens: Vec<u64> = keys.iter().map(|_| fastrand::u64(..)).collect();
        let millis = duration.as_millis().clamp(1, u128::from(u32::MAX));
        let batches = batches(self.shared.links.has_slots(), &names);
        let calls = batches.iter().map(|places| {
            let own = places.iter().map(|place| names[*place].clone()).collect();
            let mut call = Call::new(&ACQUIRE, own).number(millis);
            for place in places {
                call = call.number(tokens[*place]);
            }
            async move { self.shared.links.call(&call).await }
        });
        let mut grants = vec![LeaseGrant::Held(duration); keys.len()];
        for (answer, places) in try_join_all(calls).await?.into_iter().zip(&batches) {
            let Value::Array(answers) = answer else { return Err(nonsense()) };
            if answers.len() != places.len() {
                return Err(nonsense());
            }
            for (answer, place) in answers.iter().zip(places) {
                grants[*place] = match answer {
                    Value::Int(-1) => LeaseGrant::Granted(LeaseToken(tokens[*place])),
                    Value::Int(left) => {
                        LeaseGrant::Held(Duration::from_millis(u64::try_from(*left).unwrap_or(0)))
                    }
                    _ => return Err(nonsense()),
                };
            }
        }
        if grants.iter().any(|grant| matches!(grant, LeaseGrant::Held(_))) {
            // Somebody is about to wait.
            self.shared.wakes.listen();
        }
        Ok(grants)
    }

    async fn release_many(&self, leases: &[(Key, LeaseToken)]) -> Result<()> {
        let names: Vec<Vec<u8>> =
            leases.iter().map(|(key, _)| keys::join(&self.leases, key)).collect();
        let batches = batches(self.shared.links.has_slots(), &names);
        let calls = batches.iter().map(|places| {
            let own = places.iter().map(|place| names[*place].clone()).collect();
            let mut call = Call::new(&RELEASE, own).argument(self.shared.names.wakes());
            for place in places {
                call = call.number(leases[*place].1.0);
            }
            async move { self.shared.links.call(&call).await }
        });
        try_join_all(calls).await?;
        Ok(())
    }

    async fn released(&self, key: &Key, at_most: Duration) {
        let name = keys::join(&self.leases, key);
        let millis = at_most.as_millis().clamp(1, u128::from(u32::MAX));
        let call = Call::new(&AWAIT, vec![name.clone()]).number(millis);
        let told = async {
            if let Err(failure) = self.shared.links.call(&call).await {
                // Then the wait ends when it has lasted long enough.
                tracing::debug!(error = %failure.error, "who holds a lease is not told of a wait");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.shared.wakes.wait(name, at_most) => {}
            () = told => {}
        }
    }
}

impl fmt::Debug for RedisLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLease").field("cache", &self.cache).finish_non_exhaustive()
    }
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis answered something that was not asked")
}
