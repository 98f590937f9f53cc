//! How long answers hold (K2–K4, K6, K7, C4).

use std::time::Duration;

use larder::{
    Cache, ErrorKind, Freshness, Loaded, ManualClock, Policy, StaleReason, Tier, Ttl, TtlByAge,
    TtlClass,
};
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

#[tokio::test]
async fn an_answer_holds_for_its_ttl_and_says_where_it_came_from() {
    let world = world(plain());
    let first = world.hit().await;
    assert_eq!((first.tier(), first.freshness()), (Tier::Origin, Freshness::Fresh));
    world.clock.advance(MINUTE - SECOND);
    let second = world.hit().await;
    assert_eq!((second.tier(), second.freshness()), (Tier::Memory, Freshness::Fresh));
    assert_eq!(second.age(), MINUTE - SECOND);
    assert_eq!(second.fresh_for(), Some(SECOND));
    world.clock.advance(SECOND);
    assert_eq!(world.hit().await.tier(), Tier::Origin);
    assert_eq!(world.loads(), 2);
}

#[tokio::test]
async fn the_age_counts_from_the_start_of_the_origin_read() {
    let world = world(plain());
    world.origin.script([Answer::Truth.after(&world.clock, SECOND * 4)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.expect("answered") });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    // The upkeep, the origin, the load's timeout and the reader's.
    world.advance_past_sleepers(4, SECOND * 4).await;
    let hit = reader.await.expect("no panic");
    assert_eq!(hit.age(), SECOND * 4);
    assert_eq!(hit.load_cost(), SECOND * 4);
    assert_eq!(hit.fresh_for(), Some(MINUTE - SECOND * 4));
}

#[tokio::test]
async fn an_absent_key_is_kept_for_the_negative_ttl() {
    let world = world(plain().negative_ttl(SECOND * 10));
    let nobody = "nobody".to_owned();
    for _ in 0..3 {
        let hit = world.users.get_or_load(&nobody).await.expect("absence is an answer");
        assert_eq!(hit.value(), None);
    }
    assert_eq!(world.origin.loads_of(&nobody), 1);
    world.clock.advance(SECOND * 10);
    let _ = world.users.get_or_load(&nobody).await;
    assert_eq!(world.origin.loads_of(&nobody), 2);
}

#[tokio::test]
async fn without_a_negative_ttl_absence_is_not_kept() {
    let world = world(plain().negative_ttl(None));
    let nobody = "nobody".to_owned();
    let _ = world.users.get_or_load(&nobody).await;
    let _ = world.users.get_or_load(&nobody).await;
    assert_eq!(world.origin.loads_of(&nobody), 2);
}

#[tokio::test]
async fn loader_request_rule_and_policy_decide_in_this_order() {
    let by_rule = |_: &String, value: &i64| (*value == 1).then_some(Ttl::secs(30));
    let world = world_with(plain(), |builder| builder.ttl_rule(by_rule));
    let key = ann();
    let fresh_for = |hit: larder::Hit<String, i64>| hit.fresh_for().expect("it ends").as_secs();

    assert_eq!(fresh_for(world.hit().await), 30);
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    let hit = world.users.get_or_load(&key).ttl(Ttl::secs(20)).await.expect("answered");
    assert_eq!(fresh_for(hit), 20);
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    world.origin.script([Answer::Say(Loaded::value(1).ttl(Ttl::secs(10)))]);
    let hit = world.users.get_or_load(&key).ttl(Ttl::secs(20)).await.expect("answered");
    assert_eq!(fresh_for(hit), 10);
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    world.origin.set(ann(), 2);
    assert_eq!(fresh_for(world.hit().await), 60, "the rule has nothing to say about 2");
}

#[tokio::test]
async fn old_values_hold_longer_than_young_ones() {
    let by_age = TtlByAge::default();
    let world = world_with(plain(), move |builder| {
        builder.ttl_rule(move |_, days| {
            Some(by_age.ttl_at(Duration::from_secs(*days as u64 * 86_400)))
        })
    });
    for (days, seconds) in [(0, 30), (1, 3600), (8, 86_400)] {
        world.origin.set(ann(), days);
        world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
        let hit = world.hit().await;
        assert_eq!(hit.fresh_for(), Some(Duration::from_secs(seconds)), "{days} days old");
    }
}

#[tokio::test]
async fn jitter_shortens_and_spreads_and_never_lengthens() {
    let world = world(Policy::ttl(SECOND * 100).jitter(0.2).early_refresh_beta(None));
    let mut ttls = Vec::new();
    for number in 0..500 {
        let key = format!("user-{number}");
        world.users.put(&key, number).await.expect("put");
        let inspection = world.users.inspect(key.as_str()).expect("it is there");
        ttls.push(inspection.fresh_for.expect("it ends").as_secs_f64());
    }
    assert!(ttls.iter().all(|ttl| (80.0..=100.0).contains(ttl)));
    let mean = ttls.iter().sum::<f64>() / ttls.len() as f64;
    assert!((89.0..=91.0).contains(&mean), "{mean}");
}

#[tokio::test]
async fn a_sliding_ttl_grows_by_half_of_what_is_left_up_to_the_bound() {
    let policy = Policy::from(TtlClass::Session).jitter(0.0).sliding(true).max_age(SECOND * 3000);
    let world = world(policy);
    world.read().await;
    world.clock.advance(SECOND * 1000);
    // 800 s are left of 1800: 1200 from now on.
    assert_eq!(world.hit().await.fresh_for(), Some(SECOND * 1200));
    world.clock.advance(SECOND * 1100);
    assert_eq!(world.hit().await.fresh_for(), Some(SECOND * 150));
    for _ in 0..100 {
        world.clock.advance(SECOND * 60);
        if world.hit().await.tier() == Tier::Origin {
            break;
        }
        assert!(world.hit().await.age() < SECOND * 3000);
    }
    assert_eq!(world.loads(), 2, "the bound ends even what is read all the time");
}

#[tokio::test]
async fn what_nobody_asks_for_goes_after_the_idle_ttl() {
    let world = world(plain().idle_ttl(SECOND * 20));
    world.read().await;
    for _ in 0..2 {
        world.clock.advance(SECOND * 19);
        world.read().await;
    }
    assert_eq!(world.loads(), 1);
    world.clock.advance(SECOND * 20);
    assert!(world.users.get_memory("ann").is_none());
}

#[tokio::test]
async fn stale_is_served_at_once_while_it_is_refreshed() {
    let world = world(plain().stale_while_revalidate(SECOND * 30));
    world.read().await;
    world.origin.set(ann(), 2);
    world.clock.advance(MINUTE + SECOND * 29);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    for _ in 0..10 {
        let hit = world.hit().await;
        assert_eq!(stale_reason(&hit), Some(StaleReason::Revalidating));
        assert_eq!(hit.age(), MINUTE + SECOND * 29);
        assert_eq!(hit.into_value(), Some(1));
    }
    gate.open();
    world
        .settle("the refresh landed", |world| {
            world.users.get_memory("ann").and_then(|hit| hit.into_value()) == Some(2)
        })
        .await;
    assert_eq!(world.loads(), 2, "ten readers, one refresh");
    assert_eq!(world.users.statistics().stale_age_max, MINUTE + SECOND * 29);
    world.clock.advance(MINUTE + SECOND * 30);
    assert_eq!(world.hit().await.tier(), Tier::Origin, "the window has ended");
}

#[tokio::test]
async fn max_age_bounds_stale_answers_too() {
    let policy = plain().stale_if_error(MINUTE * 60).max_age(SECOND * 90);
    let world = world(policy);
    world.read().await;
    world.origin.script((0..2).map(|_| Answer::unavailable()));
    world.clock.advance(SECOND * 89);
    assert_eq!(stale_reason(&world.hit().await), Some(StaleReason::OriginFailed));
    world.clock.advance(SECOND);
    assert!(world.users.get_or_load(&ann()).await.is_err());
}

#[tokio::test]
async fn what_is_not_to_be_cached_is_answered_and_not_kept() {
    let world = world(plain());
    world.read().await;
    world.clock.advance(MINUTE);
    world.origin.script([Answer::Say(Loaded::dont_cache(5))]);
    assert_eq!(world.read().await, Some(5));
    assert!(world.users.get_memory("ann").is_none(), "nor is anything older left behind");
}

#[tokio::test]
async fn not_modified_renews_what_is_held() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    let version = world.hit().await.version();
    world.clock.advance(MINUTE);
    world.origin.script([Answer::Say(Loaded::not_modified())]);
    let renewed = world.hit().await;
    assert_eq!((renewed.value(), renewed.fresh_for()), (Some(&1), Some(MINUTE)));
    assert_eq!(world.origin.calls()[1].held, Some(version));

    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    world.origin.script([Answer::Say(Loaded::not_modified())]);
    assert!(world.users.get_or_load(&ann()).await.is_err(), "nothing is held");
}

#[tokio::test]
async fn personal_data_goes_to_the_origin_each_time_and_is_never_kept() {
    let world = world(plain().class(larder::Class::Personal));
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.loads(), 2);
    assert!(world.users.get_memory("ann").is_none());
    assert!(world.users.put(&ann(), 3).await.is_err());
    world.origin.script([Answer::Say(Loaded::value(1).class(larder::Class::Public))]);
    world.read().await;
    assert!(world.users.get_memory("ann").is_none(), "a loader cannot allow it");
    assert_eq!(world.users.statistics().fills_fenced, 0, "nothing came in between");
    let per_value = world_with(plain(), |builder| builder);
    per_value.origin.script([Answer::Say(Loaded::value(1).class(larder::Class::Credential))]);
    per_value.read().await;
    assert!(per_value.users.get_memory("ann").is_none(), "a loader may say so for one value");
}

#[tokio::test]
async fn a_cache_without_an_origin_is_a_cache_aside() {
    let clock = ManualClock::new();
    let users = Cache::<String, i64>::builder("user")
        .clock(clock.clone())
        .policy(plain())
        .build()
        .expect("ok");
    assert!(users.get(&"ann".to_owned()).await.expect("memory does not fail").is_none());
    users.put(&ann(), 1).ttl(Ttl::secs(5)).await.expect("put");
    assert_eq!(
        users.get(&"ann".to_owned()).await.expect("ok").and_then(|hit| hit.into_value()),
        Some(1)
    );
    clock.advance(SECOND * 5);
    assert!(users.get(&"ann".to_owned()).await.expect("ok").is_none());
    let error = users.get_or_load(&ann()).await.expect_err("there is no origin");
    assert!(error.to_string().contains("no origin"), "{error}");
}

#[tokio::test]
async fn what_slid_is_not_served_beyond_its_bound_when_the_origin_fails() {
    let policy = plain().sliding(true).max_age(SECOND * 100).stale_if_error(MINUTE);
    let world = world(policy);
    world.read().await;
    world.clock.advance(SECOND * 50);
    // Each read slides the end of freshness, and with it the stale window.
    for _ in 0..40 {
        world.clock.advance(SECOND);
        world.read().await;
    }
    world.origin.script((0..100).map(|_| Answer::unavailable()));
    for _ in 0..60 {
        world.clock.advance(SECOND);
        match world.users.get_or_load(&ann()).await {
            Ok(hit) => assert!(hit.age() <= SECOND * 100, "served at the age of {:?}", hit.age()),
            Err(_) => return,
        }
    }
    panic!("it is served for ever");
}

#[tokio::test]
async fn a_requests_ttl_is_for_values_and_absence_has_its_own() {
    let nobody = "nobody".to_owned();
    let world_of = |negative: Option<Duration>| world(plain().negative_ttl(negative));
    let kept = world_of(Some(SECOND * 10));
    let hit = kept.users.get_or_load(&nobody).ttl(Ttl::secs(3600)).await.expect("answered");
    assert_eq!((hit.value(), hit.fresh_for()), (None, Some(SECOND * 10)));
    let not_kept = world_of(None);
    not_kept.users.get_or_load(&nobody).ttl(Ttl::secs(3600)).await.expect("answered");
    assert!(not_kept.users.get_memory("nobody").is_none());
}

/// A reader of an origin that takes four seconds.
async fn read_slowly(policy: Policy) -> (World, larder::Result<larder::Hit<String, i64>>) {
    let world = world(policy);
    world.origin.script([Answer::Truth.after(&world.clock, SECOND * 4)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    // The upkeep, the origin, the load's timeout and the reader's.
    world.advance_past_sleepers(4, SECOND * 4).await;
    let answer = reader.await.expect("no panic");
    (world, answer)
}

#[tokio::test]
async fn an_answer_that_expired_while_it_was_loaded_is_not_called_fresh() {
    let second = Policy::ttl(SECOND).jitter(0.0).early_refresh_beta(None);
    let (world, answer) = read_slowly(second).await;
    let hit = answer.expect("answered");
    assert_eq!((hit.value(), hit.tier()), (Some(&1), Tier::Origin));
    assert_eq!(
        hit.freshness(),
        Freshness::Stale { age: SECOND * 4, reason: StaleReason::SlowLoad }
    );
    let statistics = world.users.statistics();
    assert_eq!((statistics.stale_slow_load, statistics.load_answers), (1, 0));
    assert_eq!((statistics.requests(), statistics.hit_ratio()), (1, Some(0.0)));
}

#[tokio::test]
async fn an_answer_older_than_max_age_is_given_to_nobody() {
    let second = Policy::ttl(SECOND).jitter(0.0).early_refresh_beta(None).max_age(SECOND);
    let (world, answer) = read_slowly(second.soft_timeout(SECOND / 2)).await;
    let error = answer.expect_err("it is four seconds old");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("max_age"), "{error}");
    assert!(world.users.get_memory("ann").is_none());
}

#[tokio::test]
async fn a_load_is_cancelled_when_its_answer_would_be_too_old() {
    let world = world(plain().max_age(MINUTE).hard_timeout(MINUTE * 5));
    world.origin.script([Answer::Hang]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.map(|_| ()) });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    world.advance_past_sleepers(3, MINUTE).await;
    let error = reader.await.expect("no panic").expect_err("it was cancelled");
    assert!(error.to_string().contains("too old"), "{error}");
    assert_eq!(world.origin.dropped_count(), 1);
}

#[tokio::test]
async fn what_is_not_kept_is_fresh_for_whoever_waited() {
    let world = world(plain());
    world.origin.script([Answer::Say(Loaded::dont_cache(5)).after(&world.clock, SECOND)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.expect("answered") });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    world.advance_past_sleepers(4, SECOND).await;
    assert!(reader.await.expect("no panic").is_fresh());
}

#[tokio::test]
async fn jitter_of_a_ttl_without_end_does_not_overflow() {
    let world = world(Policy::ttl(Duration::MAX).jitter(1e-20));
    world.users.put(&ann(), 3).await.expect("put");
    assert!(world.hit().await.is_fresh());
}
