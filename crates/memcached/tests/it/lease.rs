use std::time::{Duration, Instant};

use larder_core::{Key, Lease, LeaseGrant, LeaseToken};
use larder_memcached::MemcachedLease;
use larder_testkit::conformance::{Kept, block_on};

use crate::support::{PATIENCE, TestServer, connect, servers};

const LONG: Duration = Duration::from_secs(60);

larder_testkit::lease_conformance!(on_one_server, async { kept(servers(1)).await });
larder_testkit::lease_conformance!(on_three_servers, async { kept(servers(3)).await });

async fn kept(servers: Vec<TestServer>) -> Kept<MemcachedLease, Vec<TestServer>> {
    Kept::new(MemcachedLease::new(&connect(&servers).await, "conformance"), servers)
}

fn granted(grant: LeaseGrant) -> LeaseToken {
    match grant {
        LeaseGrant::Granted(token) => token,
        LeaseGrant::Held(duration) => panic!("held for {duration:?}"),
    }
}

async fn acquire(lease: &MemcachedLease, key: &Key, duration: Duration) -> LeaseGrant {
    lease.acquire_many(std::slice::from_ref(key), duration).await.expect("an answer")[0]
}

#[test]
fn one_of_many_nodes_gets_each_lease() {
    block_on(async {
        let servers = servers(3);
        let keys: Vec<Key> = (0..100).map(|n| Key::new(format!("key {n}"))).collect();
        let mut nodes = Vec::new();
        for _ in 0..5 {
            let client = connect(&servers).await;
            let keys = keys.clone();
            nodes.push(tokio::spawn(async move {
                let lease = MemcachedLease::new(&client, "album");
                lease.acquire_many(&keys, LONG).await.expect("an answer")
            }));
        }
        let mut winners = vec![0; keys.len()];
        for node in nodes {
            for (index, grant) in node.await.expect("it ends").into_iter().enumerate() {
                match grant {
                    LeaseGrant::Granted(_) => winners[index] += 1,
                    LeaseGrant::Held(left) => {
                        assert!(left <= LONG + Duration::from_secs(1), "{left:?}");
                    }
                }
            }
        }
        assert_eq!(winners, vec![1; keys.len()]);
    });
}

#[test]
fn a_lease_given_back_can_be_had_again_and_an_old_token_gives_back_nothing() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        let key = Key::new("k");
        let first = granted(acquire(&lease, &key, LONG).await);
        lease.release_many(&[(key.clone(), first)]).await.expect("an answer");
        let second = granted(acquire(&lease, &key, LONG).await);
        assert_ne!(first, second);
        for token in [first, LeaseToken(0), LeaseToken(u64::MAX)] {
            lease.release_many(&[(key.clone(), token)]).await.expect("an answer");
            assert!(matches!(acquire(&lease, &key, LONG).await, LeaseGrant::Held(_)), "{token:?}");
        }
        lease.release_many(&[(key.clone(), second)]).await.expect("an answer");
        granted(acquire(&lease, &key, LONG).await);
    });
}

/// The numbers that tokens are made of begin anew with each run of a server.
#[test]
fn a_token_from_before_a_restart_gives_back_nothing() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        let key = Key::new("k");
        let before = granted(acquire(&lease, &key, LONG).await);
        servers[0].kill();
        servers[0].revive();
        // Another client, which no lost connection keeps busy.
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        let after = granted(acquire(&lease, &key, LONG).await);
        assert_ne!(before, after);
        lease.release_many(&[(key.clone(), before)]).await.expect("an answer");
        assert!(matches!(acquire(&lease, &key, LONG).await, LeaseGrant::Held(_)));
    });
}

#[test]
fn a_lease_that_nobody_gives_back_runs_out() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        let key = Key::new("k");
        let began = Instant::now();
        granted(acquire(&lease, &key, Duration::from_secs(2)).await);
        let LeaseGrant::Held(left) = acquire(&lease, &key, LONG).await else {
            panic!("it is held")
        };
        lease.released(&key, PATIENCE).await;
        granted(acquire(&lease, &key, LONG).await);
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(1), "it ran out after {took:?}");
        assert!(took >= left, "{took:?}, said to be {left:?}");
    });
}

#[test]
fn who_waits_hears_of_a_release_and_does_not_wait_for_longer_than_told() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        let key = Key::new("k");
        lease.released(&key, LONG).await;
        let token = granted(acquire(&lease, &key, LONG).await);
        let began = Instant::now();
        lease.released(&key, Duration::from_millis(100)).await;
        assert!(began.elapsed() >= Duration::from_millis(100));
        let waiter = tokio::spawn({
            let (lease, key) = (MemcachedLease::new(&client, "album"), key.clone());
            async move { lease.released(&key, LONG).await }
        });
        let looks = servers[0].statistic("get_hits");
        crate::support::wait_until("the waiter looks", || servers[0].statistic("get_hits") > looks);
        assert!(!waiter.is_finished());
        let began = Instant::now();
        lease.release_many(&[(key, token)]).await.expect("an answer");
        waiter.await.expect("it ends");
        assert!(began.elapsed() < LONG / 2, "it was not the release that woke it");
    });
}

#[test]
fn a_lease_of_a_server_that_is_gone_is_an_error_and_not_a_grant() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let lease = MemcachedLease::new(&client, "album");
        servers[0].kill();
        let error = lease.acquire_many(&[Key::new("k")], LONG).await.expect_err("it is gone");
        assert!(error.is_retryable(), "{error}");
        assert_eq!(lease.acquire_many(&[], LONG).await.expect("nothing to do"), []);
    });
}
