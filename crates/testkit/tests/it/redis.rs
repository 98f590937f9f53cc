//! Servers of Redis do what tests make them do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_testkit::certificates::{Authority, TlsOptions};
use larder_testkit::redis::{AfterRestart, Flavour, RedisOptions, RedisServer, Replicated, Reply};

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}

/// What an ordinary client says to a command: through the port, with TLS if
/// there is something to trust.
fn client(server: &RedisServer, trusted: Option<&Path>, arguments: &[&str]) -> String {
    let mut client = Command::new("redis-cli");
    client.args(["-h", "127.0.0.1", "-p", &server.address().port().to_string()]);
    if let Some(trusted) = trusted {
        client.arg("--tls").arg("--cacert").arg(trusted);
    }
    let output = client.args(arguments).output().expect("redis-cli is installed");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[test]
fn every_flavour_starts_answers_and_ends() {
    for flavour in Flavour::installed() {
        let server = RedisServer::launch(&RedisOptions { flavour, ..RedisOptions::default() });
        assert_eq!(client(&server, None, &["PING"]), "PONG");
        assert_eq!(server.command(&["SET", "a", "\r\n"]), ok());
        assert_eq!(server.command(&["GET", "a"]).text(), "\r\n");
        assert_eq!((server.calls("get"), server.calls("mget")), (1, 0));
        let address = server.address();
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err(), "it has ended");
    }
}

#[test]
fn a_restart_keeps_the_port_and_the_data_or_nothing() {
    for durable in [false, true] {
        let server = RedisServer::launch(&RedisOptions { durable, ..RedisOptions::default() });
        let address = server.address();
        server.command(&["SET", "a", "1"]);
        server.restart(AfterRestart::WithData);
        assert_eq!(server.command(&["DBSIZE"]).integer(), 1);
        server.restart(AfterRestart::Empty);
        assert_eq!(server.command(&["DBSIZE"]).integer(), 0);
        server.command(&["SET", "a", "1"]);
        server.kill();
        assert!(!server.is_running() && server.try_command(&["PING"]).is_err());
        server.revive();
        assert_eq!(server.command(&["DBSIZE"]).integer(), i64::from(durable));
        assert_eq!(server.address(), address);
    }
}

#[test]
fn a_server_that_stands_still_answers_later() {
    let server = RedisServer::start();
    let mut connection = server.connect().expect("it runs");
    server.pause();
    connection.send(&["PING"]).expect("the kernel takes it");
    connection.set_patience(Duration::from_millis(50)).expect("it can be set");
    connection.read().expect_err("it stands still");
    server.resume();
    connection.set_patience(Duration::from_secs(60)).expect("it can be set");
    assert_eq!(connection.read().expect("it goes on"), Reply::Status("PONG".to_owned()));
}

#[test]
fn a_password_and_users_with_few_rights() {
    let options = RedisOptions {
        users: vec!["reader on >secret ~larder:* +@read".to_owned()],
        ..RedisOptions::with_password("sesame")
    };
    let server = RedisServer::launch(&options);
    assert!(client(&server, None, &["GET", "a"]).contains("NOAUTH"));
    assert_eq!(server.command(&["SET", "larder:a", "1"]), ok());
    let reader = |command: &[&str]| {
        let user = ["--no-auth-warning", "--user", "reader", "--pass", "secret"];
        client(&server, None, &[&user, command].concat())
    };
    assert_eq!(reader(&["GET", "larder:a"]), "1");
    assert!(reader(&["GET", "other"]).contains("NOPERM"));
    assert!(reader(&["SET", "larder:a", "2"]).contains("NOPERM"));
    assert!(server.url().starts_with("redis://:sesame@127.0.0.1:"));
    assert!(!format!("{server:?}").contains("sesame"));
}

#[test]
fn a_command_is_refused_as_managed_services_do() {
    let server = RedisServer::start_with(&["--rename-command", "CLIENT", ""]);
    assert!(client(&server, None, &["CLIENT", "ID"]).contains("unknown command"));
}

#[test]
fn tls_is_trusted_only_with_the_authority_and_under_its_names() {
    let authority = Authority::new();
    let server = RedisServer::launch(&RedisOptions::with_tls(&authority));
    assert_eq!(client(&server, server.certificate(), &["PING"]), "PONG");
    let stranger = Authority::new();
    assert!(client(&server, Some(stranger.certificate()), &["PING"]).contains("certificate"));
    assert_ne!(client(&server, None, &["PING"]), "PONG", "nothing is said in the clear");
    assert!(server.url().starts_with("rediss://"));
    server.restart(AfterRestart::WithData);
    assert_eq!(client(&server, server.certificate(), &["PING"]), "PONG");

    let mut tls = TlsOptions::new(&authority);
    tls.demands_client_certificate = true;
    let server = RedisServer::launch(&RedisOptions { tls: Some(tls), ..RedisOptions::default() });
    assert_ne!(client(&server, server.certificate(), &["PING"]), "PONG");
    let identity = authority.sign("client", &[]);
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let shown = ["--cert", &certificate.to_string(), "--key", &key.to_string(), "PING"];
    assert_eq!(client(&server, server.certificate(), &shown), "PONG");
}

#[test]
fn a_promoted_replica_lacks_what_it_was_not_told() {
    let redis = Replicated::start(2);
    redis.primary().command(&["SET", "early", "1"]);
    redis.wait_until_in_step();
    redis.hold_back(1);
    redis.primary().command(&["SET", "late", "1"]);
    let held_back = &redis.servers()[1];
    assert_eq!(held_back.command(&["EXISTS", "early", "late"]).integer(), 1);
    assert!(held_back.command(&["SET", "x", "1"]).is_error(), "it is still a replica");
    redis.primary().kill();
    redis.promote(1);
    assert_eq!(redis.primary().command(&["SET", "after", "1"]), ok());
    redis.wait_until_in_step();
    let other = &redis.servers()[2];
    assert_eq!(other.command(&["EXISTS", "early", "after", "late"]).integer(), 2);
    redis.servers()[0].revive();
    redis.let_follow(0);
    redis.wait_until_in_step();
    assert_eq!(redis.servers()[0].command(&["DBSIZE"]).integer(), 2);
}

#[test]
fn replication_goes_through_tls_and_passwords() {
    let authority = Authority::new();
    let options =
        RedisOptions { password: Some("sesame".to_owned()), ..RedisOptions::with_tls(&authority) };
    let redis = Replicated::launch(1, &options);
    redis.primary().command(&["SET", "a", "1"]);
    redis.wait_until_in_step();
    assert_eq!(redis.servers()[1].command(&["GET", "a"]).text(), "1");
}
