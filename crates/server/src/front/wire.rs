//! One connection to Redis: opened, encrypted if need be, logged in.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use super::frame::{Scanned, Scanner};
use super::options::UpstreamOptions;
use crate::resp::Protocol;

/// Redis' answers to a login are short.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How errors begin that pass by themselves.
const TRANSIENT: [&str; 4] = ["LOADING", "BUSY", "MASTERDOWN", "ERR max number of clients"];

/// A peer that is gone without a word is noticed after about this long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Opens connections to one Redis.
pub(crate) struct Upstream {
    options: UpstreamOptions,
    label: String,
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// An open connection. Reads and writes never wait by themselves.
pub(crate) struct Wire {
    stream: Stream,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// What came behind the last answer.
    ahead: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Upstream {
    /// Reads certificates; connects to nobody yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the host is no name for TLS or the certificates
    /// cannot be read.
    pub(crate) fn new(options: UpstreamOptions) -> Result<Self> {
        let tls = if options.is_tls { Some(Tls::new(&options)?) } else { None };
        Ok(Self { label: options.label(), options, tls })
    }

    /// Another server with the same login, behind the same certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if its host is no name for TLS.
    pub(crate) fn beside(&self, host: &str, port: u16) -> Result<Self> {
        let options = UpstreamOptions { host: host.to_owned(), port, ..self.options.clone() };
        let tls = match &self.tls {
            None => None,
            Some(tls) => {
                Some(Tls { connector: tls.connector.clone(), name: server_name(&options)? })
            }
        };
        Ok(Self { label: options.label(), options, tls })
    }

    /// The address for people, without any secret.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn options(&self) -> &UpstreamOptions {
        &self.options
    }

    /// Opens a connection, logs in and selects the database: two round trips,
    /// and two more for TLS.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if nobody answers in time,
    /// [`ErrorKind::Config`] if it refuses the login, [`ErrorKind::Unsupported`] if
    /// it refuses a command.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind.
    pub(crate) async fn connect(&self, protocol: Protocol) -> Result<Wire> {
        let limit = self.options.connect_timeout;
        match tokio::time::timeout(limit, self.open(protocol)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.unavailable(&format_args!("no connection within {limit:?}"))),
        }
    }

    /// That Redis does not answer, and why.
    pub(crate) fn unavailable(&self, why: &dyn fmt::Display) -> Error {
        Error::new(ErrorKind::Unavailable, "Redis cannot be reached")
            .with("address", &self.label)
            .with("reason", why)
            .remedy("check that it runs and that this machine may connect to it")
    }

    async fn open(&self, protocol: Protocol) -> Result<Wire> {
        let address = (self.options.host.as_str(), self.options.port);
        let stream = TcpStream::connect(address).await.map_err(|error| self.unavailable(&error))?;
        let is_set = stream.set_nodelay(true).and_then(|()| {
            let keep_alive =
                socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive)
        });
        if let Err(error) = is_set {
            tracing::debug!(%error, "an option of a connection to Redis could not be set");
        }
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let connecting = tls.connector.connect(tls.name.clone(), stream);
                Stream::Tls(Box::new(connecting.await.map_err(|error| self.unavailable(&error))?))
            }
        };
        let mut wire = Wire { stream, protocol, ahead: Vec::new() };
        self.log_in(&mut wire).await?;
        Ok(wire)
    }

    async fn log_in(&self, wire: &mut Wire) -> Result<()> {
        let options = &self.options;
        let password = options.password.as_deref();
        let user = options.user.as_deref().unwrap_or("default");
        let login = [b"AUTH".as_slice(), user.as_bytes(), password.unwrap_or_default().as_bytes()];
        match (wire.protocol, password) {
            (Protocol::Resp3, None) => self.ask(wire, "HELLO", &[b"HELLO", b"3"]).await?,
            (Protocol::Resp3, Some(_)) => {
                let hello = [b"HELLO".as_slice(), b"3", login[0], login[1], login[2]];
                self.ask(wire, "HELLO", &hello).await?
            }
            (Protocol::Resp2, None) => Vec::new(),
            // Redis 5 and older know no users.
            (Protocol::Resp2, Some(_)) if options.user.is_none() => {
                self.ask(wire, "AUTH", &[login[0], login[2]]).await?
            }
            (Protocol::Resp2, Some(_)) => self.ask(wire, "AUTH", &login).await?,
        };
        if options.database > 0 {
            let number = options.database.to_string();
            self.ask(wire, "SELECT", &[b"SELECT", number.as_bytes()]).await?;
        }
        Ok(())
    }

    /// Sends one command and waits for its reply, which is no error.
    pub(crate) async fn ask(
        &self,
        wire: &mut Wire,
        name: &str,
        arguments: &[&[u8]],
    ) -> Result<Vec<u8>> {
        let mut command = Vec::new();
        encode(arguments, &mut command);
        let answer = wire.ask(&command).await.map_err(|error| self.unavailable(&error))?;
        match answer.strip_prefix(b"-") {
            None => Ok(answer),
            Some(refusal) => Err(self.refused(name, &String::from_utf8_lossy(refusal))),
        }
    }

    /// The same, but waits no longer than a reply may be owed.
    pub(crate) async fn ask_in_time(
        &self,
        wire: &mut Wire,
        name: &str,
        arguments: &[&[u8]],
    ) -> Result<Vec<u8>> {
        let limit = self.options.reply_timeout;
        match tokio::time::timeout(limit, self.ask(wire, name, arguments)).await {
            Ok(answered) => answered,
            Err(_) => Err(self.unavailable(&format_args!("no reply within {limit:?}"))),
        }
    }

    fn refused(&self, command: &str, said: &str) -> Error {
        // What Redis does not know it repeats, a password among it.
        let said = said.split(", with args").next().unwrap_or_default().trim_end();
        let said = match self.options.password.as_deref() {
            Some(password) if said.contains(password) => "(it repeats the password)",
            _ => said,
        };
        let (kind, remedy) = if said.starts_with("WRONGPASS") || said.starts_with("NOAUTH") {
            (ErrorKind::Config, "check the user and the password for Redis")
        } else if said.starts_with("NOPERM") {
            (ErrorKind::Unsupported, "give the user this right with ACL SETUSER")
        } else if TRANSIENT.iter().any(|beginning| said.starts_with(beginning)) {
            (ErrorKind::Unavailable, "wait until Redis has started, or has room for clients")
        } else {
            (ErrorKind::Unsupported, "use Redis 6 or later, and allow this command")
        };
        Error::new(kind, "Redis refuses a command")
            .with("address", &self.label)
            .with("command", command)
            .with("reply", said)
            .remedy(remedy)
    }
}

impl Tls {
    fn new(options: &UpstreamOptions) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match &options.ca_file {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let refuse = |why: &dyn fmt::Display| {
                    Error::new(ErrorKind::Config, "a certificate file cannot be used")
                        .with("file", path)
                        .with("reason", why)
                        .remedy("it holds certificates in PEM, readable by this user")
                };
                let found = CertificateDer::pem_file_iter(path).map_err(|error| refuse(&error))?;
                for certificate in found {
                    let certificate = certificate.map_err(|error| refuse(&error))?;
                    roots.add(certificate).map_err(|error| refuse(&error))?;
                }
                if roots.is_empty() {
                    return Err(refuse(&"it holds no certificate"));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                Error::new(ErrorKind::Config, "TLS cannot be set up").caused_by(error)
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = server_name(options)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn server_name(options: &UpstreamOptions) -> Result<ServerName<'static>> {
    ServerName::try_from(options.host.clone()).map_err(|error| {
        Error::new(ErrorKind::Config, "the host of Redis is no name for TLS")
            .with("host", &options.host)
            .caused_by(error)
    })
}

impl Wire {
    /// Writes some of the bytes.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Sees to it that what was written is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            // TCP sends what it is given.
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Reads once into the spare room behind what is there. Redis hanging up is
    /// an error.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        const ROOM: usize = 64 * 1024;
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            input.extend_from_slice(&ahead);
            return Poll::Ready(Ok(ahead.len()));
        }
        if input.capacity() - input.len() < ROOM / 4 {
            input.reserve(ROOM);
        }
        let polled = match &mut self.stream {
            Stream::Plain(stream) => poll_read_buf(Pin::new(stream), cx, input),
            Stream::Tls(stream) => poll_read_buf(Pin::new(&mut **stream), cx, input),
        };
        match polled {
            Poll::Ready(Ok(0)) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")))
            }
            polled => polled,
        }
    }

    /// Whether the connection is open and nothing has come that was not asked
    /// for. Does not wait.
    pub(crate) async fn is_idle(&mut self) -> bool {
        let mut input = Vec::new();
        poll_fn(|cx| Poll::Ready(self.poll_read(cx, &mut input).is_pending())).await
    }

    /// Sends a command and waits for its reply.
    async fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.stream {
            Stream::Plain(stream) => ask(stream, command, &mut self.ahead).await,
            Stream::Tls(stream) => ask(stream, command, &mut self.ahead).await,
        }
    }
}

/// Leaves in `ahead` what came behind the reply: invalidations, for instance.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    command: &[u8],
    ahead: &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    stream.write_all(command).await?;
    stream.flush().await?;
    let (mut answer, mut scanned) = (Vec::new(), 0);
    let mut scanner = Scanner::default();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
        }
        match scanner.scan(&answer[scanned..]) {
            Ok(Scanned::Whole(count)) => {
                *ahead = answer.split_off(scanned + count);
                return Ok(answer);
            }
            Ok(Scanned::Part(count)) if answer.len() < ANSWER_BYTES_MAX => scanned += count,
            _ => return Err(io::Error::other("what answers there does not speak RESP")),
        }
    }
}

/// Appends a command as an array of strings.
pub(crate) fn encode(arguments: &[&[u8]], command: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    command.push(b'*');
    command.extend_from_slice(number.format(arguments.len()).as_bytes());
    command.extend_from_slice(b"\r\n");
    for argument in arguments {
        command.push(b'$');
        command.extend_from_slice(number.format(argument.len()).as_bytes());
        command.extend_from_slice(b"\r\n");
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
}
