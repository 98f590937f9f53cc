//! Larder in front of an existing Redis: reads of strings are answered from
//! this process' memory while they hold, everything else passes through.
//!
//! ```text
//! connection ── one seam: `session::run_ready` in place of the door's own
//!   └─ session ── which way a command takes (`course`), in the client's order
//!        ├─ memory ── values, the fences that void late fills, until when all holds
//!        ├─ link ── a connection that a thread's clients share ─► mailbox of each
//!        └─ pinned ── a client's own: MULTI, WATCH, SUBSCRIBE, what blocks
//! tracking ── one connection on which Redis tells what changes, and its pulse
//! ```
//!
//! Invariants: a command is sent before what it may change is forgotten for the
//! second time, and that is before its reply is given. A token is taken before a
//! read is sent. Nothing is answered from memory unless Redis has confirmed,
//! within the staleness bound, that every invalidation so far has arrived.

mod backoff;
mod course;
mod duplex;
mod frame;
mod link;
mod mailbox;
mod memory;
mod options;
mod pinned;
mod request;
mod session;
mod statistics;
mod tracking;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{Clock, Error, ErrorKind, Moment, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use options::URL_REMEDY;
pub use options::{FrontOptions, UpstreamOptions};
pub(crate) use session::{FrontSession, receive, run_ready};
pub use statistics::{FrontStatistics, TrackingState};

use crate::keyspace::Keyspace;
use crate::resp::Protocol;
use crate::resp::worker::Worker;
use link::Link;
use memory::Memory;
use statistics::Counters;
use wire::{Upstream, Wire};

/// Shared connections: two for each thread, one a protocol. No more threads than
/// this serve, so that there are at most so many and those for tracking.
pub(crate) const THREADS_MAX: usize = 24;

/// Idle connections that a thread keeps for clients that need their own.
const SPARE_WIRES_MAX: usize = 8;

/// Whether Redis answers, takes the login, and can be stood in front of.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if nobody answers, [`ErrorKind::Config`] if the
/// login is refused, [`ErrorKind::Unsupported`] for a cluster.
pub async fn check(options: &FrontOptions) -> Result<()> {
    let upstream = Upstream::new(options.upstream.clone())?;
    let mut wire = upstream.connect(Protocol::Resp2).await?;
    // Who may not ask is not told; a cluster without that right shows when a key
    // is elsewhere.
    let told = match upstream.ask_in_time(&mut wire, "INFO", &[b"INFO", b"cluster"]).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
        told => told.unwrap_or_default(),
    };
    const CLUSTER: &[u8] = b"cluster_enabled:1";
    if told.windows(CLUSTER.len()).any(|part| part == CLUSTER) {
        return Err(Error::new(ErrorKind::Unsupported, "Redis is a cluster")
            .with("address", upstream.label())
            .remedy(
                "let Larder stand in front of a single Redis; clusters are not supported yet",
            ));
    }
    Ok(())
}

/// Reads replies the way connections to Redis do, for fuzzing: any bytes give
/// ends of replies or an error, never a panic.
pub fn fuzz(stream: &[u8]) {
    frame::check_stream(stream);
}

/// A Redis, and what is known of it here.
pub(crate) struct Front {
    options: FrontOptions,
    upstream: Upstream,
    memory: Memory,
    counters: Counters,
    clock: Clock,
    /// Somebody waits for the next answer on the tracking connection.
    pulse: Notify,
}

/// What one thread has of the front.
pub(crate) struct FrontWorker {
    pub(crate) front: Arc<Front>,
    resp2: Arc<Link>,
    resp3: Arc<Link>,
    spare: Mutex<Vec<Wire>>,
}

impl Front {
    /// Connects to nobody yet. What is known is kept in this keyspace.
    ///
    /// # Errors
    /// If the options cannot be used, see [`Upstream::new`].
    pub(crate) fn new(
        options: &FrontOptions,
        keyspace: Arc<Keyspace>,
        clock: Clock,
    ) -> Result<Self> {
        Ok(Self {
            upstream: Upstream::new(options.upstream.clone())?,
            memory: Memory::new(keyspace, options.kept_bytes_max, &options.not_kept),
            options: options.clone(),
            counters: Counters::default(),
            clock,
            pulse: Notify::new(),
        })
    }

    /// Tells for ever what changes in Redis.
    pub(crate) async fn track(self: Arc<Self>) {
        tracking::run(&self).await;
    }

    /// The address of Redis for people.
    pub(crate) fn label(&self) -> &str {
        self.upstream.label()
    }

    /// What was counted by all threads together; workers count the rest.
    pub(crate) fn statistics<'a>(
        &self,
        workers: impl Iterator<Item = &'a Worker>,
    ) -> FrontStatistics {
        let mut total = self.counters.read();
        for worker in workers {
            total.hits += worker.counters.front_hits.get();
            total.misses += worker.counters.front_misses.get();
            total.passed += worker.counters.front_passed.get();
            total.fills += worker.counters.front_fills.get();
            total.fills_discarded += worker.counters.front_fills_discarded.get();
        }
        total
    }

    /// Whether something may be answered from memory at present.
    pub(crate) fn holds(&self) -> bool {
        self.memory.holds(self.clock.now())
    }

    /// Whether this key is in memory, and whether there is a value.
    pub(crate) fn look(&self, key: &[u8]) -> Option<Option<usize>> {
        self.memory.get(key, self.clock.now(), |value| value.map(<[u8]>::len))
    }

    async fn connect(&self, protocol: Protocol) -> Result<Wire> {
        let connected = self.upstream.connect(protocol).await;
        let was_reachable = self.counters.is_reachable.swap(connected.is_ok(), Ordering::Relaxed);
        match &connected {
            Ok(_) => {
                self.counters.connects.fetch_add(1, Ordering::Relaxed);
                self.counters.connections.fetch_add(1, Ordering::Relaxed);
                if !was_reachable {
                    tracing::info!(address = self.label(), "Redis is reached");
                }
            }
            Err(error) => {
                self.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                if was_reachable {
                    tracing::warn!("{error}; commands fail until it is back");
                } else {
                    tracing::debug!("{error}");
                }
            }
        }
        connected
    }

    /// A connection was closed on purpose.
    fn note_closed(&self) {
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection ended while it was in use.
    fn note_lost(&self, error: &Error) {
        self.note_closed();
        self.counters.disconnects.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("a connection was lost: {error}");
    }

    /// Asks for proof that all invalidations up to now have arrived.
    fn request_pulse(&self) {
        self.pulse.notify_one();
    }

    fn now(&self) -> Moment {
        self.clock.precise_now()
    }
}

impl FrontWorker {
    pub(crate) fn new(front: &Arc<Front>) -> Self {
        let link = |protocol| Arc::new(Link::new(Arc::clone(front), protocol));
        Self {
            resp2: link(Protocol::Resp2),
            resp3: link(Protocol::Resp3),
            front: Arc::clone(front),
            spare: Mutex::default(),
        }
    }

    /// Starts the links, on the thread of the worker.
    pub(crate) fn start(&self, worker: &Arc<Worker>) {
        for link in [&self.resp2, &self.resp3] {
            tokio::spawn(Arc::clone(link).run(Arc::clone(worker)));
        }
    }

    fn link(&self, protocol: Protocol) -> &Link {
        match protocol {
            Protocol::Resp2 => &self.resp2,
            Protocol::Resp3 => &self.resp3,
        }
    }

    /// A connection for one client: a spare one, or a new one.
    async fn wire(&self, protocol: Protocol) -> Result<Wire> {
        loop {
            let spare = {
                let mut spare = self.spare.lock();
                let place = spare.iter().rposition(|wire| wire.protocol == protocol);
                place.map(|place| spare.swap_remove(place))
            };
            let Some(mut wire) = spare else { return self.front.connect(protocol).await };
            if wire.is_idle().await {
                return Ok(wire);
            }
            self.front.note_closed();
        }
    }

    /// Takes a connection back that is as it was when it was opened.
    fn give_back(&self, wire: Wire) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_WIRES_MAX {
            spare.push(wire);
        } else {
            self.front.note_closed();
        }
    }
}

impl std::fmt::Debug for FrontWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontWorker").field("redis", &self.front.label()).finish_non_exhaustive()
    }
}
