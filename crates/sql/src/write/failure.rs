//! What the failure of a write means: whether it may be tried again, whose
//! fault it is, and what to do. Nothing here repeats a value or a secret.

use std::borrow::Cow;
use std::time::Duration;

use larder_core::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::Dialect;
use crate::failure::{self, number_of, primary_code};

/// Why writes were not made, as long as nothing was committed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// The write that is to blame.
    pub(super) index: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Cause {
    /// The database or its driver said so.
    Statement(sqlx::Error),
    /// Nobody said anything for too long.
    Silence(Error),
    /// A value is to blame; the connection is sound.
    Value(Error),
    /// Another transaction was faster; the connection is sound.
    Race(Error),
    /// Anything else that was noticed here; the connection is sound.
    Here(Error),
}

/// What can be done about a failure of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// The connection is gone, or about to be.
    Lost,
    /// Two transactions were in each other's way, or a prepared statement is out
    /// of date: the same again may succeed.
    Again,
    /// A value or a constraint: other writes of the batch may be sound.
    Values,
    /// A table that is not there.
    NoTable,
    Other,
}

impl Failed {
    pub(super) const fn of_statement(error: sqlx::Error) -> Self {
        Self { cause: Cause::Statement(error), index: None }
    }

    pub(super) fn of_time(label: &str, timeout: Duration) -> Self {
        let error = Error::new(ErrorKind::Unavailable, "the database did not answer in time")
            .with("database", label)
            .with("statement_timeout", format!("{timeout:?}"))
            .remedy("see what keeps it busy, or raise statement_timeout");
        Self { cause: Cause::Silence(error), index: None }
    }

    pub(super) const fn of_values(error: Error) -> Self {
        Self { cause: Cause::Value(error), index: None }
    }

    pub(super) const fn of_larder(error: Error) -> Self {
        Self { cause: Cause::Here(error), index: None }
    }

    pub(super) const fn of_race(error: Error) -> Self {
        Self { cause: Cause::Race(error), index: None }
    }

    /// The same, this write being to blame.
    pub(super) const fn blame(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    pub(super) fn class(&self, dialect: Dialect) -> Class {
        match &self.cause {
            Cause::Statement(error) => class(dialect, error),
            Cause::Silence(_) => Class::Lost,
            Cause::Value(_) => Class::Values,
            Cause::Race(_) => Class::Again,
            Cause::Here(_) => Class::Other,
        }
    }

    /// Whether the connection can be used again, after a rollback.
    pub(super) fn is_sound(&self, dialect: Dialect) -> bool {
        match &self.cause {
            Cause::Statement(error) => failure::is_connection_sound(dialect, error),
            Cause::Silence(_) => false,
            Cause::Value(_) | Cause::Race(_) | Cause::Here(_) => true,
        }
    }

    /// The error of writes that surely did not happen.
    pub(super) fn into_error(self, dialect: Dialect, label: &str) -> Error {
        match self.cause {
            Cause::Statement(error) => of_write(dialect, label, &error),
            Cause::Silence(error)
            | Cause::Value(error)
            | Cause::Race(error)
            | Cause::Here(error) => error,
        }
    }
}

/// What can be done about an error.
pub(super) fn class(dialect: Dialect, error: &sqlx::Error) -> Class {
    let sqlx::Error::Database(database) = error else {
        return if failure::is_connection_lost(dialect, error) {
            Class::Lost
        } else {
            Class::Other
        };
    };
    let code = database.code().unwrap_or_default();
    match dialect {
        Dialect::Postgres => match code.as_ref() {
            "40001" | "40P01" | "0A000" | "26000" => Class::Again,
            "42P01" => Class::NoTable,
            "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => Class::Lost,
            _ if matches!(code.get(..2), Some("22" | "23" | "44" | "P0")) => Class::Values,
            _ if code == "428C9" || code == "21000" => Class::Values,
            _ => Class::Other,
        },
        Dialect::MySql => match number_of(database.as_ref()) {
            1213 | 1020 | 1243 => Class::Again,
            1146 => Class::NoTable,
            1053 | 1927 | 4031 => Class::Lost,
            _ if matches!(code.get(..2), Some("21" | "22" | "23" | "44" | "45")) => Class::Values,
            1242 | 1265 | 1364 | 1366 | 1452 | 1451 | 3819 | 4025 | 1690 | 4078 => Class::Values,
            _ => Class::Other,
        },
        Dialect::Sqlite => match primary_code(&code) {
            // Another process wrote between two statements.
            5 | 6 if code.parse() == Ok(517_u32) => Class::Again,
            18..=20 => Class::Values,
            1 if database.message().starts_with("no such table") => Class::NoTable,
            1 if database.message().contains("integer overflow") => Class::Values,
            _ => Class::Other,
        },
    }
}

/// What a failed statement means for writes that surely did not happen.
pub(super) fn of_write(dialect: Dialect, label: &str, error: &sqlx::Error) -> Error {
    let sqlx::Error::Database(database) = error else {
        return retryable(failure::of_statement(dialect, label, error));
    };
    let code = database.code().unwrap_or_default().into_owned();
    if class(dialect, error) == Class::Lost {
        return Error::new(ErrorKind::Unavailable, "the database ended the connection")
            .with("database", label)
            .with("code", code);
    }
    let refusal = match dialect {
        Dialect::Postgres => of_postgres(&code),
        Dialect::MySql => of_mysql(number_of(database.as_ref())),
        Dialect::Sqlite => of_sqlite(&code, database.message()),
    };
    let Some(refusal) = refusal else {
        return retryable(failure::of_statement(dialect, label, error));
    };
    let mut refused =
        Error::new(refusal.kind, "the database refuses the write").with("database", label).with(
            "code",
            match dialect {
                Dialect::MySql => format!("{} ({code})", number_of(database.as_ref())),
                Dialect::Postgres | Dialect::Sqlite => code,
            },
        );
    for (name, value) in places(dialect, database.as_ref()) {
        refused = refused.with(name, value);
    }
    refused.with("reason", refusal.reason).remedy(refusal.remedy)
}

/// A statement that ran out of time before the commit did not happen.
fn retryable(error: Error) -> Error {
    if error.kind() != ErrorKind::Timeout {
        return error;
    }
    let mut unavailable = Error::new(ErrorKind::Unavailable, error.message().to_owned());
    for (name, value) in error.context() {
        unavailable = unavailable.with(name, value);
    }
    match error.remedy_text() {
        Some(remedy) => unavailable.remedy(remedy.to_owned()),
        None => unavailable,
    }
}

struct Refusal {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    remedy: &'static str,
}

fn invalid(reason: &'static str, remedy: &'static str) -> Option<Refusal> {
    Some(Refusal { kind: ErrorKind::InvalidInput, reason: reason.into(), remedy })
}

fn failed(reason: impl Into<Cow<'static, str>>, remedy: &'static str) -> Option<Refusal> {
    Some(Refusal { kind: ErrorKind::OriginFailed, reason: reason.into(), remedy })
}

const RANGE: &str = "write a smaller number, or widen the column";
const UNIQUE: &str = "write another value, or change the row that has this one";
const FOREIGN: &str = "write the row that it refers to first; before a removal, what refers to it";
const CHECK: &str = "write a value that the constraint allows";
const GRANT: &str = "grant INSERT, UPDATE, DELETE and SELECT on it to the user of the URL";
const MEMBER: &str = "write a value of the column's type";

fn of_postgres(code: &str) -> Option<Refusal> {
    match code {
        "22001" => invalid("a text is too long for its column", "write a shorter text"),
        "22003" => invalid("a number is out of the range of its column", RANGE),
        "22007" | "22008" => invalid("a date or time cannot be read or is out of range", MEMBER),
        "22P02" | "22023" | "2202E" | "22032" => invalid("a value is none of its type", MEMBER),
        "22P05" | "22021" => invalid(
            "a character cannot be stored in the encoding of the database",
            "leave the character out",
        ),
        "23502" => failed("a column that is NOT NULL would be null", "write a value for it"),
        "23503" => failed("a foreign key does not hold", FOREIGN),
        "23505" => failed("another row has this value already", UNIQUE),
        "23514" | "44000" => failed("a check does not hold", CHECK),
        "23P01" => failed("another row excludes this one", UNIQUE),
        "428C9" => invalid("the database fills this column itself", "leave the member out"),
        "42501" => failed("the user may not write it", GRANT),
        "25006" => failed("the server only reads", "name the primary, not a replica, in the URL"),
        _ if code.starts_with("22") => invalid("a value is refused", MEMBER),
        _ if code.starts_with("P0") => failed(
            "a function or a trigger raised an error",
            "see the trigger; its message is in the database's log",
        ),
        _ => None,
    }
}

fn of_mysql(number: u16) -> Option<Refusal> {
    match number {
        1406 => invalid("a text is too long for its column", "write a shorter text"),
        1264 | 1690 => invalid("a number is out of the range of its column", RANGE),
        1265 | 1292 | 1366 | 1367 | 1411 | 1416 => {
            invalid("a value is none of its column's type", MEMBER)
        }
        4078 => invalid("a value is none of its column's type", MEMBER),
        1048 | 1364 => failed("a column that is NOT NULL would be null", "write a value for it"),
        1062 | 1169 | 1586 => failed("another row has this value already", UNIQUE),
        1242 => failed("another row has a value that has to be unique", UNIQUE),
        1216 | 1217 | 1451 | 1452 => failed("a foreign key does not hold", FOREIGN),
        3819 | 4025 => failed("a check does not hold", CHECK),
        1044 | 1142 | 1143 => failed("the user may not write it", GRANT),
        1290 | 1792 | 1836 => failed("the server only reads", "name the primary in the URL"),
        1644 => failed("a trigger raised an error", "see the trigger"),
        1906 | 3105 => invalid("the database fills this column itself", "leave the member out"),
        _ => None,
    }
}

fn of_sqlite(code: &str, message: &str) -> Option<Refusal> {
    // What stands behind the colon are names of tables, columns and checks.
    let named = || message.to_owned();
    match (primary_code(code), code) {
        (_, "1299") => failed(named(), "write a value for it"),
        (_, "787") => failed("a foreign key does not hold", FOREIGN),
        (_, "2067" | "1555" | "2579") => failed(named(), UNIQUE),
        (_, "275") => failed(named(), CHECK),
        (_, "3091") => invalid("a value is none of its column's type", MEMBER),
        (_, "1811") => failed("a trigger raised an error", "see the trigger"),
        (19, _) => failed("a constraint does not hold", CHECK),
        (20, _) => invalid("a value is none of its column's type", MEMBER),
        (18, _) => invalid("a value is too large", "write less"),
        (8, _) => failed("the file can only be read", "grant the process the right to write it"),
        _ => None,
    }
}

/// What the database names: a constraint, a table, a column.
fn places(dialect: Dialect, error: &dyn DatabaseError) -> Vec<(&'static str, String)> {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        let places = [
            ("table", error.table()),
            ("column", error.column()),
            ("constraint", error.constraint()),
        ];
        let known = |(name, place): (&'static str, Option<&str>)| Some((name, place?.to_owned()));
        return places.into_iter().filter_map(known).collect();
    }
    if dialect != Dialect::MySql {
        return Vec::new();
    }
    let message = error.message();
    match number_of(error) {
        // Data too long for column 'v' at row 1; Column 'v' cannot be null.
        1406 | 1264 | 1265 | 1048 | 1364 => quoted(message, '\'')
            .map(|column| vec![("column", column.to_owned())])
            .unwrap_or_default(),
        // … CONSTRAINT `c` …
        1216 | 1217 | 1451 | 1452 | 4025 => message
            .split_once("CONSTRAINT ")
            .and_then(|(_, rest)| quoted(rest, '`'))
            .map(|constraint| vec![("constraint", constraint.to_owned())])
            .unwrap_or_default(),
        3819 => quoted(message, '\'')
            .map(|constraint| vec![("constraint", constraint.to_owned())])
            .unwrap_or_default(),
        // Duplicate entry 'value' for key 'name': the name stands last.
        1062 => message
            .rsplit_once(" for key ")
            .and_then(|(_, rest)| quoted(rest, '\''))
            .map(|key| vec![("constraint", key.to_owned())])
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// What stands between the first two of these marks.
fn quoted(text: &str, mark: char) -> Option<&str> {
    let (_, rest) = text.split_once(mark)?;
    rest.split_once(mark).map(|(inner, _)| inner)
}
