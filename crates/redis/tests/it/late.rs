//! A tier that is made before its server is there.

use larder_core::{ErrorKind, Key, PutCondition, PutOutcome, Store, Version};
use larder_redis::{RIGHTS, RedisOptions, RedisTier};
use larder_testkit::conformance::{block_on, store::entry};
use larder_testkit::redis::{Cluster, RedisServer};

use crate::support::{connect, options, patient, publish, removal, subscribe, wait_until};

#[test]
fn a_server_that_comes_later_is_used_when_it_is_there() {
    block_on(async {
        let server = RedisServer::start();
        server.kill();
        let tier = RedisTier::connect_lazily(options(&server)).expect("nothing is asked yet");
        let error = tier.check().await.expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let (store, key) = (tier.store("album"), Key::new("a"));
        store.get(&key).await.expect_err("nobody is there");
        server.revive();
        // A put without a check before it learns whose history this is.
        let put = [(key.clone(), entry("value", 7))];
        // For a moment after a failure nobody asks.
        let is_stored = async || {
            let outcome = store.put_many(&put, PutCondition::NewerThanHeld).await;
            outcome.is_ok_and(|outcome| outcome == [PutOutcome::Stored])
        };
        wait_until("the entry is put", is_stored).await;
        let read = store.get(&key).await.expect("it is there").expect("it was put");
        assert_eq!(read.version, Version::new(7));
        tier.check().await.expect("it is there and allows everything");
        publish(&tier, &removal("a")).await;
        let after = store.get(&key).await.expect("it is there");
        assert_eq!(after, None, "the bus of the same tier removed it");
    });
}

#[test]
fn options_are_checked_before_anything_is_connected() {
    let mut options = RedisOptions::new("redis://localhost:1");
    options.connections_max = 51;
    let error = RedisTier::connect_lazily(options).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn listeners_are_counted_where_that_is_allowed() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        assert_eq!(tier.listeners().await.expect("it may ask"), 0);
        let first = subscribe(&tier, None).await;
        let other = connect(&server).await;
        let second = subscribe(&other, None).await;
        assert_eq!(tier.listeners().await.expect("it may ask"), 2);
        drop((first, second));

        let mut allow = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret"];
        allow.extend(["~larder:*", "~{larder}:*", "&larder:*", "&{larder}:*"]);
        let rights: Vec<String> = RIGHTS.iter().map(|right| format!("+{right}")).collect();
        allow.extend(rights.iter().map(String::as_str));
        assert!(!server.command(&allow).is_error());
        let mut options = patient(RedisOptions::new(format!("redis://{}", server.address())));
        options.user = Some("app".to_owned());
        options.password = Some("secret".to_owned());
        let tier = RedisTier::connect(options).await.expect("enough for everything else");
        let error = tier.listeners().await.expect_err("it may not ask");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    });
}

#[test]
fn a_cluster_is_joined_late_and_counts_its_listeners() {
    block_on(async {
        let cluster = Cluster::start();
        let url = format!("redis://{}", cluster.addresses()[0]);
        let mut options = patient(RedisOptions::new(url));
        options.topology = larder_redis::Topology::Cluster;
        let tier = RedisTier::connect_lazily(options).expect("nothing is asked yet");
        let put = [(Key::new("a"), entry("value", 7))];
        let outcome = tier.store("album").put_many(&put, PutCondition::NewerThanHeld).await;
        assert_eq!(outcome.expect("it is there"), [PutOutcome::Stored]);
        tier.check().await.expect("it allows everything");
        let _subscription = subscribe(&tier, None).await;
        assert_eq!(tier.listeners().await.expect("it may ask"), 1);
    });
}
