//! Commands on keys, whatever they hold.

mod argument;
mod expiry;
mod object;

#[cfg(test)]
mod against_redis;

pub(super) use argument::{
    NOT_AN_INTEGER, SYNTAX_ERROR, TimeForm, expiry_argument, has_room, integer_argument,
};
pub(super) use object::{MEMORY_SUBCOMMANDS, OBJECT_SUBCOMMANDS};

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use crate::keyspace::Locked;

const NO_SUCH_KEY: &str = "ERR no such key";

const READ: Command = Command {
    name: "",
    arity: 2,
    syntax: "key",
    summary: "",
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    flags: &["readonly", "fast"],
    keys: KeySpec::ONE,
    on_cache: OnCache::Inspect,
    handler: Handler::Data(kind),
};

const WRITE: Command = Command {
    arity: -3,
    flags: &["write", "fast"],
    on_cache: OnCache::Refuse,
    handler: Handler::Data(remove),
    ..READ
};

/// One entry for each command.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "copy",
        syntax: "source destination [DB destination-db] [REPLACE]",
        summary: "Copies the value of a key, and when it expires, to another key.",
        since: "6.2.0",
        complexity: "O(N) where N is the length of the value",
        flags: &["write", "denyoom"],
        keys: KeySpec::TWO,
        handler: Handler::Data(copy),
        ..WRITE
    },
    Command {
        name: "del",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Removes keys.",
        complexity: "O(N) where N is the number of keys",
        flags: &["write"],
        keys: KeySpec::ALL,
        ..WRITE
    },
    Command {
        name: "exists",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Returns how many of the keys exist; a key named twice counts twice.",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::ALL,
        on_cache: OnCache::Read,
        handler: Handler::Data(count_used),
        ..READ
    },
    Command {
        name: "expire",
        syntax: "key seconds [NX | XX | GT | LT]",
        summary: "Sets after how many seconds a key expires.",
        handler: Handler::Data(expiry::expire),
        ..WRITE
    },
    Command {
        name: "expireat",
        syntax: "key unix-time-seconds [NX | XX | GT | LT]",
        summary: "Sets at which Unix time a key expires.",
        since: "1.2.0",
        handler: Handler::Data(expiry::expire_at),
        ..WRITE
    },
    Command {
        name: "expiretime",
        summary: "Returns at which Unix time a key expires: -1 never, -2 there is no such key.",
        since: "7.0.0",
        handler: Handler::Data(expiry::expire_time),
        ..READ
    },
    Command {
        name: "memory",
        arity: -2,
        syntax: "subcommand [argument ...]",
        summary: "A container for memory commands.",
        since: "4.0.0",
        complexity: "Depends on subcommand.",
        flags: &[],
        keys: KeySpec::NONE,
        on_cache: OnCache::NoKeys,
        handler: Handler::Data(object::memory_help),
        ..READ
    },
    Command {
        name: "object",
        arity: -2,
        syntax: "subcommand [argument ...]",
        summary: "A container for object introspection commands.",
        since: "2.2.3",
        complexity: "Depends on subcommand.",
        flags: &[],
        keys: KeySpec::NONE,
        on_cache: OnCache::NoKeys,
        handler: Handler::Data(object::help),
        ..READ
    },
    Command {
        name: "persist",
        arity: 2,
        syntax: "key",
        summary: "Makes a key no longer expire.",
        since: "2.2.0",
        handler: Handler::Data(expiry::persist),
        ..WRITE
    },
    Command {
        name: "pexpire",
        syntax: "key milliseconds [NX | XX | GT | LT]",
        summary: "Sets after how many milliseconds a key expires.",
        since: "2.6.0",
        handler: Handler::Data(expiry::expire_milliseconds),
        ..WRITE
    },
    Command {
        name: "pexpireat",
        syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
        summary: "Sets at which Unix time, in milliseconds, a key expires.",
        since: "2.6.0",
        handler: Handler::Data(expiry::expire_at_milliseconds),
        ..WRITE
    },
    Command {
        name: "pexpiretime",
        summary: "Returns at which Unix time, in milliseconds, a key expires: \
                  -1 never, -2 there is no such key.",
        since: "7.0.0",
        handler: Handler::Data(expiry::expire_time_milliseconds),
        ..READ
    },
    Command {
        name: "pttl",
        summary: "Returns in how many milliseconds a key expires: \
                  -1 never, -2 there is no such key.",
        since: "2.6.0",
        handler: Handler::Data(expiry::time_to_live_milliseconds),
        ..READ
    },
    Command {
        name: "rename",
        arity: 3,
        syntax: "key newkey",
        summary: "Renames a key; what was there under the new name is gone.",
        flags: &["write"],
        keys: KeySpec::TWO,
        handler: Handler::Data(rename),
        ..WRITE
    },
    Command {
        name: "renamenx",
        arity: 3,
        syntax: "key newkey",
        summary: "Renames a key if there is none under the new name.",
        keys: KeySpec::TWO,
        handler: Handler::Data(rename_if_none),
        ..WRITE
    },
    Command {
        name: "touch",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Returns how many of the keys exist, and counts them as used.",
        since: "3.2.1",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::ALL,
        handler: Handler::Data(count_used),
        ..READ
    },
    Command {
        name: "ttl",
        summary: "Returns in how many seconds a key expires: -1 never, -2 there is no such key.",
        handler: Handler::Data(expiry::time_to_live),
        ..READ
    },
    Command { name: "type", summary: "Returns the type of a value: string, or none.", ..READ },
    Command {
        name: "unlink",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Another name for DEL.",
        since: "4.0.0",
        complexity: "O(N) where N is the number of keys",
        keys: KeySpec::ALL,
        ..WRITE
    },
];

fn kind(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    reply.simple(if locked.contains(arguments[1]) { "string" } else { "none" });
}

fn remove(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let removed = arguments[1..].iter().filter(|key| locked.remove(key)).count();
    reply.integer(removed as i64);
}

fn count_used(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let used = arguments[1..].iter().filter(|key| locked.touch(key)).count();
    reply.integer(used as i64);
}

fn rename(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if locked.rename(arguments[1], arguments[2]) {
        reply.ok();
    } else {
        reply.error(NO_SUCH_KEY);
    }
}

fn rename_if_none(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let (source, target) = (arguments[1], arguments[2]);
    if !locked.contains(source) {
        reply.error(NO_SUCH_KEY);
        return;
    }
    let is_free = !locked.contains(target);
    if is_free {
        locked.rename(source, target);
    }
    reply.integer(i64::from(is_free));
}

fn copy(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let (source, target) = (arguments[1], arguments[2]);
    let mut is_replacing = false;
    let mut rest = &arguments[3..];
    while let [option, after @ ..] = rest {
        rest = after;
        if option.eq_ignore_ascii_case(b"replace") {
            is_replacing = true;
        } else if option.eq_ignore_ascii_case(b"db")
            && let [database, after @ ..] = rest
        {
            rest = after;
            let Some(database) = integer_argument(database, reply) else { return };
            // There is one database.
            if database != 0 {
                reply.error("ERR DB index is out of range");
                return;
            }
        } else {
            reply.error(SYNTAX_ERROR);
            return;
        }
    }
    if source == target {
        reply.error("ERR source and destination objects are the same");
        return;
    }
    let is_copied = (is_replacing || !locked.contains(target)) && locked.copy(source, target);
    reply.integer(i64::from(is_copied));
}
