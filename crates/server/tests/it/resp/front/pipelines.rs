//! Pipelines in which answers from memory and from Redis mix keep their order,
//! and mean the same as in Redis alone.

use larder_core::{Clock, ManualClock};
use larder_server::front::{FrontOptions, TrackingState, UpstreamOptions};
use larder_server::resp::DoorOptions;
use larder_testkit::redis::RedisServer;
use proptest::prelude::*;

use super::{
    Client, SHORT, counted, encode, eventually, front, front_with, open, options, text, wait_for,
    warm,
};

/// Everything that comes of a pipeline that arrives in pieces of this size.
pub(super) fn rest(
    address: std::net::SocketAddr,
    pipeline: &[u8],
    piece: usize,
    count: usize,
) -> String {
    let mut client = Client::connect(address);
    for piece in pipeline.chunks(piece) {
        client.send(piece);
    }
    (0..count).map(|_| text(&client.reply())).collect()
}

const COMMANDS: [&str; 27] = [
    "GET a",
    "GET a",
    "GET b",
    "GET c",
    "MGET a b",
    "MGET c a none",
    "STRLEN a",
    "GETRANGE b 0 2",
    "EXISTS a b c",
    "PING",
    "ECHO hello",
    "SET a 1",
    "SET b text",
    "APPEND a x",
    "INCR c",
    "DEL a",
    "MSET a 2 c 5",
    "HSET b f v",
    "DEL b",
    "EVAL redis.call('incr','c')return\u{a0}1 0",
    "EVAL return\u{a0}redis.call('set',KEYS[1],'s') 1 a",
    "CLIENT GETNAME",
    "MULTI",
    "EXEC",
    "WATCH a",
    "SELECT 1",
    "SELECT 0",
];

pub(super) fn command(line: &str) -> Vec<u8> {
    let words: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
    encode(&words)
}

/// Each case opens a door: few of them, unless more are asked for.
pub(super) fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.map_or(24, |cases: u32| cases.min(1000))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_pipeline_answers_as_redis_does(
        picks in proptest::collection::vec(
            proptest::collection::vec(0..COMMANDS.len(), 1..60), 4..10,
        ),
        piece in prop_oneof![1..200_usize, Just(1 << 20)],
    ) {
        static SERVERS: std::sync::LazyLock<(RedisServer, RedisServer)> =
            std::sync::LazyLock::new(|| (RedisServer::start(), RedisServer::start()));
        let (alone, behind) = &*SERVERS;
        for redis in [alone, behind] {
            redis.command(&["FLUSHALL"]);
        }
        let door = front(behind);
        for picks in &picks {
            let pipeline: Vec<u8> =
                picks.iter().flat_map(|&pick| command(COMMANDS[pick])).collect();
            let expected = rest(alone.address(), &pipeline, pipeline.len(), picks.len());
            let found = rest(door.address(), &pipeline, piece, picks.len());
            prop_assert_eq!(found, expected, "{:?}", picks);
        }
    }
}

#[test]
fn what_a_connection_was_used_for_does_not_show_to_the_next_client() {
    let redis = RedisServer::start();
    let door = front(&redis);
    for (pipeline, count) in [
        ("SELECT 1\r\nSELECT 0\r\nSELECT 1\r\n", 3),
        ("WATCH a\r\nUNWATCH\r\nWATCH a\r\n", 3),
        ("MULTI\r\nSELECT 1\r\nSELECT 0\r\n", 3),
        ("MULTI\r\nSELECT 1\r\nEXEC\r\n", 3),
        ("SELECT 1\r\nMULTI\r\nSELECT 0\r\nDISCARD\r\n", 4),
    ] {
        rest(door.address(), pipeline.as_bytes(), 1000, count);
        let mut client = Client::connect(door.address());
        client.ask("SET a 1");
        assert_eq!(client.ask("WATCH a"), "+OK\r\n");
        assert_eq!(client.ask("GET a"), "$1\r\n1\r\n", "after {pipeline}");
        client.ask("MULTI");
        assert_eq!(client.ask("EXEC"), "*0\r\n", "after {pipeline}");
    }
}

#[test]
fn memory_answers_stand_behind_those_of_redis() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SET hot warm");
    warm(&door, &mut client, "hot");
    let hits = counted(&door).hits;
    let pipeline: Vec<u8> = (0..300)
        .flat_map(|number| {
            [command(&format!("SET k{number} {number}")), command("GET hot"), command("PING")]
        })
        .flatten()
        .collect();
    client.send(&pipeline);
    for _ in 0..300 {
        assert_eq!(text(&client.reply()), "+OK\r\n");
        assert_eq!(text(&client.reply()), "$4\r\nwarm\r\n");
        assert_eq!(text(&client.reply()), "+PONG\r\n");
    }
    assert!(counted(&door).hits > hits, "some came from memory");
}

#[test]
fn replies_that_a_client_does_not_want_are_left_out() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.send(b"CLIENT REPLY OFF\r\nSET a 1\r\nGET a\r\nHSET h f v\r\nCLIENT REPLY ON\r\n");
    assert_eq!(text(&client.reply()), "+OK\r\n");
    assert_eq!(client.ask("GET a"), "$1\r\n1\r\n");
    client.send(b"CLIENT REPLY SKIP\r\nHSET h f w\r\nHGET h f\r\n");
    assert_eq!(text(&client.reply()), "$1\r\nw\r\n");
    client.send(b"CLIENT REPLY SKIP\r\nBLPOP none 0.01\r\nGET a\r\n");
    assert_eq!(text(&client.reply()), "$1\r\n1\r\n");
}

#[test]
fn a_write_without_a_reply_is_done_before_what_follows() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    // A connection of one's own is there at once.
    client.ask("SELECT 3");
    client.ask("SELECT 0");
    for number in 10..60 {
        let skipped = format!("CLIENT REPLY SKIP\r\nSET k {number}\r\n");
        client.send(format!("{skipped}MULTI\r\nGET k\r\nEXEC\r\n").as_bytes());
        assert_eq!(text(&client.reply()), "+OK\r\n");
        assert_eq!(text(&client.reply()), "+QUEUED\r\n");
        assert_eq!(text(&client.reply()), format!("*1\r\n$2\r\n{number}\r\n"));
    }
}

/// The most memory this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells");
    let kilobytes = line.trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

/// A few bytes that ask for a lot from memory, behind a reply that is owed.
#[test]
fn answers_from_memory_do_not_pile_up_behind_redis() {
    let redis = RedisServer::start();
    let door = front_with(&redis, |front| {
        front.staleness_max = std::time::Duration::from_secs(60);
    });
    wait_for(&door, TrackingState::Tracking);
    let mut client = Client::connect(door.address());
    let value = "x".repeat(128 << 10);
    client.ask(&format!("SET b {value}"));
    let expected = warm(&door, &mut client, "b");
    redis.pause();
    let (peak_before, hits) = (peak(), counted(&door).hits);
    client.send(format!("GET none\r\n{}", "GET b\r\n".repeat(2000)).as_bytes());
    eventually("answers from memory", || counted(&door).hits > hits);
    std::thread::sleep(SHORT);
    let grown = peak() - peak_before;
    redis.resume();
    assert!(grown < 64 << 20, "{grown} bytes wait");
    assert_eq!(text(&client.reply()), "$-1\r\n");
    for _ in 0..200 {
        assert!(text(&client.reply()) == expected);
    }
}

#[test]
fn large_values_pass_both_ways_and_small_ones_are_kept() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    let large = "x".repeat(20 << 20);
    assert_eq!(client.ask(&format!("SET large {large}")), "+OK\r\n");
    let expected = format!("${}\r\n{large}\r\n", large.len());
    for _ in 0..3 {
        assert!(client.ask("GET large") == expected);
    }
    let fits = "y".repeat(1 << 20);
    client.ask(&format!("SET fits {fits}"));
    assert!(warm(&door, &mut client, "fits") == format!("${}\r\n{fits}\r\n", fits.len()));
    assert_eq!(client.ask("STRLEN large"), format!(":{}\r\n", large.len()));
}

/// A client that does not read must not keep the others waiting for ever.
#[test]
fn a_client_that_does_not_read_does_not_stop_the_others() {
    let redis = RedisServer::start();
    let door = front(&redis);
    door.use_threads(1);
    let mut client = Client::connect(door.address());
    client.ask(&format!("SETRANGE large {} x", (40 << 20) - 1));
    let mut lazy = Client::connect(door.address());
    lazy.send_command(&["HGET", "none", "f"]);
    lazy.send_command(&["GET", "large"]);
    lazy.send_command(&["PING"]);
    for number in 0..50 {
        assert_eq!(client.ask(&format!("SET k {number}")), "+OK\r\n");
    }
    assert_eq!(text(&lazy.reply()), "$-1\r\n");
    assert_eq!(lazy.reply().len(), "$41943040\r\n\r\n".len() + (40 << 20));
    assert_eq!(text(&lazy.reply()), "+PONG\r\n");
}

/// Who was slow once is not cut off later for reading no faster than it can. The
/// clock stands still wherever the client is to be waited for: on a busy machine,
/// too, it is as quick as it needs to be.
#[test]
fn a_client_that_has_caught_up_is_waited_for_again() {
    let redis = RedisServer::start();
    let upstream = UpstreamOptions::parse(&format!("redis://{}", redis.address()));
    let clock = ManualClock::new();
    let options = DoorOptions {
        front: Some(FrontOptions::new(upstream.expect("a URL"))),
        bulk_bytes_max: 1 << 20,
        reply_bytes_max: 8 << 20,
        clock: Clock::from(clock.clone()),
        ..options()
    };
    let door = open(&options);
    door.use_threads(1);
    let mut client = Client::connect(door.address());
    client.ask(&format!("SETRANGE large {} x", (2 << 20) - 1));
    let read_all = |client: &mut Client, count: usize| {
        for _ in 0..count {
            assert_eq!(client.reply().len(), "$2097152\r\n\r\n".len() + (2 << 20));
        }
    };

    client.send(&encode(&["GET", "large"]).repeat(3));
    let mut hold_ups = 0;
    eventually("the client to be given up", || {
        // Each time that it is waited for begins with room in the sockets between,
        // but the last: that one is too long.
        let now = counted(&door);
        if now.hold_ups > hold_ups {
            hold_ups = now.hold_ups;
            clock.advance(SHORT);
        }
        now.give_ups > 0
    });
    read_all(&mut client, 3);

    let before = counted(&door);
    client.send(&encode(&["GET", "large"]).repeat(60));
    eventually("the client to be waited for", || counted(&door).hold_ups > before.hold_ups);
    read_all(&mut client, 60);
    assert_eq!(counted(&door).give_ups, before.give_ups, "its time was not up");
}
