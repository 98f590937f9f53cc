use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use crate::{Class, Error, ErrorKind, Result, StoredEntry, Tag, Tags, Ttl, Value, Version};

/// What a store keeps under a key, as bytes that say themselves what they are.
/// Every byte store of Larder writes this format, and so do programs of other
/// versions beside it.
///
/// All numbers are big-endian, so that scripts inside a store can compare them
/// as text. Format 1:
///
/// | bytes | |
/// |---|---|
/// | 0 | `L` |
/// | 1 | the format: 1 |
/// | 2 | 0: known to be absent, 1: a value, 2: a gravestone, 3: a packed value |
/// | 3 | flags; 1: expired before its time |
/// | 4 | the class, as its place in [`Class::ALL`] |
/// | 5 | the codec |
/// | 6–7 | how many tags |
/// | 8–15 | the version |
/// | 16–23 | the floor: no older version is put any more |
/// | 24–31 | when the read at the origin began, in microseconds of the store's clock |
/// | 32–39 | fresh for, in microseconds; all ones: for ever |
/// | 40–47 | stale for, likewise |
/// | 48–55 | what the load took, in microseconds |
/// | 56– | each tag: two bytes of length, then its name |
/// | then | the value; packed, four bytes of its length and a frame of zstd |
///
/// A reader takes format 1 only; anything else is a decode error, which is a
/// miss to whoever reads. A later format that this one cannot read has another
/// number, and a field that it may ignore goes behind a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// An entry. Its `age` is zero: only the store knows its own clock.
    Entry {
        /// What was put.
        entry: StoredEntry,
        /// No older version is put over it any more.
        floor: Version,
        /// When the read at the origin began, in microseconds of the store's
        /// clock.
        read_at_micros: u64,
        /// Whether the value is packed still: see [`Frame::unpacked`].
        is_packed: bool,
    },
    /// The key was removed: nothing older than this is put any more.
    Gravestone(Version),
}

/// Where things stand, for scripts that read them inside the store.
pub mod frame_layout {
    use std::ops::Range;

    /// What kind of frame it is.
    pub const KIND: usize = 2;
    /// [`KIND`] of a gravestone.
    pub const KIND_GRAVESTONE: u8 = 2;
    /// The flags.
    pub const FLAGS: usize = 3;
    /// The flag of what expired before its time.
    pub const FLAG_EXPIRED: u8 = 1;
    /// The version.
    pub const VERSION: Range<usize> = 8..16;
    /// The floor.
    pub const FLOOR: Range<usize> = 16..24;
    /// When the read at the origin began.
    pub const READ_AT: Range<usize> = 24..32;
    /// How long everything before the tags is.
    pub const HEAD_BYTES: usize = 56;
}

use frame_layout::{FLAG_EXPIRED, HEAD_BYTES, KIND_GRAVESTONE};

const MAGIC: u8 = b'L';
const FORMAT: u8 = 1;
const KIND_ABSENT: u8 = 0;
const KIND_PRESENT: u8 = 1;
/// No flag: a program that does not know it must not take the bytes for the value.
const KIND_PACKED: u8 = 3;
const FOREVER: u64 = u64::MAX;

impl Frame {
    /// The bytes of an entry that was read at the origin at this time of the
    /// store's clock.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there are more than 65 535 tags, or one is
    /// longer than 65 535 bytes.
    pub fn encode(entry: &StoredEntry, floor: Version, read_at_micros: u64) -> Result<Vec<u8>> {
        let tags_bytes: usize = entry.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
        let value = entry.value.as_option();
        let length = HEAD_BYTES + tags_bytes + value.map_or(0, Bytes::len);
        let mut bytes = Vec::with_capacity(length);
        let class = Class::ALL.iter().position(|class| *class == entry.class).unwrap_or_default();
        let kind = if value.is_some() { KIND_PRESENT } else { KIND_ABSENT };
        bytes.put_slice(&[MAGIC, FORMAT, kind, 0, class as u8, entry.codec]);
        bytes.put_u16(count(entry.tags.len(), "tags")?);
        bytes.put_u64(entry.version.get());
        bytes.put_u64(floor.get());
        bytes.put_u64(read_at_micros);
        bytes.put_u64(ttl_micros(entry.fresh_for));
        bytes.put_u64(ttl_micros(entry.stale_for));
        bytes.put_u64(micros(entry.load_cost));
        for tag in entry.tags.iter() {
            bytes.put_u16(count(tag.as_str().len(), "bytes of a tag")?);
            bytes.put_slice(tag.as_str().as_bytes());
        }
        bytes.put_slice(value.map_or(&[], Bytes::as_ref));
        Ok(bytes)
    }

    /// The same with a value of more than this many bytes packed, if that makes it
    /// shorter by an eighth at least. Costs some 2 ms for each MiB of such a value.
    ///
    /// # Errors
    /// As [`Frame::encode`].
    #[cfg(feature = "zstd")]
    pub fn encode_packed(
        entry: &StoredEntry,
        floor: Version,
        read_at_micros: u64,
        above: Option<usize>,
    ) -> Result<Vec<u8>> {
        let is_long = |value: &&Bytes| above.is_some_and(|above| value.len() > above);
        let packed = entry.value.as_option().filter(is_long).and_then(|value| pack(value));
        let Some(packed) = packed else { return Self::encode(entry, floor, read_at_micros) };
        let entry = StoredEntry { value: Value::Present(packed.into()), ..entry.clone() };
        let mut bytes = Self::encode(&entry, floor, read_at_micros)?;
        bytes[frame_layout::KIND] = KIND_PACKED;
        Ok(bytes)
    }

    /// The frame with its value as it was put. A value that is not packed is not
    /// copied.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the value is longer than `value_bytes_max`, which is
    /// known before anything is unpacked, or does not hold what it says; and if this
    /// program was built without the feature `zstd`.
    pub fn unpacked(self, value_bytes_max: usize) -> Result<Self> {
        match self {
            Self::Entry { mut entry, floor, read_at_micros, is_packed: true } => {
                if let Value::Present(bytes) = &entry.value {
                    entry.value = Value::Present(unpack(bytes, value_bytes_max)?);
                }
                Ok(Self::Entry { entry, floor, read_at_micros, is_packed: false })
            }
            frame => Ok(frame),
        }
    }

    /// The bytes of a gravestone.
    #[must_use]
    pub fn encode_gravestone(floor: Version) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.put_slice(&[MAGIC, FORMAT, KIND_GRAVESTONE, 0, 0, 0, 0, 0]);
        bytes.put_u64(floor.get());
        bytes.put_u64(floor.get());
        bytes.resize(HEAD_BYTES, 0);
        bytes
    }

    /// What these bytes say. Values are not copied, and packed as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if they are no frame of this format: whoever reads
    /// treats that as a miss.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut rest = bytes.clone();
        if bytes.len() < HEAD_BYTES {
            return Err(undecodable("too short for a stored entry", bytes));
        }
        let (magic, format) = (rest.get_u8(), rest.get_u8());
        if magic != MAGIC || format != FORMAT {
            return Err(undecodable("not a stored entry of format 1", bytes));
        }
        let (kind, flags, class, codec) =
            (rest.get_u8(), rest.get_u8(), rest.get_u8(), rest.get_u8());
        let tags_count = rest.get_u16();
        let version = Version::new(rest.get_u64());
        let floor = Version::new(rest.get_u64());
        let read_at_micros = rest.get_u64();
        let mut fresh_for = ttl(rest.get_u64());
        let stale_for = ttl(rest.get_u64());
        let load_cost = Duration::from_micros(rest.get_u64());
        if flags & FLAG_EXPIRED != 0 {
            fresh_for = Ttl::For(Duration::ZERO);
        }
        if kind == KIND_GRAVESTONE {
            return Ok(Self::Gravestone(floor));
        }
        let Some(&class) = Class::ALL.get(usize::from(class)) else {
            return Err(undecodable("a stored entry of an unknown class", bytes));
        };
        let Some(tags) = take_tags(&mut rest, tags_count) else {
            return Err(undecodable("the tags of a stored entry are cut off", bytes));
        };
        let value = match kind {
            KIND_PRESENT | KIND_PACKED => Value::Present(rest),
            KIND_ABSENT => Value::Absent,
            _ => return Err(undecodable("a stored entry of an unknown kind", bytes)),
        };
        let entry = StoredEntry {
            value,
            codec,
            version,
            age: Duration::ZERO,
            fresh_for,
            stale_for,
            load_cost,
            tags,
            class,
        };
        let is_packed = kind == KIND_PACKED;
        Ok(Self::Entry { entry, floor, read_at_micros, is_packed })
    }
}

/// The length, and a frame of zstd; `None` if that is not much shorter.
#[cfg(feature = "zstd")]
fn pack(value: &[u8]) -> Option<Vec<u8>> {
    /// Fast: stores are filled while somebody waits for the same thread.
    const LEVEL: i32 = 1;
    let length = u32::try_from(value.len()).ok()?;
    let packed = zstd::bulk::compress(value, LEVEL).ok()?;
    let is_worth_it = packed.len() + PACKED_HEAD_BYTES <= value.len() - value.len() / 8;
    is_worth_it.then(|| [&length.to_be_bytes(), packed.as_slice()].concat())
}

/// The length in front of a packed value.
#[cfg(feature = "zstd")]
const PACKED_HEAD_BYTES: usize = 4;

#[cfg(feature = "zstd")]
fn unpack(packed: &Bytes, value_bytes_max: usize) -> Result<Bytes> {
    let mut rest = packed.clone();
    let length = rest.try_get_u32().ok().map(|length| length as usize);
    // Nothing is reserved on the word of bytes from outside beyond the limit, and
    // zstd writes no more than was reserved.
    let Some(length) = length.filter(|length| *length <= value_bytes_max) else {
        return Err(undecodable("a packed value is cut off, or too long", packed)
            .with("value_bytes_max", value_bytes_max));
    };
    match zstd::bulk::decompress(&rest, length) {
        Ok(value) if value.len() == length => Ok(value.into()),
        _ => Err(undecodable("a packed value does not hold what it says", packed)),
    }
}

#[cfg(not(feature = "zstd"))]
fn unpack(packed: &Bytes, _: usize) -> Result<Bytes> {
    Err(undecodable("this program cannot unpack values", packed))
}

fn take_tags(rest: &mut Bytes, count: u16) -> Option<Tags> {
    let mut tags = Vec::new();
    for _ in 0..count {
        let length = usize::from(rest.try_get_u16().ok()?);
        if rest.len() < length {
            return None;
        }
        let name = rest.split_to(length);
        tags.push(Tag::new(std::str::from_utf8(&name).ok()?));
    }
    Some(Tags::new(tags))
}

fn count(count: usize, of: &'static str) -> Result<u16> {
    u16::try_from(count).map_err(|_| {
        Error::new(ErrorKind::InvalidInput, "an entry has more than a store can keep")
            .with("of", of)
            .with("count", count)
            .with("count_max", u16::MAX)
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(FOREVER - 1).min(FOREVER - 1)
}

fn ttl_micros(ttl: Ttl) -> u64 {
    ttl.duration().map_or(FOREVER, micros)
}

fn ttl(micros: u64) -> Ttl {
    if micros == FOREVER { Ttl::Forever } else { Ttl::For(Duration::from_micros(micros)) }
}

fn undecodable(message: &'static str, bytes: &Bytes) -> Error {
    Error::new(ErrorKind::Decode, message).with("bytes", bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ttls() -> impl Strategy<Value = Ttl> {
        prop_oneof![
            Just(Ttl::Forever),
            (0..=u64::from(u32::MAX)).prop_map(|micros| Ttl::For(Duration::from_micros(micros)))
        ]
    }

    prop_compose! {
        fn entries()(
            value in proptest::option::of(vec(any::<u8>(), 0..300)),
            codec in any::<u8>(),
            version in any::<u64>(),
            fresh_for in ttls(),
            stale_for in ttls(),
            cost in any::<u32>(),
            tags in vec("[a-z:é]{0,9}", 0..5),
            class in 0..Class::ALL.len(),
        ) -> StoredEntry {
            StoredEntry {
                value: value.map(Bytes::from).into(),
                codec,
                version: Version::new(version),
                age: Duration::ZERO,
                fresh_for,
                stale_for,
                load_cost: Duration::from_micros(cost.into()),
                tags: Tags::new(tags),
                class: Class::ALL[class],
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(entry in entries(), floor: u64, read_at_micros: u64) {
            let floor = Version::new(floor);
            let bytes = Frame::encode(&entry, floor, read_at_micros).expect("few tags");
            let frame = Frame::decode(&Bytes::from(bytes)).expect("it was encoded");
            let is_packed = false;
            prop_assert_eq!(frame, Frame::Entry { entry, floor, read_at_micros, is_packed });
        }

        #[cfg(feature = "zstd")]
        #[test]
        fn what_was_packed_is_unpacked(
            entry in entries(),
            times in 0..200_usize,
            above in proptest::option::of(0..2000_usize),
        ) {
            let value = entry.value.as_option().map(|value| Bytes::from(value.repeat(times)));
            let entry = StoredEntry { value: value.clone().into(), ..entry };
            let length = value.map_or(0, |value| value.len());
            let packed = Frame::encode_packed(&entry, Version::ZERO, 7, above).expect("few tags");
            let plain = Frame::encode(&entry, Version::ZERO, 7).expect("few tags");
            prop_assert!(packed.len() <= plain.len());
            if above.is_none_or(|above| length <= above) {
                prop_assert_eq!(&packed, &plain);
            }
            let frame = Frame::decode(&Bytes::from(packed)).expect("it was encoded");
            let is_packed = matches!(frame, Frame::Entry { is_packed: true, .. });
            let unpacked = frame.clone().unpacked(length);
            prop_assert_eq!(unpacked.ok(), Frame::decode(&Bytes::from(plain)).ok());
            // A limit is a limit, whatever the bytes say.
            if is_packed {
                let error = frame.unpacked(length - 1).expect_err("it is longer");
                prop_assert_eq!(error.kind(), ErrorKind::Decode);
            }
        }

        #[cfg(feature = "zstd")]
        #[test]
        fn any_packed_bytes_are_unpacked_or_refused(
            length in prop_oneof![0..5000_u32, any::<u32>()],
            text in vec(any::<u8>(), 0..400),
            cut in 0..500_usize,
            change in proptest::option::of((0..300_usize, any::<u8>())),
        ) {
            let mut packed = zstd::bulk::compress(&text.repeat(9), 1).expect("it fits");
            if let Some((at, to)) = change && at < packed.len() {
                packed[at] = to;
            }
            packed.truncate(cut);
            let packed = Bytes::from([&length.to_be_bytes(), packed.as_slice()].concat());
            match unpack(&packed, 4000) {
                Ok(value) => prop_assert!(value.len() == length as usize && value.len() <= 4000),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Decode),
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            entry in entries(),
            cut in 0..400_usize,
            change in proptest::option::of((0..100_usize, any::<u8>())),
        ) {
            let mut bytes = Frame::encode(&entry, Version::ZERO, 1).expect("few tags");
            if let Some((at, to)) = change && at < bytes.len() {
                bytes[at] = to;
            }
            bytes.truncate(cut);
            if let Err(error) = Frame::decode(&Bytes::from(bytes)) {
                prop_assert_eq!(error.kind(), ErrorKind::Decode);
            }
        }
    }

    #[test]
    fn numbers_stand_where_scripts_look_for_them() {
        let entry = StoredEntry {
            value: Value::Present(Bytes::from_static(b"value")),
            codec: 3,
            version: Version::new(0x0102_0304_0506_0708),
            age: Duration::ZERO,
            fresh_for: Ttl::secs(1),
            stale_for: Ttl::Forever,
            load_cost: Duration::ZERO,
            tags: Tags::new(["a"]),
            class: Class::Public,
        };
        let mut bytes = Frame::encode(&entry, Version::new(7), 9).expect("one tag");
        assert_eq!(bytes[frame_layout::VERSION], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[frame_layout::FLOOR], 7_u64.to_be_bytes());
        assert_eq!(bytes[frame_layout::READ_AT], 9_u64.to_be_bytes());
        assert_eq!(bytes[frame_layout::HEAD_BYTES..], *b"\0\x01avalue");
        bytes[frame_layout::FLAGS] |= FLAG_EXPIRED;
        let frame = Frame::decode(&Bytes::from(bytes)).expect("a frame");
        let expected = StoredEntry { fresh_for: Ttl::For(Duration::ZERO), ..entry };
        let floor = Version::new(7);
        let is_packed = false;
        assert_eq!(frame, Frame::Entry { entry: expected, floor, read_at_micros: 9, is_packed });
        let gravestone = Frame::encode_gravestone(Version::new(5));
        assert_eq!(gravestone[frame_layout::KIND], KIND_GRAVESTONE);
        assert_eq!(gravestone[frame_layout::FLOOR], 5_u64.to_be_bytes());
        let frame = Frame::decode(&Bytes::from(gravestone)).expect("a frame");
        assert_eq!(frame, Frame::Gravestone(Version::new(5)));
    }

    /// A few hundred bytes that would become a gigabyte.
    #[cfg(feature = "zstd")]
    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let megabyte = vec![0; 1 << 20];
        let packed = zstd::bulk::compress(&megabyte, 1).expect("it fits");
        assert!(packed.len() < 1000);
        let bomb = |length: u32, limit| {
            unpack(&Bytes::from([&length.to_be_bytes(), packed.as_slice()].concat()), limit)
        };
        assert_eq!(bomb(1 << 20, 1 << 20).expect("within the limit").len(), 1 << 20);
        for (length, limit) in [(1 << 20, (1 << 20) - 1), (1 << 30, 1 << 20), (1000, 1 << 20)] {
            assert_eq!(bomb(length, limit).expect_err("a bomb").kind(), ErrorKind::Decode);
        }
    }

    #[test]
    fn more_tags_than_can_be_counted_are_refused() {
        let mut entry = StoredEntry {
            value: Value::Absent,
            codec: 0,
            version: Version::ZERO,
            age: Duration::ZERO,
            fresh_for: Ttl::Forever,
            stale_for: Ttl::Forever,
            load_cost: Duration::ZERO,
            tags: Tags::new((0..70_000).map(|n| n.to_string())),
            class: Class::Public,
        };
        let error = Frame::encode(&entry, Version::ZERO, 0).expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        entry.tags = Tags::new(["x".repeat(70_000)]);
        assert!(Frame::encode(&entry, Version::ZERO, 0).is_err());
    }
}
