use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{BatchError, Error, ErrorKind, Key, LaneMark, Result, Write, Written};
use tokio::sync::Mutex;

use crate::catalog::{self, Relation};
use crate::engine::{Access, Engine, FetchError, Pools};
use crate::mysql::MySqlEngine;
use crate::plan::{Plan, Request};
use crate::pool::Pool;
use crate::postgres::PostgresEngine;
use crate::sink::Sink;
use crate::sqlite::SqliteEngine;
use crate::write::{Batch, BatchOrigin, TableWrites, WRITES_MAX, WriteOptions, Writes};
use crate::{
    DatabaseOptions, Dialect, Introspection, PoolStatistics, QueryOptions, SqlOrigin, Table,
};

/// A database: its connections and what it holds. Cloning costs a reference
/// count, and all clones share the connections.
#[derive(Clone)]
pub struct Database {
    engines: Engines,
    options: Arc<DatabaseOptions>,
    /// The catalog as it was last read. Locked while it is read, so that many
    /// queries that are declared at once read it once.
    catalog: Arc<Mutex<Option<Catalog>>>,
}

/// The catalog, and when it was read.
#[derive(Clone)]
struct Catalog {
    relations: Arc<Vec<Relation>>,
    read_at: Instant,
}

/// A catalog of this age tells the types of parameters as well as a new one. A
/// large catalog takes MySQL seconds to tell, and a configuration has many
/// queries.
const CATALOG_AGE_MAX: Duration = Duration::from_secs(10);

impl Database {
    /// Connects, which proves that URL, login and TLS are right.
    ///
    /// Needs a tokio runtime, which must outlive the database.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) for what only a
    /// changed configuration mends (scheme, file, login, database, certificate),
    /// [`ErrorKind::Unavailable`](larder_core::ErrorKind::Unavailable) if nobody
    /// answers. No error holds a secret.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(options: &DatabaseOptions) -> Result<Self> {
        let engines = match options.check()? {
            Dialect::Sqlite => Engines::Sqlite(
                open(options, |url, access| SqliteEngine::new(url, options, access)).await?,
            ),
            Dialect::Postgres => Engines::Postgres(
                open(options, |url, access| PostgresEngine::new(url, options, access)).await?,
            ),
            Dialect::MySql => Engines::MySql(
                open(options, |url, access| MySqlEngine::new(url, options, access)).await?,
            ),
        };
        Ok(Self { engines, options: Arc::new(options.clone()), catalog: Arc::default() })
    }

    /// What kind of database it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.engines.dialect()
    }

    /// The URL of the primary without user, password and options.
    #[must_use]
    pub fn label(&self) -> String {
        self.options.label()
    }

    /// Finds the tables and views that can be served without being declared.
    ///
    /// A few statements on the primary's catalog.
    ///
    /// # Errors
    /// As a load's.
    pub async fn introspect(&self) -> Result<Introspection> {
        let (relations, _) = self.catalog(Duration::ZERO).await?;
        Ok(catalog::introspection(self.dialect(), &relations))
    }

    /// The origin of a table's rows by their key.
    ///
    /// # Errors
    /// None today; a table is checked when it is introspected.
    pub fn table_origin(&self, table: &Table) -> Result<SqlOrigin> {
        Ok(SqlOrigin::new(self.engines.clone(), self.table_plan(table), None))
    }

    /// The origin of a table's rows that also writes them: every column that the
    /// database does not fill itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) for a view, and for
    /// a version column that is none.
    pub fn writing_table_origin(&self, table: &Table, options: &WriteOptions) -> Result<SqlOrigin> {
        let plan = |table: &Table| self.table_plan(table);
        let writes = TableWrites::new(self.dialect(), table, options, plan)?;
        Ok(SqlOrigin::new(self.engines.clone(), plan(table), Some(Writes::Table(Box::new(writes)))))
    }

    /// The origin of what a query selects, after the database has checked it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) for a query that is
    /// not one SELECT, whose parameters are not those of its pattern, whose
    /// columns share a name, or whose parameters' types cannot be told; else
    /// what the database says of it.
    pub async fn query_origin(&self, query: QueryOptions) -> Result<SqlOrigin> {
        let plan = self.checked_plan(&query).await?;
        Ok(SqlOrigin::new(self.engines.clone(), plan, None))
    }

    /// [`Database::query_origin`] that also writes, by the statements of these
    /// options, which the database has checked.
    ///
    /// # Errors
    /// As [`Database::query_origin`]; the context of an error about a statement
    /// has its name as `statement`.
    pub async fn writing_query_origin(
        &self,
        query: QueryOptions,
        options: &WriteOptions,
    ) -> Result<SqlOrigin> {
        let plan = self.checked_plan(&query).await?;
        let writes = match &self.engines {
            Engines::Sqlite(pools) => {
                crate::sqlite::declared_writes(pools, &query, options, &plan).await?
            }
            Engines::Postgres(pools) => {
                crate::postgres::declared_writes(pools, &query, options, &plan).await?
            }
            Engines::MySql(pools) => {
                crate::mysql::declared_writes(pools, &query, options, &plan).await?
            }
        };
        Ok(SqlOrigin::new(self.engines.clone(), plan, Some(Writes::Declared(writes))))
    }

    /// Makes writes of several origins of this database in one transaction, or
    /// none of them, and keeps the mark in the same transaction. Answers in the
    /// order of the writes.
    ///
    /// Costs what [`Origin::write_all`](larder_core::Origin::write_all) of one
    /// origin costs, with a statement more for each table.
    ///
    /// # Errors
    /// As [`Origin::write_all`](larder_core::Origin::write_all), and
    /// [`ErrorKind::InvalidInput`](larder_core::ErrorKind::InvalidInput) for an
    /// origin of another database.
    ///
    /// # Cancel safety
    /// A batch whose future is dropped may or may not have happened, as a whole.
    pub async fn write_all(
        &self,
        writes: &[(&SqlOrigin, &Write<Key, Bytes>)],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        self.engines.write_all(writes, mark).await
    }

    /// How far a lane of a journal has been applied, by this database's own
    /// record; `None` if nothing has been. One round trip to the primary.
    ///
    /// # Errors
    /// As a load's.
    pub async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        self.engines.applied(journal, lane).await
    }

    /// How long after an
    /// [`ErrorKind::OutcomeUnknown`](larder_core::ErrorKind::OutcomeUnknown) the
    /// write may still commit: who reads after that knows.
    ///
    /// The server ends a transaction with which nobody goes on, and a statement
    /// that runs for too long: see the guide for what MySQL and networks that
    /// hold packets back do to this.
    #[must_use]
    pub fn write_settled_after(&self) -> Duration {
        self.engines.settled_after()
    }

    fn table_plan(&self, table: &Table) -> Plan {
        let size_max = self.options.value_size_max;
        match &self.engines {
            Engines::Sqlite(_) => crate::sqlite::table_plan(table, size_max),
            Engines::Postgres(_) => crate::postgres::table_plan(table, size_max),
            Engines::MySql(_) => crate::mysql::table_plan(table, size_max),
        }
    }

    /// The plan of a query, after the database has checked it.
    async fn checked_plan(&self, query: &QueryOptions) -> Result<Plan> {
        Ok(match &self.engines {
            // Postgres tells the types itself.
            Engines::Postgres(_) => self.query_plan(query, &[]).await?,
            Engines::Sqlite(_) | Engines::MySql(_) => {
                let (relations, is_new) = self.catalog(CATALOG_AGE_MAX).await?;
                match self.query_plan(query, &relations).await {
                    // A table may have been made in the meantime.
                    Err(error) if !is_new && error.kind() == ErrorKind::Config => {
                        let (relations, _) = self.catalog(Duration::ZERO).await?;
                        self.query_plan(query, &relations).await?
                    }
                    plan => plan?,
                }
            }
        })
    }

    /// Asks the server that loads read from whether it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](larder_core::ErrorKind::Unavailable) if it is
    /// not.
    pub async fn ping(&self) -> Result<()> {
        match &self.engines {
            Engines::Sqlite(pools) => pools.ping().await,
            Engines::Postgres(pools) => pools.ping().await,
            Engines::MySql(pools) => pools.ping().await,
        }
    }

    /// Which version the server that loads read from is, in its own words. One
    /// round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](larder_core::ErrorKind::Unavailable) if it does
    /// not say.
    pub async fn server_version(&self) -> Result<String> {
        match &self.engines {
            Engines::Sqlite(pools) => pools.version().await,
            Engines::Postgres(pools) => pools.version().await,
            Engines::MySql(pools) => pools.version().await,
        }
    }

    /// Closes the idle connections and refuses new loads. Loads that run end as
    /// they would.
    pub async fn close(&self) {
        match &self.engines {
            Engines::Sqlite(pools) => pools.close().await,
            Engines::Postgres(pools) => pools.close().await,
            Engines::MySql(pools) => pools.close().await,
        }
    }

    /// The connections that loads use.
    #[must_use]
    pub fn pool_statistics(&self) -> PoolStatistics {
        match &self.engines {
            Engines::Sqlite(pools) => pools.reading().statistics(),
            Engines::Postgres(pools) => pools.reading().statistics(),
            Engines::MySql(pools) => pools.reading().statistics(),
        }
    }

    /// The connections that writes use.
    #[must_use]
    pub fn write_pool_statistics(&self) -> PoolStatistics {
        match &self.engines {
            Engines::Sqlite(pools) => pools.writing().statistics(),
            Engines::Postgres(pools) => pools.writing().statistics(),
            Engines::MySql(pools) => pools.writing().statistics(),
        }
    }

    async fn query_plan(&self, query: &QueryOptions, relations: &[Relation]) -> Result<Plan> {
        let size_max = self.options.value_size_max;
        match &self.engines {
            Engines::Sqlite(pools) => {
                crate::sqlite::query_plan(pools, query, relations, size_max).await
            }
            Engines::Postgres(pools) => crate::postgres::query_plan(pools, query, size_max).await,
            Engines::MySql(pools) => {
                crate::mysql::query_plan(pools, query, relations, size_max).await
            }
        }
    }

    /// The catalog, at most so old, and whether it was read for this call.
    async fn catalog(&self, age_max: Duration) -> Result<(Arc<Vec<Relation>>, bool)> {
        let mut kept = self.catalog.lock().await;
        if let Some(catalog) = &*kept
            && catalog.read_at.elapsed() < age_max
        {
            return Ok((Arc::clone(&catalog.relations), false));
        }
        let schemas = &self.options.schemas;
        let read_at = Instant::now();
        let relations = Arc::new(match &self.engines {
            Engines::Sqlite(pools) => crate::sqlite::relations(pools).await?,
            Engines::Postgres(pools) => crate::postgres::relations(pools, schemas).await?,
            Engines::MySql(pools) => crate::mysql::relations(pools, schemas).await?,
        });
        *kept = Some(Catalog { relations: Arc::clone(&relations), read_at });
        Ok((relations, true))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The pools of whichever kind of database it is.
#[derive(Clone)]
pub(crate) enum Engines {
    Sqlite(Arc<Pools<SqliteEngine>>),
    Postgres(Arc<Pools<PostgresEngine>>),
    MySql(Arc<Pools<MySqlEngine>>),
}

impl Engines {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }

    /// Where loads read, without secrets.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Sqlite(pools) => pools.reading().label(),
            Self::Postgres(pools) => pools.reading().label(),
            Self::MySql(pools) => pools.reading().label(),
        }
    }

    pub(crate) fn statement_timeout(&self) -> Duration {
        match self {
            Self::Sqlite(pools) => pools.statement_timeout(),
            Self::Postgres(pools) => pools.statement_timeout(),
            Self::MySql(pools) => pools.statement_timeout(),
        }
    }

    /// Asks the primary.
    pub(crate) async fn fetch_newest(
        &self,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        match self {
            Self::Sqlite(pools) => pools.fetch_newest(plan, requests, sink).await,
            Self::Postgres(pools) => pools.fetch_newest(plan, requests, sink).await,
            Self::MySql(pools) => pools.fetch_newest(plan, requests, sink).await,
        }
    }

    pub(crate) async fn write_all(
        &self,
        writes: &[(&SqlOrigin, &Write<Key, Bytes>)],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let batch = batch(self, writes, mark)?;
        match self {
            Self::Sqlite(pools) => pools.write(&batch).await,
            Self::Postgres(pools) => pools.write(&batch).await,
            Self::MySql(pools) => pools.write(&batch).await,
        }
    }

    pub(crate) async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        match self {
            Self::Sqlite(pools) => pools.applied(journal, lane).await,
            Self::Postgres(pools) => pools.applied(journal, lane).await,
            Self::MySql(pools) => pools.applied(journal, lane).await,
        }
    }

    pub(crate) fn settled_after(&self) -> Duration {
        match self {
            Self::Sqlite(pools) => pools.settled_after(),
            Self::Postgres(pools) => pools.settled_after(),
            Self::MySql(pools) => pools.settled_after(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => Arc::ptr_eq(one, other),
            (Self::Postgres(one), Self::Postgres(other)) => Arc::ptr_eq(one, other),
            (Self::MySql(one), Self::MySql(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    pub(crate) async fn fetch(
        &self,
        plan: &Plan,
        requests: &[Request],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        match self {
            Self::Sqlite(pools) => pools.fetch(plan, requests, sink).await,
            Self::Postgres(pools) => pools.fetch(plan, requests, sink).await,
            Self::MySql(pools) => pools.fetch(plan, requests, sink).await,
        }
    }
}

/// What the writes come down to, before the database is asked anything.
fn batch<'b>(
    engines: &Engines,
    writes: &[(&'b SqlOrigin, &Write<Key, Bytes>)],
    mark: Option<&'b LaneMark>,
) -> Result<Batch<'b>, BatchError> {
    let mut batch =
        Batch { origins: Vec::new(), operations: Vec::with_capacity(writes.len()), mark };
    if writes.len() > WRITES_MAX {
        return Err(Error::new(ErrorKind::InvalidInput, "a batch has too many writes")
            .with("writes", writes.len())
            .with("limit", WRITES_MAX)
            .remedy("split it")
            .into());
    }
    for (index, (origin, write)) in writes.iter().enumerate() {
        let blamed = |error: Error| BatchError { index: Some(index), error };
        if !engines.is(origin.engines()) {
            return Err(blamed(
                Error::new(
                    ErrorKind::InvalidInput,
                    "an origin of the batch is of another database",
                )
                .with("pattern", origin.key_pattern())
                .remedy("write each database by itself"),
            ));
        }
        let of_origin = origin.batch_origin().map_err(blamed)?;
        let known = batch
            .origins
            .iter()
            .position(|known: &BatchOrigin<'_>| std::ptr::eq(known.writes, of_origin.writes));
        let place = known.unwrap_or_else(|| {
            batch.origins.push(of_origin);
            batch.origins.len() - 1
        });
        let operation = of_origin.writes.operation(of_origin.read, index, write);
        batch.operations.push((place, operation.map_err(blamed)?));
    }
    Ok(batch)
}

async fn open<E: Engine>(
    options: &DatabaseOptions,
    engine: impl Fn(&str, Access) -> Result<E>,
) -> Result<Arc<Pools<E>>> {
    let pool = |url: &str, access: Access, size: u32| -> Result<Pool<E>> {
        Ok(Pool::new(engine(url, access)?, crate::url::redact(url), size, options))
    };
    let reading = |url: &str| pool(url, Access::Read, options.max_connections);
    let replica = options.replica_url.as_deref().map(reading).transpose()?;
    let writers = match E::DIALECT {
        // Two would only wait for one another.
        Dialect::Sqlite => 1,
        Dialect::Postgres | Dialect::MySql => options.max_write_connections,
    };
    let writing = pool(&options.url, Access::Write, writers)?;
    let pools = Pools::new(reading(&options.url)?, replica, writing, options);
    pools.primary.acquire().await?.release();
    if let Some(replica) = &pools.replica {
        replica.acquire().await?.release();
    }
    Ok(Arc::new(pools))
}
