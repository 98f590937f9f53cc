use bytes::Bytes;
use larder_core::{
    Action, Decimal, Error, ErrorKind, Expected, Key, Result, Write, WriteAbilities,
};
use serde_json::value::RawValue;

use super::kind::{StorageClass, ValueKind};
use super::members::members;
use super::value::{self, Argument, Misfit, Token};
use super::{Change, Member, Operation};
use crate::key_type::KeyValue;
use crate::plan::{Plan, Request};
use crate::table::{Column, Filled};
use crate::{Dialect, KeyType, Table, TableKind, WriteOptions};

/// How the rows of a table are written.
#[derive(Debug)]
pub(crate) struct TableWrites {
    pub(crate) dialect: Dialect,
    pub(crate) table: Table,
    /// The places of the key columns.
    pub(crate) keys: Vec<usize>,
    /// The place of the column that counts versions.
    pub(crate) version: Option<usize>,
    /// Tells key and version of rows.
    pub(crate) probe: Plan,
    /// The same, and holds the rows until the transaction ends.
    pub(crate) look: Plan,
    /// Each key that is a value of the columns is stored as it is spelled.
    pub(crate) is_exact: bool,
}

impl TableWrites {
    /// The writes of a table; `plan` makes the statement that loads rows of a
    /// table.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a view, and for a version column that is none.
    pub(crate) fn new(
        dialect: Dialect,
        table: &Table,
        options: &WriteOptions,
        plan: impl Fn(&Table) -> Plan,
    ) -> Result<Self> {
        let wrong =
            |what: &'static str| Error::new(ErrorKind::Config, what).with("table", &table.name);
        if table.kind == TableKind::View {
            return Err(wrong("a view is not written")
                .remedy("write the table underneath, or declare the statements over a query"));
        }
        if let Some((name, _)) = options.statements().next() {
            return Err(wrong("a table needs no statements")
                .with("declared", name)
                .remedy("take them out, or declare the query too"));
        }
        let place = |name: &str| table.columns.iter().position(|column| column.name == name);
        let version = match &options.version_column {
            None => None,
            Some(name) => {
                Some(place(name).filter(|at| is_counter(&table.columns[*at])).ok_or_else(|| {
                    wrong("the version column is not one of whole numbers that can be written")
                        .with("version_column", name)
                        .remedy("name a NOT NULL bigint column that is no part of the key")
                })?)
            }
        };
        let keys: Vec<usize> =
            table.key_columns.iter().filter_map(|column| place(&column.name)).collect();
        if version.is_some_and(|version| keys.contains(&version)) {
            return Err(wrong("the version column is a part of the key")
                .remedy("name a column that is no part of the key"));
        }
        let mut shown = table.clone();
        shown.columns = keys.iter().chain(&version).map(|at| table.columns[*at].clone()).collect();
        let mut look = plan(&shown);
        look.statement.hold_rows(dialect);
        Ok(Self {
            dialect,
            is_exact: table.key_columns.iter().all(is_exact),
            probe: plan(&shown),
            look,
            keys,
            version,
            table: table.clone(),
        })
    }

    pub(crate) fn abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::NONE;
        abilities.put = true;
        abilities.remove = true;
        abilities.patch = true;
        abilities.add = true;
        abilities.presence = true;
        abilities.versions = self.version.is_some();
        abilities
    }

    pub(crate) fn version_name(&self) -> Option<&str> {
        self.version.map(|at| self.table.columns[at].name.as_str())
    }

    /// The columns that a put replaces: all but the key's, the version and those
    /// that the database fills itself.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = usize> {
        let is_replaced = |at: &usize| {
            !self.keys.contains(at)
                && self.version != Some(*at)
                && self.table.columns[*at].filled == Filled::Writer
        };
        (0..self.table.columns.len()).filter(is_replaced)
    }

    pub(crate) fn operation(
        &self,
        read: &Plan,
        index: usize,
        write: &Write<Key, Bytes>,
    ) -> Result<Operation> {
        let request = read.request(write.key.as_bytes()).ok_or_else(|| {
            self.invalid("the key can be the key of no row")
                .with("pattern", &read.pattern)
                .remedy("spell each part as the row's JSON does")
        })?;
        self.check_expected(write)?;
        let change = match &write.action {
            Action::Put(value) => Change::Put(self.members(read, &request, value, true)?),
            Action::Remove => Change::Remove,
            Action::Patch(value) => Change::Patch(self.members(read, &request, value, false)?),
            Action::Add { field, by } => self.addition(field, *by)?,
            _ => return Err(unknown_action()),
        };
        Ok(Operation { index, request, expected: write.expected, change })
    }

    fn check_expected(&self, write: &Write<Key, Bytes>) -> Result<()> {
        match write.expected {
            Expected::Absent if !matches!(write.action, Action::Put(_)) => Err(self
                .invalid("only a put can expect that there is no such key")
                .remedy("expect nothing of a change of what is there, or put a whole value")),
            Expected::Version(_) if self.version.is_none() => {
                Err(Error::new(ErrorKind::Unsupported, "no column counts the versions of the rows")
                    .with("table", &self.table.name)
                    .remedy("declare version_column"))
            }
            Expected::Version(version) if version_number(version).is_none() => {
                Err(self.invalid("no column counts so far").with("version", version.get()))
            }
            _ => Ok(()),
        }
    }

    /// The columns that are written, in their order.
    fn members(
        &self,
        read: &Plan,
        request: &Request,
        value: &[u8],
        is_put: bool,
    ) -> Result<Vec<Member>> {
        if value.len() > read.value_size_max {
            return Err(self
                .invalid("the value is too large")
                .with("limit in bytes", read.value_size_max)
                .remedy("write less, or raise value_size_max"));
        }
        let mut written = Vec::new();
        for (name, token) in members(value)? {
            let place = self.table.columns.iter().position(|column| column.name == name);
            let Some(at) = place else {
                return Err(self
                    .invalid("the value has a member that is no column")
                    .with("member", shown(&name))
                    .remedy(format!("leave it out: the columns are {}", self.column_names())));
            };
            if let Some(part) = self.keys.iter().position(|key| *key == at) {
                self.check_key(read, request, part, token)?;
            } else if self.version == Some(at) {
                if !is_put {
                    return Err(self.refused(at, "it counts versions by itself"));
                }
            } else if self.table.columns[at].filled != Filled::Writer {
                // A row that was read has it too.
                if !is_put {
                    return Err(self.refused(at, "the database fills it itself"));
                }
            } else {
                written.push((at, self.argument(at, token)?));
            }
        }
        if written.is_empty() && !is_put {
            return Err(self
                .invalid("a patch changes no column")
                .remedy("write the members that change"));
        }
        written.sort_unstable_by_key(|(at, _)| *at);
        Ok(written)
    }

    fn argument(&self, at: usize, token: &RawValue) -> Result<Argument> {
        let column = &self.table.columns[at];
        let argument = value::argument(self.dialect, &column.kind, token.get());
        let argument = argument.map_err(|misfit| self.misfit(at, misfit))?;
        if argument == Argument::Null && !column.is_nullable {
            let misfit = Misfit::new("it is null", "write a value: the column is NOT NULL");
            return Err(self.misfit(at, misfit));
        }
        Ok(argument)
    }

    /// A member that is a part of the key says what the key says.
    fn check_key(
        &self,
        read: &Plan,
        request: &Request,
        part: usize,
        token: &RawValue,
    ) -> Result<()> {
        let parsed = Token::of(token.get());
        let text = match &parsed {
            Ok(Token::Text(text)) => text.as_ref(),
            Ok(Token::Number(_) | Token::Boolean(_)) => token.get(),
            _ => "",
        };
        let text = if read.parameters[part].is_padded { text.trim_end_matches(' ') } else { text };
        if text == request.texts[part] {
            return Ok(());
        }
        let column = &self.table.columns[self.keys[part]].name;
        Err(self
            .invalid("a member of the value contradicts the key")
            .with("column", column)
            .remedy("leave it out, or write what the key says"))
    }

    fn addition(&self, field: &str, by: Decimal) -> Result<Change> {
        let place = self.table.columns.iter().position(|column| column.name == field);
        let Some(at) = place else {
            return Err(self
                .invalid("the field is no column")
                .with("field", shown(field))
                .remedy(format!("the columns are {}", self.column_names())));
        };
        let column = &self.table.columns[at];
        if self.keys.contains(&at) {
            return Err(self.refused(at, "it is a part of the key"));
        }
        if self.version == Some(at) {
            return Err(self.refused(at, "it counts versions by itself"));
        }
        if column.filled != Filled::Writer {
            return Err(self.refused(at, "the database fills it itself"));
        }
        match &column.kind {
            ValueKind::Integer { .. }
            | ValueKind::Class(StorageClass::Integer | StorageClass::Numeric | StorageClass::Any)
                if by.as_i64().is_none() =>
            {
                Err(self.misfit(
                    at,
                    Misfit::new("it holds whole numbers", "add a whole number of at most 64 bits"),
                ))
            }
            ValueKind::Integer { .. }
            | ValueKind::Class(StorageClass::Integer | StorageClass::Numeric | StorageClass::Any) => {
                Ok(Change::Add(at, by))
            }
            ValueKind::Decimal { scale, .. }
                if scale.is_none_or(|scale| i32::from(by.scale()) <= scale.max(0)) =>
            {
                Ok(Change::Add(at, by))
            }
            ValueKind::Decimal { .. } => Err(self.misfit(
                at,
                Misfit::new(
                    "it keeps fewer digits behind the point than are added",
                    "add a number with as many digits as the column has",
                ),
            )),
            _ => Err(self.misfit(
                at,
                Misfit::new(
                    "nothing can be added to it exactly",
                    "add to a column of whole numbers or decimals, or patch it",
                ),
            )),
        }
    }

    pub(crate) fn misfit(&self, at: usize, misfit: Misfit) -> Error {
        let column = &self.table.columns[at];
        self.invalid("a member of the value does not fit its column")
            .with("column", &column.name)
            .with("type", &column.type_name)
            .with("reason", misfit.reason)
            .remedy(misfit.remedy)
    }

    fn refused(&self, at: usize, reason: &'static str) -> Error {
        self.misfit(at, Misfit::new(reason, "leave the member out"))
    }

    pub(crate) fn invalid(&self, what: &'static str) -> Error {
        Error::new(ErrorKind::InvalidInput, what).with("table", &self.table.name)
    }

    fn column_names(&self) -> String {
        let names: Vec<&str> =
            self.table.columns.iter().take(40).map(|column| column.name.as_str()).collect();
        names.join(", ")
    }
}

/// The number by which a column counts this version.
pub(crate) fn version_number(version: larder_core::Version) -> Option<i64> {
    i64::try_from(version.get()).ok()
}

/// The part of a key as what its column takes.
pub(crate) fn key_argument(dialect: Dialect, key_type: KeyType, value: &KeyValue) -> Argument {
    match value {
        KeyValue::Signed(number) => Argument::Signed(*number),
        KeyValue::Unsigned(number) => Argument::Unsigned(*number),
        KeyValue::Boolean(boolean) => Argument::Signed((*boolean).into()),
        KeyValue::Bytes(bytes) => Argument::Bytes(bytes.clone()),
        KeyValue::Text(text) => match key_type {
            KeyType::Timestamp | KeyType::TimestampUtc if dialect == Dialect::MySql => {
                Argument::Text(text.trim_end_matches('Z').replace('T', " "))
            }
            _ => Argument::Text(text.clone()),
        },
    }
}

pub(super) fn unknown_action() -> Error {
    Error::new(ErrorKind::Unsupported, "this kind of write is not known to SQL origins")
        .remedy("put, remove, patch or add")
}

/// What somebody else named, cut to what an error may hold.
pub(super) fn shown(name: &str) -> String {
    const SHOWN_MAX: usize = 64;
    name.chars().take(SHOWN_MAX).collect::<String>().escape_debug().to_string()
}

fn is_counter(column: &Column) -> bool {
    let counts = match &column.kind {
        ValueKind::Integer { maximum, .. } => *maximum >= i32::MAX.unsigned_abs().into(),
        ValueKind::Class(class) => *class == StorageClass::Integer,
        _ => false,
    };
    // NULL and 1 are NULL: it would count nothing, and be no version that was expected.
    counts && column.filled == Filled::Writer && !column.is_nullable
}

/// Whether every key that the column takes is stored as the key spells it: of
/// the others the database may store another spelling of the same value.
fn is_exact(column: &Column) -> bool {
    column.key.is_some_and(|key| {
        matches!(
            key.key_type,
            KeyType::Integer | KeyType::Boolean | KeyType::Uuid | KeyType::Bytes | KeyType::Date
        ) || (key.key_type == KeyType::Text && !key.is_padded)
    })
}
