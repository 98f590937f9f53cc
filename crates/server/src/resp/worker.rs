//! One thread of the door: its runtime, its listeners, its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{Client, Clients};
use super::connection::Connection;
use super::door::Shared;
use super::statistics::WorkerCounters;

/// How often clients are checked for idling and stalling.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one thread shares with the others: who is connected and what it
/// counted.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) clients: Clients,
    pub(crate) counters: WorkerCounters,
}

impl Worker {
    pub(crate) fn new(commands_count: usize) -> Self {
        Self { clients: Clients::default(), counters: WorkerCounters::new(commands_count) }
    }
}

/// Serves until `stop` is cancelled and every connection has ended.
pub(crate) async fn run(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    listeners: Vec<std::net::TcpListener>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    for listener in listeners {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listener of the RESP door cannot be registered");
                continue;
            }
        };
        let (shared, worker) = (Arc::clone(&shared), Arc::clone(&worker));
        tokio::spawn(accept(shared, worker, listener, connections.clone(), stop.clone()));
    }
    let sweeper = tokio::spawn(sweep(Arc::clone(&shared), Arc::clone(&worker)));
    stop.cancelled().await;
    for client in worker.clients.snapshot() {
        client.stop_reading();
    }
    connections.close();
    connections.wait().await;
    sweeper.abort();
}

/// Accepts until the door closes.
async fn accept(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    listener: TcpListener,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&shared, &worker, stream, peer, &connections),
            Err(error) => {
                tracing::warn!(%error, "a connection to the RESP door could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives a new connection a place, or tells it that there is none.
fn admit(
    shared: &Arc<Shared>,
    worker: &Arc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    connections: &TaskTracker,
) {
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
    let (reader, writer) = stream.into_split();
    let id = shared.next_client_id();
    let client = Arc::new(Client::new(id, writer, peer, shared.clock.now()));
    worker.clients.insert(Arc::clone(&client));
    let connection = Connection::new(Arc::clone(shared), Arc::clone(worker), client, reader);
    connections.spawn(connection.serve());
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
        for client in worker.clients.snapshot() {
            if client.idle(now) >= idle_max || client.stalled(now) >= stall_max {
                worker.counters.timeouts.add(1);
                tracing::debug!(peer = %client.peer(), "a client idled or stalled for too long");
                client.kill();
            }
        }
    }
}
