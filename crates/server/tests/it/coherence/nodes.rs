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
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::history::History;
use larder_testkit::proxy::FaultProxy;
use larder_testkit::redis::{RedisServer, Replicated};
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
    proxy: FaultProxy,
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

pub(super) struct Nodes {
    redis: Replicated,
    primary: usize,
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
    pub(super) async fn start(seed: u64, bound: Duration) -> Self {
        let redis = Replicated::start(1);
        let truth = Truth::default();
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let seed = seed * NODES as u64 + number as u64;
            let proxy = FaultProxy::start_with_seed(redis.servers()[0].address(), seed);
            nodes.push(Arc::new(node(proxy, &truth, bound).await));
        }
        let history = History::new(Clock::monotonic());
        (0..KEYS).for_each(|key| history.begin_write(key, 0).committed());
        let acknowledged = Arc::default();
        Self { redis, primary: 0, nodes, truth, history, acknowledged, counts: Arc::default() }
    }

    pub(super) fn proxy(&self, node: usize) -> &FaultProxy {
        &self.nodes[node].proxy
    }

    pub(super) fn primary(&self) -> &RedisServer {
        &self.redis.servers()[self.primary]
    }

    /// The key of the bus' stream.
    pub(super) fn stream(&self) -> String {
        let keys = self.primary().command(&["KEYS", "*stream*"]);
        keys.items().first().expect("the bus has a stream").text()
    }

    pub(super) fn hold_replica_back(&mut self) {
        self.redis.hold_back(0);
    }

    /// The replica becomes the primary; the old one is gone.
    pub(super) fn fail_over(&mut self) {
        self.redis.servers()[0].kill();
        self.redis.promote(1);
        self.primary = 1;
        let address = self.redis.servers()[1].address();
        for node in &self.nodes {
            node.proxy.lead_to(address);
            node.proxy.all().reset();
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
                if node.cache.remove(&key).await.is_ok() {
                    write.committed();
                    let now = Instant::now();
                    acknowledged.lock().expect("nobody panicked").insert(key, (value, now));
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
                         {answer:?}; {:?} {:?}",
                        self.nodes[1].proxy.connections(),
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

async fn node(proxy: FaultProxy, truth: &Truth, bound: Duration) -> Node {
    let mut options = RedisOptions::new(format!("redis://{}", proxy.address()));
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
