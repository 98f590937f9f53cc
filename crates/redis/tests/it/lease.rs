//! Leases: one holder, no other's release, prompt wake-ups.

use std::time::{Duration, Instant};

use larder_core::{Key, Lease, LeaseGrant, LeaseToken};
use larder_redis::RedisLease;
use larder_testkit::conformance::{Kept, block_on};
use larder_testkit::redis::RedisServer;

use crate::support::{connect, wait_until};

const LONG: Duration = Duration::from_secs(60);

larder_testkit::lease_conformance!(standalone, async {
    let server = RedisServer::start();
    let seam = connect(&server).await.lease("album");
    Kept::new(seam, server)
});

async fn acquire(lease: &RedisLease, key: &Key, duration: Duration) -> LeaseGrant {
    let grants = lease.acquire_many(std::slice::from_ref(key), duration).await;
    grants.expect("the server answers")[0]
}

async fn granted(lease: &RedisLease, key: &Key, duration: Duration) -> LeaseToken {
    match acquire(lease, key, duration).await {
        LeaseGrant::Granted(token) => token,
        held => panic!("nobody holds it, but: {held:?}"),
    }
}

#[test]
fn of_many_nodes_one_is_granted_each_key() {
    block_on(async {
        let server = RedisServer::start();
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let lease = connect(&server).await.lease("album");
            for _ in 0..10 {
                let lease = lease.clone();
                tasks.push(tokio::spawn(async move {
                    let keys: Vec<Key> = (0..20).map(|n| Key::new(n.to_string())).collect();
                    lease.acquire_many(&keys, LONG).await.expect("the server answers")
                }));
            }
        }
        let mut granted = [0; 20];
        for task in tasks {
            for (count, grant) in granted.iter_mut().zip(task.await.expect("it ends")) {
                match grant {
                    LeaseGrant::Granted(_) => *count += 1,
                    LeaseGrant::Held(left) => assert!(left <= LONG && !left.is_zero()),
                }
            }
        }
        assert_eq!(granted, [1; 20]);
    });
}

#[test]
fn a_lease_ends_by_itself() {
    block_on(async {
        let server = RedisServer::start();
        let lease = connect(&server).await.lease("album");
        let key = Key::new("a");
        let first = granted(&lease, &key, Duration::from_millis(100)).await;
        let mut second = None;
        wait_until("it has run out", async || {
            if let LeaseGrant::Granted(token) = acquire(&lease, &key, LONG).await {
                second = Some(token);
            }
            second.is_some()
        })
        .await;
        assert_ne!(Some(first), second);
        lease.release_many(&[(key.clone(), first)]).await.expect("it does nothing");
        assert!(
            matches!(acquire(&lease, &key, LONG).await, LeaseGrant::Held(_)),
            "not the first's"
        );
    });
}

/// Asking for a lease that is held must not make it longer.
#[test]
fn who_asks_does_not_prolong() {
    block_on(async {
        let server = RedisServer::start();
        let lease = connect(&server).await.lease("album");
        let key = Key::new("a");
        granted(&lease, &key, Duration::from_secs(30)).await;
        for _ in 0..3 {
            let LeaseGrant::Held(left) = acquire(&lease, &key, LONG).await else { panic!("held") };
            assert!(left <= Duration::from_secs(30), "{left:?}");
        }
        let left = server.command(&["PTTL", "larder:l:album:a"]).integer();
        assert!((1..=30_000).contains(&left), "{left}");
    });
}

#[test]
fn who_waits_is_woken_on_another_node() {
    block_on(async {
        let server = RedisServer::start();
        let (here, there) =
            (connect(&server).await.lease("album"), connect(&server).await.lease("album"));
        let key = Key::new("a");
        for _ in 0..5 {
            let token = granted(&here, &key, LONG).await;
            assert!(matches!(acquire(&there, &key, LONG).await, LeaseGrant::Held(_)));
            wait_until("the other listens", async || {
                server.command(&["PUBSUB", "NUMSUB", "larder:wakes"]).items()[1].integer() == 1
            })
            .await;
            let start = Instant::now();
            let waiting = {
                let (there, key) = (there.clone(), key.clone());
                tokio::spawn(async move { there.released(&key, LONG).await })
            };
            // Long enough for the other task to wait; if it does not yet, what it
            // misses is what the contract allows, and the wait would show it.
            tokio::time::sleep(Duration::from_millis(200)).await;
            here.release_many(&[(key.clone(), token)]).await.expect("it is given back");
            waiting.await.expect("it is woken");
            assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
            let token = granted(&there, &key, LONG).await;
            there.release_many(&[(key.clone(), token)]).await.expect("it is given back");
        }
    });
}

#[test]
fn nobody_is_told_if_nobody_waits() {
    block_on(async {
        let server = RedisServer::start();
        let lease = connect(&server).await.lease("album");
        let key = Key::new("a");
        let token = granted(&lease, &key, LONG).await;
        server.command(&["CONFIG", "RESETSTAT"]);
        lease.release_many(&[(key.clone(), token)]).await.expect("it is given back");
        assert_eq!(server.calls("publish"), 0);
        let token = granted(&lease, &key, LONG).await;
        acquire(&lease, &key, LONG).await;
        lease.release_many(&[(key.clone(), token)]).await.expect("it is given back");
        assert_eq!(server.calls("publish"), 1);
        assert_eq!(server.command(&["EXISTS", "larder:l:album:a"]).integer(), 0);
    });
}

#[test]
fn a_wait_ends_when_it_has_lasted_long_enough() {
    block_on(async {
        let server = RedisServer::start();
        let lease = connect(&server).await.lease("album");
        let start = Instant::now();
        // A wake-up for nothing is allowed: one comes when the channel is there.
        lease.released(&Key::new("a"), Duration::from_millis(300)).await;
        lease.released(&Key::new("a"), Duration::from_millis(300)).await;
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(20));
    });
}
