//! MySQL and MariaDB: rows come in the binary protocol and are written as JSON
//! here.

mod catalog;
mod decode;
mod kind;
mod plan;
mod write;

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::TryStreamExt;
use larder_core::Result;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlRow, MySqlSslMode};
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, ConnectOptions, Connection, Decode, Executor, MySql,
    MySqlConnection, Row,
};

use crate::engine::{Access, Engine};
use crate::key_type::KeyValue;
use crate::plan::{Plan, Request, Statement};
use crate::pool::Connector;
use crate::sink::Sink;
use crate::table::Fetch;
use crate::write::{Bound, Group, rows};
use crate::{DatabaseOptions, Dialect, KeyType, TlsMode, failure};

pub(crate) use catalog::relations;
use decode::Decoder;
pub(crate) use plan::{query_plan, table_plan};
pub(crate) use write::declared_writes;

/// Opens connections to a MySQL or MariaDB server.
pub(crate) struct MySqlEngine {
    options: MySqlConnectOptions,
    label: String,
    statement_timeout: Duration,
    access: Access,
    /// Which of the two it is, once a connection has told.
    is_mariadb: OnceLock<bool>,
}

/// Statements that a connection keeps prepared: up to eleven for each cache, one
/// for each power of two of keys.
const STATEMENTS_PREPARED: usize = 512;

impl MySqlEngine {
    pub(crate) fn new(url: &str, options: &DatabaseOptions, access: Access) -> Result<Self> {
        let label = crate::url::redact(url);
        let parsed = MySqlConnectOptions::from_str(url)
            .map_err(|error| failure::of_connect(Dialect::MySql, &label, &error))?;
        // The modes that the driver would set change what a statement means.
        let mut parsed = parsed
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .statement_cache_capacity(STATEMENTS_PREPARED)
            .disable_statement_logging();
        if let Some(tls) = options.tls {
            parsed = parsed.ssl_mode(match tls {
                TlsMode::Disable => MySqlSslMode::Disabled,
                TlsMode::Prefer => MySqlSslMode::Preferred,
                TlsMode::Require => MySqlSslMode::Required,
                TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
                TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
            });
        }
        if let Some(certificate) = &options.root_certificate {
            parsed = parsed.ssl_ca(certificate);
        }
        Ok(Self {
            options: parsed,
            label,
            statement_timeout: options.statement_timeout,
            access,
            is_mariadb: OnceLock::new(),
        })
    }

    async fn prepare_session(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let is_mariadb = match self.is_mariadb.get() {
            Some(known) => *known,
            None => {
                let version: String =
                    sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut *connection).await?;
                *self.is_mariadb.get_or_init(|| version.to_ascii_lowercase().contains("mariadb"))
            }
        };
        let timeout = if is_mariadb {
            format!("max_statement_time = {}", self.statement_timeout.as_secs_f64())
        } else {
            format!("max_execution_time = {}", self.statement_timeout.as_millis())
        };
        connection.execute(AssertSqlSafe(format!("SET SESSION {timeout}"))).await?;
        if self.access == Access::Read {
            connection.execute("SET SESSION TRANSACTION READ ONLY").await?;
            return Ok(());
        }
        // Without a strict mode a value that does not fit would be made to fit.
        let seconds = self.statement_timeout.as_secs().max(1);
        let mut settings = format!(
            "SET SESSION sql_mode = CONCAT_WS(',', @@sql_mode, 'STRICT_ALL_TABLES'), \
             innodb_lock_wait_timeout = {seconds}"
        );
        if is_mariadb {
            // A transaction with which nobody goes on ends; MySQL has no such.
            settings.push_str(&format!(", idle_transaction_timeout = {seconds}"));
        }
        connection.execute(AssertSqlSafe(settings)).await?;
        Ok(())
    }

    fn is_mariadb(&self) -> bool {
        self.is_mariadb.get().copied().unwrap_or(false)
    }
}

impl Connector for MySqlEngine {
    type Connection = MySqlConnection;

    async fn connect(&self) -> Result<MySqlConnection> {
        let failed = |error: sqlx::Error| failure::of_connect(Dialect::MySql, &self.label, &error);
        let mut connection = self.options.connect().await.map_err(failed)?;
        self.prepare_session(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    async fn close(connection: MySqlConnection) {
        // A failure leaves the connection closed too.
        let _ = connection.close().await;
    }
}

impl Engine for MySqlEngine {
    const DIALECT: Dialect = Dialect::MySql;

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        let padded = plan.statement.padded(requests.len());
        let (sql, is_kept) = plan.statement.text(padded);
        let arguments = arguments(plan, requests, padded).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(is_kept);
        let mut rows = query.fetch(connection);
        let first = usize::from(!plan.is_table());
        let mut decoders: Option<Vec<Decoder>> = None;
        while let Some(row) = rows.try_next().await? {
            let decoders = decoders.get_or_insert_with(|| decoders_of(&row, first, &plan.fetch));
            let ordinal = if first == 1 { Some(row.try_get_unchecked::<i64, _>(0)?) } else { None };
            sink.row(ordinal, |column, out| {
                let value = row.try_get_raw(first + column).map_err(|error| error.to_string())?;
                // The driver calls a zero date NULL; the bytes tell them apart.
                let Ok(bytes) = <&[u8] as Decode<MySql>>::decode(value) else {
                    out.extend_from_slice(b"null");
                    return Ok(());
                };
                decoders.get(column).copied().unwrap_or(Decoder::Bytes).write(bytes, out)
            });
        }
        Ok(())
    }

    const BEGIN: &'static str = "START TRANSACTION";
    const RETURNS_ROWS: bool = false;

    fn statements(group: &Group<'_>) -> Vec<Bound> {
        rows::statements::<write::Syntax>(group)
    }

    async fn execute(&self, connection: &mut MySqlConnection, bound: &Bound) -> sqlx::Result<u64> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        Ok(query.persistent(bound.is_kept).execute(connection).await?.rows_affected())
    }

    async fn execute_plain(&self, connection: &mut MySqlConnection, sql: &str) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }

    /// MariaDB could, MySQL cannot: rows are read behind the write.
    async fn returning(
        &self,
        connection: &mut MySqlConnection,
        bound: &Bound,
        _: &Plan,
        _: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        self.execute(connection, bound).await.map(drop)
    }

    async fn numbers(
        &self,
        connection: &mut MySqlConnection,
        bound: &Bound,
    ) -> sqlx::Result<Option<(i64, i64)>> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        let row = query.fetch_optional(connection).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    async fn version(&self, connection: &mut MySqlConnection) -> sqlx::Result<String> {
        sqlx::query_scalar("SELECT version()").fetch_one(connection).await
    }

    async fn ping(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        connection.ping().await
    }
}

/// How to read each column, by the types that the server announced for this very
/// answer.
fn decoders_of(row: &MySqlRow, first: usize, fetch: &[Fetch]) -> Vec<Decoder> {
    let decoder = |(column, fetch): (&sqlx::mysql::MySqlColumn, &Fetch)| match fetch {
        Fetch::JsonText => Decoder::Json,
        Fetch::Native | Fetch::AsJson => Decoder::of(column.type_info()),
    };
    row.columns().iter().skip(first).zip(fetch).map(decoder).collect()
}

/// The keys one by one; the last is repeated up to the length of the statement.
fn arguments(
    plan: &Plan,
    requests: &[Request],
    padded: usize,
) -> Result<MySqlArguments, sqlx::error::BoxDynError> {
    let every: Vec<usize> = (0..plan.parameters.len()).collect();
    let occurrences = match &plan.statement {
        Statement::Union { occurrences, .. } => occurrences,
        Statement::Fixed(_) | Statement::Tuples { .. } => &every,
    };
    let mut arguments = MySqlArguments::default();
    let repeated = requests.last().into_iter().cycle();
    for request in requests.iter().chain(repeated).take(padded) {
        for &parameter in occurrences {
            let key_type = plan.parameters[parameter].key_type;
            match &request.values[parameter] {
                KeyValue::Signed(number) => arguments.add(*number)?,
                KeyValue::Unsigned(number) => arguments.add(*number)?,
                KeyValue::Boolean(boolean) => arguments.add(i64::from(*boolean))?,
                KeyValue::Bytes(bytes) => arguments.add(bytes.as_slice())?,
                // The session's time zone is UTC, and the text takes no `Z`.
                KeyValue::Text(text) if key_type == KeyType::TimestampUtc => {
                    arguments.add(text.trim_end_matches('Z'))?;
                }
                KeyValue::Text(text) => arguments.add(text.as_str())?,
            }
        }
    }
    Ok(arguments)
}
