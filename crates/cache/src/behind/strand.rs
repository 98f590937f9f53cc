use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    DynOrigin, Error, JournalEntry, JournalOffset, JournalRecord, Key, LaneMark, Moment,
    WriteAbilities,
};
use tokio::sync::Notify;

use super::attendant::Attention;
use super::fold::{Batch, BatchLimits, weight};
use super::pending::Pending;
use crate::sync::Mutex;

/// The writes of one cache in one lane. They are applied by one task, in order.
///
/// Each has a mark of its own at the origin, because a mark says "all up to
/// here": caches that share a database must not speak for each other.
pub(super) struct Strand {
    pub(super) cache: Arc<str>,
    pub(super) lane: u16,
    /// The journal's name in marks.
    pub(super) mark_name: Arc<str>,
    pub(super) origin: Arc<dyn DynOrigin<Key, Bytes>>,
    pub(super) abilities: WriteAbilities,
    state: Mutex<StrandState>,
    /// Wakes the task.
    pub(super) wake: Notify,
    /// Wakes who waits for a flush.
    pub(super) progress: Notify,
    /// The cache whose writes these are.
    pub(super) attention: Attention,
    /// Held by the task: the next one begins when the last one has ended.
    pub(super) working: tokio::sync::Mutex<()>,
}

struct StrandState {
    queue: BTreeMap<u64, Waiting>,
    view: HashMap<Key, Dirty>,
    /// Somebody waits for all up to here.
    flush_to: u64,
    phase: Phase,
    failing: Option<Error>,
}

/// A key of which writes wait.
struct Dirty {
    pending: Pending,
    offsets: BTreeSet<u64>,
    applying: bool,
}

impl Default for Dirty {
    fn default() -> Self {
        Self { pending: Pending::new(), offsets: BTreeSet::new(), applying: false }
    }
}

struct Waiting {
    record: JournalRecord,
    accepted_at: Moment,
}

/// What the task of a strand does.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Another process applies the lane, or nobody does yet.
    Following,
    /// It has not heard yet what the origin has.
    TakingOver,
    Running,
    /// It has stopped for good: another owner, or an origin that does not do what
    /// it said. Nothing is lost, and nothing is accepted.
    Stopped(Error),
}

/// A strand at a glance.
pub(super) struct Glance {
    pub(super) records: usize,
    pub(super) oldest_age: Duration,
    pub(super) failing: Option<Error>,
}

impl Strand {
    pub(super) fn new(
        cache: Arc<str>,
        lane: u16,
        mark_name: Arc<str>,
        origin: Arc<dyn DynOrigin<Key, Bytes>>,
    ) -> Self {
        let state = StrandState {
            queue: BTreeMap::new(),
            view: HashMap::new(),
            flush_to: 0,
            phase: Phase::Following,
            failing: None,
        };
        Self {
            abilities: origin.write_abilities(),
            cache,
            lane,
            mark_name,
            origin,
            state: Mutex::new(state),
            wake: Notify::new(),
            progress: Notify::new(),
            attention: Attention::new(),
            working: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn mark(&self, epoch: u64, applied: u64) -> LaneMark {
        let journal = Arc::clone(&self.mark_name);
        LaneMark { journal, lane: self.lane, epoch, applied: JournalOffset(applied) }
    }

    /// Takes a record that the journal has.
    pub(super) fn note(&self, entry: JournalEntry, now: Moment, batch_records: usize) {
        let accepted_at = now - entry.record.age;
        let offset = entry.offset.0;
        let mut state = self.state.lock();
        let dirty = state.view.entry(entry.record.write.key.clone()).or_default();
        dirty.pending.push(offset, &entry.record);
        dirty.offsets.insert(offset);
        state.queue.insert(offset, Waiting { record: entry.record, accepted_at });
        let wakes = state.queue.len() == 1 || state.queue.len() >= batch_records;
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// What is applied next.
    pub(super) fn next_batch(&self, limits: BatchLimits<'_>) -> Batch {
        let state = self.state.lock();
        let barrier = (state.flush_to > 0).then_some(state.flush_to);
        // Behind the barrier nothing is urgent; before it, nothing else is.
        let barrier =
            barrier.filter(|to| state.queue.first_key_value().is_some_and(|(at, _)| at <= to));
        let records = state.queue.iter().map(|(at, waiting)| (*at, &waiting.record));
        Batch::take(records, BatchLimits { barrier, ..limits })
    }

    /// When something is to be applied: now if it is overdue, asked for or enough;
    /// `None` if nothing waits.
    pub(super) fn due_at(&self, batch_records: usize, delay: Duration) -> Option<Moment> {
        let state = self.state.lock();
        let (first, oldest) = state.queue.first_key_value()?;
        let is_due = *first <= state.flush_to || state.queue.len() >= batch_records;
        Some(if is_due { Moment::START } else { oldest.accepted_at + delay })
    }

    /// Forgets records that the origin has, or that are dead letters. What is
    /// pending of their keys is told anew without them. Returns how many records
    /// and bytes waited.
    pub(super) fn finish(&self, offsets: impl IntoIterator<Item = u64>) -> (usize, usize) {
        let (mut records, mut bytes) = (0, 0);
        let mut state = self.state.lock();
        let StrandState { queue, view, .. } = &mut *state;
        let mut touched = HashSet::new();
        for offset in offsets {
            let Some(done) = queue.remove(&offset) else { continue };
            records += 1;
            bytes += weight(&done.record);
            let key = done.record.write.key;
            if let Some(dirty) = view.get_mut(&key) {
                dirty.offsets.remove(&offset);
            }
            touched.insert(key);
        }
        for key in touched {
            let Some(dirty) = view.get_mut(&key) else { continue };
            if dirty.offsets.is_empty() {
                view.remove(&key);
                continue;
            }
            dirty.pending = Pending::new();
            for offset in &dirty.offsets {
                if let Some(waiting) = queue.get(offset) {
                    dirty.pending.push(*offset, &waiting.record);
                }
            }
        }
        drop(state);
        self.progress.notify_waiters();
        (records, bytes)
    }

    /// Forgets what another process has applied: all up to here.
    pub(super) fn forget_through(&self, trimmed: u64) -> (usize, usize) {
        let offsets: Vec<u64> = {
            let state = self.state.lock();
            state.queue.range(..=trimmed).map(|(at, _)| *at).collect()
        };
        if offsets.is_empty() { (0, 0) } else { self.finish(offsets) }
    }

    /// Says of keys whether writes of theirs are on their way to the origin.
    pub(super) fn set_applying<'k>(&self, keys: impl Iterator<Item = &'k Key>, applying: bool) {
        let mut state = self.state.lock();
        for key in keys {
            if let Some(dirty) = state.view.get_mut(key) {
                dirty.applying = applying;
            }
        }
        drop(state);
        if !applying {
            self.progress.notify_waiters();
        }
    }

    pub(super) fn record(&self, offset: u64) -> Option<JournalRecord> {
        self.state.lock().queue.get(&offset).map(|waiting| waiting.record.clone())
    }

    /// The records up to and including this one.
    pub(super) fn through(&self, offset: u64) -> Vec<(u64, JournalRecord)> {
        let state = self.state.lock();
        let records = state.queue.range(..=offset);
        records.map(|(at, waiting)| (*at, waiting.record.clone())).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// The first record that waits.
    pub(super) fn first(&self) -> Option<u64> {
        self.state.lock().queue.first_key_value().map(|(at, _)| *at)
    }

    pub(super) fn pending(&self, key: &Key) -> Option<Pending> {
        let state = self.state.lock();
        let dirty = state.view.get(key)?;
        let mut pending = dirty.pending.clone();
        // What another process does just now is not known here.
        pending.applying = dirty.applying || matches!(state.phase, Phase::Following);
        pending.certain &= matches!(state.phase, Phase::Running);
        Some(pending)
    }

    /// Asks for all up to this record to be applied now.
    pub(super) fn flush(&self, to: u64) {
        let mut state = self.state.lock();
        state.flush_to = state.flush_to.max(to);
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.progress.notify_waiters();
    }

    /// Why nothing is applied any more, if so.
    pub(super) fn stopped(&self) -> Option<Error> {
        match &self.state.lock().phase {
            Phase::Stopped(error) => Some(error.clone()),
            _ => None,
        }
    }

    pub(super) fn set_failing(&self, failing: Option<Error>) {
        self.state.lock().failing = failing;
    }

    pub(super) fn glance(&self, now: Moment) -> Glance {
        let state = self.state.lock();
        let oldest = state.queue.values().next();
        Glance {
            records: state.queue.len(),
            oldest_age: oldest.map_or(Duration::ZERO, |oldest| now.since(oldest.accepted_at)),
            failing: state.failing.clone(),
        }
    }
}
