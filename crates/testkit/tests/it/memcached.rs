//! Servers of memcached do what tests make them do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use larder_testkit::certificates::{Authority, TlsOptions};
use larder_testkit::memcached::{Memcached, MemcachedOptions};

/// What a server says over TLS to somebody who trusts this.
fn over_tls(server: &Memcached, trusted: &Path, arguments: &[&str], request: &str) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1"])
        .args(["-connect", &server.address().to_string(), "-CAfile"])
        .arg(trusted)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = client.stdin.take().expect("it is a pipe");
    // One that was refused has ended.
    let _ = stdin.write_all(format!("{request}\r\nquit\r\n").as_bytes());
    let output = client.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn it_starts_answers_and_comes_back_empty() {
    let server = Memcached::start();
    assert_eq!(server.ask(b"ms a 1\r\n1\r\nmg a v\r\n"), b"HD\r\nVA 1\r\n1\r\n");
    assert_eq!((server.statistic("get_hits"), server.statistic("get_misses")), (1, 0));
    let address = server.address();
    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(b"mn\r\n").expect("it is there");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"MN\r\n");
    server.restart();
    assert_eq!(server.address(), address);
    assert_eq!(client.read(&mut answer).unwrap_or(0), 0, "connections are broken");
    assert_eq!(server.ask(b"mg a v\r\n"), b"EN\r\n");
    server.kill();
    assert!(!server.is_running() && TcpStream::connect(address).is_err());
}

#[test]
fn one_that_stands_still_answers_later() {
    let server = Memcached::start();
    let mut client = TcpStream::connect(server.address()).expect("it listens");
    client.set_read_timeout(Some(Duration::from_millis(50))).expect("it can be set");
    server.pause();
    client.write_all(b"mn\r\n").expect("the kernel takes it");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect_err("it stands still");
    server.resume();
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
    client.read_exact(&mut answer).expect("it goes on");
}

#[test]
fn tls_is_trusted_only_with_the_authority() {
    let authority = Authority::new();
    let tls = Some(TlsOptions::new(&authority));
    let server = Memcached::launch(&MemcachedOptions { tls, ..MemcachedOptions::default() });
    let trusted = server.certificate().expect("it offers TLS");
    assert_eq!(over_tls(&server, trusted, &[], "mn"), "MN\r\n");
    let stranger = Authority::new();
    assert_eq!(over_tls(&server, stranger.certificate(), &[], "mn"), "");
    assert_eq!(server.ask(b"mg a v\r\n"), b"EN\r\n", "the test itself asks in the clear");

    let mut tls = TlsOptions::new(&authority);
    tls.demands_client_certificate = true;
    let options = MemcachedOptions { tls: Some(tls), ..MemcachedOptions::default() };
    let server = Memcached::launch(&options);
    assert_eq!(over_tls(&server, trusted, &[], "mn"), "", "it demands a certificate");
    let identity = authority.sign("client", &[]);
    let (certificate, key) =
        (identity.certificate.display().to_string(), identity.key.display().to_string());
    assert_eq!(over_tls(&server, trusted, &["-cert", &certificate, "-key", &key], "mn"), "MN\r\n");
}
