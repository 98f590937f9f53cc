//! One part of the keyspace: what a single lock covers.

use super::deadline::Deadline;
use super::entry::Entry;
use super::recency::Recency;
use super::table::{KeyHasher, Position, Table};
use super::{Form, WallTime};

/// How many versions a shard keeps. A `WATCH` is aborted in vain by a write to
/// another key of the same stripe only.
const VERSION_COUNT: usize = 16;

/// Entries with what is counted about them.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Shard {
    pub(super) table: Table,
    random: u64,
    /// What has happened here since the start.
    pub(super) counters: Counters,
    /// No later than the first expiry in the table.
    pub(super) next_deadline: Deadline,
    /// How much of the table's bytes the shared count knows of.
    pub(super) published_bytes: usize,
    versions: [u64; VERSION_COUNT],
    epoch: WallTime,
}

/// What is counted in a shard, under its lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) expired: u64,
    pub(super) evicted: u64,
}

impl Shard {
    /// `seed` must not be 0.
    pub(super) fn new(epoch: WallTime, seed: u64) -> Self {
        Self {
            table: Table::new(epoch),
            counters: Counters::default(),
            next_deadline: Deadline::NONE,
            published_bytes: 0,
            versions: [0; VERSION_COUNT],
            random: seed,
            epoch,
        }
    }

    /// Where a key that has not expired is. One that has is removed here: an
    /// expiry is exact for whoever looks.
    #[inline]
    pub(super) fn find(
        &mut self,
        hash: u64,
        key: &[u8],
        now: impl FnOnce() -> WallTime,
    ) -> Option<Position> {
        let position = self.table.find(hash, key)?;
        match self.table.entry(position).expiry() {
            Some(expiry) if now() > expiry => {
                self.expire(hash, position);
                None
            }
            _ => Some(position),
        }
    }

    /// Reads a value; counts a hit or a miss and a use.
    #[inline]
    pub(super) fn read<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        recency: Recency,
        now: impl FnOnce() -> WallTime,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let Some(position) = self.table.find(hash, key) else {
            self.counters.misses += 1;
            return None;
        };
        let entry = self.table.entry_to_touch(position);
        if entry.expiry().is_some_and(|expiry| now() > expiry) {
            self.counters.misses += 1;
            self.expire(hash, position);
            return None;
        }
        self.counters.hits += 1;
        touch(entry, recency, &mut self.random);
        Some(read(entry.value()))
    }

    /// Writes a value at the position at which the key was just found, or as a
    /// new entry if it was not.
    pub(super) fn write(
        &mut self,
        at: At<'_>,
        position: Option<Position>,
        value: &[u8],
        expiry: Option<WallTime>,
        form: Form,
    ) {
        match position {
            Some(position) => {
                self.table.update(position, |entry| entry.replace(value, expiry, form));
                let entry = self.table.entry_to_touch(position);
                touch(entry, at.recency, &mut self.random);
            }
            None => {
                let entry = Entry::new(at.key, value, expiry, form, at.recency.fresh());
                self.table.insert(at.hash, entry, at.hasher);
            }
        }
        self.changed(at.hash, expiry);
    }

    /// Changes the entry at a position.
    pub(super) fn update(
        &mut self,
        hash: u64,
        position: Position,
        change: impl FnOnce(&mut Entry),
    ) {
        self.table.update(position, change);
        let expiry = self.table.entry(position).expiry();
        self.changed(hash, expiry);
    }

    /// Takes the entry at a position out.
    pub(super) fn remove(&mut self, hash: u64, position: Position) -> Entry {
        self.bump(hash);
        self.table.remove(position)
    }

    /// Removes an entry whose time has come.
    pub(super) fn expire(&mut self, hash: u64, position: Position) {
        self.counters.expired += 1;
        self.remove(hash, position);
    }

    /// Takes every entry out.
    pub(super) fn clear(&mut self) -> Table {
        if self.table.len() > 0 {
            self.versions.iter_mut().for_each(|version| *version += 1);
        }
        self.next_deadline = Deadline::NONE;
        std::mem::replace(&mut self.table, Table::new(self.epoch))
    }

    /// A number that differs whenever the key may have changed in between.
    pub(super) fn version(&self, hash: u64) -> u64 {
        self.versions[stripe(hash)]
    }

    /// The step of deadlines in which `time` lies.
    pub(super) fn deadline_of(&self, time: WallTime) -> Deadline {
        Deadline::of(time, self.epoch)
    }

    pub(super) fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    fn changed(&mut self, hash: u64, expiry: Option<WallTime>) {
        self.bump(hash);
        if let Some(expiry) = expiry {
            self.next_deadline = self.next_deadline.min(Deadline::of(expiry, self.epoch));
        }
    }

    /// Makes the version another one.
    pub(super) fn bump(&mut self, hash: u64) {
        self.versions[stripe(hash)] += 1;
    }
}

/// The key that a write is about.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
    pub(super) recency: Recency,
    pub(super) hasher: &'a KeyHasher,
}

/// Notes the use of an entry; writes nothing if there is nothing new.
#[inline]
fn touch(entry: &mut Entry, recency: Recency, random: &mut u64) {
    let access = entry.access();
    let next = recency.used(access, random);
    if next != access {
        entry.set_access(next);
    }
}

/// Bits that choose neither shard nor, in a table of ordinary size, bucket.
fn stripe(hash: u64) -> usize {
    (hash >> 36) as usize % VERSION_COUNT
}

/// The next of a sequence of numbers that look random; the state is never 0.
#[inline]
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
