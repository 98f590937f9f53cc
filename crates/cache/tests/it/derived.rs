//! What is computed from a stale answer of another cache is no fresher than that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use larder::{
    Cache, CacheBuilder, Dependencies, DependencyGraph, Error, ErrorKind, Freshness, Invalidation,
    JsonCodec, LoadContext, Loaded, ManualClock, Origin, Policy, Result, StaleReason, Stores, Tier,
};
use larder_testkit::faulty::FaultyStore;
use tokio::sync::Notify;

use crate::support::*;

type Numbers = Cache<u64, i64>;

/// What it says, and how often it was asked. Below zero: it is down.
#[derive(Clone, Default)]
struct Truth {
    says: Arc<AtomicI64>,
    asked: Arc<AtomicUsize>,
}

impl Truth {
    fn saying(value: i64) -> Self {
        let truth = Self::default();
        truth.say(value);
        truth
    }

    fn say(&self, value: i64) {
        self.says.store(value, Ordering::SeqCst);
    }
}

impl Origin<u64, i64> for Truth {
    async fn load(&self, _: &u64, _: &LoadContext) -> Result<Loaded<i64>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.says.load(Ordering::SeqCst) {
            down if down < 0 => Err(Error::new(ErrorKind::Unavailable, "scripted")),
            value => Ok(Loaded::value(value)),
        }
    }
}

/// Ten times what another cache says.
#[derive(Clone)]
struct Tenfold {
    of: Numbers,
    calls: Arc<AtomicUsize>,
    /// Calls that might have said "not modified".
    renewals: Arc<AtomicUsize>,
    /// What a load takes.
    takes: Option<(ManualClock, Duration)>,
}

impl Tenfold {
    fn of(source: &Numbers) -> Self {
        Self { of: source.clone(), calls: Arc::default(), renewals: Arc::default(), takes: None }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Origin<u64, i64> for Tenfold {
    async fn load(&self, id: &u64, context: &LoadContext) -> Result<Loaded<i64>> {
        self.renewals.fetch_add(usize::from(context.held.is_some()), Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let source = self.of.get_or_load(id).await?;
        if let Some((clock, takes)) = &self.takes {
            clock.advance(*takes);
        }
        Ok(Loaded::value(source.value().map_or(0, |value| value * 10)))
    }

    fn batch_limit(&self) -> usize {
        100
    }

    async fn load_many(&self, ids: &[u64], _: &LoadContext) -> Vec<Result<Loaded<i64>>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let sources = self.of.get_or_load_many(ids).await;
        let tenfold = |source: Result<larder::Hit<u64, i64>>| {
            Ok(Loaded::value(source?.value().map_or(0, |value| value * 10)))
        };
        sources.into_iter().map(tenfold).collect()
    }
}

fn cache(name: &str, policy: Policy, clock: &ManualClock) -> CacheBuilder<u64, i64> {
    Cache::builder(name).policy(policy).clock(clock.clone())
}

fn reports_of_sources() -> Dependencies {
    let graph = DependencyGraph::builder()
        .cache("source", "{id}")
        .cache("report", "{id}")
        .depends("report", "source:{id}");
    Dependencies::new(graph.build().expect("a graph"))
}

fn revalidating() -> Policy {
    plain().stale_while_revalidate(MINUTE)
}

async fn read(cache: &Numbers) -> (i64, Freshness) {
    let hit = cache.get_or_load(&17).await.expect("it is answered");
    (*hit.value().expect("a value"), hit.freshness())
}

fn reason(freshness: Freshness) -> Option<StaleReason> {
    match freshness {
        Freshness::Stale { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Lets tasks run until it holds.
async fn settle(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to this: {what}");
}

fn says(cache: &Numbers, value: i64) -> impl Fn() -> bool {
    move || cache.get_memory(&17).is_some_and(|hit| hit.is_fresh() && hit.value() == Some(&value))
}

#[tokio::test]
async fn what_is_computed_of_something_stale_does_not_outlive_it() {
    let dependencies = reports_of_sources();
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.dependencies(&dependencies).build().expect("a cache");
    let reports = cache("report", plain(), &clock).origin(Tenfold::of(&source));
    let reports = reports.dependencies(&dependencies).build().expect("a cache");
    assert_eq!(read(&reports).await, (10, Freshness::Fresh));
    truth.say(2);
    source.expire(&17).await.expect("expired");
    let (value, freshness) = read(&reports).await;
    assert_eq!((value, reason(freshness)), (10, Some(StaleReason::Revalidating)));
    settle("the source is refreshed", says(&source, 2)).await;
    assert_eq!(read(&reports).await, (20, Freshness::Fresh));
    let statistics = reports.statistics();
    assert_eq!((statistics.stale_derived, statistics.stale()), (1, 1));
}

#[tokio::test]
async fn a_gradual_change_ends_for_what_is_computed_of_it_when_it_ends_for_the_source() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let hour = Policy::ttl(MINUTE * 60).jitter(0.0).early_refresh_beta(None);
    let source = cache("source", hour.clone().stale_while_revalidate(MINUTE), &clock);
    let dependencies = reports_of_sources();
    let source = source.origin(truth.clone()).dependencies(&dependencies);
    let source = source.build().expect("a cache");
    let reports = cache("report", hour, &clock).origin(Tenfold::of(&source));
    let reports = reports.dependencies(&dependencies).build().expect("a cache");
    assert_eq!(read(&reports).await, (10, Freshness::Fresh));
    truth.say(2);
    source.invalidate(&Invalidation::keys([17]).gradually(SECOND * 30)).await.expect("done");
    let (value, freshness) = read(&reports).await;
    assert_eq!((value, reason(freshness)), (10, Some(StaleReason::Suspect)));
    clock.advance(SECOND * 31);
    read(&source).await;
    settle("the source is refreshed", says(&source, 2)).await;
    assert_eq!(read(&reports).await, (20, Freshness::Fresh));
}

#[tokio::test]
async fn it_holds_over_three_levels_and_for_who_waits_with_others() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.build().expect("a cache");
    let middle = cache("middle", plain(), &clock).origin(Tenfold::of(&source));
    let middle = middle.build().expect("a cache");
    let tenfold = Tenfold::of(&middle);
    let top = cache("top", revalidating(), &clock).origin(tenfold.clone());
    let top = top.build().expect("a cache");
    read(&source).await;
    truth.say(2);
    source.expire(&17).await.expect("expired");
    let (first, joined) = tokio::join!(read(&top), read(&top));
    assert_eq!((first.0, reason(first.1)), (100, Some(StaleReason::Revalidating)));
    assert_eq!((joined.0, reason(joined.1)), (100, Some(StaleReason::Revalidating)));
    settle("the source is refreshed", says(&source, 2)).await;
    clock.advance(Duration::from_millis(1));
    // What is kept is given as stale, and made anew behind it.
    let (value, freshness) = read(&top).await;
    assert_eq!((value, reason(freshness)), (100, Some(StaleReason::Revalidating)));
    settle("the top is refreshed", says(&top, 200)).await;
    assert_eq!((tenfold.calls(), tenfold.renewals.load(Ordering::SeqCst)), (2, 0));
    assert_eq!(read(&middle).await, (20, Freshness::Fresh));
}

#[tokio::test]
async fn one_stale_answer_makes_a_batch_stale_and_none_leaves_it_fresh() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.build().expect("a cache");
    let reports = cache("report", plain(), &clock).origin(Tenfold::of(&source));
    let reports = reports.build().expect("a cache");
    read(&source).await;
    source.expire(&17).await.expect("expired");
    let hits = reports.get_or_load_many(&[17, 18]).await;
    let fresh = |hits: &[Result<larder::Hit<u64, i64>>]| -> Vec<bool> {
        hits.iter().map(|hit| hit.as_ref().expect("an answer").is_fresh()).collect()
    };
    assert_eq!(fresh(&hits), [false, false]);
    settle("the source is refreshed", says(&source, 1)).await;
    assert_eq!(fresh(&reports.get_or_load_many(&[17, 18]).await), [true, true]);
    assert!(says(&reports, 10)());
}

/// Reads the source and then waits until it is let go, if it has to.
#[derive(Clone)]
struct Waiting {
    of: Numbers,
    has_read: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

impl Origin<u64, i64> for Waiting {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<i64>> {
        let hit = self.of.get_or_load(id).await?;
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.has_read.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(Loaded::value(hit.value().map_or(0, |value| value * 10)))
    }
}

#[tokio::test]
async fn a_load_that_is_cancelled_leaves_no_note_to_the_next_one() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.build().expect("a cache");
    let waiting = Waiting { of: source.clone(), has_read: Arc::default(), calls: Arc::default() };
    let policy = plain().soft_timeout(SECOND).hard_timeout(SECOND * 5);
    let reports = cache("report", policy, &clock).origin(waiting.clone());
    let reports = reports.build().expect("a cache");
    read(&source).await;
    source.expire(&17).await.expect("expired");
    let reader = {
        let reports = reports.clone();
        tokio::spawn(async move { reports.get_or_load(&17).await.map(drop) })
    };
    waiting.has_read.notified().await;
    settle("the source is refreshed", says(&source, 1)).await;
    clock.advance(SECOND * 6);
    let error = reader.await.expect("no panic").expect_err("its time is up");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(read(&reports).await, (10, Freshness::Fresh));
}

#[tokio::test]
async fn what_is_computed_of_a_fallback_is_not_kept() {
    let (truth, clock) = (Truth::saying(-1), ManualClock::new());
    let source = cache("source", plain(), &clock).origin(truth.clone()).fallback(|_| Some(7));
    let source = source.build().expect("a cache");
    let reports = cache("report", revalidating(), &clock).origin(Tenfold::of(&source));
    let reports = reports.build().expect("a cache");
    let (value, freshness) = read(&reports).await;
    assert_eq!((value, reason(freshness)), (70, Some(StaleReason::OriginFailed)));
    assert!(reports.get_memory(&17).is_none());
    truth.say(2);
    assert_eq!(read(&reports).await, (20, Freshness::Fresh));
}

/// Looks at the source in a task of its own, and says so if it is told to.
struct Elsewhere {
    of: Numbers,
    says_so: bool,
}

impl Origin<u64, i64> for Elsewhere {
    async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<i64>> {
        let (of, id) = (self.of.clone(), *id);
        let hit = tokio::spawn(async move { of.get_or_load(&id).await });
        let hit = hit.await.expect("no panic")?;
        let loaded = Loaded::value(hit.value().map_or(0, |value| value * 10));
        Ok(if self.says_so && !hit.is_fresh() { loaded.derived_from_stale() } else { loaded })
    }
}

#[tokio::test]
async fn what_a_task_of_the_loader_is_given_is_for_the_loader_to_say() {
    for (says_so, expected) in [(true, Some(StaleReason::Revalidating)), (false, None)] {
        let (truth, clock) = (Truth::saying(1), ManualClock::new());
        let source = cache("source", revalidating(), &clock).origin(truth.clone());
        let source = source.build().expect("a cache");
        let reports = cache("report", plain(), &clock);
        let reports = reports.origin(Elsewhere { of: source.clone(), says_so });
        let reports = reports.build().expect("a cache");
        read(&source).await;
        source.expire(&17).await.expect("expired");
        assert_eq!(reason(read(&reports).await.1), expected, "{says_so}");
    }
}

#[tokio::test]
async fn a_value_changed_by_what_is_stale_is_given_up() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.build().expect("a cache");
    let sums = cache("sum", plain(), &clock).origin(Truth::saying(5)).build().expect("a cache");
    read(&source).await;
    read(&sums).await;
    let add = |sum: &i64| Some(sum + source.get_memory(&17)?.into_value()?);
    assert!(sums.update(&17, add).await.expect("updated"));
    assert_eq!(read(&sums).await, (6, Freshness::Fresh));
    source.expire(&17).await.expect("expired");
    assert!(!sums.update(&17, add).await.expect("removed"));
    assert!(sums.get_memory(&17).is_none());
}

#[tokio::test]
async fn a_store_has_it_for_nobody_as_fresh() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", revalidating(), &clock).origin(truth.clone());
    let source = source.build().expect("a cache");
    let store = FaultyStore::new(clock.clone()).local();
    let tenfold = Tenfold::of(&source);
    let open = || {
        let reports = cache("report", revalidating(), &clock).origin(tenfold.clone());
        let stores = Stores::new(JsonCodec).store("disk", store.clone());
        reports.stores(stores).build().expect("a cache")
    };
    read(&source).await;
    truth.say(2);
    source.expire(&17).await.expect("expired");
    let reports = open();
    assert!(reason(read(&reports).await.1).is_some());
    settle("the source is refreshed", says(&source, 2)).await;
    settle("the store is filled", || reports.statistics().loads_in_flight == 0).await;
    assert_eq!(store.entries_count(), 1);
    drop(reports);
    let hit = open().get_or_load(&17).await.expect("it is answered");
    assert_eq!((hit.value(), hit.tier(), hit.is_fresh()), (Some(&20), Tier::Origin, true));
}

#[tokio::test]
async fn a_source_that_is_down_for_long_has_half_of_the_time_spent_on_it_at_most() {
    let (truth, clock) = (Truth::saying(1), ManualClock::new());
    let source = cache("source", plain().stale_if_error(MINUTE * 60), &clock);
    let source = source.origin(truth.clone()).build().expect("a cache");
    let takes = Duration::from_millis(10);
    let tenfold = Tenfold { takes: Some((clock.clone(), takes)), ..Tenfold::of(&source) };
    let policy = plain().stale_while_revalidate(MINUTE * 60);
    let reports = cache("report", policy, &clock).origin(tenfold.clone());
    let reports = reports.build().expect("a cache");
    read(&source).await;
    truth.say(-1);
    source.expire(&17).await.expect("expired");
    let began = clock.now();
    for _ in 0..1000 {
        let (value, freshness) = read(&reports).await;
        assert!(value == 10 && reason(freshness).is_some());
        let loads = reports.statistics().loads_in_flight;
        settle("what runs has landed", || reports.statistics().loads_in_flight == 0).await;
        assert!(loads <= 1);
        clock.advance(Duration::from_millis(1));
    }
    let elapsed = clock.now().since(began);
    let spent = takes * u32::try_from(tenfold.calls()).expect("few");
    assert!(tenfold.calls() > 10, "it is tried again");
    assert!(spent <= elapsed / 2 + takes, "{spent:?} of {elapsed:?}");
    truth.say(2);
    // The breaker lets a load try.
    clock.advance(MINUTE);
    assert_eq!(read(&source).await, (2, Freshness::Fresh));
    read(&reports).await;
    settle("it recovers", says(&reports, 20)).await;
}
