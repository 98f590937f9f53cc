//! Loads under way: one for each key, whoever asks (R1).
//!
//! The table is also the fence between loads and invalidations. A load's answer
//! is kept only while its flight is still the one in the table, and that check
//! and the insertion happen under the same lock under which an invalidation or
//! a write takes the flight out. So either the invalidation comes first and the
//! answer is not kept, or the answer is kept first and the invalidation removes
//! it.
//!
//! What leaves memory by way of that lock is dropped after it: a value's `Drop`
//! is foreign code, and may call its cache. Callers see to that for the entry of
//! their key by returning it from `keep` and `act`. Not theirs to see to is what
//! an insertion evicts: the `Drop` of a value evicted by another key must not
//! call its cache, as [`crate::CacheValue`] says.

mod holds;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use larder_core::{Error, LoadCause, Moment, Tags, Ttl, Version};
use larder_memory::Resident;
use tokio::sync::Notify;

use holds::Holds;
pub(crate) use holds::{Hold, Writers};

use crate::basis::Basis;
use crate::hit::{Held, Tier};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// One load of one key, and everyone who waits for it.
pub(crate) struct Flight<K, V> {
    pub(crate) key: K,
    begun: AtomicU64,
    pub(crate) cause: LoadCause,
    /// When the load began.
    pub(crate) began_at: Moment,
    /// When the load is cancelled.
    pub(crate) deadline: Moment,
    /// What is refreshed, if anything.
    pub(crate) held: Option<Resident<K, V>>,
    pub(crate) terms: Terms,
    /// The write of which this flight brings the answer, if it is no load.
    pub(crate) hold: Option<Hold>,
    /// Whether every store was asked and has nothing under the key.
    is_vacant_below: AtomicBool,
    /// Whether its answer will have what waits for the origin in it.
    has_pending: AtomicBool,
    landing: OnceLock<Landing<K, V>>,
    landed: Notify,
    /// Says that it was taken out of the table before it landed.
    fenced: Notify,
}

/// How a load ended.
pub(crate) enum Landing<K, V> {
    /// With an answer, from this tier, computed from this.
    Answer { held: Held<K, V>, tier: Tier, basis: Basis },
    /// Only the tiers were to be asked, and none of them has it.
    NotHeld,
    /// Without.
    Failed(Error),
}

/// What a request says about the entry that its load makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) tags: Tags,
    /// What of other caches it was computed from.
    pub(crate) sources: Tags,
}

impl<K, V> Flight<K, V> {
    pub(crate) fn new(
        key: K,
        begun: Version,
        cause: LoadCause,
        began_at: Moment,
        deadline: Moment,
        held: Option<Resident<K, V>>,
        terms: Terms,
    ) -> Self {
        Self {
            key,
            begun: AtomicU64::new(begun.get()),
            cause,
            began_at,
            deadline,
            held,
            terms,
            hold: None,
            is_vacant_below: AtomicBool::new(false),
            has_pending: AtomicBool::new(false),
            landing: OnceLock::new(),
            landed: Notify::new(),
            fenced: Notify::new(),
        }
    }

    /// The flight of a write: whoever reads the key meanwhile and finds nothing waits
    /// for what is written.
    pub(crate) fn of_write(self, hold: Hold) -> Self {
        Self { hold: Some(hold), ..self }
    }

    /// The fence token: the version when the load began, before anything was
    /// read at its source. An invalidation numbered after it wins over the answer.
    pub(crate) fn begun(&self) -> Version {
        Version::new(self.begun.load(Ordering::Acquire))
    }

    /// Begins only now: so far nothing was read but the tiers, whose answers have
    /// versions of their own.
    pub(crate) fn begin_now(&self, version: Version) {
        self.begun.store(version.get(), Ordering::Release);
    }

    /// Whether every store was asked and has nothing under the key: then there is
    /// nothing to be removed there.
    pub(crate) fn is_vacant_below(&self) -> bool {
        self.is_vacant_below.load(Ordering::Acquire)
    }

    pub(crate) fn note_below(&self, is_vacant: bool) {
        self.is_vacant_below.store(is_vacant, Ordering::Release);
    }

    /// Tells everyone who waits. Only the first landing counts.
    pub(crate) fn land(&self, landing: Landing<K, V>) {
        if self.landing.set(landing).is_ok() {
            self.landed.notify_waiters();
        }
    }

    pub(crate) fn has_landed(&self) -> bool {
        self.landing.get().is_some()
    }

    /// Waits until it is taken out of the table, so that its answer will not be kept.
    /// For one who waits.
    pub(crate) async fn fenced(&self) {
        self.fenced.notified().await;
    }

    /// Waits for the answer.
    ///
    /// # Cancel safety
    /// A dropped wait does not touch the load.
    pub(crate) async fn landing(&self) -> &Landing<K, V> {
        loop {
            let mut landed = std::pin::pin!(self.landed.notified());
            // From here on a landing wakes this wait; one from before is seen
            // by the look at it.
            landed.as_mut().enable();
            if let Some(landing) = self.landing.get() {
                return landing;
            }
            landed.await;
        }
    }
}

/// What came of asking for a flight.
pub(crate) enum Boarded<K, V> {
    /// There was none: this one is the caller's to run.
    Began(Arc<Flight<K, V>>),
    /// Another's load of the key is under way.
    Joined(Arc<Flight<K, V>>),
    /// A load landed since the caller looked.
    Landed(Resident<K, V>),
}

type Shard<K, V> = Mutex<Table<K, V>>;

/// The loads of some keys, and which of them are being written.
struct Table<K, V> {
    flights: HashMap<K, Arc<Flight<K, V>>, RandomState>,
    holds: Holds<K>,
}

impl<K: Hash + Eq, V> Table<K, V> {
    fn new() -> Self {
        Self { flights: HashMap::default(), holds: Holds::default() }
    }

    fn has(&self, flight: &Arc<Flight<K, V>>) -> bool {
        self.flights.get(&flight.key).is_some_and(|other| Arc::ptr_eq(other, flight))
    }
}

/// All loads under way.
pub(crate) struct Flights<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: RandomState,
    /// Loads whose task has not ended, whether or not still in the table.
    running: AtomicUsize,
    ended: Notify,
}

/// A power of two, so that a shard is picked by masking.
const SHARDS: usize = 64;

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Table::new())).collect(),
            hasher: RandomState::default(),
            running: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// Joins the key's flight, or begins one unless `look` finds that a load
    /// has landed in the meantime. Fails only as `begin` does, which is not
    /// called where there is something to join.
    pub(crate) fn board<E>(
        &self,
        key: &K,
        look: impl FnOnce() -> Option<Resident<K, V>>,
        begin: impl FnOnce() -> Result<Flight<K, V>, E>,
    ) -> Result<Boarded<K, V>, E> {
        let mut shard = self.shard(key).lock();
        if let Some(flight) = shard.flights.get(key) {
            return Ok(Boarded::Joined(Arc::clone(flight)));
        }
        if let Some(resident) = look() {
            return Ok(Boarded::Landed(resident));
        }
        let flight = Arc::new(begin()?);
        shard.flights.insert(key.clone(), Arc::clone(&flight));
        Ok(Boarded::Began(flight))
    }

    /// Takes a flight out and runs `keep`, under the lock, if no invalidation or write took it
    /// out before.
    pub(crate) fn leave<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        keep: impl FnOnce() -> R,
    ) -> Option<R> {
        self.leave_if(flight, |_| true, keep)
    }

    /// The same, but `keep` does not run, and nothing is returned, where somebody else
    /// writes the key.
    pub(crate) fn leave_unheld<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        keep: impl FnOnce() -> R,
    ) -> Option<R> {
        self.leave_if(flight, |holds| !holds.hinder(&flight.key, flight.hold), keep)
    }

    fn leave_if<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        may_keep: impl FnOnce(&Holds<K>) -> bool,
        keep: impl FnOnce() -> R,
    ) -> Option<R> {
        let mut shard = self.shard(&flight.key).lock();
        if !shard.has(flight) {
            return None;
        }
        let left = shard.flights.remove_entry(&flight.key);
        let kept = may_keep(&shard.holds).then(keep);
        drop(shard);
        drop(left);
        kept
    }

    /// Runs `act`, under the lock, if the flight is still in the table and nobody
    /// writes the key.
    pub(crate) fn during<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        act: impl FnOnce() -> R,
    ) -> Option<R> {
        let shard = self.shard(&flight.key).lock();
        let may_keep = shard.has(flight) && !shard.holds.hinder(&flight.key, flight.hold);
        may_keep.then(act)
    }

    /// Takes the key's flight out, so that its answer is not kept and nobody
    /// joins it any more, and runs `act`, under the lock, before any other load of
    /// the key can begin or land.
    pub(crate) fn fence<Q, R>(&self, key: &Q, act: impl FnOnce() -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        let fenced = shard.flights.remove_entry(key);
        let acted = act();
        drop(shard);
        tell_fenced(fenced);
        acted
    }

    /// The same, but a load that began with this version or a newer one goes on:
    /// it has seen what the change of this version did.
    pub(crate) fn fence_before<Q, R>(&self, key: &Q, version: Version, act: impl FnOnce() -> R) -> R
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        let is_older = shard.flights.get(key).is_some_and(|flight| flight.begun() < version);
        let fenced = if is_older { shard.flights.remove_entry(key) } else { None };
        let acted = act();
        drop(shard);
        tell_fenced(fenced);
        acted
    }

    /// Has nothing kept that is read of the key from now on, nor what was read before,
    /// until [`Flights::release`].
    pub(crate) fn hold(&self, key: &K, hold: Hold) {
        self.shard(key).lock().holds.add(key, hold);
    }

    /// Ends a hold. Returns whether there was this one.
    pub(crate) fn release<Q>(&self, key: &Q, hold: Hold) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).lock();
        let (was_held, key) = shard.holds.remove(key, hold);
        drop(shard);
        drop(key);
        was_held
    }

    /// Runs `act`, under the lock, and notes whether the flight's answer will have what
    /// waits for the origin in it: then a write that is accepted leaves it in the table.
    pub(crate) fn note_pending<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        act: impl FnOnce() -> Option<R>,
    ) -> Option<R> {
        let shard = self.shard(&flight.key).lock();
        let pending = act();
        flight.has_pending.store(pending.is_some(), Ordering::Release);
        drop(shard);
        pending
    }

    /// Runs `act`, under the lock, and takes the key's flight out if it brings an answer
    /// from before. Where `act` gives nothing, nothing is done.
    pub(crate) fn fence_unaware<R>(&self, key: &K, act: impl FnOnce() -> Option<R>) -> Option<R> {
        let mut shard = self.shard(key).lock();
        let acted = act()?;
        let is_unaware = |flight: &Arc<Flight<K, V>>| !flight.has_pending.load(Ordering::Acquire);
        let fenced = match shard.flights.get(key).is_some_and(is_unaware) {
            true => shard.flights.remove_entry(key),
            false => None,
        };
        drop(shard);
        tell_fenced(fenced);
        Some(acted)
    }

    /// Runs `act`, under the lock, which is told whether the flight is still in the
    /// table. Takes it out if it gives something.
    pub(crate) fn conclude<R>(
        &self,
        flight: &Arc<Flight<K, V>>,
        act: impl FnOnce(bool) -> Option<R>,
    ) -> Option<R> {
        let mut shard = self.shard(&flight.key).lock();
        let is_there = shard.has(flight);
        let acted = act(is_there)?;
        let left = if is_there { shard.flights.remove_entry(&flight.key) } else { None };
        drop(shard);
        drop(left);
        Some(acted)
    }

    /// Puts a flight in the place of the key's other one, which is fenced.
    pub(crate) fn supersede(&self, flight: &Arc<Flight<K, V>>) {
        let key = flight.key.clone();
        let mut shard = self.shard(&key).lock();
        let fenced = shard.flights.remove_entry(&key);
        shard.flights.insert(key, Arc::clone(flight));
        drop(shard);
        tell_fenced(fenced);
    }

    /// Takes out a flight that nobody is to join any more.
    pub(crate) fn fence_one(&self, flight: &Arc<Flight<K, V>>) {
        if self.leave(flight, || ()).is_some() {
            flight.fenced.notify_one();
        }
    }

    pub(crate) fn is_under_way<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shard(key).lock().flights.contains_key(key)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub(crate) fn task_begins(&self) {
        self.running.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn task_ends(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }

    /// Waits until no load runs.
    pub(crate) async fn all_ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &Shard<K, V> {
        let hash = self.hasher.hash_one(key);
        &self.shards[hash as usize & (SHARDS - 1)]
    }
}

fn tell_fenced<K, V>(fenced: Option<(K, Arc<Flight<K, V>>)>) {
    if let Some((_, flight)) = fenced {
        flight.fenced.notify_one();
    }
}
