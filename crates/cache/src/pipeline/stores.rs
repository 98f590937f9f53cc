//! The tiers below memory: read before the origin, filled behind it, and told
//! what is invalidated.

use std::sync::Arc;

use futures_util::future::join_all;
use larder_core::{Entry, Key, LoadCause, Mark, Moment, StoredEntry, Verb, Version};

use super::land::limited;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Flight, Landing};
use crate::hit::{Held, Tier};
use crate::lower::{Grounds, Lower, Memories, Read, StoreTier};
use crate::policy::{Limits, limits_below_stores};

/// An entry on its way into the stores: what is in memory, and until when it
/// holds below.
pub(crate) struct Fill<K, V> {
    pub(super) held: Held<K, V>,
    pub(super) key: K,
    pub(super) fresh_until: Moment,
    pub(super) stale_until: Moment,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Lands the flights that a store can answer. Returns the others. Costs each
    /// store one call.
    pub(super) async fn consult(
        self: &Arc<Self>,
        lower: &Lower<K, V>,
        flights: &[Arc<Flight<K, V>>],
    ) -> Vec<Arc<Flight<K, V>>> {
        let mut rest = flights.to_vec();
        if !self.policy.load().class.may_be_cached() {
            return rest;
        }
        flights.iter().for_each(|flight| flight.note_below(true));
        for (place, tier) in lower.tiers.iter().enumerate() {
            if rest.is_empty() {
                break;
            }
            let keys: Vec<Key> = rest.iter().map(|flight| (lower.encode)(&flight.key)).collect();
            let Some((found, since)) = self.read_below(tier, &keys).await else {
                rest.iter().for_each(|flight| flight.note_below(false));
                continue;
            };
            let mut answered = Vec::new();
            let mut missing = Vec::new();
            for ((flight, key), found) in rest.into_iter().zip(keys).zip(found) {
                let is_hit =
                    found.as_ref().is_some_and(|found| self.adopt(lower, &flight, found, place));
                tier.count(is_hit);
                match found {
                    Some(found) if is_hit => {
                        // Noted before it is taken out of memory: either this sees the note,
                        // or whoever made it finds what was kept here.
                        if tier.was_overtaken(since, &key, found.version) {
                            self.invalidate_older(&flight.key, Verb::Remove, found.version.above());
                        } else {
                            answered.push((key, found));
                        }
                    }
                    Some(_) => {
                        flight.note_below(false);
                        missing.push(flight);
                    }
                    None => missing.push(flight),
                }
            }
            rest = missing;
            let above = &lower.tiers[..place];
            join_all(above.iter().map(|tier| tier.put_many(answered.clone(), self.grounds())))
                .await;
        }
        rest
    }

    /// Reads keys. `None` if the store cannot be asked now.
    async fn read_below(&self, tier: &StoreTier, keys: &[Key]) -> Option<Read> {
        if self.hears_before(tier) && self.clock.precise_now() >= self.settles_at {
            tier.meet_again(self.grounds(), |past| self.recall(&past)).await?;
        }
        tier.get_many(keys, self.grounds(), |past| self.recall(&past)).await
    }

    /// Whether nodes hear of a change before this store is told of it.
    fn hears_before(&self, tier: &StoreTier) -> bool {
        self.seat.is_some() && !tier.follows_bus()
    }

    /// Gives what a store has to those who wait, if it may still be given, and
    /// keeps it in memory. Returns whether it did.
    fn adopt(
        &self,
        lower: &Lower<K, V>,
        flight: &Arc<Flight<K, V>>,
        stored: &StoredEntry,
        place: usize,
    ) -> bool {
        let now = self.clock.precise_now();
        let policy = self.policy.load();
        let entry = match lower.entry(stored, now) {
            Ok(Some(entry)) => entry,
            Ok(None) => return false,
            Err(_) => {
                lower.tiers[place].count_undecodable();
                return false;
            }
        };
        let class = entry.class.max(policy.class);
        // What memory had was put there while the store did not know of it yet.
        let is_overtaken =
            flight.held.as_ref().is_some_and(|held| held.entry().version > entry.version);
        if !class.may_leave_process() || is_overtaken || self.is_invalidated(&flight.key, &entry) {
            return false;
        }
        let (mut limits, due_at) =
            limits_below_stores(&policy, &entry, stored.age, now, lower.memory_ttl);
        if self.hears_before(&lower.tiers[place]) && now < self.settles_at {
            // It may have been invalidated before this node listened.
            limits = limits.at_most(self.settles_at);
        }
        // What is due for a refresh ahead of its expiry is no answer to one, unless
        // somebody else has refreshed it.
        let is_news = flight.cause != LoadCause::RefreshAhead
            || now < due_at
            || flight.held.as_ref().is_none_or(|held| is_younger(&entry, held.entry()));
        if !entry.is_fresh(now) || limits.fresh_until <= now || !is_news {
            self.keep_for_errors(flight, entry, limits);
            return false;
        }
        let tier = Tier::Store(u8::try_from(place).unwrap_or(u8::MAX));
        let (held, _) = self.keep(flight, Entry { class, ..entry }, Some(limits));
        flight.land(Landing::Answer { held, tier });
        true
    }

    /// Has something at hand should the origin fail: what a store has is better
    /// than nothing.
    fn keep_for_errors(&self, flight: &Arc<Flight<K, V>>, entry: Entry<V>, limits: Limits) {
        let now = self.clock.now();
        // The clock that hits are judged by is a little behind the one that told its
        // age: what has expired must not seem fresh until then.
        let limits = limits.at_most(now);
        let window = self.policy.load().stale_if_error;
        let is_of_use = flight.held.is_none() && now < entry.fresh_until + window;
        if !is_of_use || self.memory.peek(&flight.key, now).is_some() {
            return;
        }
        let entry = limited(entry, &limits);
        self.reclaim_dead(&flight.key, now);
        self.flights
            .during(flight, || self.memory.insert(flight.key.clone(), entry, limits.lifetime, now));
    }

    /// Puts what loads brought into every store at once. What cannot be kept there
    /// leaves nothing older behind.
    pub(super) async fn fill(&self, fills: Vec<Fill<K, V>>) {
        let Some(lower) = &self.lower else { return };
        let now = self.clock.precise_now();
        let mut entries = Vec::with_capacity(fills.len());
        for Fill { held, key, fresh_until, stale_until } in &fills {
            let entry = held.entry();
            let class = entry.class.max(self.policy.load().class);
            let may_be_there = class.may_leave_process() && !self.is_invalidated(key, entry);
            let stored = may_be_there.then(|| lower.stored(entry, *fresh_until, *stale_until, now));
            match stored {
                Some(Ok(stored)) => entries.push(((lower.encode)(key), stored)),
                Some(Err(_)) | None => {
                    // Nor what began with the same number.
                    let at = entry.version.above();
                    self.invalidate_stores(key, at, Verb::Remove, false).await;
                }
            }
        }
        join_all(lower.tiers.iter().map(|tier| tier.learn(entries.clone(), self.grounds()))).await;
    }

    /// Has every store asked what it remembers of before this process, so that
    /// what is numbered from now on is newer. Costs nothing once all are known.
    pub(super) async fn meet_stores(&self) {
        let Some(lower) = &self.lower else { return };
        let unknown = lower.tiers.iter().filter(|tier| !tier.is_known());
        join_all(unknown.map(|tier| tier.meet(self.grounds(), |past| self.recall(&past)))).await;
    }

    /// Has every store give up what it has for a key and a version, or what is
    /// older. What was announced is known to the stores that follow the bus.
    pub(super) async fn invalidate_stores(
        &self,
        key: &K,
        at: Version,
        verb: Verb,
        is_announced: bool,
    ) {
        let Some(lower) = &self.lower else { return };
        let key = [(lower.encode)(key)];
        let tiers = lower.tiers_to_tell(is_announced);
        join_all(tiers.map(|tier| tier.invalidate(&key, at, verb, self.grounds()))).await;
    }

    /// Raises a watermark in every store, as [`Engine::invalidate_stores`].
    pub(super) async fn mark_stores(&self, mark: &Mark, is_announced: bool) {
        let Some(lower) = &self.lower else { return };
        let marks = std::slice::from_ref(mark);
        let tiers = lower.tiers_to_tell(is_announced);
        join_all(tiers.map(|tier| tier.mark(marks, self.grounds()))).await;
    }

    /// The same where nobody can wait for it: in the background where there is a
    /// runtime, and before the next read in any case.
    pub(super) fn mark_stores_later(self: &Arc<Self>, verb: Verb, version: Version) {
        let Some(lower) = &self.lower else { return };
        let marks = [Mark { tag: None, verb, version }];
        lower.tiers.iter().for_each(|tier| tier.mark_later(&marks));
        let engine = Arc::clone(self);
        self.runtime.spawn(async move { engine.catch_stores_up().await });
    }

    /// Tells every store what it has not heard of.
    pub(super) async fn catch_stores_up(&self) {
        self.meet_stores().await;
        let known = self.lower.iter().flat_map(|lower| &lower.tiers);
        let known = known.filter(|tier| tier.is_known());
        join_all(known.map(|tier| tier.catch_up(self.grounds()))).await;
    }

    /// Has stores told in the background what they could not be told at once. One of
    /// this process alone is told before it is read; others may read one that nodes
    /// share, and not have heard.
    pub(crate) fn tell_stores_again(self: &Arc<Self>) {
        let is_behind = |lower: &Lower<K, V>| lower.tiers.iter().any(StoreTier::is_behind);
        if self.seat.is_some() && self.lower.as_ref().is_some_and(is_behind) {
            let engine = Arc::clone(self);
            self.runtime.spawn(async move { engine.catch_stores_up().await });
        }
    }

    /// What was invalidated before this process began holds here, too. Returns a
    /// version that is newer than everything of then.
    fn recall(&self, past: &Memories) -> Version {
        let versions = self.memory.versions();
        versions.observe(past.newest);
        for mark in &past.marks {
            versions.observe(mark.version);
            self.raise_in_memory(mark);
        }
        // In a fleet everybody's versions come from the bus, those of before too.
        if self.seat.is_some() { Version::ZERO } else { versions.next() }
    }

    pub(super) fn grounds(&self) -> Grounds<'_> {
        Grounds { runtime: &self.runtime, clock: &self.clock }
    }
}

/// By more than two ways of telling an age may differ.
fn is_younger<V>(entry: &Entry<V>, than: &Entry<V>) -> bool {
    const DIFFERENCE: std::time::Duration = std::time::Duration::from_millis(5);
    entry.origin_read_at > than.origin_read_at + DIFFERENCE
}
