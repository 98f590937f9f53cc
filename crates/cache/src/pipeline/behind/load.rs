//! Loads of keys of which writes wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use larder_core::{Entry, Error, ErrorKind, Loaded, Moment, Outcome, Result, Value};

use super::Behind;
use crate::basis::Basis;
use crate::behind::{Pending, PendingBase};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Flight, Landing};
use crate::hit::Tier;
use crate::origin::Permit;
use crate::pipeline::land::said_basis;
use crate::pipeline::load::{Answers, Source};
use crate::policy::Limits;
use crate::telemetry::{EndedBy, EventKind};

/// What the origin said, and when.
struct Read<V> {
    loaded: Loaded<V>,
    read_at: Moment,
    cost: Duration,
    basis: Basis,
}

/// The entry with what waits in it and its limits, and what it was made of.
type Folded<V> = ((Entry<V>, Option<Limits>), Option<Value<Bytes>>);

/// What comes next of a load.
enum Next<V> {
    Landed,
    /// The origin may have had one of the writes meanwhile, or not.
    Again,
    /// Only the origin can tell what comes of the writes: they are applied first.
    Apply,
    /// The answer is there.
    Fold(Option<Read<V>>),
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Loads keys of a cache that writes behind.
    pub(crate) async fn load_behind(
        self: &Arc<Self>,
        behind: &Behind<K, V>,
        flights: &[Arc<Flight<K, V>>],
        source: Source<V>,
        place: Option<Permit>,
    ) {
        let waits = |flight: &&Arc<Flight<K, V>>| self.note_pending(behind, flight).is_some();
        let (waiting, rest): (Vec<_>, Vec<_>) = flights.iter().partition(waits);
        let rest: Vec<_> = rest.into_iter().cloned().collect();
        if waiting.is_empty() {
            return self.load_through(&rest, source, place).await;
        }
        if rest.is_empty()
            && let [flight] = waiting[..]
        {
            return self.load_pending(behind, flight, source, place).await;
        }
        let waiting: Vec<_> = waiting.into_iter().map(|flight| (flight, source.again())).collect();
        let loads = waiting
            .into_iter()
            .map(|(flight, source)| self.load_pending(behind, flight, source, None));
        let source = source.again();
        let others = async {
            if !rest.is_empty() {
                self.load_through(&rest, source, place).await;
            }
        };
        join(join_all(loads), others).await;
    }

    /// What waits of a flight's key. From now on a write that is accepted knows whether
    /// this flight's answer will have it.
    fn note_pending(&self, behind: &Behind<K, V>, flight: &Arc<Flight<K, V>>) -> Option<Pending> {
        self.flights.note_pending(flight, || behind.pending(&flight.key))
    }

    async fn load_pending(
        self: &Arc<Self>,
        behind: &Behind<K, V>,
        flight: &Arc<Flight<K, V>>,
        source: Source<V>,
        mut place: Option<Permit>,
    ) {
        // A loader that a caller brings along is asked once.
        let asks_stores = matches!(source, Source::Stores);
        let mut source = Some(source);
        let key = (behind.encode)(&flight.key);
        loop {
            let Some(pending) = self.note_pending(behind, flight) else {
                // All of it is applied meanwhile.
                let again = if asks_stores { Source::Stores } else { Source::Origin };
                let flights = [Arc::clone(flight)];
                let source = source.take().unwrap_or(again);
                return Box::pin(self.load_through(&flights, source, place)).await;
            };
            let next = match pending.base {
                PendingBase::Origin if asks_stores => {
                    self.not_held(flight);
                    Next::Landed
                }
                PendingBase::Origin if pending.applying || !pending.certain => Next::Again,
                PendingBase::Origin => {
                    let source = source.take().unwrap_or(Source::Origin);
                    self.read_base(behind, flight, &pending, source, place.take()).await
                }
                _ => Next::Fold(None),
            };
            let next = match next {
                Next::Fold(read) => self.fold(behind, flight, &pending, read),
                next => next,
            };
            let waited = match next {
                Next::Landed => return,
                Next::Again | Next::Fold(_) => {
                    // What is on its way now is soon settled.
                    let quiet = behind.writes.quiet(&behind.cache, &key);
                    self.within(flight.deadline, quiet).await
                }
                Next::Apply => {
                    let applied = behind.writes.apply_now(&behind.cache, &key);
                    self.within(flight.deadline, applied).await
                }
            };
            let is_late = self.clock.precise_now() >= flight.deadline;
            let failed = match waited {
                Some(Err(error)) => Some(error),
                Some(Ok(())) if !is_late => None,
                _ => Some(self.never_settled()),
            };
            if let Some(error) = failed {
                return self.land_failed(flight, EndedBy::Timeout, error);
            }
        }
    }

    /// Reads what the origin has under what waits.
    async fn read_base(
        self: &Arc<Self>,
        behind: &Behind<K, V>,
        flight: &Arc<Flight<K, V>>,
        pending: &Pending,
        source: Source<V>,
        place: Option<Permit>,
    ) -> Next<V> {
        flight.begin_now(self.begin_version());
        let flights = std::slice::from_ref(flight);
        let Answers { read_at, cost, mut answers, end, basis } =
            self.ask(flights, source, place).await;
        let loaded: Result<Loaded<V>> = answers.pop().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::OriginFailed, "the origin did not answer the key"))
        });
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.land_failed(flight, end, error);
                return Next::Landed;
            }
        };
        // Only if the origin had none of what waits is it known to have none.
        let now = behind.pending(&flight.key);
        let is_sound =
            now.is_some_and(|now| now.first == pending.first && now.certain && !now.applying);
        if !is_sound {
            return Next::Again;
        }
        self.telemetry.record(EventKind::Loaded { cost }, Some(&flight.key));
        let basis = basis.and(said_basis(&loaded));
        Next::Fold(Some(Read { loaded, read_at, cost, basis }))
    }

    /// Makes the changes that wait, and gives the answer.
    fn fold(
        &self,
        behind: &Behind<K, V>,
        flight: &Arc<Flight<K, V>>,
        began: &Pending,
        read: Option<Read<V>>,
    ) -> Next<V> {
        let asks_origin = read.is_some();
        let now = self.clock.now();
        let read = read.unwrap_or_else(|| Read {
            loaded: Loaded::absent(),
            read_at: now,
            cost: Duration::ZERO,
            basis: Basis::Fresh,
        });
        loop {
            // With what was accepted meanwhile.
            let Some(pending) = behind.pending(&flight.key) else { return Next::Again };
            let is_of_origin = pending.base == PendingBase::Origin;
            if is_of_origin && (!asks_origin || pending.first != began.first) {
                return Next::Again;
            }
            let folded = self.folded(behind, flight, &pending, &read);
            let (entry, base) = match folded {
                Ok(Some(folded)) => folded,
                Ok(None) => return Next::Apply,
                Err(error) => {
                    self.land_failed(flight, EndedBy::Loader, error);
                    return Next::Landed;
                }
            };
            let base = base.filter(|_| is_of_origin);
            let Some(held) = self.conclude_pending(behind, flight, &pending, entry, base) else {
                continue;
            };
            let tier = if asks_origin { Tier::Origin } else { Tier::Memory };
            flight.land(Landing::Answer { held, tier, basis: read.basis });
            return Next::Landed;
        }
    }

    /// The entry with what waits in it, and what it was made of. `None`: only the origin
    /// can tell.
    fn folded(
        &self,
        behind: &Behind<K, V>,
        flight: &Arc<Flight<K, V>>,
        pending: &Pending,
        read: &Read<V>,
    ) -> Result<Option<Folded<V>>> {
        let (origin, may_keep) = match &read.loaded.outcome {
            Outcome::Found(value) => (value, true),
            Outcome::DontCache(value) => (value, false),
            _ => {
                let message = "the loader says \"not modified\" of what is not held";
                return Err(Error::new(ErrorKind::OriginFailed, message));
            }
        };
        let base = behind.encode_value(origin)?;
        let Some(value) = pending.over(Some(&base)) else { return Ok(None) };
        let value = behind.decode_value(&value)?;
        let outcome = if may_keep { Outcome::Found(value) } else { Outcome::DontCache(value) };
        let loaded = Loaded { outcome, ..read.loaded.clone() };
        let (entry, limits) = self.entry(flight, loaded, read.read_at, read.cost, read.basis)?;
        Ok(Some(((entry, limits.map(|limits| self.in_memory(limits))), Some(base))))
    }

    fn never_settled(&self) -> Error {
        let message = "what waits for the origin could not be told from what it has in time";
        Error::new(ErrorKind::Timeout, message)
            .with("cache", &self.name)
            .remedy("see whether the origin takes the writes that wait")
    }
}
