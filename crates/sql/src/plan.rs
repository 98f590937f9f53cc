use std::sync::Arc;

use larder_core::KeyPattern;

use crate::key_type::{KeyColumn, KeyValue};
use crate::table::{Column, Fetch};
use crate::{Dialect, Table, json};

/// All that is known about an origin before a key is asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pattern: KeyPattern,
    /// The type of each parameter of the pattern.
    pub(crate) parameters: Vec<KeyColumn>,
    pub(crate) shape: Shape,
    /// The names of the columns of the answer.
    pub(crate) members: Vec<String>,
    /// `{"a":`, `,"b":`, … for each column of the answer.
    pub(crate) prefixes: Vec<Box<[u8]>>,
    /// How each column is fetched.
    pub(crate) fetch: Vec<Fetch>,
    pub(crate) statement: Statement,
    pub(crate) value_size_max: usize,
}

/// What makes the value of a key out of rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The one row whose columns at these places spell the key.
    Table { key_positions: Vec<usize> },
    /// The one row that carries the ordinal of the key.
    Row,
    /// All rows that carry the ordinal of the key.
    List,
}

/// The statement for a batch of keys.
#[derive(Debug)]
pub(crate) enum Statement {
    /// The same text for any number of keys, which go into arrays.
    Fixed(Arc<str>),
    /// `head (?, ?), (?, ?) tail`: rows that carry their own key.
    Tuples { head: String, tuple: String, tail: String },
    /// `before 0 after UNION ALL before 1 after`: rows that carry an ordinal.
    Union {
        before: String,
        after: String,
        /// The parameter of each placeholder of an arm.
        occurrences: Vec<usize>,
    },
}

/// A key to be loaded: the values of the pattern's parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) texts: Vec<String>,
    pub(crate) values: Vec<KeyValue>,
}

impl Plan {
    /// The plan of a table: its rows carry their own keys.
    pub(crate) fn of_table(table: &Table, statement: Statement, value_size_max: usize) -> Self {
        let place = |key: &Column| table.columns.iter().position(|column| column.name == key.name);
        let key_columns = table.key_columns.iter();
        let key_positions = key_columns.clone().filter_map(place).collect();
        let names = table.columns.iter().map(|column| column.name.as_str());
        Self {
            members: table.columns.iter().map(|column| column.name.clone()).collect(),
            pattern: table.key_pattern.clone(),
            parameters: key_columns.filter_map(|column| column.key).collect(),
            shape: Shape::Table { key_positions },
            prefixes: json::member_prefixes(names),
            fetch: table.columns.iter().map(|column| column.fetch).collect(),
            statement,
            value_size_max,
        }
    }

    /// The request that a key makes, or `None` if it can be the key of no row:
    /// it does not match, is of the wrong type or is not the one spelling.
    pub(crate) fn request(&self, key: &[u8]) -> Option<Request> {
        let key = std::str::from_utf8(key).ok()?;
        let texts = self.pattern.match_key(key)?;
        if self.pattern.key(&texts) != key {
            return None;
        }
        let values = self.parameters.iter().zip(&texts).map(|(column, text)| column.parse(text));
        let values = values.collect::<Option<Vec<_>>>()?;
        Some(Request { texts: texts.into_iter().map(|text| text.into_owned()).collect(), values })
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.shape, Shape::Table { .. })
    }

    pub(crate) fn is_list(&self) -> bool {
        self.shape == Shape::List
    }

    /// Keys that one statement can hold.
    pub(crate) fn keys_max(&self) -> usize {
        let placeholders = match &self.statement {
            Statement::Fixed(_) => return BATCH_MAX,
            Statement::Tuples { .. } => self.parameters.len(),
            Statement::Union { occurrences, .. } => occurrences.len(),
        };
        // A batch is padded up to a power of two.
        let fitting = PLACEHOLDERS_MAX / placeholders.max(1);
        BATCH_MAX.min(1 << fitting.max(1).ilog2())
    }
}

/// Keys of one batch: one statement answers them all. A power of two.
pub(crate) const BATCH_MAX: usize = 1_024;
/// Of MySQL, the one database whose keys do not go into one array.
const PLACEHOLDERS_MAX: usize = 65_535;

impl Statement {
    /// Makes the statement hold the rows that it finds until the transaction
    /// ends. In SQLite the transaction holds all of them anyway.
    pub(crate) fn hold_rows(&mut self, dialect: Dialect) {
        match self {
            Self::Tuples { tail, .. } if dialect == Dialect::MySql => tail.push_str(" FOR UPDATE"),
            _ => {}
        }
    }

    /// The text for so many keys, and whether it is worth keeping prepared.
    pub(crate) fn text(&self, keys: usize) -> (Arc<str>, bool) {
        match self {
            Self::Fixed(text) => (Arc::clone(text), true),
            Self::Tuples { head, tuple, tail } => {
                let mut sql = String::with_capacity(head.len() + (tuple.len() + 1) * keys + 8);
                sql.push_str(head);
                for index in 0..keys {
                    sql.push_str(if index == 0 { "" } else { "," });
                    sql.push_str(tuple);
                }
                sql.push_str(tail);
                (sql.into(), true)
            }
            Self::Union { before, after, .. } => {
                let mut sql = String::with_capacity((before.len() + after.len() + 20) * keys);
                for ordinal in 0..keys {
                    sql.push_str(if ordinal == 0 { "" } else { " UNION ALL " });
                    sql.push_str(before);
                    sql.push_str(itoa::Buffer::new().format(ordinal));
                    sql.push_str(after);
                }
                (sql.into(), keys == 1)
            }
        }
    }

    /// How many keys to fill up to, so that there are few different texts to
    /// prepare.
    pub(crate) fn padded(&self, keys: usize) -> usize {
        match self {
            Self::Tuples { .. } => keys.next_power_of_two(),
            Self::Fixed(_) | Self::Union { .. } => keys,
        }
    }
}
