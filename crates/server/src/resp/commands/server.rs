//! Commands about the server.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::Session;
use super::{config, info, introspection};

/// The Redis whose commands, replies and texts this door gives. Clients decide
/// by it what they may use.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

/// What all of these have in common.
const SERVER: Command = Command {
    name: "",
    arity: 1,
    syntax: "",
    summary: "",
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(1)",
    flags: &[],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(time),
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "command",
        arity: -1,
        syntax: "[subcommand [argument ...]]",
        summary: "Returns detailed information about all commands.",
        since: "2.8.13",
        complexity: "O(N) where N is the total number of commands",
        flags: &["loading", "stale"],
        handler: Handler::Session(introspection::all),
        ..SERVER
    },
    Command {
        name: "config",
        arity: -2,
        syntax: "subcommand [argument ...]",
        summary: "A container for server configuration commands.",
        since: "2.0.0",
        complexity: "Depends on subcommand.",
        handler: Handler::Session(config::help),
        ..SERVER
    },
    Command {
        name: "info",
        arity: -1,
        syntax: "[section [section ...]]",
        summary: "Returns information and statistics about the server.",
        flags: &["loading", "stale"],
        handler: Handler::Session(info::info),
        ..SERVER
    },
    Command {
        name: "time",
        summary: "Returns the server time.",
        since: "2.6.0",
        flags: &["loading", "stale", "fast"],
        handler: Handler::Session(time),
        ..SERVER
    },
];

fn time(_: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk(now.as_secs().to_string().as_bytes());
    reply.bulk(now.subsec_micros().to_string().as_bytes());
}
