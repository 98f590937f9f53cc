use std::time::Duration;

use bytes::Bytes;
use larder_core::{Frame, StoredEntry, Version, frame_layout};
use xxhash_rust::xxh3::Xxh3;

use crate::timeline::{Now, micros};

/// What stands in front of a frame on disk.
///
/// | bytes | |
/// |---|---|
/// | 0 | the format: 1 |
/// | 1–8 | when the floor was raised last, in microseconds of the timeline; 0: never |
/// | 9–16 | XXH3 of the key, the bytes 0–8 and everything from 17 on |
/// | 17– | the frame |
pub(crate) const ENVELOPE_BYTES: usize = 17;

const FORMAT: u8 = 1;

/// What decides about a record, without its tags and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) is_gravestone: bool,
    is_expired: bool,
    pub(crate) version: Version,
    pub(crate) floor: Version,
    pub(crate) floor_at_micros: u64,
    pub(crate) read_at_micros: u64,
    fresh_for_micros: u64,
    stale_for_micros: u64,
    pub(crate) load_cost_micros: u64,
}

/// For how long what holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) floor_window_micros: u64,
    pub(crate) age_max_micros: u64,
}

impl Limits {
    pub(crate) fn new(floor_window: Duration, marks_retention: Duration) -> Self {
        Self { floor_window_micros: micros(floor_window), age_max_micros: micros(marks_retention) }
    }
}

impl Head {
    /// Reads the head of a record whose checksum need not be right. `None` if it
    /// is none of this format.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let (envelope, frame) = record.split_at_checked(ENVELOPE_BYTES)?;
        if envelope[0] != FORMAT
            || frame.len() < frame_layout::HEAD_BYTES
            || frame[..2] != *b"L\x01"
        {
            return None;
        }
        Some(Self {
            is_gravestone: frame[frame_layout::KIND] == frame_layout::KIND_GRAVESTONE,
            is_expired: frame[frame_layout::FLAGS] & frame_layout::FLAG_EXPIRED != 0,
            version: Version::new(number(&frame[frame_layout::VERSION])),
            floor: Version::new(number(&frame[frame_layout::FLOOR])),
            floor_at_micros: number(&envelope[1..9]),
            read_at_micros: number(&frame[frame_layout::READ_AT]),
            fresh_for_micros: number(&frame[32..40]),
            stale_for_micros: number(&frame[40..48]),
            load_cost_micros: number(&frame[48..56]),
        })
    }

    /// Whether nobody will read it as an entry any more: it is past its limits,
    /// past the watermarks, or of an age that nobody knows.
    pub(crate) fn is_dead(&self, now: Now, limits: Limits) -> bool {
        let fresh_for_micros = if self.is_expired { 0 } else { self.fresh_for_micros };
        let lives_for = fresh_for_micros.max(self.stale_for_micros).min(limits.age_max_micros);
        self.is_gravestone
            || self.read_at_micros < now.known_since_micros
            || self.read_at_micros > now.micros
            || now.micros - self.read_at_micros >= lives_for
    }

    /// The floor, while a load may still run that began before it was raised.
    pub(crate) fn live_floor(&self, now: Now, limits: Limits) -> Option<Floor> {
        let holds = self.floor_at_micros != 0
            && now.micros.saturating_sub(self.floor_at_micros) < limits.floor_window_micros;
        holds.then_some(Floor { version: self.floor, at_micros: self.floor_at_micros })
    }
}

/// No older version is put, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Floor {
    pub(crate) version: Version,
    pub(crate) at_micros: u64,
}

/// The frame of an entry, as [`entry_record`] takes it.
///
/// # Errors
/// As [`Frame::encode`].
pub(crate) fn entry_frame(
    entry: &StoredEntry,
    read_at_micros: u64,
) -> larder_core::Result<Vec<u8>> {
    Frame::encode(entry, Version::ZERO, read_at_micros)
}

/// The record of an entry.
pub(crate) fn entry_record(key: &[u8], frame: &[u8], floor: Option<Floor>) -> Vec<u8> {
    match floor {
        None => seal(key, None, frame),
        Some(floor) => seal_with_floor(key, frame.to_vec(), floor),
    }
}

/// The record of a removed key.
pub(crate) fn gravestone_record(key: &[u8], floor: Floor) -> Vec<u8> {
    seal(key, Some(floor), &Frame::encode_gravestone(floor.version))
}

/// The record of an entry with another floor, and expired if that is said.
pub(crate) fn with_floor(key: &[u8], record: &[u8], floor: Floor, expire: bool) -> Vec<u8> {
    let mut frame = record[ENVELOPE_BYTES..].to_vec();
    if expire {
        frame[frame_layout::FLAGS] |= frame_layout::FLAG_EXPIRED;
    }
    seal_with_floor(key, frame, floor)
}

/// Whether these bytes are what was written under this key.
pub(crate) fn is_sound(key: &[u8], record: &[u8]) -> bool {
    let Some((envelope, frame)) = record.split_at_checked(ENVELOPE_BYTES) else { return false };
    number(&envelope[9..17]) == checksum(key, &envelope[..9], frame)
}

/// The entry in a sound record, with its age.
///
/// # Errors
/// As [`Frame::decode`].
pub(crate) fn decode(record: &[u8], now: Now) -> larder_core::Result<Option<StoredEntry>> {
    let frame = Bytes::copy_from_slice(record.get(ENVELOPE_BYTES..).unwrap_or_default());
    // Nothing here is packed, and what says so is not ours.
    Ok(match Frame::decode(&frame)?.unpacked(0)? {
        Frame::Entry { entry, read_at_micros, .. } => {
            let age = Duration::from_micros(now.micros.saturating_sub(read_at_micros));
            Some(StoredEntry { age, ..entry })
        }
        Frame::Gravestone(_) => None,
    })
}

fn seal(key: &[u8], floor: Option<Floor>, frame: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(ENVELOPE_BYTES + frame.len());
    record.push(FORMAT);
    record.extend(floor.map_or(0, |floor| floor.at_micros).to_be_bytes());
    let checksum = checksum(key, &record, frame);
    record.extend(checksum.to_be_bytes());
    record.extend(frame);
    record
}

fn seal_with_floor(key: &[u8], mut frame: Vec<u8>, floor: Floor) -> Vec<u8> {
    frame[frame_layout::FLOOR].copy_from_slice(&floor.version.get().to_be_bytes());
    seal(key, Some(floor), &frame)
}

fn checksum(key: &[u8], head: &[u8], rest: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(head);
    hash.update(rest);
    hash.digest()
}

/// A big-endian number; the bytes are eight.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use larder_core::Ttl;
    use larder_testkit::conformance::store::entry;
    use proptest::prelude::*;

    use super::*;

    fn put_record(entry: &StoredEntry) -> Vec<u8> {
        entry_record(b"key", &entry_frame(entry, 1000).expect("few tags"), None)
    }

    const LIMITS: Limits = Limits { floor_window_micros: 100, age_max_micros: 1_000_000_000 };

    fn at(micros: u64) -> Now {
        Now { micros, known_since_micros: 0 }
    }

    fn head(change: impl FnOnce(&mut StoredEntry)) -> Head {
        let mut entry = entry("value", 5);
        change(&mut entry);
        let record = put_record(&entry);
        Head::read(&record).expect("a record")
    }

    #[test]
    fn an_entry_is_dead_past_the_longer_of_its_limits() {
        let second = 1_000_000;
        let plain = head(|entry| entry.stale_for = Ttl::secs(90));
        assert!(!plain.is_dead(at(1000 + 90 * second - 1), LIMITS));
        assert!(plain.is_dead(at(1000 + 90 * second), LIMITS));
        let forever = head(|entry| entry.fresh_for = Ttl::Forever);
        assert!(!forever.is_dead(at(999 * second), LIMITS));
        assert!(forever.is_dead(at(1000 + LIMITS.age_max_micros), LIMITS), "past the watermarks");
    }

    #[test]
    fn an_entry_of_unknown_age_is_dead() {
        let entry = head(|_| ());
        assert!(!entry.is_dead(at(1000), LIMITS));
        assert!(entry.is_dead(at(999), LIMITS), "read in the future");
        let now = Now { micros: 2000, known_since_micros: 1001 };
        assert!(entry.is_dead(now, LIMITS), "read before ages were known");
    }

    #[test]
    fn a_floor_holds_for_its_window() {
        let floor = Floor { version: Version::new(9), at_micros: 1000 };
        let gravestone = Head::read(&gravestone_record(b"key", floor)).expect("a record");
        assert!(gravestone.is_dead(at(1000), LIMITS));
        assert_eq!(gravestone.live_floor(at(1099), LIMITS), Some(floor));
        assert_eq!(gravestone.live_floor(at(1100), LIMITS), None);
        assert_eq!(head(|_| ()).live_floor(at(1000), LIMITS), None);
    }

    #[test]
    fn raising_the_floor_changes_nothing_else() {
        let put = entry("value", 5);
        let record = put_record(&put);
        let floor = Floor { version: Version::new(4), at_micros: 1050 };
        for expire in [false, true] {
            let raised = with_floor(b"key", &record, floor, expire);
            assert!(is_sound(b"key", &raised));
            let head = Head::read(&raised).expect("a record");
            assert_eq!(head.live_floor(at(1060), LIMITS), Some(floor));
            let read = decode(&raised, at(1060)).expect("a frame").expect("an entry");
            assert_eq!((read.version, &read.value), (put.version, &put.value));
            assert_eq!(read.age, Duration::from_micros(60));
            assert_eq!(read.fresh_for == Ttl::For(Duration::ZERO), expire);
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(place in 0..200_usize, flip in 1..=255_u8, cut in 0..200_usize) {
            let record = put_record(&entry("some value", 5));
            prop_assert!(is_sound(b"key", &record));
            prop_assert!(!is_sound(b"kez", &record));
            let mut changed = record.clone();
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= flip;
                prop_assert!(!is_sound(b"key", &changed));
            }
            if cut < record.len() {
                prop_assert!(!is_sound(b"key", &record[..cut]));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::read(&bytes);
            let _ = is_sound(b"key", &bytes);
            let _ = decode(&bytes, at(1));
        }
    }
}
