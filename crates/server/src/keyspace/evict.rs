//! The memory limit: what goes when it is reached.
//!
//! No list of all entries is kept in order of use. Of some sixteen entries in
//! buckets chosen at random the least worth keeping goes: near enough to the
//! true order, at no byte an entry.

use std::fmt;
use std::sync::atomic::Ordering;

use super::deadline::Deadline;
use super::recency::Recency;
use super::shard::Shard;
use super::table::{Position, Table};
use super::{EvictionPolicy, Keyspace, WallTime};

/// How many entries are compared to evict one.
const SAMPLE_COUNT: usize = 16;
/// How many buckets are looked into for them before any candidate will do.
const PROBE_COUNT_MAX: usize = 32;

/// How often shards that others hold are tried again.
const ATTEMPT_COUNT_MAX: usize = 8;

/// The memory limit is reached and nothing may be evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl OutOfMemory {
    /// The error reply, in Redis' words.
    pub const REPLY: &'static str = "OOM command not allowed when used memory > 'maxmemory'.";
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::REPLY)
    }
}

impl std::error::Error for OutOfMemory {}

impl Keyspace {
    /// Evicts until the memory limit is kept; does nothing while it is.
    ///
    /// # Errors
    /// The limit is not kept and the policy leaves nothing to evict.
    #[inline]
    pub fn make_room(&self) -> Result<(), OutOfMemory> {
        let limit = self.memory_limit.load(Ordering::Relaxed);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if self.used_bytes.load(Ordering::Relaxed) <= limit {
            return Ok(());
        }
        self.evict_down_to(limit)
    }

    #[cold]
    fn evict_down_to(&self, limit: i64) -> Result<(), OutOfMemory> {
        let policy = self.eviction_policy();
        if policy == EvictionPolicy::NoEviction {
            return Err(OutOfMemory);
        }
        let mut attempts_left = ATTEMPT_COUNT_MAX;
        while self.used_bytes.load(Ordering::Relaxed) > limit && attempts_left > 0 {
            match self.evict_one(policy) {
                Eviction::Done => {}
                Eviction::NothingLeft => return Err(OutOfMemory),
                Eviction::Busy => {
                    attempts_left -= 1;
                    std::thread::yield_now();
                }
            }
        }
        // What others hold on to right now is evicted by the next write.
        Ok(())
    }

    /// Evicts one entry from the first shard, from a random one on, that has
    /// one to give.
    fn evict_one(&self, policy: EvictionPolicy) -> Eviction {
        let count = self.shards.len();
        let start = self.next_random() as usize % count;
        let recency = self.recency();
        let mut is_busy = false;
        for index in start..start + count {
            // The caller may hold other locks: waiting here could be in a circle.
            let Some(guard) = self.shards[index % count].0.try_lock() else {
                is_busy = true;
                continue;
            };
            let mut shard = guard.borrow_mut();
            let Some(victim) = victim(&mut shard, policy, recency) else { continue };
            let hash = self.hasher.hash(shard.table.entry(victim).key());
            shard.remove(hash, victim);
            shard.counters.evicted += 1;
            self.publish(&mut shard);
            return Eviction::Done;
        }
        if is_busy { Eviction::Busy } else { Eviction::NothingLeft }
    }
}

/// What an attempt to evict came to.
enum Eviction {
    Done,
    NothingLeft,
    /// Some shard could not be looked into.
    Busy,
}

/// The entry least worth keeping of a sample; `None` if none may go.
fn victim(shard: &mut Shard, policy: EvictionPolicy, recency: Recency) -> Option<Position> {
    let count = shard.table.bucket_count();
    let is_empty =
        if policy.spares_persistent() { shard.table.volatile_len() } else { shard.table.len() }
            == 0;
    if is_empty {
        return None;
    }
    let mut victim = None;
    let mut candidate_count = 0;
    // Each bucket is chosen anew. In a run of neighbours the same ones would be
    // drawn on again and again until nothing but the best is left in them.
    for _ in 0..PROBE_COUNT_MAX {
        let bucket = (shard.next_random() >> 32) as usize % count;
        for (worth, position) in candidates(&shard.table, bucket, policy, recency) {
            candidate_count += 1;
            if victim.is_none_or(|(least, _)| worth < least) {
                victim = Some((worth, position));
            }
        }
        if candidate_count >= policy.sample_count() {
            break;
        }
    }
    let start = shard.next_random() as usize % count;
    let victim = victim.or_else(|| {
        (start..start + count)
            .find_map(|bucket| candidates(&shard.table, bucket % count, policy, recency).next())
    });
    victim.map(|(_, position)| position)
}

/// The entries of a bucket that may go, each with what it is worth.
fn candidates(
    table: &Table,
    bucket: usize,
    policy: EvictionPolicy,
    recency: Recency,
) -> impl Iterator<Item = (i64, Position)> {
    let spares_persistent = policy.spares_persistent();
    let may_hold_any = !spares_persistent || table.deadlines()[bucket] != Deadline::NONE;
    table
        .bucket_entries(bucket)
        .take_while(move |_| may_hold_any)
        .filter(move |(_, entry)| !spares_persistent || entry.expiry().is_some())
        .map(move |(position, entry)| {
            let worth = match policy {
                EvictionPolicy::VolatileTtl => {
                    entry.expiry().map_or(i64::MAX, WallTime::unix_millis)
                }
                _ if policy.counts_frequency() => i64::from(recency.frequency(entry.access())),
                _ => -(recency.idle(entry.access()).as_secs() as i64),
            };
            (worth, position)
        })
}

impl EvictionPolicy {
    /// How many entries are compared at least to evict one.
    fn sample_count(self) -> usize {
        if matches!(self, Self::AllKeysRandom | Self::VolatileRandom) { 1 } else { SAMPLE_COUNT }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keyspace::{Expiry, Form, KeyspaceOptions, WallClock};

    const LIMIT: usize = 1 << 20;

    fn keyspace(policy: EvictionPolicy) -> (Keyspace, WallClock) {
        let clock = WallClock::manual(WallTime::from_unix_millis(1_000_000));
        let options = KeyspaceOptions {
            memory_limit: Some(LIMIT),
            eviction: policy,
            shard_count: 4,
            clock: clock.clone(),
        };
        (Keyspace::new(options), clock)
    }

    fn name(number: u32) -> String {
        format!("key:{number:08}")
    }

    fn add(keyspace: &Keyspace, number: u32) -> Result<(), OutOfMemory> {
        keyspace.set(name(number).as_bytes(), &[b'v'; 200])
    }

    fn use_all(keyspace: &Keyspace, numbers: std::ops::Range<u32>) {
        for number in numbers {
            assert!(keyspace.get(name(number).as_bytes(), |_| ()).is_some());
        }
    }

    fn holds(keyspace: &Keyspace, number: u32) -> bool {
        keyspace.lock([]).contains(name(number).as_bytes())
    }

    /// How many of these are still there, in percent.
    fn percent_held(keyspace: &Keyspace, numbers: std::ops::Range<u32>) -> usize {
        let count = numbers.len();
        numbers.filter(|number| holds(keyspace, *number)).count() * 100 / count
    }

    #[test]
    fn without_eviction_writes_are_refused_at_the_limit_and_taken_again_below_it() {
        let (keyspace, _) = keyspace(EvictionPolicy::NoEviction);
        let refused = (0..).find(|number| add(&keyspace, *number).is_err()).expect("at some time");
        let bytes = keyspace.statistics().bytes as usize;
        assert!((LIMIT * 98 / 100..LIMIT * 102 / 100).contains(&bytes), "{bytes}");
        (0..100).for_each(|number| {
            keyspace.lock([]).remove(name(number).as_bytes());
        });
        assert_eq!(add(&keyspace, refused), Ok(()));
        assert_eq!(keyspace.statistics().evicted, 0);
    }

    #[test]
    fn with_eviction_the_limit_holds_and_writes_go_on() {
        for policy in
            [EvictionPolicy::AllKeysLfu, EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysRandom]
        {
            let (keyspace, _) = keyspace(policy);
            for number in 0..20_000 {
                assert_eq!(add(&keyspace, number), Ok(()), "{policy}");
                let bytes = keyspace.statistics().bytes as usize;
                assert!(bytes <= LIMIT * 102 / 100, "{bytes} under {policy}");
            }
            let statistics = keyspace.statistics();
            assert_eq!(statistics.keys + statistics.evicted, 20_000, "{policy}");
        }
    }

    #[test]
    fn what_is_used_often_outlives_a_flood_of_what_is_used_once() {
        let (keyspace, _) = keyspace(EvictionPolicy::AllKeysLfu);
        (0..1000).for_each(|number| add(&keyspace, number).expect("there is room"));
        (0..10).for_each(|_| use_all(&keyspace, 0..1000));
        (1000..60_000).for_each(|number| add(&keyspace, number).expect("something is evicted"));
        let percent = percent_held(&keyspace, 0..1000);
        assert!(percent >= 98, "{percent} % of what is used often");
    }

    #[test]
    fn what_was_used_lately_outlives_what_was_not() {
        let (keyspace, clock) = keyspace(EvictionPolicy::AllKeysLru);
        let wait = || {
            clock.advance(Duration::from_secs(60));
            keyspace.maintain(Duration::ZERO);
        };
        (0..2000).for_each(|number| add(&keyspace, number).expect("there is room"));
        wait();
        use_all(&keyspace, 0..1000);
        wait();
        let mut next = 2000;
        while keyspace.statistics().evicted < 500 {
            add(&keyspace, next).expect("something is evicted");
            next += 1;
        }
        let used = percent_held(&keyspace, 0..1000);
        let unused = percent_held(&keyspace, 1000..2000);
        assert!(used >= 92 && unused <= 60, "{used} % used, {unused} % unused");
    }

    #[test]
    fn volatile_policies_spare_what_does_not_expire() {
        for policy in [
            EvictionPolicy::VolatileLfu,
            EvictionPolicy::VolatileLru,
            EvictionPolicy::VolatileRandom,
            EvictionPolicy::VolatileTtl,
        ] {
            let (keyspace, _) = keyspace(policy);
            for number in 0..1000 {
                add(&keyspace, number).expect("there is room");
                let end = WallTime::from_unix_millis(2_000_000 + i64::from(number) * 1000);
                let name = format!("volatile:{number}");
                keyspace.lock([]).set(name.as_bytes(), b"v", Expiry::At(end), Form::Written);
            }
            let refused =
                (1000..).find(|number| add(&keyspace, *number).is_err()).expect("at some time");
            assert!((0..refused).all(|number| holds(&keyspace, number)), "{policy}");
            let statistics = keyspace.statistics();
            assert_eq!((statistics.volatile_keys, statistics.evicted), (0, 1000), "{policy}");
        }
    }

    #[test]
    fn what_expires_first_goes_first() {
        let (keyspace, _) = keyspace(EvictionPolicy::VolatileTtl);
        for number in 0..2000_u32 {
            let end = WallTime::from_unix_millis(2_000_000 + i64::from(number) * 1000);
            let name = name(number);
            keyspace.lock([]).set(name.as_bytes(), &[b'v'; 200], Expiry::At(end), Form::Written);
        }
        let mut next = 2000;
        while keyspace.statistics().evicted < 500 {
            add(&keyspace, next).expect("something is evicted");
            next += 1;
        }
        let (first, last) = (percent_held(&keyspace, 0..1000), percent_held(&keyspace, 1000..2000));
        assert!(first <= 60 && last >= 92, "{first} % first, {last} % last");
    }

    #[test]
    fn a_lower_limit_is_enforced_by_the_next_write() {
        let (keyspace, _) = keyspace(EvictionPolicy::AllKeysLfu);
        (0..2000).for_each(|number| add(&keyspace, number).expect("there is room"));
        keyspace.set_memory_limit(Some(LIMIT / 8));
        assert_eq!(keyspace.memory_limit(), Some(LIMIT / 8));
        add(&keyspace, 2000).expect("something is evicted");
        assert!(keyspace.statistics().bytes as usize <= LIMIT / 8 * 110 / 100);
        keyspace.set_memory_limit(None);
        (0..20_000).for_each(|number| add(&keyspace, number).expect("there is no limit"));
        assert_eq!(keyspace.memory_limit(), None);
        assert!(keyspace.statistics().bytes as usize > 4 * LIMIT);
    }
}
