//! Writes of the faulty origin: a table with versions, transactions and marks.

use std::collections::HashMap;
use std::hash::Hash;

use larder_core::{
    Action, BatchError, Error, ErrorKind, Expected, LaneMark, Result, Value, Version, Write,
    WriteAbilities, Written,
};

use super::{FaultyOrigin, State};

/// How the origin treats one transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WriteFault {
    /// It is made as it should be.
    Nothing,
    /// It is refused with this error, and nothing happens.
    Refuse(Error),
    /// It is refused for the sake of this write of it.
    Blame(usize, Error),
    /// It is made, and nobody is told.
    LoseAnswer,
    /// It is not made, and nobody is told.
    LoseRequest,
}

/// How far the lanes are applied, by journal and lane.
pub(super) type Marks = HashMap<(String, u16), LaneMark>;

pub(super) const BATCH_MAX: usize = 1_000;

impl<K, V> FaultyOrigin<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// Appends faults to the script of writes: each transaction takes the next
    /// one, and is made as it should be when there is none.
    pub fn script_writes(&self, faults: impl IntoIterator<Item = WriteFault>) {
        self.state().write_script.extend(faults);
    }

    /// The same origin, which takes writes: with versions, transactions and
    /// marks. It does not look into values, so it neither patches nor adds.
    #[must_use]
    pub fn taking_writes(self) -> Self {
        self.state().takes_writes = true;
        self
    }

    pub(super) fn abilities(&self) -> WriteAbilities {
        if !self.state().takes_writes {
            return WriteAbilities::NONE;
        }
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.presence = true;
        abilities.versions = true;
        abilities.batch_limit = BATCH_MAX;
        abilities.marks = true;
        abilities
    }

    /// The version of a row.
    pub(super) fn version(&self, key: &K) -> Option<Version> {
        let state = self.state();
        state.rows.contains_key(key).then(|| state.version_of(key))
    }

    pub(super) fn transaction(
        &self,
        writes: &[Write<K, V>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<V>>, BatchError> {
        let mut state = self.state();
        if !state.takes_writes {
            let error = Error::new(ErrorKind::Unsupported, "this origin does not take writes");
            return Err(error.into());
        }
        let fault = state.write_script.pop_front().unwrap_or(WriteFault::Nothing);
        let unknown = || Error::new(ErrorKind::OutcomeUnknown, "the scripted answer is lost");
        match fault {
            WriteFault::Refuse(error) => return Err(error.into()),
            WriteFault::Blame(index, error) => {
                return Err(BatchError { index: Some(index), error });
            }
            WriteFault::LoseRequest => return Err(unknown().into()),
            WriteFault::Nothing | WriteFault::LoseAnswer => {}
        }
        for (index, write) in writes.iter().enumerate() {
            if matches!(write.action, Action::Put(_) | Action::Remove) {
                continue;
            }
            let error = Error::new(ErrorKind::Unsupported, "this origin only puts and removes");
            return Err(BatchError { index: Some(index), error });
        }
        if let Some(mark) = mark
            && !state.keep(mark)?
        {
            let skipped = |_| Written::Done { changed: false, now: None, version: None };
            return Ok(writes.iter().map(skipped).collect());
        }
        let written = writes.iter().map(|write| state.write(write)).collect();
        match fault {
            WriteFault::LoseAnswer => Err(unknown().into()),
            _ => Ok(written),
        }
    }
}

impl<K, V> State<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// Whether the writes under this mark are still to be made.
    fn keep(&mut self, mark: &LaneMark) -> Result<bool> {
        let lane = (mark.journal.to_string(), mark.lane);
        let Some(known) = self.marks.get_mut(&lane) else {
            self.marks.insert(lane, mark.clone());
            return Ok(true);
        };
        if known.epoch > mark.epoch {
            return Err(Error::new(ErrorKind::Conflict, "the lane has a later owner"));
        }
        known.epoch = mark.epoch;
        let is_new = known.applied < mark.applied;
        known.applied = known.applied.max(mark.applied);
        Ok(is_new)
    }

    fn version_of(&self, key: &K) -> Version {
        self.versions.get(key).copied().unwrap_or(Version::new(1))
    }

    fn write(&mut self, write: &Write<K, V>) -> Written<V> {
        let found = self.rows.contains_key(&write.key).then(|| self.version_of(&write.key));
        let holds = match write.expected {
            Expected::Anything => true,
            Expected::Absent => found.is_none(),
            Expected::Present => found.is_some(),
            Expected::Version(version) => found == Some(version),
            _ => false,
        };
        if !holds {
            return Written::Conflict { version: found };
        }
        let version = found.map_or(Version::new(1), Version::above);
        match &write.action {
            Action::Put(value) => {
                self.rows.insert(write.key.clone(), value.clone());
                self.versions.insert(write.key.clone(), version);
                let now = Some(Value::Present(value.clone()));
                Written::Done { changed: true, now, version: Some(version) }
            }
            _ => {
                self.rows.remove(&write.key);
                self.versions.remove(&write.key);
                let now = Some(Value::Absent);
                Written::Done { changed: found.is_some(), now, version: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::block_on;
    use larder_core::Origin;

    #[test]
    fn a_lost_answer_is_a_write_that_was_made_and_a_lost_request_is_none() {
        block_on(async {
            let origin = FaultyOrigin::<&str, u32>::new().taking_writes();
            let refused = Error::new(ErrorKind::OriginFailed, "a constraint");
            origin.script_writes([
                WriteFault::LoseAnswer,
                WriteFault::LoseRequest,
                WriteFault::Blame(0, refused),
            ]);
            let mut fates = Vec::new();
            for value in [1, 2, 3, 4] {
                let put = Write::new("ann", Action::Put(value));
                let kind = origin.write(&put).await.err().map(|error| error.kind());
                fates.push((kind, origin.version(&"ann").map(Version::get)));
            }
            let unknown = Some(ErrorKind::OutcomeUnknown);
            assert_eq!(
                fates,
                [
                    (unknown, Some(1)),
                    (unknown, Some(1)),
                    (Some(ErrorKind::OriginFailed), Some(1)),
                    (None, Some(2)),
                ]
            );
        });
    }
}
