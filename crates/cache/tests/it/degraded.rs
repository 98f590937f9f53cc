//! What readers get when the origin fails or is slow (R4, R5, R8).

use larder::{
    Breaker, BreakerState, Cache, Error, ErrorKind, Freshness, LoadBudget, LoadContext, Loaded,
    Origin, OriginGuard, Result, StaleReason, Tier,
};
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

fn failing(world: &World, times: usize) {
    world.origin.script((0..times).map(|_| Answer::unavailable()));
}

#[tokio::test]
async fn stale_stands_in_for_a_failing_origin_within_its_cap() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    world.read().await;
    world.clock.advance(MINUTE * 11 - SECOND);
    failing(&world, 2);
    let hit = world.hit().await;
    assert_eq!(stale_reason(&hit), Some(StaleReason::OriginFailed));
    assert_eq!((hit.tier(), hit.value()), (Tier::Memory, Some(&1)));
    world.clock.advance(SECOND);
    let error = world.users.get_or_load(&ann()).await.expect_err("the cap has passed");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.context().any(|(name, value)| (name, value) == ("cache", "user")), "{error}");
}

#[tokio::test]
async fn what_was_removed_while_the_origin_failed_is_not_served_stale() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    world.read().await;
    world.clock.advance(MINUTE);
    let gate = Gate::new();
    world.origin.script([Answer::unavailable().held_at(&gate)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.map(|_| ()) });
    gate.wait_for_arrivals(1).await;
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    gate.open();
    assert!(reader.await.expect("no panic").is_err());
}

#[tokio::test]
async fn the_fallback_stands_in_when_nothing_stale_is_there() {
    let world = world_with(plain(), |builder| builder.fallback(|key| (key == "ann").then_some(-1)));
    failing(&world, 3);
    let hit = world.hit().await;
    assert_eq!((hit.freshness(), hit.tier()), (Freshness::Fallback, Tier::Fallback));
    assert_eq!(hit.value(), Some(&-1));
    assert!(world.users.get_or_load(&"bob".to_owned()).await.is_err(), "it has none for bob");
    assert!(world.users.get_memory("ann").is_none(), "a fallback is not kept");
    world.origin.clear_script();
    assert_eq!(world.read().await, Some(1));
}

#[tokio::test]
async fn a_slow_origin_costs_a_reader_the_soft_timeout_and_the_load_goes_on() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    world.read().await;
    world.origin.set(ann(), 2);
    world.clock.advance(MINUTE);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.expect("answered") });
    gate.wait_for_arrivals(1).await;
    // The upkeep, the load's timeout and the reader's soft one.
    world.advance_past_sleepers(3, std::time::Duration::from_millis(200)).await;
    let hit = reader.await.expect("no panic");
    assert_eq!(stale_reason(&hit), Some(StaleReason::SoftTimeout));
    assert_eq!(hit.value(), Some(&1));
    gate.open();
    world.settle("the load landed", |world| world.users.statistics().loads_in_flight == 0).await;
    assert_eq!(world.read().await, Some(2));
    assert_eq!(world.loads(), 2);
}

#[tokio::test]
async fn without_anything_stale_there_is_no_soft_timeout() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.expect("answered") });
    gate.wait_for_arrivals(1).await;
    world.advance_past_sleepers(3, SECOND).await;
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    gate.open();
    assert_eq!(reader.await.expect("no panic").into_value(), Some(1));
}

#[tokio::test]
async fn the_breaker_opens_half_opens_and_closes_and_the_origin_is_spared() {
    let guard = OriginGuard::new("db", Breaker::default(), LoadBudget::default());
    let world = world_with(plain(), |builder| builder.origin_guard(guard));
    failing(&world, 6);
    for number in 0..5 {
        assert_eq!(world.users.origin_health(), BreakerState::Closed, "before failure {number}");
        assert!(world.users.get_or_load(&ann()).await.is_err());
    }
    assert_eq!(world.users.origin_health(), BreakerState::Open);
    for _ in 0..100 {
        let error = world.users.get_or_load(&ann()).await.expect_err("it is not asked");
        assert_eq!(error.kind(), ErrorKind::BreakerOpen);
    }
    assert_eq!(world.loads(), 5);

    world.clock.advance(MINUTE);
    assert_eq!(world.users.origin_health(), BreakerState::HalfOpen);
    assert!(world.users.get_or_load(&ann()).await.is_err(), "the probe fails");
    assert_eq!(world.users.origin_health(), BreakerState::Open);
    world.clock.advance(MINUTE);
    assert_eq!(world.read().await, Some(1), "the next one does not");
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
    assert_eq!(world.loads(), 7);
    assert_eq!(world.users.statistics().loads_refused_by_breaker, 100);
}

#[tokio::test]
async fn a_refusal_for_good_does_not_open_the_breaker() {
    let world = world(plain());
    let refusal = || larder::Error::new(ErrorKind::OriginFailed, "no such table");
    world.origin.script((0..20).map(|_| Answer::Fail(refusal())));
    for _ in 0..20 {
        let error = world.users.get_or_load(&ann()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::OriginFailed);
    }
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
}

#[tokio::test]
async fn a_full_line_of_ours_says_nothing_about_the_origin() {
    let world = world(plain());
    let full = || Answer::Fail(larder::Error::new(ErrorKind::Overloaded, "no connection is free"));
    world.origin.script((0..20).map(|_| full()));
    for _ in 0..20 {
        assert!(world.users.get_or_load(&ann()).await.is_err());
    }
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
    failing(&world, 4);
    for _ in 0..4 {
        assert!(world.users.get_or_load(&ann()).await.is_err());
    }
    world.origin.script([full(), Answer::unavailable()]);
    assert!(world.users.get_or_load(&ann()).await.is_err());
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
    assert!(world.users.get_or_load(&ann()).await.is_err(), "the fifth in a row");
    assert_eq!(world.users.origin_health(), BreakerState::Open);
}

#[tokio::test]
async fn caches_of_one_origin_share_its_breaker() {
    let guard = OriginGuard::new("db", Breaker::default().failures(1), LoadBudget::default());
    let clock = larder::ManualClock::new();
    let one = world_with(plain(), |b| b.origin_guard(guard.clone()).clock(clock.clone()));
    let two = world_with(plain(), |b| b.origin_guard(guard.clone()).clock(clock.clone()));
    failing(&one, 1);
    assert!(one.users.get_or_load(&ann()).await.is_err());
    let error = two.users.get_or_load(&ann()).await.expect_err("the shared breaker is open");
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
}

#[tokio::test]
async fn a_refresh_is_not_even_tried_while_the_breaker_is_open() {
    let guard = OriginGuard::new("db", Breaker::default().failures(1), LoadBudget::default());
    let policy = plain().stale_while_revalidate(MINUTE * 5);
    let world = world_with(policy, |builder| builder.origin_guard(guard));
    world.read().await;
    failing(&world, 1);
    assert!(world.users.get_or_load(&"bob".to_owned()).await.is_err());
    world.clock.advance(MINUTE + SECOND);
    world.settle("still open?", |_| true).await;
    // Opened a minute ago: half-open now, so keep it open by one more failure.
    failing(&world, 1);
    let _ = world.users.get_or_load(&"bob".to_owned()).await;
    let loads = world.origin.calls_count();
    assert_eq!(stale_reason(&world.hit().await), Some(StaleReason::OriginFailed));
    assert_eq!(world.origin.calls_count(), loads);
    assert_eq!(world.users.statistics().refreshes_skipped, 1);
}

/// Cannot answer any key of a batch; refuses the first of them for good.
struct Mixed;

impl Origin<String, i64> for Mixed {
    async fn load(&self, _: &String, _: &LoadContext) -> Result<Loaded<i64>> {
        Err(Error::new(ErrorKind::OriginFailed, "scripted"))
    }

    async fn load_many(&self, keys: &[String], _: &LoadContext) -> Vec<Result<Loaded<i64>>> {
        let kind =
            |index| if index == 0 { ErrorKind::OriginFailed } else { ErrorKind::Unavailable };
        (0..keys.len()).map(|index| Err(Error::new(kind(index), "scripted"))).collect()
    }

    fn batch_limit(&self) -> usize {
        1000
    }
}

#[tokio::test]
async fn a_batch_without_one_answer_is_judged_by_its_worst_error() {
    let guard = OriginGuard::new("db", Breaker::default().failures(1), LoadBudget::default());
    let users = Cache::<String, i64>::builder("user")
        .origin(Mixed)
        .origin_guard(guard)
        .policy(plain())
        .build()
        .expect("coherent");
    let keys: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    users.get_or_load_many(&keys).await;
    assert_eq!(users.origin_health(), BreakerState::Open);
}

#[tokio::test]
async fn a_loaders_own_timeouts_and_refusals_are_not_counted_as_ours() {
    let world = world(plain());
    for kind in [ErrorKind::BreakerOpen, ErrorKind::Timeout, ErrorKind::Panicked] {
        world.origin.script([Answer::Fail(Error::new(kind, "says another cache behind"))]);
        assert!(world.users.get_or_load(&ann()).await.is_err());
    }
    let statistics = world.users.statistics();
    assert_eq!(statistics.load_failures, 3);
    assert_eq!(statistics.loads_refused_by_breaker, 0);
    assert_eq!((statistics.load_timeouts, statistics.load_panics), (0, 0));
}

/// Five loaders that callers bring along fail.
async fn five_fail(users: &Cache<String, i64>) {
    for number in 0..5 {
        let fail = || async { Err::<i64, _>(std::io::Error::other("scripted")) };
        assert!(users.get_or_load_with(&format!("user-{number}"), fail).await.is_err());
    }
}

#[tokio::test]
async fn loaders_that_callers_bring_have_a_breaker_only_if_it_was_declared() {
    let builder = || Cache::<String, i64>::builder("user").policy(plain());
    let users = builder().build().expect("coherent");
    five_fail(&users).await;
    let load = || async { Ok::<_, std::io::Error>(1) };
    assert!(users.get_or_load_with(&ann(), load).await.is_ok(), "another loader is healthy");

    let guard = OriginGuard::new("api", Breaker::default(), LoadBudget::default());
    let users = builder().origin_guard(guard).build().expect("coherent");
    five_fail(&users).await;
    let error = users.get_or_load_with(&ann(), load).await.expect_err("they share an API");
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
}
