//! Stores that have not heard of everything: after a restart, while they cannot
//! be reached, and when a call ends halfway.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    Breaker, BytesCodec, Cache, Class, Clock, Codec, Error, ErrorKind, JsonCodec, Key, LoadContext,
    Loaded, ManualClock, Memory, Origin, Policy, Result, Store, Stores, Tier, Ttl,
};
use larder_core::PutCondition;
use larder_testkit::conformance::store::entry;
use larder_testkit::faulty::{FaultyStore, Gate, StoreFault};

use crate::stores::{Stored, builder, stored};
use crate::support::*;

/// What ends the time of the entry of `ann`.
#[derive(Clone, Copy, Debug)]
enum Change {
    Put,
    Remove,
    Expire,
    RemoveTag,
    ExpireTag,
    Clear,
}

const CHANGES: [Change; 6] = [
    Change::Put,
    Change::Remove,
    Change::Expire,
    Change::RemoveTag,
    Change::ExpireTag,
    Change::Clear,
];

impl Change {
    async fn happens_to(self, users: &Users) {
        let changed = match self {
            Self::Put => users.put(&ann(), 2).await.map(drop),
            Self::Remove => users.remove(&ann()).await.map(drop),
            Self::Expire => users.expire(&ann()).await.map(drop),
            Self::RemoveTag => users.remove_tag("people").await.map(drop),
            Self::ExpireTag => users.expire_tag("people").await.map(drop),
            Self::Clear => users.clear().await.map(drop),
        };
        changed.expect("memory does not fail");
    }
}

/// Fresh for longer than memory keeps it.
fn long() -> Policy {
    Policy::ttl(MINUTE * 60).jitter(0.0).early_refresh_beta(None)
}

/// A store with an entry of a process before, whose versions had come far.
async fn inherited() -> Stored {
    let mut stored = stored(long());
    for value in 0..50 {
        stored.world.users.put(&ann(), value).tags(["people"]).await.expect("it is put");
    }
    stored.world.origin.set(ann(), 2);
    stored.restart(long());
    stored
}

#[tokio::test]
async fn what_changes_before_the_first_read_is_newer_than_what_was_there() {
    for change in CHANGES {
        let mut stored = inherited().await;
        change.happens_to(&stored.world.users).await;
        assert!(!stored.world.users.stores()[0].is_behind, "{change:?}");
        stored.restart(long());
        assert_eq!(stored.read_and_fill().await, Some(2), "{change:?}");
    }
}

#[tokio::test]
async fn what_changes_while_the_store_of_before_cannot_be_reached_holds_when_it_can() {
    for change in CHANGES {
        let mut stored = inherited().await;
        stored.store.script([StoreFault::Refused, StoreFault::Refused]);
        change.happens_to(&stored.world.users).await;
        assert!(stored.world.users.stores()[0].is_behind, "{change:?}");
        // One refusal is left for when memory asks below again.
        for _ in 0..3 {
            stored.read_and_fill().await;
            stored.world.clock.advance(MINUTE);
            assert_eq!(stored.read_and_fill().await, Some(2), "{change:?}");
        }
        assert!(!stored.world.users.stores()[0].is_behind, "{change:?}");
        stored.restart(long());
        assert_eq!(stored.read_and_fill().await, Some(2), "{change:?}");
    }
}

#[tokio::test]
async fn more_than_can_be_remembered_for_a_store_hides_all_it_had() {
    let stored = stored(long());
    stored.read_and_fill().await;
    // Its breaker opens, and opens again for the rest.
    stored.store.script((0..5).map(|_| StoreFault::Refused));
    stored.world.users.remove(&ann()).await.expect("memory does not fail");
    for number in 0..65_600 {
        let key = format!("user-{number}");
        stored.world.users.remove(&key).await.expect("memory does not fail");
    }
    stored.world.origin.set(ann(), 2);
    stored.world.clock.advance(SECOND * 10);
    let calls = stored.store.calls_count();
    assert_eq!(stored.read_and_fill().await, Some(2));
    assert!(!stored.world.users.stores()[0].is_behind);
    assert!(stored.store.calls_count() < calls + 5);
}

#[tokio::test]
async fn many_removals_are_made_up_for_in_few_calls() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    stored.store.script((0..5).map(|_| StoreFault::Refused));
    for number in 0..1000 {
        let key = format!("user-{number}");
        stored.world.users.remove(&key).await.expect("memory does not fail");
    }
    stored.world.clock.advance(SECOND * 10);
    let calls = stored.store.calls_count();
    stored.world.users.get(&"nobody".to_owned()).await.expect("it is asked");
    assert!(!stored.world.users.stores()[0].is_behind);
    let calls = stored.store.calls_count() - calls;
    assert!(calls < 5, "{calls}");
}

#[tokio::test]
async fn a_put_whose_caller_leaves_does_not_give_way_to_what_was_there_before() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    let gate = Gate::new();
    stored.store.script([StoreFault::Held(gate.clone())]);
    let users = stored.world.users.clone();
    let put = tokio::spawn(async move { users.put(&ann(), 7).ttl(SECOND * 10).await });
    gate.wait_for_arrivals(1).await;
    put.abort();
    assert!(put.await.expect_err("it was aborted").is_cancelled());
    stored.world.origin.set(ann(), 7);
    assert_eq!(stored.world.read().await, Some(7));
    stored.world.clock.advance(SECOND * 11);
    assert_eq!(stored.world.read().await, Some(7));
}

#[tokio::test]
async fn a_removal_whose_caller_leaves_is_told_later() {
    let mut stored = stored(plain());
    stored.read_and_fill().await;
    let gate = Gate::new();
    stored.store.script([StoreFault::Held(gate.clone())]);
    let users = stored.world.users.clone();
    let removal = tokio::spawn(async move { users.remove(&ann()).await });
    gate.wait_for_arrivals(1).await;
    removal.abort();
    assert!(removal.await.expect_err("it was aborted").is_cancelled());
    stored.world.origin.set(ann(), 2);
    stored.world.users.get(&"nobody".to_owned()).await.expect("it is asked");
    stored.restart(plain());
    assert_eq!(stored.world.read().await, Some(2));
}

#[tokio::test]
async fn a_put_that_keeps_nothing_leaves_nothing_older_below() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    let put = stored.world.users.put(&ann(), 7).ttl(Duration::ZERO).await;
    assert_eq!(put.expect_err("it keeps nothing").kind(), ErrorKind::InvalidInput);
    assert!(stored.world.users.get(&ann()).await.expect("it is asked").is_none());
}

/// Refuses to write 13, and panics over 14, and over reading 15.
struct Superstitious;

impl Codec<i64> for Superstitious {
    fn id(&self) -> u8 {
        9
    }

    fn encode(&self, value: &i64) -> Result<Bytes> {
        match value {
            13 => Err(Error::new(ErrorKind::InvalidInput, "unlucky")),
            14 => panic!("a codec that panics"),
            _ => JsonCodec.encode(value),
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<i64> {
        let value = JsonCodec.decode(bytes)?;
        assert_ne!(value, 15, "a codec that panics");
        Ok(value)
    }
}

fn superstitious() -> Stored {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local();
    let origin = Truth::new().with_rows([(ann(), 1)]);
    let below = Stores::new(Superstitious).store("store", store.clone());
    let users = builder(&clock, &origin, plain()).stores(below).build().expect("coherent");
    Stored { world: World { users, origin, clock }, store }
}

#[tokio::test]
async fn what_a_codec_cannot_write_leaves_nothing_older_below() {
    for value in [13, 14] {
        let stored = superstitious();
        stored.read_and_fill().await;
        let put = stored.world.users.put(&ann(), value).ttl(SECOND * 10).await;
        put.expect("memory takes it");
        stored.world.origin.set(ann(), value);
        stored.world.clock.advance(SECOND * 11);
        assert_eq!(stored.read_and_fill().await, Some(value));
    }
}

#[tokio::test]
async fn a_codec_that_panics_over_what_is_stored_costs_a_load_and_no_error() {
    let stored = superstitious();
    stored.world.users.put(&ann(), 15).ttl(SECOND * 90).await.expect("it is put");
    stored.world.clock.advance(MINUTE);
    assert_eq!(stored.read_and_fill().await, Some(1));
    assert_eq!(stored.world.users.stores()[0].undecodable, 1);
}

#[tokio::test]
async fn what_may_not_leave_the_process_leaves_nothing_older_below() {
    let policy = plain().stale_if_error(MINUTE * 5);
    let stored = stored(policy.clone());
    stored.read_and_fill().await;
    // What the store has is no longer fresh, but better than nothing.
    stored.world.clock.advance(SECOND * 61);
    let secret = || async { Ok::<_, Error>(Loaded::value(2).class(Class::Preference)) };
    let users = &stored.world.users;
    let hit = users.get_or_load_with(&ann(), secret).await.expect("it is loaded");
    assert_eq!(hit.value(), Some(&2));
    stored.filled().await;
    assert_eq!(stored.store.entries_count(), 0);
}

/// Nine, and "not modified" of what is held.
struct Nines;

impl Origin<String, i64> for Nines {
    async fn load(&self, _: &String, context: &LoadContext) -> Result<Loaded<i64>> {
        Ok(if context.held.is_some() { Loaded::not_modified() } else { Loaded::value(9) })
    }
}

#[tokio::test]
async fn what_is_removed_by_tag_while_a_store_is_asked_is_not_renewed() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local();
    let users = Cache::<String, i64>::builder("user")
        .origin(Nines)
        .policy(plain().stale_if_error(MINUTE))
        .clock(clock.clone())
        .stores(Stores::new(JsonCodec).store("store", store.clone()))
        .build()
        .expect("a coherent cache");
    users.put(&ann(), 7).tags(["people"]).ttl(SECOND).await.expect("it is put");
    clock.advance(SECOND * 2);
    let gate = Gate::new();
    store.script([StoreFault::Held(gate.clone())]);
    let reader = tokio::spawn({
        let users = users.clone();
        async move { users.get_or_load(&ann()).await }
    });
    gate.wait_for_arrivals(1).await;
    users.remove_tag("people").await.expect("it is removed");
    gate.open();
    let hit = reader.await.expect("it ends").expect("it is loaded");
    assert_eq!(hit.value(), Some(&9));
}

#[tokio::test]
async fn a_put_that_memory_does_not_take_is_not_hidden_by_what_was_read_before_it_arrived() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local();
    let pages = Cache::<String, Bytes>::builder("page")
        .memory(Memory::bytes(100_000))
        .policy(plain())
        .clock(clock.clone())
        .stores(Stores::new(BytesCodec).store("store", store.clone()).memory_ttl(SECOND))
        .build()
        .expect("a coherent cache");
    pages.put(&ann(), Bytes::from_static(b"old")).await.expect("it is put");
    clock.advance(SECOND * 2);
    let gate = Gate::new();
    store.script([StoreFault::Held(gate.clone())]);
    let put = tokio::spawn({
        let pages = pages.clone();
        async move { pages.put(&ann(), Bytes::from(vec![b'x'; 1_000_000])).await }
    });
    gate.wait_for_arrivals(1).await;
    let early = pages.get(&ann()).await.expect("it is asked").expect("it is there");
    assert_eq!(early.value().map(Bytes::len), Some(3));
    gate.open();
    put.await.expect("it ends").expect("the store takes it");
    let hit = pages.get(&ann()).await.expect("it is asked").expect("it is there");
    assert_eq!((hit.value().map(Bytes::len), hit.tier()), (Some(1_000_000), Tier::Store(0)));
}

#[tokio::test]
async fn a_policy_that_forbids_to_keep_clears_the_stores_without_a_read() {
    let mut stored = stored(long());
    stored.read_and_fill().await;
    stored.world.users.set_policy(long().class(Class::Credential)).expect("it is coherent");
    let told = |world: &World| !world.users.stores()[0].is_behind;
    stored.world.settle("the store has heard of it", told).await;
    let calls = stored.store.calls_count();
    assert_eq!(stored.world.read().await, Some(1));
    assert_eq!(stored.store.calls_count(), calls);
    stored.restart(long());
    assert_eq!(stored.world.hit().await.tier(), Tier::Origin);
}

#[tokio::test]
async fn a_store_that_is_behind_and_stands_still_costs_a_read_one_timeout() {
    let stored = stored(plain());
    stored.read_and_fill().await;
    stored.store.script([StoreFault::Refused]);
    stored.world.users.remove(&ann()).await.expect("memory does not fail");
    let gate = Gate::new();
    stored.store.script((0..4).map(|_| StoreFault::Held(gate.clone())));
    let users = stored.world.users.clone();
    let read = tokio::spawn(async move { users.get_or_load(&ann()).await });
    gate.wait_for_arrivals(1).await;
    stored.world.clock.advance(SECOND / 2);
    stored.world.settle("the read ends", |_| read.is_finished()).await;
    assert_eq!(read.await.expect("it ends").expect("it is loaded").value(), Some(&1));
}

#[tokio::test]
async fn what_is_older_than_the_clock_is_not_served_beyond_its_greatest_age() {
    // The machine has started again, and the store has a clock that went on.
    let (clock, store_clock) = (ManualClock::new(), ManualClock::new());
    store_clock.advance(MINUTE * 600);
    let store = FaultyStore::new(store_clock.clone()).local();
    let mut held = entry("7", 1);
    (held.codec, held.age) = (1, MINUTE * 300);
    (held.fresh_for, held.stale_for) = (Ttl::For(MINUTE * 600), Ttl::For(MINUTE * 600));
    let put = [(Key::new("ann"), held)];
    store.put_many(&put, PutCondition::Vacant).await.expect("it is put");
    let origin = Truth::new().with_rows([(ann(), 1)]);
    let below = Stores::new(JsonCodec).store("store", store.clone()).memory_ttl(None);
    let users = builder(&clock, &origin, plain().max_age(MINUTE * 302)).stores(below).build();
    let users = users.expect("a coherent cache");
    assert_eq!(users.get_or_load(&ann()).await.expect("it is answered").tier(), Tier::Store(0));
    clock.advance(MINUTE * 3);
    store_clock.advance(MINUTE * 3);
    assert_eq!(users.get_or_load(&ann()).await.expect("it is answered").tier(), Tier::Origin);
}

/// What a writer has been told is done is what every later read sees, however
/// memory and the stores stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_older_than_an_acknowledged_change_is_read() {
    const KEYS: i64 = 4;
    let store = FaultyStore::new(Clock::monotonic()).local();
    let (near, far) = (store, FaultyStore::new(Clock::monotonic()).local());
    for round in 0..5 {
        let origin = Truth::with_batch_limit(1000);
        let below = Stores::new(JsonCodec).store("near", near.clone()).store("far", far.clone());
        let below = below.memory_ttl(Duration::from_millis(1));
        let users = Cache::<String, i64>::builder("user")
            .memory(Memory::entries(2))
            .origin(origin.clone())
            .policy(Policy::ttl(MINUTE).refresh_ahead(0.5))
            .stores(below.breaker(Breaker::default().failures(3).open_for(SECOND / 1000)))
            .build()
            .expect("a coherent cache");
        let tasks = (0..KEYS).map(|key| {
            let (users, origin) = (users.clone(), origin.clone());
            let (near, far) = (near.clone(), far.clone());
            let key = format!("user-{key}");
            tokio::spawn(async move {
                for step in 1..300 {
                    let value = round * 1000 + step;
                    if fastrand::u8(..) < 4 {
                        near.script([StoreFault::Refused, StoreFault::ReplyLost]);
                    }
                    if fastrand::u8(..) < 4 {
                        far.script([StoreFault::ReplyLost, StoreFault::Refused]);
                    }
                    origin.set(key.clone(), value);
                    match fastrand::u8(..4) {
                        0 => drop(users.put(&key, value).tags(["all"]).await.expect("put")),
                        1 => drop(users.remove(&key).await.expect("removed")),
                        2 => drop(users.expire(&key).await.expect("expired")),
                        _ => drop(users.clear().await.expect("cleared")),
                    }
                    let reads = (0..3).map(|_| {
                        let (users, key) = (users.clone(), key.clone());
                        tokio::spawn(async move {
                            match fastrand::bool() {
                                true => users.get(&key).await.expect("asked"),
                                false => Some(users.get_or_load(&key).await.expect("loaded")),
                            }
                        })
                    });
                    for read in reads.collect::<Vec<_>>() {
                        let hit = read.await.expect("it ends");
                        let seen = hit.as_ref().and_then(|hit| hit.value().copied());
                        assert!(seen.is_none_or(|seen| seen == value), "{seen:?} {value} {hit:?}");
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it holds");
        }
        // What could not be told is told before the process ends.
        for _ in 0..100 {
            if users.stores().iter().all(|store| !store.is_behind) {
                break;
            }
            tokio::time::sleep(SECOND / 500).await;
            let nobody = fastrand::u64(..).to_string();
            users.get(&nobody).await.expect("it is asked");
        }
        let [near, far] = &users.stores()[..] else { panic!("there are two stores") };
        assert!(!near.is_behind && !far.is_behind && near.hits > 0, "{near:?} {far:?}");
    }
}
