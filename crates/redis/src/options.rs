use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, Result};

use crate::address::ServerUrl;

/// How many connections a tier may be told to open.
pub const CONNECTIONS_LIMIT: usize = 50;

/// How the servers stand to one another.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Topology {
    /// One primary, with or without replicas. Of several URLs the first that
    /// answers as a primary is used.
    Standalone,
    /// Sentinels, to whom the URLs lead, say who is the primary of this service.
    Sentinel {
        /// The name under which the sentinels watch it, often `mymaster`.
        service: String,
        /// The user for the sentinels themselves, if they have any.
        user: Option<String>,
        /// The password for the sentinels themselves, if they have one.
        password: Option<String>,
    },
    /// Redis Cluster, version 7 or later; the URLs lead to some of its nodes.
    Cluster,
}

/// How to reach Redis or Valkey and how much to keep there.
///
/// ```
/// use larder_redis::RedisOptions;
///
/// let options = RedisOptions::new("rediss://app:secret@cache.example:6380");
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// `redis://…` or, with TLS, `rediss://…`, each with host, port, and perhaps
    /// user, password and number of a database. They may hold a password, so they
    /// are never printed.
    pub urls: Vec<String>,
    /// How the servers stand to one another.
    pub topology: Topology,
    /// The user (ACL), over the one in the URLs.
    pub user: Option<String>,
    /// The password, over the one in the URLs.
    pub password: Option<String>,
    /// A file with certificates (PEM) to trust instead of the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Connections held open at most, from 3 to 50: one for the bus, one for the
    /// wake-ups of leases, the others for commands, which are pipelined over them.
    /// In a cluster the others are one for each node.
    pub connections_max: usize,
    /// How long opening one connection may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How long one answer may take.
    pub response_timeout: Duration,
    /// What the name of every key and channel starts with: letters, digits, `-`,
    /// `_` and `.`.
    pub prefix: String,
    /// The longest encoded value in bytes; a longer one is refused.
    pub value_bytes_max: usize,
    /// Values of more than this many bytes are packed with zstd where that makes them
    /// shorter; costs some 2 ms for each MiB. All nodes can read them, whatever this
    /// says there. `None`: none is.
    pub compress_above: Option<usize>,
    /// Whether entries are read from replicas, which may lag behind. Everything
    /// else is read from the primary, and so are entries when no replica answers,
    /// for as long as that connection lasts. Takes half of the connections.
    pub read_from_replicas: bool,
    /// For how long what was invalidated refuses older entries: as long as a load
    /// may take, and a put after it.
    pub floor_window: Duration,
    /// For how long watermarks are kept, and entries at most.
    pub mark_retention: Duration,
    /// About how many messages the stream keeps for nodes that were away.
    pub stream_length_max: u64,
    /// How often the bus proves that nothing is missing: one request and one
    /// answer each time.
    pub heartbeat: Duration,
    /// What time is measured by.
    pub clock: Clock,
}

impl RedisOptions {
    /// The defaults: one server, 4 connections, 2 s to connect, 1 s for an answer,
    /// prefix `larder`, values of at most 8 MiB, floors for 10 minutes, watermarks
    /// for 24 hours, 100 000 messages, a heartbeat each 500 ms.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            topology: Topology::Standalone,
            user: None,
            password: None,
            ca_file: None,
            connections_max: 4,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(1),
            prefix: "larder".to_owned(),
            value_bytes_max: 8 << 20,
            compress_above: None,
            read_from_replicas: false,
            floor_window: Duration::from_secs(600),
            mark_retention: Duration::from_secs(24 * 3600),
            stream_length_max: 100_000,
            heartbeat: Duration::from_millis(500),
            clock: Clock::monotonic(),
        }
    }

    /// Checks what can be checked without a server and without files.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the option, its limit and a remedy; never with a
    /// URL, which may hold a password.
    pub fn validate(&self) -> Result<()> {
        self.check().map(drop)
    }

    /// The same, with what the URLs say.
    pub(crate) fn check(&self) -> Result<Vec<ServerUrl>> {
        let urls: Vec<ServerUrl> =
            self.urls.iter().map(|url| ServerUrl::parse(url)).collect::<Result<_>>()?;
        let Some(first) = urls.first() else {
            return Err(wrong("there is no URL of a Redis server").remedy("name at least one"));
        };
        if urls.iter().any(|url| url.tls != first.tls) {
            return Err(wrong("some URLs are encrypted and some are not")
                .remedy("use rediss:// for all, or redis:// for all"));
        }
        if self.topology == Topology::Cluster && first.database != 0 {
            return Err(wrong("a cluster has no numbered databases")
                .with("database", first.database)
                .remedy("take the number out of the URL"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(is_plain) {
            return Err(wrong("the prefix cannot stand in the name of a key")
                .with("prefix", &self.prefix)
                .remedy("use 1 to 64 letters, digits, -, _ and ."));
        }
        if self.read_from_replicas && self.connections_max < 4 {
            return Err(wrong("there is no connection left for replicas")
                .with("connections_max", self.connections_max)
                .remedy("use 4 connections or more, or read from the primary"));
        }
        self.check_limits()?;
        Ok(urls)
    }

    fn check_limits(&self) -> Result<()> {
        if !(3..=CONNECTIONS_LIMIT).contains(&self.connections_max) {
            return Err(wrong("the number of connections is out of range")
                .with("connections_max", self.connections_max)
                .remedy(format!("use 3 to {CONNECTIONS_LIMIT}")));
        }
        let day = Duration::from_secs(24 * 3600);
        let ranges = [
            ("connect_timeout", self.connect_timeout, Duration::from_millis(1), day),
            ("response_timeout", self.response_timeout, Duration::from_millis(1), day),
            ("heartbeat", self.heartbeat, Duration::from_millis(10), day),
            ("floor_window", self.floor_window, Duration::from_secs(1), day),
            ("mark_retention", self.mark_retention, self.floor_window, 366 * day),
        ];
        for (name, value, least, most) in ranges {
            if value < least || value > most {
                return Err(wrong("a duration is out of range")
                    .with("option", name)
                    .with("value", format!("{value:?}"))
                    .remedy(format!("use {least:?} to {most:?}")));
            }
        }
        // Half of the longest string that Redis keeps.
        let longest = 256 << 20;
        if self.value_bytes_max == 0 || self.value_bytes_max > longest {
            return Err(wrong("the longest value is out of range")
                .with("value_bytes_max", self.value_bytes_max)
                .remedy(format!("use 1 to {longest} bytes")));
        }
        if self.stream_length_max == 0 {
            return Err(wrong("the stream would keep no message").remedy(
                "make stream_length_max as large as what is announced while a node may be away",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &String| {
            ServerUrl::parse(url).map_or_else(|_| "?".to_owned(), |url| url.endpoint().to_string())
        };
        let topology = match &self.topology {
            Topology::Standalone => "standalone".to_owned(),
            Topology::Sentinel { service, .. } => format!("sentinel {service}"),
            Topology::Cluster => "cluster".to_owned(),
        };
        f.debug_struct("RedisOptions")
            .field("servers", &self.urls.iter().map(shown).collect::<Vec<_>>())
            .field("topology", &topology)
            .field("prefix", &self.prefix)
            .field("connections_max", &self.connections_max)
            .field("read_from_replicas", &self.read_from_replicas)
            .finish_non_exhaustive()
    }
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RedisOptions)) -> String {
        let mut options = RedisOptions::new("redis://:secret@localhost:1234");
        change(&mut options);
        let error = options.check().err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?} {options:?}").contains("secret"));
        error.to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        assert!(refused(|options| options.connections_max = 51).contains("3 to 50"));
        assert!(refused(|options| options.prefix = "a{b".to_owned()).contains("letters"));
        let few = |options: &mut RedisOptions| {
            (options.connections_max, options.read_from_replicas) = (3, true);
        };
        assert!(refused(few).contains("4 connections"));
        assert!(refused(|options| options.urls.clear()).contains("at least one"));
        assert!(refused(|options| options.heartbeat = Duration::ZERO).contains("heartbeat"));
        let mixed = |options: &mut RedisOptions| options.urls.push("rediss://h:1".to_owned());
        assert!(refused(mixed).contains("rediss"));
        assert!(
            refused(|options| {
                options.urls = vec!["redis://:secret@h:1/3".to_owned()];
                options.topology = Topology::Cluster;
            })
            .contains("database")
        );
        assert!(RedisOptions::new("redis://h").check().is_ok());
    }

    #[test]
    fn debug_has_no_secret() {
        let mut options = RedisOptions::new("redis://me:secret@localhost:1234/2");
        options.password = Some("secret".to_owned());
        options.topology = Topology::Sentinel {
            service: "main".to_owned(),
            user: None,
            password: Some("secret".to_owned()),
        };
        let text = format!("{options:?}");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("localhost:1234") && text.contains("sentinel main"), "{text}");
    }
}
