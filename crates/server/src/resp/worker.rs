//! One thread of the door: its runtime and the connections it serves. The first
//! one also accepts, and sends clients away that idle or stall.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::balance;
use super::client::Client;
use super::connection::{Connection, Resting};
use super::door::Shared;
use super::statistics::WorkerCounters;
use crate::front::FrontWorker;

/// How often clients are checked for idling and stalling.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What others know of one thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its place among the workers.
    pub(crate) index: usize,
    pub(crate) counters: WorkerCounters,
    /// What it has of the Redis that this server stands in front of.
    pub(crate) front: Option<FrontWorker>,
    /// Connections that come to this thread. Never more than there are clients.
    arrivals: mpsc::UnboundedSender<Resting>,
    /// What the system calls the thread; 0 before it runs.
    thread_id: AtomicI32,
}

impl Worker {
    /// A worker, and where its thread receives connections.
    pub(crate) fn new(
        index: usize,
        commands_count: usize,
        front: Option<FrontWorker>,
    ) -> (Self, mpsc::UnboundedReceiver<Resting>) {
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let counters = WorkerCounters::new(commands_count);
        (Self { index, counters, front, arrivals, thread_id: AtomicI32::new(0) }, receiver)
    }

    /// Hands a connection to this thread. Returns it if the thread takes none
    /// any more.
    pub(crate) fn hand_over(&self, connection: Resting) -> Result<(), Resting> {
        self.arrivals.send(connection).map_err(|refused| refused.0)
    }

    /// What the system calls the thread, while it runs.
    pub(crate) fn thread_id(&self) -> Option<i32> {
        Some(self.thread_id.load(Ordering::Relaxed)).filter(|&id| id != 0)
    }

    /// Called on the thread itself.
    pub(crate) fn note_thread(&self) {
        #[cfg(target_os = "linux")]
        self.thread_id.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    }
}

/// Serves until `stop` is cancelled and every connection has ended.
pub(crate) async fn run(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    mut arrivals: mpsc::UnboundedReceiver<Resting>,
    listener: Option<std::net::TcpListener>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let take = |resting| {
        connections.spawn(Connection::serve(resting, Arc::clone(&worker)));
    };
    if let Some(listener) = listener {
        open(&shared, &worker, listener, &stop);
    }
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(resting) = arrivals.recv() => take(resting),
        }
    }
    arrivals.close();
    // Those that were on their way when it closed.
    while let Some(resting) = arrivals.recv().await {
        take(resting);
    }
    for client in shared.clients.snapshot() {
        client.stop_reading();
    }
    connections.close();
    connections.wait().await;
}

/// Starts what one thread does for all.
fn open(
    shared: &Arc<Shared>,
    worker: &Arc<Worker>,
    listener: std::net::TcpListener,
    stop: &CancellationToken,
) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            tokio::spawn(accept(Arc::clone(shared), Arc::clone(worker), listener, stop.clone()));
        }
        Err(error) => {
            tracing::error!(%error, "the listener of the RESP door cannot be registered");
        }
    }
    if let Some(front) = &shared.front {
        tokio::spawn(Arc::clone(front).track());
    }
    tokio::spawn(sweep(Arc::clone(shared), Arc::clone(worker)));
    if shared.is_adaptive {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { balance::keep(&shared.balance, &shared.workers).await });
    }
}

/// Accepts until the door closes.
async fn accept(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&shared, &worker, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "a connection to the RESP door could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives a new connection a place, or tells it that there is none.
fn admit(shared: &Arc<Shared>, worker: &Arc<Worker>, stream: TcpStream, peer: SocketAddr) {
    if !shared.take_place() {
        worker.counters.rejected_connections.add(1);
        // The client may be gone already; it is sent away in any case.
        let _ = socket2::SockRef::from(&stream).send(b"-ERR max number of clients reached\r\n");
        return;
    }
    worker.counters.connections.add(1);
    // Replies are written whole: there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
    }
    let id = shared.next_client_id();
    let client = Arc::new(Client::new(id, &stream, peer, shared.clock.now()));
    shared.clients.insert(Arc::clone(&client));
    let place = Arc::clone(&shared.workers[shared.balance.place(id)]);
    match Resting::new(Arc::clone(shared), Arc::clone(&place), client, stream) {
        // A thread that takes nobody any more is closing: so is the door.
        Ok(resting) => drop(place.hand_over(resting)),
        Err(error) => {
            tracing::warn!(%error, %peer, "a connection to the RESP door could not be set up");
        }
    }
}

/// Sends clients away that idle or stall for too long. One look at each client
/// a second costs less than a timer for each read.
async fn sweep(shared: Arc<Shared>, worker: Arc<Worker>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        let idle_max = shared.settings.idle_timeout().unwrap_or(Duration::MAX);
        let stall_max = shared.settings.stall_timeout().unwrap_or(Duration::MAX);
        let now = shared.clock.now();
        for client in shared.clients.snapshot() {
            if client.idle(now) >= idle_max || client.stalled(now) >= stall_max {
                worker.counters.timeouts.add(1);
                tracing::debug!(peer = %client.peer(), "a client idled or stalled for too long");
                client.kill();
            }
        }
    }
}
