//! Tiers below memory: what they save, and what they must never bring back.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    BytesCodec, Cache, CacheBuilder, Class, Clock, Error, ErrorKind, JsonCodec, Key, ManualClock,
    Memory, Policy, Store, Stores, Tier,
};
use larder_core::{PutCondition, Value};
use larder_testkit::conformance::store::entry;
use larder_testkit::faulty::{Answer, FaultyStore, Gate, StoreFault};

use crate::support::*;

/// A world whose cache has a store on the same clock.
pub(crate) struct Stored {
    pub(crate) world: World,
    pub(crate) store: FaultyStore,
}

pub(crate) fn stored(policy: Policy) -> Stored {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local();
    let origin = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]);
    let users = process(&clock, &origin, policy, &[&store]);
    Stored { world: World { users, origin, clock }, store }
}

/// A cache as a process has it that starts now: nothing in memory.
fn process(clock: &ManualClock, origin: &Truth, policy: Policy, stores: &[&FaultyStore]) -> Users {
    let mut below = Stores::new(JsonCodec);
    for (place, store) in stores.iter().enumerate() {
        below = below.store(&format!("store-{place}"), (*store).clone());
    }
    builder(clock, origin, policy).stores(below).build().expect("a coherent cache")
}

pub(crate) fn builder(
    clock: &ManualClock,
    origin: &Truth,
    policy: Policy,
) -> CacheBuilder<String, i64> {
    Cache::builder("user")
        .memory(Memory::entries(10_000))
        .origin(origin.clone())
        .policy(policy)
        .clock(clock.clone())
}

impl Stored {
    /// Reads, and waits until the store has what was loaded.
    pub(crate) async fn read_and_fill(&self) -> Option<i64> {
        let read = self.world.read().await;
        self.filled().await;
        read
    }

    pub(crate) async fn filled(&self) {
        let ended = |world: &World| world.users.statistics().loads_in_flight == 0;
        self.world.settle("the store is filled", ended).await;
    }

    /// The process starts anew.
    pub(crate) fn restart(&mut self, policy: Policy) {
        let World { origin, clock, .. } = &self.world;
        self.world.users = process(clock, origin, policy, &[&self.store]);
    }
}

#[tokio::test]
async fn what_was_loaded_before_a_restart_is_not_loaded_again_and_is_no_younger() {
    let mut stored = stored(plain());
    assert_eq!(stored.read_and_fill().await, Some(1));
    stored.world.clock.advance(SECOND * 50);
    stored.restart(plain());
    let hit = stored.world.hit().await;
    assert_eq!((hit.value(), hit.tier()), (Some(&1), Tier::Store(0)));
    assert!(hit.age() >= SECOND * 50, "{:?}", hit.age());
    assert_eq!(hit.fresh_for(), Some(SECOND * 10));
    assert_eq!(stored.world.loads(), 1);
    // From memory now, and no longer than the TTL that began with the load.
    assert_eq!(stored.world.hit().await.tier(), Tier::Memory);
    stored.world.clock.advance(SECOND * 11);
    assert_eq!(stored.world.hit().await.tier(), Tier::Origin);
    let statistics = stored.world.users.statistics();
    assert_eq!((statistics.store_answers, statistics.load_answers), (1, 1));
}

#[tokio::test]
async fn what_was_removed_does_not_come_back_from_a_store() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    assert!(stored.world.users.remove(&ann()).await.expect("it is removed"));
    stored.world.origin.set(ann(), 2);
    assert_eq!(stored.read_and_fill().await, Some(2));
    assert_eq!(stored.world.loads(), 2);
}

#[tokio::test]
async fn a_removal_during_a_load_keeps_its_answer_out_of_the_store() {
    let mut stored = stored(plain());
    let gate = Gate::new();
    stored.world.origin.script([Answer::Truth.held_at(&gate)]);
    let users = stored.world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await });
    gate.wait_for_arrivals(1).await;
    stored.world.users.remove(&ann()).await.expect("it is removed");
    stored.world.origin.set(ann(), 2);
    gate.open();
    reader.await.expect("it ends").expect("it is answered");
    stored.filled().await;
    stored.restart(plain());
    assert_eq!(stored.world.read().await, Some(2));
}

#[tokio::test]
async fn a_fill_that_comes_after_a_removal_is_refused() {
    let mut stored = stored(plain());
    let gate = Gate::new();
    // The first load's look, and then its fill, which waits on its way.
    stored.store.script([StoreFault::None, StoreFault::None, StoreFault::None]);
    stored.store.script([StoreFault::Held(gate.clone())]);
    stored.world.read().await;
    gate.wait_for_arrivals(1).await;
    stored.world.users.remove(&ann()).await.expect("it is removed");
    gate.open();
    stored.filled().await;
    stored.world.origin.set(ann(), 2);
    stored.restart(plain());
    assert_eq!(stored.world.read().await, Some(2));
}

#[tokio::test]
async fn tags_and_clears_of_before_a_restart_still_hold() {
    for clears in [false, true] {
        let mut stored = stored(plain());
        stored.world.users.put(&ann(), 7).tags(["people"]).await.expect("it is put");
        if clears {
            stored.world.users.clear().await.expect("it is cleared");
        } else {
            stored.world.users.remove_tag("people").await.expect("it is removed");
        }
        stored.restart(plain());
        assert_eq!(stored.world.hit().await.tier(), Tier::Origin, "cleared: {clears}");
        // And what is loaded after that is kept, also over another restart.
        stored.filled().await;
        stored.restart(plain());
        assert_eq!(stored.world.hit().await.tier(), Tier::Store(0), "cleared: {clears}");
    }
}

#[tokio::test]
async fn a_store_that_fails_costs_no_error_and_hears_of_removals_before_it_is_trusted() {
    let mut stored = stored(plain());
    stored.read_and_fill().await;
    stored.store.script([StoreFault::Refused]);
    stored.world.users.remove(&ann()).await.expect("memory does not fail");
    assert!(stored.world.users.stores()[0].is_behind);
    stored.world.origin.set(ann(), 2);
    // It cannot be told yet, and is back for the read: what it has is not taken.
    stored.store.script([StoreFault::Refused]);
    assert_eq!(stored.read_and_fill().await, Some(2));
    assert_eq!(stored.world.users.stores()[0].failures, 2);
    // Memory gone, and the store told.
    let nothing = stored.world.users.get(&"nobody".to_owned()).await.expect("it is asked");
    assert!(nothing.is_none());
    assert!(!stored.world.users.stores()[0].is_behind);
    stored.restart(plain());
    assert_eq!(stored.world.read().await, Some(2));
}

#[tokio::test]
async fn a_put_that_does_not_reach_a_store_leaves_nothing_older_there() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    stored.store.script([StoreFault::Refused]);
    stored.world.users.put(&ann(), 7).await.expect("memory takes it");
    stored.world.origin.set(ann(), 7);
    // Memory asks below again after a minute.
    stored.world.clock.advance(MINUTE);
    assert_eq!(stored.read_and_fill().await, Some(7));
    assert_eq!(stored.world.hit().await.tier(), Tier::Memory);
}

#[tokio::test]
async fn a_store_that_stands_still_costs_its_timeout_and_then_nothing() {
    let stored = stored(plain());
    let gate = Gate::new();
    stored.store.script((0..5).map(|_| StoreFault::Held(gate.clone())));
    // Five reads wait for it in vain, and put nothing into what they do not know.
    for wait in 0..5 {
        let (users, key) = (stored.world.users.clone(), format!("user-{wait}"));
        tokio::spawn(async move { users.get_or_load(&key).await.expect("it is loaded") });
        gate.wait_for_arrivals(wait + 1).await;
        stored.world.clock.advance(SECOND / 2);
    }
    stored.filled().await;
    // Its breaker is open: nobody waits for it any more.
    let calls = stored.store.calls_count();
    assert_eq!(stored.read_and_fill().await, Some(1));
    assert_eq!((stored.store.calls_count(), stored.world.origin.calls_count()), (calls, 6));
}

#[tokio::test]
async fn a_hit_in_a_lower_store_fills_the_one_above() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let origin = Truth::new().with_rows([(ann(), 1)]);
    let (near, far) =
        (FaultyStore::new(clock.clone()).local(), FaultyStore::new(clock.clone()).local());
    let world = |stores: &[&FaultyStore]| World {
        users: process(&clock, &origin, plain(), stores),
        origin: origin.clone(),
        clock: clock.clone(),
    };
    let first = Stored { world: world(&[&far]), store: far.clone() };
    first.read_and_fill().await;
    clock.advance(SECOND * 20);
    let second = Stored { world: world(&[&near, &far]), store: near.clone() };
    assert_eq!(second.world.hit().await.tier(), Tier::Store(1));
    second.filled().await;
    assert_eq!(near.entries_count(), 1);
    let third = world(&[&near, &far]);
    let hit = third.hit().await;
    assert_eq!((hit.tier(), hit.fresh_for()), (Tier::Store(0), Some(SECOND * 40)));
    assert_eq!(third.loads(), 1);
}

#[tokio::test]
async fn memory_asks_the_stores_again_and_not_the_origin() {
    let stored = stored(Policy::ttl(MINUTE * 10).jitter(0.0).early_refresh_beta(None));
    stored.read_and_fill().await;
    for minutes in 1..10 {
        stored.world.clock.advance(MINUTE);
        let hit = stored.world.hit().await;
        assert_eq!(hit.tier(), Tier::Store(0), "after {minutes} minutes");
    }
    stored.world.clock.advance(MINUTE);
    assert_eq!(stored.world.hit().await.tier(), Tier::Origin);
}

#[tokio::test]
async fn a_refresh_ahead_asks_the_origin_only_when_the_entry_itself_is_due() {
    let policy =
        || Policy::ttl(MINUTE * 10).jitter(0.0).early_refresh_beta(None).refresh_ahead(0.8);
    let stored = stored(policy());
    stored.read_and_fill().await;
    for _ in 0..7 {
        stored.world.clock.advance(MINUTE);
        stored.read_and_fill().await;
    }
    assert_eq!(stored.world.loads(), 1);
    stored.world.clock.advance(MINUTE + SECOND);
    stored.read_and_fill().await;
    stored.world.clock.advance(SECOND);
    stored.read_and_fill().await;
    assert_eq!(stored.world.loads(), 2);
}

#[tokio::test]
async fn get_finds_what_a_store_has_and_never_loads() {
    let mut stored = stored(plain());
    assert!(stored.world.users.get(&ann()).await.expect("it is asked").is_none());
    assert_eq!(stored.world.origin.calls_count(), 0);
    stored.world.users.put(&ann(), 7).await.expect("it is put");
    stored.restart(plain());
    let hit = stored.world.users.get(&ann()).await.expect("it is asked").expect("it is there");
    assert_eq!((hit.value(), hit.tier()), (Some(&7), Tier::Store(0)));
    assert_eq!(stored.world.users.get_memory("ann").map(|hit| hit.tier()), Some(Tier::Memory));
    assert_eq!(stored.world.origin.calls_count(), 0);
}

#[tokio::test]
async fn who_wants_a_load_does_not_rest_with_a_look_into_the_stores() {
    let stored = stored(plain());
    let gate = Gate::new();
    stored.store.script([StoreFault::Held(gate.clone())]);
    let (looker, loader) = (stored.world.users.clone(), stored.world.users.clone());
    let look = tokio::spawn(async move { looker.get(&ann()).await });
    gate.wait_for_arrivals(1).await;
    let load = tokio::spawn(async move { loader.get_or_load(&ann()).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert!(look.await.expect("it ends").expect("it is asked").is_none());
    let hit = load.await.expect("it ends").expect("it is loaded");
    assert_eq!(hit.value(), Some(&1));
}

#[tokio::test]
async fn a_batch_is_one_call_of_the_store_and_one_of_the_origin() {
    let mut stored = stored(plain());
    let keys: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    stored.world.users.get_or_load_many(&keys[..50]).await;
    stored.filled().await;
    stored.restart(plain());
    // What it remembers is asked for once.
    stored.world.users.get(&ann()).await.expect("it is asked");
    let (calls, loads) = (stored.store.calls_count(), stored.world.origin.calls_count());
    let hits = stored.world.users.get_or_load_many(&keys).await;
    let tiers: Vec<_> = hits.iter().map(|hit| hit.as_ref().expect("answered").tier()).collect();
    assert!(tiers[..50].iter().all(|tier| *tier == Tier::Store(0)), "{tiers:?}");
    assert!(tiers[50..].iter().all(|tier| *tier == Tier::Origin), "{tiers:?}");
    stored.filled().await;
    // One to read, one to fill.
    assert_eq!(stored.store.calls_count(), calls + 2);
    assert_eq!(stored.world.origin.calls_count(), loads + 1);
}

#[tokio::test]
async fn what_a_store_has_is_served_stale_when_the_origin_fails() {
    let policy = || plain().stale_if_error(MINUTE * 60);
    let mut stored = stored(policy());
    stored.read_and_fill().await;
    stored.world.clock.advance(MINUTE * 30);
    stored.restart(policy());
    stored.world.origin.script([Answer::Fail(Error::new(ErrorKind::Unavailable, "down"))]);
    let hit = stored.world.hit().await;
    assert_eq!(hit.value(), Some(&1));
    assert_eq!(stale_reason(&hit), Some(larder::StaleReason::OriginFailed));
    assert!(hit.age() >= MINUTE * 30);
}

#[tokio::test]
async fn what_expired_by_hand_is_loaded_anew() {
    let mut stored = stored(plain().stale_if_error(MINUTE * 60));
    stored.read_and_fill().await;
    stored.world.users.expire(&ann()).await.expect("it expires");
    stored.world.origin.set(ann(), 2);
    stored.restart(plain().stale_if_error(MINUTE * 60));
    assert_eq!(stored.world.read().await, Some(2));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_miss() {
    let stored = stored(plain());
    let mut other = entry("{", 1);
    let mut damaged = entry("{", 1);
    other.codec = 77;
    damaged.codec = 1;
    for (key, entry) in [("ann", other), ("bob", damaged)] {
        let put = [(Key::new(key), entry)];
        stored.store.put_many(&put, PutCondition::Vacant).await.expect("it is put");
    }
    assert_eq!(stored.world.read().await, Some(1));
    assert!(stored.world.users.get(&"bob".to_owned()).await.expect("it is asked").is_none());
    assert_eq!(stored.world.users.stores()[0].undecodable, 2);
}

#[tokio::test]
async fn a_value_too_long_for_a_store_is_not_put_there_and_leaves_nothing_older() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local().value_bytes_max(10);
    let cache = Cache::<String, Bytes>::builder("page")
        .policy(plain())
        .clock(clock.clone())
        .stores(Stores::new(BytesCodec).store("small", store.clone()))
        .build()
        .expect("a coherent cache");
    cache.put(&ann(), Bytes::from_static(b"short")).await.expect("it is put");
    assert_eq!(store.entries_count(), 1);
    cache.put(&ann(), Bytes::from(vec![b'x'; 11])).await.expect("memory takes it");
    assert_eq!(store.entries_count(), 0);
    assert!(!cache.stores()[0].is_behind);
}

#[tokio::test]
async fn a_stricter_class_leaves_the_stores_alone() {
    let mut stored = stored(plain());
    stored.read_and_fill().await;
    stored.world.users.set_policy(plain().class(Class::Preference)).expect("a policy");
    // Memory asks below again after a minute.
    stored.world.clock.advance(MINUTE);
    assert_eq!(stored.world.hit().await.tier(), Tier::Origin);
    stored.filled().await;
    // And nothing of before comes back under the old policy.
    stored.restart(plain());
    assert_eq!(stored.world.hit().await.tier(), Tier::Origin);
}

#[tokio::test]
async fn an_absence_is_kept_below_too() {
    let mut stored = stored(plain().negative_ttl(MINUTE));
    let nobody = "nobody".to_owned();
    let hit = stored.world.users.get_or_load(&nobody).await.expect("it is answered");
    assert_eq!(hit.value(), None);
    stored.filled().await;
    let held = stored.store.get(&Key::new("nobody")).await.expect("it is read");
    assert_eq!(held.map(|entry| entry.value), Some(Value::Absent));
    stored.restart(plain().negative_ttl(MINUTE));
    let hit = stored.world.users.get_or_load(&nobody).await.expect("it is answered");
    assert_eq!((hit.value(), hit.tier()), (None, Tier::Store(0)));
}

#[test]
fn what_could_not_be_kept_is_refused() {
    let build = |store: FaultyStore, policy: Policy, timeout: Duration| {
        let stores = Stores::new(JsonCodec).store("store", store).timeout(timeout);
        let built = Cache::<String, i64>::builder("user").policy(policy).stores(stores).build();
        built.expect_err("it is incoherent").to_string()
    };
    let store = || FaultyStore::new(Clock::monotonic());
    let message = build(store().local(), plain().class(Class::Preference), SECOND);
    assert!(message.contains("must not leave the memory"), "{message}");
    let message = build(store(), plain(), SECOND);
    assert!(message.contains("needs a bus"), "{message}");
    let message = build(store().local(), plain(), Duration::ZERO);
    assert!(message.contains("timeout of zero"), "{message}");
}
