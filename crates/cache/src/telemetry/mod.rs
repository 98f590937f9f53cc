//! What happened, told once: every exit of the pipeline is one [`Event`], and
//! counters, latencies and subscribers all derive from it.

mod counters;
mod event;
mod latency;
mod statistics;

use std::time::Duration;

use larder_core::{Clock, ErrorKind, Moment};
use larder_memory::MemoryStatistics;
use tokio::sync::broadcast;

pub use event::{Event, EventKind, Events};
pub use latency::Latency;
pub use statistics::Statistics;

use crate::hit::StaleReason;
use counters::{Counter, Counters};
use event::Subscribers;
use latency::Recorder;

/// Who ended a load that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndedBy {
    /// The loader itself, or whatever no other name is for.
    Loader,
    /// The hard timeout.
    Timeout,
    /// A panic of the loader or of a rule.
    Panic,
    /// Our breaker.
    Breaker,
}

/// The telemetry of one cache.
pub(crate) struct Telemetry<K> {
    counters: Counters,
    hit_latency: Recorder,
    load_latency: Recorder,
    subscribers: Subscribers<K>,
}

impl<K: Clone> Telemetry<K> {
    pub(crate) fn new() -> Self {
        Self {
            counters: Counters::default(),
            hit_latency: Recorder::default(),
            load_latency: Recorder::default(),
            subscribers: Subscribers::default(),
        }
    }

    /// A fresh hit in memory: the one event whose cost every caller pays.
    #[inline]
    pub(crate) fn hit(&self, key: impl FnOnce() -> K) {
        self.counters.add(Counter::Hit);
        if self.subscribers.any() {
            self.subscribers.send(EventKind::Hit, Some(key()));
        }
    }

    /// The start of a sampled hit, for one in 1024 calls of a thread.
    #[inline]
    pub(crate) fn sample(&self, clock: &Clock) -> Option<Moment> {
        counters::is_sampled().then(|| clock.precise_now())
    }

    /// The end of a sampled hit.
    #[cold]
    pub(crate) fn sampled(&self, started: Moment, clock: &Clock) {
        self.hit_latency.record(clock.precise_now().since(started));
    }

    /// A load that failed, counted by who ended it and not by what its error
    /// says: a loader may fail with a timeout of its own.
    pub(crate) fn load_failed(&self, end: EndedBy, kind: ErrorKind, key: &K) {
        self.counters.add(match end {
            EndedBy::Loader => Counter::LoadFailed,
            EndedBy::Timeout => Counter::LoadTimedOut,
            EndedBy::Panic => Counter::LoadPanicked,
            EndedBy::Breaker => Counter::LoadRefused,
        });
        self.tell(EventKind::LoadFailed(kind), Some(key));
    }

    /// Anything else.
    pub(crate) fn record(&self, kind: EventKind, key: Option<&K>) {
        self.counters.add(Counter::of(kind));
        match kind {
            EventKind::Loaded { cost } => self.load_latency.record(cost),
            EventKind::Stale { age, .. } | EventKind::Derived { age, .. } => {
                self.counters.raise_stale_age(age);
            }
            _ => {}
        }
        self.tell(kind, key);
    }

    fn tell(&self, kind: EventKind, key: Option<&K>) {
        if self.subscribers.any() {
            self.subscribers.send(kind, key.cloned());
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event<K>> {
        self.subscribers.subscribe()
    }

    /// Everything counted so far, beside what memory and the flights say.
    pub(crate) fn snapshot(&self, memory: MemoryStatistics, loads_in_flight: u64) -> Statistics {
        let count = |counter| self.counters.sum(counter);
        Statistics {
            hits: count(Counter::Hit),
            stale_revalidating: count(Counter::StaleRevalidating),
            stale_origin_failed: count(Counter::StaleOriginFailed),
            stale_soft_timeout: count(Counter::StaleSoftTimeout),
            stale_slow_load: count(Counter::StaleSlowLoad),
            stale_suspect: count(Counter::StaleSuspect),
            stale_derived: count(Counter::StaleDerived),
            stale_age_max: self.counters.stale_age_max(),
            misses: count(Counter::Missed),
            store_answers: count(Counter::Found),
            load_answers: count(Counter::Answered),
            joined_answers: count(Counter::Joined),
            fallbacks: count(Counter::Fallback),
            failures: count(Counter::Failed),
            loads: count(Counter::Loaded),
            load_failures: count(Counter::LoadFailed),
            load_timeouts: count(Counter::LoadTimedOut),
            load_panics: count(Counter::LoadPanicked),
            loads_refused_by_breaker: count(Counter::LoadRefused),
            refreshes: count(Counter::Refreshed),
            refreshes_skipped: count(Counter::RefreshSkipped),
            fills_fenced: count(Counter::Fenced),
            puts: count(Counter::Put),
            writes: count(Counter::Written),
            updates: count(Counter::Updated),
            expired_keys: count(Counter::ExpiredKey),
            removed_keys: count(Counter::RemovedKey),
            expired_tags: count(Counter::ExpiredTag),
            removed_tags: count(Counter::RemovedTag),
            clears: count(Counter::Cleared),
            hit_latency: self.hit_latency.snapshot(),
            load_latency: self.load_latency.snapshot(),
            loads_in_flight,
            memory,
        }
    }
}

impl Counter {
    fn of(kind: EventKind) -> Self {
        match kind {
            EventKind::Hit => Self::Hit,
            EventKind::Stale { reason, .. } => match reason {
                StaleReason::Revalidating => Self::StaleRevalidating,
                StaleReason::OriginFailed => Self::StaleOriginFailed,
                StaleReason::SoftTimeout => Self::StaleSoftTimeout,
                StaleReason::SlowLoad => Self::StaleSlowLoad,
                StaleReason::Suspect => Self::StaleSuspect,
            },
            EventKind::Derived { .. } => Self::StaleDerived,
            EventKind::Missed => Self::Missed,
            EventKind::Answered => Self::Answered,
            EventKind::Found => Self::Found,
            EventKind::Joined => Self::Joined,
            EventKind::Fallback => Self::Fallback,
            EventKind::Failed(_) => Self::Failed,
            EventKind::Loaded { .. } => Self::Loaded,
            // Those of our own making are told by `Telemetry::load_failed`.
            EventKind::LoadFailed(_) => Self::LoadFailed,
            EventKind::Refreshed => Self::Refreshed,
            EventKind::RefreshSkipped => Self::RefreshSkipped,
            EventKind::Fenced => Self::Fenced,
            EventKind::Put => Self::Put,
            EventKind::Written => Self::Written,
            EventKind::Updated => Self::Updated,
            EventKind::ExpiredKey => Self::ExpiredKey,
            EventKind::RemovedKey => Self::RemovedKey,
            EventKind::ExpiredTag => Self::ExpiredTag,
            EventKind::RemovedTag => Self::RemovedTag,
            EventKind::Cleared => Self::Cleared,
            EventKind::LeftMemory(_) => Self::LeftMemory,
        }
    }
}

/// A sum of durations in nanoseconds that cannot overflow.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
