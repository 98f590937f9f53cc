//! The same script to a Redis alone and through Larder to a cluster: the replies
//! must be the same to the byte, in RESP2 and in RESP3.

use larder_testkit::redis::{Cluster, RedisServer};

use super::super::super::against_redis::compare;
use super::super::super::text;
use super::{Client, counted, front_of, key_of, warm};

#[test]
fn a_cluster_answers_as_a_single_redis() {
    let cluster = Cluster::start();
    let alone = RedisServer::start();
    let door = front_of(&cluster);
    let compare = |script: &str| compare(alone.address(), door.address(), script);
    for script in [STRINGS, OTHERS, WHOLE, CHANNELS] {
        // Twice, so that the second time finds memory as the first one left it.
        compare(&format!("{script}\n{script}"));
    }
    assert!(counted(&door).passed > 0);
    keyless(&cluster, door.address());
    scans(door.address());
    refusals(door.address());
    let mut client = Client::connect(door.address());
    for place in 0..3 {
        let key = key_of(place);
        client.ask(&format!("SET {key} {place}"));
        assert_eq!(warm(&door, &mut client, &key), format!("$1\r\n{place}\r\n"));
    }
}

const STRINGS: &str = r#"
    MSET a 1 b 2 c 3 d 4 e 5
    MGET a b none c d e a
    MGET a b none c d e a
    MGET a
    EXISTS a b none c a
    EXISTS a b none c a
    TOUCH a b none
    STRLEN a
    GETRANGE b 0 5
    SET a changed
    MGET a b
    INCRBY b 40
    MGET b a
    APPEND c x
    GET c
    DEL a b none
    MGET a b c
    UNLINK c d
    EXISTS c d e
    LPUSH list x
    MGET e list f
    GET list
    MSET a 1 b
    MSET
    MGET
    DEL
    EXISTS
    GET
    GET a b
    SET bin "\r\n\0 x"
    MGET bin e
    MSET a 1 a 2 b 3 a 4
    GET a
    MSETNX {x}a 1 {x}b 2
    MSETNX {x}a 1 {x}c 2
    RENAME {x}a {x}c
    MGET {x}a {x}c {x}b
    BITOP AND {x}d {x}b {x}c
    COPY {x}b {x}d DB 0 x
"#;

const OTHERS: &str = r#"
    HSET h f 1 g 2
    HGETALL h
    RPUSH {l}1 a b c
    LMOVE {l}1 {l}2 LEFT RIGHT
    LMPOP 2 {l}none {l}1 LEFT
    SADD {s}1 1 2 3
    SADD {s}2 2 3 4
    SINTERCARD 2 {s}1 {s}2
    SUNIONSTORE {s}3 {s}1 {s}2
    ZADD {z}1 1 a 2 b
    ZUNION 2 {z}1 {z}none WITHSCORES
    ZUNIONSTORE {z}2 1 {z}1
    XADD {x}s 1-1 f v
    XREAD COUNT 1 STREAMS {x}s 0
    XGROUP CREATE {x}s g 0
    XREADGROUP GROUP g me COUNT 1 STREAMS {x}s >
    XREAD BLOCK 1 STREAMS {x}none 0
    OBJECT ENCODING h
    OBJECT HELP
    EVAL "return redis.call('set', KEYS[1], ARGV[1])" 1 k v
    GET k
    EVAL "return {1, 'two'}" 0
    EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 k
    FCALL none 1 k
    BLPOP {b}none 0.01
    RPUSH {b}list a b
    BLPOP {b}none {b}list 1
    BLMOVE {b}list {b}other LEFT RIGHT 1
    BLMPOP 0.01 1 {b}none LEFT
    BLPOP {b}list x
    BLPOP
    NOTHING
    NOTHING a b
    HGET k f
"#;

const WHOLE: &str = r#"
    FLUSHALL
    DBSIZE
    RANDOMKEY
    KEYS *
    MSET a 1 b 2 c 3 d 4
    DBSIZE
    KEYS a*
    SCRIPT LOAD "return 7"
    SCRIPT EXISTS 0b24b1bb4daeb6f75f9ee1d1a7ad7b5a2a2a2a2a
    SCRIPT FLUSH
    FUNCTION LIST
    FUNCTION FLUSH
    ECHO x
    PING
    PING x
    PUBLISH c m
    SPUBLISH c m
    SELECT 0
    SELECT x
    CLUSTER SLOTS
    READONLY
    ACL WHOAMI
    CONFIG GET maxmemory-policy
    CONFIG GET nothing
    COMMAND COUNT
    FLUSHDB
    DBSIZE
    FLUSHALL x
"#;

const CHANNELS: &str = r#"
    SUBSCRIBE
    +2 SUBSCRIBE a b
    PING x
    PSUBSCRIBE p*
    UNSUBSCRIBE a
    PUNSUBSCRIBE
    UNSUBSCRIBE b
    SSUBSCRIBE s
    SUNSUBSCRIBE s
    GET after
    SET after 1
    GET after
"#;

fn keyless(cluster: &Cluster, address: std::net::SocketAddr) {
    let mut client = Client::connect(address);
    client.ask("FLUSHALL");
    for number in 0..300 {
        client.ask(&format!("SET n{number} x"));
    }
    assert_eq!(client.ask("DBSIZE"), ":300\r\n");
    assert!(client.ask("KEYS n*").starts_with("*300\r\n"));
    let random: std::collections::HashSet<_> = (0..60).map(|_| client.ask("RANDOMKEY")).collect();
    assert!(random.len() > 10, "{random:?}");
    let loaded = text(&client.call(&["SCRIPT", "LOAD", "return 1"]));
    let sha = loaded.lines().nth(1).expect("it has a name").to_owned();
    for place in 0..3 {
        let key = key_of(place);
        let server = &cluster.servers()[place];
        assert_eq!(server.command(&["SCRIPT", "EXISTS", &sha]).items()[0].integer(), 1);
        assert!(!client.ask(&format!("EVALSHA {sha} 1 {key}")).starts_with("-NOSCRIPT"));
    }
    let info = client.ask("INFO");
    assert!(info.contains("redis_mode:standalone") && info.contains("cluster_enabled:0"), "{info}");
    assert_eq!(info.len(), super::super::super::reply_length(info.as_bytes()).unwrap_or(0));
    client.ask("FLUSHALL");
    assert_eq!(client.ask("DBSIZE"), ":0\r\n");
}

fn scans(address: std::net::SocketAddr) {
    let mut client = Client::connect(address);
    for number in 0..500 {
        client.ask(&format!("SET s{number} x"));
    }
    let (mut cursor, mut found, mut rounds) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let page = client.ask(&format!("SCAN {cursor} COUNT 50 MATCH s*"));
        let lines: Vec<_> = page.lines().collect();
        cursor = lines[2].to_owned();
        found.extend(lines[4..].iter().skip(1).step_by(2).map(|key| (*key).to_owned()));
        rounds += 1;
        if cursor == "0" {
            break;
        }
        assert!(rounds < 1000, "it has an end");
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 500);
    assert!(rounds > 3, "of each primary, and more than once");
    assert_eq!(client.ask("SCAN x"), "-ERR invalid cursor\r\n");
    assert_eq!(client.ask("SCAN 511"), "*2\r\n$1\r\n0\r\n*0\r\n", "no such server");
    client.ask("FLUSHALL");
}

fn refusals(address: std::net::SocketAddr) {
    let mut client = Client::connect(address);
    for command in [
        "MSETNX a 1 b 2",
        "RENAME a b",
        "SUNION a b",
        "BLPOP a b 1",
        "EVAL return\u{a0}1 2 a b",
        "WATCH a b",
        "SSUBSCRIBE a b",
    ] {
        let reply = client.ask(command);
        assert!(reply.starts_with("-CROSSSLOT"), "{command}: {reply}");
    }
    for (command, complaint) in [
        ("CONFIG SET maxmemory 0", "-ERR CONFIG is about one server"),
        ("MONITOR", "-ERR MONITOR is about one server"),
        ("SAVE", "-ERR SAVE is about one server"),
        ("WAIT 0 0", "-ERR WAIT is about one server"),
        ("SCRIPT KILL", "-ERR SCRIPT is about one server"),
        ("CLIENT TRACKING ON", "-ERR CLIENT is about one server"),
        ("DEBUG SLEEP 0", "-ERR DEBUG is about one server"),
        ("SELECT 1", "-ERR SELECT is not allowed in cluster mode"),
        ("CLUSTER NODES", "-ERR This instance has cluster support disabled"),
        ("PSYNC ? -1", "-ERR Larder passes no replication on"),
    ] {
        let reply = client.ask(command);
        assert!(reply.starts_with(complaint), "{command}: {reply}");
        assert_eq!(client.ask("SET still there"), "+OK\r\n");
    }
}
