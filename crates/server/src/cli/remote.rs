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

/// What the administration at this address answers under a path. The address is
/// `http://HOST:PORT`, or without the scheme.
pub(super) fn get(admin: &str, path: &[&str]) -> Result<Value, Failure> {
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
    let answer = exchange(host, path).map_err(|error| refuse(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| refuse(&"it is not HTTP"))?;
    let body: Value = serde_json::from_str(body).map_err(|error| refuse(&error))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(body);
    }
    let reason = body["error"].as_str().unwrap_or("an error without a text").to_owned();
    Err(Failure::Message(format!("the server answers {status}: {reason}")))
}

fn exchange(host: &str, path: &[&str]) -> std::io::Result<String> {
    let address = host.to_socket_addrs()?.next().ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address")
    })?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path: Vec<_> = path.iter().map(|part| encode(part)).collect();
    let mut request = format!("GET /{} HTTP/1.0\r\nHost: {host}\r\n", path.join("/"));
    if let Ok(password) = std::env::var("LARDER_PASSWORD") {
        // A password with a line break in it would be another header.
        if !password.contains(['\r', '\n']) && !password.is_empty() {
            request.push_str(&format!("Authorization: Bearer {password}\r\n"));
        }
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

fn encode(part: &str) -> String {
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
