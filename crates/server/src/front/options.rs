//! What the server in front of an existing Redis is opened with.

use std::fmt;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

/// Where the existing Redis is and how it is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct UpstreamOptions {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted and the certificate verified.
    pub is_tls: bool,
    /// A file with certificates (PEM) to trust; the built-in authorities if
    /// there is none.
    pub ca_file: Option<String>,
    /// Who to log in as; the user `default` if there is only a password.
    pub user: Option<String>,
    /// The password in clear.
    pub password: Option<String>,
    /// The database that clients are in before they say `SELECT`.
    pub database: u32,
    /// How long opening a connection may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How long a reply may be owed before the connection counts as lost.
    /// Commands that block by nature are exempt.
    pub reply_timeout: Duration,
}

/// How several Redis servers stand to one another.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FrontTopology {
    /// One server. If it says that it is part of a cluster, then as
    /// [`FrontTopology::Cluster`].
    #[default]
    Standalone,
    /// Redis Cluster, version 7 or later; the addresses lead to some of its
    /// servers.
    Cluster,
    /// Sentinels say who the primary is: before [`super::check`], the addresses
    /// are theirs.
    Sentinel {
        /// The name under which they watch it, often `mymaster`.
        service: String,
        /// The user for the sentinels themselves, if they have any.
        user: Option<String>,
        /// The password for the sentinels themselves, if they have one.
        password: Option<String>,
        /// Where they are, by host and port.
        sentinels: Vec<(String, u16)>,
    },
}

/// A Redis to stand in front of, and what is kept of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FrontOptions {
    /// The Redis, or the first server to ask about the others.
    pub upstream: UpstreamOptions,
    /// Further servers to ask, by host and port, with the login of the first.
    pub others: Vec<(String, u16)>,
    /// How the servers stand to one another.
    pub topology: FrontTopology,
    /// How old the last proof may be that every invalidation has arrived; with
    /// an older one, nothing is answered from memory.
    pub staleness_max: Duration,
    /// For how long values are kept where Redis refuses to tell what changes;
    /// zero keeps nothing then.
    pub untracked_ttl: Duration,
    /// The longest value that is kept.
    pub kept_bytes_max: usize,
    /// Keys that match one of these are not kept, as in `KEYS`.
    pub not_kept: Vec<String>,
}

/// The port of Redis if the URL names none.
const DEFAULT_PORT: u16 = 6379;

/// What a URL looks like, for messages.
pub(crate) const URL_REMEDY: &str = "write it like redis://user@host:6379/0, or rediss:// for TLS; the password is best in a \
     variable";

impl UpstreamOptions {
    /// Reads a URL: `redis://[user[:password]@]host[:port][/database]`, or
    /// `rediss://` for TLS. `valkey://` and `valkeys://` mean the same.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is no such URL. The message never quotes it.
    pub fn parse(url: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Config, "this is not the URL of a Redis")
                .with("reason", why)
                .remedy(URL_REMEDY)
        };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| refuse("it has no scheme and host"))?;
        let is_tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(refuse("its scheme is none of redis, rediss, valkey, valkeys")),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (address, database) = match rest.split_once('/') {
            Some((address, "")) => (address, 0),
            Some((address, number)) => {
                let number = number.parse().ok().filter(|number| *number < 1 << 20);
                (address, number.ok_or_else(|| refuse("its database is no small number"))?)
            }
            None => (rest, 0),
        };
        let (host, port) = host_and_port(address).ok_or_else(|| refuse("it names no host"))?;
        let decode = |text: &str| percent_decoded(text).ok_or_else(|| refuse("a % stands alone"));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        Ok(Self {
            host,
            port,
            is_tls,
            ca_file: None,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            database,
            connect_timeout: Duration::from_secs(2),
            reply_timeout: Duration::from_secs(5),
        })
    }

    /// The address for people, without any secret.
    #[must_use]
    pub fn label(&self) -> String {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let database =
            if self.database == 0 { String::new() } else { format!("/{}", self.database) };
        format!("{scheme}://{host}:{}{database}", self.port)
    }
}

impl FrontOptions {
    /// The defaults in front of this Redis.
    #[must_use]
    pub fn new(upstream: UpstreamOptions) -> Self {
        Self {
            upstream,
            others: Vec::new(),
            topology: FrontTopology::default(),
            staleness_max: Duration::from_secs(1),
            untracked_ttl: Duration::from_secs(1),
            kept_bytes_max: 1 << 20,
            not_kept: Vec::new(),
        }
    }

    /// Whether keys are spread over several servers.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.topology == FrontTopology::Cluster
    }

    /// Where Redis is, for people, without any secret.
    #[must_use]
    pub fn label(&self) -> String {
        let others = self.others.iter().map(|(host, port)| {
            UpstreamOptions { host: host.clone(), port: *port, ..self.upstream.clone() }.label()
        });
        let all: Vec<_> = [self.upstream.label()].into_iter().chain(others).collect();
        match &self.topology {
            FrontTopology::Standalone => all.join(", "),
            FrontTopology::Cluster => format!("{} (cluster)", all.join(", ")),
            FrontTopology::Sentinel { service, .. } => {
                format!("{} (sentinels, {service})", all.join(", "))
            }
        }
    }

    /// How often the tracking connection is asked whether it is there: so often
    /// that one late answer is not yet too old.
    pub(crate) fn heartbeat(&self) -> Duration {
        (self.staleness_max / 4).clamp(Duration::from_millis(25), Duration::from_millis(500))
    }
}

impl fmt::Debug for FrontTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone => f.write_str("Standalone"),
            Self::Cluster => f.write_str("Cluster"),
            Self::Sentinel { service, user, password, sentinels } => f
                .debug_struct("Sentinel")
                .field("service", service)
                .field("user", user)
                .field("has_password", &password.is_some())
                .field("sentinels", sentinels)
                .finish(),
        }
    }
}

impl fmt::Debug for UpstreamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamOptions")
            .field("address", &self.label())
            .field("user", &self.user)
            .field("has_password", &self.password.is_some())
            .finish_non_exhaustive()
    }
}

/// The host and the port of `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => DEFAULT_PORT,
    };
    (!host.is_empty() && !host.contains(['?', '#'])).then(|| (host.to_owned(), port))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read = |url: &str| {
            let it = UpstreamOptions::parse(url).expect("it is a URL");
            (it.label(), it.user, it.password)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("redis://localhost"), ("redis://localhost:6379".into(), None, None));
        assert_eq!(
            read("rediss://ann:p%40ss:w@db:7000/3"),
            ("rediss://db:7000/3".into(), some("ann"), some("p@ss:w"))
        );
        assert_eq!(read("valkey://:pw@[::1]:7/"), ("redis://[::1]:7".into(), None, some("pw")));
        assert_eq!(read("redis://ann@[::1]").1, some("ann"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_quoted() {
        for url in [
            "localhost:6379",
            "http://hunter2@h",
            "redis://",
            "redis://:hunter2@",
            "redis://h:0",
            "redis://h:hunter2",
            "redis://h/hunter2",
            "redis://u:%hunter2@h",
            "redis://[::1",
        ] {
            let error = UpstreamOptions::parse(url).expect_err("it is none");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn nothing_prints_a_password() {
        let options = UpstreamOptions::parse("redis://ann:hunter2@h").expect("a URL");
        assert!(!format!("{options:?} {}", options.label()).contains("hunter2"));
    }
}
