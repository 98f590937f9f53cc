//! What passes between the client and a server, and what happens when it does
//! not.

use std::time::{Duration, Instant};

use larder_core::{
    ErrorKind, Key, Lease, LeaseGrant, PutCondition, PutOutcome, Store, Verb, Version,
};
use larder_memcached::{Memcached, MemcachedLease, MemcachedOptions, MemcachedStore};
use larder_testkit::conformance::{block_on, store::entry};
use larder_testkit::proxy::{Direction, FaultProxy};

use crate::support::{TestServer, address, put, version, wait_until_async};

fn options(proxies: &[FaultProxy]) -> MemcachedOptions {
    let mut options = MemcachedOptions::new(proxies.iter().map(|proxy| address(proxy.address())));
    options.probe_pauses = (Duration::from_millis(50), Duration::from_millis(200));
    options
}

fn behind_proxies(count: usize) -> (Vec<TestServer>, Vec<FaultProxy>) {
    let servers: Vec<TestServer> = (0..count).map(|_| TestServer::start()).collect();
    let proxies = servers.iter().map(|server| FaultProxy::start(server.address())).collect();
    (servers, proxies)
}

fn patient(proxies: &[FaultProxy]) -> MemcachedOptions {
    let mut options = options(proxies);
    options.connect_timeout = crate::support::PATIENCE;
    options.response_timeout = crate::support::PATIENCE;
    options
}

/// The round trips to each server that a call takes.
async fn round_trips(proxies: &[FaultProxy], call: impl Future<Output = ()>) -> Vec<u64> {
    let count = || proxies.iter().map(FaultProxy::round_trips).collect::<Vec<u64>>();
    let before = count();
    call.await;
    count().into_iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn a_batch_of_100_keys_is_one_round_trip_to_each_server() {
    block_on(async {
        let (_servers, proxies) = behind_proxies(3);
        let client = Memcached::connect(patient(&proxies)).await.expect("they run");
        let store = MemcachedStore::new(&client, "album");
        let lease = MemcachedLease::new(&client, "album");
        store.marks().await.expect("the watermarks");
        let keys: Vec<Key> = (0..100).map(|n| Key::new(format!("key {n}"))).collect();
        let entries: Vec<_> = keys.iter().map(|key| (key.clone(), entry("value", 1))).collect();
        let trips = round_trips(&proxies, async {
            let read = store.get_many(&keys).await.expect("a read");
            assert_eq!(read.iter().flatten().count(), 0);
        });
        assert_eq!(trips.await, [1, 1, 1], "a read that misses");
        let trips = round_trips(&proxies, async {
            let put = store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
            assert_eq!(put, [PutOutcome::Stored; 100]);
        });
        assert_eq!(trips.await, [2, 2, 2], "a put");
        let trips = round_trips(&proxies, async {
            let read = store.get_many(&keys).await.expect("a read");
            assert_eq!(read.iter().flatten().count(), 100);
        });
        assert_eq!(trips.await, [1, 1, 1], "a read that hits");
        let trips = round_trips(&proxies, async {
            let removal = store.invalidate_many(&keys, Version::new(5), Verb::Remove);
            removal.await.expect("a removal");
        });
        assert_eq!(trips.await, [2, 2, 2], "a removal");
        let mut leases = Vec::new();
        let trips = round_trips(&proxies, async {
            let grants = lease.acquire_many(&keys, Duration::from_secs(60)).await;
            for (key, grant) in keys.iter().zip(grants.expect("an answer")) {
                match grant {
                    LeaseGrant::Granted(token) => leases.push((key.clone(), token)),
                    held => panic!("{held:?}"),
                }
            }
        });
        assert_eq!(trips.await, [1, 1, 1], "asking for leases");
        let trips = round_trips(&proxies, async {
            lease.release_many(&leases).await.expect("an answer");
        });
        assert_eq!(trips.await, [1, 1, 1], "giving them back");
    });
}

/// Bytes that lie in the network make an entry no younger: its age counts from
/// when it was put, not from when it arrived.
#[test]
fn an_entry_that_was_long_on_its_way_is_as_old_as_it_is() {
    block_on(async {
        const HELD_UP: Duration = Duration::from_secs(5);
        let (servers, proxies) = behind_proxies(1);
        let client = Memcached::connect(patient(&proxies)).await.expect("it runs");
        let store = MemcachedStore::new(&client, "album");
        store.marks().await.expect("the watermarks");
        let key = Key::new("k");
        proxies[0].all().stall(Direction::ToServer);
        let began = Instant::now();
        let entries = [(key.clone(), entry("value", 1))];
        let put = store.put_many(&entries, PutCondition::NewerThanHeld);
        let lift = async {
            tokio::time::sleep(HELD_UP).await;
            proxies[0].lift();
        };
        let (outcome, ()) = tokio::join!(put, lift);
        assert_eq!(outcome.expect("a put"), [PutOutcome::Stored]);
        let mut direct = MemcachedOptions::new([address(servers[0].address())]);
        direct.response_timeout = crate::support::PATIENCE;
        let reader = Memcached::connect(direct).await.expect("it runs");
        // Another client with the same ring: one server has every key.
        let reader = MemcachedStore::new(&reader, "album");
        let before = began.elapsed();
        let age = reader.get(&key).await.expect("a read").expect("it was put").age;
        assert!(age >= before, "{age:?} old, put {before:?} ago");
    });
}

#[test]
fn a_stall_costs_its_timeout_and_no_wrong_answer_when_it_ends() {
    block_on(async {
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            let (_servers, proxies) = behind_proxies(1);
            let mut options = options(&proxies);
            options.response_timeout = Duration::from_millis(300);
            options.connect_timeout = Duration::from_millis(600);
            let client = Memcached::connect(options).await.expect("it runs");
            let store = MemcachedStore::new(&client, "album");
            put(&store, "k", "value", 1).await;
            proxies[0].all().stall(direction);
            let error = store.get(&Key::new("k")).await.expect_err("nothing comes back");
            assert_eq!(error.kind(), ErrorKind::Timeout, "{direction:?}: {error}");
            let keys = [Key::new("k")];
            let removal = store.invalidate_many(&keys, Version::new(5), Verb::Remove).await;
            assert!(removal.is_err(), "{direction:?}");
            proxies[0].lift();
            wait_until_async("it answers again", async || store.get(&keys[0]).await.is_ok()).await;
            // Whether or not the removal arrived then, it has by now.
            assert_eq!(version(&store, "k").await, None, "{direction:?}");
            assert_eq!(store.owed_count(), 0);
        }
    });
}

/// The connection breaks after any number of bytes of an answer: what is read
/// is right or an error.
#[test]
fn a_connection_that_breaks_inside_of_an_answer_gives_no_wrong_one() {
    block_on(async {
        let (_servers, proxies) = behind_proxies(1);
        let mut options = patient(&proxies);
        options.failures_max = u32::MAX;
        let client = Memcached::connect(options).await.expect("it runs");
        let store = MemcachedStore::new(&client, "album");
        let keys: Vec<Key> = ["a", "b", "none"].map(Key::new).into();
        put(&store, "a", "first", 1).await;
        put(&store, "b", "second", 2).await;
        let mut errors = 0;
        for cut in 0..320 {
            wait_until_async("it is connected", async || store.get_many(&keys).await.is_ok()).await;
            proxies[0].all().truncate(Direction::ToClient, cut);
            match store.get_many(&keys).await {
                Ok(read) => {
                    let versions: Vec<_> =
                        read.into_iter().map(|held| held.map(|held| held.version.get())).collect();
                    assert_eq!(versions, [Some(1), Some(2), None], "cut at {cut}");
                }
                Err(error) => {
                    errors += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "cut at {cut}: {error}");
                }
            }
            proxies[0].lift();
            proxies[0].all().close();
        }
        assert!((100..320).contains(&errors), "{errors} of 320 cut an answer");
    });
}

/// Half open, reset, refused: the next call that can be answered is.
#[test]
fn a_broken_connection_is_made_anew() {
    block_on(async {
        let (_servers, proxies) = behind_proxies(1);
        let mut options = options(&proxies);
        options.response_timeout = Duration::from_millis(500);
        let client = Memcached::connect(options).await.expect("it runs");
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "value", 1).await;
        type Fault = fn(&FaultProxy);
        let faults: [Fault; 4] = [
            |proxy| proxy.all().half_open(),
            |proxy| proxy.all().reset(),
            |proxy| proxy.all().close(),
            |proxy| {
                proxy.refuse();
                proxy.all().reset();
            },
        ];
        for fault in faults {
            fault(&proxies[0]);
            let _ = store.get(&Key::new("k")).await;
            proxies[0].admit();
            wait_until_async("it answers again", async || {
                matches!(store.get(&Key::new("k")).await, Ok(Some(_)))
            })
            .await;
        }
    });
}
