use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use larder_core::{DeathCause, JournalRecord};

use crate::operation::{Checkpoint, LaneCheckpoint, Operation};

/// What the log comes to: all that waits, in memory. Only what is durable is here.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// Bytes of records and dead letters.
    pub(crate) bytes: u64,
    pub(crate) records: usize,
    pub(crate) letters: usize,
    /// Dead letters that are told of and were not seen: while the log is read.
    phantoms: HashSet<(u16, u64)>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) trimmed: u64,
    /// The offset of the next record.
    pub(crate) next: u64,
    pub(crate) records: BTreeMap<u64, Item>,
    pub(crate) letters: BTreeMap<u64, Letter>,
    /// Dropped dead letters above what is trimmed: places that are rightly empty.
    pub(crate) gone: BTreeSet<u64>,
}

/// A record that is held.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) record: Arc<JournalRecord>,
    /// In microseconds of the journal's time.
    pub(crate) accepted: u64,
    bytes: u64,
    segment: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) item: Item,
    pub(crate) cause: DeathCause,
    pub(crate) reason: Arc<str>,
}

impl Letter {
    /// What it takes of the journal's room.
    pub(crate) const fn bytes(&self) -> u64 {
        self.item.bytes
    }
}

/// A file of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    /// How long it is.
    pub(crate) bytes: u64,
    /// How many items are in it that are held.
    pub(crate) live: usize,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            trimmed: 0,
            next: 1,
            records: BTreeMap::new(),
            letters: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl State {
    /// Makes room for at least this many lanes. Those that there were stay: an
    /// origin may remember their offsets.
    pub(crate) fn grow(&mut self, lanes: u16) {
        let lanes = usize::from(lanes).max(self.lanes.len());
        self.lanes.resize_with(lanes, Lane::default);
    }

    /// Does what stands in a segment of the log.
    pub(crate) fn apply(&mut self, operation: Operation, segment: u64) {
        match operation {
            Operation::Checkpoint(checkpoint) => self.apply_checkpoint(&checkpoint),
            Operation::Append { lane, offset, accepted, record } => {
                self.append(lane, offset, item(record, accepted, segment));
            }
            Operation::Bury { lane, offset, cause, reason } => {
                self.bury(lane, offset, cause, reason);
            }
            Operation::Letter { lane, offset, accepted, record, cause, reason } => {
                let letter = Letter { item: item(record, accepted, segment), cause, reason };
                self.put_letter(lane, offset, letter);
            }
            Operation::Trim { lane, through } => self.trim(lane, through),
            Operation::Forget { lane, offset } => self.forget(lane, offset),
        }
    }

    pub(crate) fn lane(&self, lane: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(lane))
    }

    /// What the next segment begins with, of the lanes.
    pub(crate) fn lane_checkpoints(&self) -> Vec<LaneCheckpoint> {
        let checkpoint = |lane: &Lane| LaneCheckpoint {
            trimmed: lane.trimmed,
            next: lane.next,
            dead: lane.letters.keys().copied().collect(),
            gone: lane.gone.iter().copied().collect(),
        };
        self.lanes.iter().map(checkpoint).collect()
    }

    /// What writes every item again that is in a segment up to this one.
    pub(crate) fn carry(&self, through_segment: u64) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (lane, held) in (0..).zip(&self.lanes) {
            let is_in = |item: &Item| item.segment <= through_segment;
            for (offset, item) in held.records.iter().filter(|(_, item)| is_in(item)) {
                let record = Arc::clone(&item.record);
                let (offset, accepted) = (*offset, item.accepted);
                operations.push(Operation::Append { lane, offset, accepted, record });
            }
            for (offset, letter) in held.letters.iter().filter(|(_, letter)| is_in(&letter.item)) {
                operations.push(Operation::Letter {
                    lane,
                    offset: *offset,
                    accepted: letter.item.accepted,
                    record: Arc::clone(&letter.item.record),
                    cause: letter.cause,
                    reason: Arc::clone(&letter.reason),
                });
            }
        }
        operations
    }

    /// What must be there and is not, once the whole log was read: offsets of
    /// records and of dead letters, by lane.
    pub(crate) fn missing(&self) -> Vec<(u16, u64)> {
        let mut missing: Vec<(u16, u64)> = self.phantoms.iter().copied().collect();
        for (lane, held) in (0..).zip(&self.lanes) {
            let mut expected = held.trimmed.saturating_add(1);
            let known = held.records.keys().chain(held.letters.keys()).chain(&held.gone);
            let known: BTreeSet<u64> = known.copied().filter(|at| *at > held.trimmed).collect();
            for offset in known.into_iter().chain([held.next]) {
                // As many as are told one by one; the first ones say enough.
                missing.extend((expected..offset).take(MISSING_TOLD_MAX).map(|at| (lane, at)));
                expected = offset.saturating_add(1);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Gives up what is missing: its places stay empty.
    pub(crate) fn forget_missing(&mut self) {
        self.phantoms.clear();
        for lane in &mut self.lanes {
            let known = |at: &u64| lane.records.contains_key(at) || lane.letters.contains_key(at);
            let first = lane.records.keys().next().copied().unwrap_or(lane.next);
            // Below the first record nothing is left to be trimmed.
            let gone = (first..lane.next).filter(|at| !known(at)).take(GIVEN_UP_MAX);
            lane.gone = gone.collect();
            lane.trimmed = lane.trimmed.max(first.saturating_sub(1));
        }
    }

    fn apply_checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.grow(u16::try_from(checkpoint.lanes.len()).unwrap_or(u16::MAX));
        for (number, told) in (0..).zip(&checkpoint.lanes) {
            self.trim(number, told.trimmed);
            let lane = &mut self.lanes[usize::from(number)];
            lane.next = lane.next.max(told.next);
            lane.gone.extend(told.gone.iter().filter(|at| **at > lane.trimmed));
            let unseen = told.dead.iter().filter(|at| !lane.letters.contains_key(at));
            self.phantoms.extend(unseen.map(|at| (number, *at)));
        }
    }

    fn append(&mut self, lane: u16, offset: u64, item: Item) {
        self.grow(lane.saturating_add(1));
        let held = &mut self.lanes[usize::from(lane)];
        held.next = held.next.max(offset.saturating_add(1));
        if offset <= held.trimmed || held.letters.contains_key(&offset) {
            return;
        }
        self.count(&item);
        self.records += 1;
        let held = &mut self.lanes[usize::from(lane)];
        if let Some(before) = held.records.insert(offset, item) {
            self.uncount(&before);
            self.records -= 1;
        }
    }

    fn put_letter(&mut self, lane: u16, offset: u64, letter: Letter) {
        self.grow(lane.saturating_add(1));
        self.phantoms.remove(&(lane, offset));
        let held = &mut self.lanes[usize::from(lane)];
        held.next = held.next.max(offset.saturating_add(1));
        self.count(&letter.item);
        self.letters += 1;
        let held = &mut self.lanes[usize::from(lane)];
        let was_record = held.records.remove(&offset);
        let was_letter = held.letters.insert(offset, letter);
        self.records -= usize::from(was_record.is_some());
        self.letters -= usize::from(was_letter.is_some());
        for before in was_record.into_iter().chain(was_letter.map(|letter| letter.item)) {
            self.uncount(&before);
        }
    }

    fn bury(&mut self, lane: u16, offset: u64, cause: DeathCause, reason: Arc<str>) {
        let Some(held) = self.lanes.get_mut(usize::from(lane)) else { return };
        if let Some(item) = held.records.remove(&offset) {
            held.letters.insert(offset, Letter { item, cause, reason });
            self.records -= 1;
            self.letters += 1;
        } else if !held.letters.contains_key(&offset) {
            self.phantoms.insert((lane, offset));
        }
    }

    fn trim(&mut self, lane: u16, through: u64) {
        let Some(held) = self.lanes.get_mut(usize::from(lane)) else { return };
        if through <= held.trimmed {
            return;
        }
        held.trimmed = through;
        held.next = held.next.max(through.saturating_add(1));
        held.gone.retain(|at| *at > through);
        let kept = held.records.split_off(&through.saturating_add(1));
        let trimmed = std::mem::replace(&mut held.records, kept);
        self.records -= trimmed.len();
        trimmed.values().for_each(|item| self.uncount(item));
    }

    fn forget(&mut self, lane: u16, offset: u64) {
        self.phantoms.remove(&(lane, offset));
        let Some(held) = self.lanes.get_mut(usize::from(lane)) else { return };
        if offset > held.trimmed {
            held.gone.insert(offset);
        }
        if let Some(letter) = held.letters.remove(&offset) {
            self.letters -= 1;
            self.uncount(&letter.item);
        }
    }

    fn count(&mut self, item: &Item) {
        self.bytes += item.bytes;
        self.segments.entry(item.segment).or_default().live += 1;
    }

    fn uncount(&mut self, item: &Item) {
        self.bytes -= item.bytes;
        if let Some(segment) = self.segments.get_mut(&item.segment) {
            segment.live -= 1;
        }
    }
}

const MISSING_TOLD_MAX: usize = 1000;
/// A file that tells of more is not one of ours.
const GIVEN_UP_MAX: usize = 1 << 20;

fn item(record: Arc<JournalRecord>, accepted: u64, segment: u64) -> Item {
    let bytes = Operation::append_bytes(&record) as u64;
    Item { record, accepted, bytes, segment }
}
