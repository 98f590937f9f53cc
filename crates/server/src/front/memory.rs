//! What is known of Redis' strings in this process, and whether it holds.
//!
//! Three things keep it true. Every key has a *fence*, a counter that each
//! invalidation and each write of our own clients moves on: a value that was
//! read before is not kept. Everything has a *generation*, which moves on when
//! invalidations may have been lost. And there is a moment *until* which it was
//! proved that none is missing: after it, nothing is answered from here.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use larder_core::Moment;

use crate::keyspace::{Expiry, Form, Keyspace, WallTime, glob_matches};

/// Keys share fences; one that another key moved costs a fill, nothing else.
const FENCES: usize = 1 << 14;

/// Longer keys are not kept, so that no argument longer than this needs to be
/// looked at when a command may write any of its arguments.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// What stands before a value that is there.
const PRESENT: u8 = b'=';
/// All that is kept of a key that is not there.
const ABSENT: &[u8] = b"-";

/// Values of Redis, shared between threads.
pub(crate) struct Memory {
    keyspace: Arc<Keyspace>,
    hasher: RandomState,
    fences: Box<[AtomicU64]>,
    generation: AtomicU64,
    /// In nanoseconds of the clock; 0 while nothing holds.
    holds_until: AtomicU64,
    /// When the last question was asked that tracking has answered.
    synced_at: AtomicU64,
    /// For how long a value is kept at most, in milliseconds; 0 sets no bound.
    ttl_ms: AtomicU64,
    kept_bytes_max: usize,
    not_kept: Vec<Vec<u8>>,
}

/// Proof of when a read began: what it finds may be kept if the token still
/// holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    generation: u64,
    fence: u64,
}

/// What became of a value that was to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    Kept,
    /// It was written or may have been, since its read began.
    Crossed,
    /// There is no room, or it is too long.
    Refused,
}

impl Memory {
    pub(crate) fn new(keyspace: Arc<Keyspace>, kept_bytes_max: usize, not_kept: &[String]) -> Self {
        Self {
            keyspace,
            hasher: RandomState::default(),
            fences: (0..FENCES).map(|_| AtomicU64::new(0)).collect(),
            generation: AtomicU64::new(0),
            holds_until: AtomicU64::new(0),
            synced_at: AtomicU64::new(0),
            ttl_ms: AtomicU64::new(0),
            kept_bytes_max,
            not_kept: not_kept.iter().map(|glob| glob.clone().into_bytes()).collect(),
        }
    }

    /// Whether anything may be answered from here.
    #[inline]
    pub(crate) fn holds(&self, now: Moment) -> bool {
        now.as_nanos() < self.holds_until.load(Ordering::Acquire)
    }

    /// Reads what is known of a key: a value, or that there is none. Allocates
    /// nothing. `read` is to be short.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        key: &[u8],
        now: Moment,
        read: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Option<R> {
        if !self.holds(now) {
            return None;
        }
        self.keyspace.get(key, |kept| read(kept.strip_prefix(&[PRESENT])))
    }

    /// To be taken before a key is read in Redis; `None` if what is found is not
    /// to be kept.
    pub(crate) fn token(&self, key: &[u8], now: Moment) -> Option<Token> {
        let is_kept = key.len() <= KEY_BYTES_MAX
            && self.holds(now)
            && !self.not_kept.iter().any(|glob| glob_matches(glob, key));
        is_kept.then(|| Token {
            generation: self.generation.load(Ordering::Acquire),
            fence: self.fence(key).load(Ordering::Acquire),
        })
    }

    /// Keeps what a read found, if nothing came between. `lifetime` counts from
    /// `read_at`, a moment before the read was sent.
    pub(crate) fn fill(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        token: Token,
        read_at: WallTime,
        lifetime: Option<Duration>,
    ) -> Fill {
        let mut kept = Vec::new();
        let kept: &[u8] = match value {
            None => ABSENT,
            Some(value) if value.len() > self.kept_bytes_max => return Fill::Refused,
            Some(value) => {
                kept.reserve_exact(value.len() + 1);
                kept.push(PRESENT);
                kept.extend_from_slice(value);
                &kept
            }
        };
        let bound = match self.ttl_ms.load(Ordering::Acquire) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        };
        let lifetime = [lifetime, bound].into_iter().flatten().min();
        let expiry = lifetime.map_or(Expiry::Never, |lifetime| {
            let millis = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
            Expiry::At(WallTime::from_unix_millis(read_at.unix_millis().saturating_add(millis)))
        });
        let mut locked = self.keyspace.lock([key]);
        let is_crossed = self.fence(key).load(Ordering::Acquire) != token.fence
            || self.generation.load(Ordering::Acquire) != token.generation;
        if is_crossed {
            return Fill::Crossed;
        }
        if locked.make_room().is_err() {
            return Fill::Refused;
        }
        locked.set(key, kept, expiry, Form::Edited);
        Fill::Kept
    }

    /// Forgets a key, and what is being read of it.
    pub(crate) fn void(&self, key: &[u8]) {
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        let mut locked = self.keyspace.lock([key]);
        // Under the lock, so that no fill looks before and inserts after.
        self.fence(key).fetch_add(1, Ordering::AcqRel);
        locked.remove(key);
    }

    /// Forgets everything, and what is being read.
    pub(crate) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.keyspace.clear();
    }

    /// From now on nothing holds: invalidations may be lost.
    pub(crate) fn suspend(&self) {
        self.holds_until.store(0, Ordering::Release);
        self.clear();
    }

    /// Every invalidation sent before `asked_at` has arrived, so what is here
    /// holds until `until`.
    pub(crate) fn prolong(&self, asked_at: Moment, until: Moment) {
        self.ttl_ms.store(0, Ordering::Release);
        self.synced_at.store(asked_at.as_nanos(), Ordering::Release);
        self.holds_until.store(until.as_nanos(), Ordering::Release);
    }

    /// Nobody tells what changes: what is here holds for this long after it was
    /// read.
    pub(crate) fn hold_for(&self, ttl: Duration) {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.ttl_ms.store(millis, Ordering::Release);
        self.holds_until.store(u64::MAX, Ordering::Release);
    }

    /// Whether a write that ended at `moment`, of keys that are not known, has
    /// been told of, or else what it wrote is not here any more.
    pub(crate) fn has_seen(&self, moment: Moment, now: Moment) -> bool {
        match self.ttl_ms.load(Ordering::Acquire) {
            0 => self.synced_at.load(Ordering::Acquire) >= moment.as_nanos(),
            millis => now.since(moment) > Duration::from_millis(millis),
        }
    }

    /// A number that stands for the key.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Calendar time, for what expires.
    pub(crate) fn wall_time(&self) -> WallTime {
        self.keyspace.now()
    }

    fn fence(&self, key: &[u8]) -> &AtomicU64 {
        &self.fences[self.hash(key) as usize % FENCES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{KeyspaceOptions, WallClock};

    const NOW: Moment = Moment::from_nanos(1_000_000_000);

    fn memory() -> (Memory, WallClock) {
        let clock = WallClock::manual(WallTime::from_unix_millis(1_000_000));
        let options = KeyspaceOptions { clock: clock.clone(), ..KeyspaceOptions::default() };
        let memory = Memory::new(Arc::new(Keyspace::new(options)), 100, &["no:*".to_owned()]);
        memory.prolong(NOW, NOW + Duration::from_secs(1));
        (memory, clock)
    }

    fn get(memory: &Memory, key: &[u8]) -> Option<Option<Vec<u8>>> {
        memory.get(key, NOW, |value| value.map(<[u8]>::to_vec))
    }

    fn fill(memory: &Memory, key: &[u8], value: Option<&[u8]>, token: Token) -> Fill {
        memory.fill(key, value, token, memory.wall_time(), None)
    }

    #[test]
    fn values_and_their_absence_are_kept() {
        let (memory, _) = memory();
        let token = memory.token(b"k", NOW).expect("it holds");
        assert_eq!(get(&memory, b"k"), None);
        assert_eq!(fill(&memory, b"k", Some(b"17"), token), Fill::Kept);
        assert_eq!(get(&memory, b"k"), Some(Some(b"17".to_vec())));
        assert_eq!(fill(&memory, b"k", None, token), Fill::Kept);
        assert_eq!(get(&memory, b"k"), Some(None));
        assert_eq!(fill(&memory, b"k", Some(&[0; 101]), token), Fill::Refused);
    }

    #[test]
    fn an_invalidation_that_comes_between_wins() {
        let (memory, _) = memory();
        let crossings: [fn(&Memory); 3] =
            [|memory| memory.void(b"k"), Memory::clear, Memory::suspend];
        for cross in crossings {
            memory.prolong(NOW, NOW + Duration::from_secs(1));
            let token = memory.token(b"k", NOW).expect("it holds");
            cross(&memory);
            assert_eq!(fill(&memory, b"k", Some(b"old"), token), Fill::Crossed);
            assert_eq!(get(&memory, b"k"), None);
        }
    }

    #[test]
    fn nothing_is_answered_or_begun_once_the_proof_is_old() {
        let (memory, _) = memory();
        let token = memory.token(b"k", NOW).expect("it holds");
        assert_eq!(fill(&memory, b"k", Some(b"1"), token), Fill::Kept);
        let late = NOW + Duration::from_secs(1);
        assert_eq!(memory.get(b"k", late, |_| ()), None);
        assert_eq!(memory.token(b"k", late), None);
        memory.prolong(late, late + Duration::from_secs(1));
        assert_eq!(memory.get(b"k", late, |_| ()), Some(()), "nothing was missed");
        memory.suspend();
        memory.prolong(late, late + Duration::from_secs(1));
        assert_eq!(memory.get(b"k", late, |_| ()), None, "something may have been missed");
    }

    #[test]
    fn a_value_does_not_outlive_its_key() {
        let (memory, clock) = memory();
        let token = memory.token(b"k", NOW).expect("it holds");
        let read_at = memory.wall_time();
        let kept = memory.fill(b"k", Some(b"1"), token, read_at, Some(Duration::from_millis(100)));
        assert_eq!(kept, Fill::Kept);
        clock.advance(Duration::from_millis(99));
        assert!(get(&memory, b"k").is_some());
        // As in Redis, a key is there until its time has passed.
        clock.advance(Duration::from_millis(2));
        assert_eq!(get(&memory, b"k"), None);
    }

    #[test]
    fn without_tracking_time_bounds_what_is_kept() {
        let (memory, clock) = memory();
        memory.hold_for(Duration::from_millis(50));
        let token = memory.token(b"k", NOW).expect("it holds");
        assert_eq!(fill(&memory, b"k", Some(b"1"), token), Fill::Kept);
        assert!(get(&memory, b"k").is_some());
        assert!(!memory.has_seen(NOW, NOW + Duration::from_millis(50)));
        assert!(memory.has_seen(NOW, NOW + Duration::from_millis(51)));
        clock.advance(Duration::from_millis(51));
        assert_eq!(get(&memory, b"k"), None);
    }

    #[test]
    fn some_keys_are_never_kept() {
        let (memory, _) = memory();
        assert_eq!(memory.token(b"no:1", NOW), None);
        assert_eq!(memory.token(&[b'k'; KEY_BYTES_MAX + 1], NOW), None);
        assert!(memory.token(&[b'k'; KEY_BYTES_MAX], NOW).is_some());
    }
}
