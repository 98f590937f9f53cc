//! Shutting down waits for what runs and begins nothing new (R10).

use futures_util::FutureExt;
use larder::{ErrorKind, ManualClock, StaleReason};
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

#[tokio::test]
async fn shutdown_waits_for_loads_and_refuses_new_ones() {
    let world = world(plain());
    world.read().await;
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let reader =
        tokio::spawn(async move { users.get_or_load(&"bob".to_owned()).await.map(|_| ()) });
    gate.wait_for_arrivals(1).await;
    let users = world.users.clone();
    let shutdown = tokio::spawn(async move { users.shutdown(MINUTE).await });
    world.settle("it is closing", |world| world.clock.sleepers_count() >= 4).await;
    assert!(!shutdown.is_finished());

    let error = world.users.get_or_load(&"eve".to_owned()).await.expect_err("no new loads");
    assert_eq!(error.kind(), ErrorKind::ShuttingDown);
    assert_eq!(world.read().await, Some(1), "memory still answers");
    gate.open();
    reader.await.expect("no panic").expect("the running load is not lost");
    assert!(shutdown.await.expect("no panic"));
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_its_patience() {
    let world = world(plain().hard_timeout(MINUTE));
    world.origin.script([Answer::Hang]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await.map(|_| ()) });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    let users = world.users.clone();
    let shutdown = tokio::spawn(async move { users.shutdown(SECOND).await });
    world.advance_past_sleepers(4, SECOND).await;
    assert!(!shutdown.await.expect("no panic"));
    reader.abort();
}

#[tokio::test]
async fn no_load_begins_after_shutdown_said_that_all_ended() {
    let users = hooked(plain(), &ManualClock::new());
    let closing = users.clone();
    // The first hashing looks into memory, the second boards the flight.
    after_hashings(1, move || {
        let ended = closing.shutdown(MINUTE).now_or_never();
        assert_eq!(ended, Some(true));
    });
    let error = users.get_or_load(&HookedKey(1)).await.expect_err("it is shut");
    assert!(hook_has_run());
    assert_eq!(error.kind(), ErrorKind::ShuttingDown);
}

#[tokio::test]
async fn nothing_is_said_to_be_refreshed_once_the_cache_is_shut() {
    let world = world(plain().stale_while_revalidate(MINUTE));
    world.read().await;
    assert!(world.users.shutdown(SECOND).await);
    world.clock.advance(MINUTE);
    assert_eq!(stale_reason(&world.hit().await), Some(StaleReason::OriginFailed));
    assert_eq!(world.loads(), 1);
}
