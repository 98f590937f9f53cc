use std::fmt;

use larder_core::KeyPattern;

use crate::key_type::KeyColumn;
use crate::write::kind::ValueKind;

/// What a database holds, as far as it can be served without being declared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Introspection {
    /// Tables and views with an identity: each row has one key.
    pub tables: Vec<Table>,
    /// The others, each with the reason and what would serve it.
    pub skipped: Vec<Skipped>,
}

/// A table or view whose rows are served as `table:key`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Table {
    /// The schema (in MySQL: the database; in SQLite `main`).
    pub schema: String,
    /// The name, as the database spells it.
    pub name: String,
    /// Table or view.
    pub kind: TableKind,
    /// The columns that identify a row, in the order of the key's parts.
    pub key_columns: Vec<Column>,
    /// All columns, in the order of the table: the members of the JSON.
    pub columns: Vec<Column>,
    /// Where the identity comes from.
    pub key_source: KeySource,
    /// The keys of its rows, such as `order_line:{order_id}:{number}`.
    pub key_pattern: KeyPattern,
}

/// Whether rows are stored or computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TableKind {
    /// Stored rows; a materialized view counts as [`TableKind::View`].
    Table,
    /// A view.
    View,
}

/// Where the identity of a table's rows comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// The primary key.
    PrimaryKey,
    /// No primary key: this unique index, all of whose columns are NOT NULL.
    UniqueIndex(String),
    /// A view: the key of this table, of which each row is at most one row of
    /// the view.
    BaseTable(String),
}

/// A column.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Column {
    /// The name: a member's name in the JSON.
    pub name: String,
    /// The type, as the database spells it.
    pub type_name: String,
    /// How a key's text becomes a value of it; `None` where that cannot be done.
    pub(crate) key: Option<KeyColumn>,
    /// How it is fetched.
    pub(crate) fetch: Fetch,
    /// Which values it takes.
    pub(crate) kind: ValueKind,
    /// Where its values come from.
    pub(crate) filled: Filled,
    /// Whether it can be NULL.
    pub(crate) is_nullable: bool,
    /// The type to which Postgres casts the text of a key.
    pub(crate) cast: Option<Cast>,
    /// The character set to which MySQL converts the text of a key.
    pub(crate) charset: Option<Charset>,
}

/// Where the values of a column come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// From whoever writes.
    Writer,
    /// From a sequence that overrules whoever writes (`GENERATED ALWAYS AS
    /// IDENTITY`).
    Sequence,
    /// From the other columns.
    Expression,
}

/// How a column is fetched so that the value can be written as JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fetch {
    /// As it is: its wire format is known.
    Native,
    /// As the JSON that Postgres makes of it.
    AsJson,
    /// As it is; the text is JSON and is embedded.
    JsonText,
}

/// A type of Postgres.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cast {
    /// The name with its schema, quoted.
    pub(crate) name: String,
    /// Casting a text that is none of its labels would fail the statement.
    pub(crate) is_enum: bool,
}

/// A character set of MySQL that is not Unicode, and how its texts compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Charset {
    pub(crate) name: String,
    pub(crate) collation: String,
}

/// A table or view that is not served, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// The name, with its schema unless that is the default one.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What to do to have it served.
    pub remedy: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key_pattern)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrimaryKey => f.write_str("primary key"),
            Self::UniqueIndex(name) => write!(f, "unique index {name}"),
            Self::BaseTable(name) => write!(f, "key of {name}"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.name, self.reason, self.remedy)
    }
}
