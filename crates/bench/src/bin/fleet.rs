//! How soon a node hears what another one has invalidated, over a real Redis on
//! this machine.
//!
//! ```text
//! cargo run --release --package larder-bench --bin fleet -- [trials]
//! ```
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::{Cache, Fleet, FleetOptions, JsonCodec, Memory, Policy, Stores};
use larder_bench::report::{self, Table, Target, verdict};
use larder_core::BoxFuture;
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::redis::RedisServer;

const TRIALS: usize = 10_000;
const P99_MILLIS: f64 = 10.0;

type Rows = Cache<u64, u64>;

fn main() {
    let trials = match std::env::args().nth(1) {
        Some(trials) => trials.parse().expect("the number of trials is a number"),
        None => TRIALS,
    };
    let redis = RedisServer::start();
    report::machine();
    println!("{trials} invalidations on one node, each seen by another; Redis on loopback\n");
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build().expect("a runtime starts");
    let mut table = Table::new(["", "p50, ms", "p99, ms", "longest, ms"]);
    let mut p99 = 0.0;
    for (what, act) in [("remove a key", act_remove as Act), ("remove a tag", act_remove_tag)] {
        let (acknowledged, seen) = runtime.block_on(propagate(&redis, trials, act));
        let seen = quantiles(seen);
        table.row(row(&format!("{what}: acknowledged"), &quantiles(acknowledged)));
        table.row(row(&format!("{what}: given up by the other node"), &seen));
        p99 = f64::max(p99, seen[1]);
    }
    println!("{table}");
    verdict("p99 of propagation, ms", p99, Target::AtMost, P99_MILLIS);
}

type Act = fn(Rows, u64) -> BoxFuture<'static, ()>;

fn act_remove(node: Rows, key: u64) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        node.remove(&key).await.map(|_| ()).expect("it is announced");
    })
}

fn act_remove_tag(node: Rows, key: u64) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        node.remove_tag(format!("row:{key}")).await.expect("it is announced");
    })
}

/// How long each invalidation took to be acknowledged, and to be seen.
async fn propagate(redis: &RedisServer, trials: usize, act: Act) -> (Vec<Duration>, Vec<Duration>) {
    let (one, two) = (node(redis).await, node(redis).await);
    let (mut acknowledged, mut seen) = (Vec::new(), Vec::new());
    for trial in 0..trials {
        let key = trial as u64 % 100;
        while two.get_memory(&key).is_none() {
            let load = || async { Ok::<_, std::io::Error>(7) };
            two.get_or_load_with(&key, load).tags([format!("row:{key}")]).await.expect("a load");
        }
        let start = Instant::now();
        let done = tokio::spawn({
            let one = one.clone();
            async move {
                act(one, key).await;
                start.elapsed()
            }
        });
        while two.get_memory(&key).is_some() {
            tokio::task::yield_now().await;
        }
        seen.push(start.elapsed());
        acknowledged.push(done.await.expect("it ends"));
    }
    (acknowledged, seen)
}

async fn node(redis: &RedisServer) -> Rows {
    let tier = RedisTier::connect(RedisOptions::new(redis.url())).await.expect("Redis is there");
    let fleet = Fleet::join(Arc::new(tier.bus()), FleetOptions::default()).await;
    let fleet = fleet.expect("it joins");
    Cache::builder("row")
        .memory(Memory::entries(1000))
        .policy(Policy::ttl(Duration::from_secs(600)))
        .fleet(&fleet)
        .stores(Stores::new(JsonCodec).store("redis", tier.store("row")))
        .build()
        .expect("a coherent cache")
}

/// In milliseconds: the median, p99 and the longest.
fn quantiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    [at(0.5), at(0.99), at(1.0)]
}

fn row(what: &str, figures: &[f64; 3]) -> Vec<String> {
    let mut row = vec![what.to_owned()];
    row.extend(figures.iter().map(|figure| format!("{figure:.2}")));
    row
}
