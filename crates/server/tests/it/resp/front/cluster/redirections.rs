//! Slots move, and clients do not notice.

use larder_testkit::proxy::Direction;
use larder_testkit::redis::{Cluster, RedisOptions, SLOTS};

use super::super::super::{encode, text};
use super::{Client, counted, eventually, front_at, front_of, key_of, warm};

#[test]
fn a_slot_that_moves_is_followed() {
    let cluster = Cluster::start();
    let door = front_of(&cluster);
    let mut client = Client::connect(door.address());
    let tagged = |number: usize| format!("{{{}}}{number}", key_of(0));
    let slot = Cluster::slot(key_of(0).as_bytes());
    for number in 0..20 {
        client.ask(&format!("SET {} {number}", tagged(number)));
        warm(&door, &mut client, &tagged(number));
        warm(&door, &mut client, &tagged(100 + number));
    }
    let migration = cluster.begin_migration(slot, 1);
    migration.move_keys(10);
    while_it_moves(&mut client, &tagged);
    negative(&cluster, &mut client, &tagged);
    while migration.move_keys(100) > 0 {}
    migration.finish();
    for number in 0..20 {
        let expected = format!("${}\r\n{number}\r\n", number.to_string().len());
        assert_eq!(client.ask(&format!("GET {}", tagged(number))), expected);
    }
    // From memory again, and its new owner tells what changes.
    warm(&door, &mut client, &tagged(1));
    cluster.servers()[1].command(&["SET", &tagged(1), "new"]);
    eventually("the change", || client.ask(&format!("GET {}", tagged(1))) == "$3\r\nnew\r\n");
    let counted = counted(&door);
    assert!(counted.redirections > 0 && counted.moved_slots > 0, "{counted:?}");
}

/// Some of its keys are there, some here.
fn while_it_moves(client: &mut Client, tagged: &dyn Fn(usize) -> String) {
    for round in 0..3 {
        for number in 0..20 {
            let key = tagged(number);
            let written = format!("{}", 1000 * round + number);
            assert_eq!(client.ask(&format!("SET {key} {written}")), "+OK\r\n");
            let read = format!("${}\r\n{written}\r\n", written.len());
            assert_eq!(client.ask(&format!("GET {key}")), read);
        }
    }
    // A pipeline keeps its order, whoever answers.
    let pipeline: Vec<u8> = (0..20)
        .flat_map(|number| {
            let key = tagged(number);
            [encode(&["SET", &key, "1"]), encode(&["INCR", &key]), encode(&["GET", &key])]
        })
        .flatten()
        .collect();
    client.send(&pipeline);
    for _ in 0..20 {
        let replies: String = (0..3).map(|_| text(&client.reply())).collect();
        assert_eq!(replies, "+OK\r\n:2\r\n$1\r\n2\r\n");
    }
    for number in 0..20 {
        client.ask(&format!("SET {} {number}", tagged(number)));
    }
    // Keys on both sides: refused after some tries, as the cluster itself does.
    let both = client.ask(&format!("SUNION {} {}", tagged(300), tagged(301)));
    assert!(both.starts_with('*') || both.starts_with("-TRYAGAIN"), "{both}");
    let queued = format!("{{{}}}queue", key_of(0));
    client.ask(&format!("RPUSH {queued} item"));
    assert!(client.ask(&format!("BLPOP {queued} 1")).contains("item"));
    assert_eq!(client.ask(&format!("WATCH {queued}")), "+OK\r\n");
    assert_eq!(client.ask("UNWATCH"), "+OK\r\n");
    client.ask("MULTI");
    let refused = client.ask(&format!("SET {queued} x"));
    assert!(refused.starts_with("-TRYAGAIN"), "{refused}");
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
}

/// A key that was not there appears at the server that does not own the slot yet.
fn negative(cluster: &Cluster, client: &mut Client, tagged: &dyn Fn(usize) -> String) {
    let target = cluster.servers()[1].connect();
    let mut target = target.expect("it runs");
    for number in 100..110 {
        let key = tagged(number);
        assert_eq!(client.ask(&format!("GET {key}")), "$-1\r\n");
        target.call(&["ASKING"]).expect("it answers");
        target.call(&["SET", &key, "there"]).expect("it answers");
        eventually("the new key", || client.ask(&format!("GET {key}")) == "$5\r\nthere\r\n");
    }
}

#[test]
fn every_primary_tells_of_writers_past_larder() {
    let cluster = Cluster::start();
    let door = front_of(&cluster);
    let mut client = Client::connect(door.address());
    for place in 0..3 {
        let key = key_of(place);
        for number in 10..60 {
            client.ask(&format!("SET {key} old"));
            warm(&door, &mut client, &key);
            cluster.servers()[place].command(&["SET", &key, &number.to_string()]);
            eventually("the write", || {
                client.ask(&format!("GET {key}")) == format!("$2\r\n{number}\r\n")
            });
        }
    }
    assert!(counted(&door).invalidations >= 150);
    // One that loses its connection takes only its own with it.
    for place in 0..3 {
        warm(&door, &mut client, &key_of(place));
    }
    let losses = counted(&door).losses;
    let list = cluster.servers()[0].command(&["CLIENT", "LIST"]).text();
    let tracking = list.lines().find(|line| line.contains("flags=tB")).expect("it is tracked");
    let id = tracking.strip_prefix("id=").and_then(|line| line.split(' ').next());
    cluster.servers()[0].command(&["CLIENT", "KILL", "ID", id.expect("it has one")]);
    eventually("the loss", || counted(&door).losses > losses);
    let before = counted(&door);
    client.ask(&format!("GET {}", key_of(1)));
    client.ask(&format!("GET {}", key_of(2)));
    let after = counted(&door);
    assert_eq!((after.hits, after.misses), (before.hits + 2, before.misses));
    for place in 0..3 {
        warm(&door, &mut client, &key_of(place));
    }
}

#[test]
fn a_server_that_joins_is_listened_to_before_it_has_slots() {
    let cluster = Cluster::start();
    let door = front_of(&cluster);
    // All of one primary's slots go to another: it has none, and is still one.
    let last = SLOTS - 1;
    cluster.migrate_slot(last, 0);
    let mut client = Client::connect(door.address());
    let key = (0..).map(|number| format!("k{number}"));
    let key = key.into_iter().find(|key| Cluster::slot(key.as_bytes()) == last);
    let key = key.expect("there is one");
    client.ask(&format!("SET {key} 1"));
    assert_eq!(warm(&door, &mut client, &key), "$1\r\n1\r\n");
    cluster.servers()[0].command(&["SET", &key, "2"]);
    eventually("the write", || client.ask(&format!("GET {key}")) == "$1\r\n2\r\n");
}

/// A command whose reply is lost may have been done: it is told, and not sent
/// again.
#[test]
fn a_command_whose_reply_is_lost_is_not_sent_twice() {
    let cluster = Cluster::launch_behind_proxies(&RedisOptions::default());
    let door = front_at(cluster.addresses()[0]);
    let mut client = Client::connect(door.address());
    let (server, proxy) = (&cluster.servers()[1], cluster.proxy(1));
    let number = format!("{{{}}}n", key_of(1));
    let queue = format!("{{{}}}queue", key_of(1));
    assert_eq!(client.ask(&format!("INCR {number}")), ":1\r\n");
    client.ask(&format!("RPUSH {queue} a b c"));
    let lose = |client: &mut Client, command: &str, is_done: &dyn Fn() -> bool| {
        // So that a connection of each kind is there.
        eventually("it is reached", || client.ask(&format!("GET {number}")).starts_with('$'));
        let none = format!("BLPOP {{{}}}none 0.01", key_of(1));
        eventually("it is reached", || client.ask(&none) == "*-1\r\n");
        proxy.all().stall(Direction::ToClient);
        client.send_command(&command.split(' ').collect::<Vec<_>>());
        eventually("it is done", is_done);
        proxy.all().reset();
        proxy.all().lift();
        let reply = text(&client.reply());
        assert!(reply.starts_with("-UNAVAILABLE"), "{command}: {reply}");
    };
    let incremented = || server.command(&["GET", &number]).text() == "2";
    lose(&mut client, &format!("INCR {number}"), &incremented);
    let popped = || server.command(&["LLEN", &queue]).integer() == 2;
    lose(&mut client, &format!("BLPOP {queue} 1"), &popped);
    let mut again = String::new();
    eventually("it is reached again", || {
        again = client.ask(&format!("INCR {number}"));
        !again.starts_with('-')
    });
    assert_eq!(again, ":3\r\n");
    assert_eq!(server.command(&["LLEN", &queue]).integer(), 2);
}
