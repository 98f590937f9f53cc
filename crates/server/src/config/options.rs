//! Every option of the configuration, with its meaning and its default. The
//! JSON Schema and the reference are generated from this text.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache_options::{CacheOptions, PolicyOptions};
use super::event_options::{EventRuleOptions, EventSourceOptions, ScheduleOptions};
use super::front_options::ExistingRedisOptions;
use super::journal_options::JournalSection;
use super::origin_options::OriginOptions;
use super::shared_tier_options::{MemcachedTierOptions, RedisTierOptions};
use super::units::{ByteSize, DurationText, OptionalDuration, SizeOrShare};

/// The whole configuration of a Larder server.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The doors: addresses, limits, users, log.
    pub server: ServerOptions,
    /// How much memory the server may use, and how it is divided.
    pub memory: MemoryOptions,
    /// A tier below memory, on this machine's disk: what caches hold survives a
    /// restart. Off unless it has a directory.
    pub disk: DiskTierOptions,
    /// Where writes wait for their database, of the caches that write behind.
    #[serde(skip_serializing_if = "JournalSection::is_default")]
    pub journal: JournalSection,
    /// A Redis that many servers share: a tier below memory, bus and leases. Off
    /// unless it has a URL.
    #[serde(skip_serializing_if = "RedisTierOptions::is_default")]
    pub redis: RedisTierOptions,
    /// Memcached servers that many servers share, as a tier below memory. Off
    /// unless it has servers.
    #[serde(skip_serializing_if = "MemcachedTierOptions::is_default")]
    pub memcached: MemcachedTierOptions,
    /// An existing Redis to stand in front of.
    #[serde(skip_serializing_if = "ExistingRedisOptions::is_default")]
    pub front: ExistingRedisOptions,
    /// The databases, by a name of your choice.
    pub origins: BTreeMap<String, OriginOptions>,
    /// The policy of every cache that does not say otherwise.
    pub defaults: PolicyOptions,
    /// The caches, by a name of your choice. Tables that an origin serves need
    /// no entry here.
    pub caches: BTreeMap<String, CacheOptions>,
    /// Where events come from, and for how long they are remembered.
    #[serde(skip_serializing_if = "EventSourceOptions::is_default")]
    pub events: EventSourceOptions,
    /// What events invalidate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<EventRuleOptions>,
    /// What is invalidated at certain times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<ScheduleOptions>,
}

/// The doors: addresses, limits, users, log.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerOptions {
    /// The address for Redis clients.
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// The address for metrics, health and the administration of caches, over
    /// HTTP. Where clients need a password, all of it but health does too.
    #[schemars(with = "String")]
    pub admin_bind: SocketAddr,
    /// How many threads may answer Redis clients; as many as the load needs
    /// do. Default: one for each core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// How many clients may be connected at once. Those beyond are told so and
    /// disconnected.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_clients: usize,
    /// A client that sends nothing for this long is disconnected.
    pub idle_timeout: OptionalDuration,
    /// The largest value that a client may send or a query may return.
    pub value_size_max: ByteSize,
    /// How long a shutdown waits for requests that are being answered.
    pub drain_timeout: DurationText,
    /// Commands that are off unless they are named here, because they read or
    /// destroy everything.
    pub dangerous_commands: Vec<DangerousCommand>,
    /// The environment variable that holds the password clients must give.
    /// Default: `LARDER_PASSWORD`, if that is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The file that holds the password clients must give. Its last line break
    /// does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Users with passwords of their own, for `AUTH name password`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, UserOptions>,
    /// Allows an address that other machines reach without a password. Only for
    /// networks in which everyone may read and write everything.
    pub allow_remote_without_password: bool,
    /// How much is logged. The environment variable `LARDER_LOG` goes before
    /// it and may name modules, such as `larder_server=debug`.
    pub log_level: LogLevel,
    /// How the log is written.
    pub log_format: LogFormat,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 6380)),
            admin_bind: SocketAddr::from(([127, 0, 0, 1], 6381)),
            threads: None,
            max_clients: 10_000,
            idle_timeout: OptionalDuration(None),
            value_size_max: ByteSize(64 << 20),
            drain_timeout: DurationText(std::time::Duration::from_secs(30)),
            dangerous_commands: Vec::new(),
            password_env: None,
            password_file: None,
            users: BTreeMap::new(),
            allow_remote_without_password: false,
            log_level: LogLevel::Info,
            log_format: LogFormat::Auto,
        }
    }
}

/// Someone who may connect.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserOptions {
    /// The environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The file that holds the password. Its last line break does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
}

/// A command that reads or destroys everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DangerousCommand {
    /// Lists every key.
    Keys,
    /// Empties every database.
    FlushAll,
    /// Empties the selected database.
    FlushDb,
}

impl DangerousCommand {
    /// The command's name in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keys => "KEYS",
            Self::FlushAll => "FLUSHALL",
            Self::FlushDb => "FLUSHDB",
        }
    }
}

/// How much is logged.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs someone's attention.
    Error,
    /// What may need it soon.
    Warn,
    /// Starts, stops, reloads.
    Info,
    /// Details; keys may be shown.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name used in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How the log is written.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people, in colour on a terminal.
    Auto,
    /// Lines for people, without colour.
    Plain,
    /// One JSON object a line.
    Json,
}

/// A tier below memory, on this machine's disk: what caches hold survives a
/// restart. Off unless it has a directory.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskTierOptions {
    /// The directory, for this server alone. It is made if it is not there, and
    /// only this user may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What the directory may take. At least 512MiB: journals and the room that
    /// merging needs take 230MiB of it.
    pub budget: ByteSize,
    /// What the tier may take of memory, for its buffers and indexes. Comes on top
    /// of the budget of memory. At least 48MiB.
    pub memory: ByteSize,
    /// What survives what.
    pub durability: DiskDurability,
}

impl Default for DiskTierOptions {
    fn default() -> Self {
        Self {
            directory: None,
            budget: ByteSize(1 << 30),
            memory: ByteSize(64 << 20),
            durability: DiskDurability::Process,
        }
    }
}

/// What on disk survives what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskDurability {
    /// Everything survives the end of the process, kill -9 too. A loss of power
    /// may take the last seconds, invalidations included.
    Process,
    /// Invalidations survive a loss of power, too: each waits for the disk.
    Invalidations,
    /// Everything survives a loss of power.
    All,
}

/// How much memory the server may use, and how it is divided.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryOptions {
    /// What all caches and plain keys together may take: a size, or a share of
    /// the memory that this machine or container has. Connections and loads
    /// come on top.
    pub budget: SizeOrShare,
    /// What plain keys, those of no cache, may take of the budget. Default: all
    /// of it where there are no caches, else a quarter. In front of a Redis, what
    /// is known of its keys takes this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_keys: Option<SizeOrShare>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { budget: SizeOrShare::Share(0.25), plain_keys: None }
    }
}
