//! Replicas: reading from them, and what becomes of the bus when one takes over.

use larder_core::{BusEvent, Key, PutCondition, PutOutcome, Store, Version};
use larder_redis::{RedisOptions, RedisStore, RedisTier, Topology};
use larder_testkit::conformance::{Kept, block_on, store::entry};
use larder_testkit::redis::{Replicated, SENTINEL_NAME, Sentinel};

use crate::support::{
    message, news, next, options, patient, publish, removal, subscribe, until_current, until_told,
    wait_until,
};

/// A tier that knows both servers.
async fn both(redis: &Replicated) -> RedisTier {
    let mut options = options(&redis.servers()[0]);
    options.urls = redis.servers().iter().map(|server| server.url()).collect();
    RedisTier::connect(options).await.expect("the primary runs")
}

async fn watched() -> Kept<RedisStore, Sentinel> {
    let (redis, tier) = sentinels().await;
    Kept::new(tier.store("album"), redis)
}

async fn sentinels() -> (Sentinel, RedisTier) {
    let redis = Sentinel::start();
    let mut options = patient(RedisOptions::new("redis://127.0.0.1"));
    options.urls = redis.addresses().iter().map(|address| format!("redis://{address}")).collect();
    options.topology =
        Topology::Sentinel { service: SENTINEL_NAME.to_owned(), user: None, password: None };
    let tier = RedisTier::connect(options).await.expect("the sentinels know the primary");
    (redis, tier)
}

larder_testkit::store_conformance!(sentinel, watched());
larder_testkit::bus_conformance!(sentinel_bus, async {
    let (redis, tier) = sentinels().await;
    let redis = std::sync::Arc::new(redis);
    let two = Kept::new(tier.bus(), std::sync::Arc::clone(&redis));
    (Kept::new(tier.bus(), redis), two)
});

#[test]
fn entries_may_be_read_from_a_replica() {
    block_on(async {
        let redis = Replicated::start(1);
        let mut options = options(redis.primary());
        options.urls.push(redis.servers()[1].url());
        options.read_from_replicas = true;
        let store = RedisTier::connect(options).await.expect("both run").store("album");
        let key = Key::new("a");
        let put = [(key.clone(), entry("value", 1))];
        store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
        redis.wait_until_in_step();
        let before = redis.primary().calls("mget");
        assert!(store.get(&key).await.expect("a read").is_some());
        assert_eq!(redis.primary().calls("mget"), before);
        assert_eq!(redis.servers()[1].calls("mget"), 1);
        redis.servers()[1].kill();
        assert!(store.get(&key).await.expect("the primary stands in").is_some());
    });
}

#[test]
fn a_replica_that_has_everything_takes_over_without_loss() {
    block_on(async {
        let redis = Replicated::start(1);
        let tier = both(&redis).await;
        let mut subscription = subscribe(&tier, None).await;
        let first = publish(&tier, &removal("a")).await;
        message(&mut subscription).await;
        redis.wait_until_in_step();
        redis.primary().kill();
        redis.promote(1);
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        let second = publish(&tier, &removal("b")).await;
        assert!(second > first);
        assert_eq!(message(&mut subscription).await.version, second);
    });
}

#[test]
fn a_replica_that_lacks_the_tail_takes_over_and_it_is_told() {
    block_on(async {
        let redis = Replicated::start(1);
        let tier = both(&redis).await;
        let other = both(&redis).await;
        let (mut here, mut there) = (subscribe(&tier, None).await, subscribe(&other, None).await);
        publish(&tier, &removal("early")).await;
        let epoch = message(&mut here).await.position.epoch;
        message(&mut there).await;
        redis.wait_until_in_step();
        redis.hold_back(1);
        let late = publish(&tier, &removal("late")).await;
        message(&mut here).await;
        message(&mut there).await;
        redis.primary().kill();
        redis.promote(1);
        for subscription in [&mut here, &mut there] {
            assert_eq!(news(subscription).await, BusEvent::Reconnected);
            let event = news(subscription).await;
            let BusEvent::Lost { head, version, .. } = event else { panic!("{event:?}") };
            assert_ne!(head.epoch, epoch, "others who come back must know, too");
            assert!(version > late, "{version} after {late}");
        }
        // A load that began before the loss was not told of what was lost.
        let put = [(Key::new("late"), entry("value", late.get()))];
        let outcome = tier.store("album").put_many(&put, PutCondition::NewerThanHeld).await;
        let outcome = outcome.expect("a put");
        assert!(matches!(outcome[..], [PutOutcome::Refused(_)]), "{outcome:?}");
        let next_version = publish(&other, &removal("next")).await;
        assert!(next_version > late);
        // Both may have seen the loss, one after the other.
        for subscription in [&mut here, &mut there] {
            loop {
                match news(subscription).await {
                    BusEvent::Lost { .. } => {}
                    BusEvent::Message(message) => {
                        assert_eq!(message.version, next_version);
                        break;
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
    });
}

/// Two messages of one number are told apart.
#[test]
fn a_tail_that_was_replaced_is_told_although_the_numbers_go_on() {
    block_on(async {
        let redis = Replicated::start(1);
        let tier = both(&redis).await;
        let mut subscription = subscribe(&tier, None).await;
        publish(&tier, &removal("early")).await;
        message(&mut subscription).await;
        redis.wait_until_in_step();
        redis.hold_back(1);
        publish(&tier, &removal("lost")).await;
        let lost = message(&mut subscription).await;
        // While this node is away another one, that heard of nothing, announces.
        redis.primary().pause();
        redis.promote(1);
        let fresh = RedisTier::connect(options(&redis.servers()[1])).await.expect("it runs");
        for number in 0..5 {
            publish(&fresh, &removal(&number.to_string())).await;
        }
        redis.servers()[0].kill();
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        let event = news(&mut subscription).await;
        let BusEvent::Lost { head, .. } = event else { panic!("{event:?}") };
        assert!(head.sequence > lost.position.sequence);
        assert_ne!(head.epoch, lost.position.epoch);
    });
}

#[test]
fn an_old_primary_that_became_a_replica_is_left() {
    block_on(async {
        let redis = Replicated::start(1);
        let tier = both(&redis).await;
        let store = tier.store("album");
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        redis.promote(1);
        redis.let_follow(0);
        wait_until("it is a replica", async || {
            redis.servers()[0].info("role").as_deref() == Some("slave")
        })
        .await;
        let key = Key::new("a");
        // Above every number that a clock gives.
        let mut version = 1 << 52;
        wait_until("puts go to the new primary", async || {
            version += 1;
            let put = [(key.clone(), entry("value", version))];
            let outcomes = store.put_many(&put, PutCondition::NewerThanHeld).await;
            outcomes.is_ok_and(|outcomes| outcomes == [PutOutcome::Stored])
        })
        .await;
        assert_eq!(redis.servers()[1].command(&["EXISTS", "larder:e:album:a"]).integer(), 1);
        let announced = publish(&tier, &removal("a")).await;
        loop {
            match next(&mut subscription).await {
                BusEvent::Message(message) => {
                    assert_eq!(message.version, announced);
                    break;
                }
                // It came before this subscriber had found the new primary, and is among
                // what is said to be missing.
                BusEvent::Lost { version, .. } if version >= announced => break,
                BusEvent::Reconnected | BusEvent::Current { .. } | BusEvent::Lost { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    });
}

#[test]
fn sentinels_say_who_takes_over() {
    block_on(async {
        let (redis, tier) = sentinels().await;
        let mut subscription = subscribe(&tier, None).await;
        let first = publish(&tier, &removal("a")).await;
        message(&mut subscription).await;
        let old = redis.primary().address();
        redis.primary().kill();
        let mut second = Version::ZERO;
        wait_until("the new primary is used", async || {
            use larder_core::Bus;
            match tier.bus().publish(&removal("b"), first).await {
                Ok(published) => second = published.version,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            second > Version::ZERO
        })
        .await;
        assert!(second > first);
        redis.wait_for_failover(old);
        until_told(&mut subscription, second).await;
    });
}

/// Reads alone are not refused by an old primary: the bus finds out.
#[test]
fn reads_leave_an_old_primary_when_the_bus_has() {
    block_on(async {
        let redis = Replicated::start(1);
        let tier = both(&redis).await;
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        let store = tier.store("album");
        for _ in 0..4 {
            store.get(&Key::new("a")).await.expect("a read");
        }
        redis.wait_until_in_step();
        redis.promote(1);
        redis.let_follow(0);
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        until_current(&mut subscription).await;
        let before = redis.servers()[0].calls("mget");
        for _ in 0..4 {
            store.get(&Key::new("a")).await.expect("a read");
        }
        assert_eq!(redis.servers()[0].calls("mget"), before);
        assert_eq!(redis.servers()[1].calls("mget"), 4);
    });
}
