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

#[tokio::test]
async fn a_value_changed_in_place_keeps_its_age_and_its_end() {
    let world = world(plain());
    world.read().await;
    world.clock.advance(SECOND * 20);
    assert!(world.users.update(&ann(), |value| Some(value + 41)).await.expect("no bus"));
    let hit = world.users.get_memory(&ann()).expect("it is there");
    assert_eq!((hit.value(), hit.age()), (Some(&42), SECOND * 20));
    assert_eq!(hit.fresh_for(), Some(SECOND * 40));
    world.clock.advance(SECOND * 40);
    assert_eq!((world.read().await, world.loads()), (Some(1), 2));
    assert_eq!(world.users.statistics().updates, 1);
}

#[tokio::test]
async fn what_cannot_be_changed_in_place_is_loaded() {
    let world = world(plain());
    assert!(!world.users.update(&ann(), |value| Some(value + 1)).await.expect("no bus"));
    world.read().await;
    assert!(!world.users.update(&ann(), |_| None).await.expect("no bus"));
    assert_eq!(world.users.get_memory(&ann()).map(|_| ()), None);
    assert_eq!((world.read().await, world.loads()), (Some(1), 2));
}

#[tokio::test]
async fn a_change_that_crosses_an_update_is_not_lost() {
    let world = world(plain());
    world.read().await;
    let (users, times) = (world.users.clone(), std::sync::atomic::AtomicUsize::new(0));
    let reduce = |value: &i64| {
        // Somebody else puts another value while this one is being changed.
        if times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            users.put(&ann(), 100).into_future().now_or_never().expect("no wait").expect("put");
        }
        Some(value + 1)
    };
    assert!(world.users.update(&ann(), reduce).await.expect("no bus"));
    assert_eq!(world.read().await, Some(101));
    // One that always comes between is given up.
    let reduce = |value: &i64| {
        users.put(&ann(), 7).into_future().now_or_never().expect("no wait").expect("put");
        Some(value + 1)
    };
    assert!(!world.users.update(&ann(), reduce).await.expect("no bus"));
    assert_eq!(world.read().await, Some(1));
}

#[tokio::test]
async fn updates_side_by_side_all_count() {
    let world = world(plain());
    world.read().await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let users = world.users.clone();
            std::thread::spawn(move || {
                let updated = (0..1000).filter(|_| {
                    let key = ann();
                    let update = users.update(&key, |value| Some(value + 1));
                    futures_util::FutureExt::now_or_never(update)
                        .is_some_and(|updated| updated.is_ok_and(|updated| updated))
                });
                updated.count()
            })
        })
        .collect();
    let updated: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    let value = world.users.get_memory(&ann()).and_then(larder::Hit::into_value);
    // Unless changes kept crossing, and the value was given up.
    assert!(updated < 4000 || value == Some(4001), "{updated} updates left {value:?}");
}

#[tokio::test]
async fn a_tag_that_crosses_an_update_wins() {
    let world = world_with(plain(), |builder| {
        builder.tag_rule(|_: &String, _: Option<&i64>| ["team"].into_iter().collect())
    });
    world.read().await;
    let users = world.users.clone();
    let reduce = |value: &i64| {
        users.remove_tag("team").now_or_never().expect("no wait").expect("memory does not fail");
        Some(value + 1)
    };
    world.users.update(&ann(), reduce).await.expect("no bus");
    assert_eq!((world.read().await, world.loads()), (Some(1), 2));
}
