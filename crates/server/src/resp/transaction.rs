//! What `MULTI` queues and `WATCH` watches, and how `EXEC` runs it at once.

use std::collections::HashMap;

use larder_core::{Key, Result};

use super::Reply;
use super::arguments::OwnedArguments;
use super::cached::{self, CachedHit};
use super::command::{Handler, OnCache};
use super::door::Shared;
use super::routes::ServedCache;
use super::session::{Replies, Session};
use super::table::Entry;
use super::written;
use crate::keyspace::Locked;

/// A client's transaction, if it has one, and what it watches.
#[derive(Default)]
pub(crate) struct Transaction {
    queue: Option<Box<Queue>>,
    watched: Vec<Watched>,
}

/// The commands between `MULTI` and `EXEC`.
#[derive(Default)]
struct Queue {
    calls: Vec<Call>,
    bytes: usize,
    /// Whether a command was refused, so that none will run.
    is_spoiled: bool,
}

struct Call {
    entry: &'static Entry,
    arguments: OwnedArguments,
}

/// A key, and the version it had when it was watched.
struct Watched {
    key: Box<[u8]>,
    version: u64,
}

/// The answers of caches that a transaction reads, loaded before it takes its
/// locks.
pub(crate) type Loaded = HashMap<Key, Result<CachedHit>>;

impl Transaction {
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    pub(crate) fn open(&mut self) {
        self.queue = Some(Box::default());
    }

    /// Forgets what was queued and watched.
    pub(crate) fn discard(&mut self) {
        *self = Self::default();
    }

    /// How many commands wait for `EXEC`, if there is a transaction.
    pub(crate) fn queued_count(&self) -> Option<usize> {
        self.queue.as_ref().map(|queue| queue.calls.len())
    }

    /// Makes `EXEC` run nothing.
    pub(crate) fn spoil(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.is_spoiled = true;
        }
    }

    /// Queues a command; refuses it, and the transaction with it, if more would
    /// wait than may.
    pub(crate) fn queue(
        &mut self,
        entry: &'static Entry,
        arguments: &[&[u8]],
        bytes_max: usize,
    ) -> bool {
        let Some(queue) = &mut self.queue else { return false };
        let arguments = OwnedArguments::new(arguments);
        queue.bytes += arguments.bytes();
        if queue.bytes > bytes_max {
            queue.is_spoiled = true;
            queue.calls = Vec::new();
            return false;
        }
        // What will not run need not be kept.
        if !queue.is_spoiled {
            queue.calls.push(Call { entry, arguments });
        }
        true
    }

    pub(crate) fn watch(&mut self, key: &[u8], shared: &Shared) {
        if !self.watched.iter().any(|watched| &*watched.key == key) {
            let version = shared.keyspace.watch_version(key);
            self.watched.push(Watched { key: key.into(), version });
        }
    }

    pub(crate) fn unwatch(&mut self) {
        self.watched = Vec::new();
    }

    pub(crate) fn watched_count(&self) -> usize {
        self.watched.len()
    }
}

/// `EXEC`: loads what the transaction reads from caches, takes the locks of all
/// its keys and runs it.
pub(crate) async fn execute(session: &mut Session, reply: &mut Reply) {
    if !session.transaction.is_open() {
        // What is watched stays watched.
        reply.error("ERR EXEC without MULTI");
        return;
    }
    let transaction = std::mem::take(&mut session.transaction);
    session.client.set_queued(None);
    session.client.set_watched(0);
    let Some(queue) = transaction.queue else { return };
    if queue.is_spoiled {
        reply.error("EXECABORT Transaction discarded because of previous errors.");
        return;
    }
    let calls = queue.calls.iter().map(|call| (call.entry, &call.arguments));
    let loaded = load(&session.shared, calls).await;
    run_at_once(session, &queue.calls, &transaction.watched, &loaded, reply);
}

/// Reads what the calls ask caches for, one load for each cache.
pub(crate) async fn load<'a>(
    shared: &Shared,
    calls: impl Iterator<Item = (&'static Entry, &'a OwnedArguments)>,
) -> Loaded {
    let mut by_cache: HashMap<String, (ServedCache, Vec<Key>)> = HashMap::new();
    if !shared.routes.is_empty() {
        for (entry, arguments) in calls.filter(|(it, _)| it.command.on_cache == OnCache::Read) {
            let arguments = arguments.slices();
            for place in entry.command.keys.positions(arguments.len()) {
                let key = arguments[place];
                if let Some(cache) = shared.routes.route(key) {
                    by_cache
                        .entry(cache.name().to_owned())
                        .or_insert_with(|| (cache.clone(), Vec::new()))
                        .1
                        .push(Key::new(key));
                }
            }
        }
    }
    let mut loaded = Loaded::new();
    for (cache, keys) in by_cache.into_values() {
        let answers = cache.get_or_load_many(&keys).await;
        loaded.extend(keys.into_iter().zip(answers));
    }
    loaded
}

/// Runs the calls while every lock they need is held.
fn run_at_once(
    session: &mut Session,
    calls: &[Call],
    watched: &[Watched],
    loaded: &Loaded,
    reply: &mut Reply,
) {
    let shared = std::sync::Arc::clone(&session.shared);
    let arguments: Vec<Vec<&[u8]>> = calls.iter().map(|call| call.arguments.slices()).collect();
    let names_its_keys = |call: &Call| matches!(call.entry.command.handler, Handler::Data(_));
    let mut locked = if calls.iter().all(names_its_keys) {
        let keys = calls.iter().zip(&arguments).flat_map(|(call, arguments)| {
            call.entry.command.keys.positions(arguments.len()).map(|place| arguments[place])
        });
        shared.keyspace.lock(keys.chain(watched.iter().map(|watched| &*watched.key)))
    } else {
        // What a command like DBSIZE or INFO looks at is known only when it runs.
        shared.keyspace.lock_all()
    };
    if watched.iter().any(|watched| locked.watch_version(&watched.key) != watched.version) {
        reply.null_array();
        return;
    }
    // A call may turn replies off or on: each part of the reply is wanted or not
    // at the moment at which it is written.
    let was_off = session.replies == Replies::Off;
    if !was_off {
        reply.array(calls.len());
    }
    for (call, arguments) in calls.iter().zip(&arguments) {
        let start = reply.as_bytes().len();
        run_one(session, &mut locked, call.entry, arguments, loaded, reply);
        session.count_call(call.entry, &reply.as_bytes()[start..]);
        if session.replies == Replies::Off {
            reply.buffer_mut().truncate(start);
        }
    }
    session.has_settled_reply = session.replies == Replies::Off;
}

fn run_one(
    session: &mut Session,
    locked: &mut Locked<'_>,
    entry: &'static Entry,
    arguments: &[&[u8]],
    loaded: &Loaded,
    reply: &mut Reply,
) {
    match entry.command.handler {
        Handler::Data(handler) => {
            let routes = &session.shared.routes;
            let mut keys =
                entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
            let cached = keys.find_map(|key| Some((key, routes.route(key)?)));
            match cached {
                None => handler(locked, arguments, reply),
                Some((key, cache)) if entry.command.on_cache == OnCache::Refuse => {
                    reply.error(&written::refusal(entry.command.name, key, cache));
                }
                Some(_) => cached::answer_loaded(session, locked, entry, arguments, loaded, reply),
            }
        }
        Handler::Keyspace(handler) => handler(&session.shared.keyspace, arguments, reply),
        Handler::Session(handler) => handler(session, arguments, reply),
        // Commands that wait are barred from transactions.
        Handler::Waiting(_) => reply.error("ERR Command not allowed inside a transaction"),
    }
}
