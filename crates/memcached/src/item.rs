//! What stands in memcached: how items are named and what is in them.
//!
//! An item is named `larder:KIND:CACHE:KEY`, where `KIND` is `e` for an entry,
//! `l` for a lease and `c` for the cache's control item, which has no key. In
//! the cache's name `%` and `:` are escaped, so that no two caches share items.
//! A name that is too long to be sent is replaced by its SHA-256 behind
//! `larder:h:`.
//!
//! The value of an entry's item is
//!
//! | bytes | |
//! |---|---|
//! | 8 | the generation of the cache that it belongs to |
//! | 4 | how long the key is that follows; 0 unless the name is a hash |
//! | … | the key |
//! | … | a [`Frame`] |
//!
//! and the number beside the value is the second at which the item expires, by
//! the server's clock.

use bytes::{Buf, BufMut, Bytes};
use larder_core::{Frame, Key};
use sha2::{Digest, Sha256};

use crate::protocol::WireKey;

/// What a server's own bookkeeping of an item takes, its name included, with
/// something to spare.
const BOOKKEEPING_BYTES: usize = 384;
/// What an entry takes beside its value, tags and a key that is hashed.
const ENTRY_BYTES: usize = 12 + larder_core::frame_layout::HEAD_BYTES;

/// The longest value of an item.
pub(crate) fn payload_bytes_max(item_bytes_max: usize) -> usize {
    item_bytes_max.saturating_sub(BOOKKEEPING_BYTES)
}

/// The longest value of an entry without tags and with a short key.
pub(crate) fn value_bytes_max(item_bytes_max: usize) -> usize {
    payload_bytes_max(item_bytes_max).saturating_sub(ENTRY_BYTES)
}

/// The items of one cache.
#[derive(Clone, Debug)]
pub(crate) struct ItemNames {
    cache: String,
}

/// The name of an entry's item.
#[derive(Clone, Debug)]
pub(crate) struct EntryName {
    pub(crate) wire: WireKey,
    is_hash: bool,
}

impl ItemNames {
    pub(crate) fn new(cache: &str) -> Self {
        Self { cache: cache.replace('%', "%25").replace(':', "%3A") }
    }

    pub(crate) fn entry(&self, key: &Key) -> EntryName {
        self.name('e', key.as_bytes())
    }

    pub(crate) fn lease(&self, key: &Key) -> WireKey {
        self.name('l', key.as_bytes()).wire
    }

    pub(crate) fn control(&self) -> WireKey {
        self.name('c', &[]).wire
    }

    fn name(&self, kind: char, key: &[u8]) -> EntryName {
        let mut name = format!("larder:{kind}:{}:", self.cache).into_bytes();
        name.extend_from_slice(key);
        if let Some(wire) = WireKey::new(&name) {
            return EntryName { wire, is_hash: false };
        }
        let mut hash = String::from("larder:h:");
        for byte in Sha256::digest(&name) {
            hash.push_str(&format!("{byte:02x}"));
        }
        let wire = WireKey::new(hash.as_bytes()).expect("a hash is short");
        EntryName { wire, is_hash: true }
    }
}

/// What was read of an entry's item.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) generation: u64,
    pub(crate) frame: Frame,
    /// The frame as it was, to be changed in place.
    pub(crate) bytes: Bytes,
}

/// The value of an entry's item.
pub(crate) fn encode(name: &EntryName, key: &Key, generation: u64, frame: &[u8]) -> Bytes {
    let key = if name.is_hash { key.as_bytes() } else { &[] };
    let mut bytes = Vec::with_capacity(12 + key.len() + frame.len());
    bytes.put_u64(generation);
    bytes.put_u32(u32::try_from(key.len()).unwrap_or(u32::MAX));
    bytes.put_slice(key);
    bytes.put_slice(frame);
    bytes.into()
}

/// What an item's value says, or `None` if it is another key's or none of ours:
/// to whoever reads that is a miss.
pub(crate) fn decode(name: &EntryName, key: &Key, value: &Bytes) -> Option<Item> {
    let mut rest = value.clone();
    let generation = rest.try_get_u64().ok()?;
    let length = rest.try_get_u32().ok()? as usize;
    if rest.len() < length {
        return None;
    }
    let held = rest.split_to(length);
    let expected: &[u8] = if name.is_hash { key.as_bytes() } else { &[] };
    if *held != *expected {
        return None;
    }
    let frame = Frame::decode(&rest).ok()?;
    Some(Item { generation, frame, bytes: rest })
}

#[cfg(test)]
mod tests {
    use larder_core::Version;

    use super::*;

    fn gravestone() -> Vec<u8> {
        Frame::encode_gravestone(Version::new(3))
    }

    #[test]
    fn no_two_caches_or_kinds_share_items() {
        let names = |cache| ItemNames::new(cache);
        let key = Key::new("b:c");
        let all = [
            names("a").entry(&key).wire,
            names("a").lease(&key),
            names("a").control(),
            names("a:e").entry(&Key::new("c")).wire,
            names("a%3Ae").entry(&Key::new("c")).wire,
            names("a:b").entry(&Key::new("c")).wire,
        ];
        for (index, name) in all.iter().enumerate() {
            assert!(!all[..index].contains(name), "{name:?} is there twice");
        }
        assert_eq!(all[0].as_bytes(), b"larder:e:a:b:c");
    }

    #[test]
    fn an_item_of_another_key_with_the_same_hash_is_a_miss() {
        let names = ItemNames::new("a");
        let (key, other) = (Key::new("x".repeat(300)), Key::new("y".repeat(300)));
        let name = names.entry(&key);
        assert!(name.is_hash);
        assert_ne!(name.wire, names.entry(&other).wire);
        let value = encode(&name, &key, 7, &gravestone());
        let item = decode(&name, &key, &value).expect("it is this key's");
        assert_eq!((item.generation, item.frame), (7, Frame::Gravestone(Version::new(3))));
        // As if both keys had this hash.
        assert!(decode(&name, &other, &value).is_none());
        // And a short key never takes an item with a key inside for its own.
        assert!(decode(&names.entry(&Key::new("b")), &Key::new("b"), &value).is_none());
    }

    #[test]
    fn foreign_and_cut_off_values_are_misses() {
        let names = ItemNames::new("a");
        let key = Key::new("x".repeat(300));
        let name = names.entry(&key);
        let value = encode(&name, &key, 7, &gravestone());
        for cut in 0..value.len() {
            assert!(decode(&name, &key, &value.slice(..cut)).is_none(), "cut at {cut}");
        }
        assert!(decode(&name, &key, &Bytes::from_static(b"somebody else's value")).is_none());
    }
}
