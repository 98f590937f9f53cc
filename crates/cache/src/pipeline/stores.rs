//! The tiers below memory: read before the origin, filled behind it, and told
//! what is invalidated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use larder_core::{Entry, Key, LoadCause, Mark, Moment, StoredEntry, Verb, Version};
use larder_memory::Standing;

use super::land::limited;
use crate::basis::Basis;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::Place;
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
        // Before any store is read, and before it is looked at whether that is known.
        let heard = self.seat.as_ref().and_then(|seat| seat.fleet.place());
        for (place, tier) in lower.tiers.iter().enumerate() {
            if rest.is_empty() {
                break;
            }
            let keys: Vec<Key> = rest.iter().map(|flight| (lower.encode)(&flight.key)).collect();
            let Some((found, since)) = self.read_below(lower, tier, &keys).await else {
                rest.iter().for_each(|flight| flight.note_below(false));
                continue;
            };
            let mut answered = Vec::new();
            let mut missing = Vec::new();
            for ((flight, key), found) in rest.into_iter().zip(keys).zip(found) {
                let adopted = found
                    .as_ref()
                    .and_then(|found| self.adopt(lower, &flight, found, place, heard));
                tier.count(adopted.is_some());
                match (found, adopted) {
                    (Some(found), Some(version)) => {
                        // Noted before it is taken out of memory: either this sees the note,
                        // or whoever made it finds what was kept here.
                        if tier.was_overtaken(since, &key, found.version) {
                            self.invalidate_older(&flight.key, Verb::Remove, version.above());
                        } else {
                            answered.push((key, StoredEntry { version, ..found }));
                        }
                    }
                    (Some(_), None) => {
                        flight.note_below(false);
                        missing.push(flight);
                    }
                    (None, _) => missing.push(flight),
                }
            }
            rest = missing;
            // One that hears of changes after this node may have something that was
            // invalidated before this node listened: that goes no further.
            let may_be_late = self.hears_before(tier) && self.clock.precise_now() < self.settles_at;
            let above = if may_be_late { &[] } else { &lower.tiers[..place] };
            join_all(above.iter().map(|tier| tier.put_many(answered.clone(), self.grounds())))
                .await;
        }
        rest
    }

    /// Reads keys. `None` if the store cannot be asked now.
    async fn read_below(
        self: &Arc<Self>,
        lower: &Lower<K, V>,
        tier: &StoreTier,
        keys: &[Key],
    ) -> Option<Read> {
        if !self.has_heard(lower, tier).await {
            return None;
        }
        if self.hears_before(tier) && self.clock.precise_now() >= self.settles_at {
            tier.meet_again(self.grounds(), |past| self.recall(&past)).await?;
        }
        self.meet(tier).await?;
        let read = tier.get_many(keys, self.grounds()).await?;
        // A disk may take its time.
        self.is_as_current_as_memory(tier).then_some(read)
    }

    /// Whether nodes hear of a change before this store is told of it by another.
    fn hears_before(&self, tier: &StoreTier) -> bool {
        let hears_late = !tier.follows_bus() && tier.hearing().is_none();
        // Nobody announces what a change of another cache touches in this one.
        self.seat.is_some() && (hears_late || self.is_dependent())
    }

    /// Gives what a store has to those who wait, if it may still be given, and
    /// keeps it in memory. Returns under which version it did.
    fn adopt(
        &self,
        lower: &Lower<K, V>,
        flight: &Arc<Flight<K, V>>,
        stored: &StoredEntry,
        place: usize,
        heard: Option<Place>,
    ) -> Option<Version> {
        let now = self.clock.precise_now();
        let policy = self.policy.load();
        let tier = &lower.tiers[place];
        let Ok(decoded) = lower.entry(stored, now) else {
            tier.count_undecodable();
            return None;
        };
        let mut entry = decoded?;
        let class = entry.class.max(policy.class);
        // What memory had was put there while the store did not know of it yet. The same
        // entry may have a later version there, as of when it was read.
        let is_overtaken = flight.held.as_ref().is_some_and(|held| {
            held.entry().version > entry.version && is_younger(held.entry(), &entry)
        });
        let standing = self.standing(&flight.key, &entry);
        let is_gone = self.was_invalidated(&entry) || matches!(standing, Standing::Touched(_));
        if !class.may_leave_process() || is_overtaken || is_gone {
            return None;
        }
        let (mut limits, due_at) =
            limits_below_stores(&policy, &entry, stored.age, now, lower.memory_ttl);
        if entry.version < tier.trusted_from() {
            tier.count_suspect();
            self.keep_for_errors(flight, Entry { class, ..entry }, limits);
            return None;
        }
        // What a gradual change will touch keeps the version by which it does.
        let is_sound = standing == Standing::Sound;
        if is_sound && entry.version < self.trusted_above(&lower.tiers[..place]) {
            entry.version = self.version_today(tier, flight, heard, entry.version);
        }
        if self.is_invalidated(&flight.key, &entry) {
            return None;
        }
        if self.hears_before(tier) && now < self.settles_at {
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
            return None;
        }
        let version = entry.version;
        let tier = Tier::Store(u8::try_from(place).unwrap_or(u8::MAX));
        let (held, _) = self.keep(flight, Entry { class, ..entry }, Some(limits));
        flight.land(Landing::Answer { held, tier, basis: Basis::Fresh });
        Some(version)
    }

    /// Below which version memory, or a tier above, does not trust an entry.
    fn trusted_above(&self, above: &[StoreTier]) -> Version {
        let memory = Version::new(self.memory_doubted_below.load(Ordering::Acquire));
        above.iter().map(StoreTier::trusted_from).fold(memory, Version::max)
    }

    /// Whether somebody said of an entry that it is not valid any more: not whether
    /// memory is in doubt of what is as old.
    fn was_invalidated(&self, entry: &Entry<V>) -> bool {
        let expired = Version::new(self.expired_below.load(Ordering::Acquire));
        let expired = self.memory.tag_watermarks(&entry.tags).expired.max(expired);
        self.memory.watermarks(&entry.tags).removed.max(expired) > entry.version
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
                    let key = std::slice::from_ref(key);
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
        join_all(unknown.map(|tier| self.meet(tier))).await;
    }

    /// Has a store asked what it remembers, unless that is known. `None` if it cannot
    /// be asked now.
    pub(super) async fn meet(&self, tier: &StoreTier) -> Option<()> {
        tier.meet(self.grounds(), |past| self.recall(&past)).await
    }

    /// Has every store give up what it has for keys and a version, or what is older.
    /// What was announced is known to the stores that follow the bus. Costs each
    /// store one call.
    pub(super) async fn invalidate_stores(
        &self,
        keys: &[K],
        at: Version,
        verb: Verb,
        is_announced: bool,
    ) {
        let Some(lower) = &self.lower else { return };
        let keys: Vec<Key> = keys.iter().map(lower.encode).collect();
        let tiers = lower.tiers_to_tell(is_announced);
        join_all(tiers.map(|tier| tier.invalidate(&keys, at, verb, self.grounds()))).await;
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
