//! What is known about a key besides its value: `OBJECT` and `MEMORY`.

use super::super::super::Reply;
use super::super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::SYNTAX_ERROR;
use super::integer_argument;
use crate::keyspace::{EntryDetails, Form, Locked, parse_integer};

/// The longest value that Redis keeps together with its header.
const EMBEDDED_BYTES_MAX: usize = 44;
/// Redis shares one object for each number from 0 to below this.
const SHARED_NUMBER_COUNT: i64 = 10_000;
/// The reference count of a shared object.
const SHARED_REFERENCE_COUNT: i64 = i32::MAX as i64;

const INSPECTION: Command = Command {
    name: "",
    arity: 3,
    syntax: "key",
    summary: "",
    group: Group::Generic,
    since: "2.2.3",
    complexity: "O(1)",
    flags: &["readonly"],
    keys: KeySpec { first: 2, last: 2, step: 1 },
    on_cache: OnCache::Inspect,
    handler: Handler::Data(encoding),
};

const HELP: Command = Command {
    arity: 2,
    syntax: "",
    summary: "Returns helpful text about the subcommands.",
    flags: &["loading", "stale"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Data(help),
    ..INSPECTION
};

/// The subcommands of `OBJECT`.
pub(in super::super) const OBJECT_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "object|encoding",
        summary: "Returns how Redis would keep the value: int, embstr or raw.",
        ..INSPECTION
    },
    Command {
        name: "object|freq",
        summary: "Returns how often a key was used of late, on a logarithmic scale to 255.",
        since: "4.0.0",
        handler: Handler::Data(frequency),
        ..INSPECTION
    },
    Command { name: "object|help", since: "6.2.0", ..HELP },
    Command {
        name: "object|idletime",
        summary: "Returns for how many seconds a key has not been used.",
        handler: Handler::Data(idle_time),
        ..INSPECTION
    },
    Command {
        name: "object|refcount",
        summary: "Returns how many references Redis would hold to the value.",
        handler: Handler::Data(reference_count),
        ..INSPECTION
    },
];

/// The subcommands of `MEMORY`.
pub(in super::super) const MEMORY_SUBCOMMANDS: &[Command] = &[
    Command { name: "memory|help", since: "4.0.0", handler: Handler::Data(memory_help), ..HELP },
    Command {
        name: "memory|usage",
        arity: -3,
        syntax: "key [SAMPLES count]",
        summary: "Returns how many bytes a key and its value take.",
        since: "4.0.0",
        handler: Handler::Data(memory_usage),
        ..INSPECTION
    },
];

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value.",
    "HELP",
    "    Prints this help.",
];

pub(super) fn help(_: &mut Locked<'_>, _: &[&[u8]], reply: &mut Reply) {
    lines(OBJECT_HELP, reply);
}

pub(super) fn memory_help(_: &mut Locked<'_>, _: &[&[u8]], reply: &mut Reply) {
    lines(MEMORY_HELP, reply);
}

fn encoding(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(details) = details(locked, arguments, reply) else { return };
    let encoding = locked.peek(arguments[2], |value| match details.form {
        Form::Written | Form::Copied if parse_integer(value).is_some() => "int",
        Form::Edited => "raw",
        _ if value.len() <= EMBEDDED_BYTES_MAX => "embstr",
        _ => "raw",
    });
    reply.bulk(encoding.unwrap_or("raw").as_bytes());
}

fn frequency(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(details) = details(locked, arguments, reply) else { return };
    if locked.keyspace().eviction_policy().counts_frequency() {
        reply.integer(i64::from(details.frequency));
    } else {
        reply.error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
             Please note that when switching between policies at runtime LRU and LFU data will \
             take some time to adjust.",
        );
    }
}

fn idle_time(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(details) = details(locked, arguments, reply) else { return };
    if locked.keyspace().eviction_policy().counts_frequency() {
        reply.error(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. \
             Please note that when switching between policies at runtime LRU and LFU data will \
             take some time to adjust.",
        );
    } else {
        reply.integer(details.idle.as_secs() as i64);
    }
}

fn reference_count(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(details) = details(locked, arguments, reply) else { return };
    let number = locked.peek(arguments[2], parse_integer).flatten();
    let is_shared = details.form == Form::Written
        && number.is_some_and(|number| (0..SHARED_NUMBER_COUNT).contains(&number));
    reply.integer(if is_shared { SHARED_REFERENCE_COUNT } else { 1 });
}

fn memory_usage(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    // How many samples are wanted says nothing here: a string has no parts.
    match &arguments[3..] {
        [] => {}
        [option, count] if option.eq_ignore_ascii_case(b"samples") => {
            let Some(count) = integer_argument(count, reply) else { return };
            if count < 0 {
                reply.error(SYNTAX_ERROR);
                return;
            }
        }
        _ => {
            reply.error(SYNTAX_ERROR);
            return;
        }
    }
    if let Some(details) = details(locked, arguments, reply) {
        reply.integer(details.bytes as i64);
    }
}

/// What is known about the key; replies with null if there is none.
fn details(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Option<EntryDetails> {
    let details = locked.inspect(arguments[2]);
    if details.is_none() {
        reply.null();
    }
    details
}

fn lines(lines: &[&str], reply: &mut Reply) {
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
}
