//! Three processes' worth of a cache, each behind a proxy of its own, and readers
//! and writers on all of them who keep a record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Clock, Tier};
use larder_redis::{RedisOptions, Topology};
use larder_testkit::certificates::Authority;
use larder_testkit::history::History;
use larder_testkit::proxy::FaultProxy;
use larder_testkit::redis::{Cluster, RedisOptions as ServerOptions, RedisServer, Replicated};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::node::{Node, Truth};
use crate::shared_tiers::user_without;

const NODES: usize = 3;
const KEYS: u64 = 40;

/// What nodes have, and how they reach their Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// Entries in Redis.
    Plain,
    /// Each a disk of its own as well.
    Disk,
    /// TLS, and a user with no right but those needed.
    Encrypted,
}

/// How the nodes served while a fault lasted.
#[derive(Clone, Copy, Default)]
pub(super) struct Conduct {
    pub(super) reads: u64,
    answered: u64,
    hits: u64,
    from_disk: u64,
    pub(super) staleness_max: Duration,
}

impl Conduct {
    pub(super) fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.answered += other.answered;
        self.hits += other.hits;
        self.from_disk += other.from_disk;
        self.staleness_max = self.staleness_max.max(other.staleness_max);
    }

    pub(super) fn available(&self) -> f64 {
        self.answered as f64 / self.reads.max(1) as f64
    }

    pub(super) fn disk_ratio(&self) -> f64 {
        self.from_disk as f64 / self.answered.max(1) as f64
    }

    pub(super) fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.answered.max(1) as f64
    }
}

#[derive(Default)]
struct Counts {
    is_counting: AtomicBool,
    reads: AtomicU64,
    answered: AtomicU64,
    hits: AtomicU64,
    from_disk: AtomicU64,
    staleness_max_nanos: AtomicU64,
}

/// What the nodes share.
enum Servers {
    Replicated { servers: Replicated, primary: usize },
    Cluster(Cluster),
}

pub(super) struct Nodes {
    servers: Servers,
    nodes: Vec<Arc<Node>>,
    truth: Truth,
    history: History<u64, u64>,
    /// When each key's value was acknowledged last.
    acknowledged: Arc<Mutex<HashMap<u64, (u64, Instant)>>>,
    counts: Arc<Counts>,
    setting: Setting,
    /// Who vouches for the servers.
    _authority: Option<Authority>,
}

/// Readers and writers.
pub(super) struct Load {
    stopping: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    pub(super) async fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("it does not panic");
        }
    }
}

impl Nodes {
    /// Over a primary with a replica, each node behind a proxy of its own.
    pub(super) async fn start(seed: u64, bound: Duration, setting: Setting) -> Self {
        let authority = (setting == Setting::Encrypted).then(Authority::new);
        let servers = Replicated::launch(1, &server_options(authority.as_ref()));
        let (truth, mut nodes) = (Truth::default(), Vec::new());
        for number in 0..NODES {
            let seed = seed * NODES as u64 + number as u64;
            let proxy = FaultProxy::start_with_seed(servers.servers()[0].address(), seed);
            let options = options_through(&proxy, authority.as_ref());
            let has_disk = setting == Setting::Disk;
            nodes.push(Node::start(Some(proxy), options, &truth, bound, has_disk).await);
        }
        let servers = Servers::Replicated { servers, primary: 0 };
        Self { setting, _authority: authority, ..Self::of(servers, nodes, truth) }
    }

    /// Over a cluster of three primaries and their replicas.
    pub(super) async fn start_over_cluster(bound: Duration) -> Self {
        let servers = Cluster::start();
        let addresses = servers.addresses();
        let (truth, mut nodes) = (Truth::default(), Vec::new());
        for _ in 0..NODES {
            let mut options = RedisOptions::new(format!("redis://{}", addresses[0]));
            options.urls = addresses.iter().map(|at| format!("redis://{at}")).collect();
            options.topology = Topology::Cluster;
            nodes.push(Node::start(None, options, &truth, bound, false).await);
        }
        Self::of(Servers::Cluster(servers), nodes, truth)
    }

    fn of(servers: Servers, nodes: Vec<Node>, truth: Truth) -> Self {
        let history = History::new(Clock::monotonic());
        (0..KEYS).for_each(|key| history.begin_write(key, 0).committed());
        Self {
            servers,
            nodes: nodes.into_iter().map(Arc::new).collect(),
            truth,
            history,
            acknowledged: Arc::default(),
            counts: Arc::default(),
            setting: Setting::Plain,
            _authority: None,
        }
    }

    /// Ends a node as `kill -9` does and starts it again, if it has a disk of before.
    pub(super) async fn restart(&self, node: usize) {
        if self.setting == Setting::Disk {
            self.nodes[node].restart().await;
        }
    }

    pub(super) fn proxy(&self, node: usize) -> &FaultProxy {
        self.nodes[node].proxy.as_ref().expect("there is none before a cluster")
    }

    pub(super) fn primary(&self) -> &RedisServer {
        let Servers::Replicated { servers, primary } = &self.servers else {
            panic!("a cluster has more than one")
        };
        &servers.servers()[*primary]
    }

    pub(super) fn cluster(&self) -> &Cluster {
        let Servers::Cluster(cluster) = &self.servers else { panic!("there is none") };
        cluster
    }

    /// Waits until a change can be announced by every node; returns how long that
    /// took.
    pub(super) async fn can_announce(&self) -> Duration {
        let began = Instant::now();
        for node in &self.nodes {
            while node.live().cache.remove(&KEYS).await.is_err() {
                assert!(began.elapsed() < Duration::from_secs(60), "it cannot be announced");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        began.elapsed()
    }

    /// The key of the bus' stream.
    pub(super) fn stream(&self) -> String {
        let keys = self.primary().command(&["KEYS", "*stream*"]);
        keys.items().first().expect("the bus has a stream").text()
    }

    pub(super) fn hold_replica_back(&mut self) {
        if let Servers::Replicated { servers, .. } = &self.servers {
            servers.hold_back(0);
        }
    }

    /// The replica becomes the primary; the old one is gone.
    pub(super) fn fail_over(&mut self) {
        let Servers::Replicated { servers, primary } = &mut self.servers else { return };
        servers.servers()[0].kill();
        servers.promote(1);
        *primary = 1;
        let address = servers.servers()[1].address();
        for proxy in self.nodes.iter().filter_map(|node| node.proxy.as_ref()) {
            proxy.lead_to(address);
            proxy.all().reset();
        }
    }

    pub(super) fn history(&self) -> &History<u64, u64> {
        &self.history
    }

    pub(super) fn begin_counting(&self) {
        self.counts.is_counting.store(true, Ordering::Relaxed);
    }

    pub(super) fn end_counting(&self) {
        self.counts.is_counting.store(false, Ordering::Relaxed);
    }

    pub(super) fn conduct(&self) -> Conduct {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Conduct {
            reads: count(&self.counts.reads),
            answered: count(&self.counts.answered),
            hits: count(&self.counts.hits),
            from_disk: count(&self.counts.from_disk),
            staleness_max: Duration::from_nanos(count(&self.counts.staleness_max_nanos)),
        }
    }

    /// Begins to read and write on every node.
    pub(super) fn load(&self, seed: u64) -> Load {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..NODES {
            for reader in 0..2 {
                let random = random(seed, number * 2 + reader);
                tasks.spawn(self.reader(number, random, Arc::clone(&stopping)));
            }
            let random = random(seed, 100 + number);
            tasks.spawn(self.writer(number, random, Arc::clone(&stopping)));
        }
        Load { stopping, tasks }
    }

    fn reader(
        &self,
        number: usize,
        mut random: fastrand::Rng,
        stopping: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let node = Arc::clone(&self.nodes[number]);
        let (history, counts) = (self.history.clone(), Arc::clone(&self.counts));
        let has_disk = self.setting == Setting::Disk;
        let acknowledged = Arc::clone(&self.acknowledged);
        async move {
            while !stopping.load(Ordering::Relaxed) {
                let key = random.u64(..KEYS);
                let is_counting = counts.is_counting.load(Ordering::Relaxed);
                let latest = acknowledged.lock().expect("nobody panicked").get(&key).copied();
                let (read, begun) = (history.begin_read(key), Instant::now());
                let live = node.live();
                let answer = live.cache.get_or_load(&key).await;
                if live.has_ended() {
                    // Nobody was there to give it to.
                    continue;
                }
                let add = |counter: &AtomicU64| {
                    counter.fetch_add(u64::from(is_counting), Ordering::Relaxed);
                };
                add(&counts.reads);
                if let Ok(hit) = answer {
                    add(&counts.answered);
                    match hit.tier() {
                        Tier::Memory => add(&counts.hits),
                        Tier::Store(0) if has_disk => add(&counts.from_disk),
                        _ => {}
                    }
                    let value = hit.into_value().expect("every key has a value");
                    read.returned(value);
                    if let Some((_, at)) = latest.filter(|(newer, _)| *newer > value) {
                        let staleness = begun.duration_since(at).as_nanos() as u64;
                        counts.staleness_max_nanos.fetch_max(staleness, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(random.u64(..4))).await;
            }
        }
    }

    /// Changes the keys that are its own, first at the origin, and then says so.
    fn writer(
        &self,
        number: usize,
        mut random: fastrand::Rng,
        stopping: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let node = Arc::clone(&self.nodes[number]);
        let (history, truth) = (self.history.clone(), self.truth.clone());
        let acknowledged = Arc::clone(&self.acknowledged);
        async move {
            // What was an error where nobody lives any more who will announce it.
            let mut unsaid: Vec<u64> = Vec::new();
            while !stopping.load(Ordering::Relaxed) || !unsaid.is_empty() {
                let key = unsaid.pop().unwrap_or_else(|| {
                    random.u64(..KEYS / NODES as u64) * NODES as u64 + number as u64
                });
                let value = truth.get(key) + 1;
                let write = history.begin_write(key, value);
                truth.set(key, value);
                let live = node.live();
                match live.cache.remove(&key).await {
                    Ok(_) if live.has_ended() => unsaid.push(key),
                    Ok(_) => {
                        write.committed();
                        let now = Instant::now();
                        acknowledged.lock().expect("nobody panicked").insert(key, (value, now));
                    }
                    // It will be announced, as long as the node lives. Nothing else is a
                    // reason not to.
                    Err(error) => {
                        assert!(error.is_retryable() || live.has_ended(), "{error}");
                        node.say_again(&live, key, &mut unsaid);
                    }
                }
                unsaid.extend(node.take_unsaid());
                tokio::time::sleep(Duration::from_millis(random.u64(10..40))).await;
            }
        }
    }

    /// Every node says of every key what the origin says, by then.
    pub(super) async fn agree_by(&self, deadline: Instant, fault: &str) {
        for (number, node) in self.nodes.iter().enumerate() {
            for key in 0..KEYS {
                let expected = self.truth.get(key);
                loop {
                    let answer = node.live().cache.get_or_load(&key).await;
                    let value = answer.as_ref().ok().and_then(|hit| hit.value().copied());
                    if value == Some(expected) {
                        break;
                    }
                    let fleets = self.nodes.iter().map(|node| node.live().fleet.statistics());
                    assert!(
                        Instant::now() < deadline,
                        "{fault}: node {number} says {value:?} of {key}, the origin {expected}: \
                         {answer:?}; {:?}",
                        fleets.collect::<Vec<_>>()
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

fn random(seed: u64, task: usize) -> fastrand::Rng {
    fastrand::Rng::with_seed((seed << 16) | task as u64)
}

/// Servers that offer TLS only, and to a user with few rights, or anybody.
fn server_options(authority: Option<&Authority>) -> ServerOptions {
    let Some(authority) = authority else { return ServerOptions::default() };
    ServerOptions {
        users: vec![user_without(&[])],
        password: Some("hunter3".to_owned()),
        ..ServerOptions::with_tls(authority)
    }
}

fn options_through(proxy: &FaultProxy, authority: Option<&Authority>) -> RedisOptions {
    let Some(authority) = authority else {
        return RedisOptions::new(format!("redis://{}", proxy.address()));
    };
    let mut options = RedisOptions::new(format!("rediss://app@{}", proxy.address()));
    options.password = Some("hunter2".to_owned());
    options.ca_file = Some(authority.certificate().to_owned());
    options
}
