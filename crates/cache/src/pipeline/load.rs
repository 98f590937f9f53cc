use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use larder_core::{
    BoxFuture, Class, Entry, Error, ErrorKind, LoadContext, Loaded, Moment, Outcome, Result, Tags,
    Value,
};

use super::departure::Crew;
use larder_memory::Resident;

use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::Flight;
use crate::hit::Held;
use crate::origin::Permit;
use crate::policy::{Answer, Limits, limits};
use crate::telemetry::{EndedBy, EventKind};

/// What a load asks.
pub(crate) enum Source<V> {
    /// The declared origin.
    Origin,
    /// A loader given with the request.
    Once(Box<dyn FnOnce() -> BoxFuture<'static, Result<Loaded<V>>> + Send>),
}

/// A finished call of a source: one answer for each flight.
struct Answers<V> {
    read_at: Moment,
    cost: Duration,
    answers: Vec<Result<Loaded<V>>>,
    /// How those that failed did.
    end: EndedBy,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Runs a load in a task of its own, so that no reader that leaves takes it
    /// along. Whatever becomes of the task, every flight lands. A load without a
    /// place under the load budget waits for one.
    pub(super) fn depart(
        self: &Arc<Self>,
        crew: Crew<K, V>,
        source: Source<V>,
        place: Option<Permit>,
    ) {
        // The crew was counted before this looks: either `shutdown` sees the crew,
        // or this sees that the cache is closing.
        let may_run = self.runtime.check(&self.clock).and_then(|()| self.refuse_when_closing());
        if let Err(error) = may_run {
            let failed = |flight| self.land_failed(flight, EndedBy::Loader, error.clone());
            return crew.flights.iter().for_each(failed);
        }
        let task = async move {
            let answers = crew.engine.ask(&crew.flights, source, place).await;
            let Answers { read_at, cost, answers, end } = answers;
            for (flight, answer) in crew.flights.iter().zip(answers) {
                // Rules are foreign code: one that panics fails its key only.
                let land = || crew.engine.land(flight, answer, read_at, cost, end);
                if catch_unwind(AssertUnwindSafe(land)).is_err() && !flight.has_landed() {
                    let error = panicked("a rule of the cache panicked");
                    crew.engine.land_failed(flight, EndedBy::Panic, error);
                }
            }
        };
        self.runtime.spawn(task);
    }

    /// One call of the source under budget, breaker and hard timeout.
    async fn ask(
        &self,
        flights: &[Arc<Flight<K, V>>],
        source: Source<V>,
        place: Option<Permit>,
    ) -> Answers<V> {
        let first = &flights[0];
        let failed = |end: EndedBy, error: Error| Answers {
            read_at: self.clock.now(),
            cost: Duration::ZERO,
            answers: flights.iter().map(|_| Err(error.clone())).collect(),
            end,
        };
        // Loaders that callers bring along have no health in common.
        let guarded = self.has_breaker;
        // Before the line, so that nobody waits in it for a refusal.
        if guarded && let Err(error) = self.guard.refuse_while_open(&self.clock) {
            return failed(EndedBy::Breaker, error);
        }
        let place = match place {
            Some(place) => Some(place),
            None => self.place(first.deadline).await,
        };
        let Some(_place) = place else {
            return failed(EndedBy::Loader, self.no_place());
        };
        let ticket = match guarded.then(|| self.guard.enter(&self.clock)).transpose() {
            Ok(ticket) => ticket,
            Err(error) => return failed(EndedBy::Breaker, error),
        };
        // The age of every answer counts from here: before the origin is read.
        let read_at = self.clock.now();
        let started = self.clock.precise_now();
        let time = self.policy.load().load_time_max();
        let deadline = first.deadline.min(started + time);
        let call = AssertUnwindSafe(self.call(flights, source, deadline)).catch_unwind();
        let answers = match self.within(deadline, call).await {
            Some(Ok(answers)) => answers.map_err(|error| (EndedBy::Loader, error)),
            Some(Err(_)) => Err((EndedBy::Panic, panicked("the loader panicked"))),
            None => Err((EndedBy::Timeout, self.cancelled(started))),
        };
        // What the line left of the time; a timeout after less than that is ours.
        let had_its_time = deadline.since(started) >= time.mul_f64(0.9);
        let cut_short = matches!(&answers, Err((EndedBy::Timeout, _)));
        if let Some(ticket) = ticket
            && (had_its_time || !cut_short)
        {
            self.guard.settle(ticket, &verdict(&answers), &self.clock);
        }
        match answers {
            Ok(answers) => {
                let cost = self.clock.precise_now().since(started);
                Answers { read_at, cost, answers, end: EndedBy::Loader }
            }
            Err((end, error)) => failed(end, error),
        }
    }

    fn cancelled(&self, started: Moment) -> Error {
        let policy = self.policy.load();
        let error = if policy.load_time_max() < policy.hard_timeout {
            Error::new(ErrorKind::Timeout, "the load was cancelled: its answer would be too old")
                .with("max_age", format_args!("{:?}", policy.load_time_max()))
                .remedy("raise max_age above what the origin takes")
        } else {
            Error::new(ErrorKind::Timeout, "the load was cancelled at its hard timeout")
        };
        error.with("after", format_args!("{:?}", self.clock.precise_now().since(started)))
    }

    /// Calls the source with every key at once.
    async fn call(
        &self,
        flights: &[Arc<Flight<K, V>>],
        source: Source<V>,
        deadline: Moment,
    ) -> Result<Vec<Result<Loaded<V>>>> {
        let origin = match (source, &self.origin) {
            (Source::Once(load), _) => return Ok(vec![load().await]),
            (Source::Origin, Some(origin)) => origin,
            (Source::Origin, None) => {
                return Err(Error::new(ErrorKind::Config, "this cache has no origin to load from")
                    .remedy(
                        "declare one with `origin`, or give the loader with `get_or_load_with`",
                    ));
            }
        };
        let first = &flights[0];
        let mut context = LoadContext::new(first.cause, deadline);
        if flights.len() == 1 {
            if let Some(held) = &first.held {
                let entry = held.entry();
                context = context.holding(entry.version, entry.age(self.clock.now()));
            }
            return Ok(vec![origin.load(&first.key, &context).await]);
        }
        let keys: Vec<K> = flights.iter().map(|flight| flight.key.clone()).collect();
        let answers = origin.load_many(&keys, &context).await;
        if answers.len() != keys.len() {
            return Err(Error::new(ErrorKind::OriginFailed, "the origin did not answer every key")
                .with("asked", keys.len())
                .with("answered", answers.len())
                .remedy("Origin::load_many returns one answer for each key, in order"));
        }
        Ok(answers)
    }

    /// A place under the load budget, waited for until the deadline.
    async fn place(&self, deadline: Moment) -> Option<Permit> {
        if let Some(permit) = self.guard.try_permit(&self.clock) {
            return Some(permit);
        }
        self.within(deadline, self.guard.permit(&self.runtime, &self.clock)).await
    }

    fn no_place(&self) -> Error {
        Error::new(ErrorKind::Overloaded, "no place under the origin's load budget in time")
            .with("origin", self.guard.name())
            .remedy("raise the load budget, or the hard timeout")
    }

    /// The answer of a future, or `None` if the deadline comes first; the future
    /// is dropped then.
    async fn within<T>(&self, deadline: Moment, future: impl Future<Output = T>) -> Option<T> {
        let future = std::pin::pin!(future);
        let sleep = std::pin::pin!(self.runtime.sleep_until(&self.clock, deadline));
        match select(future, sleep).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    /// Ends a flight: keeps the answer if its fence still holds, and tells
    /// everyone who waits.
    fn land(
        &self,
        flight: &Arc<Flight<K, V>>,
        answer: Result<Loaded<V>>,
        read_at: Moment,
        cost: Duration,
        end: EndedBy,
    ) {
        let landing = answer.and_then(|loaded| self.entry(flight, loaded, read_at, cost));
        match landing {
            Ok((entry, limits)) => {
                self.telemetry.record(EventKind::Loaded { cost }, Some(&flight.key));
                let held = self.keep(flight, entry, limits);
                flight.land(Ok(held));
            }
            Err(error) => self.land_failed(flight, end, error),
        }
    }

    pub(super) fn land_failed(&self, flight: &Arc<Flight<K, V>>, end: EndedBy, error: Error) {
        let error = error.with("cache", &self.name);
        self.telemetry.load_failed(end, error.kind(), &flight.key);
        self.flights.leave(flight, || ());
        flight.land(Err(error));
    }

    /// Puts the entry into memory if it is to be kept and nothing came between.
    fn keep(
        &self,
        flight: &Arc<Flight<K, V>>,
        entry: Entry<V>,
        limits: Option<Limits>,
    ) -> Held<K, V> {
        let now = self.clock.now();
        self.reclaim_dead(&flight.key, now);
        let Some(limits) = limits else {
            // A newer answer that is not to be kept leaves nothing older behind.
            self.flights.leave(flight, || self.take_out(&flight.key, now));
            return Held::Detached(Arc::new(entry));
        };
        let mut entry = Some(entry);
        let kept = self.flights.leave(flight, || {
            // Both leave the lock before either is dropped.
            let old = self.memory.peek(&flight.key, now);
            let keep = |entry| self.memory.insert(flight.key.clone(), entry, limits.lifetime, now);
            (old, entry.take().map(keep))
        });
        self.reclaim_a_little();
        let kept = kept.and_then(|(_old, new)| new);
        if kept.as_ref().is_none_or(|kept| self.was_removed(kept.entry())) {
            self.telemetry.record(EventKind::Fenced, Some(&flight.key));
        }
        match (kept, entry) {
            (Some(resident), _) => Held::Resident(resident),
            (None, Some(entry)) => Held::Detached(Arc::new(entry)),
            (None, None) => unreachable!("the entry is either kept or still here"),
        }
    }

    /// Whether a load's answer was removed by tag, or with the whole cache, before
    /// it came.
    fn was_removed(&self, entry: &Entry<V>) -> bool {
        self.memory.watermarks(&entry.tags).removed > entry.version
    }

    /// The entry of a loader's answer, with its limits if it is to be kept.
    fn entry(
        &self,
        flight: &Flight<K, V>,
        loaded: Loaded<V>,
        read_at: Moment,
        cost: Duration,
    ) -> Result<(Entry<V>, Option<Limits>)> {
        let policy = self.policy.load();
        let mut renewed = None;
        let (value, may_keep, tags) = match loaded.outcome {
            Outcome::Found(value) => (value, true, loaded.tags),
            Outcome::DontCache(value) => (value, false, loaded.tags),
            Outcome::NotModified => {
                let held = held(flight)?;
                renewed = Some(held);
                (held.value.clone(), true, loaded.tags.union(&held.tags))
            }
            _ => return Err(Error::new(ErrorKind::Unsupported, "unknown loader outcome")),
        };
        // What still holds is no less sensitive than it was.
        let class = renewed.map_or(policy.class, |held| held.class.max(policy.class));
        let class = loaded.class.unwrap_or(class);
        let of_value = || flight.terms.ttl.or_else(|| self.ttl_rule(&flight.key, &value));
        // What a request says is about a value; absence has a TTL of its own.
        let ttl = loaded.ttl.or_else(|| value.is_present().then(of_value).flatten());
        let tags = tags.union(&flight.terms.tags).union(&self.tag_rule(&flight.key, &value));
        let answer = Answer {
            present: value.is_present(),
            origin_read_at: read_at,
            load_cost: cost,
            ttl,
            // Nor does it hold longer, unless somebody says so.
            at_most: renewed.filter(|_| ttl.is_none()).map(|held| held.age(held.fresh_until)),
            refreshable: self.origin.is_some(),
        };
        let kept = may_keep && class.may_be_cached() && policy.class.may_be_cached();
        let limits = kept.then(|| limits(&policy, &answer)).flatten();
        let entry = self.new_entry(value, flight, &limits, read_at, cost, tags, class);
        Ok((entry, limits))
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one struct, named there")]
    fn new_entry(
        &self,
        value: Value<V>,
        flight: &Flight<K, V>,
        limits: &Option<Limits>,
        read_at: Moment,
        load_cost: Duration,
        tags: Tags,
        class: Class,
    ) -> Entry<V> {
        let (fresh_until, stale_until) =
            limits.as_ref().map_or((read_at, read_at), |l| (l.fresh_until, l.stale_until));
        Entry {
            value,
            version: flight.begun,
            origin_read_at: read_at,
            fresh_until,
            stale_until,
            load_cost,
            tags,
            class,
        }
    }

    pub(crate) fn ttl_rule(&self, key: &K, value: &Value<V>) -> Option<larder_core::Ttl> {
        let (rule, value) = (self.rules.ttl.as_ref()?, value.as_option()?);
        rule(key, value)
    }

    pub(crate) fn tag_rule(&self, key: &K, value: &Value<V>) -> Tags {
        self.rules.tags.as_ref().map_or(Tags::NONE, |rule| rule(key, value.as_option()))
    }
}

/// What "not modified" is said of.
fn held<K, V>(flight: &Flight<K, V>) -> Result<&Entry<V>> {
    flight.held.as_ref().map(Resident::entry).ok_or_else(|| {
        let message = "the loader says \"not modified\" of what is not held";
        Error::new(ErrorKind::OriginFailed, message)
            .remedy("answer not_modified only when LoadContext::held names a version")
    })
}

/// What a call says about the origin's health: one good answer is enough.
fn verdict<V>(answers: &Result<Vec<Result<Loaded<V>>>, (EndedBy, Error)>) -> Result<()> {
    let answers = answers.as_ref().map_err(|(_, error)| error.clone())?;
    let sick = |answer: &&Result<Loaded<V>>| {
        answer.as_ref().is_err_and(|e| {
            matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Panicked)
        })
    };
    let best = answers.iter().find(|answer| answer.is_ok());
    match best.or_else(|| answers.iter().find(sick)).or(answers.first()) {
        Some(Err(error)) => Err(error.clone()),
        _ => Ok(()),
    }
}

/// A panic in foreign code. Its text stays out of the error, which promises to
/// hold neither secrets nor values: the panic hook has told it already.
fn panicked(message: &'static str) -> Error {
    Error::new(ErrorKind::Panicked, message)
        .remedy("see what the program's panic hook wrote, by default to its standard error")
}
