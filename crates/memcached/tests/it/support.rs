//! Memcached servers that a test owns, and stores that own servers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{
    Capabilities, Key, Mark, PutCondition, PutOutcome, Result, Store, StoredEntry, Verb, Version,
};
use larder_memcached::{Memcached, MemcachedOptions, MemcachedStore, ServerAddress};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A memcached on a port of its own. Dropping it kills it.
pub(crate) struct TestServer {
    child: Mutex<Child>,
    port: u16,
    arguments: Vec<String>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        for _ in 0..5 {
            let port = larder_testkit::process::free_port();
            if let Some(child) = spawn(port, &arguments) {
                return Self { child: Mutex::new(child), port, arguments };
            }
        }
        panic!("memcached does not start: is the Debian package `memcached` installed?");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> ServerAddress {
        self.address_as("127.0.0.1")
    }

    pub(crate) fn address_as(&self, host: &str) -> ServerAddress {
        ServerAddress { host: host.to_owned(), port: self.port, weight: 1 }
    }

    pub(crate) fn kill(&self) {
        let mut child = self.child();
        child.kill().expect("one's own child can be killed");
        child.wait().expect("one's own child can be waited for");
    }

    /// Starts it again, empty.
    pub(crate) fn revive(&self) {
        *self.child() = spawn(self.port, &self.arguments).expect("its port is free again");
    }

    /// Makes it stand still: connections stay, and nobody answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child().id());
        wait_until("it stands still", || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends requests on a connection of its own and returns all that is
    /// answered.
    pub(crate) fn ask(&self, requests: &[u8]) -> Vec<u8> {
        ask(self.port, requests).expect("it answers")
    }

    pub(crate) fn statistic(&self, name: &str) -> u64 {
        let answer = String::from_utf8_lossy(&self.ask(b"stats\r\n")).into_owned();
        let prefix = format!("STAT {name} ");
        let line = answer.lines().find_map(|line| line.strip_prefix(&prefix));
        line.expect("there is such a statistic").parse().expect("it is a number")
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child().id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process has a number"), signal).expect("it is one's own child");
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let mut child = self.child();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(port: u16, arguments: &[String]) -> Option<Child> {
    let mut child = Command::new("memcached")
        .args(["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("memcached can be started: install the Debian package `memcached`");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return None;
        }
        // With TLS it listens, too, and answers nothing here.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn ask(port: u16, requests: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[requests, b"mn\r\n"].concat())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"MN\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    answer.truncate(answer.len() - 4);
    Ok(answer)
}

pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Options for these servers that find faults soon.
pub(crate) fn options(servers: &[TestServer]) -> MemcachedOptions {
    let mut options = MemcachedOptions::new(servers.iter().map(TestServer::address));
    options.connect_timeout = Duration::from_secs(10);
    options.response_timeout = Duration::from_secs(10);
    options.probe_pauses = (Duration::from_millis(50), Duration::from_millis(200));
    options
}

pub(crate) fn servers(count: usize) -> Vec<TestServer> {
    (0..count).map(|_| TestServer::start()).collect()
}

/// A store that keeps its servers running.
pub(crate) struct OwnStore {
    store: MemcachedStore,
    _servers: Vec<TestServer>,
}

impl OwnStore {
    pub(crate) async fn on(servers: Vec<TestServer>) -> Self {
        let client = Memcached::connect(options(&servers)).await.expect("they run");
        Self { store: MemcachedStore::new(&client, "conformance"), _servers: servers }
    }
}

impl Store for OwnStore {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.store.get_many(keys).await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        self.store.put_many(entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.store.invalidate_many(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.store.mark(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.store.marks().await
    }
}

/// Stores an entry and expects it to be taken.
pub(crate) async fn put(store: &impl Store, key: &str, text: &str, version: u64) {
    let put = [(Key::new(key), larder_testkit::conformance::store::entry(text, version))];
    let outcome = store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
    assert_eq!(outcome, [PutOutcome::Stored], "{key}");
}

/// The version held under a key.
pub(crate) async fn version(store: &impl Store, key: &str) -> Option<u64> {
    let held = store.get(&Key::new(key)).await.expect("a read");
    held.map(|entry| entry.version.get())
}

pub(crate) async fn wait_until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
