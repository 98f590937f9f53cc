//! A table of whole numbers by member, with transactions and marks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use larder::{
    Action, BatchError, Error, ErrorKind, Key, LoadContext, Loaded, Origin, Result, Value, Write,
    WriteAbilities, Written,
};
use larder_core::LaneMark;
use larder_testkit::faulty::Gate;

type Row = BTreeMap<String, i64>;

/// Clones are the same table.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: HashMap<Key, Row>,
    marks: HashMap<(String, u16), LaneMark>,
    loads: usize,
    is_down: bool,
    /// A row with this member is refused.
    refused: Option<String>,
    /// Whether it says what a row has after a write.
    is_silent: bool,
    adds_to_missing: bool,
    held_loads: VecDeque<Gate>,
    held_writes: VecDeque<(Gate, Gate)>,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn set(&self, key: &str, row: &str) {
        self.state().rows.insert(Key::new(key), parse(row.as_bytes()));
    }

    pub(super) fn row(&self, key: &str) -> Option<String> {
        self.state().rows.get(&Key::new(key)).map(json)
    }

    pub(super) fn loads(&self) -> usize {
        self.state().loads
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    pub(super) fn set_silent(&self) {
        self.state().is_silent = true;
    }

    /// An addition to a member that is not there makes it.
    pub(super) fn add_to_missing(&self) {
        self.state().adds_to_missing = true;
    }

    pub(super) fn refuse(&self, member: Option<&str>) {
        self.state().refused = member.map(str::to_owned);
    }

    /// The next load reads the row, and answers at the gate.
    pub(super) fn hold_load(&self) -> Gate {
        let gate = Gate::new();
        self.state().held_loads.push_back(gate.clone());
        gate
    }

    /// The next batch is committed at the first gate, and answered at the second.
    pub(super) fn hold_write(&self) -> (Gate, Gate) {
        let gates = (Gate::new(), Gate::new());
        self.state().held_writes.push_back(gates.clone());
        gates
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic under it")
    }
}

pub(super) fn parse(row: &[u8]) -> Row {
    serde_json::from_slice(row).expect("a row is an object of whole numbers")
}

fn json(row: &Row) -> String {
    serde_json::to_string(row).expect("it is JSON")
}

fn unreachable() -> Error {
    Error::new(ErrorKind::Unavailable, "the table is unreachable")
}

impl State {
    fn act(&mut self, write: &Write<Key, Bytes>) -> Written<Bytes> {
        let held = self.rows.get(&write.key).cloned();
        let row = match (&write.action, held) {
            (Action::Put(value), _) => Some(parse(value)),
            (Action::Remove, _) => None,
            (_, None) => return Written::Missing,
            (Action::Patch(members), Some(mut row)) => {
                row.extend(parse(members));
                Some(row)
            }
            (Action::Add { field, by }, Some(mut row)) => {
                if self.adds_to_missing {
                    row.entry(field.to_string()).or_insert(0);
                }
                *row.get_mut(&**field).expect("it is there") += by.as_i64().expect("whole");
                Some(row)
            }
            _ => unreachable!("every action is named"),
        };
        let now = row.as_ref().map_or(Value::Absent, |row| Value::Present(json(row).into()));
        match row {
            Some(row) => drop(self.rows.insert(write.key.clone(), row)),
            None => drop(self.rows.remove(&write.key)),
        }
        let now = (!self.is_silent).then_some(now);
        Written::Done { changed: true, now, version: None }
    }

    fn commit(
        &mut self,
        writes: &[Write<Key, Bytes>],
        mark: &LaneMark,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let place = (mark.journal.to_string(), mark.lane);
        if let Some(held) = self.marks.get(&place) {
            if held.epoch > mark.epoch {
                return Err(Error::new(ErrorKind::Conflict, "a later epoch").into());
            }
            if held.applied >= mark.applied && !writes.is_empty() {
                let done = Written::Done { changed: false, now: None, version: None };
                return Ok(vec![done; writes.len()]);
            }
        }
        let is_refused = |write: &Write<Key, Bytes>| match (&write.action, &self.refused) {
            (Action::Put(value) | Action::Patch(value), Some(member)) => {
                parse(value).contains_key(member)
            }
            _ => false,
        };
        if let Some(index) = writes.iter().position(is_refused) {
            let error = Error::new(ErrorKind::OriginFailed, "a constraint does not hold");
            return Err(BatchError { index: Some(index), error });
        }
        let written = writes.iter().map(|write| self.act(write)).collect();
        self.marks.insert(place, mark.clone());
        Ok(written)
    }
}

impl Origin<Key, Bytes> for Shelf {
    async fn load(&self, key: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
        let (row, gate) = {
            let mut state = self.state();
            if state.is_down {
                return Err(unreachable());
            }
            state.loads += 1;
            (state.rows.get(key).map(|row| Bytes::from(json(row))), state.held_loads.pop_front())
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
        Ok(Loaded::from(row))
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.patch = true;
        abilities.add = true;
        abilities.batch_limit = 1000;
        abilities.marks = true;
        abilities
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mark = mark.expect("the journal sends marks");
        let gates = match writes.is_empty() {
            true => None,
            false => self.state().held_writes.pop_front(),
        };
        if let Some((before, _)) = &gates {
            before.pass().await;
        }
        if self.state().is_down {
            return Err(unreachable().into());
        }
        let written = self.state().commit(writes, mark);
        if let Some((_, after)) = &gates {
            after.pass().await;
        }
        written
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        let state = self.state();
        if state.is_down {
            return Err(unreachable());
        }
        Ok(state.marks.get(&(journal.to_owned(), lane)).cloned())
    }
}
