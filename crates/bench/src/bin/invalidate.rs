//! What it takes to invalidate a million entries at once, by tag and by prefix: at the
//! caller, on another node, and in memory; and that Redis is never asked to look for keys.
//!
//! ```text
//! cargo run --release --package larder-bench --bin invalidate -- [entries]
//! ```
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::{
    Cache, Fleet, FleetOptions, JsonCodec, LoadContext, Loaded, Memory, Origin, Policy, Result,
    Stores,
};
use larder_bench::median;
use larder_bench::report::{self, Table, Target, verdict};
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::redis::RedisServer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ENTRIES: usize = 1_000_000;
const CUSTOMERS: usize = 1_000;
const ROUNDS: usize = 11;
const CALLER_MILLIS: f64 = 1.0;
const TTL: Duration = Duration::from_secs(3600);

type Orders = Cache<String, u64>;

fn main() {
    let entries = match std::env::args().nth(1) {
        Some(entries) => entries.parse().expect("the number of entries is a number"),
        None => ENTRIES,
    };
    report::machine();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        memory(entries).await;
        let longest = alone(entries).await;
        let other = among_nodes(entries).await;
        verdict("longest at the caller, ms", longest, Target::AtMost, CALLER_MILLIS);
        verdict("longest until another node has given it up, ms", other, Target::AtMost, 1e4);
    });
}

/// What tags take, of a million entries.
async fn memory(entries: usize) {
    println!("{entries} entries of 8 bytes under keys like order:17:4711\n");
    let mut table = Table::new(["", "bytes an entry", "more than without"]);
    let kinds: [(&str, Dress); 4] = [
        ("no tags", Dress::Plain),
        ("one tag for all", Dress::Tagged(1)),
        ("one of a thousand tags", Dress::Tagged(CUSTOMERS)),
        ("a prefix for each of a thousand customers", Dress::Prefixed),
    ];
    let mut bare = 0.0;
    for (what, dress) in kinds {
        let before = allocated();
        let orders = fill(builder(dress), entries).await;
        let bytes = (allocated() - before) as f64 / entries as f64;
        if dress == Dress::Plain {
            bare = bytes;
        }
        table.row([what.to_owned(), format!("{bytes:.1}"), format!("{:.1}", bytes - bare)]);
        drop(orders);
    }
    println!("{table}");
}

/// How long the caller waits where there is nobody else.
async fn alone(entries: usize) -> f64 {
    let orders = fill(builder(Dress::Both), entries).await;
    let mut table = Table::new(["alone", "median, µs", "longest, µs"]);
    let mut longest: f64 = 0.0;
    for act in ["remove the tag of all", "remove a customer's prefix", "clear"] {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let start = Instant::now();
            invalidate(&orders, act, round).await;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let most = times.iter().copied().fold(0.0, f64::max);
        longest = longest.max(most / 1e3);
        table.row([act.to_owned(), format!("{:.1}", median(times)), format!("{most:.1}")]);
    }
    assert!(orders.get_memory("order:17:17").is_none(), "it was cleared");
    println!("{table}");
    longest
}

/// How long it takes over a bus: until it is acknowledged, and until a node that has a
/// million of them serves none any more.
async fn among_nodes(entries: usize) -> f64 {
    let redis = RedisServer::start();
    let (one, two) = (node(&redis).await, fill(node(&redis).await, entries).await);
    let before = searches(&redis);
    let mut table = Table::new(["two nodes over Redis", "ms"]);
    let mut longest: f64 = 0.0;
    for act in ["remove a customer's prefix", "remove the tag of all"] {
        let key = "order:1:1001".to_owned();
        while two.get_memory(&key).is_none() {
            two.get_or_load(&key).await.expect("the origin does not fail");
        }
        let start = Instant::now();
        invalidate(&one, act, 1).await;
        let acknowledged = start.elapsed().as_secs_f64() * 1e3;
        while two.get_memory(&key).is_some() {
            tokio::task::yield_now().await;
        }
        let seen = start.elapsed().as_secs_f64() * 1e3;
        longest = longest.max(seen);
        table.row([format!("{act}: acknowledged"), format!("{acknowledged:.2}")]);
        table.row([format!("{act}: given up by the other node"), format!("{seen:.2}")]);
    }
    println!("{table}");
    let searches = searches(&redis) - before;
    println!("KEYS and SCAN that Redis has counted meanwhile: {searches}\n");
    assert_eq!(searches, 0);
    longest
}

async fn invalidate(orders: &Orders, act: &str, round: usize) {
    match act {
        "remove the tag of all" => drop(orders.remove_tag("all").await.expect("it is done")),
        "clear" => drop(orders.clear().await.expect("it is done")),
        _ => {
            let prefix = format!("order:{round}:");
            let cover = orders.remove_prefix(&prefix).await.expect("it is done");
            assert!(cover.is_exact, "{cover:?}");
        }
    }
}

/// What an entry has besides its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dress {
    Plain,
    Tagged(usize),
    Prefixed,
    Both,
}

fn builder(dress: Dress) -> Orders {
    let builder = Cache::builder("order")
        .memory(Memory::entries(2 * ENTRIES))
        .origin(Numbers(dress))
        .policy(Policy::ttl(TTL).jitter(0.0));
    let builder = match dress {
        Dress::Prefixed | Dress::Both => builder.prefixes(pattern()),
        Dress::Plain | Dress::Tagged(_) => builder,
    };
    builder.build().expect("a coherent cache")
}

async fn node(redis: &RedisServer) -> Orders {
    let tier = RedisTier::connect(RedisOptions::new(redis.url())).await.expect("Redis is there");
    let fleet = Fleet::join(Arc::new(tier.bus()), FleetOptions::default()).await;
    Cache::builder("order")
        .memory(Memory::entries(2 * ENTRIES))
        .origin(Numbers(Dress::Both))
        .policy(Policy::ttl(TTL).jitter(0.0))
        .fleet(&fleet.expect("it joins"))
        .stores(Stores::new(JsonCodec).store("redis", tier.store("order")).memory_ttl(TTL))
        .prefixes(pattern())
        .build()
        .expect("a coherent cache")
}

fn pattern() -> larder::KeyPattern {
    "order:{customer}:{id}".parse().expect("a pattern")
}

/// Loads every entry, a batch at a time.
async fn fill(orders: Orders, entries: usize) -> Orders {
    let keys: Vec<String> =
        (0..entries).map(|id| format!("order:{}:{id}", id % CUSTOMERS)).collect();
    for batch in keys.chunks(1_000) {
        let loaded = orders.get_or_load_many(batch).await;
        assert!(loaded.iter().all(Result::is_ok), "the origin does not fail");
    }
    orders
}

/// Orders whose value is their number.
struct Numbers(Dress);

impl Numbers {
    fn row(&self, key: &str) -> Loaded<u64> {
        let id: u64 = key.rsplit(':').next().and_then(|id| id.parse().ok()).unwrap_or_default();
        let loaded = Loaded::value(id);
        match self.0 {
            Dress::Plain | Dress::Prefixed => loaded,
            Dress::Tagged(1) | Dress::Both => loaded.tags(["all"]),
            Dress::Tagged(count) => loaded.tags([format!("tag-{}", id % count as u64)]),
        }
    }
}

impl Origin<String, u64> for Numbers {
    async fn load(&self, key: &String, _: &LoadContext) -> Result<Loaded<u64>> {
        Ok(self.row(key))
    }

    async fn load_many(&self, keys: &[String], _: &LoadContext) -> Vec<Result<Loaded<u64>>> {
        keys.iter().map(|key| Ok(self.row(key))).collect()
    }

    fn batch_limit(&self) -> usize {
        1_000
    }
}

fn allocated() -> usize {
    tikv_jemalloc_ctl::epoch::advance().expect("jemalloc counts");
    tikv_jemalloc_ctl::stats::allocated::read().expect("jemalloc counts")
}

/// How often this server was asked to look for keys.
fn searches(redis: &RedisServer) -> u64 {
    ["keys", "scan", "sscan", "hscan", "zscan", "randomkey"]
        .iter()
        .map(|command| redis.calls(command))
        .sum()
}
