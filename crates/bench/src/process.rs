//! Servers under measurement: started on private ports, stopped by process id,
//! read through `/proc`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A server that speaks RESP, killed when this is dropped.
#[derive(Debug)]
pub struct RespServer {
    name: &'static str,
    child: Child,
    port: u16,
}

impl RespServer {
    /// Starts a command that makes a server on `port` and waits until it answers
    /// a PING.
    ///
    /// # Panics
    /// If it cannot be started, ends, or does not answer within 30 seconds.
    #[must_use]
    pub fn start(name: &'static str, mut command: Command, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}; {command:?}"));
        let mut server = Self { name, child, port };
        let deadline = Instant::now() + START_MAX;
        while server.ping().is_none() {
            if let Ok(Some(status)) = server.child.try_wait() {
                panic!("{name} ended with {status}: {command:?}");
            }
            assert!(Instant::now() < deadline, "{name} does not answer: {command:?}");
            std::thread::sleep(PAUSE);
        }
        server
    }

    /// What it is called in the tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// User and system time it has used.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the server runs");
        // The name of the program, in parentheses, may hold spaces.
        let (_, fields) = stat.rsplit_once(')').expect("proc(5) has the name in parentheses");
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || -> u64 {
            let field = fields.next().expect("proc(5) has utime and stime at 14 and 15");
            field.parse().expect("ticks are a number")
        };
        let ticks = ticks() + ticks();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// Sets the keys `key:000000000000` and so on, as redis-benchmark names
    /// them, to values of this many bytes.
    ///
    /// # Panics
    /// If the server refuses any.
    pub fn fill(&self, keys: u64, value_bytes: usize) {
        const BATCH: u64 = 1000;
        let mut stream = self.connect().expect("the server listens");
        let mut replies = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        let value = "x".repeat(value_bytes);
        let mut batch = String::new();
        let mut line = String::new();
        for first in (0..keys).step_by(BATCH as usize) {
            batch.clear();
            let last = keys.min(first + BATCH);
            for key in first..last {
                batch.push_str(&format!(
                    "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${value_bytes}\r\n{value}\r\n"
                ));
            }
            stream.write_all(batch.as_bytes()).expect("the server reads");
            for _ in first..last {
                line.clear();
                replies.read_line(&mut line).expect("the server answers");
                assert_eq!(line, "+OK\r\n", "{} refuses a SET", self.name);
            }
        }
    }

    fn ping(&self) -> Option<()> {
        let mut stream = self.connect().ok()?;
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        (line == "+PONG\r\n").then_some(())
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(START_MAX))?;
        Ok(stream)
    }
}

impl Drop for RespServer {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of a process's memory that are resident.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = statm.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok());
    pages.expect("proc(5) has the resident pages second") * rustix::param::page_size() as u64
}

/// A port on 127.0.0.1 that nobody listens on now.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// The release binary of the server: the one that `LARDER_BIN` names, or the one
/// that cargo builds now.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn larder_binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("LARDER_BIN") {
        return PathBuf::from(binary);
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--package", "larder-server"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")]);
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "{cargo:?} failed");
    let this = std::env::current_exe().expect("this program has a path");
    let profiles = this.parent().and_then(|profile| profile.parent());
    profiles.expect("it lies in a target directory").join("release/larder")
}
