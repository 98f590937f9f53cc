//! The options of `[front]`: an existing Redis to stand in front of.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared_tier_options::RedisTopology;
use super::units::{ByteSize, DurationText};

/// An existing Redis or Valkey to stand in front of: reads of strings are
/// answered from memory while they hold, and everything that Larder does not
/// answer itself goes there.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExistingRedisOptions {
    /// Where it is, such as `redis://cache.example:6379` or
    /// `rediss://larder@cache.example:6380/0`, which is encrypted. Clients begin
    /// in the database of the URL. A password in it can be read by whoever reads
    /// the file: `password_env` is the better place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same for several servers, in place of `url`: nodes of a cluster, or
    /// sentinels. The others are found through any that answers; all have one
    /// login, that of the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The environment variable that holds the URL, or several with commas
    /// between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// How the servers stand to one another. Default: one, or a cluster if it says
    /// that it is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<RedisTopology>,
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
    /// How long opening a connection may take, TLS and login included.
    pub connect_timeout: DurationText,
    /// How long a reply may be owed before the connection counts as lost.
    /// Commands that block are exempt.
    pub reply_timeout: DurationText,
    /// How stale an answer from memory may be if the connection stalls on which
    /// Redis tells what changes: without proof of life for so long, nothing is
    /// answered from memory. While it works, changes arrive at once.
    pub staleness_max: DurationText,
    /// For how long values are kept where Redis refuses to tell what changes, as
    /// some managed services do. `"0s"` keeps nothing then.
    pub untracked_ttl: DurationText,
    /// The largest value that is kept in memory. Larger ones pass through.
    pub kept_size_max: ByteSize,
    /// Keys that are never kept in memory: patterns as in `KEYS`, such as
    /// `session:*`.
    pub not_kept: Vec<String>,
}

impl ExistingRedisOptions {
    /// Whether there is a Redis to stand in front of.
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

impl Default for ExistingRedisOptions {
    fn default() -> Self {
        Self {
            url: None,
            urls: Vec::new(),
            url_env: None,
            topology: None,
            sentinel_service: None,
            sentinel_user: None,
            sentinel_password_env: None,
            sentinel_password_file: None,
            user: None,
            password_env: None,
            password_file: None,
            ca_file: None,
            connect_timeout: DurationText(Duration::from_secs(2)),
            reply_timeout: DurationText(Duration::from_secs(5)),
            staleness_max: DurationText(Duration::from_secs(1)),
            untracked_ttl: DurationText(Duration::from_secs(1)),
            kept_size_max: ByteSize(1 << 20),
            not_kept: Vec::new(),
        }
    }
}
