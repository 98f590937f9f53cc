use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Class, Entry, Moment, Tags, Value, Version};
use larder_memory::Resident;

use crate::stamp::Stamp;

/// How fresh an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Freshness {
    /// Within its TTL.
    Fresh,
    /// Past its TTL, within its stale window, or computed from something that is.
    Stale {
        /// Time since the read at the origin began.
        age: Duration,
        /// Why it was served nevertheless.
        reason: StaleReason,
    },
    /// Not from the origin at all: the declared fallback.
    Fallback,
}

/// Why a stale answer was served. What was computed from a stale answer of another
/// cache has the reason of that answer, and [`StaleReason::OriginFailed`] if it was
/// computed from a fallback.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum StaleReason {
    /// It is being refreshed in the background.
    Revalidating,
    /// The origin failed, or is not asked at present: its breaker is open, its
    /// load budget has no place for a refresh, the cache is shutting down, or the last
    /// load was given something stale only a moment ago.
    OriginFailed,
    /// The origin took longer than the soft timeout; the load goes on.
    SoftTimeout,
    /// Its own load took longer than it holds: it had expired when it came.
    SlowLoad,
    /// A gradual invalidation has begun and will reach it at a moment of its own.
    Suspect,
}

/// Where an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Tier {
    /// The memory of this process.
    Memory,
    /// A store below memory, counted from the nearest, which is 0.
    Store(u8),
    /// The origin, by a load that this reader started or joined.
    Origin,
    /// Nowhere: the declared fallback.
    Fallback,
}

/// An answer: a value, or that there is none, with where it came from and how
/// fresh it is.
///
/// Holds a reference to the cached entry; nothing is copied until
/// [`Hit::into_value`].
pub struct Hit<K, V> {
    held: Held<K, V>,
    stamp: Stamp,
}

/// [`Freshness`] without the age, which the entry tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Fresh,
    Stale(StaleReason),
    Fallback,
}

/// An entry in memory, or one that was answered without being kept.
pub(crate) enum Held<K, V> {
    Resident(Resident<K, V>),
    Detached(Arc<Entry<V>>),
}

impl<K, V> Hit<K, V> {
    #[inline]
    pub(crate) fn new(held: Held<K, V>, label: Label, tier: Tier, read_at: Moment) -> Self {
        Self { held, stamp: Stamp::new(label, tier, read_at) }
    }

    /// The value. `None`: the origin has no such key.
    #[must_use]
    pub fn value(&self) -> Option<&V> {
        self.entry().value.as_option()
    }

    /// A copy of the value. `None`: the origin has no such key.
    #[must_use]
    pub fn into_value(self) -> Option<V>
    where
        V: Clone,
    {
        self.value().cloned()
    }

    /// How fresh it is.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        match self.stamp.label() {
            Label::Fresh => Freshness::Fresh,
            Label::Stale(reason) => Freshness::Stale { age: self.age(), reason },
            Label::Fallback => Freshness::Fallback,
        }
    }

    /// Whether it is within its TTL.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self.stamp.label(), Label::Fresh)
    }

    /// Where it came from.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.stamp.tier()
    }

    /// Its version: larger is newer.
    #[must_use]
    pub fn version(&self) -> Version {
        self.entry().version
    }

    /// Time from the start of the read at the origin to this answer.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.entry().age(self.stamp.at())
    }

    /// For how much longer it is fresh; `None` if for ever.
    #[must_use]
    pub fn fresh_for(&self) -> Option<Duration> {
        let until = match &self.held {
            Held::Resident(resident) => resident.fresh_until(),
            Held::Detached(entry) => entry.fresh_until,
        };
        (!until.is_never()).then(|| until.since(self.stamp.at()))
    }

    /// What invalidates it together with others.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.entry().tags
    }

    /// How long the origin took.
    #[must_use]
    pub fn load_cost(&self) -> Duration {
        self.entry().load_cost
    }

    fn entry(&self) -> &Entry<V> {
        self.held.entry()
    }
}

impl<K, V> Held<K, V> {
    pub(crate) fn entry(&self) -> &Entry<V> {
        match self {
            Self::Resident(resident) => resident.entry(),
            Self::Detached(entry) => entry,
        }
    }
}

/// The entry of a declared fallback: older than everything, stale at once.
pub(crate) fn fallback_entry<V>(value: Value<V>, now: Moment) -> Entry<V> {
    Entry {
        value,
        version: Version::ZERO,
        origin_read_at: now,
        fresh_until: now,
        stale_until: now,
        load_cost: Duration::ZERO,
        tags: Tags::NONE,
        class: Class::Public,
    }
}

impl<K, V> Clone for Hit<K, V> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), stamp: self.stamp }
    }
}

impl<K, V> Clone for Held<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Resident(resident) => Self::Resident(resident.clone()),
            Self::Detached(entry) => Self::Detached(Arc::clone(entry)),
        }
    }
}

/// Never shows the value: it may be anything (S9).
impl<K, V> fmt::Debug for Hit<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("present", &self.value().is_some())
            .field("freshness", &self.freshness())
            .field("tier", &self.tier())
            .field("version", &self.version())
            .field("age", &self.age())
            .finish()
    }
}
