//! Real memcached servers on ports of their own, to test against.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::certificates::TlsOptions;
use crate::process::{self, Home, Port, ProcessSlot, program};

/// How long a server may take to answer a request of a test.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// A request without effect, whose answer shows that everything before it was
/// answered.
const NOTHING: &[u8] = b"mn\r\n";
const NOTHING_ANSWER: &[u8] = b"MN\r\n";

/// What a [`Memcached`] is like before it is started.
#[derive(Clone, Default)]
pub struct MemcachedOptions {
    /// Whether it offers TLS, and then nothing else to clients.
    pub tls: Option<TlsOptions>,
    /// The port; a free one if there is none.
    pub port: Option<u16>,
    /// Further options as on its command line: `["-m", "16", "-I", "2m"]`.
    pub arguments: Vec<String>,
}

/// A memcached server. Dropping it kills it; it never keeps anything over an end.
///
/// Everything blocks: a request some tens of microseconds, a start some tens of
/// milliseconds.
///
/// ```no_run
/// use larder_testkit::memcached::Memcached;
///
/// let memcached = Memcached::start();
/// assert_eq!(memcached.ask(b"ms key 5\r\nvalue\r\n"), b"HD\r\n");
/// memcached.kill();
/// memcached.revive();
/// assert_eq!(memcached.ask(b"mg key v\r\n"), b"EN\r\n");
/// ```
pub struct Memcached {
    /// Before the home, so that it ends before its directory goes.
    process: ProcessSlot,
    home: Home,
    port: Port,
    /// Where the test itself asks: in the clear, past every proxy.
    own_port: Port,
    options: MemcachedOptions,
}

impl Memcached {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Panics
    /// If there is no `memcached` (the Debian package of that name has it) or it
    /// does not answer in time.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(&MemcachedOptions::default())
    }

    /// Starts a server with these options.
    ///
    /// # Panics
    /// As [`Memcached::start`], and if another test has the port asked for.
    #[must_use]
    pub fn launch(options: &MemcachedOptions) -> Self {
        process::start_on_port(options.port, |port| {
            let home = Home::new("memcache");
            if let Some(tls) = &options.tls {
                tls.authority.sign_for(&home, &tls.names_list());
            }
            let server = Self {
                process: ProcessSlot::default(),
                home,
                port,
                own_port: Port::reserve(),
                options: options.clone(),
            };
            server.spawn().map(|()| server)
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The certificate to trust, if it offers TLS: the authority's.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.options.tls.as_ref().map(|tls| tls.authority.certificate())
    }

    process::controls!();

    /// Starts it again after [`Memcached::kill`], empty, on the same port. Nothing
    /// happens if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn revive(&self) {
        self.process.revive(|| self.spawn());
    }

    /// Kills it and starts it again, empty, on the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self) {
        self.kill();
        self.revive();
    }

    /// Sends one or many requests, each with its line end, and returns everything
    /// that is answered.
    ///
    /// # Panics
    /// If the server does not answer within a minute.
    pub fn ask(&self, requests: &[u8]) -> Vec<u8> {
        self.try_ask(requests).unwrap_or_else(|error| panic!("{self:?} does not answer: {error}"))
    }

    /// [`Memcached::ask`] of a server that may be gone.
    ///
    /// # Errors
    /// If the server does not answer within a minute.
    pub fn try_ask(&self, requests: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.own_port.address())?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(&[requests, NOTHING].concat())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(NOTHING_ANSWER) {
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => answer.extend_from_slice(&buffer[..length]),
            }
        }
        answer.truncate(answer.len() - NOTHING_ANSWER.len());
        Ok(answer)
    }

    /// One of its statistics: `get_hits`, `cmd_meta`, `curr_connections`. The
    /// connection that asks is among those.
    ///
    /// # Panics
    /// As [`Memcached::ask`], and if there is no such statistic.
    #[must_use]
    pub fn statistic(&self, name: &str) -> u64 {
        let answer = self.ask(b"stats\r\n");
        let answer = String::from_utf8_lossy(&answer);
        let prefix = format!("STAT {name} ");
        let value = answer.lines().find_map(|line| line.strip_prefix(&prefix));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {answer}"))
    }

    fn spawn(&self) -> Result<(), String> {
        let mut command = self.home.command(&program(&["memcached"], "memcached"));
        command.args(["--udp-port=0", "--listen"]);
        match &self.options.tls {
            None => command.arg(format!("{},{}", self.address(), self.own_port.address())),
            Some(tls) => {
                let verify = if tls.demands_client_certificate { 2 } else { 0 };
                command
                    .arg(format!("{},notls:{}", self.address(), self.own_port.address()))
                    .arg("--enable-ssl")
                    .arg("--extended=ssl_chain_cert=server.crt,ssl_key=server.key")
                    .arg(format!("--extended=ssl_ca_cert=authority.crt,ssl_verify_mode={verify}"))
            }
        };
        command.args(&self.options.arguments);
        let is_ready = || self.try_ask(b"").is_ok();
        self.process.try_start(&mut command, &self.home.path().join("log"), is_ready)
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memcached at {}", self.address())
    }
}
