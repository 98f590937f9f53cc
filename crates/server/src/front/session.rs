//! One client in front of Redis: which way each of its commands takes.

use std::sync::Arc;

use larder_core::Moment;

use super::Front;
use super::both::Halves;
use super::cluster;
use super::cluster::client::needs_own_connection;
use super::cluster::place::{self, Place};
use super::course::{Course, Pin, Read, Touches};
use super::memory::Memory;
use super::request::{Request, To, Void, Wanted};
use super::state::FrontSession;
use super::turn::is_reset_or_quit;
use super::wire::encode;
use crate::resp::Reply;
use crate::resp::arguments::OwnedArguments;
use crate::resp::command::KeySpec;
use crate::resp::connection::{Pause, REPLY_BYTES_BEFORE_WRITE, gather_more};
use crate::resp::scratch::{Scratch, recycle};
use crate::resp::session::{Replies, Session, Step};
use crate::resp::{cached, written};

/// So many replies are awaited at a time; the next commands wait for them.
pub(crate) const AWAITED_MAX: usize = 1024;

/// With so much from memory behind replies that are awaited, these come first.
const SPLICED_BYTES_MAX: usize = 256 * 1024;

/// The values of more keys than this are not kept when they are read together:
/// each takes a question of its own for how long it lives.
const KEPT_TOGETHER_MAX: usize = 64;

pub(crate) const NO_REPLICATION: &str =
    "ERR Larder passes no replication on: connect replicas to Redis itself";

/// What came of looking at a command.
pub(crate) enum Look {
    /// It is answered, or on its way.
    Done,
    /// It is to be looked at again after this.
    Again(Pause),
    /// It is dealt with once this has come about.
    Then(Pause),
}

/// Answers commands one after the other as long as none has to wait: the
/// front's counterpart of the door's own loop.
pub(crate) fn run_ready(session: &mut Session, scratch: &mut Scratch) -> Pause {
    let Some(mut state) = session.front.take() else { return Pause::Close };
    let now = session.shared.clock.now();
    let pause = loop {
        let input = &scratch.input[scratch.used..];
        let length = match scratch.parser.parse(input, session.limits()) {
            Ok(Some(length)) => length,
            Ok(None) if state.awaits() => break Pause::Upstream,
            Ok(None) => break Pause::Input,
            Err(_) if state.awaits() => {
                scratch.parser.restart();
                break Pause::Upstream;
            }
            Err(error) => break Pause::Protocol(error),
        };
        if let Some(key) = scratch.parser.only_argument(input, b"get")
            && !state.awaits()
            && !state.has_held_multi
            && session.reads_plainly(key)
            && quick_get(session, &mut state, key, now, &mut scratch.reply)
        {
            scratch.used += length;
        } else {
            let mut arguments = recycle(std::mem::take(&mut scratch.arguments));
            scratch.parser.arguments(input, &mut arguments);
            let raw = (!scratch.parser.is_inline()).then(|| &input[..length]);
            let call = Call { arguments: &arguments, raw, now };
            let look = look(session, &mut state, &call, &mut scratch.reply);
            scratch.arguments = recycle(arguments);
            match look {
                Look::Done => scratch.used += length,
                Look::Again(pause) => {
                    scratch.parser.restart();
                    break pause;
                }
                Look::Then(pause) => {
                    scratch.used += length;
                    break match pause {
                        Pause::Load(group) => Pause::Load(gather_more(session, scratch, group)),
                        pause => pause,
                    };
                }
            }
        }
        if session.is_closing || session.client.is_closing() {
            break Pause::Close;
        }
        if scratch.reply.as_bytes().len() >= REPLY_BYTES_BEFORE_WRITE && !state.awaits() {
            break Pause::Write;
        }
        if state.spliced_bytes() >= SPLICED_BYTES_MAX {
            break Pause::Upstream;
        }
    };
    session.front = Some(state);
    pause
}

/// A command as it came.
pub(crate) struct Call<'a> {
    pub(crate) arguments: &'a [&'a [u8]],
    /// Its bytes, unless it was sent inline.
    pub(crate) raw: Option<&'a [u8]>,
    pub(crate) now: Moment,
}

impl Call<'_> {
    /// Appends it as Redis takes it.
    pub(crate) fn write(&self, command: &mut Vec<u8>) {
        match self.raw {
            Some(raw) => command.extend_from_slice(raw),
            None => encode(self.arguments, command),
        }
    }
}

/// Answers a `GET` from memory, without more ado.
#[inline]
fn quick_get(
    session: &Session,
    state: &mut FrontSession,
    key: &[u8],
    now: Moment,
    reply: &mut Reply,
) -> bool {
    let Some(worker) = &session.worker.front else { return false };
    if !state.may_look_at(&worker.front, key, now) {
        return false;
    }
    let is_hit = worker.front.memory.get(key, now, |value| write_value(value, reply)).is_some();
    if is_hit {
        let counters = &session.worker.counters;
        counters.front_hits.add(1);
        counters.commands.add(1);
        counters.by_command[usize::from(session.shared.get_entry)].calls.add(1);
        session.client.set_command(session.shared.get_entry);
    }
    is_hit
}

/// Looks at one command: answers it, sends it, or says what it waits for.
pub(crate) fn look(
    session: &mut Session,
    state: &mut FrontSession,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let Some(&name) = call.arguments.first() else { return Look::Done };
    let course = Course::of(name);
    let is_own = match course {
        Course::Client => client_course(call.arguments) == Course::Own,
        course => course == Course::Own,
    };
    if !session.is_trusted && !is_own {
        return answer_here(session, state, reply, |_, reply| {
            reply.error("NOAUTH Authentication required.");
        });
    }
    if let Some(refusal) = state.refusal.take() {
        return answer_here(session, state, reply, |_, reply| {
            reply.buffer_mut().extend_from_slice(&refusal);
        });
    }
    if let Some(look) = look_at_transaction(session, state, course, call, reply) {
        return look;
    }
    if let Some(look) = look_at_caches(session, state, course, call, reply) {
        return look;
    }
    match course {
        Course::Read(read) => look_in_memory(session, state, read, call, reply),
        Course::Shared(touches) => pass(session, state, touches, call, reply),
        Course::Own => own(session, state, call, reply),
        Course::Client => match client_course(call.arguments) {
            Course::Own => own(session, state, call, reply),
            _ if is_cluster(session) => pass(session, state, Touches::Nothing, call, reply),
            _ => pin(session, state, call),
        },
        Course::Info if is_about_larder(call.arguments) => own(session, state, call, reply),
        Course::Info => pass(session, state, Touches::Nothing, call, reply),
        Course::Select if selects(session, call.arguments) => {
            answer_here(session, state, reply, |_, reply| reply.ok())
        }
        Course::MayBlock(touches) if !blocks(call.arguments) => {
            pass(session, state, touches, call, reply)
        }
        // Without MULTI and WATCH these change nothing of the connection.
        Course::Pins(Pin::Exec | Pin::Discard | Pin::Unwatch) => {
            pass(session, state, Touches::Nothing, call, reply)
        }
        Course::Replica => answer_here(session, state, reply, |_, reply| {
            reply.error(NO_REPLICATION);
        }),
        Course::Apart(touches)
            if is_cluster(session) && !needs_own_connection(course, call.arguments) =>
        {
            pass(session, state, touches, call, reply)
        }
        Course::Pins(Pin::Monitor | Pin::Tracking) | Course::Select if is_cluster(session) => {
            pass(session, state, Touches::Nothing, call, reply)
        }
        Course::Apart(_) | Course::MayBlock(_) | Course::Pins(_) | Course::Select => {
            pin(session, state, call)
        }
    }
}

fn is_cluster(session: &Session) -> bool {
    session.worker.front.as_ref().is_some_and(|worker| worker.front.options.is_cluster())
}

/// In a cluster, a transaction begins where the first key of its commands is: until
/// one names a key, nobody is told.
fn look_at_transaction(
    session: &mut Session,
    state: &mut FrontSession,
    course: Course,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Option<Look> {
    let is_alone = call.arguments.len() == 1;
    if !state.has_held_multi {
        if course != Course::Pins(Pin::Multi) || !is_alone || !is_cluster(session) {
            return None;
        }
        if state.awaits() {
            return Some(Look::Again(Pause::Upstream));
        }
        state.has_held_multi = true;
        return Some(answer_here(session, state, reply, |_, reply| reply.ok()));
    }
    match course {
        Course::Pins(Pin::Exec) if is_alone => {
            state.has_held_multi = false;
            Some(answer_here(session, state, reply, |_, reply| reply.array(0)))
        }
        Course::Pins(Pin::Discard) if is_alone => {
            state.has_held_multi = false;
            Some(answer_here(session, state, reply, |_, reply| reply.ok()))
        }
        Course::Own if is_reset_or_quit(call.arguments) => {
            state.has_held_multi = false;
            None
        }
        _ => Some(pin(session, state, call)),
    }
}

/// Keys of a configured cache are answered by it, as long as all are of caches.
fn look_at_caches(
    session: &mut Session,
    state: &mut FrontSession,
    course: Course,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Option<Look> {
    if session.shared.routes.is_empty() {
        return None;
    }
    let shared = Arc::clone(&session.shared);
    let spec = key_spec(session, course, call.arguments)?;
    let keys = spec.positions(call.arguments.len()).map(|place| call.arguments[place]);
    let (key, cache) = keys.clone().find_map(|key| Some((key, shared.routes.route(key)?)))?;
    let is_mixed = keys.clone().any(|key| shared.routes.route(key).is_none());
    let is_known = shared.table.find(call.arguments).is_ok();
    if is_mixed && is_known {
        if Halves::of(session, call.arguments).is_none() {
            let text = cached::mixed_refusal(key, cache.name());
            return Some(answer_here(session, state, reply, |_, reply| reply.error(&text)));
        }
        return Some(if state.awaits() {
            Look::Again(Pause::Upstream)
        } else {
            Look::Then(Pause::Both(OwnedArguments::new(call.arguments)))
        });
    }
    if !is_known {
        let text = written::refusal(&name_of(call.arguments), key, cache);
        return Some(answer_here(session, state, reply, |_, reply| reply.error(&text)));
    }
    Some(own(session, state, call, reply))
}

/// What a command is called, for a message.
pub(crate) fn name_of(arguments: &[&[u8]]) -> String {
    cached::shown(arguments.first().copied().unwrap_or_default()).to_lowercase()
}

/// Which arguments are keys, as far as that is known.
pub(crate) fn key_spec(session: &Session, course: Course, arguments: &[&[u8]]) -> Option<KeySpec> {
    match course {
        Course::Shared(Touches::Keys(spec)) => Some(spec),
        Course::Pins(Pin::Watch) => Some(KeySpec::ALL),
        _ => {
            let entry = session.shared.table.find(arguments).ok()?;
            Some(entry.command.keys).filter(|keys| keys.first > 0)
        }
    }
}

/// Runs one of Larder's own commands. Those that change the session wait until
/// it is their turn.
fn own(
    session: &mut Session,
    state: &mut FrontSession,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let is_ping = call.arguments[0].eq_ignore_ascii_case(b"ping");
    if state.awaits() && !is_ping {
        return Look::Again(Pause::Upstream);
    }
    let start = reply.as_bytes().len();
    match session.execute(call.arguments, reply) {
        Step::Done => {
            session.settle_reply(start, reply);
            state.splice(start, reply);
            Look::Done
        }
        Step::Gather(group) => Look::Then(Pause::Load(group)),
        Step::Wait(entry) => Look::Then(Pause::Wait(entry, OwnedArguments::new(call.arguments))),
    }
}

/// Replies without asking anybody.
pub(crate) fn answer_here(
    session: &mut Session,
    state: &mut FrontSession,
    reply: &mut Reply,
    write: impl FnOnce(&mut Session, &mut Reply),
) -> Look {
    let start = reply.as_bytes().len();
    write(session, reply);
    session.settle_reply(start, reply);
    session.worker.counters.commands.add(1);
    state.splice(start, reply);
    Look::Done
}

/// The client needs a connection of its own, once nothing is awaited.
fn pin(session: &Session, state: &mut FrontSession, call: &Call<'_>) -> Look {
    if state.awaits() {
        return Look::Again(Pause::Upstream);
    }
    if let Some(worker) = &session.worker.front
        && let Place::Key(key) = place::of(call.arguments)
        && session.is_plain(key)
    {
        let place = worker.front.memory.validity.place(key);
        state.pin_to = worker.front.nodes.get(place.node);
    }
    Look::Again(Pause::Pinned)
}

/// Which way a `CLIENT` command takes: those about the connection end here.
pub(crate) fn client_course(arguments: &[&[u8]]) -> Course {
    let Some(subcommand) = arguments.get(1) else { return Course::Own };
    match subcommand.to_ascii_lowercase().as_slice() {
        b"tracking" => Course::Pins(Pin::Tracking),
        b"caching" | b"trackinginfo" | b"pause" | b"unpause" => Course::Apart(Touches::Nothing),
        _ => Course::Own,
    }
}

pub(crate) fn is_about_larder(arguments: &[&[u8]]) -> bool {
    matches!(arguments, [_, section] if section.eq_ignore_ascii_case(b"larder"))
}

/// Whether this selects the database that shared connections are in.
fn selects(session: &Session, arguments: &[&[u8]]) -> bool {
    let Some(worker) = &session.worker.front else { return false };
    let number = worker.front.options.upstream.database.to_string();
    matches!(arguments, [_, index] if *index == number.as_bytes())
}

pub(crate) fn blocks(arguments: &[&[u8]]) -> bool {
    arguments.iter().any(|argument| argument.eq_ignore_ascii_case(b"block"))
}

/// Answers a read from memory if everything it asks for is there, and asks Redis
/// else.
fn look_in_memory(
    session: &mut Session,
    state: &mut FrontSession,
    read: Read,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let Some(front) = session.worker.front.as_ref().map(|worker| Arc::clone(&worker.front)) else {
        return Look::Done;
    };
    let start = reply.as_bytes().len();
    if answer_from_memory(&front, state, read, call, reply) {
        session.worker.counters.front_hits.add(1);
        session.settle_reply(start, reply);
        count(session, call.arguments);
        state.splice(start, reply);
        return Look::Done;
    }
    reply.buffer_mut().truncate(start);
    session.worker.counters.front_misses.add(1);
    pass(session, state, Touches::Nothing, call, reply)
}

/// What of a read is to be kept.
pub(crate) fn wanted_of(memory: &Memory, arguments: &[&[u8]], now: Moment) -> Option<Box<Wanted>> {
    match arguments {
        [name, _] if name.eq_ignore_ascii_case(b"get") => {
            Wanted::new(memory, now, &arguments[1..], false)
        }
        [name, keys @ ..]
            if (1..=KEPT_TOGETHER_MAX).contains(&keys.len())
                && name.eq_ignore_ascii_case(b"mget") =>
        {
            Wanted::new(memory, now, keys, true)
        }
        _ => None,
    }
}

/// Writes the reply, unless something of it is not known.
fn answer_from_memory(
    front: &Front,
    state: &mut FrontSession,
    read: Read,
    call: &Call<'_>,
    reply: &mut Reply,
) -> bool {
    let mut get = |key: &[u8], write: &mut dyn FnMut(Option<&[u8]>)| {
        state.may_look_at(front, key, call.now) && front.memory.get(key, call.now, write).is_some()
    };
    match (read, call.arguments) {
        (Read::Get, [_, key]) => get(key, &mut |value| write_value(value, reply)),
        (Read::Mget, [_, keys @ ..]) if !keys.is_empty() => {
            reply.array(keys.len());
            keys.iter().all(|key| get(key, &mut |value| write_value(value, reply)))
        }
        (Read::Strlen, [_, key]) => {
            get(key, &mut |value| reply.integer(value.map_or(0, <[u8]>::len) as i64))
        }
        (Read::Getrange, [_, key, first, last]) => {
            let parse = crate::keyspace::parse_integer;
            let (Some(first), Some(last)) = (parse(first), parse(last)) else { return false };
            get(key, &mut |value| {
                let value = value.unwrap_or_default();
                reply.bulk(cached::part_of(value, first, last));
            })
        }
        (Read::Exists, [_, keys @ ..]) if !keys.is_empty() => {
            let mut present = 0;
            let mut note = |value: Option<&[u8]>| present += i64::from(value.is_some());
            let is_known = keys.iter().all(|key| get(key, &mut note));
            if is_known {
                reply.integer(present);
            }
            is_known
        }
        _ => false,
    }
}

fn write_value(value: Option<&[u8]>, reply: &mut Reply) {
    match value {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
}

/// Sends a command over the shared connection.
fn pass(
    session: &mut Session,
    state: &mut FrontSession,
    touches: Touches,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let worker = Arc::clone(&session.worker);
    let Some(front_worker) = &worker.front else { return Look::Done };
    let front = &front_worker.front;
    if front.options.is_cluster() {
        return cluster::client::pass(session, state, touches, call, reply);
    }
    let node = front.memory.validity.place_of_slot(0).node;
    let Some(link) = front_worker.link(&worker, node, reply.protocol()) else { return Look::Done };
    if !state.may_send(front.memory.validity.moves()) {
        return Look::Again(Pause::Upstream);
    }
    if link.is_full() {
        state.wait_for(&link);
        return Look::Again(Pause::Upstream);
    }
    let void = Void::of(touches, call.arguments);
    void.apply(&front.memory);
    let is_wanted = wants_reply(session);
    let wanted = match touches {
        Touches::Nothing => wanted_of(&front.memory, call.arguments, call.now),
        _ => None,
    };
    let ticket = state.mailbox().take_ticket();
    let to = To::Client(Arc::clone(state.mailbox()), ticket);
    let request = Request { to, is_wanted, void, wanted, again: None };
    // Even if the client wants no reply: what follows may go another way.
    state.note_sent();
    if let Err(refusal) = link.ask(request, front.now(), |command| call.write(command)) {
        state.mailbox().put(ticket, if is_wanted { &refusal } else { b"" }, true);
        return Look::Done;
    }
    note_asked(front, state, touches, call.arguments);
    session.worker.counters.front_passed.add(1);
    count(session, call.arguments);
    Look::Done
}

/// Keys that are written, or read, must not be read in memory before that is
/// done.
pub(crate) fn note_asked(
    front: &Front,
    state: &mut FrontSession,
    touches: Touches,
    arguments: &[&[u8]],
) {
    const ASKED_MAX: usize = 64;
    let spec = match touches {
        Touches::Keys(spec) => spec,
        // Its arguments are keys, if it reads strings, and else do no harm.
        Touches::Nothing => KeySpec::ALL,
        Touches::Arguments | Touches::Everything => return state.bar(),
        Touches::Unknown => return state.note_unknown_write_sent(),
    };
    if arguments.len() + state.asked_count() > ASKED_MAX {
        // Too many to compare with.
        return state.bar();
    }
    let places = spec.positions(arguments.len());
    state.note_asked(places.map(|place| front.memory.hash(arguments[place])));
}

/// Whether the client wants the reply of the command that is about to be sent.
pub(crate) fn wants_reply(session: &mut Session) -> bool {
    match session.replies {
        Replies::On => true,
        Replies::Off => false,
        Replies::SkipNext | Replies::SkipThis => {
            session.replies = Replies::On;
            false
        }
    }
}

/// Counts a call.
pub(crate) fn count(session: &Session, arguments: &[&[u8]]) {
    let counters = &session.worker.counters;
    counters.commands.add(1);
    if let Ok(entry) = session.shared.table.find(arguments) {
        counters.by_command[usize::from(entry.index)].calls.add(1);
        session.client.set_command(entry.index);
    }
}
