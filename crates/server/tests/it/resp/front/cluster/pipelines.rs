//! A client's pipeline over all servers of a cluster means the same as in a single
//! Redis: whoever answers first, its replies come in order, and each command finds
//! what those before it have done.

use larder_server::resp::Door;
use larder_testkit::redis::{Cluster, RedisServer};
use proptest::prelude::*;

use super::super::pipelines::{cases, command, rest};
use super::{counted, front_of};

const COMMANDS: [&str; 27] = [
    "GET a",
    "GET b",
    "GET c",
    "MGET a b",
    "MGET c a none b",
    "EXISTS a b c none",
    "STRLEN a",
    "PING",
    "ECHO hello",
    "SET a 1",
    "SET b text",
    "APPEND a x",
    "INCR c",
    "DEL a b",
    "MSET a 2 c 5 b 7",
    "TOUCH a c",
    "DBSIZE",
    "FLUSHALL",
    "HSET {b}h f v",
    "EVAL return\u{a0}redis.call('set',KEYS[1],'s') 1 a",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH c",
    "BLPOP {c}none 0.01",
    "SELECT 0",
    "CLIENT GETNAME",
];

struct Servers {
    alone: RedisServer,
    /// Before the cluster, whose servers it is connected to.
    door: Door,
    _cluster: Cluster,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() * 4, ..ProptestConfig::default() })]

    #[test]
    fn any_pipeline_answers_as_a_single_redis_does(
        picks in proptest::collection::vec(0..COMMANDS.len(), 1..60),
        piece in prop_oneof![1..200_usize, Just(1 << 20)],
    ) {
        static SERVERS: std::sync::LazyLock<Servers> = std::sync::LazyLock::new(|| {
            let cluster = Cluster::start();
            Servers { alone: RedisServer::start(), door: front_of(&cluster), _cluster: cluster }
        });
        let Servers { alone, door, .. } = &*SERVERS;
        for address in [alone.address(), door.address()] {
            let flushed = rest(address, &command("FLUSHALL"), 1000, 1);
            prop_assert_eq!(flushed, "+OK\r\n");
        }
        // A key of another slot aborts a transaction here, and is fine in a single
        // Redis: transactions keep to one.
        let mut is_open = false;
        let pipeline: Vec<u8> = picks
            .iter()
            .filter(|&&pick| {
                let line = COMMANDS[pick];
                let is_end = matches!(line, "EXEC" | "DISCARD");
                let fits = !is_open
                    || is_end
                    || matches!(line, "MULTI" | "PING" | "ECHO hello" | "INCR c" | "GET c");
                is_open = (is_open || line == "MULTI") && !is_end;
                fits
            })
            .flat_map(|&pick| command(COMMANDS[pick]))
            .collect();
        let count = count(&pipeline);
        let expected = rest(alone.address(), &pipeline, pipeline.len().max(1), count);
        let found = rest(door.address(), &pipeline, piece, count);
        prop_assert_eq!(found, expected, "{:?}", picks);
        prop_assert!(counted(door).passed > 0);
    }
}

/// How many commands these are: each begins a line with `*`.
fn count(pipeline: &[u8]) -> usize {
    pipeline.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"*")).count()
}
