use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use larder_core::{BoxFuture, Error, ErrorKind, LoadContext, Loaded, Moment, Result, Verb};

use super::departure::Crew;
use super::land::Aftermath;
use crate::basis::{self, Basis};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Flight, Landing};
use crate::lower::Lower;
use crate::origin::Permit;
use crate::telemetry::EndedBy;

/// What a load asks.
pub(crate) enum Source<V> {
    /// The declared origin.
    Origin,
    /// Nothing beyond the stores.
    Stores,
    /// A loader given with the request.
    Once(Box<dyn FnOnce() -> BoxFuture<'static, Result<Loaded<V>>> + Send>),
}

impl<V> Source<V> {
    /// What flights that this source was not asked for ask. A loader that a caller
    /// brings along is for one flight.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Origin | Self::Once(_) => Self::Origin,
            Self::Stores => Self::Stores,
        }
    }
}

/// A finished call of a source: one answer for each flight.
pub(super) struct Answers<V> {
    pub(super) read_at: Moment,
    pub(super) cost: Duration,
    pub(super) answers: Vec<Result<Loaded<V>>>,
    /// How those that failed did.
    pub(super) end: EndedBy,
    /// What the call was given by other caches: nobody sees for which of its keys.
    pub(super) basis: Basis,
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
            let engine = Arc::clone(&crew.engine);
            match &engine.behind {
                None => engine.load_through(&crew.flights, source, place).await,
                Some(behind) => engine.load_behind(behind, &crew.flights, source, place).await,
            }
        };
        self.runtime.spawn(task);
    }

    /// Asks the stores, and the source for what none of them has.
    pub(super) async fn load_through(
        self: &Arc<Self>,
        flights: &[Arc<Flight<K, V>>],
        source: Source<V>,
        place: Option<Permit>,
    ) {
        let unanswered;
        let rest = match &self.lower {
            Some(lower) => {
                unanswered = self.consult(lower, flights).await;
                &unanswered
            }
            None => flights,
        };
        match (rest.is_empty(), source) {
            (true, _) => {}
            (false, Source::Stores) => rest.iter().for_each(|flight| self.not_held(flight)),
            (false, source) => match self.lower.as_ref().and_then(Lower::desk) {
                Some((lower, desk)) if self.policy.load().class.may_be_cached() => {
                    self.load_leased(lower, desk, source, rest, place).await;
                }
                _ => self.load_from(source, rest, place).await,
            },
        }
    }

    /// Asks the source for what no store has, in as few calls as its batch limit
    /// allows, all at the same time.
    pub(super) async fn load_from(
        self: &Arc<Self>,
        source: Source<V>,
        flights: &[Arc<Flight<K, V>>],
        mut place: Option<Permit>,
    ) {
        if flights.len() == 1 {
            return self.load_batch(source, flights, place).await;
        }
        let loads = flights
            .chunks(self.origin_batch_limit())
            .map(|batch| self.load_batch(source.again(), batch, place.take()));
        join_all(loads).await;
    }

    /// How many keys one call of the origin takes. Foreign code.
    pub(super) fn origin_batch_limit(&self) -> usize {
        self.origin.as_ref().map_or(1, |origin| origin.batch_limit()).max(1)
    }

    /// Asks the source for what no store has, and tells the stores.
    async fn load_batch(
        self: &Arc<Self>,
        source: Source<V>,
        flights: &[Arc<Flight<K, V>>],
        place: Option<Permit>,
    ) {
        if self.lower.is_some() {
            // What the stores remember may have raised the count.
            flights.iter().for_each(|flight| flight.begin_now(self.begin_version()));
        }
        let Answers { read_at, cost, answers, end, basis } = self.ask(flights, source, place).await;
        let mut fills = Vec::new();
        let mut forgotten = Vec::new();
        for (flight, answer) in flights.iter().zip(answers) {
            // Rules are foreign code: one that panics fails its key only.
            let land = || self.land(flight, answer, read_at, cost, end, basis);
            match catch_unwind(AssertUnwindSafe(land)) {
                Ok(Aftermath::Fill(fill)) => fills.push(fill),
                // What is told of nothing refuses what comes with the same number.
                Ok(Aftermath::Forget) if flight.is_vacant_below() => {}
                Ok(Aftermath::Forget) => forgotten.push(flight),
                Ok(Aftermath::Nothing) => {}
                Err(_) if flight.has_landed() => {}
                Err(_) => {
                    let error = panicked("a rule of the cache panicked");
                    self.land_failed(flight, EndedBy::Panic, error);
                }
            }
        }
        // What was cleared for its class was cleared below, too.
        if self.lower.is_some() && self.policy.load().class.may_be_cached() {
            self.fill(fills).await;
            for flight in forgotten {
                let at = flight.begun().above();
                let key = std::slice::from_ref(&flight.key);
                self.invalidate_stores(key, at, Verb::Remove, false).await;
            }
        }
    }

    /// Tells everyone who waits that no tier has the key.
    pub(super) fn not_held(&self, flight: &Arc<Flight<K, V>>) {
        self.flights.leave(flight, || ());
        flight.land(Landing::NotHeld);
    }

    /// One call of the source under budget, breaker and hard timeout.
    pub(super) async fn ask(
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
            basis: Basis::Fresh,
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
        let (ended, basis) = self.within(deadline, basis::observe(call)).await.unzip();
        let answers = match ended {
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
                let basis = basis.unwrap_or(Basis::Fresh);
                Answers { read_at, cost, answers, end: EndedBy::Loader, basis }
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
            (Source::Origin | Source::Stores, Some(origin)) => origin,
            (Source::Origin | Source::Stores, None) => {
                return Err(Error::new(ErrorKind::Config, "this cache has no origin to load from")
                    .remedy(
                        "declare one with `origin`, or give the loader with `get_or_load_with`",
                    ));
            }
        };
        let first = &flights[0];
        let mut context = LoadContext::new(first.cause, deadline);
        if flights.len() == 1 {
            if let Some(entry) = self.renewable(first) {
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
