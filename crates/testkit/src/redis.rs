//! A real redis-server on a private port, to compare with.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the server may take to answer after it was started.
const START_WAIT: Duration = Duration::from_secs(20);

/// How often another port is tried when somebody took the first.
const PORT_TRIES: usize = 5;

/// A redis-server that keeps nothing on disk. Dropping it stops it.
#[derive(Debug)]
pub struct RedisServer {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl RedisServer {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Panics
    /// If there is no `redis-server` (the Debian package of that name has it) or
    /// it does not answer within 20 seconds.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further options, such as `["--requirepass", "x"]`.
    ///
    /// # Panics
    /// As [`RedisServer::start`], and if the server does not know an option.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        for _ in 0..PORT_TRIES {
            if let Some(server) = Self::try_start(options) {
                return server;
            }
        }
        panic!("redis-server did not answer; is the Debian package `redis-server` installed?");
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of its process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn try_start(options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let address = free_address();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(options)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: install the Debian package `redis-server`");
        let mut server = Self { process, address, _directory: directory };
        let deadline = Instant::now() + START_WAIT;
        while Instant::now() < deadline {
            if server.process.try_wait().is_ok_and(|status| status.is_some()) {
                return None;
            }
            if answers(address) {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody listens on at the moment.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("the loopback interface has a free port")
}

/// Whether somebody who speaks RESP listens there. With a password the answer
/// is an error, which is an answer, too.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(matches!(first[0], b'+' | b'-'))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_answers_and_stops() {
        let server = RedisServer::start();
        let address = server.address();
        assert!(answers(address));
        drop(server);
        assert!(!answers(address));
    }
}
