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
mod both;
mod cluster;
mod course;
mod duplex;
mod frame;
mod link;
mod mailbox;
mod memory;
mod nodes;
mod options;
mod pinned;
mod request;
mod sentinel;
mod session;
mod state;
mod statistics;
mod tracking;
mod turn;
mod validity;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use both::answer as answer_both;
use larder_core::{Clock, Error, ErrorKind, Moment, Result};
pub(crate) use options::URL_REMEDY;
pub use options::{FrontOptions, FrontTopology, UpstreamOptions};
use parking_lot::Mutex;
pub(crate) use session::run_ready;
pub(crate) use state::{FrontSession, collect, wait};
pub use statistics::{FrontStatistics, TrackingState};

use crate::keyspace::Keyspace;
use crate::resp::Protocol;
use crate::resp::worker::Worker;
use cluster::Cluster;
use link::Link;
use memory::Memory;
use nodes::{Node, Nodes};
use statistics::Counters;
use wire::{Upstream, Wire};

/// Shared connections to each server: two for each thread, one a protocol. No more
/// threads than this serve, so that there are at most so many and those for
/// tracking.
pub(crate) const THREADS_MAX: usize = 24;

/// Idle connections that a thread keeps for clients that need their own.
const SPARE_WIRES_MAX: usize = 8;

/// Whether Redis answers, takes the login, and can be stood in front of. Returns
/// the options with what was found out: whether it is a cluster, and whom
/// sentinels take for the primary.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if nobody answers, or a cluster does not serve every
/// slot, [`ErrorKind::Config`] if the login is refused, [`ErrorKind::Unsupported`]
/// for a server without a right that it takes.
pub async fn check(options: &FrontOptions) -> Result<FrontOptions> {
    if matches!(options.topology, FrontTopology::Sentinel { .. }) {
        let login = Upstream::new(options.upstream.clone())?;
        let primary = sentinel::find(options, &login).await?;
        let mut options = options.clone();
        (options.upstream.host, options.upstream.port) = (primary.host, primary.port);
        return Ok(options);
    }
    let mut failure = None;
    for upstream in seeds(options)? {
        match check_one(options, &upstream).await {
            Ok(false) if !options.others.is_empty() => {
                return Err(Error::new(ErrorKind::Config, "Redis is no cluster")
                    .with("address", upstream.label())
                    .with("addresses", options.others.len() + 1)
                    .remedy("keep the address of one server, or name those of a cluster"));
            }
            Ok(is_cluster) => {
                let mut options = options.clone();
                if is_cluster {
                    options.topology = FrontTopology::Cluster;
                }
                return Ok(options);
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Config, "no Redis is named")))
}

/// Returns whether it is a server of a cluster.
async fn check_one(options: &FrontOptions, upstream: &Upstream) -> Result<bool> {
    let mut wire = upstream.connect(Protocol::Resp2).await?;
    if !options.is_cluster() && !says_cluster(upstream, &mut wire).await? {
        return Ok(false);
    }
    let told = cluster::topology::ask(upstream, &mut wire).await?;
    if told.is_ok() && told.slots_count() == cluster::slot::SLOTS {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::Unavailable, "the Redis cluster does not serve every slot")
        .with("address", upstream.label())
        .with("slots", told.slots_count())
        .remedy("see what CLUSTER INFO and CLUSTER NODES say there, and wait until it is healed"))
}

/// Whether a server says that it is one of a cluster. One that refuses to say is
/// taken for none.
async fn says_cluster(upstream: &Upstream, wire: &mut Wire) -> Result<bool> {
    const CLUSTER: &[u8] = b"cluster_enabled:1";
    let told = match upstream.ask_in_time(wire, "INFO", &[b"INFO", b"cluster"]).await {
        Ok(told) => return Ok(told.windows(CLUSTER.len()).any(|part| part == CLUSTER)),
        // It is a right that many do not have.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            upstream.ask_in_time(wire, "CLUSTER INFO", &cluster::pulse::QUESTION).await
        }
        Err(error) => return Err(error),
    };
    match told {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// The servers to ask who owns what.
fn asked(options: &FrontOptions) -> Result<Vec<Upstream>> {
    match options.topology {
        FrontTopology::Sentinel { .. } => sentinel::upstreams(options),
        _ => seeds(options),
    }
}

/// The servers that the options name.
fn seeds(options: &FrontOptions) -> Result<Vec<Upstream>> {
    let first = Upstream::new(options.upstream.clone())?;
    let others = options.others.iter().map(|(host, port)| first.beside(host, *port));
    let others: Vec<_> = others.collect::<Result<_>>()?;
    Ok([first].into_iter().chain(others).collect())
}

/// Reads replies the way connections to Redis do, for fuzzing: any bytes give
/// ends of replies or an error, never a panic, whatever they are taken for.
pub fn fuzz(stream: &[u8]) {
    frame::check_stream(stream);
    let _ = cluster::map::read(stream, stream.len().is_multiple_of(2));
    let _ = cluster::pulse::verdict(stream, 0);
    let _ = cluster::redirect::Redirect::read(stream);
    let _ = sentinel::read(stream);
}

/// A Redis, or a cluster of them, and what is known of it here.
pub(crate) struct Front {
    options: FrontOptions,
    label: String,
    nodes: Nodes,
    /// How to log in to any server.
    login: Arc<Upstream>,
    /// The servers to ask who owns what: of a cluster, when nobody else is known,
    /// or sentinels.
    seeds: Vec<Arc<Upstream>>,
    cluster: Cluster,
    memory: Memory,
    counters: Counters,
    clock: Clock,
}

/// What one thread has of the front.
pub(crate) struct FrontWorker {
    pub(crate) front: Arc<Front>,
    /// By the places of their servers.
    links: Mutex<Vec<Option<Links>>>,
    spare: Mutex<Vec<(Arc<Node>, Wire)>>,
}

/// The shared connections of one thread to one server.
struct Links {
    node: Arc<Node>,
    resp2: Arc<Link>,
    resp3: Arc<Link>,
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
        let is_cluster = options.is_cluster();
        Ok(Self {
            label: options.label(),
            nodes: Nodes::new(Upstream::new(options.upstream.clone())?),
            login: Arc::new(Upstream::new(options.upstream.clone())?),
            seeds: asked(options)?.into_iter().map(Arc::new).collect(),
            cluster: Cluster::default(),
            memory: Memory::new(keyspace, is_cluster, options.kept_bytes_max, &options.not_kept),
            options: options.clone(),
            counters: Counters::default(),
            clock,
        })
    }

    /// Tells for ever what changes in Redis.
    pub(crate) async fn track(self: Arc<Self>) {
        match &self.options.topology {
            FrontTopology::Cluster => cluster::topology::run(&self).await,
            FrontTopology::Sentinel { .. } => sentinel::run(&self).await,
            FrontTopology::Standalone => {
                if let Some(node) = self.nodes.get(0) {
                    tracking::run(&self, &node).await;
                }
            }
        }
    }

    /// The address of Redis for people.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// What was counted by all threads together; workers count the rest.
    pub(crate) fn statistics<'a>(
        &self,
        workers: impl Iterator<Item = &'a Worker>,
    ) -> FrontStatistics {
        let mut total = self.counters.read();
        let nodes = self.listened_to();
        total.servers = nodes.len();
        total.tracking = worst(nodes.iter().map(|node| node.tracking()));
        total.is_reachable = nodes.iter().all(|node| node.is_reachable.load(Ordering::Relaxed));
        for worker in workers {
            total.hits += worker.counters.front_hits.get();
            total.misses += worker.counters.front_misses.get();
            total.passed += worker.counters.front_passed.get();
            total.fills += worker.counters.front_fills.get();
            total.fills_discarded += worker.counters.front_fills_discarded.get();
        }
        total
    }

    /// The servers from which changes may come.
    fn listened_to(&self) -> Vec<Arc<Node>> {
        let places = self.memory.validity.watched();
        places.into_iter().filter_map(|place| self.nodes.get(place)).collect()
    }

    /// Whether anything may be answered from memory at present.
    pub(crate) fn holds(&self) -> bool {
        self.memory.validity.all_hold(self.clock.now())
    }

    /// Whether this key is in memory, and whether there is a value.
    pub(crate) fn look(&self, key: &[u8]) -> Option<Option<usize>> {
        self.memory.get(key, self.clock.now(), |value| value.map(<[u8]>::len))
    }

    async fn connect(&self, node: &Node, protocol: Protocol) -> Result<Wire> {
        let connected = node.upstream.connect(protocol).await;
        let was_reachable = node.is_reachable.swap(connected.is_ok(), Ordering::Relaxed);
        match &connected {
            Ok(_) => {
                self.counters.connects.fetch_add(1, Ordering::Relaxed);
                self.counters.connections.fetch_add(1, Ordering::Relaxed);
                if !was_reachable {
                    tracing::info!(address = node.upstream.label(), "Redis is reached");
                }
            }
            Err(error) => {
                self.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                self.cluster.refresh();
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
        self.cluster.refresh();
        tracing::warn!("a connection was lost: {error}");
    }

    /// Asks for proof that all invalidations up to now have arrived.
    fn request_pulse(&self) {
        self.listened_to().iter().for_each(|node| node.pulse.notify_one());
    }

    fn now(&self) -> Moment {
        self.clock.precise_now()
    }
}

impl FrontWorker {
    pub(crate) fn new(front: &Arc<Front>) -> Self {
        Self { front: Arc::clone(front), links: Mutex::default(), spare: Mutex::default() }
    }

    /// The connection that this thread's clients share to a server; `None` if
    /// there is none at this place. To be called on the thread itself.
    fn link(&self, worker: &Arc<Worker>, place: usize, protocol: Protocol) -> Option<Arc<Link>> {
        let mut links = self.links.lock();
        let known = links.get(place).and_then(Option::as_ref);
        if known.is_none_or(|known| known.node.is_retired()) {
            let node = self.front.nodes.get(place).filter(|node| !node.is_retired())?;
            if links.len() <= place {
                links.resize_with(place + 1, || None);
            }
            let open = |protocol| {
                let link =
                    Arc::new(Link::new(Arc::clone(&self.front), Arc::clone(&node), protocol));
                tokio::spawn(Arc::clone(&link).run(Arc::clone(worker)));
                link
            };
            let (resp2, resp3) = (open(Protocol::Resp2), open(Protocol::Resp3));
            links[place] = Some(Links { node, resp2, resp3 });
        }
        let links = links[place].as_ref()?;
        Some(Arc::clone(match protocol {
            Protocol::Resp2 => &links.resp2,
            Protocol::Resp3 => &links.resp3,
        }))
    }

    /// A connection for one client: a spare one, or a new one.
    async fn wire(&self, node: &Arc<Node>, protocol: Protocol) -> Result<Wire> {
        loop {
            let spare = {
                let mut spare = self.spare.lock();
                let place = spare
                    .iter()
                    .rposition(|(of, wire)| wire.protocol == protocol && Arc::ptr_eq(of, node));
                place.map(|place| spare.swap_remove(place))
            };
            let Some((_, mut wire)) = spare else {
                return self.front.connect(node, protocol).await;
            };
            if wire.is_idle().await {
                return Ok(wire);
            }
            self.front.note_closed();
        }
    }

    /// Takes a connection back that is as it was when it was opened.
    fn give_back(&self, node: Arc<Node>, wire: Wire) {
        let mut spare = self.spare.lock();
        if spare.len() >= SPARE_WIRES_MAX || node.is_retired() {
            self.front.note_closed();
            return;
        }
        spare.push((node, wire));
    }
}

/// Whether all are tracked: one that is not makes the difference.
fn worst(states: impl Iterator<Item = TrackingState>) -> TrackingState {
    let rank = |state: &TrackingState| match state {
        TrackingState::Lost => 0,
        TrackingState::Refused => 1,
        TrackingState::Tracking => 2,
    };
    states.min_by_key(rank).unwrap_or(TrackingState::Lost)
}

impl std::fmt::Debug for FrontWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontWorker").field("redis", &self.front.label()).finish_non_exhaustive()
    }
}
