//! Who is connected: what `CLIENT LIST` shows, `CLIENT KILL` ends and the
//! sweeper checks, shared between the connection's own task and the others.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::Moment;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::Protocol;

/// One connection as others see it. The connection's task is the only writer of
/// everything but the label and the closing flag.
#[derive(Debug)]
pub(crate) struct Client {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    connected_at: Moment,
    fd: RawFd,
    wire: Mutex<Wire>,
    active_at: AtomicU64,
    /// Since when a command is incomplete or replies are not taken, in
    /// nanoseconds of the clock; 0 while neither is the case.
    stalled_since: AtomicU64,
    command: AtomicU16,
    protocol: AtomicU8,
    input_bytes: AtomicUsize,
    output_bytes: AtomicUsize,
    /// Commands queued by `MULTI`, plus one; 0 outside a transaction.
    queued: AtomicUsize,
    watched: AtomicUsize,
    is_closing: AtomicBool,
    is_evictable: AtomicBool,
    is_touching: AtomicBool,
    label: Mutex<Label>,
}

/// What others need to shut the socket down, which wakes the task.
#[derive(Debug, Default)]
struct Wire {
    /// `None` while the connection moves from one thread to another.
    writer: Option<OwnedWriteHalf>,
    /// What was asked for, also in that time.
    shut: Option<Shutdown>,
}

/// What a client says about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Label {
    /// The name given with `CLIENT SETNAME` or `HELLO … SETNAME`.
    pub(crate) name: String,
    /// Who it authenticated as.
    pub(crate) user: Option<Arc<str>>,
    /// The library it uses, from `CLIENT SETINFO`.
    pub(crate) library_name: String,
    /// That library's version.
    pub(crate) library_version: String,
}

impl Client {
    /// A client on this socket, which it has not got yet.
    pub(crate) fn new(id: u64, stream: &TcpStream, peer: SocketAddr, now: Moment) -> Self {
        Self {
            id,
            peer,
            local: stream.local_addr().unwrap_or(peer),
            fd: stream.as_raw_fd(),
            wire: Mutex::default(),
            connected_at: now,
            active_at: AtomicU64::new(now.as_nanos()),
            stalled_since: AtomicU64::new(0),
            command: AtomicU16::new(u16::MAX),
            protocol: AtomicU8::new(2),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            is_evictable: AtomicBool::new(true),
            is_touching: AtomicBool::new(true),
            label: Mutex::default(),
        }
    }

    /// The number that `CLIENT ID` gives.
    #[must_use]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The client's address.
    #[must_use]
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address it connected to.
    #[must_use]
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// What it says about itself.
    pub(crate) fn label(&self) -> parking_lot::MutexGuard<'_, Label> {
        self.label.lock()
    }

    /// Ends the connection: its task wakes up and finds the socket closed.
    pub(crate) fn kill(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        self.shut(Shutdown::Both);
    }

    /// Takes no more from the client: what has arrived is still answered, then
    /// the connection ends.
    pub(crate) fn stop_reading(&self) {
        self.shut(Shutdown::Read);
    }

    /// Takes the socket on this thread. What was asked for on the way happens
    /// now.
    pub(crate) fn attach(&self, writer: OwnedWriteHalf) {
        let mut wire = self.wire.lock();
        if let Some(how) = wire.shut {
            shut_down(&writer, how);
        }
        wire.writer = Some(writer);
    }

    /// Gives the socket up before it leaves this thread.
    pub(crate) fn detach(&self) -> Option<OwnedWriteHalf> {
        self.wire.lock().writer.take()
    }

    fn shut(&self, how: Shutdown) {
        let mut wire = self.wire.lock();
        if wire.shut != Some(Shutdown::Both) {
            wire.shut = Some(how);
        }
        if let Some(writer) = &wire.writer {
            shut_down(writer, how);
        }
    }

    /// Whether somebody ended this connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// How long nothing has arrived.
    pub(crate) fn idle(&self, now: Moment) -> Duration {
        now.since(Moment::from_nanos(self.active_at.load(Ordering::Relaxed)))
    }

    /// How long a command has been incomplete or replies have not been taken.
    pub(crate) fn stalled(&self, now: Moment) -> Duration {
        match self.stalled_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            nanos => now.since(Moment::from_nanos(nanos)),
        }
    }

    #[inline]
    pub(crate) fn set_active(&self, now: Moment) {
        self.active_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Notes that the client keeps the server waiting since now, unless it
    /// already does.
    pub(crate) fn set_stalled(&self, now: Moment) {
        if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn clear_stalled(&self) {
        self.stalled_since.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_command(&self, index: u16) {
        self.command.store(index, Ordering::Relaxed);
    }

    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        let number = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.protocol.store(number, Ordering::Relaxed);
    }

    pub(crate) fn set_buffers(&self, input_bytes: usize, output_bytes: usize) {
        self.input_bytes.store(input_bytes, Ordering::Relaxed);
        self.output_bytes.store(output_bytes, Ordering::Relaxed);
    }

    pub(crate) fn input_bytes(&self) -> usize {
        self.input_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.input_bytes.load(Ordering::Relaxed) + self.output_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_queued(&self, queued: Option<usize>) {
        self.queued.store(queued.map_or(0, |queued| queued + 1), Ordering::Relaxed);
    }

    pub(crate) fn set_watched(&self, watched: usize) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    pub(crate) fn set_evictable(&self, is_evictable: bool) {
        self.is_evictable.store(is_evictable, Ordering::Relaxed);
    }

    pub(crate) fn set_touching(&self, is_touching: bool) {
        self.is_touching.store(is_touching, Ordering::Relaxed);
    }

    /// One line of `CLIENT LIST`, without the line break.
    pub(crate) fn describe(
        &self,
        now: Moment,
        command_name: impl Fn(u16) -> &'static str,
    ) -> String {
        let label = self.label.lock().clone();
        let input_bytes = self.input_bytes.load(Ordering::Relaxed);
        let output_bytes = self.output_bytes.load(Ordering::Relaxed);
        let queued = self.queued.load(Ordering::Relaxed) as i64 - 1;
        let mut line = String::with_capacity(320);
        // Writing to a string does not fail.
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 \
             multi={queued} watch={} qbuf={input_bytes} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
             obl={output_bytes} oll=0 omem=0 tot-mem={} events=r cmd={} user={} redir=-1 resp={} \
             lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            self.fd,
            label.name,
            now.since(self.connected_at).as_secs(),
            self.idle(now).as_secs(),
            self.flags(queued),
            self.watched.load(Ordering::Relaxed),
            size_of::<Self>() + input_bytes + output_bytes,
            command_name(self.command.load(Ordering::Relaxed)),
            label.user.as_deref().unwrap_or("(none)"),
            self.protocol.load(Ordering::Relaxed),
            label.library_name,
            label.library_version,
        );
        line
    }

    fn flags(&self, queued: i64) -> String {
        let mut flags = String::new();
        for (flag, is_set) in [
            ('x', queued >= 0),
            ('e', !self.is_evictable.load(Ordering::Relaxed)),
            ('T', !self.is_touching.load(Ordering::Relaxed)),
            ('A', self.is_closing()),
        ] {
            if is_set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        flags
    }
}

fn shut_down(writer: &OwnedWriteHalf, how: Shutdown) {
    // A socket that is gone already needs no shutdown.
    let _ = SockRef::from(AsRef::<TcpStream>::as_ref(writer)).shutdown(how);
}

/// The clients of a door.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<u64, Arc<Client>>>);

impl Clients {
    pub(crate) fn insert(&self, client: Arc<Client>) {
        self.0.lock().insert(client.id(), client);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// The clients at this moment, in no order. Taken out of the lock so that
    /// nothing slow happens under it.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Client>> {
        self.0.lock().values().cloned().collect()
    }
}
