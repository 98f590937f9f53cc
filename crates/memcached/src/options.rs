use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

/// Connections to all servers together, at most.
pub const CONNECTIONS_MAX: usize = 50;

const PORT: u16 = 11211;

/// Which servers, and how to speak with them.
///
/// ```
/// use larder_memcached::{Credentials, MemcachedOptions};
///
/// let mut options = MemcachedOptions::new(["cache-1:11211".parse()?, "cache-2:11211/?3".parse()?]);
/// options.credentials = Some(Credentials::new("shop", "secret"));
/// assert!(!format!("{options:?}").contains("secret"));
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemcachedOptions {
    /// The servers. Every node must name the same ones in the same way: their
    /// names, ports and weights decide which key is where. The order does not
    /// matter.
    pub servers: Vec<ServerAddress>,
    /// Connections held to each server, all pipelined. All servers together have
    /// at most [`CONNECTIONS_MAX`].
    pub connections_per_server: usize,
    /// Name and password, for servers that run with `-Y`.
    pub credentials: Option<Credentials>,
    /// Encrypt, and verify the servers; `None` for plain connections.
    pub tls: Option<TlsOptions>,
    /// How long connecting may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How long a server may take for its next answer. Whoever exceeds it loses
    /// the connection, and whoever waits on that gets
    /// [`ErrorKind::Timeout`].
    pub response_timeout: Duration,
    /// How often an idle connection is proved to be alive.
    pub keep_alive: Duration,
    /// After how many failures in a row a server counts as dead: nothing is
    /// sent to it any more until a probe succeeds.
    pub failures_max: u32,
    /// The pause before the first probe of a dead server, and the longest one:
    /// it doubles from probe to probe. Each is jittered by up to half.
    pub probe_pauses: (Duration, Duration),
    /// What becomes of the keys of a dead server.
    pub when_dead: WhenDead,
}

/// What becomes of the keys of a dead server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WhenDead {
    /// Reads of them are misses, writes of them fail at once. Their origin is
    /// read more often while the server is dead.
    #[default]
    Miss,
    /// The servers that live stand in for it, each for a share of its keys, as
    /// ketama has it. Nodes need not agree on who is dead: while they do not,
    /// one may still read from a server what another has invalidated on its
    /// stand-in. What is kept on a stand-in therefore lives for a minute at
    /// most, and each node repeats on the server that returns what it could
    /// not invalidate there.
    Eject,
}

/// A server: where it is and how much it takes.
///
/// Written `host`, `host:port`, `[v6]:port`, and with a weight as
/// `host:port/?weight`, which is how libmemcached has it.
///
/// ```
/// use larder_memcached::ServerAddress;
///
/// let server: ServerAddress = "cache-2/?3".parse()?;
/// assert_eq!((server.host.as_str(), server.port, server.weight), ("cache-2", 11211, 3));
/// assert_eq!(server.to_string(), "cache-2:11211");
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerAddress {
    /// Name or address. Names are resolved anew for each connection.
    pub host: String,
    /// The TCP port; 11211 by default.
    pub port: u16,
    /// Its share of the keys, relative to the others'; 1 by default.
    pub weight: u32,
}

/// How connections are encrypted. The certificate of a server must be signed by
/// somebody trusted and must name the server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// A file with the certificates (PEM) to trust. `None`: Mozilla's list.
    pub ca_file: Option<PathBuf>,
    /// The name that certificates must have. `None`: the host of each address.
    pub server_name: Option<String>,
}

/// Name and password for servers that run with `-Y FILE`. Without TLS they
/// travel in the clear.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl MemcachedOptions {
    /// The defaults: one connection to each server, 2 s to connect, 1 s for an
    /// answer, a sign of life each 30 s, dead after 3 failures, probed after
    /// 0.5 s and at last each 30 s, keys of dead servers are misses.
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = ServerAddress>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            connections_per_server: 1,
            credentials: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_secs(30),
            failures_max: 3,
            probe_pauses: (Duration::from_millis(500), Duration::from_secs(30)),
            when_dead: WhenDead::default(),
        }
    }

    /// Checks what can be checked without a connection and without files.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the option, its limit and a remedy.
    pub fn validate(&self) -> Result<()> {
        self.check()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &'static str| Error::new(ErrorKind::Config, what);
        if self.servers.is_empty() {
            return Err(wrong("no memcached server is named").remedy("name at least one"));
        }
        let mut names: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong("a memcached server is named twice")
                .with("server", &twice[0])
                .remedy("name it once; a weight gives it more keys"));
        }
        if let Some(server) = self.servers.iter().find(|server| server.weight == 0) {
            return Err(wrong("a memcached server of weight 0 gets no keys")
                .with("server", server)
                .remedy("give it a weight of 1 or more, or leave it out"));
        }
        let connections = self.servers.len().saturating_mul(self.connections_per_server);
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            return Err(wrong("the number of connections to memcached is out of bounds")
                .with("connections", connections)
                .with("connections_max", CONNECTIONS_MAX)
                .remedy("set connections_per_server so that all servers have 1 to 50 together"));
        }
        for (name, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("keep_alive", self.keep_alive),
            ("probe_pauses", self.probe_pauses.0),
        ] {
            if duration.is_zero() {
                return Err(wrong("a duration of zero").with("option", name).remedy("lengthen it"));
            }
        }
        if self.failures_max == 0 {
            return Err(wrong("no failure is too many")
                .with("failures_max", 0)
                .remedy("allow one"));
        }
        self.credentials.as_ref().map_or(Ok(()), Credentials::check)
    }
}

impl Credentials {
    /// This name and this password.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    fn check(&self) -> Result<()> {
        let is_unfit = |c: char| c.is_control() || c == ' ';
        let is_sent = |text: &str| !text.is_empty() && !text.contains(is_unfit);
        if is_sent(&self.user) && !self.user.contains(':') && is_sent(&self.password) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "memcached's user or password cannot be sent")
            .remedy("neither may be empty or have spaces or control characters, the user no colon"))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl FromStr for ServerAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &'static str| {
            // What stands before an `@` may be a password that has no place here.
            let shown = text.rsplit('@').next().unwrap_or_default();
            Error::new(ErrorKind::Config, what)
                .with("server", shown)
                .remedy("write host:port, or host:port/?weight; credentials are options apart")
        };
        if text.contains('@') {
            return Err(wrong("the address of a memcached server has no user"));
        }
        let (address, weight) = match text.split_once("/?") {
            Some((address, weight)) => match weight.parse() {
                Ok(weight) => (address, weight),
                Err(_) => return Err(wrong("the weight of a memcached server is no number")),
            },
            None => (text, 1),
        };
        let is_plain = |host: &str| !host.contains(':') && !host.starts_with('[');
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if is_plain(host) || host.ends_with(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return Err(wrong("the port of a memcached server is no port")),
            },
            _ => (address, PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/?[]".contains(c)) {
            return Err(wrong("the address of a memcached server has no host"));
        }
        Ok(Self { host: host.to_owned(), port, weight })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16, weight: u32) -> ServerAddress {
        ServerAddress { host: host.to_owned(), port, weight }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, expected) in [
            ("a", address("a", 11211, 1)),
            ("a:1", address("a", 1, 1)),
            ("a/?5", address("a", 11211, 5)),
            ("10.0.0.1:1/?5", address("10.0.0.1", 1, 5)),
            ("[::1]:1", address("::1", 1, 1)),
            ("[::1]", address("::1", 11211, 1)),
            ("::1", address("::1", 11211, 1)),
        ] {
            assert_eq!(text.parse::<ServerAddress>().expect(text), expected, "{text}");
        }
        for text in ["", ":1", "a:b", "a:70000", "a/?x", "a/?", "memcached://a:1", "a b", "a/?5/?"]
        {
            let error = text.parse::<ServerAddress>().expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        let error = "user:secret@host:1".parse::<ServerAddress>().expect_err("no user here");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn options_that_cannot_work_are_refused_with_a_remedy() {
        let good = MemcachedOptions::new([address("a", 1, 1), address("b", 1, 1)]);
        good.check().expect("nothing is wrong with it");
        let mut bad: Vec<MemcachedOptions> = vec![good; 8];
        bad[0].servers.clear();
        bad[1].servers.push(address("a", 1, 2));
        bad[2].servers[0].weight = 0;
        bad[3].connections_per_server = 26;
        bad[4].connections_per_server = 0;
        bad[5].response_timeout = Duration::ZERO;
        bad[6].failures_max = 0;
        bad[7].credentials = Some(Credentials::new("user", "pass word"));
        for options in bad {
            let error = options.check().expect_err("it cannot work");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.remedy_text().is_some(), "{error}");
            assert!(!error.to_string().contains("pass word"), "{error}");
        }
    }
}
