//! The options of `[origins.NAME]`: a database and how gently it is asked.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::DurationText;

/// A database and how gently it is asked.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OriginOptions {
    /// The database, such as `postgres://user@host:5432/shop`,
    /// `mysql://user@host/shop` or `sqlite:/var/lib/shop.db`. A password in
    /// it can be read by whoever reads the file: `url_env` is the better place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The environment variable that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// A read replica of the same database. All loads read from it then, but for
    /// those of caches that write; the primary serves these and the check at
    /// start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_url: Option<String>,
    /// The environment variable that holds the replica's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_url_env: Option<String>,
    /// Whether tables and views with a primary key are served as
    /// `table:primary-key` without a cache being declared for each.
    pub serve_tables: bool,
    /// Serves only the tables whose names match one of these; `*` stands for any
    /// text.
    pub include_tables: Vec<String>,
    /// Never serves the tables whose names match one of these; `*` stands for
    /// any text.
    pub exclude_tables: Vec<String>,
    /// The schemas whose tables are served. Default: Postgres serves all but the
    /// system's, MySQL the one in the URL.
    pub schemas: Vec<String>,
    /// How many connections are opened at most, to primary and replica each.
    #[schemars(range(min = 1, max = 1000))]
    pub pool_size: u32,
    /// How many connections are opened at most to write, beside those that load.
    /// A SQLite file has one.
    #[schemars(range(min = 1, max = 1000))]
    pub write_pool_size: u32,
    /// Whether the table `larder_lanes`, in which write-behind keeps how far it
    /// is, is made when it is missing. See the guide for the statement.
    pub create_lanes_table: bool,
    /// How long opening a connection may take, TLS and login included.
    pub connect_timeout: DurationText,
    /// How long a load waits for a free connection.
    pub acquire_timeout: DurationText,
    /// How long one statement may run. The database is told too.
    pub statement_timeout: DurationText,
    /// A connection that is not used for this long is closed.
    pub idle_timeout: DurationText,
    /// How many loads run at once at most; a batch is one load. Those beyond wait
    /// their turn, up to their hard timeout, where a load that waits for a
    /// connection would count as a failure of the origin. Default: `pool_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_loads: Option<u32>,
    /// How many loads start in a second at most. Default: no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_loads_per_second: Option<u32>,
    /// When the origin is left alone because it keeps failing.
    pub breaker: BreakerOptions,
    /// Whether the connection is encrypted and whom it trusts. Default: with a
    /// `ca_file` `verify-full`, unless the URL asks for `verify-ca`; else what
    /// the URL says; else `prefer`, which verifies nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// A file with certificates (PEM) to trust beside the built-in authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            url: None,
            url_env: None,
            replica_url: None,
            replica_url_env: None,
            serve_tables: true,
            include_tables: Vec::new(),
            exclude_tables: Vec::new(),
            schemas: Vec::new(),
            pool_size: 8,
            write_pool_size: 8,
            create_lanes_table: true,
            connect_timeout: DurationText(Duration::from_secs(5)),
            acquire_timeout: DurationText(Duration::from_secs(5)),
            statement_timeout: DurationText(Duration::from_secs(10)),
            idle_timeout: DurationText(Duration::from_secs(600)),
            max_concurrent_loads: None,
            max_loads_per_second: None,
            breaker: BreakerOptions::default(),
            tls: None,
            ca_file: None,
        }
    }
}

impl OriginOptions {
    /// How many loads run at once at most.
    #[must_use]
    pub fn max_concurrent_loads(&self) -> u32 {
        self.max_concurrent_loads.unwrap_or(self.pool_size)
    }
}

/// When an origin is left alone because it keeps failing.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerOptions {
    /// A pair of values to start from: `sensitive` opens after 5 failures for
    /// 60 s, `tolerant`, for an origin of many caches, after 50 for 30 s.
    pub preset: BreakerPreset,
    /// How many failures in a row open it. Default: the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failures: Option<u32>,
    /// For how long it stays open before one load is tried again. Default: the
    /// preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<DurationText>,
}

/// A ready-made breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BreakerPreset {
    /// 5 failures, 60 s.
    #[default]
    Sensitive,
    /// 50 failures, 30 s.
    Tolerant,
}

impl BreakerOptions {
    /// How many failures in a row open it.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures.unwrap_or(match self.preset {
            BreakerPreset::Sensitive => 5,
            BreakerPreset::Tolerant => 50,
        })
    }

    /// For how long it stays open.
    #[must_use]
    pub fn open(&self) -> Duration {
        self.open.map_or(
            match self.preset {
                BreakerPreset::Sensitive => Duration::from_secs(60),
                BreakerPreset::Tolerant => Duration::from_secs(30),
            },
            |open| open.0,
        )
    }
}

/// Whether a connection is encrypted and whom it trusts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server offers it.
    Prefer,
    /// Always encrypted, whoever the server is.
    Require,
    /// Encrypted, and the certificate must be of a trusted authority.
    VerifyCa,
    /// The same, and it must name the host.
    VerifyFull,
}
