use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use larder_core::{Error, ErrorKind, Loaded, Result};

use crate::json;
use crate::plan::{Plan, Request, Shape};

/// Takes the rows of one batch and makes the answer of each key of them.
///
/// A row is written as JSON into one buffer that all rows share; the value of a
/// key is a copy of exactly its size, so that no value keeps others alive.
pub(crate) struct Sink<'p> {
    plan: &'p Plan,
    label: &'p str,
    answers: Vec<Answer>,
    /// The answer that a row belongs to, by the text of its key columns.
    by_identity: HashMap<Vec<u8>, usize>,
    row: Vec<u8>,
    members: Vec<Range<usize>>,
    identity: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Answer {
    Nothing,
    Row(Bytes),
    List(Vec<u8>),
    Failed(Error),
}

/// Stands between the parts of an identity: escaped text has no such byte.
const SEPARATOR: u8 = 0x1F;

impl<'p> Sink<'p> {
    pub(crate) fn new(plan: &'p Plan, label: &'p str, requests: &[Request]) -> Self {
        let mut by_identity = HashMap::new();
        if plan.is_table() {
            by_identity.reserve(requests.len());
            for (slot, request) in requests.iter().enumerate() {
                let mut identity = Vec::new();
                for text in &request.texts {
                    identity.extend_from_slice(&json::escaped(text));
                    identity.push(SEPARATOR);
                }
                by_identity.insert(identity, slot);
            }
        }
        Self {
            plan,
            label,
            answers: vec![Answer::Nothing; requests.len()],
            by_identity,
            row: Vec::new(),
            members: Vec::new(),
            identity: Vec::new(),
        }
    }

    /// Forgets all rows, before the statement is sent again.
    pub(crate) fn reset(&mut self) {
        self.answers.fill(Answer::Nothing);
    }

    /// Takes a row: its ordinal, unless it is a table's, and what writes the
    /// value of a column.
    pub(crate) fn row(
        &mut self,
        ordinal: Option<i64>,
        mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<(), String>,
    ) {
        self.row.clear();
        self.members.clear();
        let mut unreadable = None;
        for (column, prefix) in self.plan.prefixes.iter().enumerate() {
            self.row.extend_from_slice(prefix);
            let start = self.row.len();
            if let Err(reason) = write(column, &mut self.row) {
                unreadable = Some(reason);
                self.row.truncate(start);
                self.row.extend_from_slice(b"null");
            }
            self.members.push(start..self.row.len());
        }
        self.row.push(b'}');
        let slot = match &self.plan.shape {
            Shape::Table { key_positions } => self.slot_of_identity(key_positions),
            Shape::Row | Shape::List => ordinal.and_then(|ordinal| usize::try_from(ordinal).ok()),
        };
        // A row that the database holds for equal to a key but that is spelled
        // otherwise, such as `Ann` for `ann`, has another key.
        let Some(answer) = slot.and_then(|slot| self.answers.get_mut(slot)) else { return };
        let error = |kind, what: &'static str| {
            Error::new(kind, what).with("database", self.label).with("key", &self.plan.pattern)
        };
        if let Some(reason) = unreadable {
            let failed = error(ErrorKind::Decode, "a column of the row cannot be read");
            *answer = Answer::Failed(failed.with("reason", reason));
            return;
        }
        if !answer.add(&self.row, &self.plan.shape) {
            *answer = Answer::Failed(
                error(ErrorKind::OriginFailed, "the database has more than one row for a key")
                    .remedy("set list = true for all rows, or select by a unique column"),
            );
        } else if answer.size() > self.plan.value_size_max {
            *answer = Answer::Failed(
                error(ErrorKind::OriginFailed, "the value is too large")
                    .with("limit in bytes", self.plan.value_size_max)
                    .remedy("select fewer columns or rows, or raise value_size_max"),
            );
        }
    }

    /// What each key got, in the order of the requests.
    pub(crate) fn finish(self) -> Vec<Result<Loaded<Bytes>>> {
        let is_list = self.plan.shape == Shape::List;
        let finish = |answer| match answer {
            Answer::Nothing if is_list => Ok(Loaded::value(Bytes::from_static(b"[]"))),
            Answer::Nothing => Ok(Loaded::absent()),
            Answer::Row(row) => Ok(Loaded::value(row)),
            Answer::List(mut list) => {
                list.push(b']');
                list.shrink_to_fit();
                Ok(Loaded::value(Bytes::from(list)))
            }
            Answer::Failed(error) => Err(error),
        };
        self.answers.into_iter().map(finish).collect()
    }

    fn slot_of_identity(&mut self, key_positions: &[usize]) -> Option<usize> {
        self.identity.clear();
        for (&position, column) in key_positions.iter().zip(&self.plan.parameters) {
            let mut text = json::token_text(&self.row[self.members[position].clone()]);
            if column.is_padded {
                text = text.trim_ascii_end();
            }
            self.identity.extend_from_slice(text);
            self.identity.push(SEPARATOR);
        }
        self.by_identity.get(&self.identity).copied()
    }
}

impl Answer {
    /// Adds a row; `false` if there is one already and there may be only one.
    fn add(&mut self, row: &[u8], shape: &Shape) -> bool {
        match (&mut *self, shape) {
            (Self::Nothing, Shape::List) => {
                let mut list = Vec::with_capacity(row.len() + 2);
                list.push(b'[');
                list.extend_from_slice(row);
                *self = Self::List(list);
            }
            (Self::List(list), _) => {
                list.push(b',');
                list.extend_from_slice(row);
            }
            (Self::Nothing, _) => *self = Self::Row(Bytes::copy_from_slice(row)),
            // Two spellings in one batch that the database holds for equal, such
            // as `Ann` and `ann`, bring the row of the one twice.
            (Self::Row(known), Shape::Table { .. }) => return *known == row,
            (Self::Row(_), _) => return false,
            (Self::Failed(_), _) => {}
        }
        true
    }

    fn size(&self) -> usize {
        match self {
            Self::Nothing | Self::Failed(_) => 0,
            Self::Row(row) => row.len(),
            Self::List(list) => list.len() + 1,
        }
    }
}
