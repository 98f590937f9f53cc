use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The head of a segment. All numbers are big-endian.
///
/// | bytes | |
/// |---|---|
/// | 0–7 | `LARDERJ1` |
/// | 8–15 | the number of the segment |
/// | 16–23 | its salt, drawn: no frame of another file passes for one of its own |
/// | 24–31 | the oldest segment that is needed beside it |
/// | 32–39 | how much of the segment before it counts |
/// | 40–47 | which journal |
/// | 48–55 | XXH3 of all before |
///
/// Then frames: `LJF1`, four bytes with the length of the body, eight with the
/// place of the frame in the segment, eight with the XXH3 of the 16 before and
/// the body, seeded with the salt; then the body, see
/// [`Operation`](crate::operation::Operation). Behind the last frame there may be
/// zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) base: u64,
    pub(crate) previous_length: u64,
    pub(crate) journal: u64,
}

pub(crate) const HEAD_BYTES: usize = 56;
pub(crate) const FRAME_HEAD_BYTES: usize = 24;
const MAGIC: &[u8; 8] = b"LARDERJ1";
const FRAME_MAGIC: &[u8; 4] = b"LJF1";

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.put_slice(MAGIC);
        for number in [self.number, self.salt, self.base, self.previous_length, self.journal] {
            bytes.put_u64(number);
        }
        let checksum = xxh3_64(&bytes);
        bytes.put_u64(checksum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, mut checksum) = bytes.get(..HEAD_BYTES)?.split_at(HEAD_BYTES - 8);
        let mut numbers = checked.strip_prefix(MAGIC)?;
        (xxh3_64(checked) == checksum.get_u64()).then(|| Self {
            number: numbers.get_u64(),
            salt: numbers.get_u64(),
            base: numbers.get_u64(),
            previous_length: numbers.get_u64(),
            journal: numbers.get_u64(),
        })
    }
}

/// Appends a frame whose body `fill` writes.
pub(crate) fn put_frame(
    into: &mut Vec<u8>,
    salt: u64,
    place: u64,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let start = into.len();
    into.put_bytes(0, FRAME_HEAD_BYTES);
    fill(into);
    let length = into.len() - start - FRAME_HEAD_BYTES;
    let length = u32::try_from(length).expect("bounds keep a frame below 4 GiB");
    let mut head = &mut into[start..start + FRAME_HEAD_BYTES - 8];
    head.put_slice(FRAME_MAGIC);
    head.put_u32(length);
    head.put_u64(place);
    let checksum = checksum(&into[start..], salt);
    into[start + FRAME_HEAD_BYTES - 8..start + FRAME_HEAD_BYTES]
        .copy_from_slice(&checksum.to_be_bytes());
}

/// The body of the frame that begins here, if it is whole, and its place.
pub(crate) fn frame_at(bytes: &[u8], at: usize, salt: u64) -> Option<(u64, &[u8])> {
    let bytes = bytes.get(at..)?;
    let mut head = bytes.get(..FRAME_HEAD_BYTES)?.strip_prefix(FRAME_MAGIC)?;
    let length = head.get_u32() as usize;
    let (place, expected) = (head.get_u64(), head.get_u64());
    let frame = bytes.get(..FRAME_HEAD_BYTES.checked_add(length)?)?;
    (checksum(frame, salt) == expected).then(|| (place, &frame[FRAME_HEAD_BYTES..]))
}

/// Where a whole frame begins at or behind `at`, whatever stands between.
pub(crate) fn find_frame(bytes: &[u8], at: usize, salt: u64) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let starts = rest.windows(FRAME_MAGIC.len()).enumerate();
    let mut starts =
        starts.filter(|(_, window)| window == FRAME_MAGIC).map(|(start, _)| at + start);
    starts.find(|start| frame_at(bytes, *start, salt).is_some())
}

/// Of a frame, leaving out where the checksum stands.
fn checksum(frame: &[u8], salt: u64) -> u64 {
    let body = xxh3_64_with_seed(&frame[FRAME_HEAD_BYTES..], salt);
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..FRAME_HEAD_BYTES - 8].copy_from_slice(&frame[..FRAME_HEAD_BYTES - 8]);
    head[FRAME_HEAD_BYTES - 8..].copy_from_slice(&body.to_be_bytes());
    xxh3_64_with_seed(&head, salt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_read_whole_or_not_at_all(body: Vec<u8>, salt: u64, place: u64, at: usize) {
            let mut bytes = b"before".to_vec();
            put_frame(&mut bytes, salt, place, |into| into.extend(&body));
            prop_assert_eq!(frame_at(&bytes, 6, salt), Some((place, &body[..])));
            prop_assert_eq!(frame_at(&bytes, 6, salt ^ 1), None);
            prop_assert_eq!(find_frame(&bytes, 0, salt), Some(6));
            let at = 6 * 8 + at % ((bytes.len() - 6) * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(frame_at(&bytes, 6, salt), None);
        }

        #[test]
        fn a_head_is_read_whole_or_not_at_all(number: u64, salt: u64, at in 0..HEAD_BYTES * 8) {
            let head = Head { number, salt, base: 3, previous_length: 4, journal: 5 };
            let mut bytes = head.encode();
            prop_assert_eq!(Head::decode(&bytes), Some(head));
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(Head::decode(&bytes), None);
        }
    }
}
