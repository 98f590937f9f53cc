//! The URL of a server, and where it leads.

use std::fmt;

use larder_core::{Error, ErrorKind, Result};
use redis::{ConnectionAddr, IntoConnectionInfo};

/// Host and port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a URL says. Not to be printed: it has the password.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
}

impl ServerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of a Redis server. The error does not
    /// show it: what cannot be read may have a password anywhere.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &'static str| {
            Error::new(ErrorKind::Config, what)
                .remedy("write redis://user:password@host:port, or rediss:// for TLS; escape special characters")
        };
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(wrong("the URL of a Redis server has an unknown scheme")),
        };
        // What is behind ? and # would be left out without a word, `insecure` apart.
        if url.contains(['?', '#']) {
            return Err(wrong("the URL of a Redis server has options, which it cannot have"));
        }
        let info =
            url.into_connection_info().map_err(|_| wrong("a URL of a Redis server is not one"))?;
        let (host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.trim_matches(['[', ']']).to_owned(), *port)
            }
            _ => return Err(wrong("the URL of a Redis server has no host")),
        };
        let settings = info.redis_settings();
        Ok(Self {
            host,
            port,
            tls,
            user: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            database: settings.db(),
        })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.host.clone(), port: self.port }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_read() {
        let url = ServerUrl::parse("rediss://me:p%40ss@cache.example:6380/3").expect("a URL");
        assert_eq!(url.endpoint().to_string(), "cache.example:6380");
        assert_eq!((url.tls, url.database), (true, 3));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("me"), Some("p@ss")));
        let plain = ServerUrl::parse("redis://[::1]").expect("a URL");
        assert_eq!(plain.endpoint().to_string(), "[::1]:6379");
        assert_eq!((plain.tls, plain.user, plain.password), (false, None, None));
    }

    #[test]
    fn what_is_wrong_is_not_shown() {
        for url in [
            "http://h:secret",
            "redis://:secret@",
            "redis://:secret@h/x",
            "secret",
            "rediss://h/#insecure-secret",
            "redis://:secret@h:99999",
            "unix:///secret",
        ] {
            let Err(error) = ServerUrl::parse(url) else { panic!("{url} is no good") };
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(rediss?://)?.{0,40}") {
            if let Ok(url) = ServerUrl::parse(&text) {
                prop_assert!(!url.host.is_empty() || text.contains("://"));
            }
        }
    }
}
