//! Who answers for which keys, and until when what was read there holds.
//!
//! Keys fall into slots: one if there is a single Redis, 16 384 in a cluster.
//! Each slot has an owner and an *epoch*, which moves on whenever what was read
//! of the slot may be old: another owner, a lost tracking connection, a flush.
//! An entry carries the epoch under which its read began and is dead under any
//! other. Each owner has a moment *until* which it was proved that none of its
//! invalidations is missing.
//!
//! That a key is *not there* needs more: while a slot moves, the key may appear at
//! a server that does not own the slot yet. So it holds only while all servers are
//! heard, and it carries an epoch that moves on when any of them may not have been.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::Moment;
use parking_lot::Mutex;

use super::cluster::slot::{SLOTS, slot_of};

/// How many servers there may be at a time.
pub(crate) const NODES_MAX: usize = 512;

pub(crate) struct Validity {
    /// The owner of each slot above its epoch.
    slots: Box<[AtomicU64]>,
    holds: Box<[Hold]>,
    /// The servers from which changes may come.
    watched: Mutex<Vec<usize>>,
    epoch: AtomicU32,
    /// The epoch of what is not there.
    absence: AtomicU32,
    /// Until when all that are watched hold.
    all_until: AtomicU64,
    /// How often slots have changed their owner.
    moves: AtomicU64,
}

/// What is proved of one server.
#[derive(Default)]
struct Hold {
    /// In nanoseconds of the clock; 0 while nothing holds.
    until: AtomicU64,
    /// When the last question was asked that it has answered.
    synced_at: AtomicU64,
    /// For how long a value is kept at most, in milliseconds; 0 sets no bound.
    ttl_ms: AtomicU64,
}

/// A slot at one moment: who owns it, and since which epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) slot: usize,
    pub(crate) node: usize,
    pub(crate) epoch: u32,
}

impl Validity {
    /// Everything belongs to the first server; nothing holds.
    pub(crate) fn new(is_cluster: bool) -> Self {
        let slots = if is_cluster { SLOTS } else { 1 };
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            holds: (0..NODES_MAX).map(|_| Hold::default()).collect(),
            watched: Mutex::new(vec![0]),
            epoch: AtomicU32::new(0),
            absence: AtomicU32::new(0),
            all_until: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn slot(&self, key: &[u8]) -> usize {
        if self.slots.len() == 1 { 0 } else { slot_of(key) }
    }

    #[inline]
    pub(crate) fn place(&self, key: &[u8]) -> Place {
        self.place_of_slot(self.slot(key))
    }

    #[inline]
    pub(crate) fn place_of_slot(&self, slot: usize) -> Place {
        let word = self.slots[slot].load(Ordering::Acquire);
        Place { slot, node: (word >> 32) as usize, epoch: word as u32 }
    }

    /// Whether nothing has come between.
    pub(crate) fn is_current(&self, place: Place) -> bool {
        self.place_of_slot(place.slot) == place
    }

    /// Whether what was read of this server holds.
    #[inline]
    pub(crate) fn holds(&self, node: usize, now: Moment) -> bool {
        now.as_nanos() < self.holds[node].until.load(Ordering::Acquire)
    }

    /// Whether what was read of any server holds, and that keys are not there.
    #[inline]
    pub(crate) fn all_hold(&self, now: Moment) -> bool {
        now.as_nanos() < self.all_until.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn absence(&self) -> u32 {
        self.absence.load(Ordering::Acquire)
    }

    /// A number that moves on with each change of owners.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// These slots belong to this server. What was read of those that belonged to
    /// another is dead. Returns whether any did.
    pub(crate) fn assign(&self, slots: impl Iterator<Item = usize>, node: usize) -> bool {
        let epoch = self.next_epoch();
        let mut has_moved = false;
        for slot in slots {
            let Some(word) = self.slots.get(slot) else { continue };
            if (word.load(Ordering::Acquire) >> 32) as usize != node {
                word.store(packed(node, epoch), Ordering::Release);
                has_moved = true;
            }
        }
        if has_moved {
            self.moves.fetch_add(1, Ordering::AcqRel);
        }
        has_moved
    }

    /// Whether any slot belongs to this server.
    pub(crate) fn owns(&self, node: usize) -> bool {
        self.slots.iter().any(|word| (word.load(Ordering::Acquire) >> 32) as usize == node)
    }

    /// Every server that owns a slot, by place.
    pub(crate) fn owners(&self) -> Vec<usize> {
        let mut owners = Vec::new();
        for word in &self.slots {
            let node = (word.load(Ordering::Acquire) >> 32) as usize;
            // Slots of one owner lie side by side, mostly.
            if owners.last() != Some(&node) {
                owners.push(node);
            }
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Who is listened to.
    pub(crate) fn watch(&self, nodes: Vec<usize>) {
        let mut watched = self.watched.lock();
        if *watched != nodes {
            *watched = nodes;
            // One that has come now was not heard before.
            self.absence.fetch_add(1, Ordering::AcqRel);
        }
        self.refresh_all(&watched);
    }

    pub(crate) fn watched(&self) -> Vec<usize> {
        self.watched.lock().clone()
    }

    /// Everything that was read of this server is dead.
    pub(crate) fn renew(&self, node: usize) {
        let epoch = self.next_epoch();
        for word in &self.slots {
            let old = word.load(Ordering::Acquire);
            if (old >> 32) as usize == node {
                // Lost if the slot has moved at this moment: then it has a new one.
                let _ = word.compare_exchange(
                    old,
                    packed(node, epoch),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
            }
        }
        self.absence.fetch_add(1, Ordering::AcqRel);
    }

    /// Everything that was read is dead.
    pub(crate) fn renew_all(&self) {
        let epoch = u64::from(self.next_epoch());
        for word in &self.slots {
            let renewed = |old: u64| Some((old >> 32) << 32 | epoch);
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, renewed);
        }
        self.absence.fetch_add(1, Ordering::AcqRel);
    }

    /// Invalidations of this server may be lost: nothing of it holds.
    pub(crate) fn suspend(&self, node: usize) {
        let watched = self.watched.lock();
        self.holds[node].until.store(0, Ordering::Release);
        self.refresh_all(&watched);
        drop(watched);
        self.renew(node);
    }

    /// Every invalidation sent before `asked_at` has arrived, so what was read of
    /// the server holds until `until`.
    pub(crate) fn prolong(&self, node: usize, asked_at: Moment, until: Moment) {
        let watched = self.watched.lock();
        let hold = &self.holds[node];
        hold.ttl_ms.store(0, Ordering::Release);
        hold.synced_at.store(asked_at.as_nanos(), Ordering::Release);
        hold.until.store(until.as_nanos(), Ordering::Release);
        self.refresh_all(&watched);
    }

    /// The server does not tell what changes: what was read of it holds for this
    /// long.
    pub(crate) fn hold_for(&self, node: usize, ttl: Duration) {
        let watched = self.watched.lock();
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let hold = &self.holds[node];
        hold.ttl_ms.store(millis, Ordering::Release);
        hold.until.store(u64::MAX, Ordering::Release);
        self.refresh_all(&watched);
    }

    /// The longest that a value of this server is kept.
    pub(crate) fn bound(&self, node: usize) -> Option<Duration> {
        match self.holds[node].ttl_ms.load(Ordering::Acquire) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// Whether a write that ended at `moment`, of keys that are not known, has
    /// been told of by this server, or else what it wrote is not here any more.
    pub(crate) fn has_seen(&self, node: usize, moment: Moment, now: Moment) -> bool {
        match self.bound(node) {
            None => self.holds[node].synced_at.load(Ordering::Acquire) >= moment.as_nanos(),
            Some(bound) => now.since(moment) > bound,
        }
    }

    /// The same of every server.
    pub(crate) fn all_have_seen(&self, moment: Moment, now: Moment) -> bool {
        self.watched.lock().iter().all(|&node| self.has_seen(node, moment, now))
    }

    fn refresh_all(&self, watched: &[usize]) {
        let until = |&node: &usize| self.holds[node].until.load(Ordering::Acquire);
        let until = watched.iter().map(until).min().unwrap_or(0);
        self.all_until.store(until, Ordering::Release);
    }

    fn next_epoch(&self) -> u32 {
        self.epoch.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }
}

fn packed(node: usize, epoch: u32) -> u64 {
    (node as u64) << 32 | u64::from(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_nanos(1_000_000_000);
    const LATER: Moment = Moment::from_nanos(2_000_000_000);

    #[test]
    fn a_slot_that_moves_begins_anew_and_others_do_not() {
        let validity = Validity::new(true);
        let [moved, stays] = [validity.place_of_slot(5), validity.place_of_slot(6)];
        assert!(validity.assign(5..6, 1));
        assert!(!validity.is_current(moved) && validity.is_current(stays));
        assert_eq!(validity.place_of_slot(5).node, 1);
        let again = validity.place_of_slot(5);
        assert!(!validity.assign(5..6, 1), "it is there already");
        assert!(validity.is_current(again));
        assert!(!validity.assign(SLOTS..SLOTS + 5, 1), "there are no such slots");
    }

    #[test]
    fn each_server_holds_for_itself_and_absence_for_all() {
        let validity = Validity::new(true);
        validity.assign(0..100, 1);
        validity.watch(vec![0, 1]);
        validity.prolong(0, NOW, LATER);
        assert!(validity.holds(0, NOW) && !validity.holds(1, NOW) && !validity.all_hold(NOW));
        validity.prolong(1, NOW, LATER);
        assert!(validity.all_hold(NOW));
        let (mine, others) = (validity.place_of_slot(7), validity.place_of_slot(700));
        let absence = validity.absence();
        validity.suspend(1);
        assert!(!validity.is_current(mine) && validity.is_current(others));
        assert!(validity.holds(0, NOW) && !validity.all_hold(NOW));
        assert_ne!(validity.absence(), absence);
    }

    #[test]
    fn a_server_that_joins_was_not_heard_before() {
        let validity = Validity::new(true);
        validity.watch(vec![0]);
        validity.prolong(0, NOW, LATER);
        let absence = validity.absence();
        validity.watch(vec![0, 2]);
        assert!(!validity.all_hold(NOW) && validity.holds(0, NOW));
        assert_ne!(validity.absence(), absence);
    }

    #[test]
    fn a_flush_ends_what_was_read_and_not_the_proof() {
        let validity = Validity::new(false);
        validity.prolong(0, NOW, LATER);
        let place = validity.place(b"any");
        assert_eq!(place.slot, 0);
        validity.renew_all();
        assert!(!validity.is_current(place) && validity.holds(0, NOW));
        assert_eq!(validity.place(b"any").node, 0);
    }
}
