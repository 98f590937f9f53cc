use std::future::Future;
use std::time::Duration;

use crate::{Key, Result};

/// Grows with every grant of a key's lease: what was done under an older one is
/// refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FencingToken(pub u64);

/// What came of asking for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseGrant {
    /// It is held until it is released or runs out.
    Granted(FencingToken),
    /// Another node holds it, for at most this long.
    Held(Duration),
}

/// Which of many nodes may load a key: an ability of some shared stores.
pub trait Lease: Send + Sync + 'static {
    /// Asks for the lease of a key. One round trip.
    fn acquire(
        &self,
        key: &Key,
        duration: Duration,
    ) -> impl Future<Output = Result<LeaseGrant>> + Send;

    /// Gives a lease back. Does nothing if the token is not the live one. One
    /// round trip.
    fn release(&self, key: &Key, token: FencingToken) -> impl Future<Output = Result<()>> + Send;
}
