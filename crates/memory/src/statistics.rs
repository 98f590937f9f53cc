use crate::RemovalCause;
use crate::budget::Limit;

/// What a memory tier holds and what became of what it held.
///
/// Reading it takes each shard's lock once, for a few instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryStatistics {
    /// Entries held, those included whose time is up but that are not yet
    /// reclaimed.
    pub entries: u64,
    /// Bytes counted against the budget: keys, values and bookkeeping. Zero if
    /// the budget counts entries, as nothing is weighed then.
    pub bytes: u64,
    /// What the tier may hold.
    pub limit: Limit,
    /// The heaviest entry that is kept, in bytes (entries, if the budget counts
    /// those): a heavier one is rejected.
    pub largest_entry: u64,
    /// Entries that left, by cause.
    pub removals: RemovalCounts,
    /// Entries that were never held because they are heavier than
    /// `largest_entry`.
    pub rejected: u64,
    /// Tags with a watermark in memory.
    pub tags: u64,
}

/// Entries that left a memory tier, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RemovalCounts([u64; RemovalCause::ALL.len()]);

impl RemovalCounts {
    /// Entries that left for this cause.
    #[must_use]
    pub const fn of(&self, cause: RemovalCause) -> u64 {
        self.0[cause as usize]
    }

    /// Entries that left for any cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, cause: RemovalCause) {
        self.0[cause as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// What one call of [`MemoryTier::sweep`](crate::MemoryTier::sweep) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Entries reclaimed because their time was up.
    pub expired: usize,
    /// Entries reclaimed because they were cleared or their tag was removed.
    pub invalidated: usize,
    /// Whether the bound was reached: sweep again soon.
    pub more: bool,
}
