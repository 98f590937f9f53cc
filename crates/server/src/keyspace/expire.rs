//! Entries whose time has come leave though nobody asks for them.
//!
//! Each bucket keeps a lower bound of the first expiry in it, four bytes beside
//! its neighbours', and each shard the lowest of those. So a shard in which
//! nothing is due costs one look, and one in which something is due a walk over
//! a dense array; only entries in buckets that are due are touched.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::shard::Shard;
use super::{Keyspace, WallTime};

/// How often maintenance runs when there is nothing left to do.
const REST: Duration = Duration::from_millis(100);
/// How long one run of it may take: a few percent of a core.
const BUDGET: Duration = Duration::from_millis(2);
/// How long it rests when there is more to do: a quarter of a core at most.
const SHORT_REST: Duration = Duration::from_millis(6);
/// How many buckets are cleaned under one hold of a shard's lock.
const BUCKETS_PER_HOLD: usize = 64;

/// What one run of [`Keyspace::maintain`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maintenance {
    /// How many entries expired.
    pub expired: usize,
    /// Whether the time was up before every shard was looked at.
    pub is_unfinished: bool,
}

impl Keyspace {
    /// Removes expired entries for at most about `budget`, going on where the
    /// last run stopped. Entries of the last 64 ms may stay for the next run.
    pub fn maintain(&self, budget: Duration) -> Maintenance {
        let started = Instant::now();
        let now = self.now();
        let count = self.shards.len();
        let mut expired = 0;
        for _ in 0..count {
            let index = self.next_shard.fetch_add(1, Ordering::Relaxed) % count;
            loop {
                let guard = self.shards[index].0.lock();
                let mut shard = guard.borrow_mut();
                let (removed, is_clean) = shard.remove_expired(now, |key| self.hasher.hash(key));
                expired += removed;
                self.publish(&mut shard);
                if is_clean {
                    break;
                }
                if started.elapsed() >= budget {
                    return Maintenance { expired, is_unfinished: true };
                }
            }
            if started.elapsed() >= budget {
                return Maintenance { expired, is_unfinished: true };
            }
        }
        Maintenance { expired, is_unfinished: false }
    }

    /// Runs [`Keyspace::maintain`] for as long as it is polled, some ten times
    /// a second.
    ///
    /// # Cancel safety
    /// It only ever waits between two runs: dropping it loses nothing.
    pub async fn maintain_forever(&self) {
        loop {
            let run = self.maintain(BUDGET);
            tokio::time::sleep(if run.is_unfinished { SHORT_REST } else { REST }).await;
        }
    }
}

impl Shard {
    /// Removes what has expired, in a bounded number of buckets; how much that
    /// was and whether no more is due.
    fn remove_expired(&mut self, now: WallTime, hash: impl Fn(&[u8]) -> u64) -> (usize, bool) {
        let due = self.deadline_of(now);
        if self.next_deadline > due {
            return (0, true);
        }
        let mut removed = 0;
        let mut cleaned = 0;
        let mut bucket = 0;
        while let Some(deadline) = self.table.deadlines().get(bucket) {
            if *deadline <= due {
                if cleaned == BUCKETS_PER_HOLD {
                    return (removed, false);
                }
                cleaned += 1;
                removed += self.clean_bucket(bucket, now, &hash);
            }
            bucket += 1;
        }
        self.next_deadline = self.table.deadlines().iter().copied().min().unwrap_or(Deadline::NONE);
        // A table that shrank under the walk may have moved entries behind it.
        (removed, removed == 0 || self.next_deadline > due)
    }

    fn clean_bucket(&mut self, bucket: usize, now: WallTime, hash: impl Fn(&[u8]) -> u64) -> usize {
        let mut removed = 0;
        loop {
            let expired = self
                .table
                .bucket_entries(bucket)
                .find(|(_, entry)| entry.expiry().is_some_and(|expiry| now > expiry))
                .map(|(position, entry)| (position, hash(entry.key())));
            let Some((position, hash)) = expired else { break };
            self.expire(hash, position);
            removed += 1;
        }
        self.table.refresh_deadline(bucket);
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{Expiry, Form, KeyspaceOptions, WallClock};

    fn keyspace(shard_count: usize) -> (Keyspace, WallClock) {
        let clock = WallClock::manual(WallTime::from_unix_millis(1_000_000));
        let options = KeyspaceOptions { clock: clock.clone(), shard_count, ..Default::default() };
        (Keyspace::new(options), clock)
    }

    fn add(keyspace: &Keyspace, number: usize, millis_left: i64) {
        let name = number.to_string();
        let end = WallTime::from_unix_millis(keyspace.now().unix_millis() + millis_left);
        keyspace.lock([name.as_bytes()]).set(
            name.as_bytes(),
            &[b'v'; 50],
            Expiry::At(end),
            Form::Written,
        );
    }

    fn maintain_until_done(keyspace: &Keyspace) -> usize {
        let mut expired = 0;
        loop {
            let run = keyspace.maintain(Duration::from_micros(50));
            expired += run.expired;
            if !run.is_unfinished {
                return expired;
            }
        }
    }

    #[test]
    fn a_key_expires_when_its_millisecond_is_over() {
        let (keyspace, clock) = keyspace(4);
        add(&keyspace, 1, 10);
        clock.advance(Duration::from_millis(10));
        assert!(keyspace.get(b"1", |_| ()).is_some());
        clock.advance(Duration::from_millis(1));
        assert!(keyspace.get(b"1", |_| ()).is_none());
        let statistics = keyspace.statistics();
        assert_eq!((statistics.keys, statistics.expired), (0, 1));
        assert_eq!((statistics.hits, statistics.misses), (1, 1));
    }

    #[test]
    fn keys_and_memory_go_without_anybody_asking() {
        let (keyspace, clock) = keyspace(16);
        for number in 0..20_000 {
            add(&keyspace, number, if number % 2 == 0 { 1_000 } else { 100_000_000 });
        }
        keyspace.set(b"stays", b"v").expect("there is no limit");
        let full = keyspace.statistics();
        assert_eq!((full.keys, full.volatile_keys), (20_001, 20_000));
        assert_eq!(maintain_until_done(&keyspace), 0);
        clock.advance(Duration::from_secs(2));
        assert_eq!(maintain_until_done(&keyspace), 10_000);
        let half = keyspace.statistics();
        assert_eq!((half.keys, half.volatile_keys, half.expired), (10_001, 10_000, 10_000));
        assert!(half.bytes < full.bytes * 7 / 10);
        clock.advance(Duration::from_secs(1_000_000));
        assert_eq!(maintain_until_done(&keyspace), 10_000);
        assert_eq!(keyspace.statistics().keys, 1);
        assert!(keyspace.statistics().bytes < 64 * 1024);
    }

    #[test]
    fn what_was_postponed_or_made_to_stay_does_not_go() {
        let (keyspace, clock) = keyspace(1);
        (0..3).for_each(|number| add(&keyspace, number, 1_000));
        let mut locked = keyspace.lock([]);
        locked.set_expiry(b"0", None);
        let later = WallTime::from_unix_millis(1_010_000);
        locked.set_expiry(b"1", Some(later));
        drop(locked);
        clock.advance(Duration::from_secs(5));
        assert_eq!(maintain_until_done(&keyspace), 1);
        clock.advance(Duration::from_secs(6));
        assert_eq!(maintain_until_done(&keyspace), 1);
        assert!(keyspace.get(b"0", |_| ()).is_some());
    }

    #[test]
    fn expiries_beyond_what_a_bucket_can_note_are_kept_exactly() {
        let (keyspace, clock) = keyspace(1);
        let eleven_years = 11 * 365 * 86_400_000;
        add(&keyspace, 1, eleven_years);
        clock.advance(Duration::from_millis(eleven_years as u64 - 1));
        assert_eq!(maintain_until_done(&keyspace), 0);
        clock.advance(Duration::from_millis(2));
        assert_eq!(maintain_until_done(&keyspace), 1);
    }

    #[tokio::test]
    async fn maintenance_goes_on_by_itself() {
        let (keyspace, clock) = keyspace(2);
        (0..1000).for_each(|number| add(&keyspace, number, 1_000));
        clock.advance(Duration::from_secs(2));
        let upkeep = keyspace.maintain_forever();
        let watch = async {
            while keyspace.statistics().keys > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = upkeep => panic!("maintenance ended"),
            () = watch => {}
        }
    }
}
