//! The origin is worked no harder than its load budget says (R7).

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use larder::{
    Breaker, BreakerState, Cache, ErrorKind, EventKind, LoadBudget, OriginGuard, StaleReason,
};
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

fn world_under(budget: LoadBudget, policy: larder::Policy) -> World {
    let guard = OriginGuard::new("db", Breaker::default().failures(1), budget);
    world_with(policy, |builder| builder.origin_guard(guard))
}

#[tokio::test]
async fn nobody_waits_in_line_for_the_refusal_of_an_open_breaker() {
    let world = world_under(LoadBudget::concurrent(10).per_second(1), plain());
    world.origin.script([Answer::unavailable()]);
    assert!(world.users.get_or_load(&ann()).await.is_err());
    assert_eq!(world.users.origin_health(), BreakerState::Open);
    // The second's one load is spent, and no time passes.
    let error = world.users.get_or_load(&ann()).await.expect_err("it is not asked");
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
}

#[tokio::test]
async fn time_spent_in_our_own_line_does_not_open_the_breaker() {
    let world = world_under(LoadBudget::concurrent(5), plain());
    // Each load takes three of the five seconds of the hard timeout: those that
    // wait for a place first are cut short, and the origin is healthy.
    world.origin.script((0..10).map(|_| Answer::Truth.after(&world.clock, SECOND * 3)));
    let readers: Vec<_> = (0..10)
        .map(|number| {
            let users = world.users.clone();
            tokio::spawn(
                async move { users.get_or_load(&format!("user-{number}")).await.map(|_| ()) },
            )
        })
        .collect();
    for _ in 0..60 {
        for _ in 0..30 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(SECOND / 10);
    }
    let mut failed = 0;
    for reader in readers {
        failed += usize::from(reader.await.expect("no panic").is_err());
    }
    assert_eq!(failed, 5, "the second five had two seconds");
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
}

/// A world whose one place is taken by a load that waits at the gate, with `ann`
/// in memory since the clock's start.
async fn busy(policy: larder::Policy) -> (World, Gate) {
    let world = world_under(LoadBudget::concurrent(1), policy.hard_timeout(MINUTE * 60));
    world.read().await;
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    tokio::spawn(async move { users.get_or_load(&"bob".to_owned()).await.map(|_| ()) });
    gate.wait_for_arrivals(1).await;
    (world, gate)
}

#[tokio::test]
async fn a_reader_waits_for_a_place_although_a_refresh_found_none() {
    let (world, gate) = busy(plain().refresh_ahead(0.8)).await;
    world.clock.advance(SECOND * 59);
    assert!(world.users.get_memory("ann").is_some_and(|hit| hit.is_fresh()), "a refresh is due");
    world.clock.advance(SECOND);
    // Before the refresh, had one begun, could have run.
    let key = ann();
    let mut reading = world.users.get_or_load(&key).into_future();
    assert!((&mut reading).now_or_never().is_none());
    gate.open();
    assert_eq!(reading.await.expect("it waited for its place").into_value(), Some(1));
}

#[tokio::test]
async fn a_refresh_takes_a_place_at_once_or_is_skipped_with_its_key() {
    let ahead = (plain().refresh_ahead(0.8), SECOND * 50, None);
    let behind =
        (plain().stale_while_revalidate(MINUTE), SECOND * 61, Some(StaleReason::OriginFailed));
    for (policy, age, reason) in [ahead, behind] {
        let (world, gate) = busy(policy).await;
        world.clock.advance(age);
        let mut events = world.users.events();
        assert_eq!(stale_reason(&world.hit().await), reason);
        let event = events.next().await.expect("open").expect("nothing lost");
        assert_eq!((event.kind, event.key), (EventKind::RefreshSkipped, Some(ann())));
        let statistics = world.users.statistics();
        assert_eq!((statistics.refreshes, statistics.refreshes_skipped), (0, 1));
        assert_eq!((statistics.load_failures, statistics.loads_in_flight), (0, 1));
        gate.open();
        world.settle("the place is free", |world| world.origin.running() == 0).await;
        world.settle("it ended", |world| world.users.statistics().loads_in_flight == 0).await;
        world.read().await;
        assert_eq!(world.users.statistics().refreshes, 1);
    }
}

#[tokio::test]
async fn no_loads_a_second_are_refused_and_not_unlimited() {
    let guard = OriginGuard::new("db", Breaker::default(), LoadBudget::default().per_second(0));
    let built = Cache::<String, i64>::builder("user").origin_guard(guard).build();
    let error = built.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("per_second") && error.remedy_text().is_some(), "{error}");
}

#[tokio::test]
async fn the_rate_goes_by_the_clock_of_the_cache() {
    let world = world_under(LoadBudget::concurrent(4).per_second(1), plain());
    world.read().await;
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    let key = ann();
    let mut reading = world.users.get_or_load(&key).into_future();
    assert!((&mut reading).now_or_never().is_none());
    // The upkeep, the rate and the reader; the line's deadline too.
    world.advance_past_sleepers(4, SECOND).await;
    assert_eq!(reading.await.expect("its second has come").into_value(), Some(1));
}

#[tokio::test]
async fn who_waits_for_the_rate_takes_turns_and_no_place() {
    let budget = LoadBudget::concurrent(1000).per_second(10);
    let world = world_under(budget, plain().hard_timeout(MINUTE));
    let order = Arc::new(Mutex::new(Vec::new()));
    let readers: Vec<_> = (0..30)
        .map(|number| {
            let (users, order) = (world.users.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                users.get_or_load(&format!("user-{number}")).await.expect("answered");
                order.lock().expect("no panic").push(number);
            })
        })
        .collect();
    world.settle("the burst is over", |world| world.origin.calls_count() == 10).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.users.origin_guard().loads_running(), 0, "nothing is at the origin");
    for waiting in (0..20).rev() {
        world.clock.advance(SECOND / 10);
        world.settle("one more", |world| world.origin.calls_count() == 30 - waiting).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.origin.calls_count(), 30 - waiting, "and only one");
    }
    for reader in readers {
        reader.await.expect("no panic");
    }
    assert!(order.lock().expect("no panic").is_sorted());
}

#[tokio::test]
async fn who_gives_up_in_line_leaves_the_rate_to_others() {
    let world = world_under(LoadBudget::concurrent(4).per_second(1), plain());
    world.read().await;
    let readers: Vec<_> = (0..100)
        .map(|number| {
            let users = world.users.clone();
            tokio::spawn(
                async move { users.get_or_load(&format!("user-{number}")).await.map(|_| ()) },
            )
        })
        .collect();
    world.settle("they wait", |world| world.clock.sleepers_count() > 200).await;
    world.clock.advance(SECOND * 5);
    for reader in readers {
        let _ = reader.await.expect("no panic");
    }
    let left = |world: &World| world.users.statistics().loads_in_flight == 0;
    world.settle("all have left the line", left).await;
    world.clock.advance(SECOND);
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    assert_eq!(world.read().await, Some(1), "no hundred seconds of theirs are left to wait for");
}
