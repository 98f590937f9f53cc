//! Passwords and TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use larder_core::{ErrorKind, Store};
use larder_memcached::{Credentials, Memcached, MemcachedStore, TlsOptions};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{TestServer, options, put, version};

/// A directory that the server's user can read, with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().expect("a temporary directory can be made");
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("one's own file can be opened to others");
    };
    open(directory.path(), 0o755);
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a small file can be written");
        open(&path, 0o644);
    }
    directory
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

/// A certificate for `localhost` that signs itself, and its key.
fn certificate() -> TempDir {
    let directory = directory(&[("server.key", "")]);
    let (key, certificate) = (path(&directory, "server.key"), path(&directory, "server.crt"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl can be started: install the Debian package `openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))
        .expect("one's own file can be opened to others");
    directory
}

fn tls_server(directory: &TempDir) -> TestServer {
    let chain = format!("ssl_chain_cert={}", path(directory, "server.crt"));
    let key = format!("ssl_key={}", path(directory, "server.key"));
    TestServer::start_with(&["-Z", "-o", &chain, "-o", &key])
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
        let directory = directory(&[("users", "other:word\nshop:se:cret\n")]);
        let servers = [TestServer::start_with(&["-Y", &path(&directory, "users")])];
        let mut options = options(&servers);
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
        let directory = certificate();
        let servers = [tls_server(&directory)];
        let mut options = options(&servers);
        options.tls = tls(Some(directory.path().join("server.crt")));
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
        named.ca_file = Some(directory.path().join("server.crt"));
        named.server_name = Some("cache.example".to_owned());
        options.tls = Some(named);
        let error = Memcached::connect(options.clone()).await.expect_err("another name");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");

        // Without TLS it is understood by nobody.
        options.tls = None;
        options.connect_timeout = std::time::Duration::from_secs(1);
        let error = Memcached::connect(options).await.expect_err("it speaks TLS");
        assert!(error.remedy_text().is_some() || error.is_retryable(), "{error}");
    });
}

#[test]
fn tls_with_a_server_that_does_not_speak_it_fails() {
    block_on(async {
        let directory = certificate();
        let servers = [TestServer::start()];
        let mut options = options(&servers);
        options.connect_timeout = std::time::Duration::from_secs(3);
        options.tls = tls(Some(directory.path().join("server.crt")));
        Memcached::connect(options).await.expect_err("it speaks no TLS");
    });
}

#[test]
fn certificates_that_cannot_be_read_are_told_before_anything_is_sent() {
    let servers = [TestServer::start()];
    let mut options = options(&servers);
    let directory = directory(&[("empty.pem", ""), ("none.pem", "no certificate\n")]);
    for name in ["missing.pem", "empty.pem", "none.pem"] {
        options.tls = tls(Some(directory.path().join(name)));
        let error = Memcached::connect_lazily(options.clone()).expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
