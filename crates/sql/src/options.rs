use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

use crate::Dialect;
use crate::url::{self, redact};

/// How to reach a database and how much to ask of it.
///
/// ```
/// use larder_sql::DatabaseOptions;
///
/// let mut options = DatabaseOptions::new("postgres://app:secret@db.example:5432/shop");
/// options.max_connections = 4;
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DatabaseOptions {
    /// `sqlite:FILE`, `postgres://…` or `mysql://…`. It may hold a password, so
    /// it is never printed: [`DatabaseOptions::label`] is.
    pub url: String,
    /// A read replica of the same database. When one is named every load of an
    /// origin that does not write reads from it; the primary then serves the
    /// check at start, and the origins that write.
    pub replica_url: Option<String>,
    /// Connections held open at most, for each of primary and replica;
    /// `pool_size` in the server's configuration.
    pub max_connections: u32,
    /// Connections held open at most for writes, beside those for loads; they
    /// are opened when something is written. SQLite has one writer whatever
    /// this says. `write_pool_size` in the server's configuration.
    pub max_write_connections: u32,
    /// Whether the table `larder_lanes` is made when the first
    /// [`LaneMark`](larder_core::LaneMark) is kept and it is not there. See
    /// [`lanes_table`](crate::lanes_table) for the statement.
    pub create_lanes_table: bool,
    /// How long opening one connection may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How long a load waits for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run. The server is told too, so that a
    /// statement nobody waits for does not go on.
    pub statement_timeout: Duration,
    /// An idle connection is closed after this long.
    pub idle_timeout: Duration,
    /// Encryption of the connection. `None`: what the URL says, else
    /// [`TlsMode::Prefer`]. SQLite has none.
    pub tls: Option<TlsMode>,
    /// A file with certificates (PEM) to trust beside the built-in roots;
    /// `ca_file` in the server's configuration.
    pub root_certificate: Option<PathBuf>,
    /// Which schemas to serve without being asked for a table by name. Empty:
    /// Postgres serves all but the system's, MySQL the one in the URL.
    pub schemas: Vec<String>,
    /// The longest JSON text of one key, in bytes; a longer one is an error. The
    /// server has its own default.
    pub value_size_max: usize,
}

/// How a connection to a server is encrypted and what is verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TlsMode {
    /// Never encrypt.
    Disable,
    /// Encrypt if the server can; verify nothing.
    Prefer,
    /// Encrypt or fail; verify nothing.
    Require,
    /// Encrypt and verify the chain of certificates, not the host name.
    VerifyCa,
    /// Encrypt and verify the chain and the host name.
    VerifyFull,
}

impl DatabaseOptions {
    /// The defaults: 8 connections for loads and 8 for writes, 5 s to connect and to wait for a connection,
    /// 10 s for a statement, 10 minutes idle, values of at most 16 MiB.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            replica_url: None,
            max_connections: 8,
            max_write_connections: 8,
            create_lanes_table: true,
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            tls: None,
            root_certificate: None,
            schemas: Vec::new(),
            value_size_max: 16 * 1024 * 1024,
        }
    }

    /// The URL without user, password and options: fit for logs and errors.
    #[must_use]
    pub fn label(&self) -> String {
        redact(&self.url)
    }

    /// The dialect of the URL, after checking what can be checked without a
    /// connection.
    pub(crate) fn check(&self) -> Result<Dialect> {
        let dialect = url::check(&self.url)?;
        if let Some(replica) = &self.replica_url
            && url::check(replica)? != dialect
        {
            return Err(Error::new(
                ErrorKind::Config,
                "replica and primary are of different kinds",
            )
            .with("primary", self.label())
            .with("replica", redact(replica))
            .remedy("name a replica of the same database"));
        }
        for (name, size) in
            [("pool_size", self.max_connections), ("write_pool_size", self.max_write_connections)]
        {
            if size == 0 {
                return Err(Error::new(ErrorKind::Config, "a database needs a connection")
                    .with(name, 0)
                    .remedy(format!("set {name} to 1 or more")));
            }
        }
        for (name, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if duration < Duration::from_millis(1) || duration > TIMEOUT_MAX {
                return Err(Error::new(ErrorKind::Config, "a timeout is out of range")
                    .with(name, format!("{duration:?}"))
                    .remedy("choose one from 1 ms to 24 h"));
            }
        }
        Ok(dialect)
    }
}

/// Longer is no timeout, and the servers take milliseconds in 32 bits.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

impl fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseOptions")
            .field("url", &self.label())
            .field("replica_url", &self.replica_url.as_deref().map(redact))
            .field("max_connections", &self.max_connections)
            .field("max_write_connections", &self.max_write_connections)
            .field("create_lanes_table", &self.create_lanes_table)
            .field("connect_timeout", &self.connect_timeout)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("tls", &self.tls)
            .field("root_certificate", &self.root_certificate)
            .field("schemas", &self.schemas)
            .field("value_size_max", &self.value_size_max)
            .finish()
    }
}

impl FromStr for TlsMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(Error::new(ErrorKind::Config, "this is not a TLS mode")
                .with("tls", text)
                .remedy("choose disable, prefer, require, verify-ca or verify-full")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let mut options = DatabaseOptions::new("postgres://u:hidden@h/d");
        options.replica_url = Some("postgres://u:hidden@r/d".to_owned());
        let text = format!("{options:?}");
        assert!(text.contains("postgres://r/d") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn incoherent_options_are_refused_with_the_remedy() {
        let refused = |change: fn(&mut DatabaseOptions), part: &str| {
            let mut options = DatabaseOptions::new("postgres://u:hidden@h/d");
            change(&mut options);
            let text = options.check().expect_err(part).to_string();
            assert!(text.contains(part) && !text.contains("hidden"), "{text}");
        };
        refused(|o| o.url = "oracle://u:hidden@h/d".to_owned(), "sqlite:, postgres:// or mysql://");
        refused(|o| o.replica_url = Some("mysql://h/d".to_owned()), "replica");
        refused(|o| o.max_connections = 0, "pool_size");
        refused(|o| o.statement_timeout = Duration::ZERO, "statement_timeout");
    }
}
