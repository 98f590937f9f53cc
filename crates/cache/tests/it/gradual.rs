//! Invalidations that take each entry at a moment of its own: the origin's load stays
//! flat, and nothing is served past the end of the window as if nothing had happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use larder::{
    Cache, Fleet, FleetOptions, Freshness, Invalidation, JsonCodec, LoadContext, Loaded,
    ManualClock, Memory, Origin, Policy, Result, StaleReason, Stores,
};
use larder_core::{Announcement, Bus, Change, Tag, Verb, Version, Window};
use larder_testkit::faulty::{FaultyBus, FaultyStore};

use crate::support::{MINUTE, SECOND, Truth, plain, stale_reason, world};

const WINDOW: Duration = Duration::from_secs(30);
const KEYS: u64 = 1500;
const STEP: Duration = Duration::from_millis(250);

fn lenient() -> Policy {
    let policy = Policy::ttl(MINUTE * 10).jitter(0.0).early_refresh_beta(None);
    policy.stale_while_revalidate(MINUTE)
}

/// An origin that notes in which second it was asked.
#[derive(Clone)]
struct Quotes {
    clock: ManualClock,
    began: larder::Moment,
    by_second: Arc<parking_lot::Mutex<BTreeMap<u64, u64>>>,
}

impl Quotes {
    fn new(clock: &ManualClock) -> Self {
        Self { clock: clock.clone(), began: clock.now(), by_second: Arc::default() }
    }

    fn take(&self) -> BTreeMap<u64, u64> {
        std::mem::take(&mut *self.by_second.lock())
    }

    fn total(&self) -> u64 {
        self.by_second.lock().values().sum()
    }
}

impl Origin<u64, u64> for Quotes {
    async fn load(&self, key: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
        let second = self.clock.now().since(self.began).as_secs();
        *self.by_second.lock().entry(second).or_default() += 1;
        Ok(Loaded::value(*key).tags(["quotes"]))
    }
}

struct Market {
    clock: ManualClock,
    origin: Quotes,
    quotes: Cache<u64, u64>,
}

impl Market {
    async fn open(policy: Policy) -> Self {
        let clock = ManualClock::new();
        let origin = Quotes::new(&clock);
        let quotes = Cache::builder("quote")
            .memory(Memory::entries(10_000))
            .origin(origin.clone())
            .policy(policy)
            .clock(clock.clone())
            .build()
            .expect("a coherent cache");
        let market = Self { clock, origin, quotes };
        for key in 0..KEYS {
            market.quotes.get_or_load(&key).await.expect("it is loaded");
        }
        assert_eq!(market.origin.take().values().sum::<u64>(), KEYS);
        market
    }

    /// Everybody reads everything, four times a second, until the window is over.
    /// Returns the loads of each second.
    async fn trade(&self, length: Duration) -> Vec<u64> {
        let first = self.clock.now().since(self.origin.began).as_secs();
        let steps = length.as_millis() / STEP.as_millis();
        for _ in 0..steps {
            for key in 0..KEYS {
                if self.quotes.get_memory(&key).is_none() {
                    self.quotes.get_or_load(&key).await.expect("it is loaded");
                }
            }
            self.land().await;
            self.clock.advance(STEP);
        }
        let loads = self.origin.take();
        (0..length.as_secs())
            .map(|second| loads.get(&(first + second)).copied().unwrap_or(0))
            .collect()
    }

    /// Lets the loads that run come to their end.
    async fn land(&self) {
        for _ in 0..100_000 {
            if self.quotes.statistics().loads_in_flight == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("loads that never end");
    }

    /// The most loads of a second, and as many as there would be of even ones.
    fn flatness(loads: &[u64]) -> (u64, f64) {
        let most = loads.iter().copied().max().unwrap_or_default();
        (most, loads.iter().sum::<u64>() as f64 / loads.len() as f64)
    }
}

#[tokio::test]
async fn the_origin_is_asked_evenly_and_once_for_each_entry() {
    let by_tag = || Invalidation::tags(["quotes"]);
    let ways = [
        by_tag(),
        by_tag().removing(),
        Invalidation::all(),
        Invalidation::all().removing(),
        Invalidation::keys(0..KEYS),
        Invalidation::keys(0..KEYS).removing(),
    ];
    for way in ways {
        let market = Market::open(lenient()).await;
        market.quotes.invalidate(&way.clone().gradually(WINDOW)).await.expect("it begins");
        let hit = market.quotes.get_memory(&7).expect("it is served meanwhile");
        let Freshness::Stale { reason, .. } = hit.freshness() else { panic!("it is suspect") };
        assert_eq!(reason, StaleReason::Suspect, "{way:?}");
        let loads = market.trade(WINDOW + SECOND).await;
        let (most, mean) = Market::flatness(&loads[..30]);
        assert!((most as f64) <= 2.0 * mean, "{most} of {mean} a second: {loads:?}, {way:?}");
        assert_eq!(loads.iter().sum::<u64>(), KEYS, "each once: {way:?}");
        // From the end on all of it is new, and nothing is looked at closely any more.
        assert!(
            (0..KEYS).all(|key| market.quotes.get_memory(&key).is_some_and(|it| it.is_fresh()))
        );
    }
}

#[tokio::test]
async fn one_at_once_asks_for_everything_in_the_first_second() {
    let market = Market::open(lenient()).await;
    market.quotes.invalidate(&Invalidation::tags(["quotes"])).await.expect("it is done");
    let loads = market.trade(WINDOW).await;
    // As many as the load budget lets through, and then the rest.
    assert!(loads[0] > KEYS / 2, "what the window is for: {loads:?}");
}

#[tokio::test]
async fn when_the_window_is_over_nothing_older_is_given() {
    let market = Market::open(lenient()).await;
    let way = Invalidation::tags(["quotes"]).removing().gradually(WINDOW);
    market.quotes.invalidate(&way).await.expect("it begins");
    // Nobody has looked meanwhile.
    market.clock.advance(WINDOW);
    assert!((0..KEYS).all(|key| market.quotes.get_memory(&key).is_none()));
    // Nor has what was loaded since to fear the same change.
    market.quotes.get_or_load(&1).await.expect("it is loaded");
    market.clock.advance(WINDOW);
    assert!(market.quotes.get_memory(&1).expect("it is held").is_fresh());
}

#[tokio::test]
async fn one_at_once_on_top_wins() {
    for verb in [Invalidation::tags(["quotes"]), Invalidation::keys(0..KEYS), Invalidation::all()] {
        let market = Market::open(lenient()).await;
        let gradual = Invalidation::tags(["quotes"]).gradually(WINDOW);
        market.quotes.invalidate(&gradual).await.expect("it begins");
        assert!(market.quotes.get_memory(&1).is_some(), "known to be suspect from here on");
        market.quotes.invalidate(&verb.clone()).await.expect("it is done");
        let loads = market.trade(SECOND).await;
        assert!(loads[0] > KEYS / 2, "{loads:?}, {verb:?}");
        let gradual = Invalidation::tags(["quotes"]).gradually(WINDOW);
        market.quotes.invalidate(&gradual).await.expect("it begins");
        market.quotes.invalidate(&verb.clone().removing()).await.expect("it is done");
        assert!((0..KEYS).all(|key| market.quotes.get_memory(&key).is_none()), "{verb:?}");
    }
}

#[tokio::test]
async fn overlapping_changes_each_keep_their_end_and_stay_flat() {
    let market = Market::open(lenient()).await;
    let tick = Invalidation::tags(["quotes"]).gradually(WINDOW);
    let mut loads = Vec::new();
    for _ in 0..40 {
        market.quotes.invalidate(&tick).await.expect("it begins");
        loads.extend(market.trade(SECOND).await);
    }
    let (most, mean) = Market::flatness(&loads[10..]);
    assert!((most as f64) <= 2.0 * mean, "{most} of {mean} a second: {loads:?}");
    market.clock.advance(WINDOW);
    let before = market.origin.total();
    market.trade(SECOND * 3).await;
    let fresh =
        (0..KEYS).filter(|key| market.quotes.get_memory(key).is_some_and(|it| it.is_fresh()));
    assert_eq!(fresh.count(), KEYS as usize, "after {before}");
}

#[tokio::test]
async fn a_policy_that_serves_nothing_stale_takes_it_at_once() {
    let world = world(plain());
    assert_eq!(world.read().await, Some(1));
    let way = Invalidation::keys(["ann".to_owned()]).gradually(WINDOW);
    world.users.invalidate(&way).await.expect("it is done");
    assert!(world.users.get_memory("ann").is_none());
    assert_eq!((world.read().await, world.loads()), (Some(1), 2));
}

#[tokio::test]
async fn a_window_is_no_longer_than_an_answer_may_be_stale() {
    let market = Market::open(lenient().stale_while_revalidate(SECOND * 10)).await;
    let way = Invalidation::all().gradually(WINDOW);
    market.quotes.invalidate(&way).await.expect("it begins");
    let loads = market.trade(WINDOW).await;
    let (most, mean) = Market::flatness(&loads[..10]);
    assert!((most as f64) <= 2.0 * mean, "{loads:?}");
    assert_eq!(loads[..=10].iter().sum::<u64>(), KEYS, "{loads:?}");
}

#[tokio::test]
async fn every_node_ends_at_the_same_time_also_one_that_hears_late() {
    let bus = FaultyBus::new();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let options = FleetOptions::default();
        let fleet = Fleet::join(Arc::new(bus.join()), options).await.expect("it joins");
        let clock = ManualClock::new();
        let cache = Cache::<String, i64>::builder("user")
            .origin(Truth::with_batch_limit(1000))
            .policy(lenient())
            .clock(clock.clone())
            .fleet(&fleet)
            .build()
            .expect("a coherent cache");
        for number in 0..200 {
            cache.put(&format!("user:{number}"), number).tags(["all"]).await.expect("it is put");
        }
        nodes.push((cache, fleet, clock));
    }
    // Both have what they put last.
    let (second, ..) = &nodes[1];
    let held = (0..200).filter(|number| second.get_memory(&format!("user:{number}")).is_some());
    assert_eq!(held.count(), 200);
    // Announced 20 s ago: two thirds of the moments have come.
    let late = Window {
        ends_at_millis: Window::beginning_now(SECOND * 10).ends_at_millis,
        length: WINDOW,
    };
    let change =
        Change::Gradual { change: Box::new(Change::Tags(vec![Tag::new("all")])), window: late };
    let announcement = Announcement { cache: "user".to_owned(), change, verb: Verb::Remove };
    bus.publish(&announcement, Version::ZERO).await.expect("it is announced");
    let left = || {
        let held = (0..200).filter(|number| second.get_memory(&format!("user:{number}")).is_some());
        held.count()
    };
    for _ in 0..10_000 {
        if left() < 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!((40..95).contains(&left()), "a third is left, not {}", left());
    nodes[1].2.advance(SECOND * 10);
    assert_eq!(left(), 0, "the end is that of everybody");
}

#[tokio::test]
async fn two_nodes_come_to_the_same_moments() {
    let bus = FaultyBus::new();
    let clock = ManualClock::new();
    let names: Vec<String> = (0..300).map(|number| format!("user:{number}")).collect();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let fleet =
            Fleet::join(Arc::new(bus.join()), FleetOptions::default()).await.expect("it joins");
        let cache = Cache::<String, i64>::builder("user")
            .origin(Truth::new().with_rows(names.iter().map(|name| (name.clone(), 1))))
            .policy(lenient())
            .clock(clock.clone())
            .fleet(&fleet)
            .build()
            .expect("a coherent cache");
        for name in &names {
            cache.get_or_load(name).tags(["all"]).await.expect("it is loaded");
        }
        nodes.push((cache, fleet));
    }
    let way = Invalidation::tags(["all"]).removing().gradually(WINDOW);
    nodes[0].0.invalidate(&way).await.expect("it begins");
    let held = |node: usize| -> Vec<bool> {
        names.iter().map(|name| nodes[node].0.get_memory(name.as_str()).is_some()).collect()
    };
    for _ in 0..10_000 {
        if nodes[1].0.get_memory(names[0].as_str()).is_none_or(|hit| !hit.is_fresh()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..30 {
        let differing = held(0).iter().zip(held(1)).filter(|(one, other)| *one != other).count();
        // The window is told in whole milliseconds.
        assert!(differing <= 1, "{differing} differ");
        clock.advance(SECOND);
    }
    assert!(!held(0).contains(&true));
}

#[tokio::test]
async fn a_process_that_starts_in_the_window_gives_nothing_older() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 60);
    let store = FaultyStore::new(clock.clone()).local();
    let start = || {
        Cache::<String, i64>::builder("user")
            .origin(Truth::with_batch_limit(1000))
            .policy(lenient())
            .clock(clock.clone())
            .stores(Stores::new(JsonCodec).store("disk", store.clone()))
            .build()
            .expect("a coherent cache")
    };
    let before = start();
    let (tagged, other) = ("tagged".to_owned(), "other".to_owned());
    before.put(&tagged, 1).tags(["all"]).await.expect("it is put");
    before.put(&other, 2).await.expect("it is put");
    let way = Invalidation::tags(["all"]).removing().gradually(WINDOW);
    before.invalidate(&way).await.expect("it begins");
    drop(before);
    let after = start();
    assert!(after.get(&tagged).await.expect("it is answered").is_none());
    assert!(after.get(&other).await.expect("it is answered").is_some());
}

#[tokio::test]
async fn a_load_that_began_before_is_labelled_and_not_fresh_for_long() {
    let world = world(lenient());
    let gate = larder_testkit::faulty::Gate::new();
    world.origin.script([larder_testkit::faulty::Answer::Truth.held_at(&gate)]);
    let users = world.users.clone();
    let load = tokio::spawn(async move { users.get_or_load(&"ann".to_owned()).await });
    world.settle("the load waits", |_| gate.arrivals() == 1).await;
    let way = Invalidation::all().gradually(WINDOW);
    world.users.invalidate(&way).await.expect("it begins");
    gate.open();
    let hit = load.await.expect("it ends").expect("it is answered");
    assert_eq!(stale_reason(&hit), Some(StaleReason::Suspect));
    let held = world.users.get_memory("ann").expect("it is kept until its moment");
    assert_eq!(stale_reason(&held), Some(StaleReason::Suspect));
}
