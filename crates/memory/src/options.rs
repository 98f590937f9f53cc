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
    /// ten does little harm: it decides how many evicted keys are remembered.
    pub fn estimated_entries(mut self, entries: u64) -> Self {
        self.estimated_entries = Some(entries);
        self
    }

    /// Into how many independently locked parts the tier is divided, rounded up
    /// to a power of two. An entry can be no larger than its part.
    ///
    /// Four for each core, fewer for small budgets.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    pub(crate) fn resolve(&self) -> Layout {
        let estimated_entries = self
            .estimated_entries
            .unwrap_or_else(|| self.budget.estimated_entries())
            .clamp(1, MOST_ENTRIES);
        let shards = self.shards.unwrap_or_else(|| self.default_shards());
        let shards = shards.clamp(1, MOST_SHARDS).next_power_of_two();
        let capacity = self.budget.capacity(shards as u64, estimated_entries);
        Layout { shards, estimated_entries, capacity }
    }

    fn default_shards(&self) -> usize {
        let wanted = 4 * std::thread::available_parallelism().map_or(1, usize::from);
        match self.budget.limit() {
            Limit::Entries(_) => wanted,
            Limit::Bytes(bytes) => {
                let affordable = usize::try_from(bytes / LEAST_SHARD_BYTES).unwrap_or(wanted);
                // Rounded down, as the number of shards is rounded up later.
                wanted.min(affordable.max(1).next_power_of_two() / 2).max(1)
            }
        }
    }
}

/// The numbers a tier is built with.
pub(crate) struct Layout {
    pub(crate) shards: usize,
    pub(crate) estimated_entries: u64,
    pub(crate) capacity: u64,
}

/// Below that a shard holds too few entries to choose well whom to evict.
const LEAST_SHARD_BYTES: u64 = 1 << 20;
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
