//! What becomes of each command of a client that has a connection of its own.

use std::sync::Arc;

use super::Front;
use super::both::{Halves, Planned};
use super::cluster::place::{Place, first_key, of as place_of};
use super::course::{Course, Pin, Touches};
use super::nodes::Node;
use super::pinned::{Delivery, Kind, Owed, Pinned};
use super::request::Void;
use super::session::{
    Call, NO_REPLICATION, blocks, client_course, count, is_about_larder, key_spec, name_of,
    wants_reply,
};
use super::wire::encode;
use crate::resp::arguments::OwnedArguments;
use crate::resp::command::OnCache;
use crate::resp::connection::Pause;
use crate::resp::scratch::{Scratch, recycle};
use crate::resp::session::{Session, Step};
use crate::resp::{Protocol, Reply, cached, written};

/// So much may wait for either side before the other is read no more.
pub(crate) const WAITING_BYTES_MAX: usize = 256 * 1024;

/// So many replies are awaited at a time.
const OWED_MAX: usize = 1024;

/// So much of a transaction is kept that has not said yet where it belongs.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What came of the commands that have arrived.
pub(crate) enum Taken {
    /// All that can be sent is: now it is up to the sockets.
    Sent,
    /// No connection of its own is needed any more, and this one is as new.
    Leave,
    /// It is needed no more, and of no use to others.
    Drop,
    /// The client or an operator ends the connection.
    Close,
    /// A cache is to load something first.
    Wait(Pause),
    /// A transaction that caches have a part in is to run.
    Exec(Delivery),
    /// The transaction belongs to this server of the cluster.
    Move(Arc<Node>),
    /// A command that goes over shared connections, as whole.
    Detour(OwnedArguments),
}

/// Sends on what has arrived from the client, as far as it may be.
pub(crate) fn take(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    scratch: &mut Scratch,
) -> Taken {
    loop {
        if session.is_closing || session.client.is_closing() {
            return Taken::Close;
        }
        let is_full = pinned.outgoing.len() >= WAITING_BYTES_MAX
            || pinned.owed_count() >= OWED_MAX
            || scratch.reply.as_bytes().len() >= WAITING_BYTES_MAX;
        // What may be sent once more goes alone.
        if is_full || pinned.again.is_some() {
            return Taken::Sent;
        }
        let input = &scratch.input[scratch.used..];
        let length = match scratch.parser.parse(input, session.limits()) {
            Ok(Some(length)) => length,
            Ok(None) if pinned.is_settled() && !pinned.has_state() => return Taken::Leave,
            Ok(None) => return Taken::Sent,
            Err(_) if !pinned.is_settled() => {
                scratch.parser.restart();
                return Taken::Sent;
            }
            Err(error) => {
                session.worker.counters.protocol_errors.add(1);
                scratch.reply.error(&format!("ERR {error}"));
                return Taken::Close;
            }
        };
        let mut arguments = recycle(std::mem::take(&mut scratch.arguments));
        scratch.parser.arguments(input, &mut arguments);
        let raw = (!scratch.parser.is_inline()).then(|| &input[..length]);
        let call = Call { arguments: &arguments, raw, now: session.shared.clock.now() };
        let step = take_one(session, front, pinned, &call, &mut scratch.reply);
        scratch.arguments = recycle(arguments);
        let is_taken = !matches!(step, One::Later | One::Leave | One::Move(_));
        if is_taken {
            scratch.used += length;
        } else {
            scratch.parser.restart();
        }
        return match step {
            One::Done => continue,
            One::Later => Taken::Sent,
            One::Leave => Taken::Leave,
            One::Reset if session.is_closing => Taken::Close,
            One::Reset => Taken::Drop,
            One::Wait(pause) => Taken::Wait(pause),
            One::Exec(delivery) => Taken::Exec(delivery),
            One::Move(node) => Taken::Move(node),
            One::Detour(arguments) => Taken::Detour(arguments),
        };
    }
}

/// What came of one command.
enum One {
    Done,
    /// It waits until nothing is owed.
    Later,
    /// It needs no connection of its own.
    Leave,
    /// The client begins anew, or ends.
    Reset,
    Wait(Pause),
    Exec(Delivery),
    /// It waits until the connection leads to this server.
    Move(Arc<Node>),
    Detour(OwnedArguments),
}

fn take_one(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    call: &Call<'_>,
    reply: &mut Reply,
) -> One {
    let Some(&name) = call.arguments.first() else { return One::Done };
    let course = match Course::of(name) {
        Course::Client => match client_course(call.arguments) {
            // What it says of the connection is then of the one to Redis.
            Course::Own if pinned.is_in_multi() && !is_client_reply(call.arguments) => {
                pinned.mark();
                Course::Shared(Touches::Nothing)
            }
            course => course,
        },
        Course::Info if !is_about_larder(call.arguments) => Course::Shared(Touches::Nothing),
        course => course,
    };
    // Whoever ended as another user must log in again first.
    if !session.is_trusted && course != Course::Own {
        return if pinned.is_settled() { One::Leave } else { One::Later };
    }
    let needs_pin = matches!(course, Course::Pins(_) | Course::Apart(_) | Course::Select)
        || matches!(course, Course::MayBlock(_) if blocks(call.arguments));
    if !pinned.has_state() && !needs_pin {
        return if pinned.is_settled() { One::Leave } else { One::Later };
    }
    let is_ping = name.eq_ignore_ascii_case(b"ping");
    match course {
        Course::Own | Course::Info if is_ping => {}
        Course::Own | Course::Info => return own(session, pinned, call, reply),
        _ => {
            if let Some(one) = at_cache(session, front, pinned, course, call, reply) {
                return one;
            }
        }
    }
    if let Some(refusal) = unacceptable(course, call.arguments) {
        spoil(session, pinned, refusal, reply);
        return One::Done;
    }
    if course == Course::Pins(Pin::Exec) && pinned.reads_caches() {
        return exec(session, pinned);
    }
    if front.options.is_cluster()
        && let Some(one) = at_server(session, front, pinned, (course, needs_pin), call, reply)
    {
        return one;
    }
    send(session, front, pinned, course, call, None);
    One::Done
}

/// Caches are asked once all is queued.
fn exec(session: &mut Session, pinned: &Pinned) -> One {
    if !pinned.is_settled() {
        return One::Later;
    }
    One::Exec(if wants_reply(session) { Delivery::Give } else { Delivery::Drop })
}

/// Whether a command is one for the server of the cluster that the connection
/// leads to; `None` if it is.
fn at_server(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    (course, needs_pin): (Course, bool),
    call: &Call<'_>,
    reply: &mut Reply,
) -> Option<One> {
    let needs_pin = match place_of(call.arguments) {
        Place::Refuse(refusal) => {
            spoil(session, pinned, &refusal.text(call.arguments[0]), reply);
            return Some(One::Done);
        }
        Place::All(_) | Place::Scan if pinned.is_in_multi() => {
            let text = "ERR this command is for every server of the cluster: send it outside the \
                        transaction";
            spoil(session, pinned, text, reply);
            return Some(One::Done);
        }
        Place::Key(_) => needs_pin,
        _ => needs_pin && !matches!(course, Course::Apart(_)),
    };
    let validity = &front.memory.validity;
    let key = first_key(call.arguments);
    let place = key.map(|key| validity.place(key));
    let is_here = place.is_none_or(|place| place.node == pinned.node.place);
    if pinned.is_in_multi() {
        let Some(place) = place else {
            keep_for_replay(pinned, course, call);
            return None;
        };
        if pinned.slot.is_none() && !is_here && !pinned.is_watching() {
            // Nothing in it has said so far where it belongs.
            let node = front.nodes.get(place.node)?;
            return Some(if pinned.is_settled() { One::Move(node) } else { One::Later });
        }
        if pinned.slot.is_some_and(|slot| slot != place.slot) || !is_here {
            spoil(session, pinned, CROSS_SLOT, reply);
            return Some(One::Done);
        }
        pinned.slot = Some(place.slot);
        pinned.replay.clear();
        return None;
    }
    let is_about_channels = matches!(course, Course::Pins(Pin::Subscribe));
    if needs_pin && (is_here || is_about_channels && key.is_none()) {
        return None;
    }
    if !pinned.is_settled() {
        return Some(One::Later);
    }
    if !pinned.has_state() {
        return Some(One::Leave);
    }
    if pinned.take_unconfirmed() {
        // What it listens to shows once Redis has answered.
        encode(&[b"PING"], &mut pinned.outgoing);
        pinned.sent(Owed { delivery: Delivery::Drop, ..plain() }, Touches::Nothing, &[]);
        return Some(One::Later);
    }
    if !needs_pin && pinned.takes_only_channels() {
        return None;
    }
    if needs_pin && key.is_some() {
        spoil(session, pinned, CROSS_SLOT, reply);
        return Some(One::Done);
    }
    Some(One::Detour(OwnedArguments::new(call.arguments)))
}

/// A transaction may begin with commands that name no key.
fn keep_for_replay(pinned: &mut Pinned, course: Course, call: &Call<'_>) {
    let is_queued = !matches!(course, Course::Pins(_));
    let kept: usize = pinned.replay.iter().map(Vec::len).sum();
    if is_queued && pinned.slot.is_none() && kept < REPLAY_BYTES_MAX {
        let mut command = Vec::new();
        call.write(&mut command);
        pinned.replay.push(command);
    }
}

/// Sends a command on.
fn send(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    course: Course,
    call: &Call<'_>,
    planned: Option<Planned>,
) {
    let touches = match course {
        Course::Shared(touches) | Course::Apart(touches) | Course::MayBlock(touches) => touches,
        _ => Touches::Nothing,
    };
    let kind = match course {
        Course::Pins(pin) => Kind::Pin(pin),
        Course::Select => Kind::Select { is_home: is_home(front, call.arguments) },
        _ => Kind::Plain,
    };
    let blocks = matches!(course, Course::Apart(_) | Course::MayBlock(_)) && !pinned.is_in_multi();
    if matches!(course, Course::Apart(Touches::Nothing)) && is_wait(call.arguments) {
        // What it waits for are the writes before it, of whatever connection:
        // Redis notes them with each command.
        encode(&[b"PING"], &mut pinned.outgoing);
        pinned.sent(Owed { delivery: Delivery::Drop, ..plain() }, Touches::Nothing, &[]);
    }
    let void = Void::of(touches, call.arguments);
    void.apply(&front.memory);
    let start = pinned.outgoing.len();
    let is_first = pinned.is_settled() && !pinned.has_state();
    call.write(&mut pinned.outgoing);
    let may_move = matches!(kind, Kind::Plain | Kind::Pin(Pin::Watch | Pin::Subscribe));
    if front.options.is_cluster() && is_first && may_move && first_key(call.arguments).is_some() {
        pinned.again = Some(pinned.outgoing[start..].to_vec());
    }
    let delivery = if wants_reply(session) { Delivery::Give } else { Delivery::Drop };
    let is_unknown = touches == Touches::Unknown;
    let owed = Owed { kind, void, is_unknown, blocks, delivery, planned };
    pinned.sent(owed, touches, call.arguments);
    session.worker.counters.front_passed.add(1);
    count(session, call.arguments);
}

/// Runs one of Larder's own commands, in turn.
fn own(session: &mut Session, pinned: &mut Pinned, call: &Call<'_>, reply: &mut Reply) -> One {
    if pinned.is_in_multi() && !is_reset_or_quit(call.arguments) {
        spoil(session, pinned, "ERR Command not allowed inside a transaction", reply);
        return One::Done;
    }
    if !pinned.is_settled() {
        return One::Later;
    }
    if is_reset_or_quit(call.arguments) {
        return reset_or_quit(session, call, reply);
    }
    let (start, before) = (reply.as_bytes().len(), reply.protocol());
    let step = session.execute(call.arguments, reply);
    let one = match step {
        Step::Done => {
            session.settle_reply(start, reply);
            One::Done
        }
        Step::Gather(group) => One::Wait(Pause::Load(group)),
        Step::Wait(entry) => One::Wait(Pause::Wait(entry, OwnedArguments::new(call.arguments))),
    };
    if reply.protocol() != before {
        switch(pinned, reply.protocol());
    }
    one
}

/// Lets the connection speak what the client speaks.
fn switch(pinned: &mut Pinned, protocol: Protocol) {
    let version: &[u8] = match protocol {
        Protocol::Resp2 => b"2",
        Protocol::Resp3 => b"3",
    };
    encode(&[b"HELLO", version], &mut pinned.outgoing);
    pinned.wire.protocol = protocol;
    pinned.sent(Owed { delivery: Delivery::Drop, ..plain() }, Touches::Nothing, &[]);
}

/// Ends what Redis remembers by ending the connection.
fn reset_or_quit(session: &mut Session, call: &Call<'_>, reply: &mut Reply) -> One {
    let start = reply.as_bytes().len();
    let _ = session.execute(call.arguments, reply);
    session.settle_reply(start, reply);
    One::Reset
}

pub(crate) fn is_reset_or_quit(arguments: &[&[u8]]) -> bool {
    matches!(arguments, [name] if name.eq_ignore_ascii_case(b"reset") || name.eq_ignore_ascii_case(b"quit"))
}

/// A command on keys of a configured cache. In another database there are no such
/// keys.
fn at_cache(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    course: Course,
    call: &Call<'_>,
    reply: &mut Reply,
) -> Option<One> {
    if session.shared.routes.is_empty() || pinned.is_elsewhere() {
        return None;
    }
    let shared = Arc::clone(&session.shared);
    let spec = key_spec(session, course, call.arguments)?;
    let mut keys = spec.positions(call.arguments.len()).map(|place| call.arguments[place]);
    let (key, cache) = keys.clone().find_map(|key| Some((key, shared.routes.route(key)?)))?;
    let is_mixed = keys.any(|key| shared.routes.route(key).is_none());
    let refusal = if course == Course::Pins(Pin::Watch) {
        Some(cached::watch_refusal(key, cache.name()))
    } else {
        match shared.table.find(call.arguments) {
            Ok(entry) if !entry.takes(call.arguments.len()) => {
                Some(format!("ERR wrong number of arguments for '{}' command", entry.command.name))
            }
            Ok(entry) if entry.command.on_cache != OnCache::Refuse => None,
            // The door itself says why some of these writes do not happen.
            Ok(_) if written::takes_writes(cache) && !is_mixed && !pinned.is_in_multi() => None,
            Ok(_) if written::takes_writes(cache) && is_mixed => {
                Some(cached::mixed_refusal(key, cache.name()))
            }
            _ => Some(written::refusal(&name_of(call.arguments), key, cache)),
        }
    };
    if let Some(refusal) = refusal {
        spoil(session, pinned, &refusal, reply);
        return Some(One::Done);
    }
    if is_mixed && Halves::of(session, call.arguments).is_none() {
        spoil(session, pinned, &cached::mixed_refusal(key, cache.name()), reply);
        return Some(One::Done);
    }
    if pinned.is_in_multi() {
        return Some(queue(session, front, pinned, course, call, reply));
    }
    if is_mixed {
        let arguments = OwnedArguments::new(call.arguments);
        return Some(if pinned.is_settled() { One::Detour(arguments) } else { One::Later });
    }
    Some(own(session, pinned, call, reply))
}

/// Queues what caches answer, and sends on Redis' part, if it has one.
fn queue(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    course: Course,
    call: &Call<'_>,
    reply: &mut Reply,
) -> One {
    let Ok(entry) = session.shared.table.find(call.arguments) else { return One::Done };
    let halves = Halves::of(session, call.arguments).filter(|halves| halves.redis.len() > 1);
    let planned = match &halves {
        None => Planned::Cache(entry, OwnedArguments::new(call.arguments)),
        Some(halves) => Planned::Both {
            entry,
            caches: OwnedArguments::new(&halves.caches),
            making: halves.making.clone(),
        },
    };
    let bytes_max = session.shared.settings.query_bytes_max.get();
    if !pinned.has_room_for(&planned, bytes_max) {
        let text = format!(
            "ERR the transaction is larger than {bytes_max} bytes; make it smaller, or raise \
             client-query-buffer-limit"
        );
        spoil(session, pinned, &text, reply);
        return One::Done;
    }
    if let Some(halves) = halves {
        let call = Call { arguments: &halves.redis, raw: None, now: call.now };
        if front.options.is_cluster()
            && let Some(one) = at_server(session, front, pinned, (course, false), &call, reply)
        {
            return one;
        }
        pinned.note_planned(&planned);
        send(session, front, pinned, course, &call, Some(planned));
        return One::Done;
    }
    pinned.note_planned(&planned);
    let delivery = if wants_reply(session) {
        Delivery::Instead(b"+QUEUED\r\n".to_vec())
    } else {
        Delivery::Drop
    };
    let owed = Owed { kind: Kind::Local, delivery, planned: Some(planned), ..plain() };
    pinned.answer(owed, reply.buffer_mut());
    One::Done
}

/// Why a command cannot be sent on over this connection.
fn unacceptable(course: Course, arguments: &[&[u8]]) -> Option<&'static str> {
    if course == Course::Replica {
        return Some(NO_REPLICATION);
    }
    if is_script_debug(arguments) {
        return Some(
            "ERR SCRIPT DEBUG takes a connection to Redis itself: scripts run where others do",
        );
    }
    let is_redirected = course == Course::Pins(Pin::Tracking)
        && arguments.iter().any(|argument| argument.eq_ignore_ascii_case(b"redirect"));
    is_redirected.then_some(
        "ERR CLIENT TRACKING cannot redirect to another connection through Larder: use RESP3, \
         where invalidations come on the connection itself",
    )
}

/// Refuses a command. A transaction that it was meant for will not run: Redis
/// is sent a mistake in its place.
fn spoil(session: &mut Session, pinned: &mut Pinned, text: &str, reply: &Reply) {
    let mut refusal = Reply::new(reply.protocol());
    refusal.error(text);
    let delivery = if wants_reply(session) {
        Delivery::Instead(refusal.as_bytes().to_vec())
    } else {
        Delivery::Drop
    };
    encode(&[b"GET"], &mut pinned.outgoing);
    pinned.sent(Owed { delivery, ..plain() }, Touches::Nothing, &[]);
}

/// Whether this tells which replies are wanted: Larder sees to that itself.
fn is_client_reply(arguments: &[&[u8]]) -> bool {
    arguments.get(1).is_some_and(|subcommand| subcommand.eq_ignore_ascii_case(b"reply"))
}

/// A reply that says nothing of the connection.
pub(crate) fn plain() -> Owed {
    Owed {
        kind: Kind::Plain,
        void: Void::Nothing,
        is_unknown: false,
        blocks: false,
        delivery: Delivery::Give,
        planned: None,
    }
}

fn is_script_debug(arguments: &[&[u8]]) -> bool {
    matches!(arguments, [name, subcommand, ..]
        if name.eq_ignore_ascii_case(b"script") && subcommand.eq_ignore_ascii_case(b"debug"))
}

fn is_wait(arguments: &[&[u8]]) -> bool {
    arguments[0].eq_ignore_ascii_case(b"wait") || arguments[0].eq_ignore_ascii_case(b"waitaof")
}

/// Whether this selects the database that shared connections are in.
fn is_home(front: &Front, arguments: &[&[u8]]) -> bool {
    let number = front.options.upstream.database.to_string();
    matches!(arguments, [_, index] if *index == number.as_bytes())
}
