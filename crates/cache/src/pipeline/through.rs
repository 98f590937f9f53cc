//! Writes to the origin: committed there first, then known here, then everywhere
//! (P3, P6).
//!
//! ```text
//! hold      nothing that is read of the key from now on is kept, on any node
//! stores    give up what they have: should this process end, nobody resurrects it
//! origin    commits, or does not
//! memory    has what was committed, or nothing
//! others    are told that it is over
//! release   what is read from now on is kept again
//! ```
//! A hold that nobody releases, because its node is gone, ends when the write has
//! happened or never will.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use larder_core::{
    Action, BatchError, Change, DynOrigin, Error, ErrorKind, Key, LoadCause, Moment, Result, Value,
    Verb, Version, Write, WriteAbilities, Written,
};
use tokio::sync::oneshot;

use super::departure::Crew;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::Announced;
use crate::flight::{Flight, Hold, Landing, Terms};
use crate::telemetry::EventKind;

/// What a write says beyond what is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteTerms {
    /// About the entry that it leaves in memory.
    pub(crate) terms: Terms,
    /// Whether it leaves none (P6).
    pub(crate) around: bool,
}

type Outcome<V> = Result<Vec<Written<V>>, BatchError>;

/// Writes under way, all or none of which will have happened.
struct Writing<K: CacheKey, V: CacheValue> {
    crew: Crew<K, V>,
    origin: Arc<dyn DynOrigin<K, V>>,
    abilities: WriteAbilities,
    writes: Vec<Write<K, V>>,
    terms: WriteTerms,
    held: Held<K>,
}

/// The keys of a write, by which they are held.
#[derive(Clone)]
pub(super) struct Held<K> {
    pub(super) keys: Arc<[K]>,
    pub(super) hold: Hold,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Makes these writes in one transaction, in a task of its own: whoever leaves
    /// does not stop it half-way.
    pub(crate) async fn write(
        self: &Arc<Self>,
        writes: Vec<Write<K, V>>,
        terms: WriteTerms,
    ) -> Outcome<V> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(behind) = &self.behind {
            return self.write_behind(behind, writes, terms).await;
        }
        let (origin, abilities) = self.refuse_write(writes.len())?;
        let crew = Crew::new(self);
        self.runtime.check(&self.clock).and_then(|()| self.refuse_when_closing())?;
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        let held = Held { keys, hold: Hold(fastrand::u64(..)) };
        let (engine, at_the_end) = (Arc::clone(self), held.clone());
        let writing = Writing { crew, origin, abilities, writes, terms, held };
        let (tell, told) = oneshot::channel();
        self.runtime.spawn(async move {
            // Keys and values are foreign code, wherever they are cloned or spelled.
            let made = AssertUnwindSafe(writing.make()).catch_unwind().await;
            let outcome = made.unwrap_or_else(|_| {
                engine.linger(at_the_end, abilities.settles_within);
                Err(unanswered("a key or a value panicked in a write").into())
            });
            // Whoever asked may have left.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or_else(|_| {
            let message = "the tokio runtime ended before the write did";
            Err(Error::new(ErrorKind::OutcomeUnknown, message).with("cache", &self.name).into())
        })
    }

    /// Refuses what this cache or its origin cannot write, or not now.
    fn refuse_write(&self, writes: usize) -> Result<(Arc<dyn DynOrigin<K, V>>, WriteAbilities)> {
        let refused =
            |message| Error::new(ErrorKind::Unsupported, message).with("cache", &self.name);
        let Some(origin) = &self.origin else {
            return Err(refused("this cache has no origin to write to").remedy(
                "declare one with `origin`; to keep a value in the cache only, use `put`",
            ));
        };
        let abilities = origin.write_abilities();
        if abilities.batch_limit == 0 {
            return Err(refused("the origin of this cache takes no writes").remedy(
                "write to the database and remove the key, or implement Origin::store and \
                 Origin::write_abilities",
            ));
        }
        if writes > abilities.batch_limit {
            return Err(refused("so many writes do not fit into one transaction of this origin")
                .with("writes", writes)
                .with("limit", abilities.batch_limit)
                .remedy("write them in smaller batches"));
        }
        if self.has_breaker {
            // Before anybody gives up what he has for it.
            let refused = self.guard.refuse_while_open(&self.clock);
            refused.map_err(|error| error.with("cache", &self.name))?;
        }
        Ok((Arc::clone(origin), abilities))
    }

    /// For how long nothing may be kept of a key after its write was announced: until
    /// that is acknowledged, the stores have been asked what they remember, which are
    /// two calls, and told, the origin has answered, and what it has not answered has
    /// happened or never will.
    pub(crate) fn write_ends_within(&self, abilities: &WriteAbilities) -> Duration {
        const MARGIN: Duration = Duration::from_secs(1);
        let bus = self.seat.as_ref().map_or(Duration::ZERO, |seat| seat.fleet.timeout());
        let store = self.lower.as_ref().map_or(Duration::ZERO, |lower| lower.timeout);
        let stores = store.saturating_mul(3);
        let origin = self.policy.load().hard_timeout.saturating_add(abilities.settles_within);
        origin.saturating_add(bus).saturating_add(stores).saturating_add(MARGIN)
    }

    /// What this node keeps may be what was there before a write that it has not heard
    /// of: that holds no longer than such a write takes.
    pub(crate) fn doubt_writes(&self) {
        let Some(origin) = self.origin.as_ref().filter(|_| self.seat.is_some()) else { return };
        let abilities = origin.write_abilities();
        if abilities.batch_limit > 0 {
            let until = self.clock.precise_now() + self.write_ends_within(&abilities);
            self.writes_settle_at.fetch_max(until.as_nanos(), Ordering::AcqRel);
        }
    }

    /// Tells the other nodes that a write is over, and has what is read of its keys kept
    /// again. `forgotten` are those of which nothing is kept here.
    pub(super) async fn end_write(&self, held: &Held<K>, forgotten: &[K]) -> Result<()> {
        let Held { keys, hold } = held;
        let following = self.follow_keys(keys.iter(), Verb::Remove);
        let (version, outcome) = match &self.seat {
            None => {
                self.forget_below(forgotten).await;
                (Version::ZERO, Ok(()))
            }
            Some(seat) => {
                let keys_told: Vec<Key> = keys.iter().map(seat.encode).collect();
                let change = Change::Written { keys: keys_told, write: hold.0 };
                let Announced { version, outcome } =
                    seat.announce(&self.name, change, Verb::Remove).await;
                self.invalidate_stores(keys, version, Verb::Remove, outcome.is_ok()).await;
                self.forget_in_memory(keys);
                (version, outcome)
            }
        };
        self.release(held);
        self.finish(following, version, outcome.is_ok()).await;
        outcome
    }

    /// Has the stores give up what somebody put while it was written, and takes out
    /// what was read of that.
    async fn forget_below(&self, keys: &[K]) {
        if self.lower.is_none() || keys.is_empty() {
            return;
        }
        let at = self.memory.versions().next();
        self.invalidate_stores(keys, at, Verb::Remove, false).await;
        self.forget_in_memory(keys);
    }

    fn forget_in_memory(&self, keys: &[K]) {
        keys.iter().for_each(|key| {
            self.remove_in_memory(key);
        });
    }

    fn release(&self, Held { keys, hold }: &Held<K>) {
        keys.iter().for_each(|key| {
            self.flights.release(key, *hold);
        });
    }

    /// Waits in the background until what was sent and not answered has happened or
    /// never will, and only then lets anything be kept again.
    fn linger(self: &Arc<Self>, held: Held<K>, settles_within: Duration) {
        let engine = Arc::clone(self);
        self.forget_in_memory(&held.keys);
        self.runtime.spawn(async move {
            let settled = engine.clock.precise_now() + settles_within;
            engine.runtime.sleep_until(&engine.clock, settled).await;
            engine.forget_in_memory(&held.keys);
            // What cannot be announced now is announced later.
            let end = engine.end_write(&held, &held.keys);
            let _ = AssertUnwindSafe(end).catch_unwind().await;
            engine.release(&held);
        });
    }

    /// Another node, or this one, is about to write these keys.
    pub(super) fn hear_of_writing(self: Arc<Self>, keys: Vec<K>, hold: Hold, within: Duration) {
        keys.iter().for_each(|key| self.flights.hold(key, hold));
        let engine = Arc::clone(&self);
        let ended = self.writers.begin(hold);
        let at = self.clock.precise_now() + within;
        self.runtime.spawn(async move {
            if engine.within(at, ended).await.is_some() {
                return;
            }
            engine.writers.end(hold);
            for key in &keys {
                // Whoever wrote it is gone, and what was there before may be, too.
                if engine.flights.release(key, hold) {
                    engine.remove_in_memory(key);
                }
            }
        });
    }
}

impl<K: CacheKey, V: CacheValue> Writing<K, V> {
    async fn make(mut self) -> Outcome<V> {
        let engine = Arc::clone(&self.crew.engine);
        let Held { keys, hold } = self.held.clone();
        keys.iter().for_each(|key| engine.flights.hold(key, hold));
        let (version, is_announced) = self.announce_begin().await;
        engine.invalidate_stores(&keys, version, Verb::Remove, is_announced).await;
        let deadline = engine.clock.precise_now() + engine.policy.load().hard_timeout;
        let flights = self.board(deadline);
        let (read_at, started) = (engine.clock.now(), engine.clock.precise_now());
        let outcome = self.send(deadline).await;
        let cost = engine.clock.precise_now().since(started);
        let mut forgotten = Vec::new();
        match &outcome {
            Ok(written) if engine.seat.is_none() && !self.terms.around => {
                let values = self.values(written);
                for (flight, value) in flights.iter().zip(values) {
                    if !self.know(flight, value, read_at, cost).await {
                        forgotten.push(flight.key.clone());
                    }
                }
            }
            _ => flights.iter().for_each(|flight| self.forget(flight)),
        }
        if outcome.is_ok() {
            keys.iter().for_each(|key| engine.telemetry.record(EventKind::Written, Some(key)));
        }
        if outcome.as_ref().is_err_and(|failed| is_unknown(&failed.error)) {
            engine.linger(self.held, self.abilities.settles_within);
            return outcome;
        }
        let forgotten = if outcome.is_ok() && self.terms.around { &*keys } else { &forgotten };
        match engine.end_write(&self.held, forgotten).await {
            Err(error) if outcome.is_ok() => Err(untold(&error).into()),
            _ => outcome,
        }
    }

    /// Tells the other nodes and the stores that follow the bus. That the bus cannot be
    /// reached stops no write: what it would have told is told afterwards.
    /// Returns the version of what is older, and whether it was told.
    async fn announce_begin(&self) -> (Version, bool) {
        let engine = &self.crew.engine;
        let Some(seat) = &engine.seat else {
            engine.meet_stores().await;
            return (engine.begin_version(), false);
        };
        let keys: Vec<Key> = self.held.keys.iter().map(seat.encode).collect();
        let within = engine.write_ends_within(&self.abilities);
        let change = Change::Writing { keys, write: self.held.hold.0, within };
        let Announced { version, outcome } =
            seat.announce(&engine.name, change, Verb::Remove).await;
        engine.meet_stores().await;
        (version, outcome.is_ok())
    }

    /// Whoever finds nothing in memory from now on waits for what is written. A load
    /// under way is not kept.
    fn board(&mut self, deadline: Moment) -> Vec<Arc<Flight<K, V>>> {
        let engine = Arc::clone(&self.crew.engine);
        let (now, terms) = (engine.clock.now(), &self.terms.terms);
        let flight = |write: &Write<K, V>| {
            let (key, version) = (write.key.clone(), engine.begin_version());
            let flight =
                Flight::new(key, version, LoadCause::Miss, now, deadline, None, terms.clone());
            Arc::new(flight.of_write(self.held.hold))
        };
        let flights: Vec<_> = self.writes.iter().map(flight).collect();
        for flight in &flights {
            engine.flights.supersede(flight);
            self.crew.board(Arc::clone(flight));
        }
        flights
    }

    /// Has the origin commit it, under its breaker and the hard timeout.
    async fn send(&self, deadline: Moment) -> Outcome<V> {
        let engine = &self.crew.engine;
        let ticket = engine.has_breaker.then(|| engine.guard.enter(&engine.clock)).transpose()?;
        let call = async {
            match self.writes.as_slice() {
                [write] => match self.origin.write(write).await {
                    Ok(written) => Ok(vec![written]),
                    Err(error) => Err(BatchError { index: Some(0), error }),
                },
                writes => self.origin.write_all(writes, None).await,
            }
        };
        let outcome = match engine.within(deadline, AssertUnwindSafe(call).catch_unwind()).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(unanswered("the origin panicked over a write").into()),
            None => Err(unanswered("the origin did not answer a write by its hard timeout").into()),
        };
        if let Some(ticket) = ticket {
            let settled = outcome.as_ref().map(drop).map_err(|failed| match failed.error.kind() {
                ErrorKind::OutcomeUnknown => Error::new(ErrorKind::Unavailable, "no answer"),
                _ => failed.error.clone(),
            });
            engine.guard.settle(ticket, &settled, &engine.clock);
        }
        let outcome = outcome.map_err(|failed| BatchError {
            error: failed.error.with("cache", &engine.name),
            ..failed
        })?;
        if outcome.len() == self.writes.len() {
            return Ok(outcome);
        }
        Err(unanswered("the origin did not answer every write")
            .with("writes", self.writes.len())
            .with("answers", outcome.len())
            .into())
    }

    /// What each key has now, where that is known.
    fn values(&self, written: &[Written<V>]) -> Vec<Option<Value<V>>> {
        let mut times = HashMap::new();
        self.held.keys.iter().for_each(|key| *times.entry(key).or_insert(0) += 1);
        let value = |(write, written): (&Write<K, V>, &Written<V>)| match (written, &write.action) {
            // The order within a transaction is the origin's affair.
            _ if times.get(&write.key) != Some(&1) => None,
            (Written::Done { now: Some(value), .. }, _) => Some(value.clone()),
            (Written::Done { .. }, Action::Put(value)) => Some(Value::Present(value.clone())),
            (Written::Done { .. }, Action::Remove) => Some(Value::Absent),
            _ => None,
        };
        self.writes.iter().zip(written).map(value).collect()
    }

    /// Puts what was committed into memory and the stores, unless something came
    /// between. Returns whether it did.
    async fn know(
        &self,
        flight: &Arc<Flight<K, V>>,
        value: Option<Value<V>>,
        read_at: Moment,
        cost: Duration,
    ) -> bool {
        let engine = &self.crew.engine;
        // What a load would say of it, or its tags would be missing.
        let loaded = |value| self.origin.committed(&flight.key, value);
        let keep = || engine.keep_written(flight, loaded(value?), read_at, cost);
        // Rules and origins are foreign code.
        let fill = catch_unwind(AssertUnwindSafe(keep)).unwrap_or(None);
        let is_kept = fill.is_some();
        match fill {
            Some(fill) => engine.fill(vec![fill]).await,
            None => self.forget(flight),
        }
        is_kept
    }

    /// Leaves nothing of the key in memory: the next reader loads it.
    fn forget(&self, flight: &Arc<Flight<K, V>>) {
        let engine = &self.crew.engine;
        engine.remove_in_memory(&flight.key);
        flight.land(Landing::NotHeld);
    }
}

/// Whether it may have happened nevertheless.
fn is_unknown(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Timeout | ErrorKind::Panicked)
}

fn unanswered(message: &'static str) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, message)
        .remedy("read the key to see whether it happened, before it is written again")
}

fn untold(error: &Error) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the origin has the write, but other nodes do not know it",
    )
    .caused_by(error.clone())
    .remedy("they are told as soon as the bus can be reached; do not write it again")
}
