//! Errors: what failed, at which server, and what to do.

use larder_core::{Error, ErrorKind};

use crate::ServerAddress;
use crate::protocol::Complaint;

pub(crate) fn unreachable(server: &ServerAddress, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "memcached cannot be reached")
        .with("server", server)
        .remedy("check that it runs there, and that nothing between filters the port")
        .caused_by(source)
}

pub(crate) fn lost(server: &ServerAddress, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to memcached was lost")
        .with("server", server)
        .caused_by(source)
}

pub(crate) fn closed(server: &ServerAddress) -> Error {
    Error::new(ErrorKind::Unavailable, "memcached closed the connection").with("server", server)
}

pub(crate) fn dead(server: &ServerAddress) -> Error {
    Error::new(ErrorKind::Unavailable, "memcached failed too often and was not asked")
        .with("server", server)
        .remedy("it is asked again once a probe succeeds; see why it failed before")
}

pub(crate) fn too_slow(server: &ServerAddress, what: &'static str, limit: &str) -> Error {
    Error::new(ErrorKind::Timeout, what)
        .with("server", server)
        .with("limit", limit)
        .remedy("see whether the server or the network is overloaded, or raise the limit")
}

/// What came is not the protocol.
pub(crate) fn garbled(server: &ServerAddress, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, "what memcached sent is no answer to what was asked")
        .with("server", server)
        .with("problem", what)
        .remedy("check that a memcached listens there, and speaks TLS if and only if told so")
}

/// The server refused a request.
pub(crate) fn refused(server: &ServerAddress, complaint: &Complaint) -> Error {
    let text = complaint.to_string();
    if text.contains("unauthenticated") || text.contains("authentication failure") {
        return Error::new(ErrorKind::Config, "memcached refused the user or password")
            .with("server", server)
            .with("answer", text)
            .remedy("give the credentials of a line in the file that it was started with (-Y)");
    }
    if text.contains("too large") {
        return Error::new(ErrorKind::InvalidInput, "the value is too long for memcached")
            .with("server", server)
            .with("answer", text)
            .remedy("cache less in one value, or start memcached with a larger -I");
    }
    Error::new(ErrorKind::Unavailable, "memcached refused a request")
        .with("server", server)
        .with("answer", text)
}

pub(crate) fn config(server: &ServerAddress, what: &'static str) -> Error {
    Error::new(ErrorKind::Config, what).with("server", server)
}
