use crate::certificates::{Authority, LOCAL_NAMES};
use crate::process::find_program;

/// What a [`super::RedisServer`] is like before it is started.
#[derive(Clone, Default)]
pub struct RedisOptions {
    /// Which program it is.
    pub flavour: Flavour,
    /// The password of the user `default`.
    pub password: Option<String>,
    /// Further users, as the `ACL` rules of one each, its name first:
    /// `larder on >secret ~larder:* &* +@read +@write`.
    pub users: Vec<String>,
    /// Whether it offers TLS, and then nothing else.
    pub tls: Option<TlsOptions>,
    /// The port; a free one if there is none.
    pub port: Option<u16>,
    /// Whether what it acknowledged survives [`super::RedisServer::kill`].
    pub durable: bool,
    /// Further options as on its command line: `["--maxmemory", "10mb"]`.
    pub arguments: Vec<String>,
}

impl RedisOptions {
    /// A server with a password for the user `default`.
    #[must_use]
    pub fn with_password(password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..Self::default() }
    }

    /// A server with TLS, its certificate signed by this authority.
    #[must_use]
    pub fn with_tls(authority: &Authority) -> Self {
        Self { tls: Some(TlsOptions::new(authority)), ..Self::default() }
    }

    /// The same with further options as on its command line.
    #[must_use]
    pub fn arguments<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }
}

/// Which program a [`super::RedisServer`] is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Flavour {
    /// `redis-server`.
    #[default]
    Redis,
    /// `valkey-server`, which not every release of Debian has.
    Valkey,
}

impl Flavour {
    /// Every flavour that this machine has; Redis always.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let valkey = find_program(&[Self::Valkey.program()]).map(|_| Self::Valkey);
        [Some(Self::Redis), valkey].into_iter().flatten().collect()
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// How a server offers TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Who signs its certificate, and those of clients if it asks for them.
    pub authority: Authority,
    /// The names in its certificate.
    pub names: Vec<String>,
    /// Whether clients need a certificate of the authority.
    pub demands_client_certificate: bool,
}

impl TlsOptions {
    /// A certificate for `localhost` and 127.0.0.1; clients need none.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self {
            authority: authority.clone(),
            names: LOCAL_NAMES.map(str::to_owned).into(),
            demands_client_certificate: false,
        }
    }

    /// The same with other names in the certificate.
    #[must_use]
    pub fn names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn names_list(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}
