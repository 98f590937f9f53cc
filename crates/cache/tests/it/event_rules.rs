//! What events of other services invalidate: all of it, once, or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::event_rules::{
    CLAIM_FOR, CacheSet, EVENT_BYTES_MAX, Event, EventRule, EventRules, EventTargets, Touched,
    Verdict,
};
use larder::{Cache, ErrorKind, Result};
use larder_core::BoxFuture;
use larder_testkit::faulty::FaultyLease;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

fn trade(id: &str) -> Event {
    Event::new("trade.executed", json!({ "account": 7, "symbols": ["A", "B"] })).id(id)
}

struct Bank {
    portfolios: Cache<u64, i64>,
    positions: Cache<String, i64>,
    rules: EventRules,
}

impl Bank {
    async fn open(lease: Option<&FaultyLease>) -> Self {
        let portfolios = Cache::<u64, i64>::builder("portfolio").build().expect("a cache");
        let positions = Cache::<String, i64>::builder("position").build().expect("a cache");
        let rule = EventRule::on("trade.executed").removing();
        let rule = rule.key("portfolio:{account}").expect("a template");
        let rule = rule.key("position:{account}-{symbols}").expect("a template");
        let set = CacheSet::new().cache(&portfolios).cache(&positions);
        let mut builder = EventRules::builder(set).rule(rule);
        if let Some(lease) = lease {
            builder = builder.lease(Arc::new(lease.clone()));
        }
        let bank = Self { portfolios, positions, rules: builder.build() };
        bank.fill().await;
        bank
    }

    async fn fill(&self) {
        self.portfolios.put(&7, 1).await.expect("it is put");
        for key in ["7-A", "7-B", "7-C"] {
            self.positions.put(&key.to_owned(), 1).await.expect("it is put");
        }
    }

    fn held(&self) -> (bool, [bool; 3]) {
        let held = |key: &str| self.positions.get_memory(key).is_some();
        (self.portfolios.get_memory(&7).is_some(), [held("7-A"), held("7-B"), held("7-C")])
    }
}

#[tokio::test]
async fn an_event_invalidates_what_its_rules_say_in_all_caches_once() {
    let bank = Bank::open(None).await;
    let applied = Verdict::Applied { rules: 1, keys: 3, tags: 0, caches: 0 };
    assert_eq!(bank.rules.accept(&trade("1")).await.expect("it is accepted"), applied);
    assert_eq!(bank.held(), (false, [false, false, true]));
    bank.fill().await;
    assert_eq!(bank.rules.accept(&trade("1")).await.expect("it is known"), Verdict::Repeated);
    assert_eq!(bank.held(), (true, [true; 3]));
    assert_eq!(bank.rules.accept(&trade("2")).await.expect("it is accepted"), applied);
    let other = Event::new("other", Value::Null);
    let ignored = Verdict::Applied { rules: 0, keys: 0, tags: 0, caches: 0 };
    assert_eq!(bank.rules.accept(&other).await.expect("nobody cares"), ignored);
    let statistics = bank.rules.statistics();
    assert_eq!((statistics.applied, statistics.repeated, statistics.ignored), (2, 1, 1));
}

#[tokio::test]
async fn what_cannot_be_done_wholly_is_not_done_at_all() {
    let bank = Bank::open(None).await;
    for data in [
        json!({ "account": 7 }),
        json!({ "account": 7, "symbols": ["A", null] }),
        json!({ "account": "no number", "symbols": ["A"] }),
        json!([]),
    ] {
        let event = Event::new("trade.executed", data).id("1");
        let error = bank.rules.accept(&event).await.expect_err("it lacks something");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("trade.executed"), "{error}");
    }
    assert_eq!(bank.held(), (true, [true; 3]));
    assert_eq!(bank.rules.statistics().refused, 4);
    // Nor is its id known.
    assert!(matches!(bank.rules.accept(&trade("1")).await, Ok(Verdict::Applied { .. })));
}

#[tokio::test]
async fn an_event_that_reaches_two_processes_takes_effect_once() {
    let lease = FaultyLease::new();
    let (one, other) = (Bank::open(Some(&lease)).await, Bank::open(Some(&lease)).await);
    assert!(matches!(one.rules.accept(&trade("1")).await, Ok(Verdict::Applied { .. })));
    assert_eq!(other.rules.accept(&trade("1")).await.expect("it is known"), Verdict::Repeated);
    // Where the others cannot be asked, better twice than never.
    lease.set_unreachable(true);
    assert!(matches!(other.rules.accept(&trade("2")).await, Ok(Verdict::Applied { .. })));
}

#[tokio::test]
async fn rules_change_while_events_come() {
    let bank = Bank::open(None).await;
    let rule = EventRule::on("day.ended").cache("portfolio").removing();
    bank.rules.set_rules(vec![rule]);
    let ended = Event::new("day.ended", Value::Null);
    assert!(matches!(bank.rules.accept(&ended).await, Ok(Verdict::Applied { caches: 1, .. })));
    assert_eq!(bank.held(), (false, [true; 3]));
    let gone = Verdict::Applied { rules: 0, keys: 0, tags: 0, caches: 0 };
    assert_eq!(bank.rules.accept(&trade("1")).await.expect("nobody cares"), gone);
}

#[tokio::test]
async fn events_come_in_envelopes() {
    let text = br#"{"specversion":"1.0","type":"a.b","id":"7","data":{"x":1}}"#;
    assert_eq!(
        Event::from_envelope(text).expect("an event"),
        Event::new("a.b", json!({ "x": 1 })).id("7")
    );
    let plain = Event::from_envelope(br#"{"event":"a"}"#).expect("an event");
    assert_eq!(plain, Event::new("a", Value::Null));
    for text in [&b"{"[..], b"[]", b"{}", br#"{"type":7}"#, b"\xff"] {
        let error = Event::from_envelope(text).expect_err("no event");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let large = format!("[{}0]", "0,".repeat((EVENT_BYTES_MAX - 3) / 2));
    assert!(Event::from_json("a", large.as_bytes()).is_ok(), "just as large as it may be");
    for refused in [
        Event::from_json("a", format!("  {large}").as_bytes()),
        Event::from_envelope(format!("{{\"type\":\"a\",\"data\":{large}}}").as_bytes()),
    ] {
        let error = refused.expect_err("it is too large");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("too large"), "{error}");
    }
    let bank = Bank::open(None).await;
    for event in [Event::new("", Value::Null), Event::new(&"x".repeat(300), Value::Null)] {
        assert!(bank.rules.accept(&event).await.is_err());
    }
}

/// What an event touches, each time only once it is let.
#[derive(Clone)]
struct Slow(Arc<Gates>);

struct Gates {
    begun: AtomicUsize,
    done: AtomicUsize,
    may_end: Semaphore,
}

impl Slow {
    fn new() -> Self {
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Gates { begun, done, may_end: Semaphore::new(0) }))
    }

    fn rules(&self, lease: &FaultyLease) -> EventRules {
        let builder = EventRules::builder(self.clone()).lease(Arc::new(lease.clone()));
        builder.rule(EventRule::on("trade.executed").cache("any")).build()
    }

    fn done(&self) -> usize {
        self.0.done.load(Ordering::Relaxed)
    }

    async fn begun(&self) {
        while self.0.begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl EventTargets for Slow {
    fn check(&self, _: &Touched) -> Result<()> {
        Ok(())
    }

    fn invalidate(&self, _: Touched) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.0.begun.fetch_add(1, Ordering::Relaxed);
            self.0.may_end.acquire().await.expect("it is never closed").forget();
            self.0.done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }
}

#[tokio::test]
async fn an_event_whose_sender_leaves_is_acted_upon_all_the_same() {
    let (slow, lease) = (Slow::new(), FaultyLease::new());
    let rules = slow.rules(&lease);
    let event = trade("1");
    tokio::select! {
        biased;
        verdict = rules.accept(&event) => panic!("it is not done: {verdict:?}"),
        () = slow.begun() => {}
    }
    // Nobody waits any more, and it is neither done nor to be taken for it.
    assert_eq!(rules.accept(&event).await.expect("it is known"), Verdict::UnderWay);
    let elsewhere = slow.rules(&lease);
    assert_eq!(elsewhere.accept(&event).await.expect("it is known"), Verdict::UnderWay);
    slow.0.may_end.add_permits(1);
    while rules.accept(&event).await.expect("it is known") == Verdict::UnderWay {
        tokio::task::yield_now().await;
    }
    assert_eq!(rules.accept(&event).await.expect("it is known"), Verdict::Repeated);
    assert_eq!(slow.done(), 1);
    while elsewhere.accept(&event).await.expect("it is known") == Verdict::UnderWay {
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.done(), 1);
}

#[test]
fn an_event_that_a_process_leaves_half_done_is_taken_up_by_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread();
    let (slow, lease) = (Slow::new(), FaultyLease::new());
    let process = runtime().enable_all().build().expect("a runtime");
    process.block_on(async {
        let rules = slow.rules(&lease);
        tokio::spawn(async move { rules.accept(&trade("1")).await });
        slow.begun().await;
    });
    // The process ends.
    drop(process);
    let other = runtime().enable_all().start_paused(true).build().expect("a runtime");
    other.block_on(async {
        let rules = slow.rules(&lease);
        let event = trade("1");
        assert_eq!(rules.accept(&event).await.expect("it may live"), Verdict::UnderWay);
        tokio::time::advance(CLAIM_FOR + Duration::from_millis(1)).await;
        slow.0.may_end.add_permits(1);
        assert!(matches!(rules.accept(&event).await, Ok(Verdict::Applied { caches: 1, .. })));
        assert_eq!(rules.accept(&event).await.expect("it is known"), Verdict::Repeated);
    });
    assert_eq!(slow.done(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_is_remembered_everywhere_for_as_long_as_was_said() {
    let (slow, lease) = (Slow::new(), FaultyLease::new());
    slow.0.may_end.add_permits(9);
    assert!(matches!(slow.rules(&lease).accept(&trade("1")).await, Ok(Verdict::Applied { .. })));
    tokio::time::advance(Duration::from_secs(599)).await;
    let late = slow.rules(&lease).accept(&trade("1")).await;
    assert_eq!(late.expect("it is known"), Verdict::Repeated);
    assert_eq!(slow.done(), 1);
}
