//! One event for each exit, and counters that agree with them.

use larder::{Cache, EventKind, Memory, RemovalCause, StaleReason};
use larder_testkit::faulty::Answer;

use crate::support::*;

#[tokio::test]
async fn every_read_ends_in_exactly_one_event() {
    let world = world(plain().stale_if_error(MINUTE));
    let mut events = world.users.events();
    world.read().await;
    world.read().await;
    world.clock.advance(MINUTE);
    world.origin.script([Answer::unavailable()]);
    world.read().await;
    let _ = world.users.get(&"nobody".to_owned()).await;
    drop(world.users.get_or_load(&"bob".to_owned()).await);

    let mut seen = Vec::new();
    while seen.len() < 8 {
        let event = events.next().await.expect("the cache is there").expect("nothing was lost");
        seen.push(event.kind);
    }
    let age = MINUTE;
    let cost = std::time::Duration::ZERO;
    assert_eq!(
        seen,
        [
            EventKind::Loaded { cost },
            EventKind::Answered,
            EventKind::Hit,
            EventKind::LoadFailed(larder::ErrorKind::Unavailable),
            EventKind::Stale { age, reason: StaleReason::OriginFailed },
            EventKind::Missed,
            EventKind::Loaded { cost },
            EventKind::Answered,
        ]
    );
    let statistics = world.users.statistics();
    assert_eq!(statistics.requests(), 5);
    assert_eq!(statistics.hit_ratio(), Some(2.0 / 5.0));
}

#[tokio::test]
async fn what_leaves_memory_says_why() {
    let clock = larder::ManualClock::new();
    let users = Cache::<String, i64>::builder("user")
        .memory(Memory::entries(8))
        .policy(plain())
        .clock(clock.clone())
        .build()
        .expect("coherent");
    let mut events = users.events();
    let mut left = async || loop {
        let event = events.next().await.expect("open").expect("nothing lost");
        if let EventKind::LeftMemory(cause) = event.kind {
            return (event.key.expect("an entry has a key"), cause);
        }
    };
    users.put(&ann(), 1).await.expect("put");
    users.put(&ann(), 2).await.expect("put");
    assert_eq!(left().await, (ann(), RemovalCause::Replaced));
    users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    assert_eq!(left().await, (ann(), RemovalCause::Removed));
    users.put(&ann(), 1).tags(["people"]).await.expect("put");
    users.remove_tag("people").await.expect("memory does not fail");
    assert!(users.get_memory("ann").is_none());
    assert_eq!(left().await, (ann(), RemovalCause::Tag));
    users.put(&ann(), 1).await.expect("put");
    users.clear().await.expect("memory does not fail");
    assert!(users.get_memory("ann").is_none());
    assert_eq!(left().await, (ann(), RemovalCause::Cleared));
    users.put(&ann(), 1).await.expect("put");
    clock.advance(MINUTE + SECOND);
    // The upkeep reclaims what nobody asks for.
    assert_eq!(left().await, (ann(), RemovalCause::Expired));
    for number in 0..100 {
        users.put(&format!("user-{number}"), number).await.expect("put");
    }
    assert_eq!(left().await.1, RemovalCause::Evicted);
}
