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
