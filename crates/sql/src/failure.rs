//! What a database's failure means: whether a later try may succeed, and what
//! to do about it. Nothing here repeats a value, a row or a secret.

use std::io;

use larder_core::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::Dialect;

/// What a failed statement means for the load.
pub(crate) fn of_statement(dialect: Dialect, label: &str, error: &sqlx::Error) -> Error {
    let failure = match error {
        sqlx::Error::Database(error) => of_database(dialect, error.as_ref()),
        sqlx::Error::Io(error) => Failure::unavailable(format!("the connection broke: {error}")),
        sqlx::Error::Tls(_) => Failure::unavailable("the encrypted connection broke"),
        sqlx::Error::WorkerCrashed => Failure::unavailable("the SQLite worker is gone"),
        sqlx::Error::Protocol(_) => Failure::unavailable("the database's answer cannot be read"),
        other => Failure::failed(format!("the driver refused: {}", first_line(other))),
    };
    failure.into_error("the database failed", label)
}

/// What a failed attempt to connect means.
pub(crate) fn of_connect(dialect: Dialect, label: &str, error: &sqlx::Error) -> Error {
    let failure = match error {
        sqlx::Error::Database(error) => of_database(dialect, error.as_ref()),
        sqlx::Error::Io(error) => of_io(error),
        sqlx::Error::Tls(error) => Failure::config(format!("TLS failed: {error}")).remedy(TLS_REMEDY),
        sqlx::Error::Configuration(_) => Failure::config("the URL cannot be understood")
            .remedy("write it like postgres://user:password@host:5432/database; escape special characters in the password as %XX"),
        other => Failure::unavailable(first_line(other)),
    };
    failure.into_error("cannot connect to the database", label)
}

/// Whether the connection, not the statement, is to blame: then an idle
/// connection that the server had closed is replaced and the statement is sent
/// again.
pub(crate) fn is_connection_lost(dialect: Dialect, error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code();
            let code = code.as_deref().unwrap_or_default();
            match dialect {
                // Shut down by the administrator; and a prepared statement whose
                // table changed, which a new connection prepares anew.
                Dialect::Postgres => {
                    matches!(code, "57P01" | "57P02" | "57P03" | "0A000" | "26000")
                }
                Dialect::MySql => matches!(number_of(error.as_ref()), 1053 | 1243 | 1927 | 4031),
                Dialect::Sqlite => false,
            }
        }
        _ => false,
    }
}

/// Whether the connection can be used again after this error: the server
/// answered, so its pipe is clean.
pub(crate) fn is_connection_sound(dialect: Dialect, error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_)) && !is_connection_lost(dialect, error)
}

/// Whether the values are to blame, so that the same statement may succeed for
/// some of its keys: not the schema, a right or the connection.
pub(crate) fn is_of_values(dialect: Dialect, error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    if of_database(dialect, error.as_ref()).kind != ErrorKind::OriginFailed {
        return false;
    }
    let code = error.code().unwrap_or_default();
    match dialect {
        Dialect::Postgres | Dialect::MySql => {
            let class = code.get(..2).unwrap_or_default();
            !matches!(class, "0A" | "25" | "26" | "28" | "3D" | "3F" | "42")
        }
        Dialect::Sqlite => {
            matches!(primary_code(&code), 1 | 18 | 20) && !is_of_sqlite_schema(error.message())
        }
    }
}

struct Failure {
    kind: ErrorKind,
    reason: String,
    code: Option<String>,
    remedy: Option<&'static str>,
}

impl Failure {
    fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), code: None, remedy: None }
    }

    fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, reason)
    }

    fn failed(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::OriginFailed, reason)
    }

    fn config(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, reason)
    }

    fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = Some(remedy);
        self
    }

    fn into_error(self, what: &'static str, label: &str) -> Error {
        let mut error = Error::new(self.kind, what).with("database", label);
        if let Some(code) = self.code {
            error = error.with("code", code);
        }
        error = error.with("reason", self.reason);
        match self.remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }
}

const TLS_REMEDY: &str = "trust the certificate that signed the server's (ca_file), \
     see that the server offers TLS, or choose a weaker mode";

/// Of a table or column that is not there.
pub(crate) const TABLE_REMEDY: &str = "the table changed: correct the query, or start Larder again";

fn of_io(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::unavailable("the connection was refused")
            .remedy("start the database, or correct host and port in the URL"),
        // What rustls says of a certificate.
        io::ErrorKind::InvalidData => {
            Failure::config(format!("TLS failed: {error}")).remedy(TLS_REMEDY)
        }
        io::ErrorKind::NotFound => Failure::unavailable("there is no such socket or host")
            .remedy("correct the host in the URL"),
        _ => Failure::unavailable(error.to_string())
            .remedy("see that the database runs and can be reached from here"),
    }
}

fn of_database(dialect: Dialect, error: &dyn DatabaseError) -> Failure {
    let code = error.code().map(|code| code.into_owned()).unwrap_or_default();
    let mut failure = match dialect {
        Dialect::Postgres => of_sqlstate(&code, error.message()),
        Dialect::MySql => of_mysql(number_of(error), &code, error.message()),
        Dialect::Sqlite => of_sqlite(&code, error.message()),
    };
    failure.code = Some(match dialect {
        Dialect::MySql => format!("{} ({code})", number_of(error)),
        Dialect::Postgres | Dialect::Sqlite => code,
    });
    failure
}

fn of_sqlstate(code: &str, message: &str) -> Failure {
    match code {
        "57014" => Failure::new(ErrorKind::Timeout, "the statement ran out of time")
            .remedy("make the statement faster, or raise statement_timeout"),
        "53300" => Failure::unavailable("the server has too many connections")
            .remedy("lower pool_size here, or raise the server's limit"),
        "28P01" | "28000" => Failure::config("user or password was refused")
            .remedy("correct them in the URL, and see pg_hba.conf"),
        "3D000" => Failure::config("the server has no such database")
            .remedy("correct the database's name in the URL"),
        "42501" => Failure::failed(message).remedy("grant SELECT on it to the user of the URL"),
        "42P01" | "42703" | "42702" => Failure::failed(message).remedy(TABLE_REMEDY),
        "42P08" | "42P18" => Failure::failed(message)
            .remedy("declare the type, such as types = { name = \"integer\" }, or cast it, such as :id::bigint"),
        "25006" => Failure::failed(message)
            .remedy("a load only reads: take what writes out of the statement"),
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => Failure::unavailable(message),
            "40" | "55" => Failure::unavailable(message),
            // These messages repeat the value that they complain about.
            "22" | "23" => Failure::failed("a value was refused"),
            "P0" => Failure::failed("a function raised an error"),
            _ => Failure::failed(message),
        },
    }
}

fn of_mysql(number: u16, code: &str, message: &str) -> Failure {
    match number {
        1969 | 3024 | 1317 => Failure::new(ErrorKind::Timeout, "the statement ran out of time")
            .remedy("make the statement faster, or raise statement_timeout"),
        1040 | 1203 | 1226 => Failure::unavailable("the server has too many connections")
            .remedy("lower pool_size here, or raise the server's limit"),
        1045 | 1698 | 1251 => Failure::config("user or password was refused")
            .remedy("correct them in the URL, and see the server's grants"),
        1044 => Failure::config("the user may not use this database")
            .remedy("grant SELECT on it to the user of the URL"),
        1049 => Failure::config("the server has no such database")
            .remedy("correct the database's name in the URL"),
        1142 | 1143 => Failure::failed(message).remedy("grant SELECT on it to the user of the URL"),
        1146 | 1054 | 1052 | 1060 => Failure::failed(message).remedy(TABLE_REMEDY),
        1792 => Failure::failed(message)
            .remedy("a load only reads: take what writes out of the statement"),
        1053 | 1205 | 1213 | 1927 | 4031 | 1021 | 1037 | 1041 => Failure::unavailable(message),
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "40" => Failure::unavailable(message),
            "42" => Failure::failed(message),
            // The others may repeat the value that they complain about.
            _ => Failure::failed("the statement was refused"),
        },
    }
}

fn of_sqlite(code: &str, message: &str) -> Failure {
    match primary_code(code) {
        5 | 6 => Failure::unavailable("the file is locked by a writer")
            .remedy("use WAL mode, in which readers do not wait for writers"),
        9 => Failure::new(ErrorKind::Timeout, "the statement ran out of time")
            .remedy("make the statement faster, or raise statement_timeout"),
        10 | 13 | 14 => {
            Failure::unavailable(message).remedy("see that the file is there and may be read")
        }
        11 | 26 => Failure::failed(message).remedy("the file is damaged or is no SQLite database"),
        8 => Failure::failed(message)
            .remedy("a load only reads: take what writes out of the statement"),
        18 | 20 => Failure::failed("a value was refused"),
        _ if is_of_sqlite_schema(message) => Failure::failed(message).remedy(TABLE_REMEDY),
        _ => Failure::failed(message),
    }
}

/// The low byte of a result code of SQLite.
pub(crate) fn primary_code(code: &str) -> u32 {
    code.parse::<u32>().unwrap_or(1) & 0xFF
}

/// Whether SQLite misses a table or a column, which it says by text alone.
fn is_of_sqlite_schema(message: &str) -> bool {
    ["no such table", "no such column", "ambiguous column name"]
        .iter()
        .any(|part| message.starts_with(part))
}

pub(crate) fn number_of(error: &dyn DatabaseError) -> u16 {
    error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number)
}

fn first_line(error: &sqlx::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
