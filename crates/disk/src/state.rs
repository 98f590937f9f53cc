use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::{BusPosition, HeardUpTo, Mark, Tag, Verb, Version};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::machine_clock::MachineTime;
use crate::timeline::Anchor;

/// What is known of a cache beside its entries. It is in memory as a whole and
/// on disk record by record.
#[derive(Debug)]
pub(crate) struct CacheState {
    pub(crate) name: String,
    highest: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Option<HeardUpTo>,
    marks: BTreeMap<MarkKey, MarkHeld>,
    /// The store was emptied while loads may have been running.
    lost: Option<(Version, u64)>,
}

type MarkKey = (Option<Tag>, bool);

/// A watermark and when it was raised, in microseconds of the timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MarkHeld {
    pub(crate) version: Version,
    pub(crate) at_micros: u64,
}

/// Watermarks that are no more, and those of the whole cache to raise for them.
pub(crate) struct MergedMarks {
    pub(crate) gone: Vec<MarkName>,
    pub(crate) covers: Vec<(Verb, Version)>,
}

/// Which watermark of a cache.
pub(crate) type MarkName = (Option<Tag>, Verb);

/// With more watermarks than this the lower half becomes one of the whole cache.
pub(crate) const MARKS_MAX: usize = 100_000;

impl CacheState {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), highest: AtomicU64::new(0), state: Mutex::default() }
    }

    /// No version was higher so far.
    pub(crate) fn highest(&self) -> Version {
        Version::new(self.highest.load(Ordering::Acquire))
    }

    /// Returns whether it is higher than any before.
    pub(crate) fn raise_highest(&self, version: Version) -> bool {
        self.highest.fetch_max(version.get(), Ordering::AcqRel) < version.get()
    }

    pub(crate) fn heard(&self) -> Option<HeardUpTo> {
        self.state.lock().heard
    }

    pub(crate) fn set_heard(&self, heard: HeardUpTo) {
        self.state.lock().heard = Some(heard);
    }

    /// Raises a watermark. Returns whether it was lower.
    pub(crate) fn raise_mark(&self, tag: Option<Tag>, verb: Verb, mark: MarkHeld) -> bool {
        let mut state = self.state.lock();
        let held = state
            .marks
            .entry(mark_key(tag, verb))
            .or_insert(MarkHeld { version: Version::ZERO, at_micros: 0 });
        let raises = held.version < mark.version;
        if raises || held.at_micros == 0 {
            *held = mark;
        }
        raises
    }

    /// The watermarks.
    pub(crate) fn marks(&self) -> Vec<(Mark, u64)> {
        let state = self.state.lock();
        let marks = state.marks.iter().map(|((tag, is_removal), held)| {
            let verb = if *is_removal { Verb::Remove } else { Verb::Expire };
            (Mark { tag: tag.clone(), verb, version: held.version }, held.at_micros)
        });
        marks.collect()
    }

    /// Takes away those that were raised before a time, and returns them.
    pub(crate) fn forget_marks_before(&self, micros: u64) -> Vec<MarkName> {
        let old = |_: &MarkKey, held: &mut MarkHeld| held.at_micros < micros;
        self.state.lock().marks.extract_if(.., old).map(|(key, _)| mark_name(key)).collect()
    }

    /// If there are too many: takes the lower half of each verb's away.
    pub(crate) fn merge_marks(&self) -> Option<MergedMarks> {
        let mut state = self.state.lock();
        if state.marks.len() <= MARKS_MAX {
            return None;
        }
        let mut gone = Vec::new();
        let mut covers = Vec::new();
        for is_removal in [false, true] {
            let marks = state
                .marks
                .iter()
                .filter(|((tag, removal), _)| tag.is_some() && *removal == is_removal);
            let mut versions: Vec<Version> = marks.map(|(_, held)| held.version).collect();
            if versions.is_empty() {
                continue;
            }
            versions.sort_unstable();
            let cover = versions[versions.len() / 2];
            let low = state.marks.extract_if(.., |(tag, removal), held| {
                tag.is_some() && *removal == is_removal && held.version <= cover
            });
            gone.extend(low.map(|(key, _)| mark_name(key)));
            covers.push((if is_removal { Verb::Remove } else { Verb::Expire }, cover));
        }
        Some(MergedMarks { gone, covers })
    }

    /// After everything was dropped: no version up to the highest one is put
    /// until the time given.
    pub(crate) fn lose(&self, until_micros: u64) {
        self.state.lock().lost = Some((self.highest(), until_micros));
    }

    /// The version below which nothing is put because everything was dropped.
    pub(crate) fn lost(&self, now_micros: u64) -> Option<Version> {
        let lost = self.state.lock().lost;
        lost.filter(|(_, until_micros)| now_micros < *until_micros).map(|(version, _)| version)
    }
}

fn mark_key(tag: Option<Tag>, verb: Verb) -> MarkKey {
    (tag, verb == Verb::Remove)
}

fn mark_name((tag, is_removal): MarkKey) -> MarkName {
    (tag, if is_removal { Verb::Remove } else { Verb::Expire })
}

/// A record of state: its numbers, big-endian, behind the XXH3 of key and
/// numbers.
pub(crate) fn seal_numbers(key: &[u8], numbers: &[u64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    let mut record = checksum(key, &numbers).to_be_bytes().to_vec();
    record.extend(numbers);
    record
}

/// The numbers of a record, if they are so many and as they were written.
pub(crate) fn open_numbers<const N: usize>(key: &[u8], record: &[u8]) -> Option<[u64; N]> {
    let (sum, numbers) = record.split_first_chunk::<8>()?;
    if numbers.len() != 8 * N || checksum(key, numbers) != u64::from_be_bytes(*sum) {
        return None;
    }
    let mut opened = [0; N];
    for (number, bytes) in opened.iter_mut().zip(numbers.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(opened)
}

/// What was heard, as numbers.
pub(crate) fn heard_numbers(heard: HeardUpTo) -> [u64; 3] {
    [heard.position.epoch, heard.position.sequence, heard.since.get()]
}

/// And back.
pub(crate) fn heard_from([epoch, sequence, since]: [u64; 3]) -> HeardUpTo {
    HeardUpTo { position: BusPosition { epoch, sequence }, since: Version::new(since) }
}

/// An anchor as numbers; a machine that says no boot is boot 0.
pub(crate) fn anchor_numbers(anchor: &Anchor) -> [u64; 6] {
    let boot = anchor.machine.boot.unwrap_or(0);
    [
        anchor.micros,
        anchor.known_since_micros,
        (boot >> 64) as u64,
        boot as u64,
        crate::timeline::micros(anchor.machine.since_boot),
        crate::timeline::micros(anchor.machine.since_1970),
    ]
}

/// And back.
pub(crate) fn anchor_from(numbers: [u64; 6]) -> Anchor {
    let [micros, known_since_micros, high, low, since_boot, since_1970] = numbers;
    let boot = u128::from(high) << 64 | u128::from(low);
    let machine = MachineTime {
        boot: (boot != 0).then_some(boot),
        since_boot: std::time::Duration::from_micros(since_boot),
        since_1970: std::time::Duration::from_micros(since_1970),
    };
    Anchor { micros, known_since_micros, machine }
}

fn checksum(key: &[u8], numbers: &[u8]) -> u64 {
    xxh3_64(&[&(key.len() as u64).to_be_bytes(), key, numbers].concat())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mark(version: u64, at_micros: u64) -> MarkHeld {
        MarkHeld { version: Version::new(version), at_micros }
    }

    #[test]
    fn too_many_watermarks_become_one_that_covers_them() {
        let cache = CacheState::new("a");
        for n in 0..=MARKS_MAX as u64 {
            let verb = if n % 10 == 0 { Verb::Expire } else { Verb::Remove };
            cache.raise_mark(Some(Tag::new(&n.to_string())), verb, mark(n + 1, 1));
        }
        let before = cache.marks();
        let MergedMarks { gone, covers } = cache.merge_marks().expect("there are too many");
        assert!(gone.len() >= MARKS_MAX / 2 && cache.marks().len() == before.len() - gone.len());
        for (mark, _) in before {
            let is_gone = gone.contains(&(mark.tag.clone(), mark.verb));
            let is_covered =
                covers.iter().any(|(verb, version)| *verb == mark.verb && *version >= mark.version);
            assert_eq!(is_gone, is_covered, "{mark:?}");
            if mark.version.get() > 300 && mark.version.get() < MARKS_MAX as u64 - 300 {
                // A sample of the middle suffices: the search above is slow.
                break;
            }
        }
        assert!(cache.merge_marks().is_none());
    }

    #[test]
    fn old_watermarks_are_forgotten() {
        let cache = CacheState::new("a");
        assert!(cache.raise_mark(None, Verb::Remove, mark(3, 10)));
        assert!(cache.raise_mark(Some(Tag::new("t")), Verb::Expire, mark(4, 20)));
        assert!(!cache.raise_mark(None, Verb::Remove, mark(2, 30)));
        assert_eq!(cache.forget_marks_before(20), [(None, Verb::Remove)]);
        assert_eq!(cache.marks().len(), 1);
    }

    #[test]
    fn numbers_and_anchors_come_back_or_are_refused() {
        let machine = MachineTime {
            boot: Some(u128::MAX - 5),
            since_boot: Duration::from_micros(7),
            since_1970: Duration::from_micros(8),
        };
        for machine in [machine, MachineTime { boot: None, ..machine }] {
            let anchor = Anchor { micros: 1, known_since_micros: 2, machine };
            let record = seal_numbers(b"key", &anchor_numbers(&anchor));
            assert_eq!(open_numbers(b"key", &record).map(anchor_from), Some(anchor));
            assert_eq!(open_numbers::<6>(b"kez", &record), None);
            assert_eq!(open_numbers::<5>(b"key", &record), None);
            for place in 0..record.len() {
                let mut changed = record.clone();
                changed[place] ^= 1;
                assert_eq!(open_numbers::<6>(b"key", &changed), None);
            }
        }
    }
}
