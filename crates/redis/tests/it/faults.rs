//! Servers that stand still and connections that end.

use std::time::{Duration, Instant};

use larder_core::{Bus, BusEvent, ErrorKind, Key, PutCondition, Store, Subscription, Version};
use larder_redis::RedisTier;
use larder_testkit::conformance::{block_on, store::entry};
use larder_testkit::redis::RedisServer;

use crate::support::{
    connect, message, news, options, publish, removal, subscribe, until_current, wait_until,
};

#[test]
fn a_server_that_stands_still_costs_a_timeout_and_proves_nothing() {
    block_on(async {
        let server = RedisServer::start();
        let patient = connect(&server).await;
        let mut options = options(&server);
        options.response_timeout = Duration::from_millis(300);
        options.connect_timeout = Duration::from_millis(300);
        let tier = RedisTier::connect(options).await.expect("the server runs");
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        server.pause();
        let start = Instant::now();
        let error = tier.store("album").get(&Key::new("a")).await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.is_retryable());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        tier.bus().publish(&removal("a"), Version::ZERO).await.expect_err("no answer");
        // What was under way may come; nothing claims to be current any more.
        while tokio::time::timeout(Duration::from_millis(800), subscription.next()).await.is_ok() {}
        server.resume();
        let version = publish(&patient, &removal("after")).await;
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        // Perhaps the announcement without an answer, and then this one.
        let mut heard = message(&mut subscription).await;
        if heard.version != version {
            heard = message(&mut subscription).await;
        }
        assert_eq!((heard.version, heard.announcement), (version, removal("after")));
        wait_until("the store is used again", async || {
            tier.store("album").get(&Key::new("a")).await.is_ok()
        })
        .await;
    });
}

#[test]
fn connections_that_were_cut_are_made_anew_without_an_error() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        let mut version = 0;
        for _ in 0..5 {
            for kind in ["normal", "pubsub"] {
                server.command(&["CLIENT", "KILL", "TYPE", kind]);
            }
            version += 1;
            let put = [(Key::new("a"), entry("value", version))];
            store.put_many(&put, PutCondition::NewerThanHeld).await.expect("over a new one");
            let announced = publish(&tier, &removal("b")).await;
            assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
            assert_eq!(message(&mut subscription).await.version, announced);
            until_current(&mut subscription).await;
        }
    });
}

#[test]
fn a_tier_keeps_to_its_connections() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = options(&server);
        options.connections_max = 5;
        let tier = RedisTier::connect(options).await.expect("the server runs");
        let _subscription = subscribe(&tier, None).await;
        let store = tier.store("album");
        let mut tasks = Vec::new();
        for number in 0..200 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let key = Key::new(number.to_string());
                store.put_many(&[(key.clone(), entry("value", 1))], PutCondition::Vacant).await?;
                store.get(&key).await
            }));
        }
        for task in tasks {
            assert!(task.await.expect("it ends").expect("a read").is_some());
        }
        let clients = server.clients("normal").len() + server.clients("pubsub").len();
        // The test's own connection is one of them.
        assert!((4..=6).contains(&clients), "{clients} connections");
    });
}

#[test]
fn time_is_told_to_within_a_round_trip() {
    block_on(async {
        let server = RedisServer::start();
        let (here, there) = (connect(&server).await, connect(&server).await);
        let key = Key::new("a");
        let mut put = entry("value", 1);
        put.age = Duration::from_secs(20);
        let before = Instant::now();
        let (here, put) = (here.store("album"), [(key.clone(), put)]);
        here.put_many(&put, PutCondition::Vacant).await.expect("a put");
        let read = there.store("album").get(&key).await.expect("a read").expect("it was put");
        assert!(read.age >= Duration::from_secs(20), "never younger: {:?}", read.age);
        let most = Duration::from_secs(20) + before.elapsed() + Duration::from_millis(500);
        assert!(read.age < most, "{:?} is more than {most:?}", read.age);
    });
}
