//! A hash table that grows and shrinks by one bucket at a time.
//!
//! Linear hashing: with `m` the largest power of two not above the number of
//! buckets, the first `buckets − m` of the lower `m` have been split in two.
//! So there is never a doubling to wait for or to pay memory for, and a cursor
//! over the lower `m` in the order of their reversed bits, each visited with
//! its other half, sees every key that stays throughout, however the table
//! changes between two steps.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;

use super::WallTime;
use super::bucket::{Bucket, Place, SLOT_COUNT};
use super::deadline::Deadline;
use super::entry::Entry;

/// Entries for each bucket of seven beyond which the table grows: about every
/// sixth bucket needs a second one behind it then, at 32 bytes an entry.
const ENTRIES_PER_BUCKET: usize = 5;

/// How keys are hashed: seeded at random, so that nobody can choose keys that
/// collide.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyHasher(RandomState);

impl KeyHasher {
    /// The bits of it serve three ends: the lowest 32 choose the bucket, the
    /// next but eight the tag, the highest 16 the shard.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// Where in a table an entry is; good until the table changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    bucket: usize,
    place: Place,
}

/// The entries of a shard. What a read needs comes first, beside the lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    /// For each bucket, no later than the first expiry in it.
    deadlines: Vec<Deadline>,
    /// Deadlines count from here.
    epoch: WallTime,
    length: usize,
    volatile_length: usize,
    overflow_count: usize,
    /// What the allocator has handed out for the entries.
    entry_bytes: usize,
    /// The same for the two vectors.
    vector_bytes: usize,
}

impl Table {
    /// An empty table, which owns no memory.
    pub(super) fn new(epoch: WallTime) -> Self {
        Self {
            buckets: Vec::new(),
            deadlines: Vec::new(),
            epoch,
            length: 0,
            volatile_length: 0,
            overflow_count: 0,
            entry_bytes: 0,
            vector_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many entries expire.
    pub(super) fn volatile_len(&self) -> usize {
        self.volatile_length
    }

    pub(super) fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// What the allocator has handed out for the entries and the table.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.entry_bytes + self.vector_bytes + self.overflow_count * size_of::<Bucket>()
    }

    /// What the table takes for each slot that is filled.
    pub(super) fn bytes_per_slot(&self) -> usize {
        (self.bytes() - self.entry_bytes).div_ceil(self.length.max(1))
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Position> {
        let bucket = self.bucket_of(hash);
        let place = self.buckets.get(bucket)?.find(Bucket::tag(hash), key)?;
        Some(Position { bucket, place })
    }

    /// Reads a byte of the bucket of a hash, to have it at hand.
    #[inline]
    pub(super) fn touch_bucket(&self, hash: u64) -> u8 {
        self.buckets.get(self.bucket_of(hash)).map_or(0, |bucket| bucket.touch())
    }

    /// Reads what a look for a key with this hash will read, without a look at
    /// the key: nothing waits for a byte of the entry.
    #[inline]
    pub(super) fn touch_entry(&self, hash: u64) -> u8 {
        let likely = self
            .buckets
            .get(self.bucket_of(hash))
            .and_then(|bucket| bucket.likely(Bucket::tag(hash)));
        likely.map_or(0, Entry::touch)
    }

    /// The entry at a position that was found and has not changed since.
    #[inline]
    pub(super) fn entry(&self, position: Position) -> &Entry {
        self.buckets[position.bucket].get(position.place).expect("the position was found")
    }

    /// Changes an entry and keeps the books on it.
    #[inline]
    pub(super) fn update<R>(
        &mut self,
        position: Position,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> R {
        let entry =
            self.buckets[position.bucket].get_mut(position.place).expect("the position was found");
        let (length, was_volatile) = (entry.len(), entry.expiry().is_some());
        let result = change(entry);
        if entry.len() != length {
            self.entry_bytes += entry.allocated();
            self.entry_bytes -= larder_core::allocation_size(length);
        }
        self.volatile_length -= usize::from(was_volatile);
        if let Some(expiry) = entry.expiry() {
            self.volatile_length += 1;
            let deadline = &mut self.deadlines[position.bucket];
            *deadline = (*deadline).min(Deadline::of(expiry, self.epoch));
        }
        result
    }

    /// The entry at a position, to note its use: nothing that the books are
    /// kept on may be changed.
    #[inline]
    pub(super) fn entry_to_touch(&mut self, position: Position) -> &mut Entry {
        self.buckets[position.bucket].get_mut(position.place).expect("the position was found")
    }

    /// Adds an entry whose key is not in the table.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry, hasher: &KeyHasher) {
        if self.length >= self.buckets.len() * ENTRIES_PER_BUCKET {
            self.grow(hasher);
        }
        self.length += 1;
        self.entry_bytes += entry.allocated();
        self.volatile_length += usize::from(entry.expiry().is_some());
        let bucket = self.bucket_of(hash);
        self.put(bucket, Bucket::tag(hash), entry);
    }

    /// Takes out the entry at a position that was found.
    pub(super) fn remove(&mut self, position: Position) -> Entry {
        let (entry, shrank) =
            self.buckets[position.bucket].remove(position.place).expect("the position was found");
        self.length -= 1;
        self.overflow_count -= usize::from(shrank);
        self.entry_bytes -= entry.allocated();
        self.volatile_length -= usize::from(entry.expiry().is_some());
        if self.buckets.len() > self.length && self.buckets.len() > 1 {
            self.shrink();
        }
        entry
    }

    /// The deadlines of the buckets.
    pub(super) fn deadlines(&self) -> &[Deadline] {
        &self.deadlines
    }

    /// The position and entry of every key in a bucket.
    pub(super) fn bucket_entries(&self, bucket: usize) -> impl Iterator<Item = (Position, &Entry)> {
        self.buckets
            .get(bucket)
            .into_iter()
            .flat_map(Bucket::entries)
            .map(move |(place, entry)| (Position { bucket, place }, entry))
    }

    /// Sets a bucket's deadline to the first expiry in it.
    pub(super) fn refresh_deadline(&mut self, bucket: usize) {
        let epoch = self.epoch;
        let first = self.bucket_entries(bucket).filter_map(|(_, entry)| entry.expiry()).min();
        if let Some(deadline) = self.deadlines.get_mut(bucket) {
            *deadline = first.map_or(Deadline::NONE, |expiry| Deadline::of(expiry, epoch));
        }
    }

    /// An entry chosen by two random numbers so that each is as likely as any
    /// other; `None` if they point at an empty slot. Slots past the fourth
    /// bucket of a chain are not reached.
    pub(super) fn pick(&self, random: u64) -> Option<Position> {
        let bucket = (random >> 32) as usize % self.buckets.len().max(1);
        let slot = random as u32 as usize % (4 * SLOT_COUNT);
        let place = self.buckets.get(bucket)?.slot(slot)?;
        Some(Position { bucket, place })
    }

    /// Visits the buckets at a cursor and returns the next cursor; 0 is both
    /// the first one and the sign that all have been visited.
    pub(super) fn scan(&self, cursor: u64, mut visit: impl FnMut(&Entry)) -> u64 {
        if self.buckets.is_empty() {
            return 0;
        }
        let half = self.half();
        let lower = cursor as usize & (half - 1);
        for bucket in [lower, lower + half] {
            self.bucket_entries(bucket).for_each(|(_, entry)| visit(entry));
        }
        // Counts up in the bits below `half`, from the highest to the lowest.
        let unused = !(half as u64 - 1);
        (cursor | unused).reverse_bits().wrapping_add(1).reverse_bits()
    }

    /// The largest power of two that is not above the number of buckets.
    #[inline]
    fn half(&self) -> usize {
        1 << self.buckets.len().max(1).ilog2()
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        let half = self.half();
        let bucket = hash as u32 as usize & (2 * half - 1);
        if bucket < self.buckets.len() { bucket } else { bucket & (half - 1) }
    }

    fn put(&mut self, bucket: usize, tag: u8, entry: Entry) {
        if let Some(expiry) = entry.expiry() {
            let deadline = &mut self.deadlines[bucket];
            *deadline = (*deadline).min(Deadline::of(expiry, self.epoch));
        }
        self.overflow_count += usize::from(self.buckets[bucket].insert(tag, entry));
    }

    /// Adds a bucket and gives it its share of the one it is split from.
    fn grow(&mut self, hasher: &KeyHasher) {
        if self.buckets.len() == self.buckets.capacity() {
            let more = room_for(self.buckets.len() + 1) - self.buckets.len();
            self.buckets.reserve_exact(more);
            self.deadlines.reserve_exact(more);
            self.count_vector_bytes();
        }
        let added = self.buckets.len();
        self.buckets.push(Bucket::default());
        self.deadlines.push(Deadline::NONE);
        if added == 0 {
            return;
        }
        let split = split_from(added);
        for (tag, entry) in self.take_bucket(split).into_entries() {
            let bucket = self.bucket_of(hasher.hash(entry.key()));
            self.put(bucket, tag, entry);
        }
    }

    /// Drops the last bucket and gives its entries back to the one it was split
    /// from.
    fn shrink(&mut self) {
        let last = self.buckets.len() - 1;
        let removed = self.take_bucket(last);
        self.buckets.pop();
        self.deadlines.pop();
        let target = split_from(last);
        for (tag, entry) in removed.into_entries() {
            self.put(target, tag, entry);
        }
        if self.buckets.capacity() > 2 * self.buckets.len() + 8 {
            let room = room_for(self.buckets.len() + 1);
            self.buckets.shrink_to(room);
            self.deadlines.shrink_to(room);
            self.count_vector_bytes();
        }
    }

    fn count_vector_bytes(&mut self) {
        self.vector_bytes =
            larder_core::allocation_size(self.buckets.capacity() * size_of::<Bucket>())
                + larder_core::allocation_size(self.deadlines.capacity() * size_of::<Deadline>());
    }

    fn take_bucket(&mut self, index: usize) -> Bucket {
        let bucket = std::mem::take(&mut self.buckets[index]);
        self.deadlines[index] = Deadline::NONE;
        self.overflow_count -= bucket.overflow_count();
        bucket
    }
}

/// How many buckets fit what the allocator hands out for so many: an eighth to a
/// quarter more than the size below.
fn room_for(bucket_count: usize) -> usize {
    larder_core::allocation_size(bucket_count * size_of::<Bucket>()) / size_of::<Bucket>()
}

/// The bucket that this one, not the first, was split from.
fn split_from(bucket: usize) -> usize {
    bucket - (1 << bucket.ilog2())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::Form;

    const EPOCH: WallTime = WallTime::from_unix_millis(1_000_000);

    fn entry(key: u32, value_length: usize, expiry: Option<i64>) -> Entry {
        let value = vec![b'v'; value_length];
        let expiry = expiry.map(WallTime::from_unix_millis);
        Entry::new(&key.to_le_bytes(), &value, expiry, Form::Written, 0)
    }

    fn key_of(entry: &Entry) -> u32 {
        u32::from_le_bytes(entry.key().try_into().expect("the tests' keys have four bytes"))
    }

    /// What the books should say, counted anew.
    fn assert_books(table: &Table, model: &BTreeMap<u32, (usize, Option<i64>)>) {
        let mut bytes = table.buckets.capacity() * 128;
        bytes = larder_core::allocation_size(bytes)
            + larder_core::allocation_size(table.deadlines.capacity() * 4)
            + table.buckets.iter().map(Bucket::overflow_count).sum::<usize>() * 128;
        let mut found = BTreeMap::new();
        for bucket in 0..table.bucket_count() {
            for (_, entry) in table.bucket_entries(bucket) {
                bytes += entry.allocated();
                let expiry = entry.expiry();
                found.insert(
                    key_of(entry),
                    (entry.value().len(), expiry.map(|it| it.unix_millis())),
                );
                if let Some(expiry) = expiry {
                    assert!(table.deadlines[bucket] <= Deadline::of(expiry, EPOCH));
                }
            }
        }
        assert_eq!(&found, model);
        assert_eq!(table.len(), model.len());
        assert_eq!(table.bytes(), bytes);
        let volatile = model.values().filter(|(_, expiry)| expiry.is_some()).count();
        assert_eq!(table.volatile_len(), volatile);
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_with_exact_books(
            steps in proptest::collection::vec(
                (0_u8..4, 0_u32..120, 0_usize..200, proptest::option::of(0_i64..9_999_999)), 0..400),
        ) {
            let hasher = KeyHasher::default();
            let mut table = Table::new(EPOCH);
            let mut model = BTreeMap::new();
            for (action, key, length, expiry) in steps {
                let hash = hasher.hash(&key.to_le_bytes());
                let position = table.find(hash, &key.to_le_bytes());
                prop_assert_eq!(position.is_some(), model.contains_key(&key));
                match (position, action) {
                    (Some(position), 0) => {
                        prop_assert_eq!(key_of(&table.remove(position)), key);
                        model.remove(&key);
                    }
                    (Some(position), _) => {
                        let at = expiry.map(WallTime::from_unix_millis);
                        let value = vec![b'w'; length];
                        table.update(position, |entry| entry.replace(&value, at, Form::Written));
                        model.insert(key, (length, expiry));
                    }
                    (None, 0) => {}
                    (None, _) => {
                        table.insert(hash, entry(key, length, expiry), &hasher);
                        model.insert(key, (length, expiry));
                    }
                }
            }
            assert_books(&table, &model);
        }
    }

    #[test]
    fn a_table_gives_its_memory_back_as_it_empties() {
        let hasher = KeyHasher::default();
        let mut table = Table::new(EPOCH);
        let keys = 0..50_000_u32;
        for key in keys.clone() {
            table.insert(hasher.hash(&key.to_le_bytes()), entry(key, 8, None), &hasher);
        }
        assert!(table.bucket_count() >= 50_000 / ENTRIES_PER_BUCKET);
        for key in keys {
            let position = table.find(hasher.hash(&key.to_le_bytes()), &key.to_le_bytes());
            table.remove(position.expect("the key was inserted"));
        }
        assert_books(&table, &BTreeMap::new());
        assert!(table.bytes() < 4096, "{} bytes", table.bytes());
    }

    #[test]
    fn the_table_takes_little_more_than_the_entries_at_every_size() {
        let hasher = KeyHasher::default();
        let mut table = Table::new(EPOCH);
        let mut slots = Vec::new();
        for count in 1..=40_000_u32 {
            table.insert(hasher.hash(&count.to_le_bytes()), entry(count, 8, None), &hasher);
            if count >= 1000 && count % 100 == 0 {
                let slot = table.bytes_per_slot();
                assert!(slot <= 40, "{slot} bytes a slot at {count} entries");
                slots.push(slot);
            }
        }
        let mean = slots.iter().sum::<usize>() / slots.len();
        assert!(mean <= 36, "{mean} bytes a slot");
    }

    #[test]
    fn every_entry_is_picked_as_often_as_any_other() {
        let hasher = KeyHasher::default();
        let mut table = Table::new(EPOCH);
        for key in 0..100_u32 {
            table.insert(hasher.hash(&key.to_le_bytes()), entry(key, 8, None), &hasher);
        }
        let mut counts = BTreeMap::<u32, u32>::new();
        let mut random = 42;
        for _ in 0..1_000_000 {
            if let Some(position) = table.pick(super::super::shard::next_random(&mut random)) {
                *counts.entry(key_of(table.entry(position))).or_default() += 1;
            }
        }
        let mean = counts.values().sum::<u32>() / 100;
        assert_eq!(counts.len(), 100);
        assert!(counts.values().all(|count| count.abs_diff(mean) < mean / 4), "{counts:?}");
    }
}
