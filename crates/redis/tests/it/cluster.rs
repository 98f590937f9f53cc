//! Redis Cluster: entries on every shard, slots that move and primaries that die.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::{
    Bus, BusEvent, Change, ErrorKind, Key, Lease, LeaseGrant, PutCondition, PutOutcome, Store,
    Verb, Version,
};
use larder_redis::{CLUSTER_RIGHTS, RIGHTS, RedisOptions, RedisStore, RedisTier, Topology};
use larder_testkit::conformance::{Kept, block_on, store::entry};
use larder_testkit::redis::{Cluster, RedisServer};

use crate::support::{
    PATIENCE, announcement, message, news, patient, publish, removal, subscribe, tagged,
    until_current, until_told, wait_until,
};

fn options(redis: &Cluster) -> RedisOptions {
    let mut options = patient(RedisOptions::new("redis://127.0.0.1"));
    options.urls = redis.addresses().iter().map(|address| format!("redis://{address}")).collect();
    options.topology = Topology::Cluster;
    // A call that meets a dying node is tried again by whoever made it.
    options.response_timeout = Duration::from_secs(3);
    options.connect_timeout = Duration::from_secs(2);
    options
}

async fn connect(redis: &Cluster) -> RedisTier {
    RedisTier::connect(options(redis)).await.expect("the cluster is well")
}

async fn clustered() -> Kept<RedisStore, Cluster> {
    let redis = Cluster::start();
    let store = connect(&redis).await.store("album");
    Kept::new(store, redis)
}

larder_testkit::store_conformance!(store, clustered());
larder_testkit::bus_conformance!(bus, async {
    let redis = Cluster::start();
    let (one, two) = (connect(&redis).await.bus(), connect(&redis).await.bus());
    let redis = std::sync::Arc::new(redis);
    let two = Kept::new(two, std::sync::Arc::clone(&redis));
    (Kept::new(one, redis), two)
});
larder_testkit::lease_conformance!(lease, async {
    let redis = Cluster::start();
    let seam = connect(&redis).await.lease("album");
    Kept::new(seam, redis)
});

fn keys(count: u32) -> Vec<Key> {
    (0..count).map(|n| Key::new(n.to_string())).collect()
}

#[test]
fn the_bus_and_leases_work_over_all_shards() {
    block_on(async {
        let redis = Cluster::start();
        let (tier, other) = (connect(&redis).await, connect(&redis).await);
        let store = tier.store("album");
        let keys = keys(100);
        let began = publish(&tier, &removal("other")).await.get();
        let entries: Vec<_> = keys.iter().map(|key| (key.clone(), entry("value", began))).collect();
        store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        let on: HashSet<usize> = keys
            .iter()
            .map(|key| redis.place_of(Cluster::slot(format!("larder:e:album:{key}").as_bytes())))
            .collect();
        assert_eq!(on.len(), 3, "entries lie on every primary");
        let mut subscription = subscribe(&other, None).await;
        let what = announcement(Change::Keys(keys.clone()), Verb::Remove);
        let version = publish(&tier, &what).await;
        let heard = message(&mut subscription).await;
        assert_eq!((heard.version, heard.announcement), (version, what));
        let read = store.get_many(&keys).await.expect("a read");
        assert!(read.iter().all(Option::is_none));
        let late = store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        assert!(late.iter().all(|late| matches!(late, PutOutcome::Refused(_))), "{late:?}");
        publish(&tier, &tagged("artist:miles")).await;
        message(&mut subscription).await;
        assert_eq!(store.marks().await.expect("watermarks").len(), 1);
        let lease = (tier.lease("album"), other.lease("album"));
        let duration = Duration::from_secs(30);
        let granted = lease.0.acquire_many(&keys, duration).await.expect("granted");
        assert!(granted.iter().all(|grant| matches!(grant, LeaseGrant::Granted(_))));
        let held = lease.1.acquire_many(&keys, duration).await.expect("held");
        assert!(held.iter().all(|grant| matches!(grant, LeaseGrant::Held(_))));
        let tokens = keys.iter().zip(granted).map(|(key, grant)| match grant {
            LeaseGrant::Granted(token) => (key.clone(), token),
            LeaseGrant::Held(_) => unreachable!("all were granted"),
        });
        let tokens: Vec<_> = tokens.collect();
        let start = Instant::now();
        let waiting = {
            let (lease, key) = (lease.1.clone(), keys[7].clone());
            tokio::spawn(async move { lease.released(&key, PATIENCE).await })
        };
        tokio::time::sleep(Duration::from_millis(500)).await;
        lease.0.release_many(&tokens).await.expect("they are given back");
        waiting.await.expect("it is woken, whatever shard its lease is on");
        assert!(start.elapsed() < PATIENCE / 2);
    });
}

/// Entries there may lack what was announced last, although the stream lacks
/// nothing: whoever announced it announces it again.
#[test]
fn a_shard_that_fails_over_is_told() {
    block_on(async {
        let redis = Cluster::start();
        let tier = connect(&redis).await;
        let mut subscription = subscribe(&tier, None).await;
        let control = redis.place_of(Cluster::slot(b"{larder}"));
        let other = (0..100_u32)
            .map(|n| Cluster::slot(n.to_string().as_bytes()))
            .find(|slot| redis.place_of(*slot) != control)
            .expect("slots lie on three primaries");
        until_current(&mut subscription).await;
        redis.kill_primary(other);
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        redis.wait_until_ready();
        let what = announcement(Change::Keys(keys(50)), Verb::Remove);
        let mut version = None;
        wait_until("every shard is invalidated", async || {
            match tier.bus().publish(&what, Version::ZERO).await {
                Ok(published) => version = Some(published.version),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            version.is_some()
        })
        .await;
        loop {
            match news(&mut subscription).await {
                BusEvent::Message(message) if Some(message.version) == version => break,
                BusEvent::Message(_) | BusEvent::Reconnected => {}
                event => panic!("{event:?}"),
            }
        }
    });
}

/// Under a load of puts and removals: no removed entry is read, no newer one is
/// lost, and errors are of the kinds that may be tried again.
#[test]
fn a_slot_that_moves_costs_no_wrong_answer() {
    block_on(async {
        let redis = Arc::new(Cluster::start());
        let tier = connect(&redis).await;
        let key = Key::new("{moved}:a");
        let slot = Cluster::slot(b"{moved}");
        let (stop, store) = (Arc::new(AtomicBool::new(false)), tier.store("album"));
        let load = {
            let (stop, store, key) = (Arc::clone(&stop), store.clone(), key.clone());
            tokio::spawn(async move {
                let mut version = 1;
                let mut failed = 0;
                while !stop.load(Ordering::Relaxed) {
                    version += 1;
                    let put = [(key.clone(), entry("value", version))];
                    let put = store.put_many(&put, PutCondition::NewerThanHeld).await;
                    let read = store.get(&key).await;
                    match (put, read) {
                        (Ok(_), Ok(held)) => {
                            let held = held.map(|held| held.version.get());
                            assert_eq!(held, Some(version), "what was acknowledged is read");
                        }
                        (put, read) => {
                            for error in [put.err(), read.err()].into_iter().flatten() {
                                assert!(error.is_retryable(), "{error}");
                                failed += 1;
                            }
                        }
                    }
                }
                (version, failed)
            })
        };
        let moving = Arc::clone(&redis);
        tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                let old = moving.place_of(slot);
                moving.migrate_slot(slot, (old + 1) % 3);
            }
        })
        .await
        .expect("the slot moves");
        stop.store(true, Ordering::Relaxed);
        let (version, failed) = load.await.expect("no wrong answer");
        assert!(version > 10, "there was a load: {version}");
        assert!(failed < version / 2, "{failed} of {version} failed");
    });
}

#[test]
fn when_the_control_primary_dies_a_replica_goes_on() {
    block_on(async {
        let redis = Cluster::start();
        let tier = connect(&redis).await;
        let mut subscription = subscribe(&tier, None).await;
        let first = publish(&tier, &removal("a")).await;
        message(&mut subscription).await;
        redis.kill_primary(Cluster::slot(b"{larder}"));
        let mut second = None;
        wait_until("the replica has taken over", async || {
            match tier.bus().publish(&removal("b"), first).await {
                Ok(published) => second = Some(published.version),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            second.is_some()
        })
        .await;
        let second = second.expect("it was announced");
        assert!(second > first);
        until_told(&mut subscription, second).await;
    });
}

#[test]
fn rights_are_checked_on_every_primary() {
    block_on(async {
        let redis = Cluster::start();
        let allow = |server: &RedisServer, without: Option<&str>| {
            let mut rules = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret"];
            rules.extend(["~larder:*", "~{larder}:*", "&larder:*", "&{larder}:*"]);
            let rights: Vec<String> = RIGHTS
                .iter()
                .chain(&CLUSTER_RIGHTS)
                .filter(|right| Some(**right) != without)
                .map(|right| format!("+{right}"))
                .collect();
            rules.extend(rights.iter().map(String::as_str));
            assert!(!server.command(&rules).is_error(), "{rules:?}");
        };
        for server in redis.servers() {
            allow(server, None);
        }
        let mut options = options(&redis);
        options.user = Some("app".to_owned());
        options.password = Some("secret".to_owned());
        let tier = RedisTier::connect(options.clone()).await.expect("enough");
        let mut subscription = subscribe(&tier, None).await;
        publish(&tier, &announcement(Change::Keys(keys(50)), Verb::Remove)).await;
        message(&mut subscription).await;
        for place in 0..3 {
            let server = &redis.servers()[place];
            allow(server, Some("setrange"));
            let error = RedisTier::connect(options.clone()).await.expect_err("one lacks a right");
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let text = error.to_string();
            assert!(text.contains("right: +setrange"), "{text}");
            assert!(text.contains(&server.address().to_string()), "{text}");
            allow(server, None);
        }
    });
}

#[test]
fn one_server_is_no_cluster() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = patient(RedisOptions::new(server.url()));
        options.topology = Topology::Cluster;
        let error = RedisTier::connect(options).await.expect_err("it is none");
        assert!(error.to_string().contains(&server.address().to_string()), "{error}");
    });
}
