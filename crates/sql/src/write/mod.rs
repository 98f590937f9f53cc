//! Writes: what a key and a value become before a statement is made of them,
//! and the transaction in which the statements run.

mod apply;
pub(crate) mod declared;
mod failure;
mod group;
pub(crate) mod kind;
mod lanes;
mod members;
mod moment;
mod number;
mod options;
pub(crate) mod rows;
mod table;
mod transaction;
pub(crate) mod value;

use bytes::Bytes;
use larder_core::{Decimal, Expected, Result, Write, WriteAbilities};

use crate::plan::{Plan, Request};
pub(crate) use apply::expected_number;
pub(crate) use declared::DeclaredWrites;
pub(crate) use group::{Group, Shape};
pub use lanes::lanes_table;
pub(crate) use members::version_in;
pub use options::WriteOptions;
pub(crate) use table::{TableWrites, key_argument};
pub(crate) use transaction::{Batch, BatchOrigin};
pub(crate) use value::Argument;

/// How an origin writes.
#[derive(Debug)]
pub(crate) enum Writes {
    Table(Box<TableWrites>),
    Declared(DeclaredWrites),
}

/// One write, ready to become a part of a statement.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Its place in the batch.
    pub(crate) index: usize,
    pub(crate) request: Request,
    pub(crate) expected: Expected,
    pub(crate) change: Change,
}

#[derive(Debug)]
pub(crate) enum Change {
    Put(Vec<Member>),
    Remove,
    Patch(Vec<Member>),
    /// The column at this place grows.
    Add(usize, Decimal),
    /// The declared statement at this place runs with these arguments.
    Declared(usize, Vec<Argument>),
}

/// The place of a column and its value, in the order of the columns.
pub(crate) type Member = (usize, Argument);

/// A statement with all that it is given.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) sql: String,
    pub(crate) arguments: Vec<Argument>,
    /// Whether it is worth keeping prepared.
    pub(crate) is_kept: bool,
}

/// Writes of one batch at most: also what one statement takes.
pub(crate) const WRITES_MAX: usize = 1_024;

impl Writes {
    pub(crate) fn abilities(&self) -> WriteAbilities {
        let mut abilities = match self {
            Self::Table(table) => table.abilities(),
            Self::Declared(declared) => declared.abilities(),
        };
        abilities.batch_limit = WRITES_MAX;
        abilities.marks = true;
        abilities
    }

    /// What a write comes down to; nothing is asked of the database.
    pub(crate) fn operation(
        &self,
        read: &Plan,
        index: usize,
        write: &Write<larder_core::Key, Bytes>,
    ) -> Result<Operation> {
        match self {
            Self::Table(table) => table.operation(read, index, write),
            Self::Declared(declared) => declared.operation(read, index, write),
        }
    }

    /// The statement that tells the version of keys, and the member that holds
    /// it.
    pub(crate) fn probe<'p>(&'p self, read: &'p Plan) -> Option<(&'p Plan, &'p str)> {
        match self {
            Self::Table(table) => Some((&table.probe, table.version_name()?)),
            Self::Declared(declared) => Some((read, declared.version_column.as_deref()?)),
        }
    }
}
