//! A client with a connection of its own: what it sends goes there, what comes
//! goes to it, each side no faster than the other takes it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::both;
use super::cluster::redirect::{Redirect, TRIES_MAX, TRY_AGAIN_AFTER, learn};
use super::course::{Pin, Touches};
use super::link::refusal;
use super::nodes::Node;
use super::pinned::{Delivery, Kind, Owed, Pinned};
use super::turn::{Taken, WAITING_BYTES_MAX, plain, take};
use super::wire::encode;
use super::{Front, FrontWorker};
use crate::resp::connection::{Connection, Next, receive_from, send_to};
use crate::resp::scratch::Scratch;
use crate::resp::{Protocol, Reply};

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
        let has_begun = self.session.front.as_mut().is_some_and(|it| {
            // It was answered, but Redis was not told.
            std::mem::take(&mut it.has_held_multi)
        });
        let Some(mut pinned) = self.pin(worker, scratch.reply.protocol()).await else {
            // The command gets the error as its reply.
            return if has_begun { self.abandon(scratch).await } else { Ok(Next::Read) };
        };
        if has_begun {
            begin(&mut pinned);
        }
        let mut has_client_left = false;
        let mut tries = 0;
        loop {
            let taken = take(&mut self.session, &worker.front, &mut pinned, scratch);
            match taken {
                Taken::Sent if has_client_left && (pinned.is_settled() || pinned.is_blocked()) => {
                    return self.end(worker, scratch).await;
                }
                Taken::Sent => {}
                Taken::Leave => {
                    leave(worker, *pinned);
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
                taken => {
                    if !self.answer_taken(worker, &mut pinned, taken, scratch).await? {
                        return self.abandon(scratch).await;
                    }
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
            if let Some(moved) = pinned.take_moved() {
                tries += 1;
                self.send_on(worker, &mut pinned, moved, tries, scratch).await;
            }
        }
    }

    /// What takes waiting for others than the two sockets. Returns whether the
    /// connection to Redis is still there.
    async fn answer_taken(
        &mut self,
        worker: &FrontWorker,
        pinned: &mut Pinned,
        taken: Taken,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        match taken {
            Taken::Wait(pause) => self.answer_pause(pause, scratch).await,
            Taken::Detour(arguments) => {
                both::ask_whole(&mut self.session, &arguments, &mut scratch.reply).await?;
            }
            Taken::Exec(delivery) => self.exec(pinned, delivery, &scratch.reply).await,
            Taken::Move(node) => return Ok(self.move_transaction(worker, pinned, node).await),
            _ => {}
        }
        Ok(true)
    }

    /// Runs a transaction that caches have a part in: first they are asked.
    async fn exec(&mut self, pinned: &mut Pinned, delivery: Delivery, reply: &Reply) {
        let plan = pinned.take_plan().unwrap_or_default();
        let loaded = both::load(&mut self.session, &plan, reply.protocol()).await;
        let (name, pin, wanted): (&[u8], _, _) = match loaded {
            Ok(known) => (b"EXEC", Pin::Exec, Delivery::Together(known)),
            Err(refusal) => (b"DISCARD", Pin::Discard, Delivery::Instead(refusal)),
        };
        let delivery = if delivery == Delivery::Drop { Delivery::Drop } else { wanted };
        encode(&[name], &mut pinned.outgoing);
        let owed = Owed { kind: Kind::Pin(pin), delivery, ..plain() };
        pinned.sent(owed, Touches::Nothing, &[]);
    }

    /// Opens the transaction anew at the server where it belongs: all it has
    /// queued are commands without keys.
    async fn move_transaction(
        &mut self,
        worker: &FrontWorker,
        pinned: &mut Pinned,
        node: Arc<Node>,
    ) -> bool {
        worker.front.note_closed();
        let Ok(wire) = worker.wire(&node, pinned.wire.protocol).await else { return false };
        pinned.move_to(node, wire);
        begin(pinned);
        for command in std::mem::take(&mut pinned.replay) {
            pinned.outgoing.extend_from_slice(&command);
            pinned.resent(Some(Owed { delivery: Delivery::Drop, ..plain() }));
        }
        true
    }

    /// Sends the only command under way to the server that it was sent on to.
    async fn send_on(
        &mut self,
        worker: &FrontWorker,
        pinned: &mut Pinned,
        (owed, redirect, command): (Option<Owed>, Redirect, Vec<u8>),
        tries: u32,
        scratch: &mut Scratch,
    ) {
        let node = learn(&worker.front, &pinned.node, &redirect);
        let error = match (node, &redirect) {
            _ if tries >= TRIES_MAX => Some(redirect.refusal()),
            (None, Redirect::TryAgain) => {
                tokio::time::sleep(TRY_AGAIN_AFTER * tries).await;
                None
            }
            (None, _) => Some(redirect.refusal()),
            (Some(node), _) => match worker.wire(&node, pinned.wire.protocol).await {
                Ok(wire) => {
                    worker.front.note_closed();
                    pinned.move_to(node, wire);
                    None
                }
                Err(error) => Some(refusal(&error)),
            },
        };
        if let Some(error) = error {
            // What it would have changed of the connection is not.
            pinned.forget_state();
            if owed.as_ref().is_none_or(|owed| owed.delivery != Delivery::Drop) {
                scratch.reply.buffer_mut().extend_from_slice(&error);
            }
            return;
        }
        if matches!(redirect, Redirect::Ask(_)) {
            encode(&[b"ASKING"], &mut pinned.outgoing);
            pinned.resent(Some(Owed { delivery: Delivery::Drop, ..plain() }));
        }
        pinned.outgoing.extend_from_slice(&command);
        pinned.resent(owed);
        pinned.again = Some(command);
    }

    /// The client was told that a transaction is open, and it is not: it is
    /// disconnected, as it would be by Redis.
    async fn abandon(&mut self, scratch: &mut Scratch) -> io::Result<Next> {
        if let Some(refusal) = self.session.front.as_mut().and_then(|it| it.refusal.take()) {
            scratch.reply.buffer_mut().extend_from_slice(&refusal);
        }
        self.write(&mut scratch.reply).await?;
        Ok(Next::Close)
    }

    /// Gets the connection, or leaves the reason why not.
    async fn pin(&mut self, worker: &FrontWorker, protocol: Protocol) -> Option<Box<Pinned>> {
        let front = &worker.front;
        let state = self.session.front.as_mut()?;
        let place = front.memory.validity.place_of_slot(0).node;
        let node = state.pin_to.take().or_else(|| front.nodes.get(place))?;
        match worker.wire(&node, protocol).await {
            Ok(wire) => {
                let bytes_max = self.session.shared.settings.reply_bytes_max.get();
                let plans = !self.session.shared.routes.is_empty();
                Some(Box::new(Pinned::new(node, wire, bytes_max).planning(plans)))
            }
            Err(error) => {
                state.refusal = Some(refusal(&error));
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
        let error = pinned.node.upstream.unavailable(error);
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

/// The connection is needed no more: others may have it, if it is as new.
fn leave(worker: &FrontWorker, pinned: Pinned) {
    if pinned.is_marked() {
        worker.front.note_closed();
    } else {
        worker.give_back(pinned.node, pinned.wire);
    }
}

/// Opens a transaction whose client knows already that it is open.
fn begin(pinned: &mut Pinned) {
    encode(&[b"MULTI"], &mut pinned.outgoing);
    let owed = Owed { kind: Kind::Pin(Pin::Multi), delivery: Delivery::Drop, ..plain() };
    pinned.sent(owed, Touches::Nothing, &[]);
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
