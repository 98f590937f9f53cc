use std::fmt;
use std::time::Duration;

use larder_core::{Entry, Moment};

use crate::node::Handle;

/// An entry that is, or just was, in memory.
///
/// A counted handle: cloning it costs one addition, and it stays valid when the
/// entry is replaced, evicted or removed.
pub struct Resident<K, V>(pub(crate) Handle<K, V>);

impl<K, V> Resident<K, V> {
    /// The key it is held under.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &K {
        &self.0.key
    }

    /// The entry as it was put in. Ask [`Resident::fresh_until`] and
    /// [`Resident::stale_until`] for its limits: accesses and expiries move
    /// those.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> &Entry<V> {
        &self.0.entry
    }

    /// Until when it is fresh, after expiries and sliding accesses.
    #[must_use]
    pub fn fresh_until(&self) -> Moment {
        self.0.fresh_until()
    }

    /// Until when it may be served at all, if it is accessed often enough for
    /// its idle time.
    #[must_use]
    pub fn stale_until(&self) -> Moment {
        self.0.stale_until()
    }

    /// Whether it may be served as fresh.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        now < self.0.fresh_until()
    }

    /// Whether a hit needs more than being served: `attention_at` has come or
    /// the entry is no longer fresh. One comparison for most hits.
    #[inline]
    #[must_use]
    pub fn needs_attention(&self, now: Moment) -> bool {
        self.0.needs_attention(now)
    }

    /// When it was last got, or put in.
    #[must_use]
    pub fn last_access(&self) -> Moment {
        self.0.last_access()
    }

    /// For how long nobody got it.
    #[must_use]
    pub fn idle_for(&self, now: Moment) -> Duration {
        now.since(self.last_access())
    }

    /// How often it was got since it was put in. May miss some of the accesses
    /// that came at the same time.
    #[must_use]
    pub fn hits(&self) -> u64 {
        u64::from(self.0.hits())
    }

    /// What it counts against the budget: bytes, or 1 if the budget counts
    /// entries.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.weight
    }

    /// Whether both are the same entry, not only equal ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl<K, V> Clone for Resident<K, V> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Resident<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident")
            .field("key", self.key())
            .field("entry", self.entry())
            .field("fresh_until", &self.fresh_until())
            .field("stale_until", &self.stale_until())
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}
