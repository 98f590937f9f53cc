//! What the tiers and the bus cost in round trips.

use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, Fleet, FleetOptions, JsonCodec, Policy, Stores, Tier};
use larder_redis::{RedisOptions, RedisTier};
use larder_testkit::proxy::{Direction, FaultProxy};
use larder_testkit::redis::RedisServer;

type Rows = Cache<u64, u64>;

async fn node(proxy: &FaultProxy) -> Rows {
    let options = RedisOptions::new(format!("redis://{}", proxy.address()));
    let tier = RedisTier::connect(options).await.expect("Redis is there");
    let fleet = Fleet::join(Arc::new(tier.bus()), FleetOptions::default()).await;
    let stores = Stores::new(JsonCodec).store("redis", tier.store("row")).lease(tier.lease("row"));
    Cache::builder("row")
        .policy(Policy::ttl(Duration::from_secs(600)))
        .fleet(&fleet.expect("it joins"))
        .stores(stores)
        .build()
        .expect("a coherent cache")
}

async fn load(rows: &Rows, key: u64) {
    let load = || async { Ok::<_, std::io::Error>(7) };
    rows.get_or_load_with(&key, load).await.expect("it is loaded");
}

#[tokio::test]
async fn a_hit_in_the_shared_tier_is_one_round_trip_and_so_is_a_batch() {
    let redis = RedisServer::start();
    let (busy, counted) = (FaultProxy::start(redis.address()), FaultProxy::start(redis.address()));
    let filler = node(&busy).await;
    for key in 0..200 {
        load(&filler, key).await;
    }
    let rows = node(&counted).await;
    // The first look asks what the store remembers of before.
    load(&rows, 0).await;
    let calls = |command| redis.calls(command);
    let before = calls("mget");
    for key in 1..=50 {
        let hit = rows.get(&key).await.expect("it is read").expect("the store has it");
        assert_eq!(hit.tier(), Tier::Store(0));
    }
    assert_eq!(calls("mget") - before, 50);
    let (before, scripts) = (calls("mget"), calls("evalsha"));
    let keys: Vec<u64> = (100..200).collect();
    let answers = rows.get_or_load_many(&keys).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|hit| hit.value() == Some(&7))));
    assert_eq!(calls("mget") - before, 1, "one for a batch of 100");
    // Heartbeats are scripts.
    assert!(calls("evalsha") - scripts <= 2);
}

#[tokio::test]
async fn a_node_without_traffic_costs_a_few_small_messages() {
    const SECONDS: u32 = 4;
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let rows = node(&proxy).await;
    load(&rows, 1).await;
    // What the load has to say is said.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (trips, bytes) = (proxy.round_trips(), proxy.bytes(Direction::Both));
    tokio::time::sleep(Duration::from_secs(1) * SECONDS).await;
    let (trips, bytes) = (proxy.round_trips() - trips, proxy.bytes(Direction::Both) - bytes);
    // One request and one answer each.
    assert!((SECONDS..=2 * SECONDS + 1).contains(&(trips as u32)), "{trips} in {SECONDS} s");
    assert!(bytes < 1024 * u64::from(SECONDS), "{bytes} bytes in {SECONDS} s");
}
