use std::sync::Arc;
use std::time::Duration;

use larder_core::{ErrorKind, Key, PutCondition, PutOutcome, Store, Tags, Ttl, Verb, Version};
use larder_memcached::{MemcachedStore, StoreOptions};
use larder_testkit::conformance::{Kept, block_on, store::entry};

use crate::support::{TestServer, connect, put, server_with, servers, version};

async fn kept(servers: Vec<TestServer>) -> Kept<MemcachedStore, Vec<TestServer>> {
    Kept::new(MemcachedStore::new(&connect(&servers).await, "conformance"), servers)
}

larder_testkit::store_conformance!(on_one_server, async { kept(servers(1)).await });
larder_testkit::store_conformance!(on_three_servers, async { kept(servers(3)).await });
larder_testkit::store_conformance!(with_large_items, async {
    kept(vec![server_with(&["-I", "4m"])]).await
});

#[test]
fn keys_of_any_length_are_kept_apart() {
    block_on(async {
        let servers = servers(2);
        let client = connect(&servers).await;
        let store = MemcachedStore::new(&client, "long");
        let keys: Vec<Key> = (0..600_usize).map(|length| Key::new(vec![b'k'; length])).collect();
        let binary = (0..400_usize).map(|length| Key::new(vec![0xff; length + 1]));
        let entries: Vec<_> = keys
            .into_iter()
            .chain(binary)
            .enumerate()
            .map(|(number, key)| (key, entry(&number.to_string(), 1)))
            .collect();
        let outcomes = store.put_many(&entries, PutCondition::Vacant).await.expect("a put");
        assert_eq!(outcomes, vec![PutOutcome::Stored; entries.len()]);
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        let read = store.get_many(&keys).await.expect("a read");
        for ((key, put), read) in entries.iter().zip(read) {
            assert_eq!(read.map(|read| read.value), Some(put.value.clone()), "{key}");
        }
    });
}

#[test]
fn caches_on_one_server_share_nothing() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let (one, other) = (MemcachedStore::new(&client, "a"), MemcachedStore::new(&client, "a:b"));
        put(&one, "b:c", "one", 1).await;
        put(&other, "c", "other", 2).await;
        assert_eq!(version(&one, "b:c").await, Some(1));
        assert_eq!(version(&one, "c").await, None);
        assert_eq!(version(&other, "c").await, Some(2));
    });
}

#[test]
fn values_that_fit_only_without_their_tags_are_refused_before_they_are_sent() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let store = MemcachedStore::new(&client, "tags");
        let limit = store.capabilities().value_bytes_max.expect("memcached has one");
        let mut large = entry(&"x".repeat(limit), 1);
        let key = Key::new("k");
        large.tags = Tags::new(["t".repeat(100)]);
        let put = [(key.clone(), large.clone())];
        let error = store.put_many(&put, PutCondition::Vacant).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.remedy_text().is_some_and(|remedy| remedy.contains("-I")), "{error}");
        large.tags = Tags::NONE;
        // The longest key that is sent as it is leaves the value its room.
        for key in [key, Key::new("k".repeat(230)), Key::new("k".repeat(125))] {
            let put = [(key, large.clone())];
            if let Ok(outcome) = store.put_many(&put, PutCondition::Vacant).await {
                assert_eq!(outcome, [PutOutcome::Stored]);
            }
        }
    });
}

/// A floor must outlast a short-lived entry that was put over it.
#[test]
fn a_short_lived_entry_over_a_gravestone_leaves_its_floor() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let store = MemcachedStore::new(&client, "floor");
        let key = Key::new("k");
        let keys = std::slice::from_ref(&key);
        store.invalidate_many(keys, Version::new(9), Verb::Remove).await.expect("a removal");
        let mut short = entry("short", 9);
        // Over at once: only an age that is too low could make it readable.
        short.fresh_for = Ttl::For(Duration::ZERO);
        short.stale_for = Ttl::For(Duration::ZERO);
        short.age = Duration::from_secs(3600);
        let outcome = store.put_many(&[(key.clone(), short)], PutCondition::NewerThanHeld).await;
        assert_eq!(outcome.expect("a put"), [PutOutcome::Stored]);
        assert_eq!(version(&store, "k").await, None);
        let late = [(key.clone(), entry("late", 8))];
        for condition in [PutCondition::NewerThanHeld, PutCondition::Vacant] {
            let outcome = store.put_many(&late, condition).await.expect("a put");
            assert_eq!(outcome, [PutOutcome::Refused(Version::new(9))], "{condition:?}");
        }
        // What is over leaves a vacancy to what is new enough.
        let new = [(key, entry("new", 9))];
        let outcome = store.put_many(&new, PutCondition::Vacant).await.expect("a put");
        assert_eq!(outcome, [PutOutcome::Stored]);
    });
}

#[test]
fn a_floor_lasts_for_its_window_and_no_longer() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let mut store_options = StoreOptions::default();
        store_options.floor_window = Duration::from_secs(1);
        let store = MemcachedStore::with_options(&client, "window", store_options);
        let keys = [Key::new("k")];
        let began = std::time::Instant::now();
        store.invalidate_many(&keys, Version::new(9), Verb::Remove).await.expect("a removal");
        let late = [(keys[0].clone(), entry("late", 8))];
        loop {
            let asked = began.elapsed();
            let outcome = store.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
            if outcome == [PutOutcome::Stored] {
                assert!(began.elapsed() >= Duration::from_secs(1), "it ended too soon: {asked:?}");
                break;
            }
            assert!(asked < Duration::from_secs(60), "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// Every key is invalidated while it is written, many times over: what stays is
/// what the versions say, whoever came first.
#[test]
fn writers_and_invalidations_that_cross_leave_the_newest() {
    block_on(async {
        const KEYS: u64 = 10;
        const ROUNDS: u64 = 30;
        let servers = servers(2);
        let client = connect(&servers).await;
        let store = Arc::new(MemcachedStore::new(&client, "cross"));
        let keys: Vec<Key> = (0..KEYS).map(|key| Key::new(key.to_string())).collect();
        let tasks: Vec<_> = (1..=ROUNDS)
            .map(|round| {
                let (store, keys) = (Arc::clone(&store), keys.clone());
                tokio::spawn(async move {
                    let entries: Vec<_> =
                        keys.iter().map(|key| (key.clone(), entry("value", round * 2))).collect();
                    let put = store.put_many(&entries, PutCondition::NewerThanHeld);
                    let at = Version::new(round * 2 - 1);
                    let removal = store.invalidate_many(&keys, at, Verb::Remove);
                    let (put, removal) = tokio::join!(put, removal);
                    put.expect("a put");
                    removal.expect("a removal");
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ends");
        }
        for key in &keys {
            let held = store.get(key).await.expect("a read").map(|held| held.version);
            assert_eq!(held, Some(Version::new(ROUNDS * 2)), "{key}");
        }
    });
}

/// Whoever packs values, all read them, also once they are expired.
#[test]
fn long_values_are_packed_where_that_is_asked_for_and_read_everywhere() {
    block_on(async {
        let servers = servers(1);
        let client = connect(&servers).await;
        let mut options = StoreOptions::default();
        options.compress_above = Some(1000);
        let packing = MemcachedStore::with_options(&client, "album", options);
        let plain = MemcachedStore::new(&client, "album");
        let long = "{\"title\":\"Kind of Blue\"}".repeat(2000);
        put(&packing, "long", &long, 1).await;
        let bytes = servers[0].statistic("bytes");
        assert!(bytes < long.len() as u64 / 5, "{bytes} bytes");
        let key = [Key::new("long")];
        for store in [&packing, &plain] {
            let read = store.get(&key[0]).await.expect("a read").expect("it is there");
            assert_eq!(read.value, entry(&long, 1).value);
        }
        plain.invalidate_many(&key, Version::new(2), Verb::Expire).await.expect("an expiry");
        let read = packing.get(&key[0]).await.expect("a read").expect("it may be served stale");
        assert_eq!((read.fresh_for, read.value), (Ttl::For(Duration::ZERO), entry(&long, 1).value));
    });
}
