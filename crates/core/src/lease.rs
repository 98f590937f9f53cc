use std::future::Future;
use std::time::Duration;

use crate::{BoxFuture, Key, Result};

/// Names one grant of a lease. No two grants have the same: what is done under
/// one that has ended is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LeaseToken(pub u64);

/// What came of asking for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseGrant {
    /// It is held until it is released or runs out.
    Granted(LeaseToken),
    /// Another node holds it, for at most this long.
    Held(Duration),
}

/// Which of many nodes may load a key (R2): an ability of some shared stores.
///
/// A lease only saves loads. That a late answer is not kept does not rest on it
/// but on versions: a store refuses what is older than an invalidation.
pub trait Lease: Send + Sync + 'static {
    /// Asks for the leases of keys, one answer for each. One round trip.
    fn acquire_many(
        &self,
        keys: &[Key],
        duration: Duration,
    ) -> impl Future<Output = Result<Vec<LeaseGrant>>> + Send;

    /// Gives leases back and wakes who waits for them. Does nothing for a token
    /// that is not the live one. One round trip.
    fn release_many(&self, leases: &[(Key, LeaseToken)])
    -> impl Future<Output = Result<()>> + Send;

    /// Waits until the key's lease was given back somewhere, at most this long.
    /// Whoever waits looks into the store before and after: a wake-up may be
    /// lost, and may come for nothing.
    ///
    /// # Cancel safety
    /// A dropped wait leaves nothing behind.
    fn released(&self, key: &Key, at_most: Duration) -> impl Future<Output = ()> + Send;
}

/// [`Lease`] behind a pointer: the twin that the engine holds.
pub trait DynLease: Send + Sync + 'static {
    /// [`Lease::acquire_many`].
    fn acquire_many<'a>(
        &'a self,
        keys: &'a [Key],
        duration: Duration,
    ) -> BoxFuture<'a, Result<Vec<LeaseGrant>>>;
    /// [`Lease::release_many`].
    fn release_many<'a>(&'a self, leases: &'a [(Key, LeaseToken)]) -> BoxFuture<'a, Result<()>>;
    /// [`Lease::released`].
    fn released<'a>(&'a self, key: &'a Key, at_most: Duration) -> BoxFuture<'a, ()>;
}

impl<L: Lease> DynLease for L {
    fn acquire_many<'a>(
        &'a self,
        keys: &'a [Key],
        duration: Duration,
    ) -> BoxFuture<'a, Result<Vec<LeaseGrant>>> {
        Box::pin(Lease::acquire_many(self, keys, duration))
    }

    fn release_many<'a>(&'a self, leases: &'a [(Key, LeaseToken)]) -> BoxFuture<'a, Result<()>> {
        Box::pin(Lease::release_many(self, leases))
    }

    fn released<'a>(&'a self, key: &'a Key, at_most: Duration) -> BoxFuture<'a, ()> {
        Box::pin(Lease::released(self, key, at_most))
    }
}
