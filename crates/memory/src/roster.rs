use std::hash::{BuildHasher, Hash};

use larder_core::Moment;

use crate::RemovalCause;
use crate::node::{GONE, Handle, UNLISTED};
use crate::statistics::RemovalCounts;
use crate::sync::{Hashing, Mutex, Padded};
use crate::wheel::Wheel;

/// A list of every node in the cache, with a timer for those that expire.
///
/// A node joins after it was put into the cache and leaves after it was taken
/// out. Between these steps another thread may have taken it out already, so its
/// place, which changes only under the shard's lock, tells who came first:
/// `UNLISTED` → a place → `GONE`, or `UNLISTED` → `GONE`, and never back. That a
/// node is taken out only once is up to the cache.
#[derive(Debug)]
pub(crate) struct Roster<K, V> {
    shards: Box<[LockedShard<K, V>]>,
    hashing: Hashing,
}

type LockedShard<K, V> = Padded<Mutex<Shard<K, V>>>;

/// How many places are looked at under one lock.
pub(crate) const BATCH: usize = 64;

#[derive(Debug)]
struct Shard<K, V> {
    wheel: Wheel<Handle<K, V>>,
    removals: RemovalCounts,
}

impl<K: Hash, V> Roster<K, V> {
    pub(crate) fn new(shards: usize, hashing: Hashing) -> Self {
        let shard = || Shard { wheel: Wheel::new(), removals: RemovalCounts::default() };
        Self { shards: (0..shards).map(|_| Padded(Mutex::new(shard()))).collect(), hashing }
    }

    /// Takes in a node that was put into the cache, unless it left already.
    pub(crate) fn join(&self, handle: &Handle<K, V>, now: Moment) {
        let mut shard = self.shard_of(handle).lock();
        shard.wheel.catch_up(now);
        if handle.place() == UNLISTED {
            // Without a place the entry is still served and evicted; nobody
            // reclaims it in the background.
            if let Ok(place) = shard.wheel.insert(handle.clone(), handle.deadline()) {
                handle.set_place(place);
            }
        }
    }

    /// Lets go of a node that was taken out of the cache.
    pub(crate) fn leave(&self, handle: &Handle<K, V>, cause: RemovalCause) {
        let mut shard = self.shard_of(handle).lock();
        shard.removals.count(cause);
        // The caller holds the node too, so nothing is dropped under the lock.
        shard.wheel.remove(handle.place());
        handle.set_place(GONE);
    }

    /// Nodes of this shard whose time is up, into `due`. They stay listed until
    /// they leave. Visits at most `visits` nodes and counts them off.
    pub(crate) fn take_due(
        &self,
        shard: usize,
        now: Moment,
        visits: &mut usize,
        due: &mut Vec<Handle<K, V>>,
    ) {
        let mut shard = self.shards[shard].lock();
        while due.len() < due.capacity() {
            let deadline = |handle: &Handle<K, V>| handle.deadline();
            let Some(place) = shard.wheel.next_due(now, visits, deadline) else { return };
            due.extend(shard.wheel.get(place).cloned());
        }
    }

    /// Looks at places of this shard from `from` on, no more than `looks`, and
    /// counts them off; the nodes in them go into `nodes`. Returns where to go
    /// on, or `None` at the end.
    pub(crate) fn scan(
        &self,
        shard: usize,
        from: u32,
        looks: &mut usize,
        nodes: &mut Vec<Handle<K, V>>,
    ) -> Option<u32> {
        let shard = self.shards[shard].lock();
        let places = shard.wheel.places();
        let to = from.saturating_add((*looks).min(BATCH) as u32).min(places);
        *looks -= to.saturating_sub(from) as usize;
        nodes.extend((from..to).filter_map(|place| shard.wheel.get(place)).cloned());
        (to < places).then_some(to)
    }

    /// No node's time is up before this moment.
    pub(crate) fn next_moment(&self) -> Moment {
        let moments = self.shards.iter().map(|shard| shard.lock().wheel.next_moment());
        moments.min().unwrap_or(Moment::NEVER)
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn removals(&self) -> RemovalCounts {
        let mut all = RemovalCounts::default();
        for shard in &self.shards {
            all.add(&shard.lock().removals);
        }
        all
    }

    fn shard_of(&self, handle: &Handle<K, V>) -> &Mutex<Shard<K, V>> {
        let index = self.hashing.hash_one(&handle.key) as usize % self.shards.len();
        &self.shards[index]
    }
}
