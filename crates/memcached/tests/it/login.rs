//! Passwords and TLS.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_core::{ErrorKind, Store};
use larder_memcached::{Credentials, Memcached, MemcachedOptions, MemcachedStore, TlsOptions};
use larder_testkit::certificates::Authority;
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{TestServer, address, options, put, version, wait_until};

/// A memcached that asks for a password. The testkit's own looks whether it
/// answers without one.
struct PasswordServer {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl PasswordServer {
    fn start(users: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let file = directory.path().join("users");
        std::fs::write(&file, users).expect("a small file can be written");
        // The server runs as another user.
        for (path, mode) in [(directory.path(), 0o755), (&*file, 0o644)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .expect("one's own file can be opened to others");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, larder_testkit::process::free_port()));
        let child = Command::new("memcached")
            .args(["-u", "nobody", "-U", "0", "-l", &address.to_string(), "-Y"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("memcached can be started: install the Debian package `memcached`");
        let server = Self { child, address, _directory: directory };
        wait_until("memcached listens", || TcpStream::connect(address).is_ok());
        server
    }
}

impl Drop for PasswordServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tls_server(authority: &Authority) -> TestServer {
    let tls = Some(larder_testkit::certificates::TlsOptions::new(authority));
    TestServer::launch(&larder_testkit::memcached::MemcachedOptions { tls, ..Default::default() })
}

fn tls(ca_file: Option<PathBuf>) -> Option<TlsOptions> {
    let mut tls = TlsOptions::default();
    tls.ca_file = ca_file;
    tls.server_name = Some("localhost".to_owned());
    Some(tls)
}

#[test]
fn the_right_password_lets_in_and_others_say_what_to_do() {
    block_on(async {
        let server = PasswordServer::start("other:word\nshop:se:cret\n");
        let mut options = MemcachedOptions::new([address(server.address)]);
        options.response_timeout = crate::support::PATIENCE;
        options.credentials = Some(Credentials::new("shop", "se:cret"));
        let client = Memcached::connect(options.clone()).await.expect("the password is right");
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "value", 1).await;
        assert_eq!(version(&store, "k").await, Some(1));
        for credentials in [
            None,
            Some(Credentials::new("shop", "hunter2")),
            Some(Credentials::new("nobody", "hunter2")),
        ] {
            options.credentials = credentials;
            let error = Memcached::connect(options.clone()).await.expect_err("it is wrong");
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.remedy_text().is_some_and(|remedy| remedy.contains("-Y")), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    });
}

/// Such a server would keep it as an item, for everybody to read.
#[test]
fn a_server_that_asks_for_no_password_is_sent_none() {
    block_on(async {
        let servers = [TestServer::start()];
        let mut options = options(&servers);
        options.credentials = Some(Credentials::new("shop", "secret"));
        Memcached::connect(options).await.expect("it asks for none");
        assert_eq!(servers[0].statistic("cmd_set"), 0);
    });
}

#[test]
fn tls_is_spoken_with_whom_is_trusted() {
    block_on(async {
        let authority = Authority::new();
        let servers = [tls_server(&authority)];
        let mut options = options(&servers);
        options.tls = tls(Some(authority.certificate().to_owned()));
        let client = Memcached::connect(options.clone()).await.expect("it is trusted");
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "value", 1).await;
        assert_eq!(version(&store, "k").await, Some(1));
        let long = entry(&"x".repeat(900_000), 2);
        let put = [("k".into(), long.clone())];
        store.put_many(&put, larder_core::PutCondition::NewerThanHeld).await.expect("a put");
        let read = store.get(&"k".into()).await.expect("a read").expect("it was put");
        assert!(read.value == long.value);

        // Nobody that Mozilla knows signed it.
        options.tls = tls(None);
        let error = Memcached::connect(options.clone()).await.expect_err("it is not trusted");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.remedy_text().is_some_and(|remedy| remedy.contains("ca_file")), "{error}");

        // It names localhost, and not this.
        let mut named = TlsOptions::default();
        named.ca_file = Some(authority.certificate().to_owned());
        named.server_name = Some("cache.example".to_owned());
        options.tls = Some(named);
        let error = Memcached::connect(options.clone()).await.expect_err("another name");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");

        // Without TLS it is understood by nobody.
        options.tls = None;
        options.connect_timeout = Duration::from_secs(1);
        let error = Memcached::connect(options).await.expect_err("it speaks TLS");
        assert!(error.remedy_text().is_some() || error.is_retryable(), "{error}");
    });
}

#[test]
fn tls_with_a_server_that_does_not_speak_it_fails() {
    block_on(async {
        let authority = Authority::new();
        let servers = [TestServer::start()];
        let mut options = options(&servers);
        options.connect_timeout = Duration::from_secs(3);
        options.tls = tls(Some(authority.certificate().to_owned()));
        Memcached::connect(options).await.expect_err("it speaks no TLS");
    });
}

#[test]
fn certificates_that_cannot_be_read_are_told_before_anything_is_sent() {
    let servers = [TestServer::start()];
    let mut options = options(&servers);
    let directory = TempDir::new().expect("a temporary directory can be made");
    for (name, text) in [("empty.pem", ""), ("none.pem", "no certificate\n")] {
        std::fs::write(directory.path().join(name), text).expect("a small file can be written");
    }
    for name in ["missing.pem", "empty.pem", "none.pem"] {
        options.tls = tls(Some(directory.path().join(name)));
        let error = Memcached::connect_lazily(options.clone()).expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
