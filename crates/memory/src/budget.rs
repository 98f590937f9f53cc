use std::fmt;

use larder_core::{Entry, HeapSize};

use crate::node::Handle;
use crate::wheel::Wheel;

/// How much a memory tier may hold.
pub struct Budget<K, V> {
    limit: Limit,
    heap: Heap<K, V>,
}

/// Tells what a key, and its value if it has one, own on the heap.
type Heap<K, V> = Box<dyn Fn(&K, Option<&V>) -> usize + Send + Sync>;

/// The size of a budget and its unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// So many entries, of whatever size.
    Entries(u64),
    /// So many bytes of keys, values and bookkeeping.
    Bytes(u64),
}

impl<K: 'static, V: 'static> Budget<K, V> {
    /// At most this many entries.
    #[must_use]
    pub fn entries(limit: u64) -> Self {
        Self { limit: Limit::Entries(limit), heap: Box::new(|_, _| 0) }
    }

    /// The smallest budget of bytes that keeps an entry of these types at all: one
    /// whose key and value own a few hundred bytes on the heap. A cache with less
    /// would do all the work of one and never hit.
    #[must_use]
    pub const fn smallest_bytes() -> u64 {
        // What `capacity` takes off for one shard, and a part for tags and for
        // what quick_cache does not give to a single entry.
        let entry = Self::ENTRY_BYTES + GUESSED_HEAP_BYTES;
        (Self::SHARD_BYTES + Self::GHOST_BYTES + entry) * 9 / 8
    }

    /// At most this many bytes, of which keys and values say themselves what
    /// they own on the heap. Everything else the tier needs for an entry is
    /// counted as well.
    #[must_use]
    pub fn bytes(limit: u64) -> Self
    where
        K: HeapSize,
        V: HeapSize,
    {
        Self::bytes_by(limit, |key: &K, value: Option<&V>| {
            key.heap_size() + value.map_or(0, V::heap_size)
        })
    }

    /// At most this many bytes, where `heap` tells the bytes that key and value
    /// together own on the heap. It is called once for each insertion.
    ///
    /// There is no value where the entry records the absence of one. Its key has
    /// to be counted all the same: clients may choose long keys that do not exist.
    #[must_use]
    pub fn bytes_by(
        limit: u64,
        heap: impl Fn(&K, Option<&V>) -> usize + Send + Sync + 'static,
    ) -> Self {
        Self { limit: Limit::Bytes(limit), heap: Box::new(heap) }
    }

    /// The size and unit.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// What an entry counts, given the bytes that its tags and lifetime own.
    pub(crate) fn weigh(&self, key: &K, entry: &Entry<V>, owned_bytes: usize) -> u64 {
        if let Limit::Entries(_) = self.limit {
            return 1;
        }
        let heap = (self.heap)(key, entry.value.as_option());
        (heap.saturating_add(owned_bytes) as u64).saturating_add(Self::ENTRY_BYTES)
    }

    /// Bytes that every entry takes, without what key, value and tags own.
    const ENTRY_BYTES: u64 = (Handle::<K, V>::NODE_BYTES + Self::PLACE_BYTES) as u64;

    /// Bytes that a shard takes without any entry.
    pub(crate) const SHARD_BYTES: u64 =
        (Wheel::<Handle<K, V>>::EMPTY_BYTES + LOCKS_AND_HEADERS_BYTES) as u64;

    /// Bytes that quick_cache needs to remember one evicted key.
    const GHOST_BYTES: u64 = ((SLAB_SLOT_BYTES + TABLE_SLOT_BYTES) * 7 / 4) as u64;

    /// Bytes that the cache and the roster need to keep one node: a slot of
    /// quick_cache's slab and of its table, and a place of the wheel.
    ///
    /// All of them grow by doubling, and all shards at about the same time. So
    /// they are counted as little more than half full: a budget that over-counts
    /// holds, one that under-counts does not.
    const PLACE_BYTES: usize =
        (SLAB_SLOT_BYTES + Wheel::<Handle<K, V>>::PLACE_BYTES + TABLE_SLOT_BYTES) * 7 / 4;

    /// A guess at how many entries the budget has room for.
    pub(crate) fn estimated_entries(&self) -> u64 {
        match self.limit {
            Limit::Entries(entries) => entries,
            Limit::Bytes(bytes) => bytes / (Self::ENTRY_BYTES + GUESSED_HEAP_BYTES),
        }
    }

    /// How many entries fit, if they own nothing on the heap.
    pub(crate) fn most_entries(&self) -> u64 {
        match self.limit {
            Limit::Entries(entries) => entries,
            Limit::Bytes(bytes) => bytes / Self::ENTRY_BYTES,
        }
    }

    /// What tags without entries may take: loads under way may bring them.
    pub(crate) fn spare_tag_bytes(&self) -> u64 {
        match self.limit {
            Limit::Entries(entries) => entries.saturating_mul(16).clamp(1 << 20, MOST_SPARE),
            // A small budget is to have room for some hundred tags, too.
            Limit::Bytes(bytes) => (bytes / 64).max((bytes / 32).min(64 << 10)).min(MOST_SPARE),
        }
    }

    /// What the cache may hold so that with `shards` shards and the memory of
    /// keys evicted lately the budget is kept.
    pub(crate) fn capacity(&self, shards: u64, estimated_entries: u64) -> u64 {
        match self.limit {
            Limit::Entries(entries) => entries,
            Limit::Bytes(bytes) => {
                let ghosts = (estimated_entries as f64 * GHOST_ALLOCATION) as u64;
                bytes
                    .saturating_sub(shards * Self::SHARD_BYTES)
                    .saturating_sub(ghosts * Self::GHOST_BYTES)
                    .saturating_sub(self.spare_tag_bytes())
            }
        }
    }
}

/// A slot of quick_cache's slab with two handles in it.
const SLAB_SLOT_BYTES: usize = 40;
/// An index and a control byte.
const TABLE_SLOT_BYTES: usize = 5;
/// The locks, counters and table headers of one shard.
const LOCKS_AND_HEADERS_BYTES: usize = 512;
const MOST_SPARE: u64 = 16 << 20;
const GUESSED_HEAP_BYTES: u64 = 256;
/// How many evicted keys are remembered for each entry held.
pub(crate) const GHOST_ALLOCATION: f64 = 0.5;

impl<K, V> fmt::Debug for Budget<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.limit).finish()
    }
}
