use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Action, Decimal, Error, ErrorKind, Expected, Key, Result, Version, Write};

/// One acknowledged write that the origin may not have yet.
///
/// As bytes it says itself what it is. All numbers are big-endian. Format 1:
///
/// | bytes | |
/// |---|---|
/// | 0 | `W` |
/// | 1 | the format: 1 |
/// | 2 | 0: put, 1: remove, 2: patch, 3: add |
/// | 3 | expected; 0: anything, 1: absent, 2: present, 3: a version |
/// | 4–11 | the version of the write |
/// | 12–19 | the version expected, or 0 |
/// | 20–27 | the age in microseconds |
/// | 28–29 | how long the cache's name is |
/// | 30–33 | how long the key is |
/// | 34–37 | how long what follows them is |
/// | 38– | the cache's name, the key |
/// | then | the value; of an addition its number as text: one byte of length, the text, and the field |
/// | last 8 | XXH3 of all before |
///
/// A reader takes format 1 only. Each record has one encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// The name of the cache, which decides the origin.
    pub cache: Arc<str>,
    /// What is to be written.
    pub write: Write<Key, Bytes>,
    /// The version that readers of the cache see it as.
    pub version: Version,
    /// How long ago it was accepted. Lag is told by this, never by a wall clock.
    pub age: Duration,
}

const MAGIC: u8 = b'W';
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 38;
const CHECKSUM_BYTES: usize = 8;

impl JournalRecord {
    /// Bytes of a record beside its names and values.
    pub const OVERHEAD_BYTES: usize = HEAD_BYTES + CHECKSUM_BYTES;

    /// How long [`JournalRecord::encode`] is.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        let body = match &self.write.action {
            Action::Put(value) | Action::Patch(value) => value.len(),
            Action::Remove => 0,
            // At most 36 digits, a point and a sign.
            Action::Add { field, by } => 1 + by.to_string().len() + field.len(),
        };
        Self::OVERHEAD_BYTES + self.cache.len() + self.write.key.as_bytes().len() + body
    }

    /// Appends its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the cache's name has more than 65 535 bytes,
    /// or the key or the value more than 4 GiB.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        let key = self.write.key.as_bytes();
        let text;
        let (action, parts): (u8, [&[u8]; 3]) = match &self.write.action {
            Action::Put(value) => (0, [value, &[], &[]]),
            Action::Remove => (1, [&[], &[], &[]]),
            Action::Patch(value) => (2, [value, &[], &[]]),
            Action::Add { field, by } => {
                text = by.to_string();
                (
                    3,
                    [
                        &[u8::try_from(text.len()).unwrap_or(u8::MAX)],
                        text.as_bytes(),
                        field.as_bytes(),
                    ],
                )
            }
        };
        let (expected, expected_version) = match self.write.expected {
            Expected::Anything => (0, Version::ZERO),
            Expected::Absent => (1, Version::ZERO),
            Expected::Present => (2, Version::ZERO),
            Expected::Version(version) => (3, version),
        };
        let body = parts.iter().map(|part| part.len()).sum();
        let cache_length =
            u16::try_from(self.cache.len()).map_err(|_| too_long(self.cache.len()))?;
        let key_length = u32::try_from(key.len()).map_err(|_| too_long(key.len()))?;
        let body_length = u32::try_from(body).map_err(|_| too_long(body))?;
        into.put_slice(&[MAGIC, FORMAT, action, expected]);
        into.put_u64(self.version.get());
        into.put_u64(expected_version.get());
        into.put_u64(u64::try_from(self.age.as_micros()).unwrap_or(u64::MAX));
        into.put_u16(cache_length);
        into.put_u32(key_length);
        into.put_u32(body_length);
        into.put_slice(self.cache.as_bytes());
        into.put_slice(key);
        for part in parts {
            into.put_slice(part);
        }
        let checksum = xxh3_64(&into[start..]);
        into.put_u64(checksum);
        Ok(())
    }

    /// Reads a record that takes up all of these bytes. The value shares them.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if they are not what [`JournalRecord::encode`] makes.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let damaged = |what| Err(Error::new(ErrorKind::Decode, what).with("bytes", bytes.len()));
        let Some(checked) =
            bytes.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end >= HEAD_BYTES)
        else {
            return damaged("a journal record is cut off");
        };
        if bytes[..2] != [MAGIC, FORMAT] {
            return damaged("this is no journal record of format 1");
        }
        if xxh3_64(&bytes[..checked]) != (&bytes[checked..]).get_u64() {
            return damaged("the checksum of a journal record is wrong");
        }
        let mut head = &bytes[2..HEAD_BYTES];
        let (action, expected) = (head.get_u8(), head.get_u8());
        let (version, expected_version) = (head.get_u64(), head.get_u64());
        let age = Duration::from_micros(head.get_u64());
        let cache_end = HEAD_BYTES + usize::from(head.get_u16());
        let key_end = cache_end.saturating_add(head.get_u32() as usize);
        if key_end.saturating_add(head.get_u32() as usize) != checked {
            return damaged("the lengths in a journal record are wrong");
        }
        let Ok(cache) = std::str::from_utf8(&bytes[HEAD_BYTES..cache_end]) else {
            return damaged("the cache's name in a journal record is no text");
        };
        let body = bytes.slice(key_end..checked);
        let action = match action {
            0 => Some(Action::Put(body)),
            1 => body.is_empty().then_some(Action::Remove),
            2 => Some(Action::Patch(body)),
            3 => decode_add(&body),
            _ => None,
        };
        let Some(action) = action else {
            return damaged("the action in a journal record is wrong");
        };
        let expected = match (expected, expected_version) {
            (0, 0) => Expected::Anything,
            (1, 0) => Expected::Absent,
            (2, 0) => Expected::Present,
            (3, version) => Expected::Version(Version::new(version)),
            _ => return damaged("the expectation in a journal record is wrong"),
        };
        let write = Write::new(Key::new(&bytes[cache_end..key_end]), action).expecting(expected);
        Ok(Self { cache: Arc::from(cache), write, version: Version::new(version), age })
    }
}

/// Without the value, which may be anybody's.
impl fmt::Debug for JournalRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match &self.write.action {
            Action::Put(_) => "put",
            Action::Remove => "remove",
            Action::Patch(_) => "patch",
            Action::Add { .. } => "add",
        };
        f.debug_struct("JournalRecord")
            .field("cache", &self.cache)
            .field("key", &self.write.key)
            .field("action", &action)
            .field("expected", &self.write.expected)
            .field("version", &self.version)
            .field("age", &self.age)
            .finish()
    }
}

/// Only numbers as they are printed, so that there is one encoding.
fn decode_add(body: &[u8]) -> Option<Action<Bytes>> {
    let (length, rest) = body.split_first()?;
    let (number, field) = rest.split_at_checked(usize::from(*length))?;
    let number = std::str::from_utf8(number).ok()?;
    let by = number.parse::<Decimal>().ok().filter(|by| by.to_string() == number)?;
    Some(Action::Add { field: Arc::from(std::str::from_utf8(field).ok()?), by })
}

fn too_long(bytes: usize) -> Error {
    Error::new(ErrorKind::InvalidInput, "a part of a write is too long for a journal")
        .with("bytes", bytes)
        .remedy("the name of a cache has at most 65535 bytes, a key or a value less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actions() -> impl Strategy<Value = Action<Bytes>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from);
        prop_oneof![
            bytes().prop_map(Action::Put),
            Just(Action::Remove),
            bytes().prop_map(Action::Patch),
            (".{0,12}", "-?[1-9][0-9]{0,17}(\\.[0-9]{1,18})?").prop_map(|(field, by)| {
                Action::Add { field: field.into(), by: by.parse().expect("it is a number") }
            }),
        ]
    }

    fn records() -> impl Strategy<Value = JournalRecord> {
        let expected = prop_oneof![
            Just(Expected::Anything),
            Just(Expected::Absent),
            Just(Expected::Present),
            any::<u64>().prop_map(|number| Expected::Version(Version::new(number))),
        ];
        let key = proptest::collection::vec(any::<u8>(), 0..40);
        (".{0,20}", key, actions(), expected, any::<u64>(), any::<u64>()).prop_map(
            |(cache, key, action, expected, version, age)| JournalRecord {
                cache: cache.into(),
                write: Write::new(Key::new(key), action).expecting(expected),
                version: Version::new(version),
                age: Duration::from_micros(age),
            },
        )
    }

    fn encoded(record: &JournalRecord) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).expect("it is short");
        bytes
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(record in records()) {
            let bytes = encoded(&record);
            prop_assert_eq!(bytes.len(), record.encoded_length());
            let read = JournalRecord::decode(&Bytes::from(bytes)).expect("it is whole");
            // Numbers with zeros at the end are equal to those without.
            prop_assert_eq!(encoded(&read), encoded(&record));
            prop_assert_eq!(read, record);
        }

        #[test]
        fn a_record_of_which_a_bit_flipped_is_noticed(record in records(), at in any::<usize>()) {
            let mut bytes = encoded(&record);
            let at = at % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            let read = JournalRecord::decode(&Bytes::from(bytes));
            prop_assert_eq!(read.expect_err("it is damaged").kind(), ErrorKind::Decode);
        }

        #[test]
        fn a_record_that_is_cut_off_is_noticed(record in records(), at in any::<usize>()) {
            let mut bytes = encoded(&record);
            bytes.truncate(at % bytes.len());
            prop_assert!(JournalRecord::decode(&Bytes::from(bytes)).is_err());
        }

        #[test]
        fn what_only_has_the_right_checksum_is_refused_or_read_back(mut bytes: Vec<u8>, start in records()) {
            // Bytes of a real record with others laid over its middle.
            let mut whole = encoded(&start);
            whole.truncate(whole.len() - CHECKSUM_BYTES);
            bytes.truncate(whole.len() - 2);
            whole[2..2 + bytes.len()].copy_from_slice(&bytes);
            let checksum = xxh3_64(&whole);
            whole.put_u64(checksum);
            let whole = Bytes::from(whole);
            if let Ok(read) = JournalRecord::decode(&whole) {
                prop_assert_eq!(encoded(&read), whole);
            }
        }
    }

    #[test]
    fn a_value_is_not_printed() {
        let record = JournalRecord {
            cache: "card".into(),
            write: Write::new(Key::new("card:1"), Action::Put(Bytes::from_static(b"4111"))),
            version: Version::new(1),
            age: Duration::ZERO,
        };
        assert!(!format!("{record:?}").contains("4111"));
    }
}
