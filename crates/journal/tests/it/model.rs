//! What a journal must hold, kept beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_core::{
    Action, Death, DeathCause, ErrorKind, Journal, JournalOffset, JournalRecord, Key, Result,
    Version, Write,
};
use larder_journal::DiskJournal;

pub(crate) const LANES: u16 = 3;

/// A journal as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Model {
    pub(crate) lanes: [LaneModel; LANES as usize],
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LaneModel {
    /// By offset, which value was written.
    pub(crate) records: BTreeMap<u64, u64>,
    pub(crate) letters: BTreeMap<u64, u64>,
}

/// What is done to a journal in one step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append { lane: u16, first: u64, count: u64 },
    Trim { lane: u16, through: u64 },
    Bury { lane: u16, offset: u64 },
    Replay { lane: u16, offset: u64 },
    Drop { lane: u16, offset: u64 },
}

/// What became of a step.
#[derive(Debug)]
pub(crate) enum Done {
    /// The last offset, for what appends.
    Yes(u64),
    No,
    Perhaps,
}

impl Model {
    /// Something to do with what is there.
    pub(crate) fn any_step(&self, next_value: &mut u64, random: &mut fastrand::Rng) -> Step {
        let lane = random.u16(..LANES);
        let held = &self.lanes[usize::from(lane)];
        let record = random.choice(held.records.keys()).copied();
        let letter = random.choice(held.letters.keys()).copied();
        match (random.u8(..10), record, letter) {
            (0..2, Some(through), _) => Step::Trim { lane, through },
            (2, Some(offset), _) => Step::Bury { lane, offset },
            (3, _, Some(offset)) => Step::Replay { lane, offset },
            (4, _, Some(offset)) => Step::Drop { lane, offset },
            _ => {
                let (first, count) = (*next_value, random.u64(1..4));
                *next_value += count;
                Step::Append { lane, first, count }
            }
        }
    }

    /// Takes note of a step that happened and gave this as the last offset.
    pub(crate) fn note(&mut self, step: &Step, last: u64) {
        match *step {
            Step::Append { lane, first, count } => {
                let values = (first..first + count).enumerate();
                let offset = |index| last + 1 - count + index as u64;
                let records = values.map(|(index, value)| (offset(index), value));
                self.lane(lane).records.extend(records);
            }
            Step::Trim { lane, through } => {
                self.lane(lane).records.retain(|offset, _| *offset > through);
            }
            Step::Bury { lane, offset } => {
                let value = self.lane(lane).records.remove(&offset).expect("it was there");
                self.lane(lane).letters.insert(offset, value);
            }
            Step::Replay { lane, offset } => {
                let value = self.lane(lane).letters.remove(&offset).expect("it was there");
                self.lane(lane).records.insert(last, value);
            }
            Step::Drop { lane, offset } => drop(self.lane(lane).letters.remove(&offset)),
        }
    }

    /// What the journal holds.
    pub(crate) async fn of(journal: &DiskJournal) -> Self {
        let mut model = Self::default();
        for lane in 0..LANES {
            let entries = journal.read(lane, JournalOffset::START, usize::MAX).await;
            for entry in entries.expect("it can be read") {
                let value = value_of(&entry.record);
                assert!(model.lane(lane).records.insert(entry.offset.0, value).is_none());
            }
            let letters = journal.dead_letters(lane, JournalOffset::START, usize::MAX).await;
            for letter in letters.expect("they can be read") {
                let value = value_of(&letter.record);
                assert_eq!(&*letter.death.reason, format!("value {value} is poison"));
                model.lane(lane).letters.insert(letter.death.offset.0, value);
            }
        }
        model
    }

    /// Whether this is the other one, with the step done or not. Where the step
    /// appends, this says at which offset.
    pub(crate) fn is_with_or_without(&self, before: &Self, step: Option<&Step>) -> bool {
        if self == before {
            return true;
        }
        let Some(step) = step else { return false };
        let (Step::Append { lane, .. }
        | Step::Trim { lane, .. }
        | Step::Bury { lane, .. }
        | Step::Replay { lane, .. }
        | Step::Drop { lane, .. }) = *step;
        let last = self.lanes[usize::from(lane)].records.keys().last().copied().unwrap_or(0);
        let appends = matches!(step, Step::Append { .. } | Step::Replay { .. });
        let mut after = before.clone();
        if appends && last == 0 {
            return false;
        }
        after.note(step, last);
        *self == after
    }

    fn lane(&mut self, lane: u16) -> &mut LaneModel {
        &mut self.lanes[usize::from(lane)]
    }
}

/// Does a step.
pub(crate) async fn take(journal: &DiskJournal, epochs: &[u64], step: &Step) -> Done {
    let epoch = |lane: u16| epochs[usize::from(lane)];
    let done: Result<u64> = match *step {
        Step::Append { lane, first, count } => {
            let records: Vec<_> = (first..first + count).map(record).collect();
            journal.append(lane, &records).await.map(|offset| offset.0)
        }
        Step::Trim { lane, through } => {
            journal.trim(lane, epoch(lane), JournalOffset(through)).await.map(|()| 0)
        }
        Step::Bury { lane, offset } => {
            let entries = journal.read(lane, JournalOffset(offset - 1), 1).await;
            let value = value_of(&entries.expect("it can be read")[0].record);
            let reason = format!("value {value} is poison");
            let death = Death::new(JournalOffset(offset), DeathCause::Refused, &reason);
            journal.bury(lane, epoch(lane), &[death]).await.map(|()| 0)
        }
        Step::Replay { lane, offset } => {
            let replayed = journal.replay(lane, JournalOffset(offset), None).await;
            replayed.map(|offset| offset.expect("the letter is there").0)
        }
        Step::Drop { lane, offset } => {
            let dropped = journal.drop_letters(lane, &[JournalOffset(offset)]).await;
            dropped.map(|count| {
                assert_eq!(count, 1);
                0
            })
        }
    };
    match done {
        Ok(offset) => Done::Yes(offset),
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Done::Perhaps,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            Done::No
        }
    }
}

/// A record that says itself which one it is.
pub(crate) fn record(value: u64) -> JournalRecord {
    let length = (value * 7919 % 900) as usize;
    let text = format!("{value}:{}", "x".repeat(length));
    JournalRecord {
        cache: "album".into(),
        write: Write::new(Key::new(format!("album:{}", value % 5)), Action::Put(text.into())),
        version: Version::new(value),
        age: Duration::ZERO,
    }
}

pub(crate) fn value_of(found: &JournalRecord) -> u64 {
    let value = found.version.get();
    let expected = record(value);
    assert_eq!((&found.cache, &found.write), (&expected.cache, &expected.write));
    value
}
