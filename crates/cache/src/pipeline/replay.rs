//! Stores of this process alone: what was said while it was not there.
//!
//! ```text
//! the process starts       attend_fleet: catch_up_later
//!   └ the store tells up to where it has heard, and what it has
//!   └ the fleet replays what was said since; the store is told
//!   └ it is read from then on, and hears what the process hears
//! every half second        note_heard: the store notes how far that is
//! ```
//! What the bus cannot replay is in doubt: entries from before are no answer, but
//! may stand in for an origin that fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::{BusMessage, Change, Key, Mark, Moment, Tag, Verb, Version};

use crate::dependencies::Touched;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::{Place, Replayed};
use crate::flight::Flight;
use crate::lower::{Hearing, Lower, StoreTier};

/// So many changes are told to a store at a time.
const TOGETHER: usize = 128;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Waits until every store of this process alone has heard what it missed, or
    /// cannot at present, at most this long. Returns whether all have.
    pub(crate) async fn until_caught_up(&self, patience: Duration) -> bool {
        let attempts = self.hearing_tiers().map(|(_, hearing)| hearing.first_attempt());
        let attempts = join_all(attempts.collect::<Vec<_>>());
        let attempted = self.within(self.clock.precise_now() + patience, attempts).await;
        attempted.is_some_and(|caught_up| caught_up.iter().all(|caught_up| *caught_up))
    }

    /// Has stores hear in the background what they missed, if they have not yet.
    pub(crate) fn catch_up_later(self: &Arc<Self>) {
        let tiers = self.lower.iter().flat_map(|lower| &lower.tiers);
        for (place, tier) in tiers.enumerate() {
            if !tier.hearing().is_some_and(Hearing::begin) {
                continue;
            }
            let unfinished = Unfinished { engine: Arc::clone(self), place: Some(place) };
            self.runtime.spawn(async move { unfinished.run().await });
        }
    }

    /// Whether a store may be read: it has heard of all that this process has. Waits
    /// for the first attempt, no longer than for any call of it.
    pub(super) async fn has_heard(self: &Arc<Self>, lower: &Lower<K, V>, tier: &StoreTier) -> bool {
        let Some(hearing) = tier.hearing() else { return true };
        if hearing.has_caught_up() {
            return self.is_as_current_as_memory(tier);
        }
        if !hearing.has_failed() || !self.runtime.upkeep_runs() {
            self.catch_up_later();
        }
        let deadline = self.clock.precise_now() + lower.timeout;
        self.within(deadline, hearing.first_attempt()).await == Some(true)
    }

    /// Whether a store of this process alone has heard something lately: it knows no
    /// more than memory does.
    pub(super) fn is_as_current_as_memory(&self, tier: &StoreTier) -> bool {
        tier.hearing().is_none() || self.trusts_memory(self.clock.precise_now())
    }

    /// The version that an entry of this store has today: nothing was invalidated
    /// since its own that would have touched it. Its own where nobody knows.
    ///
    /// `heard` is how far this process had heard before the store was read: every
    /// change up to there is in what the store says, or hidden from it.
    pub(super) fn version_today(
        &self,
        tier: &StoreTier,
        flight: &Flight<K, V>,
        heard: Option<Place>,
        version: Version,
    ) -> Version {
        let Some(heard) = heard.filter(|heard| tier.is_in_step(*heard)) else { return version };
        heard.version.min(flight.begun()).max(version)
    }

    /// Has every store of this process alone note that it has heard so far.
    pub(super) async fn note_place(&self, place: Place) {
        for (tier, _) in self.hearing_tiers() {
            tier.note_heard(place, self.grounds()).await;
        }
    }

    fn hearing_tiers(&self) -> impl Iterator<Item = (&StoreTier, &Hearing)> {
        let tiers = self.lower.iter().flat_map(|lower| &lower.tiers);
        tiers.filter_map(|tier| Some((tier, tier.hearing()?)))
    }

    /// Tells a store what it has not heard. Returns the listening that goes on from
    /// there; `None` if that cannot be done now.
    async fn replay_into(&self, tier: &StoreTier) -> Option<u64> {
        let seat = self.seat.as_ref()?;
        self.meet(tier).await?;
        let past = tier.past(self.grounds()).await?;
        if let Some(heard) = past.heard {
            self.doubt_in(tier, heard.since);
        }
        let after = past.heard.map(|heard| heard.position);
        // What depends on other caches is touched by what is said of them.
        let cache = (!self.is_dependent()).then_some(self.name.as_str());
        let mut replayed = seat.fleet.replay(cache, after, past.newest.above());
        let mut untold = 0;
        loop {
            match replayed.recv().await? {
                Replayed::Message(message) => {
                    self.note_in(tier, &message);
                    untold += 1;
                    if untold == TOGETHER {
                        tier.settle(self.grounds()).await?;
                        untold = 0;
                    }
                }
                Replayed::Lost(version) => {
                    tracing::warn!(
                        cache = self.name, store = tier.name(), %version,
                        "changes were missed while this process was not there: what the store \
                         has of before is in doubt"
                    );
                    self.doubt_in(tier, version);
                }
                Replayed::Done(place) => {
                    tier.settle(self.grounds()).await?;
                    return Some(place.ear);
                }
            }
        }
    }

    /// Notes what a store is to be told, and what memory is to compare with.
    fn note_in(&self, tier: &StoreTier, message: &BusMessage) {
        let BusMessage { version, announcement, .. } = message;
        if announcement.cache == self.name {
            match announcement.change.touched() {
                Change::Tags(tags) => {
                    self.note_marks_in(
                        tier,
                        tags.iter().cloned().map(Some),
                        announcement.verb,
                        *version,
                    );
                }
                change => match change.keys() {
                    Some(keys) => tier.invalidate_later(keys, *version, announcement.verb),
                    // Also what a newer version of this program says, whatever it may be.
                    None => self.note_marks_in(tier, [None], announcement.verb, *version),
                },
            }
        }
        match self.dependence.as_ref().and_then(|it| it.touched_by(announcement)) {
            None => {}
            Some(Touched::All) => {
                self.note_marks_in(tier, [None], announcement.verb, *version);
            }
            Some(Touched::Some { keys, tags }) => {
                let keys: Vec<Key> = keys.iter().map(Key::new).collect();
                tier.invalidate_later(&keys, *version, announcement.verb);
                self.note_marks_in(tier, tags.into_iter().map(Some), announcement.verb, *version);
            }
        }
    }

    fn note_marks_in(
        &self,
        tier: &StoreTier,
        tags: impl IntoIterator<Item = Option<Tag>>,
        verb: Verb,
        version: Version,
    ) {
        let marks: Vec<_> = tags.into_iter().map(|tag| Mark { tag, verb, version }).collect();
        marks.iter().for_each(|mark| self.raise_in_memory(mark));
        tier.mark_later(&marks);
    }

    /// What a store has of older versions may have been invalidated without a word.
    pub(super) fn doubt_in(&self, tier: &StoreTier, version: Version) {
        // What stands in for a failing origin is not served for any other reason.
        self.doubted_below.fetch_max(version.get(), Ordering::AcqRel);
        tier.doubt_below(version);
    }

    /// The answer of a future, or `None` if the deadline comes first; the future
    /// is dropped then.
    pub(super) async fn within<T>(
        &self,
        deadline: Moment,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        use futures_util::future::{Either, select};
        let future = std::pin::pin!(future);
        let sleep = std::pin::pin!(self.runtime.sleep_until(&self.clock, deadline));
        match select(future, sleep).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }
}

/// An attempt under way. Whatever becomes of its task, another may begin.
struct Unfinished<K: CacheKey, V: CacheValue> {
    engine: Arc<Engine<K, V>>,
    /// The store's place among the tiers, until the attempt has succeeded.
    place: Option<usize>,
}

impl<K: CacheKey, V: CacheValue> Unfinished<K, V> {
    async fn run(mut self) {
        let Some(tier) = self.tier() else { return };
        let Some(ear) = self.engine.replay_into(tier).await else { return };
        let engine = Arc::clone(&self.engine);
        let of_process = || engine.seat.as_ref()?.fleet.ear();
        if let Some(hearing) = self.tier().and_then(StoreTier::hearing) {
            hearing.caught_up(ear, of_process);
        }
        self.place = None;
    }

    fn tier(&self) -> Option<&StoreTier> {
        self.engine.lower.as_ref()?.tiers.get(self.place?)
    }
}

impl<K: CacheKey, V: CacheValue> Drop for Unfinished<K, V> {
    fn drop(&mut self) {
        if let Some(hearing) = self.tier().and_then(StoreTier::hearing) {
            hearing.fell_short();
        }
    }
}
