//! The plain keyspace: what a client reads and writes under keys that belong
//! to no configured cache. Strings with an expiry, as Redis keeps them.
//!
//! ```text
//! Keyspace ── shards, each under its own lock
//!    └─ Shard ── versions for WATCH, counters
//!         └─ Table ── linear hashing, one bucket more or less at a time
//!              └─ Bucket ── seven slots in two cache lines, chained
//!                   └─ Entry ── key, value, expiry and use in one allocation
//! ```
//! [`Keyspace::get`] and [`Keyspace::set`] are the short way for one key;
//! [`Keyspace::lock`] takes the locks of all keys that a command or a
//! transaction names, in the order of the shards, and gives a [`Locked`].

mod bignum;
mod bucket;
mod clock;
mod deadline;
mod entry;
mod evict;
mod expire;
mod glob;
mod locked;
mod long_double;
mod many;
mod number;
mod options;
mod recency;
mod scan;
mod shard;
mod statistics;
mod table;

use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

pub use clock::{WallClock, WallTime};
pub use entry::Form;
pub use evict::OutOfMemory;
pub use expire::Maintenance;
pub use glob::glob_matches;
pub use locked::{EntryDetails, Expiry, Locked};
pub use long_double::LongDouble;
pub use number::parse_integer;
pub use options::{EvictionPolicy, KeyspaceOptions};
pub use scan::Cursor;
pub use statistics::KeyspaceStatistics;

use locked::Guards;
use recency::Recency;
use shard::{At, Shard, next_random};
use table::{KeyHasher, Position};

/// The most shards there may be: as many as the bits of a hash tell apart.
const SHARD_COUNT_MAX: usize = 1 << 16;

/// A lock on a shard. Re-entrant, so that commands over the whole keyspace run
/// inside a transaction that holds it.
#[derive(Debug)]
#[repr(align(64))]
struct ShardLock(ReentrantMutex<RefCell<Shard>>);

type ShardGuard<'a> = ReentrantMutexGuard<'a, RefCell<Shard>>;

/// Entries of any client under keys of no cache, shared between threads.
#[derive(Debug)]
pub struct Keyspace {
    shards: Box<[ShardLock]>,
    /// How far a hash is shifted to give its shard.
    shard_shift: u32,
    hasher: KeyHasher,
    clock: WallClock,
    epoch: WallTime,
    /// Seconds since the epoch when the clock was last read, to date the use of
    /// entries by.
    seconds: AtomicU32,
    policy: AtomicU8,
    /// Bytes; `usize::MAX` stands for no limit.
    memory_limit: AtomicUsize,
    /// By how much a shard may exceed what `used_bytes` knows of it.
    publish_step: AtomicUsize,
    /// Bytes in all shards, up to `publish_step` for each.
    used_bytes: AtomicI64,
    /// Where the next search for something to evict or expire starts.
    next_shard: AtomicUsize,
    random: AtomicU64,
}

impl Keyspace {
    /// An empty keyspace. Allocates the shards, nothing for entries.
    #[must_use]
    pub fn new(options: KeyspaceOptions) -> Self {
        let KeyspaceOptions { memory_limit, eviction, shard_count, clock } = options;
        let shard_count = shard_count.clamp(1, SHARD_COUNT_MAX).next_power_of_two();
        let hasher = KeyHasher::default();
        let epoch = clock.now();
        let mut seed = hasher.hash(b"shards") | 1;
        let shards = (0..shard_count)
            .map(|_| {
                let shard = Shard::new(epoch, next_random(&mut seed) | 1);
                ShardLock(ReentrantMutex::new(RefCell::new(shard)))
            })
            .collect();
        let keyspace = Self {
            shards,
            shard_shift: 64 - shard_count.ilog2(),
            random: AtomicU64::new(hasher.hash(b"random")),
            hasher,
            clock,
            epoch,
            seconds: AtomicU32::new(0),
            policy: AtomicU8::new(eviction as u8),
            memory_limit: AtomicUsize::new(usize::MAX),
            publish_step: AtomicUsize::new(0),
            used_bytes: AtomicI64::new(0),
            next_shard: AtomicUsize::new(0),
        };
        keyspace.set_memory_limit(memory_limit);
        keyspace
    }

    /// Reads the value of a key under the lock of its shard; counts a hit or a
    /// miss and a use. `read` is to be short and must not call the keyspace.
    #[inline]
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.read(key, || self.now(), read)
    }

    /// Writes a value that does not expire, as a plain `SET` does.
    ///
    /// # Errors
    /// The memory limit is reached and the policy leaves nothing to evict.
    #[inline]
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), OutOfMemory> {
        self.make_room()?;
        let hash = self.hasher.hash(key);
        let guard = self.shard(hash).lock();
        let mut shard = guard.borrow_mut();
        let position = shard.table.find(hash, key);
        shard.write(self.key_at(hash, key), position, value, None, Form::Written);
        self.publish(&mut shard);
        Ok(())
    }

    /// Locks the shards of these keys, in the order of the shards, so that
    /// holders never wait for each other in a circle. Waits for whoever holds
    /// one of them. Allocates only for keys in three and more shards.
    #[must_use]
    pub fn lock<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Locked<'_> {
        self.lock_hashes(keys.into_iter().map(|key| self.hasher.hash(key)))
    }

    fn lock_hashes(&self, hashes: impl Iterator<Item = u64>) -> Locked<'_> {
        let mut indexes = hashes.map(|hash| self.shard_index(hash));
        let Some(first) = indexes.next() else { return Locked::new(self, Guards::None) };
        let Some(second) = indexes.find(|index| *index != first) else {
            return Locked::new(self, Guards::One { _guard: self.shards[first].0.lock() });
        };
        let pair = if first < second { [first, second] } else { [second, first] };
        let guards = match indexes.find(|index| !pair.contains(index)) {
            None => Guards::Two { _guards: pair.map(|index| self.shards[index].0.lock()) },
            Some(third) => {
                let mut all: Vec<usize> = pair.into_iter().chain([third]).chain(indexes).collect();
                all.sort_unstable();
                all.dedup();
                Guards::Many {
                    _guards: all.into_iter().map(|index| self.shards[index].0.lock()).collect(),
                }
            }
        };
        Locked::new(self, guards)
    }

    /// Locks every shard: for a transaction in which a command over the whole
    /// keyspace stands. Costs some ten microseconds.
    #[must_use]
    pub fn lock_all(&self) -> Locked<'_> {
        let guards = self.shards.iter().map(|shard| shard.0.lock()).collect();
        Locked::new(self, Guards::Many { _guards: guards })
    }

    /// A number that differs from an earlier one whenever the key was written,
    /// removed, evicted, flushed or has expired in between: what `WATCH` keeps
    /// and `EXEC` compares, through [`Locked::watch_version`]. Rarely it
    /// differs though the key did not change.
    #[must_use]
    pub fn watch_version(&self, key: &[u8]) -> u64 {
        self.lock([]).watch_version(key)
    }

    /// Removes every entry. What they took is given back on a thread of its
    /// own: costs some ten microseconds, however many they are. Without
    /// [`Keyspace::lock_all`] around it, writes meanwhile may stay.
    pub fn clear(&self) {
        let mut cleared = Vec::new();
        for shard in &self.shards {
            let guard = shard.0.lock();
            let mut shard = guard.borrow_mut();
            if shard.table.bytes() > 0 {
                cleared.push(shard.clear());
                self.publish(&mut shard);
            }
        }
        // If no thread can be had, the closure is dropped here, and the tables
        // with it.
        let reaper = std::thread::Builder::new().name("larder-flush".into());
        drop(reaper.spawn(move || drop(cleared)));
    }

    /// Calendar time as the keyspace reads it.
    #[must_use]
    pub fn now(&self) -> WallTime {
        let now = self.clock.now();
        let millis = now.unix_millis().saturating_sub(self.epoch.unix_millis());
        let seconds = (millis / 1000) as u32;
        if self.seconds.load(Ordering::Relaxed) != seconds {
            self.seconds.store(seconds, Ordering::Relaxed);
        }
        now
    }

    /// What is evicted when the memory limit is reached.
    #[must_use]
    pub fn eviction_policy(&self) -> EvictionPolicy {
        EvictionPolicy::from_index(self.policy.load(Ordering::Relaxed))
    }

    /// Changes what is evicted. What is known about the use of entries under
    /// the old policy is read under the new one until they are used again.
    pub fn set_eviction_policy(&self, policy: EvictionPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    /// The memory limit in bytes, if there is one.
    #[must_use]
    pub fn memory_limit(&self) -> Option<usize> {
        Some(self.memory_limit.load(Ordering::Relaxed)).filter(|limit| *limit != usize::MAX)
    }

    /// Changes the memory limit. A lower one is enforced by the next write.
    pub fn set_memory_limit(&self, limit: Option<usize>) {
        // What the shards keep back is at most 1/64 of the limit.
        let step = limit.map_or(1 << 16, |limit| (limit / self.shards.len() / 64).min(1 << 16));
        self.publish_step.store(step, Ordering::Relaxed);
        self.memory_limit.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    #[inline]
    fn read<R>(
        &self,
        key: &[u8],
        now: impl FnOnce() -> WallTime,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        self.read_hashed(self.hasher.hash(key), key, now, read)
    }

    #[inline]
    fn read_hashed<R>(
        &self,
        hash: u64,
        key: &[u8],
        now: impl FnOnce() -> WallTime,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let guard = self.shard(hash).lock();
        let mut shard = guard.borrow_mut();
        shard.read(hash, key, self.recency(), now, read)
    }

    /// Runs `act` on a key's shard with the position of its live entry.
    fn at<R>(
        &self,
        key: &[u8],
        now: impl FnOnce() -> WallTime,
        act: impl FnOnce(&mut Shard, At<'_>, Option<Position>) -> R,
    ) -> R {
        let hash = self.hasher.hash(key);
        let guard = self.shard(hash).lock();
        let mut shard = guard.borrow_mut();
        let position = shard.find(hash, key, now);
        let result = act(&mut shard, self.key_at(hash, key), position);
        self.publish(&mut shard);
        result
    }

    fn key_at<'a>(&'a self, hash: u64, key: &'a [u8]) -> At<'a> {
        At { hash, key, recency: self.recency(), hasher: &self.hasher }
    }

    /// Tells the shared count what the shard takes, once that has changed by a
    /// step.
    #[inline]
    fn publish(&self, shard: &mut Shard) {
        let bytes = shard.table.bytes();
        if bytes.abs_diff(shard.published_bytes) > self.publish_step.load(Ordering::Relaxed) {
            let change = bytes as i64 - shard.published_bytes as i64;
            self.used_bytes.fetch_add(change, Ordering::Relaxed);
            shard.published_bytes = bytes;
        }
    }

    #[inline]
    fn recency(&self) -> Recency {
        Recency {
            counts_frequency: self.eviction_policy().counts_frequency(),
            seconds: self.seconds.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &ReentrantMutex<RefCell<Shard>> {
        &self.shards[self.shard_index(hash)].0
    }

    #[inline]
    fn shard_index(&self, hash: u64) -> usize {
        // A single shard would shift by all 64 bits.
        hash.checked_shr(self.shard_shift).unwrap_or(0) as usize
    }

    fn next_random(&self) -> u64 {
        let mut state = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) | 1;
        next_random(&mut state)
    }
}
