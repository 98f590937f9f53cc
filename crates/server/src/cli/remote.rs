//! Asks the administration of a running server.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::Failure;

/// How long the server may take to connect, and to send each part of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A longer answer is not one of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What the administration at this address answers under a path.
pub(super) fn get(admin: &str, path: &[&str]) -> Result<Value, Failure> {
    Request::get(path).send(admin)
}

/// A request to the administration.
pub(super) struct Request {
    method: &'static str,
    path: String,
    body: String,
}

impl Request {
    pub(super) fn get(path: &[&str]) -> Self {
        Self::new("GET", path)
    }

    pub(super) fn post(path: &[&str]) -> Self {
        Self::new("POST", path)
    }

    pub(super) fn delete(path: &[&str]) -> Self {
        Self::new("DELETE", path)
    }

    fn new(method: &'static str, path: &[&str]) -> Self {
        let path: Vec<_> = path.iter().map(|part| encode(part)).collect();
        Self { method, path: path.join("/"), body: String::new() }
    }

    /// With this behind the `?`.
    pub(super) fn query(mut self, query: &str) -> Self {
        self.path.push('?');
        self.path.push_str(query);
        self
    }

    pub(super) fn body(self, body: String) -> Self {
        Self { body, ..self }
    }

    /// The answer of the administration at this address: `http://HOST:PORT`, or without
    /// the scheme.
    pub(super) fn send(&self, admin: &str) -> Result<Value, Failure> {
        send(admin, self)
    }
}

fn send(admin: &str, request: &Request) -> Result<Value, Failure> {
    let host = match admin.split_once("://") {
        Some(("http", host)) => host,
        Some((scheme, host)) => {
            return Err(Failure::Message(format!(
                "{scheme} is not supported: the administration speaks plain HTTP, so ask it as \
                 http://{host}, on its own machine or through a tunnel"
            )));
        }
        None => admin,
    };
    let host = host.trim_end_matches('/');
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::Message(format!(
            "the administration at {host} does not answer: {why}; check that the server runs and \
             that this is its admin address, such as http://127.0.0.1:6381"
        ))
    };
    let answer = exchange(host, request).map_err(|error| refuse(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| refuse(&"it is not HTTP"))?;
    let body: Value = serde_json::from_str(body).map_err(|error| refuse(&error))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(body);
    }
    let reason = body["error"].as_str().unwrap_or("an error without a text").to_owned();
    Err(Failure::Message(format!("the server answers {status}: {reason}")))
}

fn exchange(host: &str, asked: &Request) -> std::io::Result<String> {
    let address = host.to_socket_addrs()?.next().ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address")
    })?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Request { method, path, body } = asked;
    let mut request = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    if let Ok(password) = std::env::var("LARDER_PASSWORD") {
        // A password with a line break in it would be another header.
        if !password.contains(['\r', '\n']) && !password.is_empty() {
            request.push_str(&format!("Authorization: Bearer {password}\r\n"));
        }
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

pub(super) fn encode(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
