//! The door as a whole: opened, watched and closed.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, Moment, Result};
use parking_lot::Mutex;
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::balance::{self, Balance};
use super::client::{Client, Clients};
use super::coalesce;
use super::connection::Resting;
use super::credentials::Credentials;
use super::file_limit::raise_file_limit;
use super::routes::Routes;
use super::settings::{DoorOptions, Settings};
use super::statistics::DoorStatistics;
use super::table::Table;
use super::worker::{self, Worker};
use crate::front::{self, Front, FrontStatistics, FrontWorker};
use crate::keyspace::Keyspace;

/// How many connections may wait to be accepted, as in Redis.
const BACKLOG: i32 = 511;

/// What every connection of a door works on.
pub(crate) struct Shared {
    pub(crate) keyspace: Arc<Keyspace>,
    pub(crate) routes: Arc<dyn Routes>,
    /// The Redis that this server stands in front of, if there is one.
    pub(crate) front: Option<Arc<Front>>,
    pub(crate) settings: Settings,
    pub(crate) credentials: Credentials,
    pub(crate) table: &'static Table,
    /// The place of `GET` in the table.
    pub(crate) get_entry: u16,
    pub(crate) clock: Clock,
    pub(crate) clients: Clients,
    pub(crate) workers: Vec<Arc<Worker>>,
    /// Which of the workers are in use.
    pub(crate) balance: Balance,
    /// Whether that changes with the load.
    pub(crate) is_adaptive: bool,
    pub(crate) address: SocketAddr,
    pub(crate) opened_at: Moment,
    clients_count: AtomicUsize,
    last_client_id: AtomicU64,
    /// What `CONFIG RESETSTAT` set back to zero.
    counted_before: Mutex<DoorStatistics>,
}

impl Shared {
    /// Takes one of the places for clients; says whether there was one.
    pub(crate) fn take_place(&self) -> bool {
        let max = self.settings.clients_max.get();
        let is_taken = self.clients_count.fetch_add(1, Ordering::Relaxed) < max;
        if !is_taken {
            self.release_place();
        }
        is_taken
    }

    pub(crate) fn release_place(&self) {
        self.clients_count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn clients_count(&self) -> usize {
        self.clients_count.load(Ordering::Relaxed)
    }

    pub(crate) fn next_client_id(&self) -> u64 {
        self.last_client_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Every client, in the order in which they came.
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients = self.clients.snapshot();
        clients.sort_unstable_by_key(|client| client.id());
        clients
    }

    /// What was counted since the start or the last reset.
    pub(crate) fn statistics(&self) -> DoorStatistics {
        self.counted().since(&self.counted_before.lock())
    }

    pub(crate) fn front_statistics(&self) -> Option<FrontStatistics> {
        let front = self.front.as_ref()?;
        Some(front.statistics(self.workers.iter().map(|worker| &**worker)))
    }

    pub(crate) fn reset_statistics(&self) {
        *self.counted_before.lock() = self.counted();
    }

    fn counted(&self) -> DoorStatistics {
        DoorStatistics::sum(
            self.workers.iter().map(|worker| &worker.counters),
            self.table.entries().iter().map(|entry| entry.command.name),
        )
    }
}

/// The open RESP door. [`Door::close`] closes it and waits for that; dropping it
/// begins to close it.
pub struct Door {
    shared: Arc<Shared>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    /// Ends when every thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Door {
    /// Opens the door: when this returns, clients can connect. Loads run on the
    /// runtime that the caches were built with.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the address cannot be listened on.
    pub fn open(
        options: &DoorOptions,
        keyspace: Arc<Keyspace>,
        routes: Arc<dyn Routes>,
    ) -> Result<Self> {
        let mut threads_count = options.threads.max(1);
        let clock = options.clock.clone();
        let front = match &options.front {
            None => None,
            Some(options) => {
                // Each thread has connections to Redis.
                threads_count = threads_count.min(front::THREADS_MAX);
                Some(Arc::new(Front::new(options, Arc::clone(&keyspace), clock.clone())?))
            }
        };
        let (listener, address) = listen(options.listen)?;
        let table = Table::get();
        let settings = Settings::new(options);
        let clients_max = raise_file_limit(options.clients_max);
        if clients_max < options.clients_max {
            tracing::warn!(
                clients_max,
                wanted = options.clients_max,
                "fewer clients can connect than configured: the limit on open files \
                 (`ulimit -n`) is too low"
            );
            settings.clients_max.set(clients_max);
        }
        let (workers, arrivals): (Vec<_>, Vec<_>) = (0..threads_count)
            .map(|index| {
                let front = front.as_ref().map(FrontWorker::new);
                Worker::new(index, table.entries().len(), front)
            })
            .map(|(worker, arrivals)| (Arc::new(worker), arrivals))
            .unzip();
        let is_adaptive = options.is_adaptive && threads_count > 1 && balance::is_possible();
        let shared = Arc::new(Shared {
            keyspace,
            routes,
            front,
            settings,
            credentials: Credentials::new(options.password.as_deref(), &options.users),
            table,
            get_entry: table.find_command(b"get").map_or(0, |entry| entry.index),
            clients: Clients::default(),
            workers,
            balance: Balance::new(if is_adaptive { 1 } else { threads_count }),
            is_adaptive,
            address,
            opened_at: clock.now(),
            clock,
            clients_count: AtomicUsize::new(0),
            last_client_id: AtomicU64::new(0),
            counted_before: Mutex::new(DoorStatistics::default()),
        });
        let stop = CancellationToken::new();
        let (alive, ended) = mpsc::channel(1);
        let mut listener = Some(listener);
        let threads = shared
            .workers
            .iter()
            .zip(arrivals)
            .map(|(worker, arrivals)| {
                let (listener, alive) = (listener.take(), alive.clone());
                spawn_worker(&shared, worker, arrivals, listener, &stop, alive)
            })
            .collect::<Result<_>>()?;
        Ok(Self { shared, stop, threads, ended })
    }

    /// Where the door listens, with the port that was taken for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves with this many of the threads from now on, until the load asks for
    /// another number if the door adapts to it. Connections move when they next
    /// get a command.
    pub fn use_threads(&self, count: usize) {
        self.shared.balance.set_in_use(count.clamp(1, self.shared.workers.len()));
    }

    /// A view of the door that stays good while it closes.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.shared))
    }

    /// Closes the door: accepts nobody any more, answers what has arrived,
    /// sends idle clients away, and after `deadline` also the others. Returns
    /// how many clients were cut off that way.
    ///
    /// # Cancel safety
    /// Once called, the door closes; only the waiting can be given up, and then
    /// nobody is cut off.
    pub async fn close(mut self, deadline: Duration) -> usize {
        self.stop.cancel();
        let mut cut_off = 0;
        if tokio::time::timeout(deadline, self.ended.recv()).await.is_err() {
            let late = self.shared.clients();
            cut_off = late.len();
            for client in late {
                client.kill();
            }
            // What still waits for a load after that ends with the process.
            let _ = tokio::time::timeout(CUT_OFF_WAIT, self.ended.recv()).await;
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("a thread of the RESP door panicked");
            }
        }
        cut_off
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How long connections that were cut off may take to notice.
const CUT_OFF_WAIT: Duration = Duration::from_secs(1);

/// What is known about an open door, for metrics and administration.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

impl Monitor {
    /// What was counted since the start or the last `CONFIG RESETSTAT`.
    #[must_use]
    pub fn statistics(&self) -> DoorStatistics {
        self.0.statistics()
    }

    /// How many of the threads serve at present.
    #[must_use]
    pub fn threads_in_use(&self) -> usize {
        self.0.balance.in_use()
    }

    /// What was counted about the Redis that this server stands in front of, if
    /// there is one.
    #[must_use]
    pub fn front_statistics(&self) -> Option<FrontStatistics> {
        self.0.front_statistics()
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients_count(&self) -> usize {
        self.0.clients_count()
    }

    /// The input and the replies that wait in memory for all clients.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.0.clients().iter().map(|client| client.buffer_bytes()).sum()
    }
}

fn spawn_worker(
    shared: &Arc<Shared>,
    worker: &Arc<Worker>,
    arrivals: mpsc::UnboundedReceiver<Resting>,
    listener: Option<TcpListener>,
    stop: &CancellationToken,
    alive: mpsc::Sender<()>,
) -> Result<JoinHandle<()>> {
    let index = worker.index;
    let cannot_start = |error| {
        Error::new(ErrorKind::Unavailable, "a thread of the RESP door cannot start")
            .with("thread", index)
            .caused_by(error)
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(coalesce::before_waiting)
        .build()
        .map_err(cannot_start)?;
    let (shared, worker, stop) = (Arc::clone(shared), Arc::clone(worker), stop.clone());
    std::thread::Builder::new()
        .name(format!("resp-{index}"))
        .spawn(move || {
            worker.note_thread();
            coalesce::sharpen_timers();
            runtime.block_on(worker::run(shared, worker, arrivals, listener, stop));
            drop(alive);
        })
        .map_err(cannot_start)
}

/// Listens, and says where, with the port that was taken for port 0.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(SocketProtocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let taken = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket.into(), taken))
    };
    bind().map_err(|error: std::io::Error| {
        Error::new(ErrorKind::Config, "the RESP door cannot listen on its address")
            .with("address", address)
            .caused_by(error)
            .remedy("stop what listens there, or choose another address with `bind`")
    })
}
