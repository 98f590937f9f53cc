use super::Keyspace;

/// What a keyspace holds and what has happened in it since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyspaceStatistics {
    /// Entries, those included that have expired and not yet been removed.
    pub keys: u64,
    /// Those of them that expire.
    pub volatile_keys: u64,
    /// What the allocator has handed out for entries and tables, to the byte
    /// by its size classes.
    pub bytes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Entries removed because their time had come.
    pub expired: u64,
    /// Entries removed because of the memory limit.
    pub evicted: u64,
}

impl Keyspace {
    /// The counts, summed over the shards one after the other: exact when
    /// nothing happens meanwhile. Costs some ten microseconds.
    #[must_use]
    pub fn statistics(&self) -> KeyspaceStatistics {
        let mut sum = KeyspaceStatistics::default();
        for shard in &self.shards {
            let guard = shard.0.lock();
            let shard = guard.borrow();
            sum.keys += shard.table.len() as u64;
            sum.volatile_keys += shard.table.volatile_len() as u64;
            sum.bytes += shard.table.bytes() as u64;
            sum.hits += shard.counters.hits;
            sum.misses += shard.counters.misses;
            sum.expired += shard.counters.expired;
            sum.evicted += shard.counters.evicted;
        }
        sum
    }

    /// How many entries there are, those included that have expired and not yet
    /// been removed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.statistics().keys
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What entries and tables take, in bytes, at the cost of one load. Behind
    /// [`KeyspaceStatistics::bytes`] by at most 1/64 of the memory limit, or
    /// 64 KiB a shard where there is none.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let bytes = self.used_bytes.load(std::sync::atomic::Ordering::Relaxed);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Sets hits, misses, expired and evicted back to 0.
    pub fn reset_statistics(&self) {
        for shard in &self.shards {
            let guard = shard.0.lock();
            guard.borrow_mut().counters = super::shard::Counters::default();
        }
    }
}
