//! One load for each key, whoever asks, whatever becomes of them (R1).

use larder::{Breaker, ErrorKind, LoadBudget, Loaded, OriginGuard, Tier};
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

#[tokio::test]
async fn a_thousand_readers_of_a_cold_key_cost_one_load() {
    let world = world(plain());
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let users = world.users.clone();
            tokio::spawn(async move { users.get_or_load(&ann()).await.map(|hit| hit.into_value()) })
        })
        .collect();
    gate.wait_for_arrivals(1).await;
    gate.open();
    for reader in readers {
        let value = reader.await.expect("no reader panics").expect("it is answered");
        assert_eq!(value, Some(1));
    }
    assert_eq!(world.loads(), 1);
    let statistics = world.users.statistics();
    assert_eq!(statistics.loads, 1);
    assert_eq!(statistics.load_answers, 1);
    assert_eq!(statistics.requests(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_many_threads_cost_one_load() {
    for round in 0..200 {
        let world = world(plain());
        let readers: Vec<_> = (0..16)
            .map(|_| {
                let users = world.users.clone();
                tokio::spawn(
                    async move { users.get_or_load(&ann()).await.map(|hit| hit.into_value()) },
                )
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.await.expect("no panic").expect("answered"), Some(1));
        }
        assert_eq!(world.loads(), 1, "in round {round}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_take_the_load_along() {
    let world = world(plain());
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let impatient = tokio::spawn(async move { users.get_or_load(&ann()).await.is_ok() });
    gate.wait_for_arrivals(1).await;
    impatient.abort();
    assert!(impatient.await.expect_err("it was aborted").is_cancelled());
    gate.open();
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.loads(), 1);
}

#[tokio::test]
async fn a_loader_that_panics_leaves_no_key_stuck() {
    let world = world(plain());
    world.origin.script([Answer::Panic]);
    let error = world.users.get_or_load(&ann()).await.expect_err("the loader panicked");
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.users.statistics().load_panics, 1);
    assert_eq!(world.users.statistics().loads_in_flight, 0);
}

#[tokio::test]
async fn a_loader_that_hangs_is_cancelled_at_the_hard_timeout() {
    let world = world(plain());
    world.origin.script([Answer::Hang]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.map(|_| ()) });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    // The upkeep, the load's timeout and the reader's.
    world.advance_past_sleepers(3, SECOND * 5).await;
    let error = reader.await.expect("no panic").expect_err("it timed out");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    world.settle("the loader was dropped", |world| world.origin.dropped_count() == 1).await;
    assert_eq!(world.read().await, Some(1));
}

#[tokio::test]
async fn a_callers_deadline_ends_its_wait_and_not_the_load() {
    let world = world(plain());
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let hurried =
        tokio::spawn(async move { users.get_or_load(&ann()).deadline(SECOND).await.map(|_| ()) });
    gate.wait_for_arrivals(1).await;
    world.advance_past_sleepers(3, SECOND).await;
    let error = hurried.await.expect("no panic").expect_err("its time was up");
    assert!(error.message().contains("caller's deadline"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(world.origin.dropped_count(), 0);
    gate.open();
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.loads(), 1);
}

#[tokio::test]
async fn an_error_is_shared_by_everyone_who_waited_and_kept_by_nobody() {
    let world = world(plain());
    let gate = Gate::new();
    world.origin.script([Answer::unavailable().held_at(&gate)]);
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let users = world.users.clone();
            tokio::spawn(async move { users.get_or_load(&ann()).await.map(|_| ()) })
        })
        .collect();
    gate.wait_for_arrivals(1).await;
    // All must wait before the gate opens, or a late one would load anew.
    tokio::task::yield_now().await;
    gate.open();
    for reader in readers {
        let error = reader.await.expect("no panic").expect_err("the load failed");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert_eq!(world.loads(), 1);
    assert_eq!(world.read().await, Some(1));
}

#[tokio::test]
async fn a_loader_of_the_callers_runs_once_and_only_on_a_miss() {
    let world = world(plain());
    let key = "bob".to_owned();
    let hit = world
        .users
        .get_or_load_with(&key, || async {
            Ok::<_, std::io::Error>(Loaded::value(7).tags(["team"]))
        })
        .await
        .expect("it is answered");
    assert_eq!((hit.value(), hit.tier()), (Some(&7), Tier::Origin));
    let never = || async { Err::<i64, _>(std::io::Error::other("it must not run")) };
    let hit = world.users.get_or_load_with(&key, never).await.expect("it is in memory");
    assert_eq!((hit.value(), hit.tier()), (Some(&7), Tier::Memory));
    world.users.remove_tag("team").await.expect("memory does not fail");
    let error = world.users.get_or_load_with(&key, never).await.expect_err("now it runs");
    assert!(error.downcast_ref::<std::io::Error>().is_some(), "{error}");
    assert_eq!(world.origin.calls_count(), 0);
}

#[tokio::test]
async fn the_load_budget_bounds_how_many_loads_run_at_once() {
    let budget = LoadBudget::concurrent(3);
    let guard = OriginGuard::new("db", Breaker::default(), budget);
    let world = world_with(plain(), |builder| builder.origin_guard(guard));
    let gate = Gate::new();
    world.origin.script((0..20).map(|_| Answer::Truth.held_at(&gate)));
    let readers: Vec<_> = (0..20)
        .map(|number| {
            let users = world.users.clone();
            tokio::spawn(
                async move { users.get_or_load(&format!("user-{number}")).await.map(|_| ()) },
            )
        })
        .collect();
    gate.wait_for_arrivals(3).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.arrivals(), 3);
    gate.open();
    for reader in readers {
        reader.await.expect("no panic").expect("it got its turn");
    }
    assert_eq!(world.origin.running_most(), 3);
}
