use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::ops::Deref;
use std::time::Duration;

use larder_core::{Entry, Moment, Version};
use quick_cache::Equivalent;
use triomphe::Arc;

use crate::lifetime::Lifetime;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::tags::TagCells;

/// Everything about one held entry, in one allocation.
///
/// The fields are in order of use, so that with a key of up to 24 bytes what a
/// hit reads and writes is on one cache line together with the reference count.
/// Moments are kept as nanoseconds.
#[repr(C)]
pub(crate) struct Node<K, V> {
    /// The count of invalidations at which the node was last found alive.
    checked_at: AtomicU64,
    /// Before this moment a hit is fresh and needs no attention. Zero for a node
    /// in motion: its hits have to look at [`Motion`].
    quiet_until: AtomicU64,
    last_access: AtomicU64,
    hits: AtomicU32,
    /// Where the roster keeps it, or [`UNLISTED`] or [`GONE`].
    place: AtomicU32,
    pub(crate) key: K,
    pub(crate) entry: Entry<V>,
    fresh_until: AtomicU64,
    motion: Option<Box<Motion>>,
    pub(crate) cells: TagCells,
    pub(crate) weight: u64,
}

/// What only entries with an idle or a sliding lifetime have.
struct Motion {
    idle: Option<Duration>,
    /// The freshness of one access at most; zero without a sliding lifetime.
    base: Duration,
    limit: Moment,
    /// From the end of freshness to the end of the stale window.
    stale_window: Duration,
    /// From `attention_at` to the end of freshness.
    attention_lead: Duration,
    attention_at: AtomicU64,
    stale_until: AtomicU64,
}

/// The roster has not taken the node in yet.
pub(crate) const UNLISTED: u32 = u32::MAX;
/// The node has left the tier: the roster must not take it in any more.
pub(crate) const GONE: u32 = u32::MAX - 1;

impl<K, V> Node<K, V> {
    /// The first comparison of a hit: nothing happened since the last look, the
    /// entry is fresh and its lifetime does not depend on this access.
    #[inline]
    pub(crate) fn is_quiet(&self, now: Moment, invalidations: u64) -> bool {
        // Acquire: who found the node alive may have expired it as well.
        self.checked_at.load(Ordering::Acquire) == invalidations
            && now.as_nanos() < self.quiet_until.load(Ordering::Relaxed)
    }

    /// Has the processor bring the cache line of the value while it waits for the bytes
    /// of the key: the count of references is raised by a locked instruction, which no
    /// load passes.
    #[inline]
    fn fetch_value(&self) {
        black_box(self.entry.value.as_option().is_some());
    }

    #[inline]
    pub(crate) fn was_checked_at(&self, invalidations: u64) -> bool {
        self.checked_at.load(Ordering::Acquire) == invalidations
    }

    pub(crate) fn set_checked_at(&self, invalidations: u64) {
        self.checked_at.store(invalidations, Ordering::Release);
    }

    /// Records an access. Not a locked instruction: of two accesses at the same
    /// time one may go uncounted.
    #[inline]
    pub(crate) fn touch(&self, now: Moment) {
        self.last_access.store(now.as_nanos(), Ordering::Relaxed);
        self.hits.store(self.hits.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn last_access(&self) -> Moment {
        moment(&self.last_access)
    }

    pub(crate) fn fresh_until(&self) -> Moment {
        moment(&self.fresh_until)
    }

    pub(crate) fn stale_until(&self) -> Moment {
        match &self.motion {
            None => self.entry.stale_until,
            Some(motion) => moment(&motion.stale_until),
        }
    }

    #[inline]
    pub(crate) fn needs_attention(&self, now: Moment) -> bool {
        now.as_nanos() >= self.quiet_until.load(Ordering::Relaxed)
            && match &self.motion {
                None => true,
                Some(motion) => now >= moment(&motion.attention_at) || now >= self.fresh_until(),
            }
    }

    /// When the entry's time is up: past its stale window or idle for too long.
    pub(crate) fn deadline(&self) -> Moment {
        let stale_until = self.stale_until();
        match self.motion.as_deref().and_then(|motion| motion.idle) {
            None => stale_until,
            Some(idle) => stale_until.min(self.last_access() + idle),
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.entry.version
    }

    /// Ends freshness at `at`, if it does not end before.
    pub(crate) fn expire(&self, at: Moment) {
        self.fresh_until.fetch_min(at.as_nanos(), Ordering::AcqRel);
        match &self.motion {
            None => self.quiet_until.store(0, Ordering::Release),
            Some(motion) => motion.attention_at.store(0, Ordering::Release),
        }
    }

    /// Lengthens freshness by an access, if the lifetime is a sliding one.
    pub(crate) fn slide(&self, now: Moment) {
        let Some(motion) = self.motion.as_deref().filter(|motion| !motion.base.is_zero()) else {
            return;
        };
        let fresh_until = self.fresh_until();
        if now >= fresh_until || fresh_until.is_never() {
            return;
        }
        let remaining = fresh_until.since(now);
        let longer = remaining.saturating_add(remaining / 2).min(motion.base);
        let extended = (now + longer).min(motion.limit);
        // An expiry or another access that came in between has the last word.
        let was = fresh_until.as_nanos();
        if extended <= fresh_until
            || self
                .fresh_until
                .compare_exchange(was, extended.as_nanos(), Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let stale_until = (extended + motion.stale_window).min(motion.limit);
        motion.stale_until.fetch_max(stale_until.as_nanos(), Ordering::AcqRel);
        let attention_at = extended - motion.attention_lead;
        motion.attention_at.fetch_max(attention_at.as_nanos(), Ordering::AcqRel);
    }

    /// Only to be used under the lock of the roster's shard.
    pub(crate) fn place(&self) -> u32 {
        self.place.load(Ordering::Relaxed)
    }

    /// Only to be used under the lock of the roster's shard.
    pub(crate) fn set_place(&self, place: u32) {
        self.place.store(place, Ordering::Relaxed);
    }
}

fn moment(nanos: &AtomicU64) -> Moment {
    Moment::from_nanos(nanos.load(Ordering::Relaxed))
}

/// What a node is made of.
pub(crate) struct Parts<K, V> {
    pub(crate) key: K,
    pub(crate) entry: Entry<V>,
    pub(crate) cells: TagCells,
    pub(crate) lifetime: Lifetime,
    pub(crate) weight: u64,
    pub(crate) now: Moment,
}

impl<K, V> From<Parts<K, V>> for Node<K, V> {
    fn from(parts: Parts<K, V>) -> Self {
        let Parts { key, mut entry, cells, lifetime, weight, now } = parts;
        entry.stale_until = entry.stale_until.max(entry.fresh_until);
        let attention_at = lifetime.attention_at.min(entry.fresh_until);
        let motion = Motion::new(&entry, lifetime, attention_at).map(Box::new);
        let quiet_until = if motion.is_some() { Moment::START } else { attention_at };
        Self {
            // No count is ever this high: the first look is a close one.
            checked_at: AtomicU64::new(u64::MAX),
            quiet_until: AtomicU64::new(quiet_until.as_nanos()),
            last_access: AtomicU64::new(now.as_nanos()),
            hits: AtomicU32::new(0),
            place: AtomicU32::new(UNLISTED),
            key,
            weight,
            fresh_until: AtomicU64::new(entry.fresh_until.as_nanos()),
            cells,
            motion,
            entry,
        }
    }
}

impl Motion {
    /// Bytes on the heap of a node in motion.
    const BYTES: usize = larder_core::allocation_size(size_of::<Self>());

    fn new<V>(entry: &Entry<V>, lifetime: Lifetime, attention_at: Moment) -> Option<Self> {
        if lifetime.idle.is_none() && lifetime.sliding.is_none() {
            return None;
        }
        let sliding = lifetime.sliding;
        let limit = sliding.map_or(Moment::NEVER, |sliding| sliding.limit);
        Some(Self {
            idle: lifetime.idle,
            base: sliding.map_or(Duration::ZERO, |sliding| sliding.base),
            limit,
            stale_window: entry.stale_until.since(entry.fresh_until),
            attention_lead: entry.fresh_until.since(attention_at),
            attention_at: AtomicU64::new(attention_at.as_nanos()),
            stale_until: AtomicU64::new(entry.stale_until.min(limit).as_nanos()),
        })
    }
}

/// Bytes on the heap that a lifetime needs beside the node.
pub(crate) fn lifetime_bytes(lifetime: &Lifetime) -> usize {
    if lifetime.idle.is_some() || lifetime.sliding.is_some() { Motion::BYTES } else { 0 }
}

/// A counted handle to a node. quick_cache has it both as key and as value: it
/// hashes and compares as the node's key.
pub(crate) struct Handle<K, V>(Arc<Node<K, V>>);

impl<K, V> Handle<K, V> {
    /// Bytes of the allocation behind a handle: the node and its count.
    pub(crate) const NODE_BYTES: usize =
        larder_core::allocation_size(size_of::<usize>() + size_of::<Node<K, V>>());

    pub(crate) fn new(node: Node<K, V>) -> Self {
        Self(Arc::new(node))
    }

    /// Whether both are handles to the very same node.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K, V> Clone for Handle<K, V> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Deref for Handle<K, V> {
    type Target = Node<K, V>;

    #[inline]
    fn deref(&self) -> &Node<K, V> {
        &self.0
    }
}

impl<K: Hash, V> Hash for Handle<K, V> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl<K: PartialEq, V> PartialEq for Handle<K, V> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Eq, V> Eq for Handle<K, V> {}

impl<K: fmt::Debug, V> fmt::Debug for Handle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.key).finish()
    }
}

/// A borrowed key to look a handle up with. Must not implement `Eq`: that would
/// bring in the blanket implementation of [`Equivalent`].
pub(crate) struct Lookup<'a, Q: ?Sized>(pub(crate) &'a Q);

impl<Q: Hash + ?Sized> Hash for Lookup<'_, Q> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K: Borrow<Q>, V, Q: Eq + ?Sized> Equivalent<Handle<K, V>> for Lookup<'_, Q> {
    #[inline]
    fn equivalent(&self, handle: &Handle<K, V>) -> bool {
        handle.fetch_value();
        handle.key.borrow() == self.0
    }
}
