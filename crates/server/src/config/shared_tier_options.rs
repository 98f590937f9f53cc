//! The options of `[redis]` and `[memcached]`: tiers that many servers share.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{ByteSize, DurationText, OptionalDuration};

/// A Redis or Valkey that many servers share: a tier below memory, the bus by
/// which they tell one another what changed, and leases, so that of all servers
/// one loads a key. Off unless it has a URL. The Redis to stand in front of is
/// another thing: `[front]`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTierOptions {
    /// Where it is, such as `redis://cache.example:6379` or
    /// `rediss://larder@cache.example:6380`, which is encrypted. A password in it
    /// can be read by whoever reads the file: `password_env` is the better place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same for several servers, in place of `url`: nodes of a cluster,
    /// sentinels, or a primary and its replicas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The environment variable that holds the URL, or several with commas
    /// between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// How the servers stand to one another.
    pub topology: RedisTopology,
    /// Under which name sentinels watch the primary, often `mymaster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_service: Option<String>,
    /// The user for the sentinels themselves, if they have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_user: Option<String>,
    /// The environment variable that holds the sentinels' password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password_env: Option<String>,
    /// The file that holds the sentinels' password. Its last line break does not
    /// count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password_file: Option<String>,
    /// The user, in place of one in the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The environment variable that holds the password, in place of one in the
    /// URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The file that holds the password. Its last line break does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// A file with certificates (PEM) to trust, for `rediss://`. Default: the
    /// built-in authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// What the name of every key and channel starts with. Servers with the same
    /// prefix are one fleet: they must serve the same databases.
    pub prefix: String,
    /// How many connections are held, from 3 to 50. Commands share them.
    #[schemars(range(min = 3, max = 50))]
    pub connections: usize,
    /// How long opening a connection may take, TLS and login included.
    pub connect_timeout: DurationText,
    /// How long one reply may take. The caches wait half a second at most.
    pub reply_timeout: DurationText,
    /// Whether entries are kept there. Default: yes, unless `[memcached]` keeps
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<bool>,
    /// The largest value that is kept there. Larger ones stay in memory.
    pub value_size_max: ByteSize,
    /// Values longer than this are packed with zstd where that makes them shorter: it
    /// takes less of memory and network there, and about 2 ms of this server for each
    /// MiB. Servers without this option can read them. Default: none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress_above: Option<ByteSize>,
    /// Whether entries are read from replicas. These may lag behind: what was
    /// removed a moment ago may be read there once more, and is then served from
    /// memory for up to `memory_ttl`.
    pub read_from_replicas: bool,
    /// How long memory serves an entry before it asks the shared tier again;
    /// `"off"`: as long as the entry holds.
    pub memory_ttl: OptionalDuration,
    /// How stale an answer from memory may be if the bus is not heard: without
    /// proof for so long that no message is missing, memory counts as a miss.
    /// While the bus works, changes arrive at once.
    pub staleness_bound: DurationText,
}

/// How several Redis servers stand to one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedisTopology {
    /// One primary, with or without replicas.
    #[default]
    Standalone,
    /// The URLs lead to sentinels, who know the primary.
    Sentinel,
    /// Redis Cluster, version 7 or later.
    Cluster,
}

impl RedisTierOptions {
    /// Whether there is such a tier.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.url.is_some() || !self.urls.is_empty() || self.url_env.is_some()
    }

    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for RedisTierOptions {
    fn default() -> Self {
        Self {
            url: None,
            urls: Vec::new(),
            url_env: None,
            topology: RedisTopology::default(),
            sentinel_service: None,
            sentinel_user: None,
            sentinel_password_env: None,
            sentinel_password_file: None,
            user: None,
            password_env: None,
            password_file: None,
            ca_file: None,
            prefix: "larder".to_owned(),
            connections: 4,
            connect_timeout: DurationText(Duration::from_secs(2)),
            reply_timeout: DurationText(Duration::from_secs(1)),
            entries: None,
            value_size_max: ByteSize(8 << 20),
            compress_above: None,
            read_from_replicas: false,
            memory_ttl: OptionalDuration(Some(Duration::from_secs(60))),
            staleness_bound: DurationText(Duration::from_secs(5)),
        }
    }
}

/// Memcached servers as a tier below memory that many servers share. Memcached
/// cannot tell who shares it what changed: `[redis]` has to be there as the bus.
/// Off unless it has servers.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemcachedTierOptions {
    /// The servers: `host`, `host:port`, or `host:port/?weight`. Every Larder
    /// must name the same ones in the same way; the order does not matter.
    pub servers: Vec<String>,
    /// The user, where memcached runs with `-Y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The file that holds the password. Its last line break does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Whether connections are encrypted and certificates verified.
    pub tls: bool,
    /// A file with certificates (PEM) to trust. Default: the built-in authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The name that certificates must have. Default: the host of each server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// How many connections are held to each server; at most 50 to all together.
    #[schemars(range(min = 1, max = 50))]
    pub connections_per_server: usize,
    /// How long opening a connection may take, TLS and login included.
    pub connect_timeout: DurationText,
    /// How long one reply may take. The caches wait half a second at most.
    pub reply_timeout: DurationText,
    /// Values longer than this are packed with zstd where that makes them shorter: it
    /// takes less of memory and network there, and about 2 ms of this server for each
    /// MiB. Servers without this option can read them. Default: none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress_above: Option<ByteSize>,
    /// What becomes of the keys of a dead server.
    pub when_dead: DeadServerKeys,
}

/// What becomes of the keys of a dead memcached server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadServerKeys {
    /// They are misses until it returns.
    #[default]
    Miss,
    /// The other servers stand in for it.
    Eject,
}

impl MemcachedTierOptions {
    /// Whether there is such a tier.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for MemcachedTierOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            user: None,
            password_env: None,
            password_file: None,
            tls: false,
            ca_file: None,
            server_name: None,
            connections_per_server: 1,
            connect_timeout: DurationText(Duration::from_secs(2)),
            reply_timeout: DurationText(Duration::from_secs(1)),
            compress_above: None,
            when_dead: DeadServerKeys::default(),
        }
    }
}
