//! Three processes' worth of a cache, each behind a proxy of its own, and readers
//! and writers on all of them who keep a record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Cache, Clock, Fleet, FleetOptions, JsonCodec, LoadContext, Loaded, Memory, Origin, Policy,
    Result, Stores, Tier,
};
use larder_redis::{RedisOptions, RedisTier, Topology};
use larder_testkit::history::History;
use larder_testkit::proxy::FaultProxy;
use larder_testkit::redis::{Cluster, RedisServer, Replicated};
use tokio::task::JoinSet;
use tokio::time::Instant;

const NODES: usize = 3;
const KEYS: u64 = 40;

/// The database.
#[derive(Clone, Default)]
struct Truth(Arc<Mutex<HashMap<u64, u64>>>);

impl Truth {
    fn get(&self, key: u64) -> u64 {
        self.0.lock().expect("nobody panicked").get(&key).copied().unwrap_or_default()
    }

    fn set(&self, key: u64, value: u64) {
        self.0.lock().expect("nobody panicked").insert(key, value);
    }
}

impl Origin<u64, u64> for Truth {
    async fn load(&self, key: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        // A read sees what was committed when it arrives.
        let value = self.get(*key);
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Loaded::value(value))
    }
}

struct Node {
    /// What is between it and a Redis that stands alone.
    proxy: Option<FaultProxy>,
    fleet: Fleet,
    cache: Cache<u64, u64>,
}

/// How the nodes served while a fault lasted.
#[derive(Clone, Copy, Default)]
pub(super) struct Conduct {
    pub(super) reads: u64,
    answered: u64,
    hits: u64,
    pub(super) staleness_max: Duration,
}

impl Conduct {
    pub(super) fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.answered += other.answered;
        self.hits += other.hits;
        self.staleness_max = self.staleness_max.max(other.staleness_max);
    }

    pub(super) fn available(&self) -> f64 {
        self.answered as f64 / self.reads.max(1) as f64
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
    pub(super) async fn start(seed: u64, bound: Duration) -> Self {
        let servers = Replicated::start(1);
        let (truth, mut nodes) = (Truth::default(), Vec::new());
        for number in 0..NODES {
            let seed = seed * NODES as u64 + number as u64;
            let proxy = FaultProxy::start_with_seed(servers.servers()[0].address(), seed);
            let options = RedisOptions::new(format!("redis://{}", proxy.address()));
            nodes.push(node(Some(proxy), options, &truth, bound).await);
        }
        Self::of(Servers::Replicated { servers, primary: 0 }, nodes, truth)
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
            nodes.push(node(None, options, &truth, bound).await);
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
            while node.cache.remove(&KEYS).await.is_err() {
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
        let acknowledged = Arc::clone(&self.acknowledged);
        async move {
            while !stopping.load(Ordering::Relaxed) {
                let key = random.u64(..KEYS);
                let is_counting = counts.is_counting.load(Ordering::Relaxed);
                let latest = acknowledged.lock().expect("nobody panicked").get(&key).copied();
                let (read, begun) = (history.begin_read(key), Instant::now());
                let answer = node.cache.get_or_load(&key).await;
                let add = |counter: &AtomicU64| {
                    counter.fetch_add(u64::from(is_counting), Ordering::Relaxed);
                };
                add(&counts.reads);
                if let Ok(hit) = answer {
                    add(&counts.answered);
                    if hit.tier() == Tier::Memory {
                        add(&counts.hits);
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
            while !stopping.load(Ordering::Relaxed) {
                let key = random.u64(..KEYS / NODES as u64) * NODES as u64 + number as u64;
                let value = truth.get(key) + 1;
                let write = history.begin_write(key, value);
                truth.set(key, value);
                match node.cache.remove(&key).await {
                    Ok(_) => {
                        write.committed();
                        let now = Instant::now();
                        acknowledged.lock().expect("nobody panicked").insert(key, (value, now));
                    }
                    // It will be announced. Nothing else is a reason not to.
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
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
                    let answer = node.cache.get_or_load(&key).await;
                    let value = answer.as_ref().ok().and_then(|hit| hit.value().copied());
                    if value == Some(expected) {
                        break;
                    }
                    let fleets = self.nodes.iter().map(|node| node.fleet.statistics());
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

async fn node(
    proxy: Option<FaultProxy>,
    mut options: RedisOptions,
    truth: &Truth,
    bound: Duration,
) -> Node {
    options.response_timeout = Duration::from_millis(500);
    options.heartbeat = Duration::from_millis(250);
    let tier = RedisTier::connect(options).await.expect("Redis is there");
    let fleet = FleetOptions::default().staleness_bound(bound);
    let fleet = Fleet::join(Arc::new(tier.bus()), fleet).await.expect("it joins");
    let stores = Stores::new(JsonCodec).store("redis", tier.store("row")).lease(tier.lease("row"));
    let cache = Cache::builder("row")
        .memory(Memory::entries(1000))
        .origin(truth.clone())
        .policy(Policy::ttl(Duration::from_secs(600)).early_refresh_beta(None))
        .fleet(&fleet)
        .stores(stores)
        .build()
        .expect("a coherent cache");
    Node { proxy, fleet, cache }
}
