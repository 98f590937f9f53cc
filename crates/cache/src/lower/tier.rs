//! One store behind its breaker and its timeout.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Clock, DynStore, HeardUpTo, Key, Mark, PutCondition, Result, StoredEntry, Verb, Version,
};

use super::caller::{Caller, Grounds};
use super::hearing::Hearing;
use super::pending::{Noted, Pending};
use crate::fleet::Place;
use crate::origin::{Breaker, BreakerState};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What one store has done so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// The name it was declared with.
    pub name: String,
    /// Keys that it had, fresh and for this cache.
    pub hits: u64,
    /// Keys that it did not have.
    pub misses: u64,
    /// Entries that were put.
    pub fills: u64,
    /// Calls that failed or took too long.
    pub failures: u64,
    /// Entries that could not be read: another codec, or damaged.
    pub undecodable: u64,
    /// Entries that were no answer because they may have been invalidated without
    /// this process' hearing of it.
    pub suspects: u64,
    /// Whether it is asked at present.
    pub breaker: BreakerState,
    /// Whether invalidations wait to be told to it.
    pub is_behind: bool,
}

/// What a store has for each key asked, and since when what is invalidated may be
/// missing in it.
pub(crate) type Read = (Vec<Option<StoredEntry>>, Noted);

/// A store, and what is known about it.
pub(crate) struct StoreTier {
    name: String,
    store: Arc<dyn DynStore>,
    caller: Caller,
    /// What it has heard, if it is one of this process alone that others' changes
    /// concern.
    hearing: Option<Hearing>,
    /// How often it was to be asked what it remembers, and the last time it was.
    wanted: AtomicU64,
    known: AtomicU64,
    /// Entries of older versions may have been invalidated without a word.
    trusted_from: AtomicU64,
    /// Whether it was asked again once it had to know all of before this process.
    has_settled: AtomicBool,
    /// What it is being told, or is to be told before it is trusted.
    pending: Mutex<Pending>,
    /// Whether a call that was to tell it something failed.
    is_behind: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    undecodable: AtomicU64,
    suspects: AtomicU64,
    fills: AtomicU64,
}

/// What a store remembers of before this process.
pub(crate) struct Memories {
    pub(crate) marks: Vec<Mark>,
    pub(crate) newest: Version,
}

/// How far it had come before this process, and up to where it had heard.
pub(crate) struct Past {
    pub(crate) newest: Version,
    pub(crate) heard: Option<HeardUpTo>,
}

impl StoreTier {
    pub(crate) fn new(
        name: String,
        store: Arc<dyn DynStore>,
        timeout: Duration,
        breaker: Breaker,
        has_fleet: bool,
    ) -> Self {
        let hears_of_others = has_fleet && !store.capabilities().shared;
        Self {
            name,
            store,
            caller: Caller::new(timeout, breaker),
            hearing: hears_of_others.then(Hearing::default),
            wanted: AtomicU64::new(1),
            known: AtomicU64::new(0),
            trusted_from: AtomicU64::new(0),
            has_settled: AtomicBool::new(false),
            pending: Mutex::new(Pending::default()),
            is_behind: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            suspects: AtomicU64::new(0),
            fills: AtomicU64::new(0),
        }
    }

    pub(crate) fn statistics(&self, clock: &Clock) -> StoreStatistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStatistics {
            name: self.name.clone(),
            hits: count(&self.hits),
            misses: count(&self.misses),
            fills: count(&self.fills),
            failures: self.caller.failures(),
            undecodable: count(&self.undecodable),
            suspects: count(&self.suspects),
            breaker: self.caller.breaker(clock),
            is_behind: self.is_behind.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn follows_bus(&self) -> bool {
        self.store.capabilities().follows_bus
    }

    /// What it has heard, if it is a store of this process alone in a fleet.
    pub(crate) fn hearing(&self) -> Option<&Hearing> {
        self.hearing.as_ref()
    }

    /// Whether nothing is in what it says that was invalidated up to this place, once
    /// it was asked what it remembers.
    pub(crate) fn is_in_step(&self, place: Place) -> bool {
        match &self.hearing {
            Some(hearing) => hearing.ear() == Some(place.ear),
            None => self.follows_bus_in_step(),
        }
    }

    /// Whether what others announce is in what it says at once.
    pub(crate) fn follows_bus_in_step(&self) -> bool {
        let capabilities = self.store.capabilities();
        capabilities.follows_bus && capabilities.in_step
    }

    /// Entries of older versions may have been invalidated without a word.
    pub(crate) fn doubt_below(&self, version: Version) {
        self.trusted_from.fetch_max(version.get(), Ordering::AcqRel);
    }

    /// Below which version its entries are no answer.
    pub(crate) fn trusted_from(&self) -> Version {
        Version::new(self.trusted_from.load(Ordering::Acquire))
    }

    /// Whether it is to be told something, and nobody does so at present.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire) >= self.wanted.load(Ordering::Acquire)
    }

    /// Has it asked anew what it remembers before it is read again.
    pub(crate) fn ask_anew(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks what the store remembers of before this process, unless that is known.
    /// `recall` gets it, and says from which version on this process numbers above
    /// it. `None` if the store cannot be asked now: then it is told nothing.
    pub(crate) async fn meet(
        &self,
        grounds: Grounds<'_>,
        recall: impl FnOnce(Memories) -> Version,
    ) -> Option<()> {
        if !self.is_known() {
            // What is to be asked from here on is asked the next time.
            let wanted = self.wanted.load(Ordering::Acquire);
            let newest = self.call(self.store.newest_version(), grounds).await?;
            let marks = self.call(self.store.marks(), grounds).await?;
            let known_from = recall(Memories { marks, newest });
            // Versions of a bus can be compared, but not what was numbered here before
            // the bus was heard.
            let above = if self.hearing.is_some() { newest.above() } else { known_from };
            self.pending.lock().meet(above, known_from);
            self.known.fetch_max(wanted, Ordering::AcqRel);
        }
        Some(())
    }

    /// How far it has come. `None` if it cannot be asked now.
    pub(crate) async fn past(&self, grounds: Grounds<'_>) -> Option<Past> {
        let newest = self.call(self.store.newest_version(), grounds).await?;
        let heard = self.call(self.store.heard(), grounds).await?;
        Some(Past { newest, heard })
    }

    /// Asks once more which watermarks the store remembers: it is told of what others
    /// announce only afterwards. `None` if it cannot be asked now.
    pub(crate) async fn meet_again(
        &self,
        grounds: Grounds<'_>,
        recall: impl FnOnce(Memories) -> Version,
    ) -> Option<()> {
        if !self.has_settled.load(Ordering::Acquire) {
            let marks = self.call(self.store.marks(), grounds).await?;
            recall(Memories { marks, newest: Version::ZERO });
            self.has_settled.store(true, Ordering::Release);
        }
        Some(())
    }

    /// Reads keys, and says since when what is invalidated may be missing in what
    /// it read. `None` if the store cannot be asked now. It was met before.
    pub(crate) async fn get_many(&self, keys: &[Key], grounds: Grounds<'_>) -> Option<Read> {
        // What fails at that is not asked for more: a read waits for it once.
        self.catch_up(grounds).await?;
        // Before the read: what the store is told while it runs is not hidden after it.
        let (hidden, since): (Vec<Option<Version>>, Noted) = {
            let pending = self.pending.lock();
            (keys.iter().map(|key| pending.hidden(key)).collect(), pending.now())
        };
        let mut found = self.call(self.store.get_many(keys), grounds).await?;
        if found.len() != keys.len() {
            return None;
        }
        // After the read: what was invalidated while it ran is hidden, too, also if
        // the store was told before the read ended.
        let pending = self.pending.lock();
        for ((key, hidden), found) in keys.iter().zip(hidden).zip(&mut found) {
            let is_hidden = |entry: &StoredEntry| {
                hidden.is_some_and(|at| entry.version < at)
                    || pending.hides(key, entry.version)
                    || pending.was_noted(since, key, entry.version)
            };
            if found.as_ref().is_some_and(is_hidden) {
                *found = None;
            }
        }
        Some((found, since))
    }

    /// Whether what a read brought was invalidated since it began.
    pub(crate) fn was_overtaken(&self, since: Noted, key: &Key, version: Version) -> bool {
        self.pending.lock().was_noted(since, key, version)
    }

    pub(crate) fn count(&self, is_hit: bool) {
        let counter = if is_hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_suspect(&self) {
        self.suspects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_undecodable(&self) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts entries that are newer than what is there. What cannot be put leaves
    /// nothing older behind.
    pub(crate) async fn put_many(
        &self,
        mut entries: Vec<(Key, StoredEntry)>,
        grounds: Grounds<'_>,
    ) {
        let bytes_max = self.store.capabilities().value_bytes_max.unwrap_or(usize::MAX);
        let fits = |entry: &StoredEntry| {
            entry.value.as_option().is_none_or(|bytes| bytes.len() <= bytes_max)
        };
        for (key, entry) in entries.extract_if(.., |(_, entry)| !fits(entry)) {
            self.invalidate(&[key], entry.version.above(), Verb::Remove, grounds).await;
        }
        if entries.is_empty() {
            return;
        }
        let unsure = Unsure { tier: self, entries: &entries };
        let put = self.store.put_many(&entries, PutCondition::NewerThanHeld);
        if self.call(put, grounds).await.is_some() {
            unsure.settled();
            self.fills.fetch_add(entries.len() as u64, Ordering::Relaxed);
        }
    }

    /// Puts what this process has loaded or was given. What it numbered before the
    /// store was known would seem older there than it is: that is not put, but
    /// leaves nothing older behind either.
    pub(crate) async fn learn(&self, mut entries: Vec<(Key, StoredEntry)>, grounds: Grounds<'_>) {
        let known_from = self.pending.lock().known_from();
        let is_early = |entry: &StoredEntry| known_from.is_none_or(|from| entry.version < from);
        for (key, entry) in entries.extract_if(.., |(_, entry)| is_early(entry)) {
            self.invalidate(&[key], entry.version, Verb::Remove, grounds).await;
        }
        self.put_many(entries, grounds).await;
    }

    /// Invalidates keys, now or before the store is trusted with them again.
    ///
    /// # Cancel safety
    /// A dropped call is made up for later.
    pub(crate) async fn invalidate(
        &self,
        keys: &[Key],
        at: Version,
        verb: Verb,
        grounds: Grounds<'_>,
    ) {
        let behind = Behind(&self.is_behind);
        // First, so that no read that ends meanwhile gives them.
        let at = self.pending.lock().add_keys(keys, at, verb);
        let Some(at) = at else { return };
        let told = self.call(self.store.invalidate_many(keys, at, verb), grounds).await;
        let Some(()) = told else { return };
        self.pending.lock().forget_keys(keys, at, verb);
        behind.caught_up();
    }

    /// Invalidates keys when the store is next asked for something.
    pub(crate) fn invalidate_later(&self, keys: &[Key], at: Version, verb: Verb) {
        self.pending.lock().add_keys(keys, at, verb);
        self.is_behind.store(true, Ordering::Release);
    }

    /// Raises watermarks, now or when the store can be told. Memory knows them.
    ///
    /// # Cancel safety
    /// As [`StoreTier::invalidate`].
    pub(crate) async fn mark(&self, marks: &[Mark], grounds: Grounds<'_>) {
        let behind = Behind(&self.is_behind);
        let is_enough = self.pending.lock().add_marks(marks);
        if !is_enough {
            return;
        }
        let Some(()) = self.call(self.store.mark(marks), grounds).await else { return };
        self.pending.lock().forget_marks(marks);
        behind.caught_up();
    }

    /// Raises watermarks when the store is next asked for something.
    pub(crate) fn mark_later(&self, marks: &[Mark]) {
        self.pending.lock().add_marks(marks);
        self.is_behind.store(true, Ordering::Release);
    }

    /// Tells the store what it has not heard of, if there is anything. `None` if
    /// it could not be told.
    pub(crate) async fn catch_up(&self, grounds: Grounds<'_>) -> Option<()> {
        // One reader does it for all; the others see only what is not hidden.
        if !self.is_behind.load(Ordering::Acquire) || !self.is_behind.swap(false, Ordering::AcqRel)
        {
            return Some(());
        }
        self.settle(grounds).await
    }

    /// Tells the store everything that was noted until now, whoever else is at it:
    /// afterwards it has heard of all of that. `None` if it could not be told.
    pub(crate) async fn settle(&self, grounds: Grounds<'_>) -> Option<()> {
        let behind = Behind(&self.is_behind);
        let (marks, keys) = {
            let pending = self.pending.lock();
            (pending.marks(), pending.keys())
        };
        if !marks.is_empty() {
            self.call(self.store.mark(&marks), grounds).await?;
            self.pending.lock().forget_marks(&marks);
        }
        for (keys, at, verb) in keys {
            self.call(self.store.invalidate_many(&keys, at, verb), grounds).await?;
            self.pending.lock().forget_keys(&keys, at, verb);
        }
        behind.caught_up();
        Some(())
    }

    /// Has it note that it has heard so far, if it has. Costs nothing if it has noted
    /// that already, and otherwise what it is still to be told.
    pub(crate) async fn note_heard(&self, place: Place, grounds: Grounds<'_>) {
        let Some(hearing) = &self.hearing else { return };
        // Looked at after the place: what was in doubt by then is part of what is noted.
        let heard = HeardUpTo { position: place.position, since: self.trusted_from() };
        if hearing.ear() != Some(place.ear) || !hearing.is_news(heard) {
            return;
        }
        // What was said up to there is told, or noted as yet to be told.
        let Some(()) = self.settle(grounds).await else { return };
        if self.call(self.store.note_heard(heard), grounds).await.is_some() {
            hearing.noted(heard);
        }
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T>>,
        grounds: Grounds<'_>,
    ) -> Option<T> {
        self.caller.call(call, grounds).await
    }
}

/// Says again that a store is behind when it could not catch up, also when
/// whoever tried was dropped.
struct Behind<'t>(&'t AtomicBool);

impl Behind<'_> {
    fn caught_up(self) {
        std::mem::forget(self);
    }
}

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A put under way. Dropped before it is known to have happened, it has what is
/// older than its entries hidden and removed: nobody can say what the store has.
struct Unsure<'t> {
    tier: &'t StoreTier,
    entries: &'t [(Key, StoredEntry)],
}

impl Unsure<'_> {
    fn settled(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        let mut pending = self.tier.pending.lock();
        for (key, entry) in self.entries {
            pending.add_keys(std::slice::from_ref(key), entry.version, Verb::Remove);
        }
        drop(pending);
        self.tier.is_behind.store(true, Ordering::Release);
    }
}
