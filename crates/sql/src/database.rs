use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{ErrorKind, Result};
use tokio::sync::Mutex;

use crate::catalog::{self, Relation};
use crate::engine::{Engine, FetchError, Pools};
use crate::mysql::MySqlEngine;
use crate::plan::{Plan, Request};
use crate::pool::Pool;
use crate::postgres::PostgresEngine;
use crate::sink::Sink;
use crate::sqlite::SqliteEngine;
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
            Dialect::Sqlite => {
                Engines::Sqlite(open(options, |url| SqliteEngine::new(url, options)).await?)
            }
            Dialect::Postgres => {
                Engines::Postgres(open(options, |url| PostgresEngine::new(url, options)).await?)
            }
            Dialect::MySql => {
                Engines::MySql(open(options, |url| MySqlEngine::new(url, options)).await?)
            }
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
        let size_max = self.options.value_size_max;
        let plan = match &self.engines {
            Engines::Sqlite(_) => crate::sqlite::table_plan(table, size_max),
            Engines::Postgres(_) => crate::postgres::table_plan(table, size_max),
            Engines::MySql(_) => crate::mysql::table_plan(table, size_max),
        };
        Ok(SqlOrigin::new(self.engines.clone(), plan))
    }

    /// The origin of what a query selects, after the database has checked it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](larder_core::ErrorKind::Config) for a query that is
    /// not one SELECT, whose parameters are not those of its pattern, whose
    /// columns share a name, or whose parameters' types cannot be told; else
    /// what the database says of it.
    pub async fn query_origin(&self, query: QueryOptions) -> Result<SqlOrigin> {
        let plan = match &self.engines {
            // Postgres tells the types itself.
            Engines::Postgres(_) => self.query_plan(&query, &[]).await?,
            Engines::Sqlite(_) | Engines::MySql(_) => {
                let (relations, is_new) = self.catalog(CATALOG_AGE_MAX).await?;
                match self.query_plan(&query, &relations).await {
                    // A table may have been made in the meantime.
                    Err(error) if !is_new && error.kind() == ErrorKind::Config => {
                        let (relations, _) = self.catalog(Duration::ZERO).await?;
                        self.query_plan(&query, &relations).await?
                    }
                    plan => plan?,
                }
            }
        };
        Ok(SqlOrigin::new(self.engines.clone(), plan))
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

async fn open<E: Engine>(
    options: &DatabaseOptions,
    engine: impl Fn(&str) -> Result<E>,
) -> Result<Arc<Pools<E>>> {
    let pool = |url: &str| -> Result<Pool<E>> {
        Ok(Pool::new(engine(url)?, crate::url::redact(url), options))
    };
    let replica = options.replica_url.as_deref().map(pool).transpose()?;
    let pools = Pools::new(pool(&options.url)?, replica, options);
    pools.primary.acquire().await?.release();
    if let Some(replica) = &pools.replica {
        replica.acquire().await?.release();
    }
    Ok(Arc::new(pools))
}
