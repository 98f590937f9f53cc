use std::future::Future;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

use crate::failure;
use crate::plan::{Plan, Request};
use crate::pool::{Connector, Lease, Pool};
use crate::sink::Sink;
use crate::write::{Bound, Group};
use crate::{DatabaseOptions, Dialect};

/// What a kind of database does in its own way: open a connection, bind the keys
/// of a batch and write the values of rows.
pub(crate) trait Engine: Connector {
    const DIALECT: Dialect;

    /// Sends the statement of the plan for these keys and gives each row to the
    /// sink.
    fn run(
        &self,
        connection: &mut Self::Connection,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// What begins a transaction that writes.
    const BEGIN: &'static str;
    /// Whether the statements of a group tell the rows that they wrote; if not,
    /// rows are looked at before and after.
    const RETURNS_ROWS: bool;

    /// The statements that make the writes of a group.
    fn statements(group: &Group<'_>) -> Vec<Bound>;

    /// Runs a statement and says how many rows it changed.
    fn execute(
        &self,
        connection: &mut Self::Connection,
        bound: &Bound,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Runs a statement without parameters, in one round trip.
    fn execute_plain(
        &self,
        connection: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs a statement and gives each row that it wrote to the sink.
    fn returning(
        &self,
        connection: &mut Self::Connection,
        bound: &Bound,
        plan: &Plan,
        sink: &mut Sink<'_>,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The two whole numbers of the one row that a statement selects.
    fn numbers(
        &self,
        connection: &mut Self::Connection,
        bound: &Bound,
    ) -> impl Future<Output = sqlx::Result<Option<(i64, i64)>>> + Send;

    /// Asks the server whether it is there.
    fn ping(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Asks the server which version it is.
    fn version(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = sqlx::Result<String>> + Send;
}

/// What a connection may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Why a batch has no answers.
pub(crate) struct FetchError {
    pub(crate) error: Error,
    /// The value of some key may be all that is wrong.
    pub(crate) is_of_values: bool,
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        Self { error, is_of_values: false }
    }
}

/// The pools of one database.
pub(crate) struct Pools<E: Engine> {
    pub(crate) primary: Pool<E>,
    pub(crate) replica: Option<Pool<E>>,
    /// Connections to the primary that write; opened when something is written.
    writing: Pool<E>,
    statement_timeout: Duration,
    makes_lanes: bool,
}

impl<E: Engine> Pools<E> {
    pub(crate) fn new(
        primary: Pool<E>,
        replica: Option<Pool<E>>,
        writing: Pool<E>,
        options: &DatabaseOptions,
    ) -> Self {
        Self {
            primary,
            replica,
            writing,
            statement_timeout: options.statement_timeout,
            makes_lanes: options.create_lanes_table,
        }
    }

    /// Where writes go.
    pub(crate) const fn writing(&self) -> &Pool<E> {
        &self.writing
    }

    /// Whether the table of lanes is made when it is missing.
    pub(crate) const fn makes_lanes(&self) -> bool {
        self.makes_lanes
    }

    /// Where loads read.
    pub(crate) fn reading(&self) -> &Pool<E> {
        self.replica.as_ref().unwrap_or(&self.primary)
    }

    /// Asks the server that loads read from which version it is.
    pub(crate) async fn version(&self) -> Result<String> {
        let pool = self.reading();
        let mut lease = pool.acquire().await?;
        let (engine, connection) = lease.parts();
        match tokio::time::timeout(self.statement_timeout, engine.version(connection)).await {
            Ok(Ok(version)) => {
                lease.release();
                Ok(version)
            }
            Ok(Err(error)) => Err(lease.fail(pool.label(), &error)),
            Err(_) => Err(self.timeout(pool.label())),
        }
    }

    /// Asks the server that loads read from whether it is there.
    pub(crate) async fn ping(&self) -> Result<()> {
        let pool = self.reading();
        loop {
            let mut lease = pool.acquire().await?;
            let (engine, connection) = lease.parts();
            match tokio::time::timeout(self.statement_timeout, engine.ping(connection)).await {
                Ok(Ok(())) => {
                    lease.release();
                    return Ok(());
                }
                Ok(Err(_)) if lease.is_reused() => {}
                Ok(Err(error)) => return Err(lease.fail(pool.label(), &error)),
                Err(_) => return Err(self.timeout(pool.label())),
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.primary.close().await;
        self.writing.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }

    /// Answers one batch with one statement. A connection that had been idle and
    /// turns out to be closed is replaced, as often as there are such ones.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection in use.
    pub(crate) async fn fetch(
        &self,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        self.fetch_from(self.reading(), plan, requests, sink).await
    }

    /// [`Pools::fetch`] from the primary, whose answer is never old.
    pub(crate) async fn fetch_newest(
        &self,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        self.fetch_from(&self.primary, plan, requests, sink).await
    }

    async fn fetch_from(
        &self,
        pool: &Pool<E>,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        loop {
            let mut lease = pool.acquire().await?;
            let running = lease.run(plan, requests, sink);
            match tokio::time::timeout(self.statement_timeout + GRACE, running).await {
                Ok(Ok(())) => {
                    lease.release();
                    return Ok(());
                }
                Ok(Err(error))
                    if lease.is_reused() && failure::is_connection_lost(E::DIALECT, &error) =>
                {
                    tracing::debug!(database = pool.label(), "an idle connection had been closed");
                    sink.reset();
                }
                Ok(Err(error)) => {
                    let is_of_values = failure::is_of_values(E::DIALECT, &error);
                    return Err(FetchError {
                        error: lease.fail(pool.label(), &error),
                        is_of_values,
                    });
                }
                Err(_) => return Err(self.timeout(pool.label()).into()),
            }
        }
    }

    pub(crate) const fn statement_timeout(&self) -> Duration {
        self.statement_timeout
    }

    fn timeout(&self, label: &str) -> Error {
        Error::new(ErrorKind::Timeout, "the database did not answer in time")
            .with("database", label)
            .with("statement_timeout", format!("{:?}", self.statement_timeout))
            .remedy("see what keeps it busy, or raise statement_timeout")
    }
}

/// The server ends a statement at the timeout and says so; only when it does not
/// even do that is the connection given up, so much later.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

impl<E: Engine> Lease<E> {
    async fn run(
        &mut self,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> sqlx::Result<()> {
        let (engine, connection) = self.parts();
        engine.run(connection, plan, requests, sink).await
    }

    /// What an error means; keeps the connection if the error leaves it sound.
    pub(crate) fn fail(self, label: &str, error: &sqlx::Error) -> Error {
        if failure::is_connection_sound(E::DIALECT, error) {
            self.release();
        }
        failure::of_statement(E::DIALECT, label, error)
    }
}
