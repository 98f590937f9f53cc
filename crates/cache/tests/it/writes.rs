//! Putting, expiring and removing single keys, and what they say about it.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use larder::{Cache, Class, EventKind, Loaded, ManualClock};
use larder_testkit::faulty::Answer;

use crate::support::*;

/// A value whose drop removes its own key from its cache.
#[derive(Clone)]
struct Meddler(#[allow(dead_code, reason = "only dropped")] Arc<Meddling>);

#[derive(Default)]
struct Meddling(Mutex<Option<Cache<String, Meddler>>>);

impl Drop for Meddling {
    fn drop(&mut self) {
        if let Some(cache) = self.0.lock().ok().and_then(|mut slot| slot.take()) {
            cache
                .remove(&"ann".to_owned())
                .now_or_never()
                .expect("no wait")
                .expect("memory does not fail");
        }
    }
}

/// Puts a meddler, runs `act` on another thread, and says whether it came to an
/// end.
fn ends(act: impl FnOnce(&Cache<String, Meddler>, &ManualClock) + Send + 'static) -> bool {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let clock = ManualClock::new();
        let cache = Cache::<String, Meddler>::builder("user")
            .policy(plain())
            .clock(clock.clone())
            .build()
            .expect("coherent");
        put(&cache, Some(cache.clone()));
        act(&cache, &clock);
        done.send(()).expect("the test waits");
    });
    wait.recv_timeout(Duration::from_secs(10)).is_ok()
}

fn put(cache: &Cache<String, Meddler>, meddles_with: Option<Cache<String, Meddler>>) {
    let value = Meddler(Arc::new(Meddling(Mutex::new(meddles_with))));
    let key = ann();
    cache.put(&key, value).into_future().now_or_never().expect("no wait").expect("put");
}

#[test]
fn a_value_that_calls_its_cache_when_dropped_does_not_hang_whoever_replaces_or_removes_it() {
    assert!(ends(|cache, _| put(cache, None)), "replaced");
    assert!(
        ends(|cache, _| assert!(
            cache
                .remove(&"ann".to_owned())
                .now_or_never()
                .expect("no wait")
                .expect("memory does not fail")
        )),
        "removed"
    );
    assert!(
        ends(|cache, clock| {
            clock.advance(MINUTE);
            assert!(
                !cache
                    .remove(&"ann".to_owned())
                    .now_or_never()
                    .expect("no wait")
                    .expect("memory does not fail")
            );
        }),
        "removed after it expired"
    );
    assert!(
        ends(|cache, _| {
            cache.clear().now_or_never().expect("no wait").expect("memory does not fail");
            put(cache, None);
        }),
        "replaced after it was cleared"
    );
}

#[tokio::test]
async fn what_had_expired_for_good_was_not_there_to_be_removed() {
    let world = world(plain());
    world.read().await;
    world.clock.advance(MINUTE * 2);
    assert!(world.users.inspect("ann").is_none());
    assert!(!world.users.remove(&"ann".to_owned()).await.expect("memory does not fail"));
    world.read().await;
    assert!(world.users.remove(&"ann".to_owned()).await.expect("memory does not fail"));
}

#[tokio::test]
async fn expiries_and_removals_tell_their_key() {
    let world = world(plain().stale_if_error(MINUTE));
    world.read().await;
    let mut events = world.users.events();
    world.users.expire(&"ann".to_owned()).await.expect("memory does not fail");
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    world.users.remove(&"ann".to_owned()).await.expect("memory does not fail");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.next().await.expect("open").expect("nothing lost");
        if matches!(event.kind, EventKind::ExpiredKey | EventKind::RemovedKey) {
            seen.push((event.kind, event.key));
        }
    }
    assert_eq!(
        seen,
        [
            (EventKind::ExpiredKey, Some(ann())),
            (EventKind::RemovedKey, Some(ann())),
            (EventKind::RemovedKey, Some(ann())),
        ]
    );
}

#[tokio::test]
async fn a_put_that_keeps_nothing_leaves_nothing_older() {
    let world = world(plain());
    world.read().await;
    let error = world.users.put(&ann(), 5).ttl(Duration::ZERO).await.expect_err("zero");
    assert!(error.to_string().contains("TTL of zero"), "{error}");
    assert!(world.users.get_memory("ann").is_none());
}

#[tokio::test]
async fn after_an_expiry_the_stale_window_counts_from_then() {
    let world = world(plain().stale_if_error(SECOND * 30));
    world.read().await;
    let stale_for = || world.users.inspect("ann").and_then(|it| it.stale_for);
    assert_eq!(stale_for(), Some(SECOND * 90));
    world.clock.advance(SECOND);
    world.users.expire(&"ann".to_owned()).await.expect("memory does not fail");
    assert_eq!(stale_for(), Some(SECOND * 30));
}

#[tokio::test]
async fn data_that_may_no_longer_be_cached_is_gone_at_once() {
    let world = world(plain());
    world.read().await;
    world.users.set_policy(plain().class(Class::Personal)).expect("coherent");
    assert!(world.users.get_memory("ann").is_none());
    world.users.set_policy(plain()).expect("coherent");
    assert!(world.users.get_memory("ann").is_none(), "and stays gone");
}

#[test]
fn without_a_runtime_writes_reclaim_what_has_expired() {
    let clock = ManualClock::new();
    let users = Cache::<String, i64>::builder("user")
        .policy(plain())
        .clock(clock.clone())
        .build()
        .expect("coherent");
    let fill = |prefix: &str| {
        for number in 0..1000 {
            let key = format!("{prefix}{number}");
            users.put(&key, number).into_future().now_or_never().expect("no wait").expect("put");
        }
    };
    fill("old");
    clock.advance(MINUTE * 10);
    fill("new");
    assert_eq!(users.statistics().memory.entries, 1000);
}

#[tokio::test]
async fn not_modified_keeps_class_and_ttl_of_what_it_renews() {
    let world = world(plain().stale_if_error(MINUTE * 10));
    let secret = Loaded::value(1).class(Class::Financial).ttl(SECOND * 5);
    world.origin.script([Answer::Say(secret)]);
    world.read().await;
    for _ in 0..3 {
        world.clock.advance(SECOND * 5);
        world.origin.script([Answer::Say(Loaded::not_modified())]);
        world.read().await;
        let renewed = world.users.inspect("ann").expect("it is there");
        assert_eq!(renewed.class, Class::Financial);
        assert_eq!(renewed.fresh_for, Some(SECOND * 5));
    }
    world.clock.advance(SECOND * 5);
    world.origin.script([Answer::Say(Loaded::not_modified().ttl(MINUTE))]);
    assert_eq!(world.hit().await.fresh_for(), Some(MINUTE), "unless it says so");
}

/// Remembers the ages it was told.
struct Ages(Arc<Mutex<Vec<Option<Duration>>>>);

impl larder::Origin<String, i64> for Ages {
    async fn load(&self, _: &String, context: &larder::LoadContext) -> larder::Result<Loaded<i64>> {
        self.0.lock().expect("no panic").push(context.held_age);
        Ok(Loaded::value(1))
    }
}

#[tokio::test]
async fn an_origin_is_told_how_old_the_held_value_is() {
    let ages = Arc::new(Mutex::new(Vec::new()));
    let clock = ManualClock::new();
    let users = Cache::<String, i64>::builder("user")
        .origin(Ages(Arc::clone(&ages)))
        .policy(plain().stale_if_error(MINUTE))
        .clock(clock.clone())
        .build()
        .expect("coherent");
    users.get_or_load(&ann()).await.expect("answered");
    clock.advance(SECOND * 90);
    users.get_or_load(&ann()).await.expect("answered");
    assert_eq!(*ages.lock().expect("no panic"), [None, Some(SECOND * 90)]);
}
