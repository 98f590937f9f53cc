//! Invalidation of many entries at once (I1).

use larder::{Loaded, Tags};
use larder_testkit::faulty::Answer;

use crate::support::*;

#[tokio::test]
async fn tags_of_loader_request_and_rule_all_count() {
    for tag in ["loader", "request", "rule", "people:1"] {
        let world = world_with(plain(), |builder| {
            builder.tag_rule(|_, value| {
                Tags::new(["rule".to_owned(), format!("people:{}", value.copied().unwrap_or(0))])
            })
        });
        let load = || async {
            let key = ann();
            let call = world.users.get_or_load(&key).tags(["request"]);
            call.await.expect("answered").into_value()
        };
        world.origin.script([Answer::Say(Loaded::value(1).tags(["loader"]))]);
        assert_eq!(load().await, Some(1));
        assert!(world.users.get_memory("ann").is_some());
        world.users.remove_tag("other").await.expect("memory does not fail");
        assert!(world.users.get_memory("ann").is_some(), "another tag touches nothing");
        world.users.remove_tag(tag).await.expect("memory does not fail");
        assert!(world.users.get_memory("ann").is_none(), "{tag}");
    }
}

#[tokio::test]
async fn an_expired_tag_may_be_served_stale_and_a_removed_one_may_not() {
    let world = world(plain().stale_if_error(MINUTE * 60));
    let load = || async {
        let key = ann();
        world
            .users
            .get_or_load(&key)
            .tags(["people"])
            .await
            .map(|hit| (hit.is_fresh(), hit.into_value()))
    };
    load().await.expect("answered");
    world.users.expire_tag("people").await.expect("memory does not fail");
    world.origin.script([Answer::unavailable(), Answer::unavailable()]);
    assert_eq!(load().await.expect("stale stands in"), (false, Some(1)));
    world.users.remove_tag("people").await.expect("memory does not fail");
    assert!(load().await.is_err(), "what is removed is gone");
}

#[tokio::test]
async fn clear_drops_everything_and_what_comes_later_stays() {
    let world = world(plain());
    world.read().await;
    world.users.put(&"bob".to_owned(), 7).await.expect("put");
    world.users.clear().await.expect("memory does not fail");
    assert!(world.users.get_memory("ann").is_none());
    assert!(world.users.get_memory("bob").is_none());
    world.read().await;
    assert!(world.users.get_memory("ann").is_some());
}

#[tokio::test]
async fn absence_is_invalidated_by_tag_too() {
    let world = world_with(plain(), |builder| builder.tag_rule(|_, _| Tags::new(["all"])));
    let bob = "bob".to_owned();
    assert_eq!(world.users.get_or_load(&bob).await.expect("answered").into_value(), None);
    world.origin.set(bob.clone(), 2);
    assert_eq!(world.users.get_or_load(&bob).await.expect("answered").into_value(), None);
    world.users.remove_tag("all").await.expect("memory does not fail");
    assert_eq!(world.users.get_or_load(&bob).await.expect("answered").into_value(), Some(2));
}

/// Orders of customers, over an origin that counts.
fn orders() -> (larder::Cache<String, i64>, Truth) {
    let keys = ["order:17:1", "order:17:2", "order:170:1", "order:18:1"];
    let origin = Truth::with_batch_limit(1000).with_rows(keys.map(|key| (key.to_owned(), 1)));
    let orders = larder::Cache::builder("order")
        .origin(origin.clone())
        .policy(plain().stale_if_error(MINUTE))
        .prefixes("order:{customer}:{id}".parse().expect("a pattern"))
        .build()
        .expect("a coherent cache");
    (orders, origin)
}

#[tokio::test]
async fn what_begins_alike_is_invalidated_at_once() {
    let (orders, origin) = orders();
    let keys: Vec<String> = ["order:17:1", "order:17:2", "order:170:1", "order:18:1", "order:17:9"]
        .map(str::to_owned)
        .to_vec();
    let held = |orders: &larder::Cache<String, i64>| -> Vec<bool> {
        keys.iter().map(|key| orders.get_memory(key).is_some()).collect()
    };
    orders.get_or_load_many(&keys).await;
    let cover = orders.remove_prefix("order:17:").await.expect("memory does not fail");
    assert_eq!((cover.reach, cover.is_exact), (larder::Reach::Level("order:17:".into()), true));
    assert_eq!(held(&orders), [false, false, true, true, false]);
    orders.get_or_load_many(&keys).await;
    let cover = orders.remove_matching("order:17:2").await.expect("memory does not fail");
    assert!(cover.is_exact);
    assert_eq!(held(&orders), [true, false, true, true, true]);
    let cover = orders.remove_prefix("invoice:").await.expect("memory does not fail");
    assert_eq!(cover.reach, larder::Reach::Nothing);
    // Within a parameter there is no watermark: all is reached, and says so.
    let cover = orders.remove_prefix("order:17").await.expect("memory does not fail");
    assert_eq!((cover.reach, cover.is_exact), (larder::Reach::All, false));
    assert_eq!(held(&orders), [false; 5]);
    // What has expired may still stand in for a failing origin.
    orders.get_or_load_many(&keys).await;
    orders.expire_matching("order:18:*").await.expect("memory does not fail");
    origin.script([larder_testkit::faulty::Answer::unavailable()]);
    let hit = orders.get_or_load(&keys[3]).await.expect("a stale answer");
    assert!(!hit.is_fresh());
}

#[tokio::test]
async fn a_load_that_began_before_its_prefix_was_removed_is_not_kept() {
    let (orders, origin) = orders();
    let gate = larder_testkit::faulty::Gate::new();
    origin.script([larder_testkit::faulty::Answer::Truth.held_at(&gate)]);
    let key = "order:17:1".to_owned();
    let (reader, of_reader) = (orders.clone(), key.clone());
    let read = tokio::spawn(async move { reader.get_or_load(&of_reader).await });
    gate.wait_for_arrivals(1).await;
    orders.remove_prefix("order:17:").await.expect("memory does not fail");
    gate.open();
    read.await.expect("no panic").expect("it is answered");
    assert!(orders.get_memory(&key).is_none());
    let error = world(plain()).users.remove_prefix("a").await.expect_err("it has no pattern");
    assert_eq!(error.kind(), larder::ErrorKind::Config);
}
