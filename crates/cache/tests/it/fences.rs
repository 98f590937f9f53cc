//! An invalidation or a write during a load wins over the load. Every
//! interleaving is explored in `tests/shuttle.rs`; these are the plain cases,
//! each by name.

use futures_util::FutureExt;
use larder::ManualClock;
use larder_testkit::faulty::{Answer, Gate};

use crate::support::*;

/// Begins a load that has read the old row, runs `act`, changes the row, and
/// lets the load finish. Returns what the load's own reader got.
async fn during_a_load(world: &World, act: impl AsyncFnOnce()) -> Option<i64> {
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let reader = tokio::spawn(async move {
        let key = ann();
        let hit = users.get_or_load(&key).tags(["people"]).await.expect("it is answered");
        hit.into_value()
    });
    gate.wait_for_arrivals(1).await;
    world.origin.set(ann(), 2);
    act().await;
    gate.open();
    reader.await.expect("no panic")
}

#[tokio::test]
async fn a_removal_during_a_load_wins() {
    let world = world(plain());
    let old = during_a_load(&world, async || {
        assert!(!world.users.remove(&"ann".to_owned()).await.expect("memory does not fail"));
    })
    .await;
    assert_eq!(old, Some(1), "its reader began before the removal");
    assert!(world.users.get_memory("ann").is_none(), "the old row must not be kept");
    assert_eq!(world.read().await, Some(2));
    assert_eq!(world.users.statistics().fills_fenced, 1);
}

#[tokio::test]
async fn a_reader_after_the_removal_does_not_join_the_old_load() {
    let world = world(plain());
    let old = during_a_load(&world, async || {
        world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
        assert_eq!(world.read().await, Some(2), "the old load is still held back");
    })
    .await;
    assert_eq!(old, Some(1));
    assert_eq!(world.read().await, Some(2), "and its answer did not overwrite the new one");
    assert_eq!(world.loads(), 2);
}

#[tokio::test]
async fn a_put_during_a_load_wins() {
    let world = world(plain());
    during_a_load(&world, async || {
        world.users.put(&ann(), 3).await.expect("it is put");
    })
    .await;
    assert_eq!(world.read().await, Some(3));
}

#[tokio::test]
async fn an_expiry_during_a_load_wins() {
    let world = world(plain());
    during_a_load(&world, async || {
        world.users.expire(&"ann".to_owned()).await.expect("memory does not fail");
    })
    .await;
    assert_eq!(world.read().await, Some(2));
}

#[tokio::test]
async fn a_tag_removed_during_a_load_wins_although_no_entry_had_it_yet() {
    let world = world(plain());
    during_a_load(&world, async || {
        world.users.remove_tag("people").await.expect("memory does not fail");
    })
    .await;
    assert!(world.users.get_memory("ann").is_none());
    assert_eq!(world.users.statistics().fills_fenced, 1);
    assert_eq!(world.read().await, Some(2));
}

#[tokio::test]
async fn a_reader_after_the_tags_removal_is_not_answered_by_the_old_load() {
    let world = world(plain());
    let late = during_a_load(&world, async || {
        world.users.remove_tag("people").await.expect("memory does not fail");
        let users = world.users.clone();
        let late = tokio::spawn(async move {
            users.get_or_load(&ann()).tags(["people"]).await.map(|hit| hit.into_value())
        });
        // It joins the load that is held back.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        LATE.with(|slot| *slot.borrow_mut() = Some(late));
    })
    .await;
    assert_eq!(late, Some(1), "the first reader began before");
    let late = LATE.with(|slot| slot.borrow_mut().take()).expect("the late reader was started");
    assert_eq!(late.await.expect("no panic").expect("answered"), Some(2));
}

type Late = tokio::task::JoinHandle<larder::Result<Option<i64>>>;

thread_local! {
    static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
}

#[tokio::test]
async fn a_clear_during_a_load_wins() {
    let world = world(plain());
    during_a_load(&world, async || {
        world.users.clear().await.expect("memory does not fail");
    })
    .await;
    assert!(world.users.get_memory("ann").is_none());
    assert_eq!(world.users.statistics().fills_fenced, 1);
    assert_eq!(world.read().await, Some(2));
}

#[tokio::test]
async fn a_removal_during_a_background_refresh_wins() {
    let world = world(plain().stale_while_revalidate(MINUTE));
    assert_eq!(world.read().await, Some(1));
    world.clock.advance(MINUTE + SECOND);
    let gate = Gate::new();
    world.origin.script([Answer::Truth.held_at(&gate)]);
    assert_eq!(world.read().await, Some(1), "stale while it is refreshed");
    gate.wait_for_arrivals(1).await;
    world.origin.set(ann(), 2);
    assert!(world.users.remove(&"ann".to_owned()).await.expect("memory does not fail"));
    gate.open();
    world.settle("the refresh ended", |world| world.users.statistics().loads_in_flight == 0).await;
    assert!(world.users.get_memory("ann").is_none());
    assert_eq!(world.read().await, Some(2));
}

#[tokio::test]
async fn not_modified_does_not_bring_back_what_was_removed_as_its_refresh_began() {
    let clock = ManualClock::new();
    let users = hooked(plain().stale_while_revalidate(MINUTE), &clock);
    let key = HookedKey(1);
    users.put(&key, 1).tags(["people"]).await.expect("put");
    clock.advance(MINUTE);
    let remover = users.clone();
    // The first hashing looks into memory, the second boards the refresh.
    after_hashings(1, move || {
        remover.remove_tag("people").now_or_never().expect("no wait").expect("removed");
    });
    assert!(users.get_memory(&key).is_some(), "looked at before it was removed");
    assert!(hook_has_run());
    while users.statistics().loads_in_flight > 0 {
        tokio::task::yield_now().await;
    }
    let hit = users.get_memory(&key);
    assert_ne!(hit.and_then(|hit| hit.into_value()), Some(1));
}
