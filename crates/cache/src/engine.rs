use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use larder_core::{
    Clock, DynOrigin, Error, ErrorKind, Key, KeyPattern, Moment, Result, Tags, Ttl, Version,
};
use larder_memory::MemoryTier;

use crate::dependencies::Dependence;
use crate::fleet::Seat;
use crate::flight::{Flights, Writers};
use crate::lower::Lower;
use crate::origin::OriginGuard;
use crate::pipeline::Behind;
use crate::policy::Policy;
use crate::runtime::Runtime;
use crate::telemetry::Telemetry;

/// What a key must be: hashable, cheap to clone, shareable between threads.
pub trait CacheKey: Hash + Eq + Clone + Send + Sync + 'static {}
impl<K: Hash + Eq + Clone + Send + Sync + 'static> CacheKey for K {}

/// What a value must be: shareable between threads. A clone is made only where
/// a caller takes the value out and where an origin answers "not modified"; wrap
/// what is expensive to clone in an `Arc`.
///
/// A value may be dropped while an internal lock is held, when another's arrival
/// evicts it: its `Drop` must not call the cache that held it.
pub trait CacheValue: Clone + Send + Sync + 'static {}
impl<V: Clone + Send + Sync + 'static> CacheValue for V {}

pub(crate) type TtlRule<K, V> = Arc<dyn Fn(&K, &V) -> Option<Ttl> + Send + Sync>;
pub(crate) type TagRule<K, V> = Arc<dyn Fn(&K, Option<&V>) -> Tags + Send + Sync>;
pub(crate) type Fallback<K, V> = Arc<dyn Fn(&K) -> Option<V> + Send + Sync>;

/// One cache: the parts that the pipeline connects.
pub(crate) struct Engine<K, V> {
    pub(crate) name: String,
    pub(crate) memory: MemoryTier<K, V>,
    pub(crate) flights: Flights<K, V>,
    /// What others write at present.
    pub(crate) writers: Writers,
    /// The tiers between memory and the origin.
    pub(crate) lower: Option<Lower<K, V>>,
    pub(crate) origin: Option<Arc<dyn DynOrigin<K, V>>>,
    pub(crate) guard: OriginGuard,
    /// Whether failed loads count against the guard: with an origin, or a guard
    /// that was declared.
    pub(crate) has_breaker: bool,
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) rules: Rules<K, V>,
    pub(crate) clock: Clock,
    pub(crate) runtime: Runtime,
    pub(crate) telemetry: Arc<Telemetry<K>>,
    pub(crate) closing: AtomicBool,
    /// The other nodes, if there are any.
    pub(crate) seat: Option<Seat<K>>,
    /// Where its writes wait for the origin, if they do.
    pub(crate) behind: Option<Behind<K, V>>,
    /// What it depends on and what depends on it, if anything is declared.
    pub(crate) dependence: Option<Dependence<K, V>>,
    /// Until when memory is trusted, in nanoseconds of the clock: for ever where
    /// nobody else changes what it holds.
    pub(crate) trusted_until: AtomicU64,
    /// What memory holds of older versions may have been invalidated without this
    /// node's hearing of it.
    pub(crate) doubted_below: AtomicU64,
    /// The same where memory holds it as expired: what a store has of older versions
    /// may be valid still.
    pub(crate) memory_doubted_below: AtomicU64,
    /// Entries of older versions were expired all together, by somebody who said so.
    pub(crate) expired_below: AtomicU64,
    /// Until when a store that is told of changes after the bus may still be told of
    /// one that was announced before this node listened.
    pub(crate) settles_at: Moment,
    /// Until when another node may be writing what this one has not heard of, in
    /// nanoseconds of the clock.
    pub(crate) writes_settle_at: AtomicU64,
}

/// What the application adds to a policy, as functions of key and value.
pub(crate) struct Rules<K, V> {
    pub(crate) ttl: Option<TtlRule<K, V>>,
    pub(crate) tags: Option<TagRule<K, V>>,
    pub(crate) fallback: Option<Fallback<K, V>>,
    pub(crate) levels: Option<Levels<K>>,
}

/// The pattern of a cache's keys, so that those that begin alike can be invalidated at
/// once.
pub(crate) struct Levels<K> {
    pub(crate) pattern: KeyPattern,
    pub(crate) encode: fn(&K) -> Key,
    pub(crate) decode: fn(&Key) -> Option<K>,
}

impl<K> Levels<K> {
    /// The tags of everything that begins as this key does.
    pub(crate) fn tags(&self, key: &K) -> Tags {
        let key = (self.encode)(key);
        let text = std::str::from_utf8(key.as_bytes()).unwrap_or_default();
        Tags::new(self.pattern.level_tags(text))
    }
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// The fence token of a load that begins now: a change that is numbered after
    /// it wins. In a fleet the bus numbers changes, and the highest number up to which
    /// the caches here have heard of all claims no more than is true. That of a change
    /// of this process would, while an earlier one of others is on its way: what is
    /// read in a cache here may be of before that, and what is about to be written
    /// after it is not held here yet.
    pub(crate) fn begin_version(&self) -> Version {
        match &self.seat {
            Some(seat) => seat.fleet.complete(),
            None => self.memory.versions().next(),
        }
    }
}

impl<K, V> Engine<K, V> {
    /// Whether what memory has may be served: not once nothing was heard of the
    /// other nodes for too long. One comparison.
    #[inline]
    pub(crate) fn trusts_memory(&self, now: Moment) -> bool {
        now.as_nanos() < self.trusted_until.load(Ordering::Relaxed)
    }

    /// Whether this may have been invalidated without this node's hearing of it.
    pub(crate) fn is_doubted(&self, version: Version) -> bool {
        version.get() < self.doubted_below.load(Ordering::Acquire)
    }

    pub(crate) fn refuse_when_closing(&self) -> Result<()> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::ShuttingDown, "the cache is shutting down")
                .with("cache", &self.name));
        }
        Ok(())
    }
}
