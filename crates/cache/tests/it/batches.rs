//! Many keys in one call (T8): one call of the origin, one flight for each key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::{Cache, Error, LoadContext, Loaded, Origin, Result};
use larder_testkit::faulty::{Answer, FaultyOrigin, Gate};

use crate::support::*;

fn keys(numbers: std::ops::Range<i64>) -> Vec<String> {
    numbers.map(|number| format!("user-{number}")).collect()
}

fn with_rows(world: &World, numbers: std::ops::Range<i64>) {
    for number in numbers {
        world.origin.set(format!("user-{number}"), number);
    }
}

async fn values(world: &World, keys: &[String]) -> Vec<Option<i64>> {
    let answers = world.users.get_or_load_many(keys).await;
    answers.into_iter().map(|answer| answer.expect("answered").into_value()).collect()
}

#[tokio::test]
async fn a_thousand_cold_keys_cost_one_call() {
    let world = world(plain());
    with_rows(&world, 0..1000);
    let wanted: Vec<_> = (0..1000).map(Some).collect();
    assert_eq!(values(&world, &keys(0..1000)).await, wanted);
    assert_eq!(world.origin.calls_count(), 1);
    assert_eq!(values(&world, &keys(0..1000)).await, wanted);
    assert_eq!(world.origin.calls_count(), 1, "and then they are in memory");
}

#[tokio::test]
async fn more_than_the_origin_takes_is_asked_in_parts() {
    let world = world(plain());
    with_rows(&world, 0..2500);
    values(&world, &keys(0..2500)).await;
    let sizes: Vec<_> = world.origin.calls().iter().map(|call| call.keys.len()).collect();
    assert_eq!(sizes, [1000, 1000, 500]);
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for_in_order_and_once() {
    let world = world(plain());
    with_rows(&world, 0..4);
    values(&world, &keys(1..2)).await;
    let asked: Vec<String> =
        ["user-0", "user-1", "user-2", "user-0", "nobody"].map(str::to_owned).into();
    assert_eq!(values(&world, &asked).await, [Some(0), Some(1), Some(2), Some(0), None]);
    assert_eq!(world.origin.calls()[1].keys, ["user-0", "user-2", "nobody"]);
}

#[tokio::test]
async fn a_key_that_is_being_loaded_is_joined() {
    let world = world(plain());
    with_rows(&world, 0..10);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let single =
        tokio::spawn(async move { users.get_or_load(&"user-3".to_owned()).await.map(|_| ()) });
    gate.wait_for_arrivals(1).await;
    let users = world.users.clone();
    let batch = tokio::spawn(async move { users.get_or_load_many(&keys(0..10)).await.len() });
    world.settle("the batch was asked", |world| world.origin.calls_count() == 2).await;
    gate.open();
    single.await.expect("no panic").expect("answered");
    assert_eq!(batch.await.expect("no panic"), 10);
    assert_eq!(world.origin.loads_of(&"user-3".to_owned()), 1);
    assert_eq!(world.origin.calls()[1].keys.len(), 9);
}

#[tokio::test]
async fn a_failed_batch_fails_each_of_its_keys_and_no_other() {
    let world = world(plain());
    with_rows(&world, 0..10);
    values(&world, &keys(0..3)).await;
    world.origin.script([Answer::unavailable()]);
    let answers = world.users.get_or_load_many(&keys(0..10)).await;
    let failed: Vec<_> = answers.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, false, true, true, true, true, true, true, true]);
    assert!(answers[5].as_ref().is_err_and(Error::is_retryable));
    assert_eq!(values(&world, &keys(0..10)).await.len(), 10);
}

#[tokio::test]
async fn a_removal_during_a_batch_fences_its_key_only() {
    let world = world(plain());
    with_rows(&world, 0..3);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let batch = tokio::spawn(async move { users.get_or_load_many(&keys(0..3)).await.len() });
    gate.wait_for_arrivals(1).await;
    world.users.remove(&"user-1".to_owned()).await.expect("memory does not fail");
    gate.open();
    batch.await.expect("no panic");
    let kept: Vec<_> =
        keys(0..3).iter().map(|key| world.users.get_memory(key.as_str()).is_some()).collect();
    assert_eq!(kept, [true, false, true]);
}

#[tokio::test]
async fn an_origin_without_batches_is_asked_key_by_key_side_by_side() {
    let origin = FaultyOrigin::new().with_rows((0..20).map(|n| (format!("user-{n}"), n)));
    let gate = Gate::new();
    origin.script((0..20).map(|_| Answer::Truth.held_at(&gate)));
    let world = world_with(plain(), |builder| builder.origin(origin.clone()));
    let users = world.users.clone();
    let batch = tokio::spawn(async move { users.get_or_load_many(&keys(0..20)).await.len() });
    gate.wait_for_arrivals(20).await;
    gate.open();
    assert_eq!(batch.await.expect("no panic"), 20);
    assert_eq!(origin.calls_count(), 20);
}

#[tokio::test]
async fn no_keys_are_no_call() {
    let world = world(plain());
    assert!(world.users.get_or_load_many(&[]).await.is_empty());
    assert_eq!(world.origin.calls_count(), 0);
}

#[tokio::test]
async fn a_batch_waits_for_the_soft_timeout_once_and_not_for_each_key() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    with_rows(&world, 0..10);
    values(&world, &keys(0..10)).await;
    world.clock.advance(MINUTE);
    world.origin.script([Answer::Hang]);
    let users = world.users.clone();
    let batch = tokio::spawn(async move { users.get_or_load_many(&keys(0..10)).await });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    world.advance_past_sleepers(3, Duration::from_millis(200)).await;
    let answers = batch.await.expect("no panic");
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|hit| !hit.is_fresh())));
}

/// Panics when it is first asked how many keys it takes at once.
struct PanicsOnce(AtomicBool);

impl Origin<String, i64> for PanicsOnce {
    async fn load(&self, _: &String, _: &LoadContext) -> Result<Loaded<i64>> {
        Ok(Loaded::value(1))
    }

    fn batch_limit(&self) -> usize {
        assert!(self.0.swap(true, Ordering::Relaxed), "scripted");
        1
    }
}

#[tokio::test]
async fn an_origin_that_panics_about_its_batch_limit_leaves_no_key_stuck() {
    let origin = PanicsOnce(AtomicBool::new(false));
    let users = Cache::<String, i64>::builder("user")
        .origin(origin)
        .policy(plain())
        .build()
        .expect("coherent");
    let asking = users.clone();
    let batch = tokio::spawn(async move { asking.get_or_load_many(&[ann()]).await.len() });
    assert!(batch.await.is_err_and(|error| error.is_panic()));
    let hit = users.get_or_load(&ann()).await.expect("no flight was left behind");
    assert_eq!(hit.into_value(), Some(1));
}

#[tokio::test]
async fn a_thousand_stale_keys_are_refreshed_by_one_call() {
    for policy in [plain().stale_while_revalidate(MINUTE), plain().refresh_ahead(0.5)] {
        let world = world(policy);
        with_rows(&world, 0..2500);
        values(&world, &keys(0..2500)).await;
        assert_eq!(world.origin.calls_count(), 3);
        let stale = !world.users.policy().stale_window().is_zero();
        world.clock.advance(if stale { MINUTE } else { MINUTE - SECOND });
        values(&world, &keys(0..2500)).await;
        world.settle("it is refreshed", |world| world.origin.calls_count() >= 6).await;
        for _ in 0..3000 {
            tokio::task::yield_now().await;
        }
        let calls = world.origin.calls();
        let sizes: Vec<_> = calls[3..].iter().map(|call| call.keys.len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        assert_eq!(world.users.statistics().refreshes, 2500);
    }
}

#[tokio::test]
async fn keys_that_were_joined_and_then_invalidated_are_loaded_anew_together() {
    let world = world(plain());
    with_rows(&world, 0..100);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let batch = || {
        let users = world.users.clone();
        tokio::spawn(async move { users.get_or_load_many(&keys(0..100)).await.len() })
    };
    let one = batch();
    gate.wait_for_arrivals(1).await;
    let two = batch();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    world.users.clear().await.expect("memory does not fail");
    gate.open();
    assert_eq!(one.await.expect("no panic") + two.await.expect("no panic"), 200);
    assert_eq!(world.origin.calls_count(), 2, "one call for each batch");
}

#[tokio::test]
async fn a_rule_that_panics_for_one_key_fails_no_other() {
    let rule = |key: &String, _: Option<&i64>| {
        assert_ne!(key, "user-3", "and its row is 4711");
        larder::Tags::NONE
    };
    let world = world_with(plain(), |builder| builder.tag_rule(rule));
    with_rows(&world, 0..10);
    let answers = world.users.get_or_load_many(&keys(0..10)).await;
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), index == 3, "{answer:?}");
    }
    let error = answers[3].as_ref().expect_err("its rule panicked");
    assert_eq!(error.kind(), larder::ErrorKind::Panicked);
    assert!(!error.to_string().contains("4711"), "what a panic says may hold a row: {error}");
    assert_eq!(world.users.statistics().loads_in_flight, 0);
}
