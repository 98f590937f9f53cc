//! SQLite: a file, read by threads of this process.

mod catalog;
mod packed;
mod plan;
mod write;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use larder_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection, Decode, Executor, Row, Sqlite,
    SqliteConnection, TypeInfo, ValueRef,
};

use crate::engine::{Access, Engine};
use crate::json;
use crate::key_type::KeyValue;
use crate::plan::{Plan, Request};
use crate::pool::Connector;
use crate::sink::Sink;
use crate::write::{Bound, Group, rows};
use crate::{DatabaseOptions, Dialect, failure};

pub(crate) use catalog::relations;
pub(crate) use plan::{query_plan, table_plan};
pub(crate) use write::declared_writes;

/// Opens connections to a SQLite file, for reading or for writing.
pub(crate) struct SqliteEngine {
    options: SqliteConnectOptions,
    path: PathBuf,
    label: String,
    statement_timeout: Duration,
    writes: bool,
    may_write: bool,
}

/// A connection and the moment at which its statement is to stop.
pub(crate) struct SqliteReader {
    connection: SqliteConnection,
    deadline: Deadline,
}

/// Milliseconds after `origin` at which the statement stops; shared with the
/// thread that runs it.
#[derive(Clone)]
struct Deadline {
    origin: Instant,
    millis: Arc<AtomicU64>,
}

impl SqliteEngine {
    pub(crate) fn new(url: &str, options: &DatabaseOptions, access: Access) -> Result<Self> {
        let label = crate::url::redact(url);
        let wrong =
            |what: &'static str| Error::new(ErrorKind::Config, what).with("database", &label);
        let path = label.strip_prefix("sqlite:").unwrap_or(&label);
        if path.contains(":memory:") || url.contains("mode=memory") {
            return Err(wrong("an in-memory SQLite database cannot be an origin")
                .remedy("name a file: each connection would get a memory of its own"));
        }
        if path.is_empty() {
            return Err(
                wrong("the URL names no SQLite file").remedy("write it like sqlite:shop.db")
            );
        }
        let parsed = SqliteConnectOptions::from_str(url)
            .map_err(|error| failure::of_connect(Dialect::Sqlite, &label, &error))?;
        let path = parsed.get_filename().to_owned();
        check_file(&path, &label)?;
        let may_write = !["mode=ro", "immutable="].iter().any(|option| url.contains(option));
        let parsed = parsed
            .create_if_missing(false)
            .busy_timeout(options.statement_timeout)
            .row_buffer_size(ROW_BUFFER)
            .disable_statement_logging();
        let parsed = match access {
            Access::Read => parsed.read_only(true).pragma("query_only", "1"),
            Access::Write => parsed.read_only(!may_write),
        };
        let statement_timeout = options.statement_timeout;
        let writes = access == Access::Write;
        Ok(Self { options: parsed, path, label, statement_timeout, writes, may_write })
    }
}

/// Rows that the thread of a connection may be ahead of the reader.
const ROW_BUFFER: usize = 256;
/// Instructions of SQLite's machine between two looks at the clock: some tens
/// of microseconds.
const INSTRUCTIONS: i32 = 4_096;

fn check_file(path: &Path, label: &str) -> Result<()> {
    let wrong = |what: &'static str| Error::new(ErrorKind::Config, what).with("database", label);
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(wrong("the SQLite database is not a file").remedy("name a file in the URL")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(wrong("the SQLite file does not exist")
                .remedy("correct the path in the URL; it is relative to the working directory"))
        }
        Err(error) => Err(wrong("the SQLite file cannot be read")
            .with("reason", error)
            .remedy("grant the process the right to read it")),
    }
}

impl Connector for SqliteEngine {
    type Connection = SqliteReader;

    async fn connect(&self) -> Result<SqliteReader> {
        check_file(&self.path, &self.label)?;
        if self.writes && !self.may_write {
            return Err(Error::new(ErrorKind::Config, "the URL opens the file for reading only")
                .with("database", &self.label)
                .remedy("take mode=ro and immutable out of the URL, or declare no writes"));
        }
        let failed = |error: sqlx::Error| failure::of_connect(Dialect::Sqlite, &self.label, &error);
        let mut connection = self.options.connect().await.map_err(failed)?;
        let deadline = Deadline::new();
        let watched = deadline.clone();
        let mut handle = connection.lock_handle().await.map_err(failed)?;
        handle.set_progress_handler(INSTRUCTIONS, move || !watched.has_passed());
        drop(handle);
        // SQLite reads the file only now: one that is no database fails here.
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        if self.writes {
            // Beside a log readers do not wait for the writer. A file that cannot
            // have one is written as it is.
            let _ = connection.execute("PRAGMA journal_mode = WAL").await;
        }
        Ok(SqliteReader { connection, deadline })
    }

    async fn close(reader: SqliteReader) {
        // A failure leaves the connection closed too.
        let _ = reader.connection.close().await;
    }
}

impl Engine for SqliteEngine {
    const DIALECT: Dialect = Dialect::Sqlite;

    async fn run(
        &self,
        reader: &mut SqliteReader,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        let (sql, is_kept) = plan.statement.text(requests.len());
        let arguments = arguments(plan, requests).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(is_kept);
        let mut rows = query.fetch(&mut reader.connection);
        let taking = async {
            while let Some(row) = rows.try_next().await? {
                if plan.is_table() {
                    sink.row(None, |column, out| write_value(&row, column, out));
                } else {
                    unpack(&row, plan, sink)?;
                }
            }
            Ok(())
        };
        reader.deadline.hold(self.statement_timeout, taking).await
    }

    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const RETURNS_ROWS: bool = false;

    fn statements(group: &Group<'_>) -> Vec<Bound> {
        rows::statements::<write::Syntax>(group)
    }

    async fn execute(&self, writer: &mut SqliteReader, bound: &Bound) -> sqlx::Result<u64> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        let running = query.persistent(bound.is_kept).execute(&mut writer.connection);
        Ok(writer.deadline.hold(self.statement_timeout, running).await?.rows_affected())
    }

    async fn execute_plain(&self, writer: &mut SqliteReader, sql: &str) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut writer.connection).await.map(drop)
    }

    /// A trigger can change a row after SQLite has told it: rows are read behind
    /// the write.
    async fn returning(
        &self,
        writer: &mut SqliteReader,
        bound: &Bound,
        _: &Plan,
        _: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        self.execute(writer, bound).await.map(drop)
    }

    async fn numbers(
        &self,
        writer: &mut SqliteReader,
        bound: &Bound,
    ) -> sqlx::Result<Option<(i64, i64)>> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        let running = query.fetch_optional(&mut writer.connection);
        let row = writer.deadline.hold(self.statement_timeout, running).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    async fn version(&self, reader: &mut SqliteReader) -> sqlx::Result<String> {
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut reader.connection).await
    }

    async fn ping(&self, reader: &mut SqliteReader) -> sqlx::Result<()> {
        reader.connection.ping().await
    }
}

/// Gives the rows of a key, which came packed, to the sink.
fn unpack(row: &SqliteRow, plan: &Plan, sink: &mut Sink<'_>) -> sqlx::Result<()> {
    let ordinal: i64 = row.try_get(0)?;
    let bytes =
        <&[u8] as Decode<Sqlite>>::decode(row.try_get_raw(1)?).map_err(sqlx::Error::Decode)?;
    let text = String::from_utf8_lossy(bytes);
    let rows = packed::rows(&text).map_err(|reason| sqlx::Error::Decode(reason.into()))?;
    for cells in rows {
        if cells.len() != plan.prefixes.len() {
            return Err(sqlx::Error::Decode("a packed row has another number of cells".into()));
        }
        sink.row(Some(ordinal), |column, out| packed::write_cell(cells[column], out));
    }
    Ok(())
}

/// The keys in one JSON array. A table's are texts, to which SQLite applies the
/// affinity of the columns; a query's are of the types of its parameters.
fn arguments(
    plan: &Plan,
    requests: &[Request],
) -> Result<SqliteArguments, sqlx::error::BoxDynError> {
    let mut keys = vec![b'['];
    for (index, request) in requests.iter().enumerate() {
        keys.extend_from_slice(if index == 0 { b"" } else { b"," });
        match (request.texts.as_slice(), plan.is_table()) {
            ([text], true) => json::write_string(&mut keys, text.as_bytes()),
            (texts, is_table) => {
                for (index, (text, value)) in texts.iter().zip(&request.values).enumerate() {
                    keys.push(if index == 0 { b'[' } else { b',' });
                    match value {
                        KeyValue::Signed(number) if !is_table => {
                            json::write_integer(&mut keys, *number);
                        }
                        KeyValue::Boolean(boolean) if !is_table => {
                            json::write_integer(&mut keys, u8::from(*boolean));
                        }
                        // SQLite has no integer above 63 bits: no row has one.
                        _ => json::write_string(&mut keys, text.as_bytes()),
                    }
                }
                keys.push(b']');
            }
        }
    }
    keys.push(b']');
    let mut arguments = SqliteArguments::default();
    arguments.add(String::from_utf8(keys)?)?;
    Ok(arguments)
}

/// Writes a value by its storage class; the declared type of the column has no
/// say, because SQLite does not hold values to it.
fn write_value(row: &SqliteRow, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let value = row.try_get_raw(index).map_err(|error| error.to_string())?;
    if value.is_null() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let class = value.type_info().into_owned();
    let unreadable = |error: sqlx::error::BoxDynError| error.to_string();
    match class.name() {
        "INTEGER" => {
            json::write_integer(out, <i64 as Decode<Sqlite>>::decode(value).map_err(unreadable)?);
        }
        "REAL" => {
            let number = <f64 as Decode<Sqlite>>::decode(value).map_err(unreadable)?;
            // Makes zero of minus zero, as SQLite does when it stores it in a
            // column of numbers.
            json::write_float(out, number + 0.0);
        }
        "BLOB" => {
            json::write_bytes(out, <&[u8] as Decode<Sqlite>>::decode(value).map_err(unreadable)?);
        }
        _ => {
            json::write_string(out, <&[u8] as Decode<Sqlite>>::decode(value).map_err(unreadable)?);
        }
    }
    Ok(())
}

impl Deadline {
    fn new() -> Self {
        Self { origin: Instant::now(), millis: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn has_passed(&self) -> bool {
        let millis = self.millis.load(Ordering::Relaxed);
        millis != u64::MAX && self.origin.elapsed().as_millis() >= u128::from(millis)
    }

    /// Holds a statement to the time that it may take. Dropped before its end, because
    /// nobody waits for it any more, it stops the statement.
    async fn hold<T>(&self, timeout: Duration, statement: impl Future<Output = T>) -> T {
        let end = (self.origin.elapsed() + timeout).as_millis();
        self.millis.store(u64::try_from(end).unwrap_or(u64::MAX), Ordering::Relaxed);
        let running = Running(self);
        let outcome = statement.await;
        // Also of one that failed: the connection goes on, with statements that no
        // deadline was set for.
        running.finish();
        outcome
    }
}

struct Running<'d>(&'d Deadline);

impl Running<'_> {
    fn finish(self) {
        self.0.millis.store(u64::MAX, Ordering::Relaxed);
        std::mem::forget(self);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.millis.store(0, Ordering::Relaxed);
    }
}
