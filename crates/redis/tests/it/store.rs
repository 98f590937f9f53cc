//! Entries: what every store must do, and what is particular to this one.

use std::time::Duration;

use larder_core::{
    Bus, ErrorKind, Key, Mark, PutCondition, PutOutcome, Store, Tag, Ttl, Verb, Version,
};
use larder_redis::RedisStore;
use larder_testkit::conformance::{Kept, block_on, store::entry};
use larder_testkit::redis::{Flavour, RedisOptions as ServerOptions, RedisServer};

use crate::support::{connect, news, options, publish, removal, subscribe};

async fn one_server() -> Kept<RedisStore, RedisServer> {
    let server = RedisServer::start();
    let store = connect(&server).await.store("album");
    Kept::new(store, server)
}

larder_testkit::store_conformance!(standalone, one_server());

async fn put(store: &RedisStore, key: &str, version: u64) -> PutOutcome {
    let entries = [(Key::new(key), entry(key, version))];
    store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put")[0]
}

#[test]
fn every_flavour_keeps_entries() {
    block_on(async {
        for flavour in Flavour::installed() {
            let server = RedisServer::launch(&ServerOptions { flavour, ..Default::default() });
            let store = connect(&server).await.store("album");
            assert_eq!(put(&store, "a", 1).await, PutOutcome::Stored);
            let held = store.get(&Key::new("a")).await.expect("a read");
            assert_eq!(held.map(|held| held.version), Some(Version::new(1)), "{flavour:?}");
        }
    });
}

#[test]
fn a_batch_is_one_command() {
    block_on(async {
        let server = RedisServer::start();
        let store = connect(&server).await.store("album");
        let entries: Vec<_> =
            (0..100).map(|n| (Key::new(n.to_string()), entry("value", 1))).collect();
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        // The script is there from then on.
        store.put_many(&entries[..1], PutCondition::NewerThanHeld).await.expect("a put");
        server.command(&["CONFIG", "RESETSTAT"]);
        store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        assert_eq!((server.calls("evalsha"), server.calls("eval")), (1, 0));
        let read = store.get_many(&keys).await.expect("a read");
        assert!(read.iter().all(Option::is_some));
        assert_eq!((server.calls("mget"), server.calls("evalsha")), (1, 1));
        store.invalidate_many(&keys, Version::new(9), Verb::Remove).await.expect("a removal");
        assert_eq!(server.calls("evalsha") + server.calls("eval"), 3, "unknown, then in full");
    });
}

#[test]
fn scripts_that_the_server_forgot_are_sent_again() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        put(&store, "a", 1).await;
        let mut subscription = subscribe(&tier, None).await;
        server.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(put(&store, "a", 2).await, PutOutcome::Stored);
        let version = publish(&tier, &removal("a")).await;
        let heard = news(&mut subscription).await;
        assert!(
            matches!(&heard, larder_core::BusEvent::Message(message) if message.version == version),
            "{heard:?}"
        );
    });
}

#[test]
fn redis_reclaims_what_is_over() {
    block_on(async {
        let server = RedisServer::start();
        let store = connect(&server).await.store("album");
        let left =
            |key: &str| server.command(&["PTTL", &format!("larder:e:album:{key}")]).integer();
        let mut old = entry("old", 1);
        old.age = Duration::from_secs(50);
        old.fresh_for = Ttl::secs(20);
        let mut unlimited = entry("unlimited", 1);
        unlimited.fresh_for = Ttl::Forever;
        let entries = [(Key::new("old"), old), (Key::new("unlimited"), unlimited)];
        store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        assert!((1..=10_000).contains(&left("old")), "{}", left("old"));
        let day = 24 * 3600 * 1000;
        assert!((day - 60_000..=day).contains(&left("unlimited")), "as long as watermarks");
        store
            .invalidate_many(&[Key::new("gone")], Version::new(5), Verb::Remove)
            .await
            .expect("a removal");
        assert!((540_000..=600_000).contains(&left("gone")), "the window: {}", left("gone"));
    });
}

/// Else a late put could come after the entry's own, short life.
#[test]
fn a_floor_outlives_the_entry_above_it() {
    block_on(async {
        let server = RedisServer::start();
        let store = connect(&server).await.store("album");
        let key = Key::new("a");
        let keys = std::slice::from_ref(&key);
        let mut short = entry("short", 10);
        short.fresh_for = Ttl::For(Duration::from_millis(50));
        short.stale_for = Ttl::For(Duration::from_millis(50));
        for verb in [Verb::Remove, Verb::Expire] {
            store.invalidate_many(keys, Version::new(9), verb).await.expect("it is invalidated");
            let put = [(key.clone(), short.clone())];
            store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
            crate::support::wait_until("it is over", async || {
                store.get(&key).await.expect("a read").is_none()
            })
            .await;
            let late = [(key.clone(), entry("late", 8))];
            let late = store.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
            assert_eq!(late, [PutOutcome::Refused(Version::new(10))], "{verb:?}");
        }
        // And under an entry that is newer than the invalidation.
        let key = Key::new("b");
        let put_short = [(key.clone(), short)];
        store.put_many(&put_short, PutCondition::NewerThanHeld).await.expect("a put");
        let keys = std::slice::from_ref(&key);
        store.invalidate_many(keys, Version::new(9), Verb::Remove).await.expect("a removal");
        crate::support::wait_until("it is over", async || {
            store.get(&key).await.expect("a read").is_none()
        })
        .await;
        assert_eq!(put(&store, "b", 8).await, PutOutcome::Refused(Version::new(10)));
    });
}

#[test]
fn another_format_is_a_miss_and_is_left_alone() {
    block_on(async {
        let server = RedisServer::start();
        let store = connect(&server).await.store("album");
        let mut frame = vec![0_u8; 80];
        frame[..2].copy_from_slice(b"L\x02");
        let name = b"larder:e:album:a";
        server.command(&[b"SET".as_slice(), name, &frame]);
        assert_eq!(store.get(&Key::new("a")).await.expect("a read"), None);
        assert_eq!(put(&store, "a", 5).await, PutOutcome::Refused(Version::ZERO));
        let keys = [Key::new("a")];
        store.invalidate_many(&keys, Version::new(6), Verb::Remove).await.expect("a removal");
        assert_eq!(put(&store, "a", 5).await, PutOutcome::Refused(Version::new(6)));
        assert_eq!(put(&store, "a", 7).await, PutOutcome::Stored);
    });
}

#[test]
fn what_others_put_in_the_way_is_a_miss_and_goes() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        server.command(&["HSET", "larder:e:album:hash", "a", "b"]);
        server.command(&["SET", "larder:e:album:text", "text"]);
        for key in ["hash", "text"] {
            assert_eq!(store.get(&Key::new(key)).await.expect("a read"), None);
            publish(&tier, &removal(key)).await;
            assert!(matches!(put(&store, key, 5).await, PutOutcome::Refused(_)), "{key}");
        }
        server.command(&["DEL", "larder:e:album:hash"]);
        server.command(&["LPUSH", "larder:e:album:hash", "a"]);
        assert_eq!(put(&store, "hash", 5).await, PutOutcome::Stored);
    });
}

#[test]
fn caches_and_prefixes_do_not_meet() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut other = options(&server);
        other.prefix = "other".to_owned();
        let other = larder_redis::RedisTier::connect(other).await.expect("the same server");
        put(&tier.store("a:b"), "c", 1).await;
        for store in [tier.store("a"), tier.store("a:b:c"), other.store("a:b")] {
            for key in ["b:c", "c", ""] {
                assert_eq!(store.get(&Key::new(key)).await.expect("a read"), None);
            }
        }
    });
}

#[test]
fn versions_that_scripts_cannot_count_are_refused() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        let most = (1_u64 << 53) - (1 << 32);
        assert_eq!(put(&store, "a", most - 1).await, PutOutcome::Stored);
        assert_eq!(put(&store, "a", most).await, PutOutcome::Stored, "told apart to the last");
        assert_eq!(put(&store, "a", most - 1).await, PutOutcome::Refused(Version::new(most)));
        let over = [(Key::new("a"), entry("over", most + 1))];
        let error = store.put_many(&over, PutCondition::Vacant).await.expect_err("too high");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = tier.bus().publish(&removal("a"), Version::new(u64::MAX)).await;
        assert_eq!(error.expect_err("too high").kind(), ErrorKind::InvalidInput);
    });
}

/// What was loaded before the server forgot everything, invalidations too, must
/// not come after.
#[test]
fn a_put_from_an_earlier_history_is_refused() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        let began = publish(&tier, &removal("a")).await.get();
        publish(&tier, &removal("b")).await;
        server.command(&["FLUSHALL"]);
        assert!(matches!(put(&store, "b", began).await, PutOutcome::Refused(_)));
        let now = publish(&tier, &removal("c")).await.get();
        assert!(now > began, "versions never go back: {now} after {began}");
        assert_eq!(put(&store, "b", now).await, PutOutcome::Stored);
    });
}

#[test]
fn watermarks_go_when_nothing_falls_under_them() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = options(&server);
        options.floor_window = Duration::from_secs(1);
        options.mark_retention = Duration::from_secs(1);
        let tier = larder_redis::RedisTier::connect(options).await.expect("the server runs");
        let store = tier.store("album");
        let mark = |tag: &str, version| Mark {
            tag: Some(Tag::new(tag)),
            verb: Verb::Remove,
            version: Version::new(version),
        };
        let many: Vec<Mark> = (0..50).map(|n| mark(&n.to_string(), 5)).collect();
        store.mark(&many).await.expect("they are marked");
        assert_eq!(store.marks().await.expect("watermarks").len(), 50);
        let mut version = 6;
        crate::support::wait_until("old ones are gone", async || {
            version += 1;
            store.mark(&[mark("new", version)]).await.expect("it is marked");
            let marks = store.marks().await.expect("watermarks");
            assert!(marks.contains(&mark("new", version)), "the newest stays");
            marks.len() == 1
        })
        .await;
        assert!(server.command(&["ZCARD", "{larder}:marktimes:album"]).integer() == 1);
    });
}

/// Whoever packs values, all read them, and what happens to entries in the server
/// leaves them as they are.
#[test]
fn long_values_are_packed_where_that_is_asked_for_and_read_everywhere() {
    block_on(async {
        let server = RedisServer::start();
        let mut packs = options(&server);
        packs.compress_above = Some(1000);
        let packs = larder_redis::RedisTier::connect(packs).await.expect("the server runs");
        let (packing, plain) = (packs.store("album"), connect(&server).await.store("album"));
        let long = "{\"title\":\"Kind of Blue\"}".repeat(2000);
        let entries =
            [(Key::new("long"), entry(&long, 1)), (Key::new("short"), entry(&long[..1000], 1))];
        packing.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        let length = |key: &str| {
            let names = server.command(&["KEYS", &format!("*album*{key}")]);
            server
                .command(&["STRLEN", &names.items().first().expect("it is there").text()])
                .integer()
        };
        assert!((1..long.len() as i64 / 10).contains(&length("long")), "{}", length("long"));
        assert!(length("short") > 1000, "{}", length("short"));
        for store in [&packing, &plain] {
            for (key, put) in &entries {
                let read = store.get(key).await.expect("a read").expect("it is there");
                assert_eq!(read.value, put.value);
            }
        }
        let key = [Key::new("long")];
        plain.invalidate_many(&key, Version::new(2), Verb::Expire).await.expect("an expiry");
        let read = plain.get(&key[0]).await.expect("a read").expect("it may be served stale");
        assert_eq!((read.fresh_for, &read.value), (Ttl::For(Duration::ZERO), &entries[0].1.value));
    });
}
