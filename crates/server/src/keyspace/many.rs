//! Reads of many keys at once.

use std::hint::black_box;
use std::ops::ControlFlow;

use super::Keyspace;

/// So many reads are under way together; more are read group by group.
const GROUP: usize = 16;

impl Keyspace {
    /// Reads the values of many keys, each group of sixteen at one moment, and
    /// hands each to `read` in the order asked until it says that it has enough.
    /// Returns how many were read. Counts hits, misses and uses. `read` is to be
    /// short and must not call the keyspace.
    ///
    /// Much faster than one read after the other: where entries lie far apart,
    /// a read waits for memory more than it works, and here the waits overlap.
    pub fn get_many(
        &self,
        keys: &[&[u8]],
        mut read: impl FnMut(Option<&[u8]>) -> ControlFlow<()>,
    ) -> usize {
        let mut answered = 0;
        for group in keys.chunks(GROUP) {
            let mut hashes = [0; GROUP];
            for (hash, key) in hashes.iter_mut().zip(group) {
                *hash = self.hasher.hash(key);
            }
            let hashes = &hashes[..group.len()];
            let locked = self.lock_hashes(hashes.iter().copied());
            self.warm(hashes);
            for (hash, key) in hashes.iter().zip(group) {
                answered += 1;
                let flow = self
                    .read_hashed(*hash, key, || locked.now(), |value| read(Some(value)))
                    .unwrap_or_else(|| read(None));
                if flow.is_break() {
                    return answered;
                }
            }
        }
        answered
    }

    /// Brings what these reads will find into the processor's cache: first the
    /// buckets, then the entries, so that the loads of all are under way
    /// together. Taking a lock waits for what is being read from memory, so this
    /// only pays after the locks are taken.
    fn warm(&self, hashes: &[u64]) {
        let mut sum = 0;
        for hash in hashes {
            sum ^= self.shard(*hash).lock().borrow().table.touch_bucket(*hash);
        }
        for hash in hashes {
            sum ^= self.shard(*hash).lock().borrow().table.touch_entry(*hash);
        }
        // Without a use of what was read, nothing would be read.
        black_box(sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Expiry, Form, KeyspaceOptions, WallClock, WallTime};
    use super::*;

    proptest! {
        #[test]
        fn many_reads_are_what_single_reads_are(
            entries in proptest::collection::vec(("[a-d]{1,3}", "[x-z]{0,9}", 0..3_i64), 0..60),
            keys in proptest::collection::vec("[a-d]{1,3}", 0..40),
        ) {
            let clock = WallClock::manual(WallTime::from_unix_millis(1_000_000));
            let options =
                KeyspaceOptions { shard_count: 4, clock: clock.clone(), ..KeyspaceOptions::default() };
            let keyspace = Keyspace::new(options);
            for (key, value, expiry) in &entries {
                let expiry = match expiry {
                    0 => Expiry::Never,
                    seconds => {
                        Expiry::At(WallTime::from_unix_millis(1_000_000 + seconds * 1000))
                    }
                };
                keyspace.lock([key.as_bytes()]).set(
                    key.as_bytes(), value.as_bytes(), expiry, Form::Written,
                );
            }
            // Some have expired and are found so by the read itself.
            clock.advance(std::time::Duration::from_millis(1500));
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let mut together = Vec::new();
            let read = keyspace.get_many(&keys, |value| {
                together.push(value.map(<[u8]>::to_vec));
                ControlFlow::Continue(())
            });
            prop_assert_eq!(read, keys.len());
            let hits = together.iter().flatten().count() as u64;
            let counted = keyspace.statistics();
            prop_assert_eq!((counted.hits, counted.misses), (hits, keys.len() as u64 - hits));
            let single: Vec<_> =
                keys.iter().map(|key| keyspace.get(key, <[u8]>::to_vec)).collect();
            prop_assert_eq!(together, single);
        }
    }
}
