//! Walks over all keys, and a key at random.

use super::{Keyspace, WallTime};

/// Where a walk over all keys stands: a shard, and a place in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor(u64);

impl Cursor {
    /// Where a walk starts, and what it returns at the end.
    pub const START: Self = Self(0);

    /// The cursor that [`Cursor::number`] gave. Any number is a cursor: one
    /// that was never given out stands somewhere.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The cursor as clients see it.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl Keyspace {
    /// Visits keys from a cursor on until about `count` have been visited, and
    /// returns where to go on; [`Cursor::START`] means that it was all.
    ///
    /// A key that is there during a whole walk is visited at least once. It may
    /// be visited more than once if the keyspace shrinks meanwhile. `visit` gets
    /// key and value under the lock of their shard and must not call the
    /// keyspace.
    pub fn scan(
        &self,
        cursor: Cursor,
        count: usize,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Cursor {
        let now = self.now();
        let shard_bits = self.shards.len().ilog2();
        let mut index = cursor.0 as usize & (self.shards.len() - 1);
        let mut place = cursor.0 >> shard_bits;
        let mut visited = 0;
        // Bounded like Redis' walk, which gives up on ten empty buckets for
        // each key asked for.
        let mut steps = count.saturating_mul(10).max(self.shards.len());
        loop {
            let guard = self.shards[index].0.lock();
            let shard = guard.borrow();
            place = shard.table.scan(place, |entry| {
                visited += 1;
                if !is_expired(entry.expiry(), now) {
                    visit(entry.key(), entry.value());
                }
            });
            if place == 0 {
                index += 1;
                if index == self.shards.len() {
                    return Cursor::START;
                }
            }
            steps -= 1;
            if visited >= count || steps == 0 {
                return Cursor(place << shard_bits | index as u64);
            }
        }
    }

    /// Visits every key that has not expired, one shard after the other.
    pub fn for_each_key(&self, mut visit: impl FnMut(&[u8])) {
        let now = self.now();
        for shard in &self.shards {
            let guard = shard.0.lock();
            let shard = guard.borrow();
            for bucket in 0..shard.table.bucket_count() {
                for (_, entry) in shard.table.bucket_entries(bucket) {
                    if !is_expired(entry.expiry(), now) {
                        visit(entry.key());
                    }
                }
            }
        }
    }

    /// A key that has not expired, each as likely as any other; `None` if there
    /// is none. Costs some ten microseconds.
    pub fn random_key<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let now = self.now();
        loop {
            let mut index = self.random_shard()?;
            // The chosen shard may have been emptied since: the next one that
            // has a key stands in for it.
            for _ in 0..self.shards.len() {
                let guard = self.shards[index].0.lock();
                let mut shard = guard.borrow_mut();
                if let Some((position, hash)) = shard.random_position(&self.hasher) {
                    if !is_expired(shard.table.entry(position).expiry(), now) {
                        return Some(read(shard.table.entry(position).key()));
                    }
                    shard.expire(hash, position);
                    self.publish(&mut shard);
                    break;
                }
                index = (index + 1) % self.shards.len();
            }
        }
    }

    /// A shard, each as likely as it has keys; `None` if none has any.
    fn random_shard(&self) -> Option<usize> {
        let keys = self.len();
        let mut rank = self.next_random().checked_rem(keys)?;
        for (index, shard) in self.shards.iter().enumerate() {
            let length = shard.0.lock().borrow().table.len() as u64;
            if rank < length {
                return Some(index);
            }
            rank -= length;
        }
        // Keys went meanwhile.
        Some(0)
    }
}

impl super::shard::Shard {
    fn random_position(
        &mut self,
        hasher: &super::table::KeyHasher,
    ) -> Option<(super::table::Position, u64)> {
        /// A table is at least a thirtieth full, so this many misses in a row
        /// mean a table whose chains are longer than any hash makes them.
        const TRIES: usize = 1000;
        if self.table.len() == 0 {
            return None;
        }
        let picked = (0..TRIES).find_map(|_| {
            let random = self.next_random();
            self.table.pick(random)
        });
        let position = picked.or_else(|| {
            (0..self.table.bucket_count())
                .find_map(|bucket| Some(self.table.bucket_entries(bucket).next()?.0))
        })?;
        Some((position, hasher.hash(self.table.entry(position).key())))
    }
}

fn is_expired(expiry: Option<WallTime>, now: WallTime) -> bool {
    expiry.is_some_and(|expiry| now > expiry)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::{KeyspaceOptions, WallClock};

    fn keyspace(shard_count: usize) -> Keyspace {
        Keyspace::new(KeyspaceOptions { shard_count, ..KeyspaceOptions::default() })
    }

    fn name(number: u32) -> String {
        format!("key:{number}")
    }

    fn add(keyspace: &Keyspace, number: u32) {
        keyspace.set(name(number).as_bytes(), b"v").expect("there is no limit");
    }

    /// One step of a walk.
    fn step(keyspace: &Keyspace, cursor: Cursor, seen: &mut BTreeSet<Vec<u8>>) -> Cursor {
        keyspace.scan(cursor, 3, |key, _| {
            seen.insert(key.to_vec());
        })
    }

    proptest! {
        #[test]
        fn keys_that_stay_are_seen_however_the_keyspace_changes(
            shard_count in prop_oneof![Just(1_usize), Just(4)],
            stay_count in 1_u32..300,
            changes in proptest::collection::vec((any::<bool>(), 1_u32..200), 0..60),
        ) {
            let keyspace = keyspace(shard_count);
            (0..stay_count).for_each(|number| add(&keyspace, number));
            let mut others: Vec<u32> = Vec::new();
            let mut next = stay_count;
            let mut changes = changes.into_iter();
            let mut seen = BTreeSet::new();
            let mut cursor = Cursor::START;
            loop {
                cursor = step(&keyspace, cursor, &mut seen);
                if cursor == Cursor::START {
                    break;
                }
                match changes.next() {
                    Some((true, count)) => (0..count).for_each(|_| {
                        add(&keyspace, next);
                        others.push(next);
                        next += 1;
                    }),
                    Some((false, count)) => {
                        let kept = others.len().saturating_sub(count as usize);
                        for number in others.drain(kept..) {
                            let name = name(number);
                            keyspace.lock([name.as_bytes()]).remove(name.as_bytes());
                        }
                    }
                    None => {}
                }
            }
            let missing =
                (0..stay_count).map(name).find(|name| !seen.contains(name.as_bytes()));
            prop_assert_eq!(missing, None);
        }

        #[test]
        fn any_number_is_a_cursor(number: u64, count in 0_usize..5) {
            let keyspace = keyspace(8);
            (0..50).for_each(|number| add(&keyspace, number));
            let mut cursor = Cursor::from_number(number);
            for steps in 0.. {
                prop_assert!(steps < 200, "the walk does not end");
                cursor = keyspace.scan(cursor, count, |_, _| {});
                if cursor == Cursor::START {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_walk_over_a_keyspace_at_rest_sees_each_key_once() {
        let keyspace = keyspace(16);
        (0..5000).for_each(|number| add(&keyspace, number));
        let mut seen = Vec::new();
        let mut cursor = Cursor::START;
        loop {
            let before = seen.len();
            cursor = keyspace.scan(cursor, 10, |key, _| seen.push(key.to_vec()));
            assert!(seen.len() - before < 60, "{} keys at once", seen.len() - before);
            if cursor == Cursor::START {
                break;
            }
        }
        assert_eq!(seen.len(), 5000);
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 5000);
    }

    #[test]
    fn expired_keys_are_not_shown() {
        let clock = WallClock::manual(WallTime::from_unix_millis(1000));
        let options = KeyspaceOptions { clock: clock.clone(), ..KeyspaceOptions::default() };
        let keyspace = Keyspace::new(options);
        assert_eq!(keyspace.random_key(<[u8]>::to_vec), None);
        add(&keyspace, 1);
        let soon = Some(WallTime::from_unix_millis(2000));
        keyspace.lock([]).set_expiry(b"key:1", soon);
        assert_eq!(keyspace.random_key(<[u8]>::to_vec).as_deref(), Some(&b"key:1"[..]));
        clock.advance(std::time::Duration::from_millis(1001));
        keyspace.for_each_key(|_| panic!("the key has expired"));
        let end = keyspace.scan(Cursor::START, 10, |_, _| panic!("the key has expired"));
        assert_eq!(end, Cursor::START);
        assert_eq!(keyspace.random_key(<[u8]>::to_vec), None);
        assert_eq!(keyspace.statistics().expired, 1);
    }

    #[test]
    fn random_keys_come_from_everywhere() {
        let keyspace = keyspace(64);
        (0..40).for_each(|number| add(&keyspace, number));
        let seen: BTreeSet<Vec<u8>> =
            (0..2000).filter_map(|_| keyspace.random_key(<[u8]>::to_vec)).collect();
        assert_eq!(seen.len(), 40);
    }
}
