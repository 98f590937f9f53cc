//! Real Redis and Valkey servers on ports of their own, to test against.
//!
//! | type | gives a test |
//! |---|---|
//! | [`RedisServer`] | one server: password, users, TLS; stands still, is killed, comes back empty or with its data |
//! | [`Replicated`] | a primary and replicas in step, and a replica that is promoted without the tail |
//! | [`Sentinel`] | three sentinels that fail a primary over to one of two replicas |
//! | [`Cluster`] | three primaries and three replicas: who serves a slot, a slot on the move, a primary that dies |
//!
//! Everything blocks: a command some tens of microseconds, a start some tens of
//! milliseconds, a cluster some seconds. Commands of the test itself go through a
//! socket in the server's directory, so that they get through whatever the test
//! does to ports, TLS and users.

mod cluster;
mod configuration;
mod connection;
mod options;
mod replicated;
mod sentinel;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::process::{self, Home, Port, ProcessSlot, program, wait_until};

pub use cluster::{Cluster, Migration, SLOTS};
pub use connection::{Connection, Reply};
pub use options::{Flavour, RedisOptions};
pub use replicated::Replicated;
pub use sentinel::{SENTINEL_NAME, Sentinel};

/// The names of files in a server's directory.
const CONFIGURATION: &str = "redis.conf";
const SOCKET: &str = "socket";

/// A server with a directory of its own. Dropping it kills it and keeps nothing.
///
/// ```no_run
/// use larder_testkit::redis::{AfterRestart, RedisServer};
///
/// let redis = RedisServer::start();
/// redis.command(&["SET", "key", "value"]);
/// redis.restart(AfterRestart::WithData);
/// assert_eq!(redis.command(&["GET", "key"]).text(), "value");
/// redis.restart(AfterRestart::Empty);
/// assert_eq!(redis.command(&["DBSIZE"]).integer(), 0);
/// ```
pub struct RedisServer {
    /// Before the home, so that it ends before its directory goes.
    process: ProcessSlot,
    home: Home,
    port: Port,
    mode: Mode,
    options: RedisOptions,
}

/// What the program is run as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Server,
    Sentinel,
}

/// What a server has after [`RedisServer::restart`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterRestart {
    /// Nothing.
    Empty,
    /// Everything that it had before.
    WithData,
}

impl RedisServer {
    /// Starts a server on a free port of the loopback interface. It keeps nothing
    /// on disk.
    ///
    /// # Panics
    /// If there is no `redis-server` (the Debian package of that name has it) or
    /// it does not answer in time.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(&RedisOptions::default())
    }

    /// Starts a server with further options, such as `["--maxmemory", "10mb"]`.
    ///
    /// # Panics
    /// As [`RedisServer::start`], and if the server does not know an option.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::launch(&RedisOptions::default().arguments(arguments.iter().copied()))
    }

    /// Starts a server with these options.
    ///
    /// # Panics
    /// As [`RedisServer::start_with`], and if another test has the port asked for.
    #[must_use]
    pub fn launch(options: &RedisOptions) -> Self {
        Self::launch_as(Mode::Server, options, "")
    }

    /// Starts a server whose configuration has these lines, too.
    fn launch_as(mode: Mode, options: &RedisOptions, lines: &str) -> Self {
        process::start_on_port(options.port, |port| {
            let server = Self {
                process: ProcessSlot::default(),
                home: Home::new("redis"),
                port,
                mode,
                options: options.clone(),
            };
            server.configure(lines);
            server.spawn().map(|()| server)
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it listens, as clients are told, with the password if it has one.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let password = self.options.password.as_ref().map(|password| format!(":{password}@"));
        format!("{scheme}://{}{}", password.unwrap_or_default(), self.address())
    }

    /// The certificate to trust, if it offers TLS: the authority's.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.options.tls.as_ref().map(|tls| tls.authority.certificate())
    }

    process::controls!();

    /// Starts it again after [`RedisServer::kill`], on the same port, with what it
    /// had on disk: everything if it is durable, else what was saved last. Nothing
    /// happens if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn revive(&self) {
        self.process.revive(|| self.spawn());
    }

    /// Stops it and starts it again on the same port.
    ///
    /// # Panics
    /// If it does not start, or is to keep its data and does not run.
    pub fn restart(&self, after: AfterRestart) {
        match after {
            AfterRestart::Empty => {
                self.kill();
                self.forget();
            }
            AfterRestart::WithData => {
                let saved = self.command(&["SAVE"]);
                assert_eq!(saved, Reply::Status("OK".to_owned()));
                self.process.stop();
            }
        }
        self.revive();
    }

    /// Sends a command and returns its reply, which may be an error.
    ///
    /// # Panics
    /// If the server does not answer within a minute.
    pub fn command<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        self.try_command(command).unwrap_or_else(|error| {
            let name = command.first().map(|name| String::from_utf8_lossy(name.as_ref()));
            panic!("{self:?} does not answer to {}: {error}", name.unwrap_or_default())
        })
    }

    /// [`RedisServer::command`] to a server that may be gone.
    ///
    /// # Errors
    /// If the server does not answer within a minute.
    pub fn try_command<A: AsRef<[u8]>>(&self, command: &[A]) -> io::Result<Reply> {
        self.connect()?.call(command)
    }

    /// A connection for many commands, or for one that goes on: `MONITOR`,
    /// `SUBSCRIBE`.
    ///
    /// # Errors
    /// If the server is gone.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(&self.home.path().join(SOCKET), self.options.password.as_deref())
    }

    /// One field of `INFO`, if there is such a one.
    ///
    /// # Panics
    /// As [`RedisServer::command`].
    #[must_use]
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.command(&["INFO", "everything"]).text();
        info.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
    }

    /// How often a command was called since the server started or `CONFIG
    /// RESETSTAT`, from inside scripts included: `calls("get")`, `calls("client|list")`.
    ///
    /// # Panics
    /// As [`RedisServer::command`].
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        let statistics = self.info(&format!("cmdstat_{command}")).unwrap_or_default();
        let calls = statistics.split(',').find_map(|field| field.strip_prefix("calls="));
        calls.map_or(0, |calls| calls.parse().expect("calls are a number"))
    }

    /// The clients' ends of the connections of one kind: `normal`, `pubsub`,
    /// `replica` or `master`. A proxy between finds its connections by these.
    ///
    /// # Panics
    /// As [`RedisServer::command`].
    #[must_use]
    pub fn clients(&self, kind: &str) -> Vec<SocketAddr> {
        let list = self.command(&["CLIENT", "LIST", "TYPE", kind]).text();
        let address = |line: &str| {
            line.split(' ').find_map(|field| field.strip_prefix("addr="))?.parse().ok()
        };
        list.lines().filter_map(address).collect()
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        process::log_text(&self.log_path())
    }

    /// Waits until a field of `INFO` has this value.
    fn wait_for_info(&self, field: &str, value: &str) {
        let what = format!("{self:?} has {field}:{value}");
        wait_until(&what, || self.info(field).as_deref() == Some(value));
    }

    fn configure(&self, lines: &str) {
        let text = configuration::text(&self.options, &self.port, &self.home);
        self.home.write(CONFIGURATION, &format!("{text}{lines}"));
    }

    fn spawn(&self) -> Result<(), String> {
        let name = self.options.flavour.program();
        let mut command = self.home.command(&program(&[name], name));
        command.arg(CONFIGURATION).args(&self.options.arguments);
        if self.mode == Mode::Sentinel {
            command.arg("--sentinel");
        }
        self.process.try_start(&mut command, &self.log_path(), || self.answers())
    }

    /// Whether it answers, and has read what it had on disk. With a password that
    /// nobody told us of the answer is an error, which is an answer, too.
    fn answers(&self) -> bool {
        let reply = self.try_command(&["PING"]);
        reply.is_ok_and(|reply| !matches!(reply, Reply::Error(error) if error.contains("LOADING")))
    }

    /// Removes what it had on disk.
    fn forget(&self) {
        for name in ["dump.rdb", "nodes.conf"] {
            // It need not be there.
            let _ = fs::remove_file(self.home.path().join(name));
        }
        let _ = fs::remove_dir_all(self.home.path().join("appendonlydir"));
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.options.flavour.program(), self.address())
    }
}
