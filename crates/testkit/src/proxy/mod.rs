//! A proxy between a client and a server that does to their bytes what a bad
//! network does.
//!
//! | fault | what it looks like |
//! |---|---|
//! | [`Target::delay`] | every byte arrives later, in order; with jitter, connections overtake each other |
//! | [`Target::limit`] | bytes arrive no faster than this |
//! | [`Target::stall`] | bytes stop flowing and the connection stays; lifted, they go on |
//! | [`Target::black_hole`] | the sender sends, and nobody hears: a partition in one direction |
//! | [`Target::half_open`] | the server's side is closed, and the client is not told |
//! | [`Target::truncate`] | the connection closes after so many bytes, also inside of a message |
//! | [`Target::reset`], [`Target::close`] | the connection breaks, rudely or politely |
//! | [`Target::hold_behind`] | one connection waits until another has passed: reordering at will |
//! | [`FaultProxy::refuse`] | nobody connects any more |
//!
//! Each is for all connections or for a single one, and for one direction or for
//! both. It is set and lifted while bytes flow, and holds when the call returns,
//! but for bytes that the kernel has already. The proxy runs on a thread of its
//! own: a test that blocks does not stop it. It passes TLS as it is. Loopback
//! addresses only.

mod connection;
mod flow;
mod pump;
mod state;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

pub use connection::{ConnectionId, ConnectionView};
pub use flow::Direction;
use flow::Flow;
use state::{End, Shared, State};

use crate::process::{PATIENCE, Port, wait_until};

/// How many clients may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A proxy in front of one server. Dropping it breaks every connection.
///
/// ```no_run
/// use std::time::Duration;
/// use larder_testkit::proxy::{Direction, FaultProxy};
/// use larder_testkit::redis::RedisServer;
///
/// let redis = RedisServer::start();
/// let proxy = FaultProxy::start(redis.address());
/// // A client connects to proxy.address() …
/// proxy.all().stall(Direction::ToClient);
/// // … sends a request, and waits for its answer until this:
/// proxy.lift();
/// // The subscriber alone hears nothing any more, and does not know it.
/// for subscriber in redis.clients("pubsub") {
///     let connection = proxy.find(subscriber).expect("it came through the proxy");
///     proxy.connection(connection).black_hole(Direction::ToClient);
/// }
/// ```
pub struct FaultProxy {
    port: Arc<Port>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy to this server, which need not run yet. No fault is set.
    ///
    /// # Panics
    /// If the address is not one of the loopback interface.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        Self::start_with_seed(upstream, 0)
    }

    /// [`FaultProxy::start`] with another seed for jitter: of one seed, each
    /// connection draws the same delays every time.
    ///
    /// # Panics
    /// As [`FaultProxy::start`].
    #[must_use]
    pub fn start_with_seed(upstream: SocketAddr, seed: u64) -> Self {
        require_loopback(upstream);
        let port = Arc::new(Port::reserve());
        let shared = Arc::new(Shared::new(upstream, seed));
        let thread = thread::Builder::new().name("fault-proxy".to_owned()).spawn({
            let (port, shared) = (Arc::clone(&port), Arc::clone(&shared));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime starts").block_on(serve(&port, &shared));
            }
        });
        let thread = Some(thread.expect("a thread starts"));
        let proxy = Self { port, shared, thread };
        proxy.admit();
        proxy
    }

    /// Where clients connect. It stays the same.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Every connection, and every one to come.
    #[must_use]
    pub fn all(&self) -> Target<'_> {
        Target { shared: &self.shared, scope: Scope::All }
    }

    /// Every connection to come, and none that is there.
    #[must_use]
    pub fn future(&self) -> Target<'_> {
        Target { shared: &self.shared, scope: Scope::Future }
    }

    /// A single connection. What is done to one that is gone has no effect.
    #[must_use]
    pub fn connection(&self, connection: ConnectionId) -> Target<'_> {
        Target { shared: &self.shared, scope: Scope::One(connection) }
    }

    /// The connections that are there, in the order in which they came.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionView> {
        self.shared.state().connections.iter().map(|(id, held)| held.view(*id)).collect()
    }

    /// The connection with this address at its client's end, or at the proxy's
    /// end towards the server, which is what the server takes for the client.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<ConnectionId> {
        let is_it =
            |view: &ConnectionView| view.client == address || view.seen_by_server == Some(address);
        self.connections().into_iter().find(is_it).map(|view| view.id)
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// How many bytes have passed so far.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        let state = self.shared.state();
        direction.places().map(|place| state.bytes[place]).sum()
    }

    /// How often a connection began to send to the server: at the beginning, or
    /// after the server had sent something. What one client asks one thing after
    /// another is counted exactly; a large request that is answered while it is
    /// sent may count more than once.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.shared.state().round_trips
    }

    /// Refuses whoever connects from now on, as if no server ran. Connections
    /// that are there stay.
    pub fn refuse(&self) {
        self.listen(false);
    }

    /// Accepts connections again after [`FaultProxy::refuse`].
    pub fn admit(&self) {
        self.listen(true);
    }

    /// Lifts every fault, of single connections too, and accepts connections.
    pub fn lift(&self) {
        self.all().lift();
        self.admit();
    }

    /// Leads connections to come to another server, as a name does that points
    /// elsewhere now.
    ///
    /// # Panics
    /// If the address is not one of the loopback interface.
    pub fn lead_to(&self, upstream: SocketAddr) {
        require_loopback(upstream);
        self.shared.change(|state| state.upstream = upstream);
    }

    /// Waits until something holds of the proxy: so many connections, so many
    /// bytes.
    ///
    /// # Panics
    /// If it does not hold in time.
    ///
    /// # Cancel safety
    /// A dropped wait leaves nothing behind.
    pub async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        let mut news = self.shared.observe();
        let wait = async {
            while !holds(self) {
                news.changed().await.expect("the proxy has the other end");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("what was waited for comes about");
    }

    fn listen(&self, wanted: bool) {
        self.shared.change(|state| state.is_refusing = !wanted);
        wait_until("the proxy listens or not", || self.shared.state().is_listening == wanted);
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy at {} to {}", self.address(), self.shared.state().upstream)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
        if let Some(thread) = self.thread.take() {
            // If it panicked, that was printed.
            let _ = thread.join();
        }
    }
}

/// The connections that a fault is for.
#[derive(Clone, Copy, Debug)]
enum Scope {
    All,
    Future,
    One(ConnectionId),
}

/// What can be done to connections: see [`FaultProxy::all`] and its siblings.
/// Faults add up until they are lifted; one set again has its new strength.
#[derive(Debug)]
pub struct Target<'a> {
    shared: &'a Shared,
    scope: Scope,
}

impl Target<'_> {
    /// Every byte arrives this much later, and up to `jitter` more. Bytes of one
    /// connection stay in order.
    pub fn delay(&self, direction: Direction, latency: Duration, jitter: Duration) {
        self.set(direction, |flow, _| (flow.latency, flow.jitter) = (latency, jitter));
    }

    /// No more than this many bytes pass in a second.
    ///
    /// # Panics
    /// If there are none: that is a stall.
    pub fn limit(&self, direction: Direction, bytes_per_second: u32) {
        assert!(bytes_per_second > 0, "a limit of nothing is a stall");
        self.set(direction, |flow, _| flow.bytes_per_second = Some(bytes_per_second));
    }

    /// Bytes stop flowing, and the connection stays. Who closes it is not heard
    /// either. Who connects now is not led to the server before it is lifted.
    pub fn stall(&self, direction: Direction) {
        self.set(direction, |flow, _| flow.is_stalled = true);
    }

    /// Bytes vanish, those on their way included, and the connection stays. A
    /// connection that lost any is reset when this is lifted: bytes that TCP has
    /// promised cannot be missing in the middle. Who connects now is not led to
    /// the server before it is lifted.
    pub fn black_hole(&self, direction: Direction) {
        self.set(direction, |flow, _| flow.is_black_hole = true);
    }

    /// The connection closes, both ways, once this many more bytes have passed.
    pub fn truncate(&self, direction: Direction, after_bytes: u64) {
        self.set(direction, |flow, passed| flow.cut_at = Some(passed + after_bytes));
    }

    /// Bytes are held until this many more of another connection have passed in
    /// the same direction, or that one is gone.
    pub fn hold_behind(&self, direction: Direction, other: ConnectionId, bytes: u64) {
        let passed = self.shared.state().passed(other);
        let places: Vec<usize> = direction.places().collect();
        for place in places {
            let direction = Direction::at(place);
            self.set(direction, |flow, _| flow.behind = Some((other, passed[place] + bytes)));
        }
    }

    /// Closes the server's side and leaves the client's: it may send, and nobody
    /// answers. Lifted, the client hears that the connection is reset. Has no
    /// meaning for connections to come.
    pub fn half_open(&self) {
        self.end(End::HalfOpen);
    }

    /// Breaks connections: both sides hear of a reset.
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    /// Ends connections: both sides hear of an orderly end.
    pub fn close(&self) {
        self.end(End::Close);
    }

    /// Takes every fault away. Connections that lost bytes, or that are half
    /// open, are reset.
    pub fn lift(&self) {
        self.shared.change(|state| {
            self.each(state, |held| {
                held.flows = [Flow::default(), Flow::default()];
                if held.has_lost || held.end == Some(End::HalfOpen) {
                    held.end = Some(End::Reset);
                }
            });
            if !matches!(self.scope, Scope::One(_)) {
                state.future = [Flow::default(), Flow::default()];
            }
        });
    }

    /// Changes the flows of a direction; the change is told how many bytes have
    /// passed there.
    fn set(&self, direction: Direction, change: impl Fn(&mut Flow, u64)) {
        self.shared.change(|state| {
            for place in direction.places() {
                self.each(state, |held| change(&mut held.flows[place], held.passed[place]));
                if !matches!(self.scope, Scope::One(_)) {
                    change(&mut state.future[place], 0);
                }
            }
        });
    }

    fn end(&self, end: End) {
        self.shared.change(|state| {
            self.each(state, |held| {
                held.end.get_or_insert(end);
            });
        });
    }

    /// The connections that are there and meant.
    fn each(&self, state: &mut State, mut change: impl FnMut(&mut connection::Held)) {
        match self.scope {
            Scope::All => state.connections.values_mut().for_each(change),
            Scope::Future => {}
            Scope::One(id) => state.connections.get_mut(&id).into_iter().for_each(&mut change),
        }
    }
}

/// Accepts connections until the proxy is dropped.
async fn serve(port: &Port, shared: &Arc<Shared>) {
    let mut changes = shared.changes();
    let mut listener = None;
    loop {
        changes.mark_unchanged();
        let (is_over, is_refusing) = {
            let state = shared.state();
            (state.is_over, state.is_refusing)
        };
        if is_over {
            return;
        }
        if is_refusing {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen(port.address()));
        }
        shared.state().is_listening = listener.is_some();
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changes.changed() => change.expect("the proxy has the other end"),
            accepted = accept => if let Ok((client, address)) = accepted {
                let id = shared.accept(address);
                tokio::spawn(connection::carry(Arc::clone(shared), id, client));
            },
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("a new socket can be set up");
    socket.bind(address).expect("the port is the proxy's");
    socket.listen(BACKLOG).expect("a bound socket listens")
}

fn require_loopback(address: SocketAddr) {
    assert!(address.ip().is_loopback(), "the proxy serves loopback addresses only: {address}");
}
