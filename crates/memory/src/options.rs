use std::fmt;

use crate::budget::{Budget, Limit};
use crate::removal::RemovalListener;

/// How a [`MemoryTier`](crate::MemoryTier) is made.
#[must_use]
pub struct Options<K, V> {
    pub(crate) budget: Budget<K, V>,
    pub(crate) on_removal: Option<RemovalListener<K, V>>,
    estimated_entries: Option<u64>,
    shards: Option<usize>,
}

impl<K: 'static, V: 'static> Options<K, V> {
    /// A tier with this budget, and for all else what suits most.
    pub fn new(budget: Budget<K, V>) -> Self {
        Self { budget, on_removal: None, estimated_entries: None, shards: None }
    }

    /// Tells `listener` of every entry that leaves.
    pub fn on_removal(mut self, listener: RemovalListener<K, V>) -> Self {
        self.on_removal = Some(listener);
        self
    }

    /// How many entries to expect within the budget. Being wrong by a factor of
    /// ten does little harm: it decides how many evicted keys are remembered, and
    /// counts as no more than the budget has room for.
    pub fn estimated_entries(mut self, entries: u64) -> Self {
        self.estimated_entries = Some(entries);
        self
    }

    /// Into how many independently locked parts the tier is divided, rounded up
    /// to a power of two. An entry can be no larger than its part.
    ///
    /// Four for each core, fewer for small budgets: a part has room for 32
    /// entries, or takes no more than an eighth of its bytes for itself.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    pub(crate) fn resolve(&self) -> Layout {
        let most = self.budget.most_entries().clamp(1, MOST_ENTRIES);
        let estimated_entries =
            self.estimated_entries.unwrap_or_else(|| self.budget.estimated_entries());
        let estimated_entries = estimated_entries.clamp(1, most);
        let shards = self.shards.unwrap_or_else(default_shards).clamp(1, MOST_SHARDS);
        let mut shards = shards.next_power_of_two() as u64;
        // quick_cache does the same for what is estimated. It must not come to
        // another number, as it would divide the capacity anew and round it up.
        while shards > 1
            && (estimated_entries.div_ceil(shards) < LEAST_SHARD_ENTRIES
                || !self.has_room_for(shards))
        {
            shards /= 2;
        }
        let capacity = self.budget.capacity(shards, estimated_entries);
        // So that equal parts of it are no more than it.
        let capacity = capacity / shards * shards;
        Layout { shards: shards as usize, estimated_entries, capacity }
    }

    /// Whether so many shards are large enough each.
    fn has_room_for(&self, shards: u64) -> bool {
        match self.budget.limit() {
            Limit::Entries(entries) => entries / shards >= LEAST_SHARD_ENTRIES,
            // Whoever asks for small shards gets them, but not for nothing.
            Limit::Bytes(bytes) if self.shards.is_some() => {
                shards * Budget::<K, V>::SHARD_BYTES <= bytes / 8
            }
            Limit::Bytes(bytes) => bytes / shards > LEAST_SHARD_BYTES,
        }
    }
}

fn default_shards() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// The numbers a tier is built with.
pub(crate) struct Layout {
    pub(crate) shards: usize,
    pub(crate) estimated_entries: u64,
    pub(crate) capacity: u64,
}

/// With no more than that a shard holds too few entries to choose well whom to
/// evict.
const LEAST_SHARD_BYTES: u64 = 1 << 20;
/// With less than that where entries are counted, as quick_cache has it.
const LEAST_SHARD_ENTRIES: u64 = 32;
const MOST_SHARDS: usize = 1 << 10;
/// Indices have 32 bits.
const MOST_ENTRIES: u64 = 1 << 31;

impl<K, V> fmt::Debug for Options<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("budget", &self.budget)
            .field("on_removal", &self.on_removal.is_some())
            .field("estimated_entries", &self.estimated_entries)
            .field("shards", &self.shards)
            .finish()
    }
}
