use std::time::{Duration, Instant};

use larder_core::{Key, PutCondition, PutOutcome, Store, Ttl};
use larder_memcached::{Memcached, MemcachedStore};
use larder_testkit::conformance::{block_on, store::entry};

use crate::support::{options, servers};

/// What the documentation says: never too young, and at most 4 s too old.
const TOO_OLD: Duration = Duration::from_secs(4);

/// Read by another node than wrote it, all the while the server counts on.
#[test]
fn another_node_sees_an_age_that_is_never_too_low_nor_much_too_high() {
    block_on(async {
        let servers = servers(1);
        let writer = Memcached::connect(options(&servers)).await.expect("it runs");
        let writer = MemcachedStore::new(&writer, "album");
        let reader = Memcached::connect(options(&servers)).await.expect("it runs");
        let reader = MemcachedStore::new(&reader, "album");
        let key = Key::new("k");
        let mut put = entry("value", 1);
        put.age = Duration::from_secs(30);
        let began_at = Instant::now();
        let outcome = writer.put_many(&[(key.clone(), put)], PutCondition::Vacant).await;
        let written_at = Instant::now();
        assert_eq!(outcome.expect("a put"), [PutOutcome::Stored]);
        let mut last = Duration::ZERO;
        while began_at.elapsed() < Duration::from_millis(3_500) {
            let before = Instant::now();
            let age = reader.get(&key).await.expect("a read").expect("it was put").age;
            let least = Duration::from_secs(30) + before.duration_since(written_at);
            let most = Duration::from_secs(30) + began_at.elapsed() + TOO_OLD;
            assert!(age >= least, "{age:?} is younger than {least:?}");
            // What this process stood still is in the age, too.
            assert!(age <= most + before.elapsed(), "{age:?} is older than {most:?}");
            assert!(age >= last, "{age:?} after {last:?}");
            last = age;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn an_entry_is_gone_when_its_longest_ttl_is_over() {
    block_on(async {
        let servers = servers(1);
        let client = Memcached::connect(options(&servers)).await.expect("it runs");
        let store = MemcachedStore::new(&client, "album");
        let mut put = entry("value", 1);
        put.fresh_for = Ttl::secs(2);
        put.stale_for = Ttl::secs(6);
        let key = Key::new("k");
        let began = Instant::now();
        let outcome = store.put_many(&[(key.clone(), put)], PutCondition::Vacant).await;
        assert_eq!(outcome.expect("a put"), [PutOutcome::Stored]);
        while let Some(held) = store.get(&key).await.expect("a read") {
            assert!(held.age < Duration::from_secs(6), "{:?}", held.age);
            assert!(began.elapsed() < crate::support::PATIENCE, "it stays");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    });
}

/// Memcached takes durations over 30 days for points in time.
#[test]
fn long_ttls_are_kept() {
    block_on(async {
        let servers = servers(1);
        let client = Memcached::connect(options(&servers)).await.expect("it runs");
        let store = MemcachedStore::new(&client, "album");
        let day = 24 * 60 * 60;
        for (name, ttl) in [
            ("29", Ttl::secs(29 * day)),
            ("31", Ttl::secs(31 * day)),
            ("1000", Ttl::secs(1_000 * day)),
            ("for ever", Ttl::Forever),
        ] {
            let mut put = entry("value", 1);
            (put.fresh_for, put.stale_for) = (ttl, Ttl::secs(1));
            let key = Key::new(name);
            store.put_many(&[(key.clone(), put)], PutCondition::Vacant).await.expect("a put");
            let held = store.get(&key).await.expect("a read").expect(name);
            assert_eq!(held.fresh_for, ttl);
            assert!(held.age < TOO_OLD, "{name}: {:?}", held.age);
        }
        let left = servers[0].ask(b"mg larder:e:album:31 t\r\n");
        let left = String::from_utf8_lossy(&left);
        let left: u64 = left.trim().trim_start_matches("HD t").parse().expect("a number");
        assert!((31 * day..31 * day + 10).contains(&left), "{left}");
    });
}
