//! What the driver's errors mean to a caller.

use larder_core::{Error, ErrorKind};
use redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

/// The longest text of a server that is shown: it may quote what it was sent.
const DETAIL_CHARACTERS_MAX: usize = 200;

/// What a script answers whose caller knows another history.
const OTHER_EPOCH: &str = "LARDEREPOCH";

/// The error of a caller who asked this server.
pub(crate) fn failed(error: &RedisError, server: &str) -> Error {
    let code = error.code().unwrap_or_default();
    let (kind, what, remedy) = match error.kind() {
        Kind::AuthenticationFailed => login_refused(),
        Kind::Server(ServerErrorKind::NoPerm) => right_missing(),
        _ if matches!(code, "WRONGPASS" | "NOAUTH") => login_refused(),
        _ if error.detail().is_some_and(is_about_rights) => right_missing(),
        _ if code == "OOM" => (
            ErrorKind::Overloaded,
            "Redis has no memory left",
            Some("raise maxmemory, or set maxmemory-policy to volatile-lru"),
        ),
        _ if error.is_timeout() => (ErrorKind::Timeout, "Redis did not answer in time", None),
        _ if is_certificate(error) => (
            ErrorKind::Config,
            "the certificate of the Redis server is not trusted",
            Some("name the CA that signed it in ca_file, and use the host name it is made for"),
        ),
        Kind::InvalidClientConfig | Kind::RESP3NotSupported => {
            (ErrorKind::Config, "this Redis server cannot be used", Some("use Redis 6.2 or later"))
        }
        Kind::Io | Kind::ClusterConnectionNotFound => {
            (ErrorKind::Unavailable, "the Redis server cannot be reached", None)
        }
        Kind::Parse | Kind::UnexpectedReturnType => {
            (ErrorKind::Unavailable, "the answer is not one of a Redis server", None)
        }
        Kind::Server(ServerErrorKind::ResponseError) => {
            (ErrorKind::Unavailable, "Redis refused a command", None)
        }
        _ => (ErrorKind::Unavailable, "Redis cannot serve at the moment", None),
    };
    let mut found = Error::new(kind, what).with("server", server);
    if !code.is_empty() {
        found = found.with("code", code);
    }
    if let Some(detail) = detail(error) {
        found = found.with("detail", detail);
    }
    match remedy {
        Some(remedy) => found.remedy(remedy),
        None => found,
    }
}

/// Whether the connection is of no use after this.
pub(crate) fn ends_connection(error: &RedisError) -> bool {
    error.is_timeout()
        || error.is_connection_dropped()
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || is_of_another_role(error)
}

/// Whether the server took no part in what failed, or refused it as a whole, so
/// that another one may be asked at once.
pub(crate) fn may_be_repeated(error: &RedisError) -> bool {
    !error.is_timeout() && ends_connection(error)
}

/// Whether a script refused because it knows another epoch.
pub(crate) fn is_other_epoch(error: &RedisError) -> bool {
    error.code() == Some(OTHER_EPOCH)
}

/// Whether a text of a server says that a right is missing.
pub(crate) fn is_about_rights(text: &str) -> bool {
    [
        "NOPERM",
        "ACL failure",
        "no permissions",
        "can't run this command",
        "can't access",
        "can't publish",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// What a server or a library said, bounded.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(DETAIL_CHARACTERS_MAX).collect()
}

fn login_refused() -> (ErrorKind, &'static str, Option<&'static str>) {
    (
        ErrorKind::Config,
        "the Redis server refused the login",
        Some("check user and password, in the URL or beside it"),
    )
}

fn right_missing() -> (ErrorKind, &'static str, Option<&'static str>) {
    (
        ErrorKind::Config,
        "the Redis user lacks a right",
        Some("give the user the rights listed in the documentation of larder_redis::RIGHTS"),
    )
}

fn is_of_another_role(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(error.kind(), Kind::Server(ReadOnly | MasterDown | BusyLoading))
        || error.detail().is_some_and(|detail| detail.contains("READONLY"))
}

fn is_certificate(error: &RedisError) -> bool {
    let text = error.to_string();
    error.is_io_error() && text.contains("certificate")
}

fn detail(error: &RedisError) -> Option<String> {
    let text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None if error.kind() == Kind::Io => error.to_string(),
        None => return None,
    };
    Some(bounded(&text))
}
