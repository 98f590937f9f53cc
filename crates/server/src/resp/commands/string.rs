//! Commands on string values.

mod counter;
mod part;
mod set;

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::generic::has_room;
use crate::keyspace::{Expiry, Form, Locked};

const READ: Command = Command {
    name: "",
    arity: 2,
    syntax: "key",
    summary: "",
    group: Group::String,
    since: "1.0.0",
    complexity: "O(1)",
    flags: &["readonly", "fast"],
    keys: KeySpec::ONE,
    on_cache: OnCache::Read,
    handler: Handler::Data(get),
};

const WRITE: Command = Command {
    arity: 3,
    flags: &["write", "denyoom"],
    on_cache: OnCache::Refuse,
    handler: Handler::Data(set::set),
    ..READ
};

const FAST_WRITE: Command = Command { flags: &["write", "denyoom", "fast"], ..WRITE };

/// One entry for each command.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "append",
        syntax: "key value",
        summary: "Appends a string to the value of a key, which it creates if there is none.",
        since: "2.0.0",
        complexity: "O(1), amortised over appends to the same key",
        handler: Handler::Data(part::append),
        ..FAST_WRITE
    },
    Command {
        name: "decr",
        arity: 2,
        syntax: "key",
        summary: "Decrements the integer value of a key by one; 0 stands for no key.",
        handler: Handler::Data(counter::decrement),
        ..FAST_WRITE
    },
    Command {
        name: "decrby",
        syntax: "key decrement",
        summary: "Decrements the integer value of a key by a number; 0 stands for no key.",
        handler: Handler::Data(counter::decrement_by),
        ..FAST_WRITE
    },
    Command { name: "get", summary: "Returns the value of a key.", ..READ },
    Command {
        name: "getdel",
        arity: 2,
        syntax: "key",
        summary: "Returns the value of a key and removes the key.",
        since: "6.2.0",
        flags: &["write", "fast"],
        handler: Handler::Data(get_and_delete),
        ..WRITE
    },
    Command {
        name: "getex",
        arity: -2,
        syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds \
                 | PXAT unix-time-milliseconds | PERSIST]",
        summary: "Returns the value of a key and sets when the key expires.",
        since: "6.2.0",
        flags: &["write", "fast"],
        handler: Handler::Data(set::get_and_expire),
        ..WRITE
    },
    Command {
        name: "getrange",
        arity: 4,
        syntax: "key start end",
        summary: "Returns the part of a value between two offsets, both included.",
        since: "2.4.0",
        complexity: "O(N) where N is the length of the part",
        flags: &["readonly"],
        handler: Handler::Data(part::get_range),
        ..READ
    },
    Command {
        name: "getset",
        syntax: "key value",
        summary: "Writes a value and returns the one before.",
        handler: Handler::Data(get_and_set),
        ..FAST_WRITE
    },
    Command {
        name: "incr",
        arity: 2,
        syntax: "key",
        summary: "Increments the integer value of a key by one; 0 stands for no key.",
        handler: Handler::Data(counter::increment),
        ..FAST_WRITE
    },
    Command {
        name: "incrby",
        syntax: "key increment",
        summary: "Increments the integer value of a key by a number; 0 stands for no key.",
        handler: Handler::Data(counter::increment_by),
        ..FAST_WRITE
    },
    Command {
        name: "incrbyfloat",
        syntax: "key increment",
        summary: "Increments the value of a key by a number with a fraction; 0 stands for no key.",
        since: "2.6.0",
        handler: Handler::Data(counter::increment_by_float),
        ..FAST_WRITE
    },
    Command {
        name: "mget",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Returns the values of keys, all of one moment.",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::ALL,
        handler: Handler::Data(get_many),
        ..READ
    },
    Command {
        name: "mset",
        arity: -3,
        syntax: "key value [key value ...]",
        summary: "Writes values, all at once.",
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::PAIRS,
        handler: Handler::Data(set_many),
        ..WRITE
    },
    Command {
        name: "msetnx",
        arity: -3,
        syntax: "key value [key value ...]",
        summary: "Writes values, all at once, if none of the keys exists.",
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::PAIRS,
        handler: Handler::Data(set_many_if_none),
        ..WRITE
    },
    Command {
        name: "psetex",
        arity: 4,
        syntax: "key milliseconds value",
        summary: "Writes a value that expires after some milliseconds.",
        since: "2.6.0",
        handler: Handler::Data(set::set_for_milliseconds),
        ..WRITE
    },
    Command {
        name: "set",
        arity: -3,
        syntax: "key value [NX | XX] [GET] [EX seconds | PX milliseconds \
                 | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
        summary: "Writes a value; what was there before, and when it would expire, is gone.",
        ..WRITE
    },
    Command {
        name: "setex",
        arity: 4,
        syntax: "key seconds value",
        summary: "Writes a value that expires after some seconds.",
        since: "2.0.0",
        handler: Handler::Data(set::set_for_seconds),
        ..WRITE
    },
    Command {
        name: "setnx",
        syntax: "key value",
        summary: "Writes a value if there is no such key.",
        handler: Handler::Data(set::set_if_none),
        ..FAST_WRITE
    },
    Command {
        name: "setrange",
        arity: 4,
        syntax: "key offset value",
        summary: "Overwrites a part of a value; zero bytes fill what lies before it.",
        since: "2.2.0",
        complexity: "O(N) where N is the length of the value",
        handler: Handler::Data(part::set_range),
        ..WRITE
    },
    Command {
        name: "strlen",
        summary: "Returns the length of a value.",
        since: "2.2.0",
        handler: Handler::Data(part::length),
        ..READ
    },
    Command {
        name: "substr",
        arity: 4,
        syntax: "key start end",
        summary: "Another name for GETRANGE, from before it had this one.",
        complexity: "O(N) where N is the length of the part",
        flags: &["readonly"],
        handler: Handler::Data(part::get_range),
        ..READ
    },
];

fn get(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    value(locked, arguments[1], reply);
}

/// Replies with the value of a key; whether there was one.
fn value(locked: &mut Locked<'_>, key: &[u8], reply: &mut Reply) -> bool {
    let is_there = locked.read(key, |value| reply.bulk(value)).is_some();
    if !is_there {
        reply.null();
    }
    is_there
}

fn get_many(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    reply.array(arguments.len() - 1);
    for key in &arguments[1..] {
        value(locked, key, reply);
    }
}

fn get_and_delete(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if value(locked, arguments[1], reply) {
        locked.remove(arguments[1]);
    }
}

fn get_and_set(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if has_room(locked, reply) {
        value(locked, arguments[1], reply);
        locked.set(arguments[1], arguments[2], Expiry::Never, Form::Written);
    }
}

fn set_many(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if is_in_pairs(arguments, "mset", reply) && has_room(locked, reply) {
        write_pairs(locked, &arguments[1..]);
        reply.ok();
    }
}

fn set_many_if_none(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if is_in_pairs(arguments, "msetnx", reply) && has_room(locked, reply) {
        let pairs = &arguments[1..];
        let is_free = !pairs.chunks_exact(2).any(|pair| locked.contains(pair[0]));
        if is_free {
            write_pairs(locked, pairs);
        }
        reply.integer(i64::from(is_free));
    }
}

fn write_pairs(locked: &mut Locked<'_>, pairs: &[&[u8]]) {
    for pair in pairs.chunks_exact(2) {
        locked.set(pair[0], pair[1], Expiry::Never, Form::Written);
    }
}

fn is_in_pairs(arguments: &[&[u8]], name: &str, reply: &mut Reply) -> bool {
    let is_in_pairs = arguments.len() % 2 == 1;
    if !is_in_pairs {
        reply.error(&format!("ERR wrong number of arguments for '{name}' command"));
    }
    is_in_pairs
}
