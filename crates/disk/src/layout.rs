use xxhash_rust::xxh3::xxh3_64;

use larder_core::{Error, ErrorKind, Key, Result, Tag, Verb};

/// How keys stand in the one keyspace of a directory. One keyspace, because then
/// what a crash leaves is a prefix of what was written, of everything alike.
///
/// | kind | key | value |
/// |---|---|---|
/// | anchor | `0 A` | see `state` |
/// | highest version | `0 H` cache | |
/// | bus position | `0 P` cache | |
/// | watermark | `0 M` cache verb (`0` or `1` tag) | |
/// | entry | `1` hash cache key | see `record` |
///
/// A cache is one byte of length and its name. The hash makes neighbours of
/// entries that have nothing to do with one another, so that every compaction
/// meets a fair sample.
pub(crate) const STATE: u8 = 0;
pub(crate) const ENTRY: u8 = 1;

pub(crate) const ANCHOR: u8 = b'A';
pub(crate) const HIGHEST: u8 = b'H';
pub(crate) const POSITION: u8 = b'P';
pub(crate) const MARK: u8 = b'M';

/// The longest name of a cache in bytes.
pub(crate) const CACHE_NAME_BYTES_MAX: usize = 255;
/// The longest key, or tag, in bytes: fjall takes 65 535 with all that stands
/// around it.
pub(crate) const KEY_BYTES_MAX: usize = 32 << 10;

/// The key of an entry.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if it is too long.
pub(crate) fn entry_key(cache: &str, key: &Key) -> Result<Vec<u8>> {
    let key = key.as_bytes();
    check_length("key", key.len())?;
    let mut bytes = Vec::with_capacity(10 + cache.len() + key.len());
    bytes.push(ENTRY);
    bytes.extend([0; 8]);
    push_cache(&mut bytes, cache);
    bytes.extend(key);
    let hash = xxh3_64(&bytes[9..]);
    bytes[1..9].copy_from_slice(&hash.to_be_bytes());
    Ok(bytes)
}

/// The hash in the key of an entry.
pub(crate) fn entry_hash(key: &[u8]) -> Option<u64> {
    let hash = key.get(1..9).filter(|_| key[0] == ENTRY)?;
    Some(u64::from_be_bytes(hash.try_into().ok()?))
}

/// The key of the anchor.
pub(crate) fn anchor_key() -> Vec<u8> {
    vec![STATE, ANCHOR]
}

/// The key of the highest version, or of the position, of a cache.
pub(crate) fn cache_key(kind: u8, cache: &str) -> Vec<u8> {
    let mut bytes = vec![STATE, kind];
    push_cache(&mut bytes, cache);
    bytes
}

/// The key of a watermark.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if the tag is too long.
pub(crate) fn mark_key(cache: &str, tag: Option<&Tag>, verb: Verb) -> Result<Vec<u8>> {
    let mut bytes = cache_key(MARK, cache);
    bytes.push(match verb {
        Verb::Expire => 0,
        Verb::Remove => 1,
    });
    bytes.push(u8::from(tag.is_some()));
    if let Some(tag) = tag {
        check_length("tag", tag.as_str().len())?;
        bytes.extend(tag.as_str().as_bytes());
    }
    Ok(bytes)
}

/// A key of state, taken apart.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum StateKey {
    Anchor,
    Highest(String),
    Position(String),
    Mark(String, Option<Tag>, Verb),
}

impl StateKey {
    /// `None` for anything that no key of state looks like.
    pub(crate) fn read(key: &[u8]) -> Option<Self> {
        let [STATE, kind, rest @ ..] = key else { return None };
        if *kind == ANCHOR {
            return rest.is_empty().then_some(Self::Anchor);
        }
        let (length, rest) = rest.split_first()?;
        let (cache, rest) = rest.split_at_checked(usize::from(*length))?;
        let cache = String::from_utf8(cache.to_vec()).ok()?;
        match (*kind, rest) {
            (HIGHEST, []) => Some(Self::Highest(cache)),
            (POSITION, []) => Some(Self::Position(cache)),
            (MARK, [verb, has_tag, tag @ ..]) => {
                let verb = match verb {
                    0 => Verb::Expire,
                    1 => Verb::Remove,
                    _ => return None,
                };
                let tag = match (has_tag, tag) {
                    (0, []) => None,
                    (1, tag) => Some(Tag::new(std::str::from_utf8(tag).ok()?)),
                    _ => return None,
                };
                Some(Self::Mark(cache, tag, verb))
            }
            _ => None,
        }
    }
}

fn push_cache(bytes: &mut Vec<u8>, cache: &str) {
    // Names are checked when a store is made.
    debug_assert!(cache.len() <= CACHE_NAME_BYTES_MAX);
    bytes.push(cache.len() as u8);
    bytes.extend(cache.as_bytes());
}

fn check_length(what: &'static str, bytes: usize) -> Result<()> {
    if bytes <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "too long for the disk tier")
        .with("what", what)
        .with("bytes", bytes)
        .with("bytes_max", KEY_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cache_cannot_read_the_keys_of_another() {
        let one = entry_key("a", &Key::new("bc")).expect("short");
        let other = entry_key("ab", &Key::new("c")).expect("short");
        assert_ne!(one, other);
        assert_ne!(one[9..], other[9..], "also where the hashes agree");
        assert_eq!(entry_hash(&one), Some(xxh3_64(&one[9..])));
        assert_eq!(entry_hash(&anchor_key()), None);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for error in [
            entry_key("a", &Key::new(&long)).expect_err("too long"),
            mark_key("a", Some(&Tag::new(&long)), Verb::Remove).expect_err("too long"),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn state_keys_are_taken_apart_as_they_were_put_together(
            cache in "[a-zé]{1,9}", tag in proptest::option::of(".{0,9}"), remove: bool,
        ) {
            let verb = if remove { Verb::Remove } else { Verb::Expire };
            let tag = tag.map(Tag::from);
            let key = mark_key(&cache, tag.as_ref(), verb).expect("short");
            prop_assert_eq!(StateKey::read(&key), Some(StateKey::Mark(cache.clone(), tag, verb)));
            let key = cache_key(HIGHEST, &cache);
            prop_assert_eq!(StateKey::read(&key), Some(StateKey::Highest(cache.clone())));
            let key = cache_key(POSITION, &cache);
            prop_assert_eq!(StateKey::read(&key), Some(StateKey::Position(cache)));
        }

        #[test]
        fn any_key_is_read_or_refused(key in proptest::collection::vec(0..4_u8, 0..9)) {
            let _ = StateKey::read(&key);
            let _ = entry_hash(&key);
        }
    }
}
