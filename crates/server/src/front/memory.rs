//! What is known of Redis' strings in this process, and whether it holds.
//!
//! Two things keep it true. Every key has a *fence*, a counter that each
//! invalidation and each write of our own clients moves on: a value that was
//! read before is not kept. And every entry stands under an epoch of its slot,
//! see [`Validity`]: it is dead once its server may not have been heard.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use larder_core::Moment;

use super::validity::{Place, Validity};
use crate::keyspace::{Expiry, Form, Keyspace, WallTime, glob_matches};

/// Keys share fences; one that another key moved costs a fill, nothing else.
const FENCES: usize = 1 << 14;

/// Longer keys are not kept, so that no argument longer than this needs to be
/// looked at when a command may write any of its arguments.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// An entry begins with whether there is a value, and the epoch of its slot.
const PRESENT: u8 = b'=';
/// The epoch of what is not there follows.
const ABSENT: u8 = b'-';

/// Values of Redis, shared between threads.
pub(crate) struct Memory {
    keyspace: Arc<Keyspace>,
    pub(crate) validity: Validity,
    hasher: RandomState,
    fences: Box<[AtomicU64]>,
    kept_bytes_max: usize,
    not_kept: Vec<Vec<u8>>,
}

/// Proof of when a read began: what it finds may be kept if the token still
/// holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    place: Place,
    absence: u32,
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

impl Token {
    /// Which server the read must be sent to.
    pub(crate) fn node(self) -> usize {
        self.place.node
    }
}

impl Memory {
    pub(crate) fn new(
        keyspace: Arc<Keyspace>,
        is_cluster: bool,
        kept_bytes_max: usize,
        not_kept: &[String],
    ) -> Self {
        Self {
            keyspace,
            validity: Validity::new(is_cluster),
            hasher: RandomState::default(),
            fences: (0..FENCES).map(|_| AtomicU64::new(0)).collect(),
            kept_bytes_max,
            not_kept: not_kept.iter().map(|glob| glob.clone().into_bytes()).collect(),
        }
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
        let place = self.validity.place(key);
        if !self.validity.holds(place.node, now) {
            return None;
        }
        self.keyspace.get(key, |kept| {
            let (&kind, rest) = kept.split_first()?;
            let (epoch, rest) = rest.split_first_chunk::<4>()?;
            if u32::from_le_bytes(*epoch) != place.epoch {
                return None;
            }
            match kind {
                PRESENT => Some(read(Some(rest))),
                _ => self.holds_absent(rest, now).then(|| read(None)),
            }
        })?
    }

    /// Whether it still holds that a key is not there.
    fn holds_absent(&self, absence: &[u8], now: Moment) -> bool {
        absence == self.validity.absence().to_le_bytes() && self.validity.all_hold(now)
    }

    /// To be taken before a key is read in Redis; `None` if what is found is not
    /// to be kept.
    pub(crate) fn token(&self, key: &[u8], now: Moment) -> Option<Token> {
        let place = self.validity.place(key);
        let is_kept = key.len() <= KEY_BYTES_MAX
            && self.validity.holds(place.node, now)
            && !self.not_kept.iter().any(|glob| glob_matches(glob, key));
        is_kept.then(|| Token {
            place,
            absence: self.validity.absence(),
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
        if value.is_some_and(|value| value.len() > self.kept_bytes_max) {
            return Fill::Refused;
        }
        let kept = encoded(value, token);
        let bound = self.validity.bound(token.place.node);
        let lifetime = [lifetime, bound].into_iter().flatten().min();
        let expiry = lifetime.map_or(Expiry::Never, |lifetime| {
            let millis = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
            Expiry::At(WallTime::from_unix_millis(read_at.unix_millis().saturating_add(millis)))
        });
        let mut locked = self.keyspace.lock([key]);
        let is_crossed = self.fence(key).load(Ordering::Acquire) != token.fence
            || !self.validity.is_current(token.place);
        if is_crossed {
            return Fill::Crossed;
        }
        if locked.make_room().is_err() {
            return Fill::Refused;
        }
        locked.set(key, &kept, expiry, Form::Edited);
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
        self.validity.renew_all();
        self.keyspace.clear();
    }

    /// Forgets everything that was read of this server, and what is being read.
    pub(crate) fn clear_node(&self, node: usize) {
        self.validity.renew(node);
        self.clear_if_alone();
    }

    /// From now on nothing of this server holds: invalidations may be lost.
    pub(crate) fn suspend(&self, node: usize) {
        self.validity.suspend(node);
        self.clear_if_alone();
    }

    /// With a single server, what is dead is all there is: its room is given back
    /// at once. Else it is overwritten, or evicted.
    fn clear_if_alone(&self) {
        if self.validity.watched().len() <= 1 {
            self.keyspace.clear();
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

fn encoded(value: Option<&[u8]>, token: Token) -> Vec<u8> {
    let rest = value.map_or(size_of::<u32>(), <[u8]>::len);
    let mut kept = Vec::with_capacity(1 + size_of::<u32>() + rest);
    kept.push(if value.is_some() { PRESENT } else { ABSENT });
    kept.extend_from_slice(&token.place.epoch.to_le_bytes());
    match value {
        Some(value) => kept.extend_from_slice(value),
        None => kept.extend_from_slice(&token.absence.to_le_bytes()),
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{KeyspaceOptions, WallClock};

    const NOW: Moment = Moment::from_nanos(1_000_000_000);

    fn memory() -> (Memory, WallClock) {
        let clock = WallClock::manual(WallTime::from_unix_millis(1_000_000));
        let options = KeyspaceOptions { clock: clock.clone(), ..KeyspaceOptions::default() };
        let memory =
            Memory::new(Arc::new(Keyspace::new(options)), false, 100, &["no:*".to_owned()]);
        memory.validity.prolong(0, NOW, NOW + Duration::from_secs(1));
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
            [|memory| memory.void(b"k"), Memory::clear, |memory| memory.suspend(0)];
        for cross in crossings {
            memory.validity.prolong(0, NOW, NOW + Duration::from_secs(1));
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
        memory.validity.prolong(0, late, late + Duration::from_secs(1));
        assert_eq!(memory.get(b"k", late, |_| ()), Some(()), "nothing was missed");
        memory.suspend(0);
        memory.validity.prolong(0, late, late + Duration::from_secs(1));
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
        memory.validity.hold_for(0, Duration::from_millis(50));
        let token = memory.token(b"k", NOW).expect("it holds");
        assert_eq!(fill(&memory, b"k", Some(b"1"), token), Fill::Kept);
        assert!(get(&memory, b"k").is_some());
        assert!(!memory.validity.has_seen(0, NOW, NOW + Duration::from_millis(50)));
        assert!(memory.validity.has_seen(0, NOW, NOW + Duration::from_millis(51)));
        clock.advance(Duration::from_millis(51));
        assert_eq!(get(&memory, b"k"), None);
    }

    /// Two servers that own half of the slots each, and are heard.
    fn of_two() -> Memory {
        let keyspace = Arc::new(Keyspace::new(KeyspaceOptions::default()));
        let memory = Memory::new(keyspace, true, 100, &[]);
        memory.validity.watch(vec![0, 1]);
        memory.validity.assign(8192..16_384, 1);
        for node in [0, 1] {
            memory.validity.prolong(node, NOW, NOW + Duration::from_secs(1));
        }
        memory
    }

    #[test]
    fn of_a_cluster_values_hold_by_server_and_absence_by_all() {
        // Slots 3300 and 15495.
        let (first, second) = (&b"b"[..], &b"a"[..]);
        type Change = fn(&Memory);
        let changes: [(Change, [bool; 2]); 4] = [
            (|_| (), [true, true]),
            (|memory| memory.suspend(1), [true, false]),
            (|memory| memory.validity.watch(vec![0, 1, 2]), [true, false]),
            (|memory| assert!(memory.validity.assign(3300..3301, 1)), [false, true]),
        ];
        for (place, (change, expected)) in changes.into_iter().enumerate() {
            let memory = of_two();
            for (key, value) in [(first, Some(&b"1"[..])), (second, None)] {
                let token = memory.token(key, NOW).expect("it holds");
                assert_eq!(fill(&memory, key, value, token), Fill::Kept);
            }
            change(&memory);
            // What is suspended is heard again, and begins anew.
            for node in [0, 1] {
                memory.validity.prolong(node, NOW, NOW + Duration::from_secs(1));
            }
            let held = [first, second].map(|key| get(&memory, key).is_some());
            assert_eq!(held, expected, "change {place}");
        }
    }

    #[test]
    fn a_value_of_the_old_owner_is_not_kept() {
        let memory = of_two();
        let token = memory.token(b"b", NOW).expect("it holds");
        assert_eq!(token.node(), 0);
        memory.validity.assign(3300..3301, 1);
        assert_eq!(fill(&memory, b"b", Some(b"old"), token), Fill::Crossed);
        assert_eq!(memory.token(b"b", NOW).map(Token::node), Some(1));
    }

    #[test]
    fn some_keys_are_never_kept() {
        let (memory, _) = memory();
        assert_eq!(memory.token(b"no:1", NOW), None);
        assert_eq!(memory.token(&[b'k'; KEY_BYTES_MAX + 1], NOW), None);
        assert!(memory.token(&[b'k'; KEY_BYTES_MAX], NOW).is_some());
    }
}
