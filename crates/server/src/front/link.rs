//! A connection to Redis that the clients of one thread share. What they ask is
//! written in one go, and replies go to their mailboxes in the order of asking.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder_core::{Error, Moment};
use parking_lot::Mutex;

use super::Front;
use super::backoff::Backoff;
use super::cluster::redirect::{self, Redirect};
use super::frame::{Scanned, Scanner};
use super::mailbox::Mailbox;
use super::memory::Fill;
use super::nodes::Node;
use super::request::{Arrived, Request};
use super::wire::{Wire, encode};
use crate::resp::Protocol;
use crate::resp::worker::Worker;

/// With so much unwritten, clients wait before they ask for more.
const OUTGOING_BYTES_MAX: usize = 1 << 20;

/// A reply is handed on in one piece up to this length, and else in parts.
const PART_BYTES: usize = 64 * 1024;

/// How often is checked whether Redis owes a reply for too long.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// A server that is no primary any more owes replies no longer than this: it may
/// stand still, and that is why.
const RETIRED_PATIENCE: Duration = Duration::from_millis(500);

/// For so long, one client that is slow to read holds up the others of its
/// link. Then what comes for it is gathered in memory, as Redis would do.
const HOLD_UP_MAX: Duration = Duration::from_millis(200);

/// A shared connection, which opens when it is first needed.
pub(crate) struct Link {
    front: Arc<Front>,
    node: Arc<Node>,
    protocol: Protocol,
    state: Mutex<State>,
}

struct State {
    /// What to tell clients at once, while Redis cannot be reached.
    refusal: Option<Arc<[u8]>>,
    outgoing: Vec<u8>,
    pending: VecDeque<Pending>,
    /// The task that reads and writes, while it has nothing to write.
    task: Option<Waker>,
    /// Clients that wait until more may be written.
    waiting: Vec<Waker>,
}

impl State {
    fn wake_task(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// A reply that Redis owes.
struct Pending {
    sent_at: Moment,
    kind: Kind,
}

enum Kind {
    /// Somebody waits for it.
    Reply(Request),
    /// How long a key that was just read will live.
    Lifetime,
    /// It says nothing to anybody.
    Nobody,
}

impl Link {
    pub(crate) fn new(front: Arc<Front>, node: Arc<Node>, protocol: Protocol) -> Self {
        let state = State {
            refusal: None,
            outgoing: Vec::new(),
            pending: VecDeque::new(),
            task: None,
            waiting: Vec::new(),
        };
        Self { front, node, protocol, state: Mutex::new(state) }
    }

    /// Sends a command, which `write` appends. Never waits. While Redis cannot
    /// be reached, returns the error to reply instead.
    pub(crate) fn ask(
        &self,
        mut request: Request,
        now: Moment,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Arc<[u8]>> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            return Err(Arc::clone(refusal));
        }
        let start = state.outgoing.len();
        write(&mut state.outgoing);
        if let Some(again) = &mut request.again
            && again.tries == 0
        {
            again.command = state.outgoing[start..].to_vec();
        }
        // A token is for what this server says.
        request.wanted = request.wanted.filter(|wanted| wanted.is_of(self.node.place));
        let lifetimes =
            request.wanted.as_ref().map_or(0, |wanted| wanted.ask_lifetimes(&mut state.outgoing));
        state.pending.push_back(Pending { sent_at: now, kind: Kind::Reply(request) });
        for _ in 0..lifetimes {
            state.pending.push_back(Pending { sent_at: now, kind: Kind::Lifetime });
        }
        state.wake_task();
        Ok(())
    }

    /// Sends a command once more that another server has sent on, with the word
    /// that it did (`ASKING`) if that is needed. Gives the request back with the
    /// error if this one cannot be reached.
    pub(crate) fn ask_again(
        &self,
        request: Request,
        is_asking: bool,
    ) -> Result<(), (Request, Arc<[u8]>)> {
        let sent_at = self.front.now();
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            let refusal = Arc::clone(refusal);
            return Err((request, refusal));
        }
        if is_asking {
            encode(&[b"ASKING"], &mut state.outgoing);
            state.pending.push_back(Pending { sent_at, kind: Kind::Nobody });
        }
        if let Some(again) = &request.again {
            state.outgoing.extend_from_slice(&again.command);
        }
        state.pending.push_back(Pending { sent_at, kind: Kind::Reply(request) });
        state.wake_task();
        Ok(())
    }

    /// Whether clients have to wait before they ask for more.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().outgoing.len() >= OUTGOING_BYTES_MAX
    }

    /// Waits until more may be asked.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.outgoing.len() < OUTGOING_BYTES_MAX {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Reads and writes, on the thread of its clients, until the server retires
    /// and owes nothing.
    pub(crate) async fn run(self: Arc<Self>, worker: Arc<Worker>) {
        let mut ready = None;
        loop {
            let wire = match ready.take() {
                Some(wire) => wire,
                None => {
                    if !self.has_work().await {
                        return self.retire();
                    }
                    match self.front.connect(&self.node, self.protocol).await {
                        Ok(wire) => wire,
                        Err(error) => {
                            self.fail(&error, true);
                            ready = self.reconnect().await;
                            if ready.is_none() {
                                return self.retire();
                            }
                            continue;
                        }
                    }
                }
            };
            match self.serve(wire, &worker).await {
                Some(error) => {
                    self.front.note_lost(&error);
                    // At once again: it may have been closed for having idled.
                    // Whoever asks meanwhile waits for that.
                    self.fail(&error, false);
                }
                None => {
                    self.front.note_closed();
                    return self.retire();
                }
            }
        }
    }

    /// Whoever asks from now on, or has just asked, is told that nobody is there.
    fn retire(&self) {
        self.fail(&self.node.upstream.unavailable(&"it is no primary any more"), true);
    }

    /// Waits until a connection can be opened again, and lets clients ask. It
    /// is tried whether or not somebody asks, so that clients are not told of an
    /// outage that is over.
    async fn reconnect(&self) -> Option<Wire> {
        let mut backoff = Backoff::default();
        loop {
            tokio::select! {
                biased;
                () = self.node.retired.cancelled() => return None,
                () = tokio::time::sleep(backoff.next()) => {}
            }
            match self.front.connect(&self.node, self.protocol).await {
                Ok(wire) => {
                    self.state.lock().refusal = None;
                    return Some(wire);
                }
                Err(error) => self.fail(&error, true),
            }
        }
    }

    /// Waits until somebody asks; false if the server retires first.
    async fn has_work(&self) -> bool {
        let asked = poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.pending.is_empty() {
                return Poll::Ready(());
            }
            state.task = Some(cx.waker().clone());
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = asked => true,
            () = self.node.retired.cancelled() => false,
        }
    }

    /// Serves until the connection is lost, and returns why, or until the server
    /// has retired and owes nothing.
    async fn serve(&self, wire: Wire, worker: &Arc<Worker>) -> Option<Error> {
        let mut line = Line {
            link: self,
            worker,
            wire,
            writing: Vec::new(),
            written: 0,
            incoming: Vec::new(),
            scanned: 0,
            scanner: Scanner::default(),
            is_in_parts: false,
            arrived: None,
            held_up: None,
            sent_on: Vec::new(),
            read_at: self.front.clock.precise_now(),
        };
        let mut check = tokio::time::interval(CHECK_EVERY);
        let error = loop {
            tokio::select! {
                biased;
                error = poll_fn(|cx| line.poll(cx)) => break self.node.upstream.unavailable(&error),
                _ = check.tick() => {
                    if let Some(error) = line.overdue() {
                        break error;
                    }
                    if self.node.is_retired() && self.state.lock().pending.is_empty() {
                        return None;
                    }
                }
            }
        };
        if line.is_in_parts {
            self.tear_first();
        }
        Some(error)
    }

    /// The reply under way has lost its end.
    fn tear_first(&self) {
        let first = self.state.lock().pending.pop_front();
        if let Some(Pending { kind: Kind::Reply(request), .. }) = first {
            request.void.apply(&self.front.memory);
            if request.is_wanted {
                request.to.mailbox().tear();
            } else {
                request.to.put(b"", true);
            }
        }
    }

    /// Gives everybody who waits the error. What was asked may have been done,
    /// so what it may have changed is forgotten.
    fn fail(&self, error: &Error, is_refused: bool) {
        let refusal: Arc<[u8]> = refusal(error).into();
        let mut state = self.state.lock();
        state.outgoing.clear();
        state.refusal = is_refused.then(|| Arc::clone(&refusal));
        for pending in std::mem::take(&mut state.pending) {
            if let Kind::Reply(request) = pending.kind {
                request.void.apply(&self.front.memory);
                request.to.put(if request.is_wanted { &refusal } else { b"" }, true);
            }
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

/// The error as a reply.
pub(crate) fn refusal(error: &Error) -> Vec<u8> {
    let mut reply = crate::resp::Reply::new(Protocol::Resp2);
    reply.error(&format!("UNAVAILABLE {error}"));
    reply.as_bytes().to_vec()
}

/// An open connection at work.
struct Line<'a> {
    link: &'a Link,
    worker: &'a Arc<Worker>,
    wire: Wire,
    writing: Vec<u8>,
    written: usize,
    /// What was read and is not yet handed on.
    incoming: Vec<u8>,
    /// How much of it was scanned.
    scanned: usize,
    scanner: Scanner,
    /// Whether a part of the reply under way was handed on.
    is_in_parts: bool,
    /// Values whose lifetimes are to come.
    arrived: Option<Arrived>,
    /// Whom the link waits for, and since when.
    held_up: Option<(Arc<Mailbox>, Moment)>,
    /// What the server has sent on to others, to be sent there.
    sent_on: Vec<(Request, Redirect)>,
    /// When something was last read.
    read_at: Moment,
}

impl Line<'_> {
    /// Reads and writes what can be; ready with the reason once the connection
    /// is lost.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            let has_written = match self.write(cx) {
                Ok(has_written) => has_written,
                Err(error) => return Poll::Ready(error.to_string()),
            };
            let has_read = match self.read(cx) {
                Ok(has_read) => has_read,
                Err(why) => return Poll::Ready(why),
            };
            if !has_written && !has_read {
                return Poll::Pending;
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        let mut has_written = false;
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.writing.shrink_to(OUTGOING_BYTES_MAX);
                self.written = 0;
                let mut state = self.link.state.lock();
                std::mem::swap(&mut self.writing, &mut state.outgoing);
                if self.writing.is_empty() {
                    state.task = Some(cx.waker().clone());
                    break;
                }
                state.waiting.drain(..).for_each(Waker::wake);
            }
            match self.wire.poll_write(cx, &self.writing[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    has_written = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        match self.wire.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(has_written),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        if self.is_held_up(cx) {
            return Ok(false);
        }
        match self.wire.poll_read(cx, &mut self.incoming) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            Poll::Ready(Ok(_)) => {
                self.read_at = self.link.front.clock.precise_now();
                self.hand_on(cx)?;
                Ok(true)
            }
        }
    }

    /// Whether a client that is slow to read keeps the link from reading.
    fn is_held_up(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((mailbox, since)) = &self.held_up else { return false };
        let is_patient = self.link.front.clock.now().since(*since) < HOLD_UP_MAX;
        if is_patient && mailbox.poll_backlog(cx) {
            return true;
        }
        // The periodic check wakes the link at the end of its patience.
        if !is_patient {
            mailbox.give_up();
            self.link.front.counters.give_ups.fetch_add(1, Ordering::Relaxed);
        }
        self.held_up = None;
        false
    }

    /// Hands on every reply that has arrived.
    fn hand_on(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let incoming = std::mem::take(&mut self.incoming);
        let mut start = 0;
        let link = self.link;
        let mut state = link.state.lock();
        let mut latest = None;
        let result = loop {
            match self.scanner.scan(&incoming[self.scanned..]) {
                Err(_) => break Err("it does not speak RESP".to_owned()),
                Ok(Scanned::Whole(count)) => {
                    self.scanned += count;
                    let reply = &incoming[start..self.scanned];
                    start = self.scanned;
                    // Nobody subscribes here: what is pushed is for nobody.
                    if self.scanner.head() == b'>' && !self.is_in_parts {
                        continue;
                    }
                    let Some(pending) = state.pending.pop_front() else {
                        break Err("it sent a reply that nobody asked for".to_owned());
                    };
                    latest = Some(pending.sent_at);
                    self.finish(pending.kind, reply, cx);
                }
                Ok(Scanned::Part(count)) => {
                    self.scanned += count;
                    let part = &incoming[start..self.scanned];
                    if part.len() >= self.part_bytes(state.pending.front()) {
                        self.hand_on_part(state.pending.front(), part, cx);
                        start = self.scanned;
                    }
                    break Ok(());
                }
            }
        };
        drop(state);
        for (request, redirect) in self.sent_on.drain(..) {
            redirect::follow(self.worker, &link.node, link.protocol, request, &redirect);
        }
        if let Some(sent_at) = latest {
            // One reading of the clock for all that came together.
            self.link.front.counters.note_latency(self.read_at.since(sent_at), 1);
        }
        self.keep_rest(incoming, start);
        result
    }

    fn keep_rest(&mut self, mut incoming: Vec<u8>, start: usize) {
        if start == incoming.len() {
            incoming.clear();
            incoming.shrink_to(4 * PART_BYTES);
        } else {
            incoming.drain(..start);
        }
        self.scanned -= start;
        self.incoming = incoming;
    }

    /// From which length on a reply is handed on before it is complete. One
    /// that is to be kept is gathered, as far as it may be kept.
    fn part_bytes(&self, pending: Option<&Pending>) -> usize {
        match pending {
            Some(Pending { kind: Kind::Reply(Request { wanted: Some(_), .. }), .. })
                if !self.is_in_parts =>
            {
                self.link.front.options.kept_bytes_max.max(PART_BYTES)
            }
            _ => PART_BYTES,
        }
    }

    fn hand_on_part(&mut self, pending: Option<&Pending>, part: &[u8], cx: &mut Context<'_>) {
        let Some(Pending { kind: Kind::Reply(Request { to, is_wanted: true, .. }), .. }) = pending
        else {
            // Nobody wants it: what has come of it need not be held.
            self.is_in_parts |= pending.is_some();
            return;
        };
        to.put(part, false);
        self.is_in_parts = true;
        self.note_backlog(&Arc::clone(to.mailbox()), cx);
    }

    fn note_backlog(&mut self, mailbox: &Arc<Mailbox>, cx: &mut Context<'_>) {
        if self.held_up.is_none() && mailbox.poll_backlog(cx) {
            let front = &self.link.front;
            self.held_up = Some((Arc::clone(mailbox), front.clock.now()));
            front.counters.hold_ups.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reply is complete: `reply`, or its last part.
    fn finish(&mut self, kind: Kind, reply: &[u8], cx: &mut Context<'_>) {
        let memory = &self.link.front.memory;
        let is_whole = !std::mem::take(&mut self.is_in_parts);
        match kind {
            Kind::Reply(request) => {
                if is_whole
                    && request.again.is_some()
                    && let Some(redirect) = Redirect::read(reply)
                {
                    self.arrived = None;
                    self.sent_on.push((request, redirect));
                    return;
                }
                let Request { to, is_wanted, void, wanted, .. } = request;
                // Before the client learns of it.
                void.apply(memory);
                self.arrived = wanted.filter(|_| is_whole).map(|wanted| wanted.arrive(reply));
                to.put(if is_wanted { reply } else { b"" }, true);
                if is_wanted && reply.len() >= PART_BYTES {
                    self.note_backlog(&Arc::clone(to.mailbox()), cx);
                }
            }
            Kind::Nobody => {}
            Kind::Lifetime => {
                let Some(arrived) = &mut self.arrived else { return };
                let counters = &self.worker.counters;
                match arrived.keep_next(memory, reply) {
                    Some(Fill::Kept) => counters.front_fills.add(1),
                    Some(Fill::Crossed) => counters.front_fills_discarded.add(1),
                    Some(Fill::Refused) | None => {}
                }
            }
        }
    }

    /// The error, if Redis owes a reply for too long.
    fn overdue(&self) -> Option<Error> {
        let mut limit = self.link.node.upstream.options().reply_timeout;
        if self.link.node.is_retired() {
            limit = limit.min(RETIRED_PATIENCE);
        }
        let sent_at = self.link.state.lock().pending.front()?.sent_at;
        let since = sent_at.max(self.read_at);
        // A client that holds the link up is no fault of Redis.
        let is_late =
            self.held_up.is_none() && self.link.front.clock.precise_now().since(since) > limit;
        is_late.then(|| {
            self.link.node.upstream.unavailable(&format_args!("no reply within {limit:?}"))
        })
    }
}
