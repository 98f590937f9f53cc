//! What events of other services invalidate (I2).
//!
//! ```
//! use larder::event_rules::{CacheSet, Event, EventRule, EventRules, Verdict};
//! use larder::{Cache, Result};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let portfolios = Cache::<u64, f64>::builder("portfolio").build()?;
//! portfolios.put(&7, 12.5).await?;
//! let rules = EventRules::builder(CacheSet::new().cache(&portfolios))
//!     .rule(EventRule::on("trade.executed").key("portfolio:{account_id}")?.removing())
//!     .build();
//!
//! let trade = Event::new("trade.executed", json!({ "account_id": 7 })).id("t-1");
//! assert!(matches!(rules.accept(&trade).await?, Verdict::Applied { keys: 1, .. }));
//! assert!(portfolios.get(&7).await?.is_none());
//! assert_eq!(rules.accept(&trade).await?, Verdict::Repeated);
//! # Ok(()) }
//! ```

mod cache_set;
mod remembered;
mod rule;
mod template;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use larder_core::{
    BoxFuture, Clock, DynLease, Error, ErrorKind, Key, LeaseGrant, LeaseToken, Result,
};
use parking_lot::Mutex;
use serde_json::Value;

pub use cache_set::CacheSet;
use remembered::{Begun, Remembered};
pub use rule::{EventRule, FAN_OUT_MAX, Touched};
pub use template::{Template, TemplateError};

/// Something that happened elsewhere.
#[derive(Clone, PartialEq, Debug)]
#[must_use = "an event does nothing before it is accepted"]
pub struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// Where rules take effect.
pub trait EventTargets: Send + Sync + 'static {
    /// Whether everything that is touched is there, so that nothing is half done.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the first that is not.
    fn check(&self, touched: &Touched) -> Result<()>;

    /// Invalidates it.
    ///
    /// # Errors
    /// As [`crate::Cache::invalidate`].
    fn invalidate(&self, touched: Touched) -> BoxFuture<'_, Result<()>>;
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// These were invalidated. None at all if no rule is about it.
    Applied {
        /// Rules whose conditions held.
        rules: usize,
        /// Keys.
        keys: usize,
        /// Tags.
        tags: usize,
        /// Whole caches.
        caches: usize,
    },
    /// One with this id was accepted before: nothing was done.
    Repeated,
    /// One with this id is being acted upon at this moment, here or by another process:
    /// nothing was done. Who sends it again learns what became of it; a process that
    /// ends meanwhile leaves it to whoever is told of it [`CLAIM_FOR`] later.
    UnderWay,
}

/// For so long nobody else acts upon an event that a process has begun to act upon.
pub const CLAIM_FOR: Duration = Duration::from_secs(20);

/// What rules have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EventStatistics {
    /// Events acted upon.
    pub applied: u64,
    /// Events that no rule is about, or whose conditions did not hold.
    pub ignored: u64,
    /// Events whose id was known, or that were under way.
    pub repeated: u64,
    /// Events that were no such thing: bad JSON, a member missing.
    pub refused: u64,
    /// Events that could not be acted upon fully: to be sent again.
    pub failed: u64,
}

/// Rules, and what they take effect on. Cloning costs a reference count.
#[derive(Clone)]
pub struct EventRules(Arc<Shared>);

struct Shared {
    targets: Arc<dyn EventTargets>,
    rules: ArcSwap<Vec<EventRule>>,
    remembered: Mutex<Remembered>,
    remember_for: Duration,
    lease: Option<Arc<dyn DynLease>>,
    clock: Clock,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    applied: AtomicU64,
    ignored: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// Makes [`EventRules`].
#[must_use]
pub struct EventRulesBuilder {
    targets: Arc<dyn EventTargets>,
    rules: Vec<EventRule>,
    remember_for: Duration,
    remember_most: usize,
    lease: Option<Arc<dyn DynLease>>,
    clock: Clock,
}

/// A name is no longer than this, nor an id.
const NAME_BYTES_MAX: usize = 256;

/// The JSON of an event is no longer than this: read, it takes many times as much.
pub const EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;

fn check_size(text: &[u8]) -> Result<()> {
    if text.len() <= EVENT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "an event is too large")
        .with("bytes", text.len())
        .with("limit", EVENT_BYTES_MAX)
        .remedy("send what the rules need of it, or send it in parts"))
}

impl Event {
    /// An event without an id: each time it is sent it is acted upon.
    pub fn new(name: &str, data: Value) -> Self {
        Self { name: name.to_owned(), id: None, data }
    }

    /// An event whose data is JSON text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where it is not, and for more than
    /// [`EVENT_BYTES_MAX`].
    pub fn from_json(name: &str, text: &[u8]) -> Result<Self> {
        check_size(text)?;
        let data = serde_json::from_slice(text).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the event's data is no JSON")
                .with("event", name)
                .with("reason", error)
        })?;
        Ok(Self::new(name, data))
    }

    /// One event in JSON, as CloudEvents writes it: `type` or `event`, `id` and `data`.
    ///
    /// # Errors
    /// As [`Event::from_json`].
    pub fn from_envelope(text: &[u8]) -> Result<Self> {
        check_size(text)?;
        let wrong = |what| Error::new(ErrorKind::InvalidInput, what);
        let remedy = "send {\"type\": \"trade.executed\", \"id\": \"…\", \"data\": {…}}";
        let envelope: Value = serde_json::from_slice(text)
            .map_err(|error| wrong("an event is no JSON").with("reason", error).remedy(remedy))?;
        let text = |name: &str| envelope.get(name).and_then(Value::as_str);
        let name = text("type").or_else(|| text("event"));
        let name = name.ok_or_else(|| wrong("an event has no type").remedy(remedy))?;
        let data = envelope.get("data").cloned().unwrap_or(Value::Null);
        Ok(Self { name: name.to_owned(), id: text("id").map(str::to_owned), data })
    }

    /// What tells it from every other of its name: one that was acted upon is not
    /// again.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<()> {
        let is_too_long = |text: &str| text.is_empty() || text.len() > NAME_BYTES_MAX;
        if is_too_long(&self.name) || self.id.as_deref().is_some_and(is_too_long) {
            return Err(Error::new(ErrorKind::InvalidInput, "a name or id is empty or too long")
                .with("bytes_max", NAME_BYTES_MAX));
        }
        Ok(())
    }
}

impl EventRules {
    /// No rules yet for these caches.
    pub fn builder(targets: impl EventTargets) -> EventRulesBuilder {
        EventRulesBuilder {
            targets: Arc::new(targets),
            rules: Vec::new(),
            remember_for: Duration::from_secs(600),
            remember_most: 100_000,
            lease: None,
            clock: Clock::monotonic(),
        }
    }

    /// Has other rules hold from now on.
    pub fn set_rules(&self, rules: Vec<EventRule>) {
        self.0.rules.store(Arc::new(rules));
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> EventStatistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.0.counts;
        EventStatistics {
            applied: count(&counts.applied),
            ignored: count(&counts.ignored),
            repeated: count(&counts.repeated),
            refused: count(&counts.refused),
            failed: count(&counts.failed),
        }
    }

    /// Counts what arrived and was no event.
    pub fn note_refused(&self) {
        self.0.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Acts upon an event: all of what its rules say, or an error. Costs what the
    /// invalidations do, and three round trips for its id where processes share leases.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an event that is not what the rules need:
    /// nothing has been done, and sending it again does not help. Others as
    /// [`crate::Cache::invalidate`]: it is to be sent again.
    ///
    /// # Cancel safety
    /// What has begun goes on to its end, whether anybody waits for it or not.
    pub async fn accept(&self, event: &Event) -> Result<Verdict> {
        let counts = &self.0.counts;
        let verdict = self.0.accept(event).await;
        let counter = match &verdict {
            Ok(Verdict::Applied { rules: 0, .. }) => &counts.ignored,
            Ok(Verdict::Applied { .. }) => &counts.applied,
            Ok(Verdict::Repeated | Verdict::UnderWay) => &counts.repeated,
            Err(error) if error.kind() == ErrorKind::InvalidInput => &counts.refused,
            Err(_) => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        verdict
    }

    /// What an event would touch, rule by rule, without doing it.
    ///
    /// # Errors
    /// As [`EventRules::accept`] for an event that is refused.
    pub fn preview(&self, event: &Event) -> Result<Vec<Touched>> {
        self.0.touched(event)
    }
}

impl Shared {
    fn touched(&self, event: &Event) -> Result<Vec<Touched>> {
        event.check()?;
        let rules = self.rules.load();
        let rules = rules.iter().filter(|rule| rule.event == event.name);
        let mut touched = Vec::new();
        for rule in rules {
            let named = |error: Error| error.with("event", &event.name);
            touched.extend(rule.touched(&event.data).map_err(named)?);
        }
        for it in &touched {
            self.targets.check(it).map_err(|error| error.with("event", &event.name))?;
        }
        Ok(touched)
    }

    /// In a task of its own: an event whose caller leaves must not be known and half
    /// done.
    async fn accept(self: &Arc<Self>, event: &Event) -> Result<Verdict> {
        let touched = self.touched(event)?;
        if touched.is_empty() {
            return Ok(Verdict::Applied { rules: 0, keys: 0, tags: 0, caches: 0 });
        }
        let name = event.id.as_ref().map(|id| format!("event:{}:{id}", event.name));
        let acting = tokio::spawn(Arc::clone(self).act(name, touched));
        let done = acting.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panicked, "what an event invalidates was cut short")
                .remedy("send it again"))
        });
        done.map_err(|error| error.with("event", &event.name))
    }

    async fn act(self: Arc<Self>, name: Option<String>, touched: Vec<Touched>) -> Result<Verdict> {
        let claim = match name {
            None => None,
            Some(name) => match self.claim(name).await {
                Ok(claim) => Some(claim),
                Err(verdict) => return Ok(verdict),
            },
        };
        let mut verdict = (touched.len(), 0, 0, 0);
        for it in touched {
            verdict.1 += it.keys.len();
            verdict.2 += it.tags.len();
            verdict.3 += it.caches.len();
            if let Err(error) = self.targets.invalidate(it).await {
                if let Some(claim) = &claim {
                    claim.release().await;
                }
                return Err(error);
            }
        }
        if let Some(claim) = claim {
            claim.keep().await;
        }
        let (rules, keys, tags, caches) = verdict;
        Ok(Verdict::Applied { rules, keys, tags, caches })
    }

    /// Takes an event's id, here and where others see it, unless it is known.
    async fn claim(self: &Arc<Self>, name: String) -> Result<Claim, Verdict> {
        match self.remembered.lock().begin(&name, self.clock.now()) {
            Begun::First => {}
            Begun::UnderWay => return Err(Verdict::UnderWay),
            Begun::Done => return Err(Verdict::Repeated),
        }
        let mut claim = Claim { shared: Arc::clone(self), name, token: None };
        // One that cannot be asked does not keep an event from taking effect: that it
        // does so twice is harmless.
        match claim.acquire(CLAIM_FOR).await {
            Some(LeaseGrant::Granted(token)) => claim.token = Some(token),
            // What is done is remembered for longer.
            Some(LeaseGrant::Held(left)) if left <= CLAIM_FOR => return Err(Verdict::UnderWay),
            Some(LeaseGrant::Held(_)) => {
                claim.note_done();
                return Err(Verdict::Repeated);
            }
            None => {}
        }
        Ok(claim)
    }
}

/// An event that is being acted upon. Dropped, it is to be sent again.
struct Claim {
    shared: Arc<Shared>,
    name: String,
    token: Option<LeaseToken>,
}

impl Claim {
    /// Others learn that it is done, for as long as it is remembered.
    async fn keep(self) {
        self.note_done();
        if self.token.is_some() {
            self.release().await;
            let _ = self.acquire(self.shared.remember_for + CLAIM_FOR).await;
        }
    }

    fn note_done(&self) {
        self.shared.remembered.lock().end(&self.name);
    }

    async fn acquire(&self, duration: Duration) -> Option<LeaseGrant> {
        let key = [Key::new(&self.name)];
        match self.shared.lease.as_ref()?.acquire_many(&key, duration).await {
            Ok(grants) => grants.into_iter().next(),
            Err(error) => {
                tracing::debug!(%error, "an event's id is known here only");
                None
            }
        }
    }

    async fn release(&self) {
        if let (Some(lease), Some(token)) = (&self.shared.lease, self.token) {
            let _ = lease.release_many(&[(Key::new(&self.name), token)]).await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.remembered.lock().give_back(&self.name);
    }
}

impl EventRulesBuilder {
    /// Adds a rule. Several may be about one event: all of them take effect.
    pub fn rule(mut self, rule: EventRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// For how long, and of how many events, ids are remembered. Default 10 minutes and
    /// 100 000.
    pub fn remember(mut self, kept_for: Duration, most: usize) -> Self {
        (self.remember_for, self.remember_most) = (kept_for, most);
        self
    }

    /// Remembers ids where other processes do, too, so that an event that reaches
    /// several of them takes effect once.
    pub fn lease(mut self, lease: Arc<dyn DynLease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// What tells for how long ids are remembered. Default: the monotonic clock.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// The rules.
    #[must_use]
    pub fn build(self) -> EventRules {
        EventRules(Arc::new(Shared {
            targets: self.targets,
            rules: ArcSwap::from_pointee(self.rules),
            remembered: Mutex::new(Remembered::new(self.remember_most, self.remember_for)),
            remember_for: self.remember_for,
            lease: self.lease,
            clock: self.clock,
            counts: Counts::default(),
        }))
    }
}

impl fmt::Debug for EventRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRules").field("rules", &self.0.rules.load().len()).finish()
    }
}
