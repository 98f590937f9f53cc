//! What events of other services invalidate: all of it, once, or nothing.

use std::sync::Arc;
use std::time::Duration;

use larder::event_rules::{CacheSet, Event, EventRule, EventRules, EventTargets, Touched, Verdict};
use larder::{Cache, ErrorKind};
use larder_core::BoxFuture;
use larder_testkit::faulty::FaultyLease;
use serde_json::{Value, json};

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
    let bank = Bank::open(None).await;
    for event in [Event::new("", Value::Null), Event::new(&"x".repeat(300), Value::Null)] {
        assert!(bank.rules.accept(&event).await.is_err());
    }
}

/// Never comes to an end until told.
#[derive(Clone, Default)]
struct Slow(Arc<std::sync::atomic::AtomicBool>);

impl EventTargets for Slow {
    fn check(&self, _: &Touched) -> larder::Result<()> {
        Ok(())
    }

    fn invalidate(&self, _: Touched) -> BoxFuture<'_, larder::Result<()>> {
        let may_end = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { if may_end { Ok(()) } else { std::future::pending().await } })
    }
}

#[tokio::test]
async fn an_event_whose_call_was_dropped_half_way_is_not_taken_for_done() {
    let lease = FaultyLease::new();
    let slow = Slow::default();
    let open = || {
        let rule = EventRule::on("trade.executed").key("portfolio:{account}").expect("a template");
        EventRules::builder(slow.clone()).rule(rule).lease(Arc::new(lease.clone())).build()
    };
    let (one, other) = (open(), open());
    let event = trade("1");
    let dropped = tokio::time::timeout(Duration::from_millis(20), one.accept(&event)).await;
    assert!(dropped.is_err(), "it goes on for ever");
    slow.0.store(true, std::sync::atomic::Ordering::SeqCst);
    // Elsewhere, too, once it is known there.
    let accepted = async {
        while other.accept(&event).await.expect("it is accepted") == Verdict::Repeated {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), accepted).await.expect("it is sent again");
    assert_eq!(other.accept(&event).await.expect("it is known"), Verdict::Repeated);
    assert_eq!(one.accept(&event).await.expect("it is known"), Verdict::Repeated);
}
