//! A client with a connection of its own: what it sends goes there, what comes
//! goes to it, each side no faster than the other takes it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::course::{Course, Pin, Touches};
use super::link::refusal;
use super::pinned::{Delivery, Kind, Owed, Pinned};
use super::request::Void;
use super::session::{
    Call, NO_REPLICATION, blocks, client_course, count, is_about_larder, key_spec, wants_reply,
};
use super::wire::encode;
use super::{Front, FrontWorker};
use crate::resp::arguments::OwnedArguments;
use crate::resp::connection::{Connection, Next, Pause, receive_from, send_to};
use crate::resp::scratch::{Scratch, recycle};
use crate::resp::session::{Session, Step};
use crate::resp::{Protocol, Reply, cached};

/// So much may wait for either side before the other is read no more.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// So many replies are awaited at a time.
const OWED_MAX: usize = 1024;

/// What came of the commands that have arrived.
enum Taken {
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
}

/// What happened on the sockets.
enum Event {
    Moved,
    ClientLeft,
    RedisLeft(io::Error),
}

impl Connection {
    /// Serves a client that needs a connection of its own until it does not.
    pub(crate) async fn serve_pinned(&mut self, scratch: &mut Scratch) -> io::Result<Next> {
        let worker = Arc::clone(&self.session.worker);
        let Some(worker) = &worker.front else { return Ok(Next::Close) };
        let Some(mut pinned) = self.pin(worker, scratch.reply.protocol()).await else {
            // The command gets the error as its reply.
            return Ok(Next::Read);
        };
        let mut has_client_left = false;
        loop {
            match take(&mut self.session, &worker.front, &mut pinned, scratch) {
                Taken::Sent if has_client_left && (pinned.is_settled() || pinned.is_blocked()) => {
                    return self.end(worker, scratch).await;
                }
                Taken::Sent => {}
                Taken::Leave => {
                    if pinned.is_marked() {
                        worker.front.note_closed();
                    } else {
                        worker.give_back(pinned.wire);
                    }
                    if !has_client_left {
                        return Ok(Next::Read);
                    }
                    // It may still read what it asked for.
                    self.write(&mut scratch.reply).await?;
                    return Ok(Next::Close);
                }
                Taken::Drop => {
                    worker.front.note_closed();
                    return Ok(Next::Read);
                }
                Taken::Close => return self.end(worker, scratch).await,
                Taken::Wait(pause) => {
                    self.answer_pause(pause, scratch).await;
                    continue;
                }
            }
            let exchange =
                poll_fn(|cx| self.poll_exchange(&mut pinned, scratch, has_client_left, cx));
            match exchange.await.inspect_err(|_| worker.front.note_closed())? {
                Event::ClientLeft if pinned.is_fed() || pinned.is_blocked() => {
                    return self.end(worker, scratch).await;
                }
                Event::ClientLeft => has_client_left = true,
                Event::RedisLeft(error) => {
                    return self.lose(&worker.front, *pinned, &error, scratch).await;
                }
                Event::Moved => match pinned.hand_on(&worker.front, scratch.reply.buffer_mut()) {
                    Ok(true) => self.note_unknown_write(&worker.front),
                    Ok(false) => {}
                    Err(why) => {
                        let error = io::Error::other(why);
                        return self.lose(&worker.front, *pinned, &error, scratch).await;
                    }
                },
            }
        }
    }

    /// Gets the connection, or leaves the reason why not.
    async fn pin(&mut self, worker: &FrontWorker, protocol: Protocol) -> Option<Box<Pinned>> {
        match worker.wire(protocol).await {
            Ok(wire) => Some(Box::new(Pinned::new(wire))),
            Err(error) => {
                if let Some(state) = &mut self.session.front {
                    state.refusal = Some(refusal(&error));
                }
                None
            }
        }
    }

    fn note_unknown_write(&mut self, front: &Front) {
        if let Some(state) = &mut self.session.front {
            state.note_unknown_write(front);
        }
    }

    /// The client ends, and its connection to Redis with it.
    async fn end(&mut self, worker: &FrontWorker, scratch: &mut Scratch) -> io::Result<Next> {
        worker.front.note_closed();
        self.write(&mut scratch.reply).await?;
        Ok(Next::Close)
    }

    /// Redis has hung up. Where that costs the client no more than replies, it
    /// goes on; else it is disconnected, as it would be by Redis.
    async fn lose(
        &mut self,
        front: &Front,
        pinned: Pinned,
        error: &io::Error,
        scratch: &mut Scratch,
    ) -> io::Result<Next> {
        let error = front.upstream.unavailable(error);
        front.note_lost(&error);
        let is_saved = pinned.fail(front, &refusal(&error), scratch.reply.buffer_mut()).is_some();
        self.write(&mut scratch.reply).await?;
        Ok(if is_saved { Next::Read } else { Next::Close })
    }

    /// Reads and writes both sockets as far as they go.
    fn poll_exchange(
        &mut self,
        pinned: &mut Pinned,
        scratch: &mut Scratch,
        has_client_left: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Event>> {
        let mut has_moved = false;
        match poll_redis(pinned, scratch.reply.as_bytes().len(), cx) {
            Ok(moved) => has_moved |= moved,
            Err(error) => return Poll::Ready(Ok(Event::RedisLeft(error))),
        }
        has_moved |= self.poll_give(&mut scratch.reply, cx)?;
        let is_open = !has_client_left && pinned.outgoing.len() < WAITING_BYTES_MAX;
        if is_open && scratch.input.len() - scratch.used < self.input_room(scratch) {
            match self.poll_take(scratch, cx) {
                // What Redis sent comes first: nothing may come after it. That the
                // client has left is found again.
                Poll::Ready(Ok(0) | Err(_)) if has_moved => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Event::ClientLeft)),
                Poll::Ready(Ok(_)) => has_moved = true,
                Poll::Pending => {}
            }
        }
        if has_moved { Poll::Ready(Ok(Event::Moved)) } else { Poll::Pending }
    }

    /// How much input may wait: as much as one command may have, once it has
    /// begun to arrive.
    fn input_room(&self, scratch: &Scratch) -> usize {
        let held = scratch.input.len() - scratch.used;
        if scratch.parser.missing_bytes(held) > 0 { usize::MAX } else { WAITING_BYTES_MAX }
    }

    /// Writes replies to the client.
    fn poll_give(&mut self, reply: &mut Reply, cx: &mut Context<'_>) -> io::Result<bool> {
        let client = &self.session.client;
        let mut written = 0;
        while written < reply.as_bytes().len() {
            match self.stream().poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    client.set_stalled(self.session.shared.clock.now());
                    break;
                }
            }
            match send_to(self.stream(), &reply.as_bytes()[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if written > 0 {
            client.clear_stalled();
            client.set_active(self.session.shared.clock.now());
            self.session.worker.counters.output_bytes.add(written as u64);
            reply.buffer_mut().drain(..written);
        }
        Ok(written > 0)
    }

    /// Reads from the client.
    fn poll_take(&self, scratch: &mut Scratch, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.stream().poll_read_ready(cx))?;
            scratch.make_room();
            match receive_from(self.stream(), &mut scratch.input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => {
                    if let Ok(count) = received {
                        self.note_input(count, self.session.shared.clock.now());
                    }
                    return Poll::Ready(received);
                }
            }
        }
    }
}

/// Writes to Redis, and reads from it unless the client is behind.
fn poll_redis(pinned: &mut Pinned, waiting: usize, cx: &mut Context<'_>) -> io::Result<bool> {
    let mut has_moved = false;
    let mut written = 0;
    while written < pinned.outgoing.len() {
        match pinned.wire.poll_write(cx, &pinned.outgoing[written..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => written += count,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if written > 0 {
        pinned.outgoing.drain(..written);
        has_moved = true;
    }
    if let Poll::Ready(Err(error)) = pinned.wire.poll_flush(cx) {
        return Err(error);
    }
    if waiting < WAITING_BYTES_MAX {
        match pinned.wire.poll_read(cx, &mut pinned.incoming) {
            Poll::Ready(Ok(_)) => has_moved = true,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
    }
    Ok(has_moved)
}

/// Sends on what has arrived from the client, as far as it may be.
fn take(session: &mut Session, front: &Front, pinned: &mut Pinned, scratch: &mut Scratch) -> Taken {
    loop {
        if session.is_closing || session.client.is_closing() {
            return Taken::Close;
        }
        let is_full = pinned.outgoing.len() >= WAITING_BYTES_MAX
            || pinned.owed_count() >= OWED_MAX
            || scratch.reply.as_bytes().len() >= WAITING_BYTES_MAX;
        if is_full {
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
        match step {
            One::Done => scratch.used += length,
            One::Later => {
                scratch.parser.restart();
                return Taken::Sent;
            }
            One::Leave => {
                scratch.parser.restart();
                return Taken::Leave;
            }
            One::Reset => {
                scratch.used += length;
                return if session.is_closing { Taken::Close } else { Taken::Drop };
            }
            One::Wait(pause) => {
                scratch.used += length;
                return Taken::Wait(pause);
            }
        }
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
            if let Some(one) = at_cache(session, pinned, course, call, reply) {
                return one;
            }
        }
    }
    if let Some(refusal) = unacceptable(course, call.arguments) {
        spoil(session, pinned, refusal, reply);
        return One::Done;
    }
    send(session, front, pinned, course, call);
    One::Done
}

/// Sends a command on.
fn send(
    session: &mut Session,
    front: &Front,
    pinned: &mut Pinned,
    course: Course,
    call: &Call<'_>,
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
    call.write(&mut pinned.outgoing);
    let delivery = if wants_reply(session) { Delivery::Give } else { Delivery::Drop };
    let is_unknown = touches == Touches::Unknown;
    let owed = Owed { kind, void, is_unknown, blocks, delivery };
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

fn is_reset_or_quit(arguments: &[&[u8]]) -> bool {
    matches!(arguments, [name] if name.eq_ignore_ascii_case(b"reset") || name.eq_ignore_ascii_case(b"quit"))
}

/// A command on keys of a configured cache. Inside a transaction there is none;
/// in another database there are no such keys.
fn at_cache(
    session: &mut Session,
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
    let is_watch = course == Course::Pins(Pin::Watch);
    if pinned.is_in_multi() || is_mixed || is_watch || shared.table.find(call.arguments).is_err() {
        let text = if is_watch {
            cached::watch_refusal(key, cache.name())
        } else {
            format!(
                "ERR '{}' belongs to the read-through cache '{}', which takes no part in \
                 transactions of Redis; read it outside",
                cached::shown(key),
                cache.name()
            )
        };
        spoil(session, pinned, &text, reply);
        return Some(One::Done);
    }
    Some(own(session, pinned, call, reply))
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

fn plain() -> Owed {
    Owed {
        kind: Kind::Plain,
        void: Void::Nothing,
        is_unknown: false,
        blocks: false,
        delivery: Delivery::Give,
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
