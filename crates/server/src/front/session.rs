//! One client in front of Redis: which way each of its commands takes, and how
//! replies from memory, from Larder and from Redis come out in its order.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use larder_core::Moment;

use super::course::{Course, Pin, Read, Touches};
use super::link::Request;
use super::mailbox::{Mailbox, Taken};
use super::request::{Void, Wanted};
use super::wire::encode;
use super::{Front, FrontWorker};
use crate::resp::Reply;
use crate::resp::arguments::OwnedArguments;
use crate::resp::cached;
use crate::resp::command::KeySpec;
use crate::resp::connection::{Pause, REPLY_BYTES_BEFORE_WRITE, gather_more};
use crate::resp::scratch::{Scratch, recycle};
use crate::resp::session::{Replies, Session, Step};

/// So many replies are awaited at a time; the next commands wait for them.
const AWAITED_MAX: usize = 1024;

/// With so much from memory behind replies that are awaited, these come first.
const SPLICED_BYTES_MAX: usize = 256 * 1024;

/// The values of more keys than this are not kept when they are read together:
/// each takes a question of its own for how long it lives.
const KEPT_TOGETHER_MAX: usize = 64;

pub(crate) const NO_REPLICATION: &str =
    "ERR Larder passes no replication on: connect replicas to Redis itself";

/// What the front knows of a client.
pub(crate) struct FrontSession {
    mailbox: Arc<Mailbox>,
    /// Replies that Redis owes, of those asked for since none was.
    awaited: usize,
    /// How many of them have come.
    received: usize,
    /// Replies that did not come from Redis: behind how many of those that do
    /// they stand, and where in `local` they are.
    splices: Vec<(usize, Range<usize>)>,
    spliced: usize,
    local: Vec<u8>,
    /// The keys that were asked for since nothing was awaited. What memory says
    /// of them may be older than what Redis will say.
    asked: Vec<u64>,
    /// When a write of unknown keys was last answered, if memory may not have
    /// been told of it.
    wrote_at: Option<Moment>,
    /// Whether such a write is on its way.
    is_writing: bool,
    /// Whether nothing is read in memory until all that is awaited has come.
    is_barred: bool,
    /// Why it cannot have one: the reply to the command that needs it.
    pub(crate) refusal: Option<Vec<u8>>,
}

/// What came of looking at a command.
pub(crate) enum Look {
    /// It is answered, or on its way.
    Done,
    /// It is to be looked at again after this.
    Again(Pause),
    /// It is dealt with once this has come about.
    Then(Pause),
}

impl FrontSession {
    pub(crate) fn new(reply_bytes_max: usize) -> Box<Self> {
        Box::new(Self {
            mailbox: Mailbox::new(reply_bytes_max),
            awaited: 0,
            received: 0,
            splices: Vec::new(),
            spliced: 0,
            local: Vec::new(),
            asked: Vec::new(),
            wrote_at: None,
            is_writing: false,
            is_barred: false,
            refusal: None,
        })
    }

    /// Whether replies of Redis are awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.awaited > 0
    }

    /// Notes that the client wrote keys that nobody knows, and got its reply.
    pub(crate) fn note_unknown_write(&mut self, front: &Front) {
        self.wrote_at = Some(front.now());
        front.request_pulse();
    }

    /// Whether memory knows all that this client has written.
    fn may_look(&mut self, front: &Front, now: Moment) -> bool {
        if self.is_writing || self.is_barred {
            return false;
        }
        match self.wrote_at {
            None => true,
            Some(wrote_at) if front.memory.has_seen(wrote_at, now) => {
                self.wrote_at = None;
                true
            }
            Some(_) => false,
        }
    }

    /// Whether memory may be asked for this key.
    fn may_look_at(&mut self, front: &Front, key: &[u8], now: Moment) -> bool {
        self.may_look(front, now)
            && (self.awaited == 0 || !self.asked.contains(&front.memory.hash(key)))
    }

    /// Puts what was just replied behind the replies that are awaited.
    fn splice(&mut self, start: usize, reply: &mut Reply) {
        if self.awaited == 0 {
            return;
        }
        let at = self.local.len();
        self.local.extend_from_slice(&reply.as_bytes()[start..]);
        reply.buffer_mut().truncate(start);
        if at < self.local.len() {
            self.splices.push((self.awaited, at..self.local.len()));
        }
    }

    /// Everything that was awaited has come.
    fn settle(&mut self, front: &Front) {
        self.awaited = 0;
        self.received = 0;
        self.spliced = 0;
        self.splices.clear();
        self.local.clear();
        self.local.shrink_to(1 << 16);
        self.asked.clear();
        self.is_barred = false;
        if std::mem::take(&mut self.is_writing) {
            self.note_unknown_write(front);
        }
    }

    /// Moves what has come to the reply, in order.
    fn collect(&mut self, reply: &mut Vec<u8>) -> Taken {
        let Self { mailbox, received, splices, spliced, local, .. } = self;
        mailbox.take(|bytes, ends| {
            if splices.len() == *spliced {
                *received += ends.len();
                if reply.is_empty() {
                    std::mem::swap(reply, bytes);
                } else {
                    reply.extend_from_slice(bytes);
                }
                return;
            }
            let mut start = 0;
            for &end in ends {
                reply.extend_from_slice(&bytes[start..end]);
                start = end;
                *received += 1;
                while let Some((behind, place)) = splices.get(*spliced)
                    && behind == received
                {
                    reply.extend_from_slice(&local[place.clone()]);
                    *spliced += 1;
                }
            }
            reply.extend_from_slice(&bytes[start..]);
        })
    }
}

impl Drop for FrontSession {
    fn drop(&mut self) {
        self.mailbox.close();
    }
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
        if state.local.len() >= SPLICED_BYTES_MAX {
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
    if !state.may_look(&worker.front, now) {
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

fn look(
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
    if let Some(look) = look_at_caches(session, state, course, call, reply) {
        return look;
    }
    match course {
        Course::Read(read) => look_in_memory(session, state, read, call, reply),
        Course::Shared(touches) => pass(session, state, touches, None, call, reply),
        Course::Own => own(session, state, call, reply),
        Course::Client => match client_course(call.arguments) {
            Course::Own => own(session, state, call, reply),
            _ => pin(state),
        },
        Course::Info if is_about_larder(call.arguments) => own(session, state, call, reply),
        Course::Info => pass(session, state, Touches::Nothing, None, call, reply),
        Course::Select if selects(session, call.arguments) => {
            answer_here(session, state, reply, |_, reply| reply.ok())
        }
        Course::MayBlock(touches) if !blocks(call.arguments) => {
            pass(session, state, touches, None, call, reply)
        }
        // Without MULTI and WATCH these change nothing of the connection.
        Course::Pins(Pin::Exec | Pin::Discard | Pin::Unwatch) => {
            pass(session, state, Touches::Nothing, None, call, reply)
        }
        Course::Replica => answer_here(session, state, reply, |_, reply| {
            reply.error(NO_REPLICATION);
        }),
        Course::Apart(_) | Course::MayBlock(_) | Course::Pins(_) | Course::Select => pin(state),
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
    if is_mixed {
        let key = cached::shown(key);
        let text = format!(
            "ERR '{key}' belongs to the read-through cache '{}', other keys of this command to \
             Redis; ask for them separately",
            cache.name()
        );
        return Some(answer_here(session, state, reply, |_, reply| reply.error(&text)));
    }
    if !is_known {
        let text = cached::refusal(key, cache.name());
        return Some(answer_here(session, state, reply, |_, reply| reply.error(&text)));
    }
    Some(own(session, state, call, reply))
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
fn answer_here(
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
fn pin(state: &FrontSession) -> Look {
    Look::Again(if state.awaits() { Pause::Upstream } else { Pause::Pinned })
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
    let arguments = call.arguments;
    let wanted = match (read, arguments) {
        (Read::Get, [_, _]) => Wanted::new(&front.memory, call.now, &arguments[1..], false),
        (Read::Mget, [_, keys @ ..]) if (1..=KEPT_TOGETHER_MAX).contains(&keys.len()) => {
            Wanted::new(&front.memory, call.now, keys, true)
        }
        _ => None,
    };
    pass(session, state, Touches::Nothing, wanted, call, reply)
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
    wanted: Option<Box<Wanted>>,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Look {
    let worker = Arc::clone(&session.worker);
    let Some(FrontWorker { front, .. }) = &worker.front else { return Look::Done };
    let link = worker.front.as_ref().map(|worker| worker.link(reply.protocol()));
    let Some(link) = link else { return Look::Done };
    if state.awaited >= AWAITED_MAX || link.is_full() {
        return Look::Again(Pause::Upstream);
    }
    let void = Void::of(touches, call.arguments);
    void.apply(&front.memory);
    let is_wanted = wants_reply(session);
    let mailbox = Arc::clone(&state.mailbox);
    let request = Request { mailbox, is_wanted, void, wanted };
    if let Err(refusal) = link.ask(request, front.now(), |command| call.write(command)) {
        if is_wanted {
            let start = reply.as_bytes().len();
            reply.buffer_mut().extend_from_slice(&refusal);
            state.splice(start, reply);
        }
        return Look::Done;
    }
    // Even if the client wants no reply: what follows may go another way.
    state.awaited += 1;
    note_asked(front, state, touches, call.arguments);
    session.worker.counters.front_passed.add(1);
    count(session, call.arguments);
    Look::Done
}

/// Keys that are written, or read, must not be read in memory before that is
/// done.
fn note_asked(front: &Front, state: &mut FrontSession, touches: Touches, arguments: &[&[u8]]) {
    const ASKED_MAX: usize = 64;
    let spec = match touches {
        Touches::Keys(spec) => spec,
        // Its arguments are keys, if it reads strings, and else do no harm.
        Touches::Nothing => KeySpec::ALL,
        Touches::Arguments | Touches::Everything => {
            state.is_barred = true;
            return;
        }
        Touches::Unknown => {
            state.is_writing = true;
            return;
        }
    };
    if arguments.len() + state.asked.len() > ASKED_MAX {
        // Too many to compare with.
        state.is_barred = true;
        return;
    }
    let keys = spec.positions(arguments.len()).map(|place| front.memory.hash(arguments[place]));
    state.asked.extend(keys);
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

/// Waits for replies that Redis owes this client, and moves what has come to the
/// reply. Returns whether more is to come.
///
/// # Errors
/// If part of a reply was lost: the connection cannot go on.
pub(crate) async fn receive(session: &mut Session, reply: &mut Reply) -> std::io::Result<bool> {
    let worker = Arc::clone(&session.worker);
    let (Some(state), Some(worker)) = (&mut session.front, &worker.front) else { return Ok(false) };
    if state.awaited == 0 {
        worker.link(reply.protocol()).room().await;
        return Ok(false);
    }
    std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<()> {
        state.mailbox.poll_mail(state.awaited - state.received, cx)
    })
    .await;
    if state.collect(reply.buffer_mut()) == Taken::Broken {
        return Err(std::io::Error::other("part of a reply of Redis was lost"));
    }
    if state.received < state.awaited {
        return Ok(true);
    }
    state.settle(&worker.front);
    Ok(false)
}
