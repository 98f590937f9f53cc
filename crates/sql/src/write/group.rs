use std::collections::HashMap;

use larder_core::Expected;

use super::{Change, Operation, TableWrites, Writes};

/// Writes of one table that one statement makes.
#[derive(Debug)]
pub(crate) struct Group<'o> {
    pub(crate) table: &'o TableWrites,
    pub(crate) shape: Shape,
    /// In the order of their keys, so that two transactions that write the same
    /// rows wait for one another instead of both for ever.
    pub(crate) operations: Vec<&'o Operation>,
}

/// What the writes of a group have in common: the same statement makes them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Shape {
    /// A row with these columns is put, whether there was one or not.
    Upsert(Vec<usize>),
    /// A row with these columns is put where there is none.
    Insert(Vec<usize>),
    /// A row that is there is put with these columns.
    Replace(Vec<usize>),
    Delete,
    /// These columns of a row are replaced.
    Update(Vec<usize>),
    /// This column of a row grows.
    Add(usize),
}

impl Shape {
    /// The shape of a write to a table, by itself.
    pub(crate) fn of(operation: &Operation) -> Option<Self> {
        let columns = |members: &[super::Member]| members.iter().map(|(at, _)| *at).collect();
        Some(match (&operation.change, operation.expected) {
            (Change::Put(members), Expected::Anything) => Self::Upsert(columns(members)),
            (Change::Put(members), Expected::Absent) => Self::Insert(columns(members)),
            (Change::Put(members), _) => Self::Replace(columns(members)),
            (Change::Remove, _) => Self::Delete,
            (Change::Patch(members), _) => Self::Update(columns(members)),
            (Change::Add(column, _), _) => Self::Add(*column),
            (Change::Declared(..), _) => return None,
        })
    }
}

/// What runs one after the other.
pub(crate) enum Step<'o> {
    /// Writes of tables, no two of them of one row, with their origins.
    Wave(Vec<(usize, &'o Operation)>),
    /// A declared statement, with its origin.
    Declared(usize, &'o Operation),
}

/// The steps of a batch. A write comes after every earlier write of its row,
/// and a declared statement, of which nobody knows what it touches, after and
/// before all the others.
pub(crate) fn steps<'o>(
    origins: &[&'o Writes],
    operations: &'o [(usize, Operation)],
    is_grouped: bool,
) -> Vec<Step<'o>> {
    let mut steps = Vec::new();
    let mut waves: Vec<Vec<(usize, &Operation)>> = Vec::new();
    let mut seen: HashMap<(&str, &str, &[String]), usize> = HashMap::new();
    for (origin, operation) in operations {
        match origins[*origin] {
            Writes::Table(table) if is_grouped => {
                let row = (
                    table.table.schema.as_str(),
                    table.table.name.as_str(),
                    operation.request.texts.as_slice(),
                );
                let wave = seen.entry(row).or_default();
                if *wave == waves.len() {
                    waves.push(Vec::new());
                }
                waves[*wave].push((*origin, operation));
                *wave += 1;
            }
            Writes::Table(_) => steps.push(Step::Wave(vec![(*origin, operation)])),
            Writes::Declared(_) => {
                steps.extend(waves.drain(..).map(Step::Wave));
                seen.clear();
                steps.push(Step::Declared(*origin, operation));
            }
        }
    }
    steps.extend(waves.into_iter().map(Step::Wave));
    steps
}

/// The groups of writes with one shape each, in the order in which they first
/// appear.
pub(crate) fn groups<'o>(
    shaped: impl IntoIterator<Item = (&'o TableWrites, Shape, &'o Operation)>,
) -> Vec<Group<'o>> {
    let mut groups: Vec<Group<'o>> = Vec::new();
    for (table, shape, operation) in shaped {
        let known = groups
            .iter_mut()
            .find(|group| std::ptr::eq(group.table, table) && group.shape == shape);
        match known {
            Some(group) => group.operations.push(operation),
            None => groups.push(Group { table, shape, operations: vec![operation] }),
        }
    }
    for group in &mut groups {
        group.operations.sort_by(|one, other| one.request.texts.cmp(&other.request.texts));
    }
    groups
}
