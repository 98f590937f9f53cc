//! One load of a key over all nodes, whatever becomes of whoever loads it.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Cache, Clock, ErrorKind, Fleet, FleetOptions, JsonCodec, Key, Lease, Memory, Policy, Stores,
};
use larder_core::LeaseGrant;
use larder_testkit::faulty::{Answer, FaultyBus, FaultyLease, FaultyStore, Gate};
use tokio::time::Instant;

use crate::support::*;

struct Nodes {
    caches: Vec<Users>,
    origin: Truth,
    lease: FaultyLease,
    store: FaultyStore,
}

async fn nodes(count: usize, policy: Policy) -> Nodes {
    let (bus, lease) = (FaultyBus::new(), FaultyLease::new());
    let store = FaultyStore::new(Clock::monotonic());
    let rows = (0..100).map(|number| (format!("user-{number}"), number));
    let origin = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]).with_rows(rows);
    let mut caches = Vec::new();
    for _ in 0..count {
        let bus = Arc::new(bus.join());
        let fleet = Fleet::join(bus, FleetOptions::default()).await.expect("it joins");
        let stores = Stores::new(JsonCodec).store("shared", store.clone()).lease(lease.clone());
        let cache = Cache::builder("user")
            .memory(Memory::entries(1000))
            .origin(origin.clone())
            .policy(policy.clone())
            .fleet(&fleet)
            .stores(stores)
            .build();
        caches.push(cache.expect("a coherent cache"));
    }
    Nodes { caches, origin, lease, store }
}

impl Nodes {
    /// Every node reads `ann` this often at once.
    async fn read(&self, times: usize) {
        let readers: Vec<_> = (0..times * self.caches.len())
            .map(|reader| {
                let users = self.caches[reader % self.caches.len()].clone();
                tokio::spawn(async move { users.get_or_load(&ann()).await })
            })
            .collect();
        for reader in readers {
            let hit = reader.await.expect("it ends").expect("it is answered");
            assert_eq!(hit.into_value(), Some(1));
        }
    }

    fn loads(&self) -> usize {
        self.origin.loads_of(&ann())
    }

    /// Holds the lease of `ann` as a node does that dies.
    async fn die_holding(&self, duration: Duration) {
        let granted = self.lease.acquire_many(&[Key::new("ann")], duration).await;
        assert!(matches!(granted.expect("it is free")[..], [LeaseGrant::Granted(_)]));
    }
}

#[tokio::test]
async fn many_readers_on_many_nodes_cost_one_load() {
    let nodes = nodes(3, plain()).await;
    let gate = Gate::new();
    nodes.origin.script([Answer::Truth.held_at(&gate)]);
    let opening = async {
        gate.wait_for_arrivals(1).await;
        gate.open();
    };
    tokio::join!(nodes.read(200), opening);
    assert_eq!(nodes.loads(), 1);
    let waited: u64 =
        nodes.caches.iter().map(|cache| cache.leases().expect("it asks for leases").waited).sum();
    assert!(waited >= 1);
}

#[tokio::test]
async fn many_keys_on_many_nodes_cost_one_load_each() {
    let nodes = nodes(3, plain()).await;
    let keys: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    let readers: Vec<_> = nodes
        .caches
        .iter()
        .enumerate()
        .map(|(number, cache)| {
            // Not all begin with the same key.
            let (cache, mut keys) = (cache.clone(), keys.clone());
            keys.rotate_left(number * 30);
            tokio::spawn(async move {
                for answer in cache.get_or_load_many(&keys).await {
                    assert!(answer.expect("it is answered").value().is_some());
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.expect("it ends");
    }
    let loads: Vec<usize> = keys.iter().map(|key| nodes.origin.loads_of(key)).collect();
    assert_eq!(loads, vec![1; 100]);
}

#[tokio::test]
async fn a_node_that_dies_costs_no_more_than_its_lease() {
    let nodes = nodes(2, plain()).await;
    let lease = Duration::from_millis(400);
    nodes.die_holding(lease).await;
    let start = Instant::now();
    nodes.read(10).await;
    let took = start.elapsed();
    assert!(took >= lease / 2 && took < lease + Duration::from_secs(1), "{took:?}");
    assert_eq!(nodes.loads(), 1);
}

#[tokio::test]
async fn a_lost_wake_up_costs_a_pause() {
    let nodes = nodes(2, plain()).await;
    nodes.lease.set_losing_wake_ups(true);
    let gate = Gate::new();
    nodes.origin.script([Answer::Truth.held_at(&gate)]);
    let opening = async {
        gate.wait_for_arrivals(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.open();
    };
    let start = Instant::now();
    tokio::join!(nodes.read(5), opening);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(nodes.loads(), 1);
}

#[tokio::test]
async fn where_nobody_can_be_asked_each_node_loads() {
    let nodes = nodes(3, plain()).await;
    nodes.lease.set_unreachable(true);
    nodes.read(5).await;
    assert!((1..=3).contains(&nodes.loads()), "{}", nodes.loads());
    let skipped = |cache: &Users| cache.leases().expect("it asks for leases").skipped;
    assert!(nodes.caches.iter().map(skipped).sum::<u64>() >= 1);
}

#[tokio::test]
async fn a_failed_load_frees_the_lease_at_once() {
    let nodes = nodes(2, plain()).await;
    nodes.origin.script([Answer::unavailable()]);
    let error = nodes.caches[0].get_or_load(&ann()).await.expect_err("the origin is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let start = Instant::now();
    assert_eq!(nodes.caches[1].get_or_load(&ann()).await.expect("it is up").value(), Some(&1));
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_hard_timeout_frees_the_lease_at_once() {
    let nodes = nodes(2, plain().hard_timeout(Duration::from_millis(300))).await;
    let gate = Gate::new();
    nodes.origin.script([Answer::Truth.held_at(&gate)]);
    let error = nodes.caches[0].get_or_load(&ann()).await.expect_err("it takes too long");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let start = Instant::now();
    assert_eq!(nodes.caches[1].get_or_load(&ann()).await.expect("it is quick").value(), Some(&1));
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    gate.open();
}

#[tokio::test]
async fn nobody_waits_for_another_node_beyond_the_hard_timeout() {
    let nodes = nodes(1, plain().hard_timeout(Duration::from_millis(300))).await;
    nodes.die_holding(Duration::from_secs(60)).await;
    let start = Instant::now();
    let error = nodes.caches[0].get_or_load(&ann()).await.expect_err("it does not come");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((nodes.loads(), nodes.store.entries_count()), (0, 0));
}

#[tokio::test]
async fn a_loader_of_the_callers_runs_under_a_lease_too() {
    let nodes = nodes(2, plain()).await;
    nodes.die_holding(Duration::from_millis(100)).await;
    let load = || async { Ok::<_, std::io::Error>(5) };
    let hit = nodes.caches[0].get_or_load_with(&ann(), load).await.expect("it is loaded");
    assert_eq!(hit.into_value(), Some(5));
    let load = || async { Ok::<_, std::io::Error>(6) };
    let hit = nodes.caches[1].get_or_load_with(&ann(), load).await.expect("the store has it");
    assert_eq!(hit.into_value(), Some(5));
}

#[tokio::test]
async fn a_lease_without_a_store_to_share_is_refused() {
    let stores = Stores::new(JsonCodec)
        .store("disk", FaultyStore::new(Clock::monotonic()).local())
        .lease(FaultyLease::new());
    let error = Cache::<String, i64>::builder("user").stores(stores).build().expect_err("no use");
    assert!(error.to_string().contains("join a fleet"), "{error}");
}

#[tokio::test]
async fn a_load_whose_answer_will_not_be_kept_holds_up_nobody() {
    let nodes = nodes(2, plain()).await;
    for reader in [0, 1] {
        let gate = Gate::new();
        nodes.origin.script([Answer::Truth.held_at(&gate)]);
        let users = nodes.caches[0].clone();
        let doomed = tokio::spawn(async move { users.get_or_load(&ann()).await });
        gate.wait_for_arrivals(1).await;
        nodes.caches[0].remove(&ann()).await.expect("it is announced");
        let start = Instant::now();
        let hit = nodes.caches[reader].get_or_load(&ann()).await.expect("it is loaded");
        assert_eq!(hit.value(), Some(&1));
        assert!(start.elapsed() < Duration::from_secs(1), "{reader}: {:?}", start.elapsed());
        gate.open();
        doomed.await.expect("it ends").expect("it is answered");
        nodes.caches[0].remove(&ann()).await.expect("it is announced");
    }
}

#[tokio::test]
async fn what_was_not_to_be_kept_once_may_be_kept_later() {
    let nodes = nodes(1, plain()).await;
    let uncacheable = || async { Ok::<_, std::io::Error>(larder::Loaded::dont_cache(5)) };
    nodes.caches[0].get_or_load_with(&ann(), uncacheable).await.expect("it is loaded");
    nodes.read(1).await;
    assert_eq!(nodes.store.entries_count(), 1);
}
