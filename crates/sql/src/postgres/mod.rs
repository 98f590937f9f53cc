//! Postgres: rows come in the binary format and are written as JSON here.

mod catalog;
mod decode;
mod numeric;
mod plan;
mod types;
mod write;

use std::str::FromStr;

use futures_util::{Stream, TryStreamExt};
use larder_core::Result;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow, PgSslMode};
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, ConnectOptions, Connection, PgConnection, Row, ValueRef,
};

use crate::engine::{Access, Engine};
use crate::key_type::KeyValue;
use crate::plan::{Plan, Request};
use crate::pool::Connector;
use crate::sink::Sink;
use crate::table::Fetch;
use crate::write::{Bound, Group};
use crate::{DatabaseOptions, Dialect, TlsMode, failure};

pub(crate) use catalog::relations;
use decode::Decoder;
pub(crate) use plan::{query_plan, table_plan};
pub(crate) use write::declared_writes;

/// Opens connections to a Postgres server.
pub(crate) struct PostgresEngine {
    options: PgConnectOptions,
    label: String,
}

/// Statements that a connection keeps prepared: one for each cache.
const STATEMENTS_PREPARED: usize = 512;

impl PostgresEngine {
    pub(crate) fn new(url: &str, options: &DatabaseOptions, access: Access) -> Result<Self> {
        let label = crate::url::redact(url);
        let parsed = PgConnectOptions::from_str(url)
            .map_err(|error| failure::of_connect(Dialect::Postgres, &label, &error))?;
        // Sent with the login: a new connection costs no statement more.
        let timeout = options.statement_timeout.as_millis().to_string();
        let of_access: &[(&str, &str)] = match access {
            Access::Read => &[("default_transaction_read_only", "on")],
            // A transaction with which nobody goes on ends, and with it what a
            // writer that is gone could still commit.
            Access::Write => {
                &[("lock_timeout", &timeout), ("idle_in_transaction_session_timeout", &timeout)]
            }
        };
        let mut parsed = parsed
            .options([
                ("statement_timeout", timeout.as_str()),
                ("IntervalStyle", "iso_8601"),
                ("bytea_output", "hex"),
            ])
            .options(of_access.iter().copied())
            .statement_cache_capacity(STATEMENTS_PREPARED)
            .disable_statement_logging();
        if parsed.get_application_name().is_none() {
            parsed = parsed.application_name("larder");
        }
        if let Some(tls) = options.tls {
            parsed = parsed.ssl_mode(match tls {
                TlsMode::Disable => PgSslMode::Disable,
                TlsMode::Prefer => PgSslMode::Prefer,
                TlsMode::Require => PgSslMode::Require,
                TlsMode::VerifyCa => PgSslMode::VerifyCa,
                TlsMode::VerifyFull => PgSslMode::VerifyFull,
            });
        }
        if let Some(certificate) = &options.root_certificate {
            parsed = parsed.ssl_root_cert(certificate);
        }
        Ok(Self { options: parsed, label })
    }
}

impl Connector for PostgresEngine {
    type Connection = PgConnection;

    async fn connect(&self) -> Result<PgConnection> {
        let connecting = self.options.connect();
        connecting
            .await
            .map_err(|error| failure::of_connect(Dialect::Postgres, &self.label, &error))
    }

    async fn close(connection: PgConnection) {
        // A failure leaves the connection closed too.
        let _ = connection.close().await;
    }
}

impl Engine for PostgresEngine {
    const DIALECT: Dialect = Dialect::Postgres;

    async fn run(
        &self,
        connection: &mut PgConnection,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        let (sql, is_kept) = plan.statement.text(requests.len());
        let arguments = arguments(plan, requests).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(is_kept);
        take(query.fetch(connection), plan, sink).await
    }

    const BEGIN: &'static str = "BEGIN";
    const RETURNS_ROWS: bool = true;

    fn statements(group: &Group<'_>) -> Vec<Bound> {
        write::statements(group)
    }

    async fn execute(&self, connection: &mut PgConnection, bound: &Bound) -> sqlx::Result<u64> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        Ok(query.persistent(bound.is_kept).execute(connection).await?.rows_affected())
    }

    async fn execute_plain(&self, connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }

    async fn returning(
        &self,
        connection: &mut PgConnection,
        bound: &Bound,
        plan: &Plan,
        sink: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        take(query.persistent(bound.is_kept).fetch(connection), plan, sink).await
    }

    async fn numbers(
        &self,
        connection: &mut PgConnection,
        bound: &Bound,
    ) -> sqlx::Result<Option<(i64, i64)>> {
        let arguments = write::bind(bound).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query_with(AssertSqlSafe(bound.sql.as_str()), arguments);
        let row = query.fetch_optional(connection).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }

    async fn version(&self, connection: &mut PgConnection) -> sqlx::Result<String> {
        sqlx::query_scalar("SHOW server_version").fetch_one(connection).await
    }

    async fn ping(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        connection.ping().await
    }
}

/// Gives the rows to the sink.
async fn take(
    mut rows: impl Stream<Item = sqlx::Result<PgRow>> + Unpin,
    plan: &Plan,
    sink: &mut Sink<'_>,
) -> sqlx::Result<()> {
    let first = usize::from(!plan.is_table());
    let mut decoders: Option<Vec<Decoder>> = None;
    while let Some(row) = rows.try_next().await? {
        let decoders = decoders.get_or_insert_with(|| decoders_of(&row, first, &plan.fetch));
        let ordinal = if first == 1 { Some(row.try_get::<i64, _>(0)?) } else { None };
        sink.row(ordinal, |column, out| {
            let value = row.try_get_raw(first + column).map_err(|error| error.to_string())?;
            if value.is_null() {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            let bytes = value.as_bytes().map_err(|error| error.to_string())?;
            let decoder = decoders.get(column).copied().unwrap_or(Decoder::Unknown);
            decoder.write(bytes, out)
        });
    }
    Ok(())
}

/// How to read each column, by the types that the server announced for this
/// very answer: a column's type may have changed since the start.
fn decoders_of(row: &PgRow, first: usize, fetch: &[Fetch]) -> Vec<Decoder> {
    let decoder = |(column, fetch): (&sqlx::postgres::PgColumn, &Fetch)| match fetch {
        Fetch::Native => {
            column.type_info().oid().map_or(Decoder::Unknown, |oid| Decoder::of(oid.0))
        }
        Fetch::AsJson | Fetch::JsonText => Decoder::Json,
    };
    row.columns().iter().skip(first).zip(fetch).map(decoder).collect()
}

/// One array of texts for each part of the keys; the statement casts them.
fn arguments(plan: &Plan, requests: &[Request]) -> Result<PgArguments, sqlx::error::BoxDynError> {
    let mut arguments = PgArguments::default();
    for parameter in 0..plan.parameters.len() {
        let texts: Vec<String> = requests
            .iter()
            .map(|request| match &request.values[parameter] {
                KeyValue::Bytes(_) => format!("\\x{}", request.texts[parameter]),
                _ => request.texts[parameter].clone(),
            })
            .collect();
        arguments.add(texts)?;
    }
    Ok(arguments)
}
