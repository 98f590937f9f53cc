//! Memcached servers that a test owns, and stores that own servers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_core::{Key, PutCondition, PutOutcome, Store};
use larder_memcached::{Memcached, MemcachedOptions, ServerAddress};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A memcached that the test owns.
pub(crate) type TestServer = larder_testkit::memcached::Memcached;

/// Starts a server with further arguments.
pub(crate) fn server_with(arguments: &[&str]) -> TestServer {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let options = larder_testkit::memcached::MemcachedOptions { arguments, ..Default::default() };
    TestServer::launch(&options)
}

/// The address in options.
pub(crate) fn address(address: SocketAddr) -> ServerAddress {
    ServerAddress { host: address.ip().to_string(), port: address.port(), weight: 1 }
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
    let mut options = MemcachedOptions::new(servers.iter().map(|server| address(server.address())));
    options.connect_timeout = Duration::from_secs(10);
    options.response_timeout = Duration::from_secs(10);
    options.probe_pauses = (Duration::from_millis(50), Duration::from_millis(200));
    options
}

pub(crate) fn servers(count: usize) -> Vec<TestServer> {
    (0..count).map(|_| TestServer::start()).collect()
}

/// A client of these servers.
pub(crate) async fn connect(servers: &[TestServer]) -> Memcached {
    Memcached::connect(options(servers)).await.expect("they run")
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
