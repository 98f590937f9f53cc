//! `MULTI` and its kin.

use larder_core::BoxFuture;

use super::super::Reply;
use super::super::cached;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::Session;
use super::super::transaction;

/// What all of these have in common.
const TRANSACTION: Command = Command {
    name: "",
    arity: 1,
    syntax: "",
    summary: "",
    group: Group::Transactions,
    since: "1.2.0",
    complexity: "O(1)",
    flags: &["noscript", "loading", "stale", "fast", "allow_busy"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(multi),
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "discard",
        summary: "Discards a transaction.",
        since: "2.0.0",
        complexity: "O(N), when N is the number of queued commands",
        handler: Handler::Session(discard),
        ..TRANSACTION
    },
    Command {
        name: "exec",
        summary: "Executes all commands in a transaction.",
        complexity: "Depends on commands in the transaction",
        flags: &["noscript", "loading", "stale", "skip_slowlog"],
        handler: Handler::Waiting(exec),
        ..TRANSACTION
    },
    Command {
        name: "multi",
        summary: "Starts a transaction.",
        handler: Handler::Session(multi),
        ..TRANSACTION
    },
    Command {
        name: "unwatch",
        summary: "Forgets about watched keys.",
        since: "2.2.0",
        handler: Handler::Session(unwatch),
        ..TRANSACTION
    },
    Command {
        name: "watch",
        arity: -2,
        syntax: "key [key ...]",
        summary: "Watches plain keys: a change of one before EXEC aborts the transaction.",
        since: "2.2.0",
        complexity: "O(1) for every key.",
        keys: KeySpec::ALL,
        on_cache: OnCache::Refuse,
        handler: Handler::Session(watch),
        ..TRANSACTION
    },
];

fn multi(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    if session.transaction.is_open() {
        reply.error("ERR MULTI calls can not be nested");
        return;
    }
    session.transaction.open();
    session.client.set_queued(Some(0));
    reply.ok();
}

fn discard(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    if !session.transaction.is_open() {
        reply.error("ERR DISCARD without MULTI");
        return;
    }
    session.transaction.discard();
    session.client.set_queued(None);
    session.client.set_watched(0);
    reply.ok();
}

fn exec<'a>(
    session: &'a mut Session,
    _: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(transaction::execute(session, reply))
}

fn watch(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    if session.transaction.is_open() {
        reply.error("ERR WATCH inside MULTI is not allowed");
        return;
    }
    let shared = std::sync::Arc::clone(&session.shared);
    let cached = arguments[1..].iter().find_map(|key| Some((key, shared.routes.route(key)?)));
    if let Some((key, cache)) = cached {
        reply.error(&cached::watch_refusal(key, cache.name()));
        return;
    }
    for key in &arguments[1..] {
        session.transaction.watch(key, &shared);
    }
    session.client.set_watched(session.transaction.watched_count());
    reply.ok();
}

fn unwatch(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    session.transaction.unwatch();
    session.client.set_watched(0);
    reply.ok();
}
