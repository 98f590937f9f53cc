//! Connects the databases and finds out what they hold.

use std::path::PathBuf;

use futures_util::future::join_all;
use larder::{Breaker, DependencyGraph, LoadBudget, OriginGuard};
use larder_core::{Error, Result};
use larder_sql::{Database, DatabaseOptions, SqlOrigin};

use super::plan::{Found, PlannedCache, PlannedSource, plan};
use super::{secrets, shared_tiers};
use crate::config::{
    CacheWriteOptions, Diagnostic, OriginOptions, Settings, TlsMode, policy, statement_path,
};

/// A database that is connected.
#[derive(Clone, Debug)]
pub struct OpenOrigin {
    /// The origin's name.
    pub name: String,
    /// Its connections.
    pub database: Database,
    /// Its breaker and load budget, shared by all of its caches.
    pub guard: OriginGuard,
}

/// Every database, and what each holds as far as the caches need to know.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    /// The databases.
    pub origins: Vec<OpenOrigin>,
    /// What they hold.
    pub found: Vec<Found>,
}

/// Connects all databases of a configuration, side by side.
///
/// # Errors
/// One for each that cannot be used.
pub async fn connect(settings: &Settings) -> Result<Connected, Vec<Diagnostic>> {
    let value_bytes_max = settings.config.server.value_size_max.0;
    let opening = settings.config.origins.iter().map(|(name, options)| async move {
        open(name, options, value_bytes_max).await.map_err(|error| {
            let remedy = error.remedy_text().map_or_else(|| REMEDY.to_owned(), str::to_owned);
            let message = format!(
                "the database of the origin `{name}` cannot be used: {}",
                with_source(&error)
            );
            settings.error_at(&["origins", name], message, remedy)
        })
    });
    let mut connected = Connected::default();
    let mut failures = Vec::new();
    for opened in join_all(opening).await {
        match opened {
            Ok((origin, found)) => {
                connected.origins.push(origin);
                connected.found.push(found);
            }
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        return Ok(connected);
    }
    connected.close().await;
    Err(failures)
}

/// What to do about a database that cannot be used and does not say why.
pub(crate) const REMEDY: &str =
    "check that it runs, and that the URL names its host, user and database";

impl Connected {
    /// The database of an origin.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&OpenOrigin> {
        self.origins.iter().find(|origin| origin.name == name)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        join_all(self.origins.iter().map(|origin| origin.database.close())).await;
    }
}

/// What only the databases and the shared tiers can tell about a configuration:
/// whether they can be reached, whether tables and columns are there, whether
/// queries are right.
pub async fn check(settings: &Settings) -> (Vec<Diagnostic>, Option<DependencyGraph>) {
    let mut mistakes = shared_tiers::check(settings).await;
    let connected = match connect(settings).await {
        Ok(connected) => connected,
        Err(others) => {
            mistakes.extend(others);
            return (mistakes, None);
        }
    };
    let plan = plan(settings, &connected.found);
    mistakes.extend(plan.mistakes);
    for cache in &plan.caches {
        let Some(origin) = connected.origin(&cache.origin) else { continue };
        if let Err(error) = loader(settings, &origin.database, cache).await {
            mistakes.push(loader_mistake(settings, cache, &error));
        }
    }
    connected.close().await;
    (mistakes, plan.dependencies.graph)
}

/// What a cache loads from and writes to, once the database has checked it.
///
/// # Errors
/// Those of the query, of a declared statement, or of the version column.
pub(super) async fn loader(
    settings: &Settings,
    database: &Database,
    planned: &PlannedCache,
) -> Result<SqlOrigin> {
    let entry = planned.config_name.as_ref().and_then(|name| settings.config.caches.get(name));
    let write = entry.and_then(|options| options.write.as_ref()).map(CacheWriteOptions::to_sql);
    match (&planned.source, write) {
        (PlannedSource::Table(table), None) => database.table_origin(table),
        (PlannedSource::Table(table), Some(write)) => database.writing_table_origin(table, &write),
        (PlannedSource::Query(query), None) => database.query_origin((**query).clone()).await,
        (PlannedSource::Query(query), Some(write)) => {
            database.writing_query_origin((**query).clone(), &write).await
        }
    }
}

/// What a database says of a query or a statement, at its place in the file.
pub(super) fn loader_mistake(
    settings: &Settings,
    planned: &PlannedCache,
    error: &Error,
) -> Diagnostic {
    let cache = planned.name.as_str();
    let of = |wanted: &str| error.context().find(|(name, _)| *name == wanted).map(|(_, it)| it);
    let remedy = error.remedy_text().unwrap_or("try it in the database's own client").to_owned();
    if let Some(statement) = of("statement") {
        let message = format!(
            "the statement `{statement}` of the cache `{cache}` does not work: {}",
            with_source(error)
        );
        return settings.error_at(&statement_path(cache, statement), message, remedy);
    }
    let (path, what): (&[&str], _) = match &planned.source {
        _ if of("version_column").is_some() => {
            (&["caches", cache, "write", "version_column"], "the writing")
        }
        PlannedSource::Query(_) => (&["caches", cache, "query"], "the query"),
        PlannedSource::Table(_) => (&["caches", cache], "the table"),
    };
    let message = format!("{what} of the cache `{cache}` does not work: {}", with_source(error));
    settings.error_at(path, message, remedy)
}

/// The error with what caused it, without its remedy.
pub(super) fn with_source(error: &Error) -> String {
    let text = policy::without_remedy(error);
    match std::error::Error::source(error) {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}

/// Connects one database and reads what it holds.
///
/// # Errors
/// Why it cannot be used.
pub(crate) async fn open(
    name: &str,
    options: &OriginOptions,
    value_bytes_max: u64,
) -> Result<(OpenOrigin, Found)> {
    let database = Database::connect(&database_options(options, value_bytes_max)?).await?;
    let introspection = database.introspect().await?;
    let guard = OriginGuard::new(name, breaker(options), load_budget(options));
    let found = Found { origin: name.to_owned(), introspection };
    Ok((OpenOrigin { name: name.to_owned(), database, guard }, found))
}

fn database_options(options: &OriginOptions, value_bytes_max: u64) -> Result<DatabaseOptions> {
    let (url, replica_url) = secrets::urls(options)?;
    let mut database = DatabaseOptions::new(url);
    database.replica_url = replica_url;
    database.max_connections = options.pool_size;
    database.max_write_connections = options.write_pool_size;
    database.create_lanes_table = options.create_lanes_table;
    database.connect_timeout = options.connect_timeout.0;
    database.acquire_timeout = options.acquire_timeout.0;
    database.statement_timeout = options.statement_timeout.0;
    database.idle_timeout = options.idle_timeout.0;
    database.tls = tls_mode(options, &database.url).map(|mode| match mode {
        TlsMode::Disable => larder_sql::TlsMode::Disable,
        TlsMode::Prefer => larder_sql::TlsMode::Prefer,
        TlsMode::Require => larder_sql::TlsMode::Require,
        TlsMode::VerifyCa => larder_sql::TlsMode::VerifyCa,
        TlsMode::VerifyFull => larder_sql::TlsMode::VerifyFull,
    });
    database.root_certificate = options.ca_file.as_ref().map(PathBuf::from);
    database.schemas.clone_from(&options.schemas);
    database.value_size_max = usize::try_from(value_bytes_max).unwrap_or(usize::MAX);
    Ok(database)
}

/// Whoever names a file of certificates wants them verified.
fn tls_mode(options: &OriginOptions, url: &str) -> Option<TlsMode> {
    let asks_for_ca = || {
        let url = url.to_ascii_lowercase();
        ["=verify-ca", "=verify_ca"].iter().any(|mode| url.contains(mode))
    };
    options.tls.or_else(|| match &options.ca_file {
        Some(_) if asks_for_ca() => Some(TlsMode::VerifyCa),
        Some(_) => Some(TlsMode::VerifyFull),
        None => None,
    })
}

fn breaker(options: &OriginOptions) -> Breaker {
    Breaker::default().failures(options.breaker.failures()).open_for(options.breaker.open())
}

fn load_budget(options: &OriginOptions) -> LoadBudget {
    let budget = LoadBudget::concurrent(options.max_concurrent_loads() as usize);
    match options.max_loads_per_second {
        Some(loads) => budget.per_second(loads),
        None => budget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_named_are_verified() {
        let with_file =
            OriginOptions { ca_file: Some("ca.pem".to_owned()), ..OriginOptions::default() };
        let url = "postgres://h/d";
        assert_eq!(tls_mode(&OriginOptions::default(), url), None);
        assert_eq!(tls_mode(&with_file, url), Some(TlsMode::VerifyFull));
        let require = format!("{url}?sslmode=require");
        assert_eq!(tls_mode(&with_file, &require), Some(TlsMode::VerifyFull));
        let verify = format!("{url}?sslmode=verify-ca");
        assert_eq!(tls_mode(&with_file, &verify), Some(TlsMode::VerifyCa));
        let declared = OriginOptions { tls: Some(TlsMode::VerifyCa), ..with_file };
        assert_eq!(tls_mode(&declared, url), Some(TlsMode::VerifyCa));
    }
}
