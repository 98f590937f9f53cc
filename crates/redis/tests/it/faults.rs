//! Servers that stand still and connections that end.

use std::time::{Duration, Instant};

use larder_core::{Bus, BusEvent, ErrorKind, Key, PutCondition, Store, Subscription, Version};
use larder_redis::{RedisSubscription, RedisTier};
use larder_testkit::conformance::{block_on, store::entry};
use larder_testkit::proxy::{ConnectionId, Direction, FaultProxy};
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

/// The bus alone, behind a proxy, with little patience.
async fn behind(proxy: &FaultProxy, server: &RedisServer) -> (RedisTier, RedisSubscription) {
    let mut options = options(server);
    options.urls = vec![format!("redis://{}", proxy.address())];
    options.response_timeout = Duration::from_millis(500);
    let tier = RedisTier::connect(options).await.expect("the proxy leads to the server");
    let mut subscription = subscribe(&tier, None).await;
    until_current(&mut subscription).await;
    (tier, subscription)
}

/// The connection over which the subscriber hears: the newest, because the server
/// does not know at once that an older one is gone.
fn subscriber(proxy: &FaultProxy, server: &RedisServer) -> ConnectionId {
    let clients = server.clients("pubsub");
    let newest = clients.into_iter().rev().find_map(|client| proxy.find(client));
    newest.expect("it came through the proxy")
}

#[test]
fn a_subscriber_that_is_not_heard_or_does_not_hear_finds_out_and_catches_up() {
    block_on(async {
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.address());
        let direct = connect(&server).await;
        let (_tier, mut subscription) = behind(&proxy, &server).await;
        for direction in [Direction::ToClient, Direction::ToServer] {
            for black_hole in [false, true] {
                let target = proxy.connection(subscriber(&proxy, &server));
                if black_hole {
                    target.black_hole(direction);
                } else {
                    target.stall(direction);
                }
                let announced = publish(&direct, &removal("meanwhile")).await;
                // Requests alone vanish: pushes still come.
                let mut events = vec![news(&mut subscription).await];
                while events.len() < 2 {
                    events.push(news(&mut subscription).await);
                }
                assert!(events.contains(&BusEvent::Reconnected), "{direction:?}: {events:?}");
                let heard = events.iter().any(
                    |event| matches!(event, BusEvent::Message(heard) if heard.version == announced),
                );
                assert!(heard, "{direction:?}: {events:?}");
                let (before, _, version) = until_current(&mut subscription).await;
                assert_eq!((before, version), (Vec::new(), announced));
                proxy.lift();
            }
        }
    });
}

/// Ages count the way that answers may have taken.
#[test]
fn a_heartbeat_is_as_old_as_its_question() {
    block_on(async {
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.address());
        let (_tier, mut subscription) = behind(&proxy, &server).await;
        let delay = Duration::from_millis(100);
        proxy.all().delay(Direction::ToClient, delay, Duration::ZERO);
        let mut seen = 0;
        // One may have been on its way already.
        for _ in 0..4 {
            if let Some(BusEvent::Current { age, .. }) = subscription.next().await
                && age >= delay
            {
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen} of 4 are as old as the way back");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let event = subscription.next().await;
        assert!(
            matches!(event, Some(BusEvent::Current { age, .. }) if age >= Duration::from_millis(500)),
            "what waited is older: {event:?}"
        );
    });
}

/// A batch is one round trip, whatever it takes inside.
#[test]
fn a_batch_is_one_round_trip() {
    block_on(async {
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.address());
        let mut options = options(&server);
        options.urls = vec![format!("redis://{}", proxy.address())];
        let tier = RedisTier::connect(options).await.expect("the proxy leads to the server");
        let store = tier.store("album");
        let entries: Vec<_> =
            (0..100).map(|n| (Key::new(n.to_string()), entry("value", 1))).collect();
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        // Connections are opened and scripts known from then on.
        for _ in 0..4 {
            store.put_many(&entries[..1], PutCondition::Vacant).await.expect("a put");
            publish(&tier, &removal("warm")).await;
        }
        let before = proxy.round_trips();
        store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
        assert_eq!(proxy.round_trips() - before, 1, "a put of 100");
        let before = proxy.round_trips();
        store.get_many(&keys).await.expect("a read");
        assert_eq!(proxy.round_trips() - before, 1, "a read of 100");
        let before = proxy.round_trips();
        publish(&tier, &removal("one")).await;
        assert_eq!(proxy.round_trips() - before, 1, "an announcement");
    });
}
