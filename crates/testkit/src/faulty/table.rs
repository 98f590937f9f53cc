use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use larder_core::{
    Action, BatchError, Decimal, Error, ErrorKind, Expected, Key, LaneMark, LoadContext, Loaded,
    Origin, Result, Write, WriteAbilities, Written,
};

use super::Gate;

/// A table with transactions that keeps marks, and does wrong what a test says.
/// Clones are the same table.
///
/// A row has a value and a total. A put sets the value and leaves the total, a
/// patch sets the value of a row that is there, an addition to any member adds
/// to the total. What was put and patched is remembered in order.
///
/// Each call of [`Origin::write_all`] that has writes takes the next
/// [`WriteAnswer`] of the script; when the script is empty it does
/// [`WriteAnswer::Commit`].
#[derive(Clone, Debug)]
pub struct FaultyTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    abilities: WriteAbilities,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<Key, Row>,
    /// Values put and patched, also of rows that are gone.
    history: HashMap<Key, Vec<Bytes>>,
    marks: HashMap<(String, u16), LaneMark>,
    script: VecDeque<WriteAnswer>,
    poison: HashMap<Bytes, bool>,
    is_down: bool,
    calls: Vec<usize>,
    fenced: u64,
}

/// A row of a [`FaultyTable`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What was put or patched last.
    pub value: Bytes,
    /// What was added, in all.
    pub total: Decimal,
}

/// How the table treats one batch of writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WriteAnswer {
    /// It is committed, or refused for what is in it.
    Commit,
    /// This error; nothing happened.
    Fail(Error),
    /// It is committed, and this is said.
    CommitAndSay(Error),
    /// This is said. It is committed when the gate lets it pass, whoever has given
    /// up waiting meanwhile.
    SayAndCommitLater(Error, Gate),
    /// No answer; nothing happens.
    Hang,
    /// No answer; it is committed.
    CommitAndHang,
    /// The origin panics.
    Panic,
    /// The answer, once the gate lets it pass.
    Held(Gate, Box<Self>),
}

impl WriteAnswer {
    /// An error that a later try may mend.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::Fail(Error::new(ErrorKind::Unavailable, "the scripted table is unreachable"))
    }

    /// It is committed, and nobody hears of it.
    #[must_use]
    pub fn lost_reply() -> Self {
        Self::CommitAndSay(outcome_unknown())
    }

    /// Nobody hears of it, and it is committed when the gate lets it pass.
    #[must_use]
    pub fn late(gate: &Gate) -> Self {
        Self::SayAndCommitLater(outcome_unknown(), gate.clone())
    }
}

fn outcome_unknown() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the scripted connection broke in a commit")
}

impl FaultyTable {
    /// An empty table that can do everything.
    #[must_use]
    pub fn new() -> Self {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.patch = true;
        abilities.add = true;
        abilities.presence = true;
        abilities.batch_limit = 1000;
        abilities.marks = true;
        Self::with_abilities(abilities)
    }

    /// An empty table that says that it can do this.
    #[must_use]
    pub fn with_abilities(abilities: WriteAbilities) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), abilities }))
    }

    /// A row.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        self.state().rows.get(key).cloned()
    }

    /// What was put and patched under a key, oldest first.
    #[must_use]
    pub fn history(&self, key: &Key) -> Vec<Bytes> {
        self.state().history.get(key).cloned().unwrap_or_default()
    }

    /// Makes a row, or changes it, behind everybody's back.
    pub fn set(&self, key: Key, value: impl Into<Bytes>) {
        act(&mut self.state(), &Write::new(key, Action::Put(value.into())));
    }

    /// Appends answers to the script.
    pub fn script(&self, answers: impl IntoIterator<Item = WriteAnswer>) {
        self.state().script.extend(answers);
    }

    /// From now on a batch with a put or patch of this value is refused; whether
    /// the table says which write is to blame.
    pub fn poison(&self, value: impl Into<Bytes>, blames: bool) {
        self.state().poison.insert(value.into(), blames);
    }

    /// Every value is taken again.
    pub fn cure(&self) {
        self.state().poison.clear();
    }

    /// Whether every call fails until this is called with `false`.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// How many writes each batch so far had, failed ones too.
    #[must_use]
    pub fn calls(&self) -> Vec<usize> {
        self.state().calls.clone()
    }

    /// How many batches were refused because they were of an earlier epoch.
    #[must_use]
    pub fn fenced_count(&self) -> u64 {
        self.state().fenced
    }

    /// How far a lane is.
    #[must_use]
    pub fn mark(&self, journal: &str, lane: u16) -> Option<LaneMark> {
        self.state().marks.get(&(journal.to_owned(), lane)).cloned()
    }

    /// Does a batch in one step, as [`Origin::write_all`] does it without faults.
    ///
    /// # Errors
    /// As [`Origin::write_all`].
    pub fn commit(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mut state = self.state();
        if let Some(mark) = mark {
            let place = (mark.journal.to_string(), mark.lane);
            let held = state.marks.get(&place).cloned();
            let held = held.unwrap_or_else(|| LaneMark {
                epoch: 0,
                applied: Default::default(),
                ..mark.clone()
            });
            if held.epoch > mark.epoch {
                state.fenced += 1;
                let error = Error::new(ErrorKind::Conflict, "the mark has a later epoch");
                return Err(error.with("epoch", held.epoch).into());
            }
            if held.applied >= mark.applied {
                state.marks.insert(place, LaneMark { epoch: mark.epoch, ..held });
                let unchanged = Written::Done { changed: false, now: None, version: None };
                return Ok(vec![unchanged; writes.len()]);
            }
        }
        refuse_poison(&state, writes)?;
        let written = writes.iter().map(|write| act(&mut state, write)).collect();
        if let Some(mark) = mark {
            state.marks.insert((mark.journal.to_string(), mark.lane), mark.clone());
        }
        Ok(written)
    }

    fn begin(&self, writes: usize) -> WriteAnswer {
        let mut state = self.state();
        if state.is_down {
            return WriteAnswer::unavailable();
        }
        if writes == 0 {
            return WriteAnswer::Commit;
        }
        state.calls.push(writes);
        state.script.pop_front().unwrap_or(WriteAnswer::Commit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FaultyTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Origin<Key, Bytes> for FaultyTable {
    async fn load(&self, key: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
        let state = self.state();
        if state.is_down {
            return Err(Error::new(ErrorKind::Unavailable, "the scripted table is unreachable"));
        }
        Ok(Loaded::from(state.rows.get(key).map(|row| row.value.clone())))
    }

    fn write_abilities(&self) -> WriteAbilities {
        self.0.abilities
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mut answer = self.begin(writes.len());
        loop {
            answer = match answer {
                WriteAnswer::Commit => return self.commit(writes, mark),
                WriteAnswer::Fail(error) => return Err(error.into()),
                WriteAnswer::CommitAndSay(error) => {
                    let _ = self.commit(writes, mark);
                    return Err(error.into());
                }
                WriteAnswer::SayAndCommitLater(error, gate) => {
                    let (table, writes, mark) = (self.clone(), writes.to_vec(), mark.cloned());
                    tokio::spawn(async move {
                        gate.pass().await;
                        let _ = table.commit(&writes, mark.as_ref());
                    });
                    return Err(error.into());
                }
                WriteAnswer::Hang => std::future::pending().await,
                WriteAnswer::CommitAndHang => {
                    let _ = self.commit(writes, mark);
                    std::future::pending().await
                }
                WriteAnswer::Panic => panic!("the scripted table panics"),
                WriteAnswer::Held(gate, answer) => {
                    gate.pass().await;
                    *answer
                }
            }
        }
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        if self.state().is_down {
            return Err(Error::new(ErrorKind::Unavailable, "the scripted table is unreachable"));
        }
        Ok(self.mark(journal, lane))
    }
}

fn refuse_poison(state: &State, writes: &[Write<Key, Bytes>]) -> Result<(), BatchError> {
    let blames = |write: &Write<Key, Bytes>| match &write.action {
        Action::Put(value) | Action::Patch(value) => state.poison.get(value).copied(),
        _ => None,
    };
    let found = writes.iter().enumerate().find_map(|(index, write)| Some((index, blames(write)?)));
    let Some((index, blames)) = found else { return Ok(()) };
    let error = Error::new(ErrorKind::OriginFailed, "a scripted constraint does not hold");
    Err(BatchError { index: blames.then_some(index), error })
}

fn act(state: &mut State, write: &Write<Key, Bytes>) -> Written<Bytes> {
    let held = state.rows.get(&write.key).cloned();
    let is_as_expected = match write.expected {
        Expected::Absent => held.is_none(),
        Expected::Present => held.is_some(),
        _ => true,
    };
    if !is_as_expected {
        return Written::Conflict { version: None };
    }
    let total = held.as_ref().map_or(Decimal::ZERO, |row| row.total);
    let row = match (&write.action, held) {
        (Action::Put(value), _) | (Action::Patch(value), Some(_)) => {
            state.history.entry(write.key.clone()).or_default().push(value.clone());
            Row { value: value.clone(), total }
        }
        (Action::Remove, held) => {
            state.rows.remove(&write.key);
            return Written::Done { changed: held.is_some(), now: None, version: None };
        }
        (Action::Add { by, .. }, Some(row)) => {
            Row { total: total.checked_add(*by).unwrap_or(total), ..row }
        }
        _ => return Written::Missing,
    };
    state.rows.insert(write.key.clone(), row);
    Written::Done { changed: true, now: None, version: None }
}
