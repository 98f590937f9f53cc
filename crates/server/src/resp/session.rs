//! One client's state, and the dispatch of its commands.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Reply;
use super::cached::{self, CachedRead, Gathered};
use super::client::Client;
use super::command::{Handler, OnCache};
use super::connection::REPLY_BYTES_BEFORE_WRITE;
use super::door::Shared;
use super::parser::Limits;
use super::routes::ServedCache;
use super::table::{Entry, Shortcut, Unknown};
use super::transaction::Transaction;
use super::worker::Worker;
use super::written;
use crate::front::FrontSession;
use crate::keyspace::{Locked, OutOfMemory};

/// What a connection knows about its client. Handlers of the session's own
/// commands work on this.
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    /// The thread it is on.
    pub(crate) worker: Arc<Worker>,
    pub(crate) client: Arc<Client>,
    /// Whether the client has authenticated, or need not.
    pub(crate) is_trusted: bool,
    /// What `MULTI` and `WATCH` hold.
    pub(crate) transaction: Transaction,
    /// Which replies the client wants.
    pub(crate) replies: Replies,
    /// Whether what the client does not want of this reply was left out already.
    pub(crate) has_settled_reply: bool,
    /// Whether answers of caches are labelled with where they come from.
    pub(crate) is_labelling: bool,
    /// Whether the connection ends after this command.
    pub(crate) is_closing: bool,
    /// Where commands go that Larder does not answer, if they go somewhere.
    pub(crate) front: Option<Box<FrontSession>>,
}

/// Which replies a client wants, as it said with `CLIENT REPLY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replies {
    /// Every one.
    On,
    /// None until it says otherwise.
    Off,
    /// All but that of the next command.
    SkipNext,
    /// All but that of the command that runs.
    SkipThis,
}

/// How far a command got without waiting.
pub(crate) enum Step {
    /// It is answered.
    Done,
    /// It reads one key of a cache that is not in memory: to be loaded together
    /// with what the next commands ask for.
    Gather(Gathered),
    /// It must wait.
    Wait(&'static Entry),
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, worker: Arc<Worker>, client: Arc<Client>) -> Self {
        let front =
            shared.front.as_ref().map(|_| FrontSession::new(shared.settings.reply_bytes_max.get()));
        let mut session = Self {
            front,
            shared,
            worker,
            client,
            is_trusted: false,
            transaction: Transaction::default(),
            replies: Replies::On,
            has_settled_reply: false,
            is_labelling: false,
            is_closing: false,
        };
        session.forget_user();
        session
    }

    /// What the client may send.
    #[inline]
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            bulk_bytes_max: self.shared.settings.bulk_bytes_max.get(),
            command_bytes_max: self.shared.settings.query_bytes_max.get(),
            is_trusted: self.is_trusted,
        }
    }

    /// Makes the client the user it is before it says who it is.
    pub(crate) fn forget_user(&mut self) {
        let stranger = self.shared.credentials.stranger();
        self.is_trusted = stranger.is_some();
        self.client.label().user = stranger;
    }

    /// Runs a command as far as it goes without waiting.
    #[inline]
    pub(crate) fn execute(&mut self, arguments: &[&[u8]], reply: &mut Reply) -> Step {
        let table = self.shared.table;
        let entry = match table.find(arguments) {
            Ok(entry) => entry,
            Err(unknown) => return self.refuse_unknown(unknown, arguments, reply),
        };
        if !self.is_acceptable(entry, arguments, reply) {
            return Step::Done;
        }
        if self.transaction.is_open() && entry.is_queued {
            return self.queue(entry, arguments, reply);
        }
        self.client.set_command(entry.index);
        let start = reply.as_bytes().len();
        let step = match entry.command.handler {
            Handler::Data(handler) => self.execute_data(entry, handler, arguments, reply),
            Handler::Keyspace(handler) => {
                handler(&self.shared.keyspace, arguments, reply);
                Step::Done
            }
            Handler::Session(handler) => {
                handler(self, arguments, reply);
                Step::Done
            }
            Handler::Waiting(_) => Step::Wait(entry),
        };
        if matches!(step, Step::Done) {
            self.count_call(entry, &reply.as_bytes()[start..]);
        }
        step
    }

    fn queue(&mut self, entry: &'static Entry, arguments: &[&[u8]], reply: &mut Reply) -> Step {
        let bytes_max = self.shared.settings.query_bytes_max.get();
        if self.transaction.queue(entry, arguments, bytes_max) {
            reply.simple("QUEUED");
        } else {
            reply.error(&format!(
                "ERR the transaction is larger than {bytes_max} bytes; make it smaller, or raise \
                 client-query-buffer-limit"
            ));
        }
        self.client.set_queued(self.transaction.queued_count());
        Step::Done
    }

    /// Runs a command that has to wait, to its end.
    pub(crate) async fn execute_waiting(
        &mut self,
        entry: &'static Entry,
        arguments: &[&[u8]],
        reply: &mut Reply,
    ) {
        let start = reply.as_bytes().len();
        match entry.command.handler {
            Handler::Waiting(handler) => handler(self, arguments, reply).await,
            _ => match entry.written {
                Some(write) => written::answer(self, entry, write, arguments, reply).await,
                None => cached::answer(self, entry, arguments, reply).await,
            },
        }
        self.count_call(entry, &reply.as_bytes()[start..]);
    }

    /// Counts a call by the reply it got.
    #[inline]
    pub(crate) fn count_call(&self, entry: &Entry, reply: &[u8]) {
        let counters = &self.worker.counters;
        counters.commands.add(1);
        let command = &counters.by_command[usize::from(entry.index)];
        command.calls.add(1);
        if reply.first() == Some(&b'-') {
            command.failed.add(1);
        }
    }

    /// Whether a `GET` of this key is nothing but a read of a plain key.
    #[inline]
    pub(crate) fn reads_plainly(&self, key: &[u8]) -> bool {
        self.is_trusted
            && !self.transaction.is_open()
            && self.replies == Replies::On
            && self.is_plain(key)
    }

    /// Whether this key belongs to no cache.
    #[inline]
    pub(crate) fn is_plain(&self, key: &[u8]) -> bool {
        self.shared.routes.is_empty() || self.shared.routes.route(key).is_none()
    }

    /// Answers a `GET` for each of these keys, which are plain, until enough
    /// replies wait to be written. Returns how many it answered.
    #[inline]
    pub(crate) fn read_plainly(&self, keys: &[&[u8]], reply: &mut Reply) -> usize {
        let mut write = |value: Option<&[u8]>| {
            match value {
                Some(value) => reply.bulk(value),
                None => reply.null(),
            }
            match reply.as_bytes().len() {
                ..REPLY_BYTES_BEFORE_WRITE => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        };
        let answered = match *keys {
            [key] => {
                let read = self.shared.keyspace.get(key, |value| {
                    let _ = write(Some(value));
                });
                if read.is_none() {
                    let _ = write(None);
                }
                1
            }
            _ => self.shared.keyspace.get_many(keys, write),
        };
        let entry = self.shared.get_entry;
        let counters = &self.worker.counters;
        counters.commands.add(answered as u64);
        counters.by_command[usize::from(entry)].calls.add(answered as u64);
        self.client.set_command(entry);
        answered
    }

    /// Runs a command on keys: under their locks if all are plain, and else
    /// through the caches.
    #[inline]
    fn execute_data(
        &mut self,
        entry: &'static Entry,
        handler: fn(&mut Locked<'_>, &[&[u8]], &mut Reply),
        arguments: &[&[u8]],
        reply: &mut Reply,
    ) -> Step {
        if self.shared.routes.is_empty() {
            run_plain(&self.shared, entry, handler, arguments, reply);
            return Step::Done;
        }
        self.execute_routed(entry, handler, arguments, reply)
    }

    fn execute_routed(
        &mut self,
        entry: &'static Entry,
        handler: fn(&mut Locked<'_>, &[&[u8]], &mut Reply),
        arguments: &[&[u8]],
        reply: &mut Reply,
    ) -> Step {
        let mut keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
        let cached = keys.find_map(|key| Some((key, self.shared.routes.route(key)?)));
        let Some((key, cache)) = cached else {
            run_plain(&self.shared, entry, handler, arguments, reply);
            return Step::Done;
        };
        if entry.command.on_cache == OnCache::Refuse {
            return self.execute_write(entry, arguments, reply);
        }
        if entry.cached == Some(CachedRead::Get) {
            if let Some(hit) = cache.get_memory(key) {
                self.worker.counters.cache_hits.add(1);
                cached::write_value(self, &hit, reply);
                return Step::Done;
            }
            if self.replies == Replies::On {
                self.worker.counters.cache_misses.add(1);
                return Step::Gather(Gathered::new(cache, key, entry));
            }
        }
        Step::Wait(entry)
    }

    /// Has a write of keys of caches wait for their origins, if all of them take it.
    fn execute_write(
        &mut self,
        entry: &'static Entry,
        arguments: &[&[u8]],
        reply: &mut Reply,
    ) -> Step {
        let keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
        let mut cached = keys.filter_map(|key| Some((key, self.shared.routes.route(key)?)));
        let refuses = |(_, cache): &(_, &ServedCache)| {
            entry.written.is_none() || !written::takes_writes(cache)
        };
        let Some((key, cache)) = cached.find(refuses) else { return Step::Wait(entry) };
        reply.error(&written::refusal(entry.command.name, key, cache));
        Step::Done
    }

    /// Whether the call may go on; if not, it is answered with the reason.
    #[inline]
    fn is_acceptable(&mut self, entry: &Entry, arguments: &[&[u8]], reply: &mut Reply) -> bool {
        let is_plain_call = entry.takes(arguments.len())
            && self.is_trusted
            && !entry.is_dangerous
            && !entry.is_barred_in_multi;
        is_plain_call || self.is_acceptable_after_all(entry, arguments, reply)
    }

    #[cold]
    fn is_acceptable_after_all(
        &mut self,
        entry: &Entry,
        arguments: &[&[u8]],
        reply: &mut Reply,
    ) -> bool {
        let settings = &self.shared.settings;
        let name = entry.command.name;
        let refusal = if !entry.takes(arguments.len()) {
            format!("ERR wrong number of arguments for '{name}' command")
        } else if !self.is_trusted && !entry.is_open {
            "NOAUTH Authentication required.".to_owned()
        } else if self.transaction.is_open() && entry.is_barred_in_multi {
            "ERR Command not allowed inside a transaction".to_owned()
        } else if entry.is_dangerous && !settings.allows(name) {
            switched_off(name)
        } else {
            return true;
        };
        self.worker.counters.by_command[usize::from(entry.index)].rejected.add(1);
        if name == "exec" {
            // A transaction that cannot be executed is over.
            self.transaction.discard();
            let why = refusal.strip_prefix("ERR ").unwrap_or(&refusal);
            reply.error(&format!("EXECABORT Transaction discarded because of: {why}"));
        } else {
            self.refuse(&refusal, reply);
        }
        false
    }

    /// Answers a command that did not run. A transaction that it was meant for
    /// will not run either.
    fn refuse(&mut self, text: &str, reply: &mut Reply) {
        self.transaction.spoil();
        reply.error(text);
    }

    #[cold]
    fn refuse_unknown(&mut self, unknown: Unknown, arguments: &[&[u8]], reply: &mut Reply) -> Step {
        let name = arguments[0];
        // What a browser sends when a page makes it talk to this port.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            tracing::warn!(
                peer = %self.client.peer(),
                "a client sent HTTP to the RESP door: the connection is closed"
            );
            self.is_closing = true;
            return Step::Done;
        }
        match unknown {
            Unknown::Command => self.refuse(&unknown_command(arguments), reply),
            Unknown::Subcommand => self.refuse(&unknown_subcommand(arguments), reply),
        }
        Step::Done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.clients.remove(self.client.id());
        self.shared.release_place();
    }
}

/// Runs a command whose keys are all plain.
#[inline]
fn run_plain(
    shared: &Shared,
    entry: &Entry,
    handler: fn(&mut Locked<'_>, &[&[u8]], &mut Reply),
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    match (entry.shortcut, arguments) {
        (Some(Shortcut::Get), [_, key]) => {
            if shared.keyspace.get(key, |value| reply.bulk(value)).is_none() {
                reply.null();
            }
        }
        (Some(Shortcut::Set), [_, key, value]) => match shared.keyspace.set(key, value) {
            Ok(()) => reply.ok(),
            Err(OutOfMemory) => reply.error(OutOfMemory::REPLY),
        },
        _ => {
            let keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
            let mut locked = shared.keyspace.lock(keys);
            handler(&mut locked, arguments, reply);
        }
    }
}

fn switched_off(name: &str) -> String {
    let instead = if name == "keys" { "use SCAN, or " } else { "" };
    let name = name.to_uppercase();
    format!(
        "ERR {name} is off because it reads or destroys everything; {instead}set \
         `dangerous_commands = [\"{name}\"]` under `[server]` in the configuration"
    )
}

/// What Redis quotes of a call it does not know: the name and the first
/// arguments, 128 bytes of each.
const QUOTED_BYTES_MAX: usize = 128;

fn unknown_command(arguments: &[&[u8]]) -> String {
    let mut quoted = String::new();
    for argument in &arguments[1..] {
        if quoted.len() >= QUOTED_BYTES_MAX {
            break;
        }
        let room = QUOTED_BYTES_MAX - quoted.len();
        quoted.push('\'');
        quoted.push_str(&as_c_text(argument, room));
        quoted.push_str("' ");
    }
    let name = as_c_text(arguments[0], QUOTED_BYTES_MAX);
    format!("ERR unknown command '{name}', with args beginning with: {quoted}")
}

pub(crate) fn unknown_subcommand(arguments: &[&[u8]]) -> String {
    let name = as_c_text(arguments[1], QUOTED_BYTES_MAX);
    let container = as_c_text(arguments[0], QUOTED_BYTES_MAX).to_uppercase();
    format!("ERR unknown subcommand '{name}'. Try {container} HELP.")
}

/// The bytes up to the first NUL, at most `bytes_max` of them.
fn as_c_text(bytes: &[u8], bytes_max: usize) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end.min(bytes_max)]).into_owned()
}
