use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::{Either, select};
use larder_core::{Entry, Error, ErrorKind, LoadCause, Moment, Result, Value};
use larder_memory::{Resident, Standing};

use super::departure::Crew;
use super::load::Source;
use crate::basis::{self, Basis};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Boarded, Flight, Landing, Terms};
use crate::hit::{Held, Hit, Label, StaleReason, Tier};
use crate::telemetry::EventKind;

/// What one read asks for beyond its key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) terms: Terms,
    /// When the caller gives up, if before the policy's hard timeout.
    pub(crate) deadline: Option<Moment>,
}

/// Until when a reader waits: with something stale at hand, and at all.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) soft: Moment,
    pub(crate) hard: Moment,
    /// Whether `hard` is the caller's deadline and not the policy's.
    is_callers: bool,
}

/// What a wait for a load brought.
enum Brought<K, V> {
    Answer(Held<K, V>, Tier, Basis),
    NotHeld,
    Failure(StaleReason, Error),
}

/// How a wait for a load ended.
enum Waited<'f, K, V> {
    Landed(&'f Landing<K, V>),
    SoftTimeout,
    HardTimeout,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// What memory has, if it may be served without waiting. The hot path: the
    /// answer is put together where it is used.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "measured: a hit costs a sixth less")]
    pub(crate) fn look<Q>(self: &Arc<Self>, key: &Q) -> Option<Hit<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.clock.now();
        let (resident, label) =
            self.look_and(key, now, |resident, cause| self.refresh(resident, cause))?;
        Some(Hit::new(Held::Resident(resident), label, Tier::Memory, now))
    }

    /// Counts a read that ends with nothing.
    #[cold]
    pub(crate) fn missed(&self) -> Option<Hit<K, V>> {
        self.telemetry.record(EventKind::Missed, None);
        None
    }

    /// [`Engine::look`] with a refresh that is due left to the caller, who says
    /// whether one is under way. What it returns fits in two registers: whoever
    /// waits for it does not read back from memory what was just written there.
    #[inline]
    pub(super) fn look_and<Q>(
        self: &Arc<Self>,
        key: &Q,
        now: Moment,
        refresh: impl FnOnce(&Resident<K, V>, LoadCause) -> bool,
    ) -> Option<(Resident<K, V>, Label)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let sampled = self.telemetry.sample(&self.clock);
        if !self.trusts_memory(now) {
            return None;
        }
        let resident = self.memory.get(key, now)?;
        let label = if resident.needs_attention(now) {
            self.attend(&resident, now, refresh)?
        } else {
            Label::Fresh
        };
        if label == Label::Fresh {
            self.telemetry.hit(|| resident.key().clone());
        }
        if let Some(started) = sampled {
            self.telemetry.sampled(started, &self.clock);
        }
        Some((resident, label))
    }

    /// Answers from the tiers below memory, or not at all.
    ///
    /// # Cancel safety
    /// A dropped call does not stop the read; what it finds is kept.
    pub(crate) async fn find(self: &Arc<Self>, key: &K) -> Result<Option<Hit<K, V>>> {
        if self.refuse_when_closing().is_err() {
            return Ok(self.missed());
        }
        let request = Request::default();
        let patience = self.patience(&request);
        let flight = match self.board(key, &request.terms) {
            Boarded::Landed(resident) => {
                self.telemetry.hit(|| key.clone());
                let now = self.clock.now();
                let held = Held::Resident(resident);
                return Ok(Some(Hit::new(held, Label::Fresh, Tier::Memory, now)));
            }
            // A load that runs will have it sooner than anybody else.
            Boarded::Joined(flight) => flight,
            Boarded::Began(flight) => {
                let mut crew = Crew::new(self);
                crew.board(Arc::clone(&flight));
                self.depart(crew, Source::Stores, None);
                flight
            }
        };
        match self.await_landing(&flight, patience).await {
            Brought::Answer(held, ..) if self.is_invalidated(key, held.entry()) => {
                Ok(self.missed())
            }
            Brought::Answer(held, tier, basis) => {
                self.landed(key, held, tier, basis, EventKind::Answered).map(Some)
            }
            Brought::NotHeld | Brought::Failure(..) => Ok(self.missed()),
        }
    }

    /// Answers from a load: this caller's, or one that runs already.
    ///
    /// # Cancel safety
    /// A dropped call does not stop the load; its answer is kept.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &K,
        request: Request,
        source: Source<V>,
    ) -> Result<Hit<K, V>> {
        let patience = self.patience(&request);
        loop {
            if let Err(error) = self.refuse_when_closing() {
                return self.degrade(key, StaleReason::OriginFailed, error);
            }
            match self.board(key, &request.terms) {
                Boarded::Landed(resident) => {
                    self.telemetry.hit(|| key.clone());
                    let now = self.clock.now();
                    let held = Held::Resident(resident);
                    return Ok(Hit::new(held, Label::Fresh, Tier::Memory, now));
                }
                Boarded::Joined(flight) => {
                    if let Some(answer) = self.join(&flight, patience).await {
                        return answer;
                    }
                }
                Boarded::Began(flight) => {
                    let mut crew = Crew::new(self);
                    crew.board(Arc::clone(&flight));
                    self.depart(crew, source, None);
                    return self.await_own(&flight, patience).await;
                }
            }
        }
    }

    /// The answer of a load that this reader began. What was invalidated since
    /// was invalidated while this reader waited, so it may still have it.
    pub(crate) async fn await_own(
        &self,
        flight: &Flight<K, V>,
        patience: Patience,
    ) -> Result<Hit<K, V>> {
        match self.await_landing(flight, patience).await {
            Brought::Answer(held, tier, basis) => {
                self.landed(&flight.key, held, tier, basis, EventKind::Answered)
            }
            Brought::Failure(reason, error) => self.degrade(&flight.key, reason, error),
            Brought::NotHeld => {
                let error = Error::new(ErrorKind::Unsupported, "a load did not ask the origin");
                self.degrade(&flight.key, StaleReason::OriginFailed, error)
            }
        }
    }

    /// The answer of a load that another reader began. `None`: it was
    /// invalidated since the load began, perhaps before this reader came, who
    /// must load anew; or the other reader asked the stores only.
    pub(crate) async fn join(
        &self,
        flight: &Flight<K, V>,
        patience: Patience,
    ) -> Option<Result<Hit<K, V>>> {
        match self.await_landing(flight, patience).await {
            Brought::Answer(held, ..) if self.is_invalidated(&flight.key, held.entry()) => None,
            Brought::Answer(held, tier, basis) => {
                Some(self.landed(&flight.key, held, tier, basis, EventKind::Joined))
            }
            Brought::Failure(reason, error) => Some(self.degrade(&flight.key, reason, error)),
            Brought::NotHeld => None,
        }
    }

    async fn await_landing(&self, flight: &Flight<K, V>, patience: Patience) -> Brought<K, V> {
        match self.wait(flight, patience).await {
            Waited::Landed(Landing::Answer { held, tier, basis }) => {
                Brought::Answer(held.clone(), *tier, *basis)
            }
            Waited::Landed(Landing::NotHeld) => Brought::NotHeld,
            Waited::Landed(Landing::Failed(error)) => {
                Brought::Failure(StaleReason::OriginFailed, error.clone())
            }
            Waited::SoftTimeout => Brought::Failure(
                StaleReason::SoftTimeout,
                self.timeout("no answer within the soft timeout"),
            ),
            Waited::HardTimeout => {
                let message = if patience.is_callers {
                    "no answer by the caller's deadline; the load goes on"
                } else {
                    "no answer within the hard timeout"
                };
                Brought::Failure(StaleReason::OriginFailed, self.timeout(message))
            }
        }
    }

    /// The caller's limit, or the policy's.
    pub(crate) fn patience(&self, request: &Request) -> Patience {
        let (now, policy) = (self.clock.precise_now(), self.policy.load());
        let (soft, hard) = (now + policy.soft_timeout, now + policy.hard_timeout);
        match request.deadline.filter(|deadline| *deadline < hard) {
            Some(deadline) => Patience { soft, hard: deadline, is_callers: true },
            None => Patience { soft, hard, is_callers: false },
        }
    }

    /// Joins the key's flight or begins one.
    pub(crate) fn board(self: &Arc<Self>, key: &K, terms: &Terms) -> Boarded<K, V> {
        let now = self.clock.now();
        if !self.policy.load().class.may_be_cached() {
            // Not even for the length of a load: each reader asks for itself.
            let flight = self.flight(key.clone(), LoadCause::Miss, None, terms.clone());
            return Boarded::Began(Arc::new(flight));
        }
        let is_servable = |held: &Resident<K, V>| held.is_fresh(now) && self.trusts_memory(now);
        let fresh = || self.memory.peek(key, now).filter(is_servable);
        let begin = || {
            let held = self.memory.peek(key, now);
            let cause = if held.is_some() { LoadCause::Revalidation } else { LoadCause::Miss };
            Ok::<_, Infallible>(self.flight(key.clone(), cause, held, terms.clone()))
        };
        loop {
            let Ok(boarded) = self.flights.board(key, fresh, begin);
            match boarded {
                // It is for those who wait already.
                Boarded::Joined(flight) if self.may_be_behind(&flight, now) => {
                    self.flights.fence_one(&flight);
                }
                boarded => return boarded,
            }
        }
    }

    /// Whether a load may bring what was invalidated longer ago than a node may be
    /// behind: nobody who is not heard of takes it out of the table.
    fn may_be_behind(&self, flight: &Flight<K, V>, now: Moment) -> bool {
        let Some(seat) = &self.seat else { return false };
        !self.trusts_memory(now) && flight.began_at + seat.fleet.staleness_bound() < now
    }

    pub(super) fn flight(
        &self,
        key: K,
        cause: LoadCause,
        held: Option<Resident<K, V>>,
        terms: Terms,
    ) -> Flight<K, V> {
        let begun = self.begin_version();
        let began_at = self.clock.precise_now();
        let deadline = began_at + self.policy.load().hard_timeout;
        Flight::new(key, begun, cause, began_at, deadline, held, terms)
    }

    /// Waits until the flight lands, the soft timeout passes with a stale answer
    /// at hand, or the reader's time is up.
    async fn wait<'f>(&self, flight: &'f Flight<K, V>, patience: Patience) -> Waited<'f, K, V> {
        let Patience { soft, hard: deadline, .. } = patience;
        let mut landing = std::pin::pin!(flight.landing());
        if soft < deadline && self.is_servable_meanwhile(&flight.key) {
            let sleep = std::pin::pin!(self.runtime.sleep_until(&self.clock, soft));
            match select(landing.as_mut(), sleep).await {
                Either::Left((landing, _)) => return Waited::Landed(landing),
                // It may have been removed while we waited.
                Either::Right(_) if self.is_servable_meanwhile(&flight.key) => {
                    return Waited::SoftTimeout;
                }
                Either::Right(_) => {}
            }
        }
        let sleep = std::pin::pin!(self.runtime.sleep_until(&self.clock, deadline));
        match select(landing, sleep).await {
            Either::Left((landing, _)) => Waited::Landed(landing),
            Either::Right(_) => Waited::HardTimeout,
        }
    }

    /// Whether a load's answer was invalidated, by tag or with the whole cache,
    /// after the load began. That the latest watermark is newer than a reader
    /// would prove nothing: it hides an earlier one that is not.
    pub(super) fn is_invalidated(&self, key: &K, entry: &Entry<V>) -> bool {
        let marks = self.memory.watermarks(&entry.tags);
        marks.removed.max(marks.expired) > entry.version
            || matches!(self.standing(key, entry), Standing::Touched(_))
    }

    /// How a load's answer stands with gradual changes.
    pub(super) fn standing(&self, key: &K, entry: &Entry<V>) -> Standing {
        self.memory.standing(key, entry.version, &entry.tags, self.clock.now())
    }

    /// The best answer without the origin (R5): stale within its cap, the
    /// declared fallback, the error. Always labelled.
    pub(crate) fn degrade(&self, key: &K, reason: StaleReason, error: Error) -> Result<Hit<K, V>> {
        let now = self.clock.now();
        if let Some(resident) = self.servable_on_error(key) {
            let label = if resident.is_fresh(now) && self.trusts_memory(now) {
                self.telemetry.hit(|| key.clone());
                Label::Fresh
            } else {
                self.stale(&resident, now, reason)
            };
            return Ok(Hit::new(Held::Resident(resident), label, Tier::Memory, now));
        }
        let fallback = self.rules.fallback.as_ref().and_then(|fallback| fallback(key));
        if let Some(value) = fallback {
            basis::note(Basis::Fallback);
            self.telemetry.record(EventKind::Fallback, Some(key));
            let entry = crate::hit::fallback_entry(Value::Present(value), now);
            return Ok(Hit::new(
                Held::Detached(Arc::new(entry)),
                Label::Fallback,
                Tier::Fallback,
                now,
            ));
        }
        self.telemetry.record(EventKind::Failed(error.kind()), Some(key));
        Err(error)
    }

    /// Whether there is something to serve while the origin takes its time: not
    /// what other nodes may have removed.
    fn is_servable_meanwhile(&self, key: &K) -> bool {
        let is_sound = |held: Resident<K, V>| {
            self.trusts_memory(self.clock.now()) && !self.is_doubted(held.entry().version)
        };
        self.servable_on_error(key).is_some_and(is_sound)
    }

    fn servable_on_error(&self, key: &K) -> Option<Resident<K, V>> {
        let now = self.clock.now();
        let window = self.policy.load().stale_if_error;
        self.memory.peek(key, now).filter(|resident| now < resident.fresh_until() + window)
    }

    pub(super) fn stale(
        &self,
        resident: &Resident<K, V>,
        now: Moment,
        reason: StaleReason,
    ) -> Label {
        let age = resident.entry().age(now);
        basis::note(Basis::Stale(reason));
        self.telemetry.record(EventKind::Stale { age, reason }, Some(resident.key()));
        Label::Stale(reason)
    }

    /// The answer that a load made, as `exit` tells, unless the load took longer
    /// than its answer holds: then it is stale, or too old to be given at all. What is
    /// computed from something stale is as stale.
    fn landed(
        &self,
        key: &K,
        held: Held<K, V>,
        tier: Tier,
        basis: Basis,
        exit: EventKind,
    ) -> Result<Hit<K, V>> {
        let now = self.clock.now();
        let entry = held.entry();
        let age = entry.age(now);
        if self.policy.load().max_age.is_some_and(|max_age| age > max_age) {
            return self.degrade(key, StaleReason::OriginFailed, self.too_old(age));
        }
        // What is not kept has no time of its own: it is for those who wait.
        let holds_at_all = entry.fresh_until > entry.origin_read_at;
        let label = if let Some(reason) = basis.stale_reason() {
            basis::note(basis);
            self.telemetry.record(EventKind::Derived { age, reason }, Some(key));
            Label::Stale(reason)
        } else if holds_at_all && !entry.is_fresh(now) {
            let reason = StaleReason::SlowLoad;
            basis::note(Basis::Stale(reason));
            self.telemetry.record(EventKind::Stale { age, reason }, Some(key));
            Label::Stale(reason)
        } else if matches!(self.standing(key, entry), Standing::Suspect(_)) {
            let reason = StaleReason::Suspect;
            basis::note(Basis::Stale(reason));
            self.telemetry.record(EventKind::Stale { age, reason }, Some(key));
            Label::Stale(reason)
        } else {
            let is_found = matches!((exit, tier), (EventKind::Answered, Tier::Store(_)));
            self.telemetry.record(if is_found { EventKind::Found } else { exit }, Some(key));
            Label::Fresh
        };
        Ok(Hit::new(held, label, tier, now))
    }

    fn too_old(&self, age: std::time::Duration) -> Error {
        Error::new(ErrorKind::Timeout, "the load's answer came too late: it is older than max_age")
            .with("cache", &self.name)
            .with("age", format_args!("{age:?}"))
            .with("max_age", format_args!("{:?}", self.policy.load().max_age.unwrap_or_default()))
            .remedy("raise max_age above what the origin takes")
    }

    fn timeout(&self, message: &'static str) -> Error {
        let policy = self.policy.load();
        Error::new(ErrorKind::Timeout, message)
            .with("cache", &self.name)
            .with("soft timeout", format_args!("{:?}", policy.soft_timeout))
            .with("hard timeout", format_args!("{:?}", policy.hard_timeout))
    }
}
