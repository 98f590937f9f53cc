//! The same commands to Larder's handlers and to a real redis-server, the
//! replies compared byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use larder_testkit::redis::RedisServer;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::super::command::{Command, Handler, KeySpec};
use super::super::super::{Protocol, Reply};
use super::super::{generic, scan, string};
use crate::keyspace::{EvictionPolicy, Keyspace, KeyspaceOptions};

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn to(server: &RedisServer) -> Self {
        let stream = TcpStream::connect(server.address()).expect("redis-server accepts");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends all calls at once and reads the raw reply to each.
    fn call_all(&mut self, calls: &[Call]) -> Vec<Vec<u8>> {
        let mut request = Vec::new();
        for call in calls {
            request.extend_from_slice(format!("*{}\r\n", call.len()).as_bytes());
            for argument in call {
                request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                request.extend_from_slice(argument);
                request.extend_from_slice(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&request).expect("redis-server reads");
        calls.iter().map(|_| self.read_reply()).collect()
    }

    fn read_reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        self.stream.read_until(b'\n', &mut reply).expect("redis-server replies");
        let number =
            std::str::from_utf8(&reply[1..]).ok().and_then(|text| text.trim().parse().ok());
        match (reply[0], number) {
            (b'$', Some(length @ 0..)) => {
                let mut bytes = vec![0; length as usize + 2];
                self.stream.read_exact(&mut bytes).expect("redis-server replies");
                reply.extend_from_slice(&bytes);
            }
            (b'*', Some(count @ 0_i64..)) => {
                (0..count).for_each(|_| reply.extend(self.read_reply()));
            }
            _ => {}
        }
        reply
    }
}

/// A command's name and arguments.
type Call = Vec<Vec<u8>>;

/// Runs one call as the door does for plain keys.
fn call(keyspace: &Keyspace, call: &[Vec<u8>]) -> Vec<u8> {
    let arguments: Vec<&[u8]> = call.iter().map(Vec::as_slice).collect();
    let mut reply = Reply::new(Protocol::Resp2);
    let command = find(&arguments);
    let arity = command.arity.unsigned_abs() as usize;
    if arguments.len() < arity || command.arity > 0 && arguments.len() > arity {
        reply.error(&format!("ERR wrong number of arguments for '{}' command", command.name));
        return reply.as_bytes().to_vec();
    }
    match command.handler {
        Handler::Data(handler) => {
            let keys = command.keys.positions(arguments.len()).map(|at| arguments[at]);
            handler(&mut keyspace.lock(keys), &arguments, &mut reply);
        }
        Handler::Keyspace(handler) => handler(keyspace, &arguments, &mut reply),
        _ => panic!("{} is not a command on plain keys", command.name),
    }
    reply.as_bytes().to_vec()
}

fn commands() -> impl Iterator<Item = &'static Command> {
    [string::COMMANDS, generic::COMMANDS, scan::COMMANDS].into_iter().flatten()
}

fn subcommands() -> impl Iterator<Item = &'static Command> {
    [generic::OBJECT_SUBCOMMANDS, generic::MEMORY_SUBCOMMANDS].into_iter().flatten()
}

fn find(arguments: &[&[u8]]) -> &'static Command {
    let name = String::from_utf8_lossy(arguments[0]).to_ascii_lowercase();
    if let Some(subcommand) = arguments.get(1) {
        let name = format!("{name}|{}", String::from_utf8_lossy(subcommand).to_ascii_lowercase());
        if let Some(command) = subcommands().find(|command| command.name == name) {
            return command;
        }
    }
    commands().find(|command| command.name == name).expect("the tests name known commands")
}

/// What calls are made of: a capital letter stands for one of many words.
const TEMPLATES: &[&str] = &[
    "GET K",
    "SET K V",
    "SET K V S",
    "SET K V S S",
    "SET K V S S S",
    "SETEX K T V",
    "PSETEX K T V",
    "SETNX K V",
    "GETSET K V",
    "GETDEL K",
    "GETEX K",
    "GETEX K G",
    "GETEX K G G",
    "MGET K K K",
    "MSET K V K V",
    "MSET K V K",
    "MSETNX K V K V",
    "MSETNX K",
    "APPEND K V",
    "STRLEN K",
    "GETRANGE K R R",
    "SUBSTR K R R",
    "SETRANGE K R V",
    "INCR K",
    "DECR K",
    "INCRBY K I",
    "DECRBY K I",
    "INCRBYFLOAT K F",
    "INCRBYFLOAT K F",
    "DEL K K",
    "UNLINK K",
    "EXISTS K K K",
    "TOUCH K K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K C",
    "COPY K K C C",
    "EXPIRE K T E",
    "EXPIRE K T E E",
    "PEXPIRE K T E",
    "EXPIREAT K A E",
    "PEXPIREAT K A E E",
    "EXPIRE K T",
    "PEXPIRE K T",
    "EXPIREAT K A",
    "PEXPIREAT K A",
    "TTL K",
    "PTTL K",
    "EXPIRETIME K",
    "PEXPIRETIME K",
    "PERSIST K",
    "TYPE K",
    "OBJECT ENCODING K",
    "OBJECT ENCODING K",
    "OBJECT REFCOUNT K",
    "OBJECT FREQ K",
    "OBJECT HELP",
    "OBJECT ENCODING",
    "SCAN N O",
    "SCAN N",
    "RANDOMKEY",
    "FLUSHALL",
    "FLUSHDB M",
    "SET K",
    "GET",
    "EXPIRE K",
    "MEMORY USAGE K X",
    "MEMORY USAGE none",
];

const KEYS: &[&str] = &["a", "b", "key:{3}"];
const VALUES: &[&str] = &[
    "",
    "x",
    "0",
    "10",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    " 1",
    "1 ",
    "+1",
    "01",
    "-0",
    "3.0",
    "3.25",
    "1e3",
    "-1.5e-3",
    "nan",
    "inf",
    "0x10",
    "9999",
    "10000",
    "this value has exactly 44 bytes, no more than",
    "this one has 45 bytes, one more than that one",
    "\0\r\n\u{ff}",
    "99999999999999999999",
    "123456789012345678901",
];
const INTEGERS: &[&str] = &[
    "1",
    "0",
    "-1",
    "5",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "x",
    "",
    "1.5",
    " 1",
    "+1",
    "007",
];
const OFFSETS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "5",
    "-5",
    "43",
    "44",
    "100",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "x",
    "",
    "600000000",
];
const FLOATS: &[&str] = &[
    "0.1",
    "-0.1",
    "1",
    "1.5e3",
    "3.0e-5",
    "1e17",
    "1e18",
    "1e22",
    "12345678901234567890",
    "0.00000000000000001",
    "5e-18",
    "1e400",
    "-1e400",
    "1e4931",
    "1e4932",
    "1e5000",
    "1e-5000",
    "nan",
    "inf",
    "-inf",
    "infinity",
    "x",
    "",
    " 1",
    "1 ",
    "0x1.8p1",
    "0x",
    "1e",
    ".5",
    "5.",
    ".",
    "-.0",
    "+2",
    "3.333333333333333333333333333",
    "99999999999999999.99",
    "1e-4950",
];
const SET_OPTIONS: &[&str] =
    &["NX", "xx", "GET", "KEEPTTL", "EX T", "pX T", "EXAT A", "PXAT A", "EX", "PERSIST", "?"];
const GETEX_OPTIONS: &[&str] =
    &["PERSIST", "EX T", "PX T", "EXAT A", "PXAT A", "PX", "KEEPTTL", "NX"];
const EXPIRE_OPTIONS: &[&str] = &["NX", "XX", "gt", "LT", "?", ""];
const COPY_OPTIONS: &[&str] = &["REPLACE", "DB 0", "DB x", "DB", "?"];
const SCAN_OPTIONS: &[&str] = &[
    "COUNT 1000",
    "MATCH * COUNT 1000",
    "MATCH nothing* COUNT 999",
    "TYPE list COUNT 999",
    "COUNT 0",
    "COUNT x",
    "COUNT",
    "TYPE stream MATCH x COUNT 99",
    "?",
];
/// The start, from which one step reaches the end of a small keyspace, and what
/// is no cursor.
const CURSORS: &[&str] =
    &["0", "00", "-0", "+0", "x", "1x", " 0", "-", "+", "18446744073709551616"];
const FLUSH_OPTIONS: &[&str] = &["ASYNC", "sync", "x", "ASYNC SYNC"];
const USAGE_OPTIONS: &[&str] = &["SAMPLES x", "SAMPLES", "SAMPLES -1", "?"];
const BAD_TIMES: &[&str] = &[
    "0",
    "-1",
    "x",
    "",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "-9223372036854776",
    "9223372036854775808",
    "1.5",
];

/// A choice among many words; the choices of a call are used one after the
/// other.
struct Choices<'a> {
    choices: std::slice::Iter<'a, u16>,
    unix_seconds: i64,
}

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.choices.next().copied().map_or(0, usize::from)
    }

    fn word(&mut self, words: &'static [&'static str]) -> &'static str {
        words[self.next() % words.len()]
    }

    fn call(&mut self, template: &str) -> Call {
        template.split(' ').flat_map(|part| self.part(part)).collect()
    }

    fn part(&mut self, part: &str) -> Call {
        let several = |choices: &mut Self, words| {
            let text = choices.word(words);
            if text.is_empty() { Call::new() } else { choices.call(text) }
        };
        match part {
            "K" => vec![self.word(KEYS).into()],
            "V" => vec![self.word(VALUES).into()],
            "I" => vec![self.word(INTEGERS).into()],
            "R" => vec![self.word(OFFSETS).into()],
            "F" => vec![self.word(FLOATS).into()],
            "N" => vec![self.word(CURSORS).into()],
            "T" => vec![self.time(0)],
            "A" => vec![self.time(self.unix_seconds + 500)],
            "S" => several(self, SET_OPTIONS),
            "G" => several(self, GETEX_OPTIONS),
            "E" => several(self, EXPIRE_OPTIONS),
            "C" => several(self, COPY_OPTIONS),
            "O" => several(self, SCAN_OPTIONS),
            "M" => several(self, FLUSH_OPTIONS),
            "X" => several(self, USAGE_OPTIONS),
            other => vec![other.into()],
        }
    }

    /// Mostly a time so far from every other, from now on or absolute, that it
    /// does not matter when within some minutes it is taken. In milliseconds
    /// that is a later one than in seconds, or one long past.
    fn time(&mut self, origin: i64) -> Vec<u8> {
        let choice = self.next();
        if choice.is_multiple_of(4) {
            return self.word(BAD_TIMES).into();
        }
        let time = origin + 1_000_000 + choice as i64 * 1000;
        let is_for_milliseconds = choice % 4 == 1;
        if is_for_milliseconds { time * 1000 } else { time }.to_string().into()
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let unix_seconds =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
            as i64;
    let call = (0..TEMPLATES.len(), proptest::collection::vec(any::<u16>(), 10));
    proptest::collection::vec(call, 1..60).prop_map(move |calls| {
        calls
            .iter()
            .map(|(template, choices)| {
                Choices { choices: choices.iter(), unix_seconds }.call(TEMPLATES[*template])
            })
            .collect()
    })
}

/// Whether replies agree. Times that are told from now on may differ by as long
/// as a test may be held up, keys may come in any order, and which one is random
/// is left to chance.
fn agree(call: &Call, ours: &[u8], theirs: &[u8]) -> bool {
    let integer = |reply: &[u8]| -> Option<i64> {
        std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim().parse().ok()
    };
    let tolerance = match call[0].as_slice() {
        b"TTL" | b"EXPIRETIME" => 100,
        b"PTTL" | b"PEXPIRETIME" => 100_000,
        b"RANDOMKEY" => return ours.starts_with(b"$-1") == theirs.starts_with(b"$-1"),
        b"SCAN" => return sorted(ours) == sorted(theirs),
        _ => return ours == theirs,
    };
    match (integer(ours), integer(theirs)) {
        (Some(ours), Some(theirs)) if ours > 0 => ours.abs_diff(theirs) <= tolerance,
        _ => ours == theirs,
    }
}

fn readable(calls: &[Call]) -> Vec<String> {
    let word = |argument: &Vec<u8>| format!("{:?}", String::from_utf8_lossy(argument));
    calls.iter().map(|call| call.iter().map(word).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn random_sequences_get_the_same_replies() {
    let server = RedisServer::start();
    let connection = std::cell::RefCell::new(Connection::to(&server));
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, cases: 300, ..Config::default() });
    let result = runner.run(&calls(), |calls| {
        // Frequencies are refused under Redis' default policy.
        let keyspace = Keyspace::new(KeyspaceOptions {
            eviction: EvictionPolicy::NoEviction,
            shard_count: 4,
            ..KeyspaceOptions::default()
        });
        let mut connection = connection.borrow_mut();
        connection.call_all(&[vec![b"FLUSHALL".to_vec()]]);
        let theirs = connection.call_all(&calls);
        for (index, (request, theirs)) in calls.iter().zip(theirs).enumerate() {
            let ours = call(&keyspace, request);
            prop_assert!(
                agree(request, &ours, &theirs),
                "{:#?}\nours {:?}\ntheirs {:?}",
                readable(&calls[..=index]),
                String::from_utf8_lossy(&ours),
                String::from_utf8_lossy(&theirs),
            );
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn the_largest_time_is_told_as_redis_tells_it() {
    let server = RedisServer::start();
    let mut connection = Connection::to(&server);
    let keyspace = Keyspace::new(KeyspaceOptions::default());
    let requests: Vec<Call> =
        ["SET a x", "PEXPIREAT a 9223372036854775807", "EXPIRETIME a", "PEXPIRETIME a"]
            .map(|line| line.split(' ').map(Vec::from).collect())
            .to_vec();
    let theirs = connection.call_all(&requests);
    for (request, theirs) in requests.iter().zip(theirs) {
        assert_eq!(call(&keyspace, request), theirs, "{:?}", readable(&requests));
    }
}

#[test]
fn sums_of_fractions_are_redis_sums_to_the_last_digit() {
    let server = RedisServer::start();
    let connection = std::cell::RefCell::new(Connection::to(&server));
    let number = || {
        prop_oneof![
            "-?[0-9]{1,25}(\\.[0-9]{1,25})?(e-?[0-9]{1,2})?",
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?",
            "-?0x[0-9a-f]{1,20}(\\.[0-9a-f]{1,9})?(p-?[0-9]{1,2})?",
            "-?[1-9](\\.[0-9]{1,30})?e-?4[0-9]{3}",
        ]
    };
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, cases: 1000, ..Config::default() });
    let result = runner.run(&(number(), number(), number()), |(first, second, third)| {
        let bytes = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let calls: Vec<Call> = vec![
            bytes(&["DEL", "sum"]),
            bytes(&["SET", "sum", &first]),
            bytes(&["INCRBYFLOAT", "sum", &second]),
            bytes(&["INCRBYFLOAT", "sum", &third]),
            bytes(&["OBJECT", "ENCODING", "sum"]),
        ];
        let keyspace = Keyspace::new(KeyspaceOptions::default());
        let theirs = connection.borrow_mut().call_all(&calls);
        let ours: Vec<Vec<u8>> = calls[1..].iter().map(|it| call(&keyspace, it)).collect();
        let text = |reply: &Vec<u8>| String::from_utf8_lossy(reply).into_owned();
        prop_assert_eq!(
            ours.iter().map(text).collect::<Vec<_>>(),
            theirs[1..].iter().map(text).collect::<Vec<_>>(),
            "{} + {} + {}",
            first,
            second,
            third
        );
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn scans_find_the_same_keys_with_the_same_patterns() {
    let server = RedisServer::start();
    let mut connection = Connection::to(&server);
    let keyspace = Keyspace::new(KeyspaceOptions::default());
    let bytes = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Call>();
    let names: [&[u8]; 12] = [
        b"",
        b"a",
        b"b",
        b"ab",
        b"abc",
        b"a*c",
        b"a]c",
        b"a-c",
        b"[x]",
        b"a\\b",
        b"\xff\x00",
        b"zz^",
    ];
    for name in names {
        let set = bytes(&[b"SET", name, b"1"]);
        assert_eq!(vec![call(&keyspace, &set)], connection.call_all(&[set]));
    }
    let patterns = "[ab*?\\[\\]\\\\^c-]{0,8}";
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, cases: 1000, ..Config::default() });
    let connection = std::cell::RefCell::new(connection);
    let result = runner.run(&patterns, |pattern| {
        let keys = bytes(&[b"KEYS", pattern.as_bytes()]);
        let theirs = connection.borrow_mut().call_all(std::slice::from_ref(&keys)).remove(0);
        prop_assert_eq!(sorted(&call(&keyspace, &keys)), sorted(&theirs), "{}", pattern);
        let scan = bytes(&[b"SCAN", b"0", b"COUNT", b"1000", b"MATCH", pattern.as_bytes()]);
        let theirs = connection.borrow_mut().call_all(std::slice::from_ref(&scan)).remove(0);
        prop_assert_eq!(sorted(&call(&keyspace, &scan)), sorted(&theirs), "{}", pattern);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn sorted(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = reply.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

#[test]
fn the_tables_say_what_redis_says_about_its_commands() {
    let server = RedisServer::start();
    let mut connection = Connection::to(&server);
    for command in commands().chain(subcommands()) {
        let theirs = connection
            .call_all(&[vec![b"COMMAND".to_vec(), b"INFO".to_vec(), command.name.into()]])
            .remove(0);
        let theirs = String::from_utf8_lossy(&theirs).into_owned();
        let KeySpec { first, last, step } = command.keys;
        let step = if first == 0 { 0 } else { step };
        let flags: String = command.flags.iter().map(|flag| format!("+{flag}\r\n")).collect();
        let ours = format!(
            "*1\r\n*10\r\n${}\r\n{}\r\n:{}\r\n*{}\r\n{flags}:{first}\r\n:{last}\r\n:{step}\r\n",
            command.name.len(),
            command.name,
            command.arity,
            command.flags.len(),
        );
        assert!(theirs.starts_with(&ours), "{ours}\nis not how this starts:\n{theirs}");
    }
}
