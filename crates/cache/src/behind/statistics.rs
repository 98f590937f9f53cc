use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use larder_core::{Error, JournalUsage};

use crate::sync::atomic::{AtomicU64, AtomicUsize};

/// What write-behind did and has to do. Counters are of this process.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BehindStatistics {
    /// Writes acknowledged.
    pub accepted: u64,
    /// Writes refused because the queue or the journal was full.
    pub refused_full: u64,
    /// Acknowledged writes that the origin has.
    pub applied: u64,
    /// Of these, how many were not sent because a later one said the same and
    /// more.
    pub coalesced: u64,
    /// Writes sent and committed.
    pub written: u64,
    /// Transactions, or calls of an origin that has none.
    pub batches: u64,
    /// Calls that failed and were or will be tried again.
    pub retries: u64,
    /// How often it was unknown whether a batch had happened.
    pub doubts: u64,
    /// Writes that became dead letters.
    pub buried: u64,
    /// Records that wait.
    pub depth_records: usize,
    /// Bytes of keys and values that wait.
    pub depth_bytes: usize,
    /// The age of the oldest record that waits: the lag.
    pub oldest_age: Duration,
    /// How often what this process did to a lane of a shared journal was refused,
    /// most often by the origin, because another one had claimed it meanwhile.
    pub fenced: u64,
    /// How many lanes this process applies: all, unless the journal is shared.
    pub lanes_held: usize,
    /// How many processes share the journal, as far as is known here.
    pub nodes: usize,
    /// The journal.
    pub journal: JournalUsage,
    /// The lanes in which something waits, or that have stopped, by cache.
    pub lanes: Vec<BehindLane>,
}

/// The writes of one cache in one lane.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BehindLane {
    /// The cache.
    pub cache: String,
    /// The lane.
    pub lane: u16,
    /// Records that wait.
    pub records: usize,
    /// The age of the oldest.
    pub oldest_age: Duration,
    /// Why the last try failed, while it is tried again.
    pub failing: Option<Error>,
    /// Why it has stopped for good: another owner has the lane.
    pub stopped: Option<Error>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) coalesced: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) doubts: AtomicU64,
    pub(super) buried: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) records: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

impl Counters {
    pub(super) fn read(&self) -> BehindStatistics {
        BehindStatistics {
            accepted: self.accepted.load(Relaxed),
            refused_full: self.refused_full.load(Relaxed),
            applied: self.applied.load(Relaxed),
            coalesced: self.coalesced.load(Relaxed),
            written: self.written.load(Relaxed),
            batches: self.batches.load(Relaxed),
            retries: self.retries.load(Relaxed),
            doubts: self.doubts.load(Relaxed),
            buried: self.buried.load(Relaxed),
            fenced: self.fenced.load(Relaxed),
            depth_records: self.records.load(Relaxed),
            depth_bytes: self.bytes.load(Relaxed),
            ..BehindStatistics::default()
        }
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}
