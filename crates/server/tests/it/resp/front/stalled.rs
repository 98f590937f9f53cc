//! The connection on which Redis tells what changes goes silent while all others
//! work: nobody may read an old value for longer than the bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_server::front::{TrackingState, UpstreamOptions};
use larder_server::resp::{Door, NoCaches};
use larder_testkit::proxy::{ConnectionId, Direction, FaultProxy};
use larder_testkit::redis::RedisServer;

use super::coherence::{SCHEDULING, race};
use super::{Client, SHORT, counted, eventually, open_front, wait_for, warm};

fn through(proxy: &FaultProxy, staleness_max: Duration) -> Door {
    let url = format!("redis://{}", proxy.address());
    let upstream = UpstreamOptions::parse(&url).expect("it is a URL");
    let door = open_front(upstream, Arc::new(NoCaches), |front| {
        front.staleness_max = staleness_max;
    });
    wait_for(&door, TrackingState::Tracking);
    door
}

/// The connection that tracks.
fn tracking(redis: &RedisServer, proxy: &FaultProxy) -> ConnectionId {
    let list = redis.command(&["CLIENT", "LIST"]).text();
    let line = list.lines().find(|line| line.contains("flags=tB")).expect("somebody tracks");
    let address = line.split(' ').find_map(|field| field.strip_prefix("addr="));
    let address = address.expect("it has an address").parse().expect("of a socket");
    proxy.find(address).expect("it comes through the proxy")
}

#[test]
fn a_write_is_seen_within_the_bound_though_nobody_tells_of_it() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let door = through(&proxy, SHORT);
    let mut client = Client::connect(door.address());
    client.ask("SET k old");
    for fault in ["stall", "black hole"] {
        eventually("the old value", || client.ask("GET k") == "$3\r\nold\r\n");
        warm(&door, &mut client, "k");
        let connection = tracking(&redis, &proxy);
        match fault {
            "stall" => proxy.connection(connection).stall(Direction::ToClient),
            _ => proxy.connection(connection).black_hole(Direction::ToClient),
        }
        // The second time the connection may have been given up, and another tells.
        for value in ["new", "old"] {
            redis.command(&["SET", "k", value]);
            let (written, expected) = (Instant::now(), format!("$3\r\n{value}\r\n"));
            while client.ask("GET k") != expected {
                let age = written.elapsed();
                assert!(age < SHORT + SCHEDULING, "{fault}: {value} is not read after {age:?}");
            }
            assert_eq!(client.ask("GET k"), expected, "{fault}: not the other one again");
        }
        if fault == "stall" {
            proxy.lift();
        }
        // What was lost is not waited for: the connection is given up.
        let before = counted(&door).hits;
        eventually("answers from memory", || {
            client.ask("GET k");
            counted(&door).hits > before
        });
    }
    assert!(counted(&door).losses >= 1);
}

#[test]
fn under_load_with_the_tracking_connection_stalled_again_and_again() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let door = through(&proxy, SHORT);
    let checked = race(&redis, &door, SHORT + SCHEDULING, || {
        for _ in 0..5 {
            wait_for(&door, TrackingState::Tracking);
            proxy.connection(tracking(&redis, &proxy)).stall(Direction::ToClient);
            std::thread::sleep(SHORT * 3);
            proxy.lift();
            std::thread::sleep(SHORT);
        }
    });
    assert!(checked > 1000 && counted(&door).hits > 0, "{:?}", counted(&door));
}

#[test]
fn a_slow_network_changes_nothing() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let door = through(&proxy, Duration::from_secs(1));
    let latency = Duration::from_millis(5);
    for direction in [Direction::ToClient, Direction::ToServer] {
        proxy.all().delay(direction, latency, latency);
        proxy.future().delay(direction, latency, latency);
    }
    let bound = Duration::from_secs(1) + SCHEDULING;
    let checked = race(&redis, &door, bound, || std::thread::sleep(Duration::from_secs(2)));
    assert!(checked > 50, "{checked} reads");
}

/// The connection over which this client's commands go to Redis.
fn link_of(client: &mut Client, proxy: &FaultProxy) -> ConnectionId {
    let bytes = || proxy.connections().into_iter().map(|it| (it.id, it.bytes_to_server));
    let before: Vec<_> = bytes().collect();
    client.ask(&format!("HGET none {}", "x".repeat(10_000)));
    let mut grown = bytes().filter(|(id, now)| {
        before.iter().find(|(other, _)| other == id).is_none_or(|(_, before)| now - before > 5_000)
    });
    grown.next().expect("it went somewhere").0
}

/// What another client read and kept while a write was on its way does not
/// outlive the write's reply, even if Redis' own word of it does not arrive.
#[test]
fn a_write_that_is_acknowledged_is_read_by_every_client_of_this_node() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let door = through(&proxy, Duration::from_secs(60));
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(door.address())).collect();
    let links: Vec<_> = clients.iter_mut().map(|client| link_of(client, &proxy)).collect();
    assert_ne!(links[0], links[1], "the two are on different threads");
    let [writer, reader] = &mut *clients else { unreachable!("there are two") };
    writer.ask("SET k old");
    assert_eq!(warm(&door, reader, "k"), "$3\r\nold\r\n");
    proxy.connection(tracking(&redis, &proxy)).stall(Direction::ToClient);
    proxy.connection(links[0]).stall(Direction::ToServer);
    let before = counted(&door).passed;
    writer.send_command(&["SET", "k", "new"]);
    // It was voided when it was sent, and is kept again.
    eventually("the write to be on its way", || counted(&door).passed > before);
    assert_eq!(warm(&door, reader, "k"), "$3\r\nold\r\n");
    proxy.connection(links[0]).lift();
    assert_eq!(writer.reply(), b"+OK\r\n");
    assert_eq!(reader.ask("GET k"), "$3\r\nnew\r\n");
    assert_eq!(writer.ask("GET k"), "$3\r\nnew\r\n");
}

#[test]
fn keys_are_forgotten_wherever_a_command_names_them() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let door = through(&proxy, Duration::from_secs(60));
    let mut client = Client::connect(door.address());
    assert_eq!(warm(&door, &mut client, "stream"), "$-1\r\n");
    client.ask("PFADD sketch a b");
    client.ask("PFCOUNT sketch");
    client.ask("PFADD sketch c");
    eventually("the invalidations", || counted(&door).invalidations >= 1);
    let before = warm(&door, &mut client, "sketch");
    proxy.connection(tracking(&redis, &proxy)).stall(Direction::ToClient);
    assert_eq!(client.ask("XGROUP CREATE stream g $ MKSTREAM"), "+OK\r\n");
    assert_eq!(client.ask("EXISTS stream"), ":1\r\n");
    // What it counts is noted in the value.
    assert_eq!(client.ask("PFCOUNT sketch"), ":3\r\n");
    assert_ne!(client.ask("GET sketch"), before);
}
