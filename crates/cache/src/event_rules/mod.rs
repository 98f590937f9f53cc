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
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use larder_core::{BoxFuture, DynLease, Error, ErrorKind, Key, LeaseGrant, LeaseToken, Result};
use parking_lot::Mutex;
use serde_json::Value;

pub use cache_set::CacheSet;
use remembered::Remembered;
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
}

/// What rules have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EventStatistics {
    /// Events acted upon.
    pub applied: u64,
    /// Events that no rule is about, or whose conditions did not hold.
    pub ignored: u64,
    /// Events whose id was known.
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
}

/// A name is no longer than this, nor an id.
const NAME_BYTES_MAX: usize = 256;

impl Event {
    /// An event without an id: each time it is sent it is acted upon.
    pub fn new(name: &str, data: Value) -> Self {
        Self { name: name.to_owned(), id: None, data }
    }

    /// An event whose data is JSON text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where it is not.
    pub fn from_json(name: &str, text: &[u8]) -> Result<Self> {
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
    /// [`ErrorKind::InvalidInput`] for what is no such thing.
    pub fn from_envelope(text: &[u8]) -> Result<Self> {
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
    /// invalidations do, and a round trip for its id where processes share leases.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an event that is not what the rules need:
    /// nothing has been done, and sending it again does not help. Others as
    /// [`crate::Cache::invalidate`]: it is to be sent again.
    ///
    /// # Cancel safety
    /// A dropped call may have done a part, and the event is to be sent again.
    pub async fn accept(&self, event: &Event) -> Result<Verdict> {
        let counts = &self.0.counts;
        let verdict = self.0.accept(event).await;
        let counter = match &verdict {
            Ok(Verdict::Applied { rules: 0, .. }) => &counts.ignored,
            Ok(Verdict::Applied { .. }) => &counts.applied,
            Ok(Verdict::Repeated) => &counts.repeated,
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

    async fn accept(self: &Arc<Self>, event: &Event) -> Result<Verdict> {
        let touched = self.touched(event)?;
        let mut verdict = (touched.len(), 0, 0, 0);
        if touched.is_empty() {
            return Ok(Verdict::Applied { rules: 0, keys: 0, tags: 0, caches: 0 });
        }
        let Some(mut claim) = self.claim(event).await else { return Ok(Verdict::Repeated) };
        for it in touched {
            verdict.1 += it.keys.len();
            verdict.2 += it.tags.len();
            verdict.3 += it.caches.len();
            if let Err(error) = self.targets.invalidate(it).await {
                claim.give_back().await;
                return Err(error.with("event", &event.name));
            }
        }
        claim.name = None;
        let (rules, keys, tags, caches) = verdict;
        Ok(Verdict::Applied { rules, keys, tags, caches })
    }

    /// Remembers an event's id, here and where others see it. `None`: it is known.
    async fn claim(self: &Arc<Self>, event: &Event) -> Option<Claim> {
        let claim = |name| Claim { shared: Arc::clone(self), name, token: None };
        let Some(id) = &event.id else { return Some(claim(None)) };
        let name = format!("event:{}:{id}", event.name);
        if !self.remembered.lock().note(&name, Instant::now()) {
            return None;
        }
        let mut claim = claim(Some(name.clone()));
        if let Some(lease) = &self.lease {
            let key = [Key::new(&name)];
            // One that cannot be asked does not keep an event from taking effect: that
            // it does so twice is harmless.
            match lease.acquire_many(&key, self.remember_for).await.map(|it| it.into_iter().next())
            {
                // Whoever has it may fail: then it is sent again, perhaps to this process.
                Ok(Some(LeaseGrant::Held(_))) => return None,
                Ok(Some(LeaseGrant::Granted(token))) => claim.token = Some(token),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "an event's id is known here only"),
            }
        }
        Some(claim)
    }
}

/// An event that is being acted upon, by its id if it has one. Dropped before all of it
/// was done it is not known any more: it will be sent again.
struct Claim {
    shared: Arc<Shared>,
    /// Taken out once it is done, or given back.
    name: Option<String>,
    token: Option<LeaseToken>,
}

impl Claim {
    /// It is to be sent again.
    async fn give_back(&mut self) {
        if let Some(release) = self.forget() {
            release.await;
        }
    }

    /// Forgets it here. Returns what forgets it elsewhere.
    fn forget(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let name = self.name.take()?;
        self.shared.remembered.lock().forget(&name);
        let lease = [(Key::new(&name), self.token?)];
        let desk = self.shared.lease.clone()?;
        Some(async move {
            // One that cannot be given back runs out.
            let _ = desk.release_many(&lease).await;
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let release = self.forget();
        if let (Some(release), Ok(runtime)) = (release, tokio::runtime::Handle::try_current()) {
            runtime.spawn(release);
        }
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

    /// The rules.
    #[must_use]
    pub fn build(self) -> EventRules {
        EventRules(Arc::new(Shared {
            targets: self.targets,
            rules: ArcSwap::from_pointee(self.rules),
            remembered: Mutex::new(Remembered::new(self.remember_most, self.remember_for)),
            remember_for: self.remember_for,
            lease: self.lease,
            counts: Counts::default(),
        }))
    }
}

impl fmt::Debug for EventRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRules").field("rules", &self.0.rules.load().len()).finish()
    }
}
