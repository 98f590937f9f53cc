use std::time::Duration;

use larder_memory::MemoryStatistics;

use super::Latency;

/// What a cache has done since it was built (O1). Counts only grow.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Reads answered from memory, fresh.
    pub hits: u64,
    /// Reads answered stale while a refresh ran.
    pub stale_revalidating: u64,
    /// Reads answered stale because the origin failed.
    pub stale_origin_failed: u64,
    /// Reads answered stale because the origin was slow.
    pub stale_soft_timeout: u64,
    /// Reads answered by a load that took longer than its answer holds.
    pub stale_slow_load: u64,
    /// Reads answered stale because a gradual invalidation is under way.
    pub stale_suspect: u64,
    /// Reads answered with what was computed from something stale.
    pub stale_derived: u64,
    /// The oldest answer served stale.
    pub stale_age_max: Duration,
    /// Reads that do not load and found nothing.
    pub misses: u64,
    /// Reads answered by a store below memory.
    pub store_answers: u64,
    /// Reads answered by a load that they began.
    pub load_answers: u64,
    /// Reads answered by a load that another had begun.
    pub joined_answers: u64,
    /// Reads answered with the declared fallback.
    pub fallbacks: u64,
    /// Reads that ended in an error.
    pub failures: u64,
    /// Loads that finished, each key of a batch counted.
    pub loads: u64,
    /// Loads that failed, other than by the next three: whatever a loader answers
    /// with is counted here, were it a timeout of its own.
    pub load_failures: u64,
    /// Loads cancelled at their hard timeout.
    pub load_timeouts: u64,
    /// Loaders that panicked.
    pub load_panics: u64,
    /// Loads not made because the breaker was open.
    pub loads_refused_by_breaker: u64,
    /// Refreshes begun in the background.
    pub refreshes: u64,
    /// Refreshes that were due and skipped.
    pub refreshes_skipped: u64,
    /// Loads whose answer was not kept because an invalidation or a write came
    /// in between.
    pub fills_fenced: u64,
    /// Values put.
    pub puts: u64,
    /// Values changed in place.
    pub updates: u64,
    /// Keys that the origin has committed a write of.
    pub writes: u64,
    /// Keys expired.
    pub expired_keys: u64,
    /// Keys removed.
    pub removed_keys: u64,
    /// Tags expired.
    pub expired_tags: u64,
    /// Tags removed.
    pub removed_tags: u64,
    /// Times the cache was cleared.
    pub clears: u64,
    /// How long hits in memory took, one in 1024 measured.
    pub hit_latency: Latency,
    /// How long loads took.
    pub load_latency: Latency,
    /// Loads running now.
    pub loads_in_flight: u64,
    /// What memory holds.
    pub memory: MemoryStatistics,
}

impl Statistics {
    /// Reads, however they ended.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.hits
            + self.stale()
            + self.misses
            + self.store_answers
            + self.load_answers
            + self.joined_answers
            + self.fallbacks
            + self.failures
    }

    /// Reads answered stale, whatever the reason.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale_from_memory() + self.stale_slow_load + self.stale_derived
    }

    /// The share of reads answered from memory, fresh or stale. `None` before the
    /// first read.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let requests = self.requests();
        (requests > 0).then(|| (self.hits + self.stale_from_memory()) as f64 / requests as f64)
    }

    fn stale_from_memory(&self) -> u64 {
        self.stale_revalidating
            + self.stale_origin_failed
            + self.stale_soft_timeout
            + self.stale_suspect
    }
}
