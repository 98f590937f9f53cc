//! What memory has of a key of which writes wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Entry, JournalOffset, LoadCause, Moment, Value};
use larder_memory::Resident;

use super::{Base, Behind};
use crate::behind::{Pending, PendingBase};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Flight, Terms};
use crate::hit::Held;
use crate::pipeline::land::{limited, said_basis};
use crate::pipeline::stores::Fill;
use crate::pipeline::through::WriteTerms;
use crate::policy::Limits;
use crate::telemetry::EventKind;

/// Writes of one key that come between before memory gives it up.
const TRIES: usize = 16;

/// What memory has now, and what the stores are to learn; nothing, if nothing can be told.
type Shown<K, V> = Option<(Value<V>, Option<Fill<K, V>>)>;

/// What was in memory, and what it was made of.
type Old<K, V> = (Option<Resident<K, V>>, Option<Base<K, V>>);

/// What is known of a key beside what waits.
#[derive(Clone, Copy)]
enum Known<'v> {
    /// This write was accepted.
    Accepted(JournalOffset),
    /// Writes are settled, and the origin may have said what it has now.
    Settled(Option<&'v Value<Bytes>>),
}

/// What memory is to have.
struct Picture<K, V> {
    entry: Entry<V>,
    limits: Limits,
    /// What it was made of, if that is the origin's and something waits.
    base: Option<(Value<Bytes>, JournalOffset)>,
    /// What memory must have for this to hold.
    made_of: Option<Resident<K, V>>,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Shows a write that was accepted. Returns what the key is now, if that can be told
    /// without asking the origin.
    pub(super) fn show_accepted(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        offset: JournalOffset,
        terms: &WriteTerms,
    ) -> Option<Value<V>> {
        let (shown, _) = self.show(behind, key, Known::Accepted(offset), terms)?;
        Some(shown)
    }

    /// Shows what is left of a key after some of its writes were settled. Returns what
    /// the stores are to learn, if nothing waits any more.
    pub(super) fn show_settled(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        now: Option<&Value<Bytes>>,
    ) -> Option<Fill<K, V>> {
        let shown = self.show(behind, key, Known::Settled(now), &WriteTerms::default());
        shown.and_then(|(_, fill)| fill)
    }

    fn show(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        known: Known<'_>,
        terms: &WriteTerms,
    ) -> Shown<K, V> {
        for _ in 0..TRIES {
            let pending = behind.pending(key);
            let picture = match terms.around {
                true => None,
                false => self.picture(behind, key, pending.as_ref(), known, &terms.terms),
            };
            if let Ok(shown) = self.try_show(behind, key, pending.as_ref(), picture) {
                return shown;
            }
        }
        // Nothing is always right: the next reader asks.
        let _old = self.flights.fence(key, || {
            let pending = behind.pending(key);
            self.take_out_shown(behind, key, pending.as_ref())
        });
        None
    }

    /// Puts a picture into memory, or nothing in its place. An error: something came
    /// between.
    fn try_show(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        pending: Option<&Pending>,
        picture: Option<Picture<K, V>>,
    ) -> Result<Shown<K, V>, ()> {
        let now = self.clock.now();
        self.reclaim_dead(key, now);
        let tried = self.flights.fence_unaware(key, || {
            if !behind.is_still(key, pending) {
                return None;
            }
            let Some(Picture { entry, limits, base, made_of }) = picture else {
                return Some((self.take_out_shown(behind, key, pending), None));
            };
            let held = self.memory.peek(key, now);
            if let Some(made_of) = &made_of
                && !held.as_ref().is_some_and(|held| held.is_same(made_of))
            {
                return None;
            }
            let below = (limits.fresh_until, limits.stale_until);
            let new = self.memory.insert(key.clone(), entry, limits.lifetime, now);
            let old = self.note_shown(behind, key, pending, base, &new);
            Some(((held, old), Some((new, below))))
        });
        // What was there is dropped after the lock.
        let (_old, shown) = tried.ok_or(())?;
        let Some((new, (fresh_until, stale_until))) = shown else { return Ok(None) };
        self.reclaim_a_little();
        let value = new.entry().value.clone();
        let learns = pending.is_none() && self.lower.is_some();
        let fill = learns.then(|| Fill {
            held: Held::Resident(new),
            key: key.clone(),
            fresh_until,
            stale_until,
        });
        Ok(Some((value, fill)))
    }

    /// Under the lock: what memory has now was made of this. Returns what was before, to
    /// be dropped after it.
    pub(super) fn note_shown(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        pending: Option<&Pending>,
        base: Option<(Value<Bytes>, JournalOffset)>,
        resident: &Resident<K, V>,
    ) -> Option<Base<K, V>> {
        let mut shown = behind.shown.lock();
        if pending.is_none() {
            return shown.remove(key).flatten();
        }
        let base = base.map(|(value, first)| Base { value, first, resident: resident.clone() });
        shown.insert(key.clone(), base).flatten()
    }

    /// Under the lock: memory has nothing of the key. Returns what was there, to be
    /// dropped after it.
    fn take_out_shown(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        pending: Option<&Pending>,
    ) -> Old<K, V> {
        let mut shown = behind.shown.lock();
        let base = match pending {
            Some(_) => shown.insert(key.clone(), None),
            None => shown.remove(key),
        };
        (self.take_out(key, self.clock.now()), base.flatten())
    }

    /// What memory can have of a key without the origin's being asked.
    fn picture(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        pending: Option<&Pending>,
        known: Known<'_>,
        terms: &Terms,
    ) -> Option<Picture<K, V>> {
        let Some(pending) = pending else {
            // Others may have written since; there the next read loads it.
            let Known::Settled(Some(value)) = known else { return None };
            let (entry, limits) = self.drawn(behind, key, value, terms, None)?;
            let picture = Picture { entry, limits, base: None, made_of: None };
            return self.seat.is_none().then_some(picture);
        };
        if pending.base != PendingBase::Origin {
            let value = pending.over(None)?;
            let (entry, limits) = self.drawn(behind, key, &value, terms, None)?;
            return Some(Picture { entry, limits, base: None, made_of: None });
        }
        if let Known::Settled(Some(value)) = known {
            let read = pending.over(Some(value))?;
            let (entry, limits) = self.drawn(behind, key, &read, terms, None)?;
            let base = Some((value.clone(), pending.first));
            return Some(Picture { entry, limits, base, made_of: None });
        }
        let (value, held) = self.base_in_memory(behind, key, pending, known)?;
        let read = pending.over(Some(&value))?;
        let (entry, limits) = self.drawn(behind, key, &read, terms, Some(&held))?;
        let base = Some((value, pending.first));
        Some(Picture { entry, limits, base, made_of: Some(held) })
    }

    /// What the origin has, as memory knows it.
    fn base_in_memory(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        pending: &Pending,
        known: Known<'_>,
    ) -> Option<(Value<Bytes>, Resident<K, V>)> {
        let now = self.clock.now();
        let held = self.memory.peek(key, now)?;
        let is_sound = held.is_fresh(now)
            && self.trusts_memory(now)
            && !self.is_doubted(held.entry().version)
            && !self.is_invalidated(key, held.entry());
        if !is_sound {
            return None;
        }
        let shown = behind.shown.lock().get(key).cloned();
        match (shown, known) {
            (Some(Some(base)), _) => {
                let holds = base.first == pending.first && base.resident.is_same(&held);
                holds.then_some((base.value, held))
            }
            // Nothing waited but the write that was just accepted.
            (None, Known::Accepted(offset)) if pending.first == offset => {
                let value = behind.encode_value(&held.entry().value).ok()?;
                Some((value, held))
            }
            _ => None,
        }
    }

    /// The entry of a value, no younger than what it was made of.
    fn drawn(
        &self,
        behind: &Behind<K, V>,
        key: &K,
        value: &Value<Bytes>,
        terms: &Terms,
        made_of: Option<&Resident<K, V>>,
    ) -> Option<(Entry<V>, Limits)> {
        let value = behind.decode_value(value).ok()?;
        let (now, version) = (self.clock.now(), self.begin_version());
        let mut terms = terms.clone();
        let mut read_at = now;
        if let Some(held) = made_of {
            read_at = held.entry().origin_read_at;
            terms.tags = terms.tags.union(&held.entry().tags);
        }
        let flight = Flight::new(key.clone(), version, LoadCause::Miss, now, now, None, terms);
        let origin = self.origin.as_ref()?;
        // What a load would say of it, or its tags would be missing.
        let draw = || {
            let loaded = origin.committed(key, value);
            let basis = said_basis(&loaded);
            self.entry(&flight, loaded, read_at, Duration::ZERO, basis).ok()
        };
        // Rules and origins are foreign code.
        let (entry, limits) = catch_unwind(AssertUnwindSafe(draw)).ok().flatten()?;
        let mut limits = limits?;
        if let Some(held) = made_of {
            limits = limits.at_most(held.fresh_until());
        }
        let limits = self.in_memory(limits);
        Some((limited(entry, &limits), limits))
    }

    /// Gives those who wait what a key is, with what waits in it, and keeps it if nothing
    /// came between. `None`: it has to be told anew.
    pub(super) fn conclude_pending(
        &self,
        behind: &Behind<K, V>,
        flight: &Arc<Flight<K, V>>,
        pending: &Pending,
        (entry, limits): (Entry<V>, Option<Limits>),
        base: Option<Value<Bytes>>,
    ) -> Option<Held<K, V>> {
        let now: Moment = self.clock.now();
        self.reclaim_dead(&flight.key, now);
        let concluded = self.flights.conclude(flight, |is_there| {
            if !behind.is_still(&flight.key, Some(pending)) {
                return None;
            }
            let Some(limits) = limits.filter(|_| is_there) else {
                let old = is_there.then(|| self.take_out_shown(behind, &flight.key, Some(pending)));
                return Some((old.unwrap_or_default(), Held::Detached(Arc::new(entry))));
            };
            let old = self.memory.peek(&flight.key, now);
            let entry = limited(entry, &limits);
            let new = self.memory.insert(flight.key.clone(), entry, limits.lifetime, now);
            let base = base.map(|value| (value, pending.first));
            let base = self.note_shown(behind, &flight.key, Some(pending), base, &new);
            Some(((old, base), Held::Resident(new)))
        });
        let (_old, held) = concluded?;
        if matches!(held, Held::Detached(_)) {
            self.telemetry.record(EventKind::Fenced, Some(&flight.key));
        }
        self.reclaim_a_little();
        Some(held)
    }
}
