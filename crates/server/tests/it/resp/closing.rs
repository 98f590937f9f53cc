//! How the door closes.

use std::time::{Duration, Instant};

use super::{Client, open, options, text};

#[tokio::test]
async fn idle_clients_are_sent_away_at_once() {
    let door = open(&options());
    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(door.address())).collect();
    for client in &mut idle {
        assert_eq!(client.ask("PING"), "+PONG\r\n");
    }
    let address = door.address();
    let started = Instant::now();
    assert_eq!(door.close(Duration::from_secs(20)).await, 0);
    assert!(started.elapsed() < Duration::from_secs(10));
    for client in &mut idle {
        assert_eq!(client.rest(), b"");
    }
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_does_not_take_replies_is_cut_off_at_the_deadline() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    client.ask(&format!("SET big {}", "x".repeat(1 << 20)));
    for _ in 0..64 {
        client.send_command(&["GET", "big"]);
    }
    let sending = |door: &super::Door| door.monitor().buffer_bytes() > 0;
    super::eventually("a reply that waits", || sending(&door));
    assert_eq!(door.close(Duration::from_millis(200)).await, 1);
}

#[test]
fn two_doors_do_not_share_a_port() {
    let door = open(&options());
    let taken = super::DoorOptions { listen: door.address(), ..options() };
    let keyspace = std::sync::Arc::new(super::Keyspace::new(super::KeyspaceOptions::default()));
    let error = super::Door::open(&taken, keyspace, std::sync::Arc::new(super::NoCaches))
        .err()
        .expect("the port is taken");
    assert!(error.to_string().contains(&door.address().to_string()), "{error}");
    assert!(error.remedy_text().is_some());
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answers() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    client.send(b"SET a 1\r\nINCR a\r\nGET a\r\n*2\r\n$3\r\nGET\r\n$1\r\n");
    client.finish_sending();
    assert_eq!(text(&client.rest()), "+OK\r\n:2\r\n$1\r\n2\r\n");
}

#[test]
fn quit_answers_and_ends() {
    let door = open(&options());
    let mut client = Client::connect(door.address());
    client.send(b"PING\r\nQUIT now\r\nPING\r\n");
    assert_eq!(text(&client.rest()), "+PONG\r\n+OK\r\n");
}
