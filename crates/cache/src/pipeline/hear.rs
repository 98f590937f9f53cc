//! What other nodes say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::{BoxFuture, Change, Key, Mark, Verb, Version};
use larder_memory::Resident;

use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::{Member, Place};
use crate::flight::Hold;
use crate::lower::{Lower, StoreTier};

impl<K: CacheKey, V: CacheValue> Member for Engine<K, V> {
    fn hear(self: Arc<Self>, change: &Change, verb: Verb, version: Version) {
        match change {
            Change::Keys(keys) => self.hear_of_keys(keys, verb, version),
            Change::Writing { keys, write, within } => {
                self.have_stores_told(keys, verb, version);
                let keys = self.decode(keys);
                self.hear_of_writing(keys, Hold(*write), *within);
            }
            Change::Written { keys, write } => {
                let decoded = self.decode(keys);
                Arc::clone(&self).hear_of_keys(keys, verb, version);
                let hold = Hold(*write);
                for key in &decoded {
                    self.flights.release(key, hold);
                }
                self.writers.end(hold);
            }
            Change::Tags(tags) => {
                let mark = |tag: &_| Mark { tag: Some(Clone::clone(tag)), verb, version };
                self.hear_of_marks(&tags.iter().map(mark).collect::<Vec<_>>());
            }
            Change::Gradual { change, window } => {
                self.hear_of_gradual(change, *window, verb, version);
            }
            // Also what a newer version of this program says, whatever it may be.
            _ => self.hear_of_marks(&[Mark { tag: None, verb, version }]),
        }
    }

    fn doubt_below(&self, version: Version) {
        self.doubt_memory_below(version);
        // A store hears what this process hears, or was told by who may have died.
        self.lower.iter().flat_map(|lower| &lower.tiers).for_each(|tier| tier.doubt_below(version));
    }

    fn missed_below(&self, version: Version) {
        self.doubt_memory_below(version);
        for tier in self.lower.iter().flat_map(|lower| &lower.tiers) {
            match self.knows_what_was_missed(tier) {
                true => tier.ask_anew(),
                false => tier.doubt_below(version),
            }
        }
    }

    fn begin_anew(&self, version: Version) {
        self.doubt_memory_below(version);
        for tier in self.lower.iter().flat_map(|lower| &lower.tiers) {
            match tier.hearing() {
                Some(hearing) => hearing.begin_anew(),
                // As it is to a process that starts.
                None if self.knows_what_was_missed(tier) => tier.ask_anew(),
                None => tier.doubt_below(version),
            }
        }
    }

    fn trust_for(&self, remaining: Duration) {
        let until = self.clock.precise_now() + remaining;
        self.trusted_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    fn note_heard(self: Arc<Self>, place: Place) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.note_place(place).await })
    }
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Hears what other nodes say from now on. What they said before is known to
    /// stores that follow the bus, and perhaps not yet to others.
    pub(crate) fn attend_fleet(self: &Arc<Self>) {
        let Some(seat) = &self.seat else { return };
        let member: Arc<dyn Member> = Arc::clone(self) as _;
        seat.fleet.attend(&self.name, Arc::downgrade(&member));
        self.doubt_writes();
        let is_told_later = |lower: &Lower<K, V>| {
            lower.tiers.iter().any(|tier| !tier.follows_bus() && tier.hearing().is_none())
        };
        if self.lower.as_ref().is_some_and(is_told_later) {
            self.doubted_below.fetch_max(seat.fleet.heard().get(), Ordering::AcqRel);
        }
        self.catch_up_later();
    }

    /// Whether a store has heard what this process has not: it follows the bus in step,
    /// and nothing in this cache is touched by what is said of others. Of that only
    /// those tell it who have heard it, and perhaps nobody else has.
    fn knows_what_was_missed(&self, tier: &StoreTier) -> bool {
        tier.follows_bus_in_step() && !self.is_dependent()
    }

    /// What memory has of older versions is to be asked for below again.
    fn doubt_memory_below(&self, version: Version) {
        self.doubted_below.fetch_max(version.get(), Ordering::AcqRel);
        self.memory_doubted_below.fetch_max(version.get(), Ordering::AcqRel);
        self.memory.expire_all_at(version, self.clock.now());
        self.doubt_writes();
    }

    fn hear_of_keys(self: Arc<Self>, keys: &[Key], verb: Verb, version: Version) {
        let decoded = self.decode(keys);
        self.have_stores_told(keys, verb, version);
        for key in &decoded {
            self.invalidate_older(key, verb, version);
        }
    }

    pub(super) fn decode(&self, keys: &[Key]) -> Vec<K> {
        self.seat.iter().flat_map(|seat| keys.iter().filter_map(seat.decode)).collect()
    }

    /// Has the stores that do not follow the bus told.
    pub(super) fn have_stores_told(self: &Arc<Self>, keys: &[Key], verb: Verb, version: Version) {
        // Whoever announced it may have ended before these stores heard of it. Noted
        // before memory gives it up: what a read brings meanwhile is found by one of
        // the two.
        let tiers = || self.lower.iter().flat_map(|lower| lower.tiers_to_tell(true));
        let has_to_tell = tiers().next().is_some();
        tiers().for_each(|tier| tier.invalidate_later(keys, version, verb));
        if has_to_tell {
            let engine = Arc::clone(self);
            self.runtime.spawn(async move { engine.catch_stores_up().await });
        }
    }

    fn hear_of_marks(self: Arc<Self>, marks: &[Mark]) {
        marks.iter().for_each(|mark| self.raise_in_memory(mark));
        self.have_marks_told(marks);
    }

    pub(super) fn have_marks_told(self: &Arc<Self>, marks: &[Mark]) {
        let mut tiers = self.lower.iter().flat_map(|lower| lower.tiers_to_tell(true)).peekable();
        if tiers.peek().is_none() {
            return;
        }
        tiers.for_each(|tier| tier.mark_later(marks));
        let engine = Arc::clone(self);
        self.runtime.spawn(async move { engine.catch_stores_up().await });
    }

    /// Invalidates what is older than a change, and loads that began before it.
    pub(super) fn invalidate_older(&self, key: &K, verb: Verb, version: Version) {
        self.reclaim_dead(key, self.clock.now());
        let take_out = || self.take_out_older(key, verb, version);
        let _old = self.flights.fence_before(key, version, take_out);
    }

    /// Takes out what is older than a change, or ends its freshness. Returns it, so
    /// that it is dropped only after the lock under which this runs.
    fn take_out_older(&self, key: &K, verb: Verb, version: Version) -> Option<Resident<K, V>> {
        let now = self.clock.now();
        let held = self.memory.peek(key, now)?;
        if held.entry().version >= version {
            return None;
        }
        match verb {
            Verb::Expire => self.memory.expire(key, now),
            Verb::Remove => self.memory.remove(key),
        };
        Some(held)
    }
}
