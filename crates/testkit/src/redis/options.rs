use crate::certificates::{Authority, TlsOptions};
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
    /// Further options as on its command line: `["--maxmemory", "10mb"]`. With
    /// `["--rename-command", "CLIENT", ""]` it refuses a command, as managed
    /// services do.
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
