//! Reads of many keys at once.

use std::hint::black_box;
use std::ops::ControlFlow;

use super::{Keyspace, Locked};

impl Keyspace {
    /// Reads the values of many keys at one moment, and hands each to `read` in
    /// the order asked until it says that it has enough. Returns how many were
    /// read. Counts hits, misses and uses. `read` is to be short and must not
    /// call the keyspace.
    ///
    /// Much faster than one read after the other: where entries lie far apart,
    /// a read waits for memory more than it works, and here the waits overlap.
    pub fn get_many(
        &self,
        keys: &[&[u8]],
        mut read: impl FnMut(Option<&[u8]>) -> ControlFlow<()>,
    ) -> usize {
        let mut locked = self.lock(keys.iter().copied());
        locked.warm(keys);
        for (index, key) in keys.iter().enumerate() {
            let flow = locked.read(key, |value| read(Some(value))).unwrap_or_else(|| read(None));
            if flow.is_break() {
                return index + 1;
            }
        }
        keys.len()
    }
}

impl Locked<'_> {
    /// Brings the entries of these keys into the processor's cache. Taking a
    /// lock waits for what is being read from memory, so this only pays after
    /// the locks are taken: the loads of several keys are under way together
    /// then.
    pub(super) fn warm(&self, keys: &[&[u8]]) {
        let keyspace = self.keyspace();
        let mut sum = 0_u8;
        for key in keys {
            let hash = keyspace.hasher.hash(key);
            let guard = keyspace.shard(hash).lock();
            let table = &guard.borrow().table;
            if let Some(position) = table.find(hash, key) {
                sum ^= table.entry(position).value().last().copied().unwrap_or_default();
            }
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
