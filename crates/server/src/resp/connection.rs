//! One connection: read, answer every command that has arrived, write once.
//! Between two commands it may move to another thread.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use larder_core::Moment;
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::arguments::OwnedArguments;
use super::cached::Gathered;
use super::client::Client;
use super::coalesce;
use super::door::Shared;
use super::parser::{Parser, ProtocolError};
use super::scratch::{Scratch, recycle};
use super::session::{Replies, Session, Step};
use super::table::Entry;
use super::worker::Worker;
use super::{Protocol, Reply};
use crate::front;

/// Replies are written once this much waits, even if more commands are there to
/// be answered: a client that sends without reading is slowed down to the pace
/// at which it reads.
pub(crate) const REPLY_BYTES_BEFORE_WRITE: usize = 64 * 1024;

/// After a read of at least this much, the other clients of the thread have
/// their turn before this one is read again.
const READ_BYTES_BEFORE_YIELD: usize = 16 * 1024;

/// So many reads of plain keys in one pipeline are answered together. Their
/// locks are held together, too, so more would hold up others.
const PLAIN_READS_MAX: usize = 16;

/// A client that keeps a command incomplete or leaves replies unread must move
/// at least this much within the stall timeout.
const STALL_PROGRESS_BYTES: usize = 64 * 1024;

/// A connection that no thread waits on: new, or on its way to another thread.
/// Dropped, it ends.
pub(crate) struct Resting {
    stream: std::net::TcpStream,
    session: Session,
    protocol: Protocol,
}

impl Resting {
    /// A client that has just connected.
    ///
    /// # Errors
    /// If the socket cannot be taken off the thread it was accepted on.
    pub(crate) fn new(
        shared: Arc<Shared>,
        worker: Arc<Worker>,
        client: Arc<Client>,
        stream: TcpStream,
    ) -> io::Result<Self> {
        let session = Session::new(shared, worker, client);
        Ok(Self { stream: stream.into_std()?, session, protocol: Protocol::Resp2 })
    }
}

/// A client's socket, session and, while there is work, buffers.
pub(crate) struct Connection {
    reader: OwnedReadHalf,
    pub(crate) session: Session,
    protocol: Protocol,
    scratch: Option<Box<Scratch>>,
    /// When this client was last counted among those who ask.
    counted_in: u64,
    /// How much input there was when the client began to keep us waiting.
    stalled_at_bytes: usize,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Read,
    Close,
}

/// Why answering paused.
pub(crate) enum Pause {
    /// No complete command is left.
    Input,
    /// Enough replies wait to be written.
    Write,
    /// Keys are to be loaded.
    Load(Gathered),
    /// Redis, which this server stands in front of, owes replies.
    Upstream,
    /// The client needs a connection to that Redis for itself.
    Pinned,
    /// A command asks both caches and Redis.
    Both(OwnedArguments),
    /// A command has to wait for something else.
    Wait(&'static Entry, OwnedArguments),
    /// What the client sent is no command.
    Protocol(ProtocolError),
    /// The client or an operator ends the connection.
    Close,
}

impl Connection {
    /// Serves a client until it leaves, misbehaves, is sent away or moves on to
    /// another thread.
    pub(crate) async fn serve(mut resting: Resting, worker: Arc<Worker>) {
        // Where it cannot be registered with this thread, it ends.
        while let Ok(mut connection) = Self::wake(resting, &worker) {
            let Some(target) = connection.answer_all().await else { return };
            let target = Arc::clone(&connection.session.shared.workers[target]);
            let Ok(rested) = connection.rest() else { return };
            match target.hand_over(rested) {
                Ok(()) => return,
                // That thread is closing, and so is this one.
                Err(refused) => resting = refused,
            }
        }
    }

    /// Registers with this thread.
    fn wake(resting: Resting, worker: &Arc<Worker>) -> io::Result<Self> {
        let Resting { stream, mut session, protocol } = resting;
        let (reader, writer) = TcpStream::from_std(stream)?.into_split();
        session.worker = Arc::clone(worker);
        session.client.attach(writer);
        Ok(Self { reader, session, protocol, scratch: None, counted_in: 0, stalled_at_bytes: 0 })
    }

    /// Takes leave of this thread.
    fn rest(self) -> io::Result<Resting> {
        let Self { reader, session, protocol, .. } = self;
        let writer = session.client.detach().ok_or(io::ErrorKind::NotConnected)?;
        let stream = reader.reunite(writer).map_err(io::Error::other)?.into_std()?;
        Ok(Resting { stream, session, protocol })
    }

    /// Answers what arrives, until the end or until the client belongs on
    /// another thread, which is returned.
    async fn answer_all(&mut self) -> Option<usize> {
        loop {
            let count = match self.receive().await {
                // An error here is the client's sudden departure.
                Ok(0) | Err(_) => return None,
                Ok(count) => count,
            };
            let now = self.session.shared.clock.now();
            self.note_input(count, now);
            let answered = self.session.worker.counters.commands.get();
            match self.answer().await {
                Ok(Next::Read) => {}
                Ok(Next::Close) | Err(_) => return None,
            }
            let answered = self.session.worker.counters.commands.get() - answered;
            coalesce::note_read(answered, &mut self.counted_in, now);
            let target = self.session.shared.balance.place(self.session.client.id());
            if target != self.session.worker.index && self.scratch.is_none() {
                return Some(target);
            }
            if count >= READ_BYTES_BEFORE_YIELD {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads once, as much as there is room for.
    async fn receive(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Buffers are borrowed only once something has arrived: nothing is held
    /// while nothing does.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream().poll_read_ready(cx))?;
            let mut scratch = self.scratch.take().unwrap_or_else(|| self.borrow_scratch());
            scratch.make_room();
            let received = receive_from(self.stream(), &mut scratch.input);
            if scratch.is_empty() {
                scratch.give();
            } else {
                self.scratch = Some(scratch);
            }
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.as_ref()
    }

    fn borrow_scratch(&self) -> Box<Scratch> {
        let mut scratch = Scratch::take(self.protocol);
        scratch.reply.set_limit(self.session.shared.settings.reply_bytes_max.get());
        scratch
    }

    pub(crate) fn note_input(&self, count: usize, now: Moment) {
        self.session.worker.counters.input_bytes.add(count as u64);
        self.session.client.set_active(now);
    }

    /// Answers every complete command that has arrived.
    async fn answer(&mut self) -> io::Result<Next> {
        let Some(mut scratch) = self.scratch.take() else { return Ok(Next::Read) };
        let next = self.answer_in(&mut scratch).await?;
        self.protocol = scratch.reply.protocol();
        if scratch.is_empty() {
            scratch.give();
            self.clear_stall();
        } else {
            self.note_incomplete(scratch.input.len() - scratch.used);
            self.scratch = Some(scratch);
        }
        Ok(next)
    }

    async fn answer_in(&mut self, scratch: &mut Box<Scratch>) -> io::Result<Next> {
        loop {
            match run_ready(&mut self.session, scratch) {
                Pause::Input => {
                    self.write(&mut scratch.reply).await?;
                    return Ok(Next::Read);
                }
                Pause::Write => self.write(&mut scratch.reply).await?,
                Pause::Upstream => {
                    while self.receive_upstream(scratch).await? {
                        self.write(&mut scratch.reply).await?;
                    }
                    if scratch.reply.as_bytes().len() >= REPLY_BYTES_BEFORE_WRITE {
                        self.write(&mut scratch.reply).await?;
                    }
                }
                Pause::Pinned => {
                    // Large: on the heap, where only those who need it pay.
                    if Box::pin(self.serve_pinned(scratch)).await? == Next::Close {
                        return Ok(Next::Close);
                    }
                }
                pause @ (Pause::Load(_) | Pause::Both(_) | Pause::Wait(..)) => {
                    self.answer_pause(pause, scratch).await;
                    if scratch.reply.as_bytes().len() >= REPLY_BYTES_BEFORE_WRITE {
                        self.write(&mut scratch.reply).await?;
                    }
                }
                Pause::Protocol(error) => {
                    self.session.worker.counters.protocol_errors.add(1);
                    scratch.reply.error(&format!("ERR {error}"));
                    self.write(&mut scratch.reply).await?;
                    return Ok(Next::Close);
                }
                Pause::Close => {
                    self.write(&mut scratch.reply).await?;
                    return Ok(Next::Close);
                }
            }
        }
    }

    /// Waits for replies of Redis; returns whether more are to come. Buffers that
    /// hold nothing are lent to others meanwhile: a thread has few of them, for
    /// however many clients wait.
    async fn receive_upstream(&mut self, scratch: &mut Box<Scratch>) -> io::Result<bool> {
        if scratch.is_empty() {
            self.protocol = scratch.reply.protocol();
            std::mem::take(scratch).give();
            front::wait(&mut self.session).await;
            *scratch = self.borrow_scratch();
        } else {
            front::wait(&mut self.session).await;
        }
        front::collect(&mut self.session, &mut scratch.reply)
    }

    /// Answers what keys must be loaded for, or what has to wait.
    pub(crate) async fn answer_pause(&mut self, pause: Pause, scratch: &mut Scratch) {
        match pause {
            Pause::Load(gathered) => {
                gathered.answer(&mut self.session, &mut scratch.reply).await;
            }
            Pause::Both(arguments) => {
                front::answer_both(&mut self.session, &arguments, &mut scratch.reply).await;
            }
            Pause::Wait(entry, arguments) => {
                let start = scratch.reply.as_bytes().len();
                let slices = arguments.slices();
                self.session.execute_waiting(entry, &slices, &mut scratch.reply).await;
                self.session.settle_reply(start, &mut scratch.reply);
            }
            _ => {}
        }
    }

    /// Writes the replies that wait. Does not return before they are all with
    /// the kernel.
    pub(crate) async fn write(&self, reply: &mut Reply) -> io::Result<()> {
        let shared = &self.session.shared;
        let bytes = reply.as_bytes();
        if reply.is_over_limit() {
            return Err(io::Error::other("more replies wait than a client may have"));
        }
        let mut written = 0;
        let mut stalled_at = 0;
        while written < bytes.len() {
            match send_to(self.stream(), &bytes[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if written >= stalled_at + STALL_PROGRESS_BYTES {
                        stalled_at = written;
                        self.session.client.clear_stalled();
                    }
                    self.session.client.set_stalled(shared.clock.now());
                    self.session.client.set_buffers(0, bytes.len() - written);
                    self.stream().writable().await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.session.worker.counters.output_bytes.add(written as u64);
        reply.buffer_mut().clear();
        Ok(())
    }

    fn clear_stall(&mut self) {
        if self.stalled_at_bytes > 0 {
            self.stalled_at_bytes = 0;
            self.session.client.set_buffers(0, 0);
        }
        self.session.client.clear_stalled();
    }

    /// Keeps the time since when the client owes the rest of a command.
    fn note_incomplete(&mut self, held: usize) {
        let client = &self.session.client;
        if held < self.stalled_at_bytes || held >= self.stalled_at_bytes + STALL_PROGRESS_BYTES {
            self.stalled_at_bytes = held;
            client.clear_stalled();
        }
        self.stalled_at_bytes = self.stalled_at_bytes.max(1);
        client.set_stalled(self.session.shared.clock.now());
        client.set_buffers(held, 0);
    }
}

/// Reads what is there. The system is called directly: the C library's functions
/// are points at which a thread can be cancelled, and guard against that.
pub(crate) fn receive_from(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let room = input.capacity() - input.len();
    let mut received = None;
    let tried = stream.try_io(Interest::READABLE, || {
        let (count, _) = recv(stream, spare_capacity(input), RecvFlags::empty())?;
        received = Some(count);
        // Less than there was room for is all there was: the next to arrive is
        // an event of its own.
        if 0 < count && count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (received, tried) {
        (Some(count), _) => Ok(count),
        (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        (None, tried) => tried.map(|()| 0),
    }
}

pub(crate) fn send_to(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    // A client that is gone is an error, not a signal.
    stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, SendFlags::NOSIGNAL)?))
}

/// Answers commands one after the other as long as none has to wait.
fn run_ready(session: &mut Session, scratch: &mut Scratch) -> Pause {
    if session.front.is_some() {
        return front::run_ready(session, scratch);
    }
    loop {
        let input = &scratch.input[scratch.used..];
        let length = match scratch.parser.parse(input, session.limits()) {
            Ok(Some(length)) => length,
            Ok(None) => return Pause::Input,
            Err(error) => return Pause::Protocol(error),
        };
        let mut arguments = recycle(std::mem::take(&mut scratch.arguments));
        if let Some(key) = scratch.parser.only_argument(input, b"get")
            && session.reads_plainly(key)
        {
            let (keys, ends) =
                next_plain_reads(session, &mut scratch.parser, input, (key, length), arguments);
            let answered = session.read_plainly(&keys, &mut scratch.reply);
            if answered < keys.len() {
                // What was looked at beyond these is parsed again.
                scratch.parser.restart();
            }
            scratch.used += ends[answered - 1];
            scratch.arguments = recycle(keys);
            if scratch.reply.as_bytes().len() >= REPLY_BYTES_BEFORE_WRITE {
                return Pause::Write;
            }
            continue;
        }
        scratch.parser.arguments(input, &mut arguments);
        let paused = run_one(session, &arguments, &mut scratch.reply);
        scratch.arguments = recycle(arguments);
        scratch.used += length;
        match paused {
            None => {}
            Some(Pause::Load(group)) => return Pause::Load(gather_more(session, scratch, group)),
            Some(pause) => return pause,
        }
    }
}

/// Adds the reads that follow to a group that is to be loaded. Keys are loaded
/// together with what is already here, not with what may come.
pub(crate) fn gather_more(
    session: &Session,
    scratch: &mut Scratch,
    mut group: Gathered,
) -> Gathered {
    // What is wrong with the rest is found again when it is its turn.
    while let input = &scratch.input[scratch.used..]
        && let Ok(Some(length)) = scratch.parser.parse(input, session.limits())
    {
        let mut arguments = recycle(std::mem::take(&mut scratch.arguments));
        scratch.parser.arguments(input, &mut arguments);
        let is_taken = arguments.is_empty() || group.add(session, &arguments);
        scratch.arguments = recycle(arguments);
        if !is_taken {
            break;
        }
        scratch.used += length;
    }
    group
}

/// Finds the reads of plain keys that follow the first one. Returns the keys and
/// where in the input each read ends.
fn next_plain_reads<'a>(
    session: &Session,
    parser: &mut Parser,
    input: &'a [u8],
    (first, first_end): (&'a [u8], usize),
    mut keys: Vec<&'a [u8]>,
) -> (Vec<&'a [u8]>, [usize; PLAIN_READS_MAX]) {
    let mut ends = [first_end; PLAIN_READS_MAX];
    let mut end = first_end;
    keys.push(first);
    while keys.len() < PLAIN_READS_MAX {
        let rest = &input[end..];
        // What is wrong with the rest is found again when it is its turn.
        let Ok(Some(length)) = parser.parse(rest, session.limits()) else { break };
        match parser.only_argument(rest, b"get") {
            Some(key) if session.is_plain(key) => keys.push(key),
            _ => break,
        }
        end += length;
        ends[keys.len() - 1] = end;
    }
    (keys, ends)
}

/// Runs one command. Returns why the next one has to wait, if it has to.
#[inline]
fn run_one(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) -> Option<Pause> {
    if arguments.is_empty() {
        return None;
    }
    let start = reply.as_bytes().len();
    match session.execute(arguments, reply) {
        Step::Done => session.settle_reply(start, reply),
        Step::Gather(group) => return Some(Pause::Load(group)),
        Step::Wait(entry) => return Some(Pause::Wait(entry, OwnedArguments::new(arguments))),
    }
    if session.is_closing || session.client.is_closing() {
        Some(Pause::Close)
    } else if reply.as_bytes().len() >= REPLY_BYTES_BEFORE_WRITE {
        Some(Pause::Write)
    } else {
        None
    }
}

impl Session {
    /// Takes a reply back that the client does not want.
    #[inline]
    pub(crate) fn settle_reply(&mut self, start: usize, reply: &mut Reply) {
        match self.replies {
            Replies::On => {}
            Replies::Off if std::mem::take(&mut self.has_settled_reply) => {}
            Replies::Off => reply.buffer_mut().truncate(start),
            Replies::SkipNext => self.replies = Replies::SkipThis,
            Replies::SkipThis => {
                reply.buffer_mut().truncate(start);
                self.replies = Replies::On;
            }
        }
    }
}
