//! Commands over all keys.

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::generic::{SYNTAX_ERROR, integer_argument};
use crate::keyspace::{Cursor, Keyspace, glob_matches};

/// How many keys `SCAN` visits unless it is told.
const SCAN_COUNT: usize = 10;

const WHOLE: Command = Command {
    name: "",
    arity: 1,
    syntax: "",
    summary: "",
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    flags: &["readonly"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Keyspace(count_keys),
};

const FLUSH: Command = Command {
    arity: -1,
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all keys; those of caches stay.",
    group: Group::Server,
    flags: &["write"],
    handler: Handler::Keyspace(flush),
    ..WHOLE
};

/// One entry for each command.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "dbsize",
        summary: "Returns how many keys there are, without those of caches.",
        group: Group::Server,
        flags: &["readonly", "fast"],
        ..WHOLE
    },
    Command { name: "flushall", ..FLUSH },
    Command { name: "flushdb", ..FLUSH },
    Command {
        name: "keys",
        arity: 2,
        syntax: "pattern",
        summary: "Returns all keys that match a pattern, without those of caches.",
        complexity: "O(N) where N is the number of keys",
        handler: Handler::Keyspace(keys),
        ..WHOLE
    },
    Command {
        name: "randomkey",
        summary: "Returns a key at random.",
        handler: Handler::Keyspace(random_key),
        ..WHOLE
    },
    Command {
        name: "scan",
        arity: -2,
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        summary: "Returns some keys and a cursor to go on with, 0 at the end. Keys that are there \
                  during the whole walk come at least once.",
        since: "2.8.0",
        complexity: "O(1) for every call, O(N) for a whole walk",
        handler: Handler::Keyspace(scan),
        ..WHOLE
    },
];

struct ScanOptions<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    is_for_strings: bool,
}

fn count_keys(keyspace: &Keyspace, _: &[&[u8]], reply: &mut Reply) {
    reply.integer(keyspace.len() as i64);
}

fn flush(keyspace: &Keyspace, arguments: &[&[u8]], reply: &mut Reply) {
    let is_known =
        |mode: &[u8]| mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async");
    match arguments[1..] {
        [] => {}
        [mode] if is_known(mode) => {}
        _ => {
            reply.error(SYNTAX_ERROR);
            return;
        }
    }
    keyspace.clear();
    reply.ok();
}

fn keys(keyspace: &Keyspace, arguments: &[&[u8]], reply: &mut Reply) {
    let mut found = Found::default();
    keyspace.for_each_key(|key| {
        if glob_matches(arguments[1], key) {
            found.push(key);
        }
    });
    found.write(reply);
}

fn random_key(keyspace: &Keyspace, _: &[&[u8]], reply: &mut Reply) {
    if keyspace.random_key(|key| reply.bulk(key)).is_none() {
        reply.null();
    }
}

fn scan(keyspace: &Keyspace, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(cursor) = parse_cursor(arguments[1]) else {
        reply.error("ERR invalid cursor");
        return;
    };
    let Some(options) = parse_options(&arguments[2..], reply) else { return };
    let mut found = Found::default();
    let next = keyspace.scan(Cursor::from_number(cursor), options.count, |key, _| {
        let matches = options.pattern.is_none_or(|pattern| glob_matches(pattern, key));
        if matches && options.is_for_strings {
            found.push(key);
        }
    });
    reply.array(2);
    reply.bulk(next.number().to_string().as_bytes());
    found.write(reply);
}

fn parse_options<'a>(arguments: &[&'a [u8]], reply: &mut Reply) -> Option<ScanOptions<'a>> {
    let mut options = ScanOptions { count: SCAN_COUNT, pattern: None, is_for_strings: true };
    let mut rest = arguments;
    while let [option, value, after @ ..] = rest {
        match &*option.to_ascii_lowercase() {
            b"count" => {
                let count = integer_argument(value, reply)?;
                if count < 1 {
                    break;
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            }
            b"match" => options.pattern = Some(value),
            b"type" => options.is_for_strings = value.eq_ignore_ascii_case(b"string"),
            _ => break,
        }
        rest = after;
    }
    if !rest.is_empty() {
        reply.error(SYNTAX_ERROR);
        return None;
    }
    Some(options)
}

/// A number as C's `strtoul` reads it to the end, which is at the first zero
/// byte: with a sign, or nothing at all for 0.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let (is_negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    Some(if is_negative { number.wrapping_neg() } else { number })
}

/// Keys that are counted before they are written, in two allocations.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Found {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn write(&self, reply: &mut Reply) {
        reply.array(self.ends.len());
        let mut start = 0;
        for end in &self.ends {
            reply.bulk(&self.bytes[start..*end]);
            start = *end;
        }
    }
}
