use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use larder_core::{
    Clock, DynJournal, Error, ErrorKind, JournalOffset, JournalProfile, JournalRecord, Key, Result,
};
use xxhash_rust::xxh3::xxh3_64;

use super::fleet::Fleet;
use super::fold::weight;
use super::lane::Lane;
use super::options::BehindOptions;
use super::retry::RetryBudget;
use super::statistics::{Counters, count};
use crate::runtime::Runtime;
use crate::sync::atomic::{AtomicBool, AtomicUsize};

/// What all lanes have in common.
pub(super) struct Shared {
    pub(super) journal: Arc<dyn DynJournal>,
    pub(super) profile: JournalProfile,
    pub(super) options: BehindOptions,
    pub(super) clock: Clock,
    pub(super) runtime: Runtime,
    pub(super) counters: Counters,
    pub(super) budget: RetryBudget,
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Nothing is accepted any more.
    pub(super) is_closing: AtomicBool,
    /// Nothing is applied any more.
    is_stopped: AtomicBool,
    /// What a shared journal takes beside.
    pub(super) fleet: Fleet,
}

impl Shared {
    pub(super) fn new(
        journal: Arc<dyn DynJournal>,
        options: BehindOptions,
        clock: Clock,
        lanes: Vec<Arc<Lane>>,
    ) -> Self {
        Self {
            profile: journal.profile(),
            budget: RetryBudget::new(options.retries_per_second, &clock),
            journal,
            options,
            clock,
            runtime: Runtime::new(None),
            counters: Counters::default(),
            lanes,
            is_closing: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            fleet: Fleet::default(),
        }
    }

    /// The lane of a key, the same in every process and version.
    pub(super) fn lane(&self, key: &Key) -> &Arc<Lane> {
        let lanes = self.lanes.len() as u64;
        // Smaller than the number of lanes.
        #[allow(clippy::cast_possible_truncation, reason = "it is below a u16")]
        let number = (xxh3_64(key.as_bytes()) % lanes) as usize;
        &self.lanes[number]
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Acquire)
    }

    pub(super) fn stop(&self) {
        self.is_closing.store(true, Release);
        self.is_stopped.store(true, Release);
        for strand in self.lanes.iter().flat_map(|lane| lane.strands.values()) {
            strand.wake.notify_one();
            strand.progress.notify_waiters();
        }
        self.fleet.watch.notify_one();
        self.fleet.follow.notify_one();
    }

    /// Notes what the journal has of a lane up to here.
    pub(super) async fn note(&self, lane: &Lane, through: JournalOffset) -> Result<()> {
        lane.note(self, through).await
    }

    /// Counts a record that waits.
    pub(super) fn noted(&self, record: &JournalRecord) {
        self.counters.records.fetch_add(1, Relaxed);
        self.counters.bytes.fetch_add(weight(record), Relaxed);
    }

    /// Whether what other processes appended is noted: what waits is bounded. The
    /// records of a journal of one process had a place before they were appended.
    pub(super) fn has_room_for_others(&self) -> bool {
        !self.profile.shared
            || (self.counters.records.load(Acquire) <= self.options.queue_records_max
                && self.counters.bytes.load(Acquire) <= self.options.queue_bytes_max)
    }

    /// Gives back what finished records took.
    pub(super) fn released(&self, (records, bytes): (usize, usize)) {
        self.counters.records.fetch_sub(records, AcqRel);
        self.counters.bytes.fetch_sub(bytes, AcqRel);
    }
}

/// A place in the queue for writes that are on their way to the journal.
pub(super) struct Reservation {
    shared: Arc<Shared>,
    records: usize,
    bytes: usize,
}

impl Reservation {
    /// # Errors
    /// [`ErrorKind::Overloaded`] if there is no room.
    pub(super) fn take(shared: &Arc<Shared>, records: &[JournalRecord]) -> Result<Self> {
        let bytes = records.iter().map(weight).sum();
        let add = |counter: &AtomicUsize, by: usize| counter.fetch_add(by, AcqRel) + by;
        let all_records = add(&shared.counters.records, records.len());
        let all_bytes = add(&shared.counters.bytes, bytes);
        let taken = Self { shared: Arc::clone(shared), records: records.len(), bytes };
        let options = &shared.options;
        if all_records <= options.queue_records_max && all_bytes <= options.queue_bytes_max {
            return Ok(taken);
        }
        count(&shared.counters.refused_full, records.len());
        Err(Error::new(
            ErrorKind::Overloaded,
            "too many writes wait for their origin: it was not accepted",
        )
        .with("records", all_records)
        .with("queue_records_max", options.queue_records_max)
        .with("bytes", all_bytes)
        .with("queue_bytes_max", options.queue_bytes_max)
        .remedy("try again when the origin has taken some, or raise the bounds of the queue"))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.released((self.records, self.bytes));
    }
}

/// By cache, what writes of it are given to.
pub(super) type Targets = HashMap<Arc<str>, Arc<dyn larder_core::DynOrigin<Key, bytes::Bytes>>>;
