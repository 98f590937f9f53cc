//! How one connection is opened.

use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, TlsCertificates, Value,
};
use tokio::sync::mpsc;

use crate::RedisOptions;
use crate::address::{Endpoint, ServerUrl};
use crate::failure::failed;

/// When a connection without traffic is tried, and how often.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What is pushed to a subscriber and not yet taken. What does not fit is left
/// out: messages are numbered, and the next heartbeat reads it again.
const PUSHES_MAX: usize = 256;

/// Opens connections with the same login, certificates and limits.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
    certificates: Option<TlsCertificates>,
    connect_timeout: Duration,
    response_timeout: Duration,
}

/// A connection, and what the server said of itself.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) endpoint: Endpoint,
    pub(crate) hello: Hello,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hello {
    pub(crate) version: String,
    pub(crate) is_primary: bool,
}

/// What a server pushes to a connection.
pub(crate) type Pushes = mpsc::Receiver<PushInfo>;

impl Connector {
    /// # Errors
    /// [`ErrorKind::Config`] if the CA file cannot be read.
    pub(crate) fn new(options: &RedisOptions, first: &ServerUrl) -> Result<Self> {
        let certificates = match &options.ca_file {
            None => None,
            Some(file) => {
                let root = std::fs::read(file).map_err(|error| {
                    Error::new(ErrorKind::Config, "the CA file cannot be read")
                        .with("ca_file", file.display())
                        .caused_by(error)
                })?;
                Some(TlsCertificates { client_tls: None, root_cert: Some(root) })
            }
        };
        if certificates.is_some() && !first.tls {
            return Err(Error::new(ErrorKind::Config, "there is a CA file but no encryption")
                .remedy("write rediss:// instead of redis://, or take ca_file out"));
        }
        Ok(Self {
            tls: first.tls,
            user: options.user.clone().or_else(|| first.user.clone()),
            password: options.password.clone().or_else(|| first.password.clone()),
            database: first.database,
            certificates,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        })
    }

    /// The same with another login and without a database: for sentinels.
    pub(crate) fn with_login(&self, user: Option<String>, password: Option<String>) -> Self {
        Self { user, password, database: 0, ..self.clone() }
    }

    /// The same with another patience.
    pub(crate) fn with_response_timeout(&self, response_timeout: Duration) -> Self {
        Self { response_timeout, ..self.clone() }
    }

    pub(crate) fn certificates(&self) -> Option<TlsCertificates> {
        self.certificates.clone()
    }

    /// Opens a connection. Two round trips after those of TCP and TLS.
    ///
    /// # Errors
    /// As [`failed`] says, with the server.
    pub(crate) async fn open(&self, endpoint: &Endpoint) -> Result<Open> {
        self.open_with(endpoint, AsyncConnectionConfig::new()).await
    }

    /// Opens a connection to which the server pushes messages.
    ///
    /// # Errors
    /// As [`Connector::open`].
    pub(crate) async fn open_pushed(&self, endpoint: &Endpoint) -> Result<(Open, Pushes)> {
        let (sender, pushes) = mpsc::channel(PUSHES_MAX);
        let config =
            AsyncConnectionConfig::new().set_push_sender(move |push| sender.try_send(push));
        Ok((self.open_with(endpoint, config).await?, pushes))
    }

    pub(crate) async fn open_with(
        &self,
        endpoint: &Endpoint,
        config: AsyncConnectionConfig,
    ) -> Result<Open> {
        let config = config
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        let server = endpoint.to_string();
        let client = self.client(endpoint).map_err(|error| failed(&error, &server))?;
        let open = async {
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&config).await?;
            let hello = connection.send_packed_command(&redis::cmd("HELLO")).await?;
            Ok((connection, hello.extract_error()?))
        };
        let (connection, hello) = open.await.map_err(|error| failed(&error, &server))?;
        Ok(Open { connection, endpoint: endpoint.clone(), hello: Hello::read(&hello) })
    }

    /// What the driver needs to know of a server.
    pub(crate) fn info(&self, endpoint: &Endpoint) -> redis::RedisResult<ConnectionInfo> {
        let Endpoint { host, port } = endpoint.clone();
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(self.database);
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let info = address.into_connection_info()?;
        Ok(info.set_redis_settings(login).set_tcp_settings(self.tcp_settings()))
    }

    /// Requests are small and wait for answers: none is held back to be sent with
    /// the next. A server that vanishes is noticed although nothing is sent.
    pub(crate) fn tcp_settings(&self) -> TcpSettings {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
    }

    fn client(&self, endpoint: &Endpoint) -> redis::RedisResult<Client> {
        let info = self.info(endpoint)?;
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }
}

impl Hello {
    fn read(answer: &Value) -> Self {
        let mut hello = Self::default();
        let Some(pairs) = answer.as_map_iter() else { return hello };
        for (name, value) in pairs {
            match (text(name).as_deref(), text(value)) {
                (Some("version"), Some(version)) => hello.version = version,
                (Some("role"), Some(role)) => hello.is_primary = role == "master",
                _ => {}
            }
        }
        hello
    }
}

/// The text of a value, if it is one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}
