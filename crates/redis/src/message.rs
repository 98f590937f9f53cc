//! An announcement as bytes, in the stream and pushed.
//!
//! | bytes | |
//! |---|---|
//! | 0 | the format: 1 |
//! | 1 | 0: expire, 1: remove |
//! | 2 | 0: keys, 1: tags, 2: everything, 3: keys about to be written, 4: keys written; 16 more: gradually |
//! | 3–6 | how long the cache's name is, big-endian, then the name |
//! | then | of a gradual one the milliseconds of its window, and those since 1970 at which it ends |
//! | then | of 3 and 4 the number of the write, and of 3 its milliseconds, in eight bytes each |
//! | then | how many keys or tags, and each with four bytes of length before it |

use std::time::Duration;

use bytes::{Buf, BufMut};
use larder_core::{Announcement, Change, Error, ErrorKind, Key, Result, Tag, Verb, Window};

const FORMAT: u8 = 1;

/// Added to what a change touches if it does so by and by.
const GRADUAL: u8 = 16;

/// The longest announcement in bytes.
pub(crate) const ANNOUNCEMENT_BYTES_MAX: usize = 1 << 20;

/// A message's name in the stream: its sequence number, and a time that tells
/// two messages of one number apart, which there are when a server lost the end
/// of its history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageId {
    pub(crate) sequence: u64,
    pub(crate) nonce: u64,
}

impl MessageId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sequence, nonce) = text.split_once('-')?;
        Some(Self { sequence: sequence.parse().ok()?, nonce: nonce.parse().ok()? })
    }
}

/// The bytes of an announcement.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if it is too long to be sent.
pub(crate) fn encode(announcement: &Announcement) -> Result<Vec<u8>> {
    let mut bytes = vec![FORMAT, u8::from(announcement.verb == Verb::Remove)];
    let items: Vec<&[u8]> = match announcement.change.touched() {
        change if change.keys().is_some() => {
            change.keys().into_iter().flatten().map(Key::as_bytes).collect()
        }
        Change::Tags(tags) => tags.iter().map(|tag| tag.as_str().as_bytes()).collect(),
        _ => Vec::new(),
    };
    let change = announcement.change.touched();
    let kind = match change {
        Change::Keys(_) => 0,
        Change::Tags(_) => 1,
        Change::Writing { .. } => 3,
        Change::Written { .. } => 4,
        // Whatever else there will be touches everything to who does not know it.
        _ => 2,
    };
    let window = match &announcement.change {
        Change::Gradual { window, .. } => Some(window),
        _ => None,
    };
    bytes.put_u8(if window.is_some() { GRADUAL + kind } else { kind });
    let length: usize = items.iter().map(|item| 4 + item.len()).sum();
    if length + announcement.cache.len() > ANNOUNCEMENT_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidInput, "the announcement is too long")
            .with("bytes", length)
            .with("bytes_max", ANNOUNCEMENT_BYTES_MAX)
            .remedy("announce fewer keys at once, or a tag"));
    }
    put_text(&mut bytes, announcement.cache.as_bytes());
    if let Some(window) = window {
        bytes.put_u64(u64::try_from(window.length.as_millis()).unwrap_or(u64::MAX));
        bytes.put_u64(window.ends_at_millis);
    }
    match change {
        Change::Writing { write, within, .. } => {
            bytes.put_u64(*write);
            bytes.put_u64(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        }
        Change::Written { write, .. } => bytes.put_u64(*write),
        _ => {}
    }
    // Lengths are below the limit, which fits four bytes.
    bytes.put_u32(items.len() as u32);
    for item in items {
        put_text(&mut bytes, item);
    }
    Ok(bytes)
}

/// What these bytes say; `None` if they are no announcement of this format.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Announcement> {
    let format = bytes.try_get_u8().ok()?;
    let verb = match bytes.try_get_u8().ok()? {
        0 => Verb::Expire,
        1 => Verb::Remove,
        _ => return None,
    };
    let change = bytes.try_get_u8().ok()?;
    if format != FORMAT {
        return None;
    }
    let cache = std::str::from_utf8(take_text(&mut bytes)?).ok()?.to_owned();
    let is_gradual = change & GRADUAL != 0;
    let change = change & !GRADUAL;
    let mut number = |is_there: bool| if is_there { bytes.try_get_u64().ok() } else { Some(0) };
    let length = Duration::from_millis(number(is_gradual)?);
    let window = Window { length, ends_at_millis: number(is_gradual)? };
    let write = number(matches!(change, 3 | 4))?;
    let within = Duration::from_millis(number(change == 3)?);
    let count = bytes.try_get_u32().ok()?;
    // Nothing is reserved by a count from outside: each item has to be there.
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(take_text(&mut bytes)?);
    }
    if !bytes.is_empty() {
        return None;
    }
    let change = match change {
        0 => Change::Keys(items.into_iter().map(Key::new).collect()),
        1 => Change::Tags(
            items
                .into_iter()
                .map(|item| std::str::from_utf8(item).ok().map(Tag::new))
                .collect::<Option<_>>()?,
        ),
        2 if items.is_empty() => Change::All,
        3 => Change::Writing { keys: items.into_iter().map(Key::new).collect(), write, within },
        4 => Change::Written { keys: items.into_iter().map(Key::new).collect(), write },
        _ => return None,
    };
    let change =
        if is_gradual { Change::Gradual { change: Box::new(change), window } } else { change };
    Some(Announcement { cache, change, verb })
}

/// A pushed message: epoch, name, version and announcement.
pub(crate) fn read_push(payload: &[u8]) -> Option<(u64, MessageId, u64, &[u8])> {
    let mut parts = payload.splitn(4, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let epoch = text()?.parse().ok()?;
    let id = MessageId::parse(text()?)?;
    let version = text()?.parse().ok()?;
    Some((epoch, id, version, parts.next()?))
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.put_u32(text.len() as u32);
    bytes.put_slice(text);
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn changes() -> impl Strategy<Value = Change> {
        prop_oneof![
            vec(vec(any::<u8>(), 0..20), 0..6)
                .prop_map(|keys| Change::Keys(keys.into_iter().map(Key::new).collect())),
            (vec(vec(any::<u8>(), 0..20), 0..4), any::<u64>(), any::<u32>()).prop_map(
                |(keys, write, millis)| Change::Writing {
                    keys: keys.into_iter().map(Key::new).collect(),
                    write,
                    within: Duration::from_millis(millis.into()),
                }
            ),
            (vec(vec(any::<u8>(), 0..20), 0..4), any::<u64>()).prop_map(|(keys, write)| {
                Change::Written { keys: keys.into_iter().map(Key::new).collect(), write }
            }),
            vec(".{0,9}", 0..6)
                .prop_map(|tags| Change::Tags(tags.iter().map(|tag| Tag::new(tag)).collect())),
            Just(Change::All),
        ]
    }

    fn gradual_changes() -> impl Strategy<Value = Change> {
        let change = |(change, millis, ends_at_millis): (Change, u32, u64)| Change::Gradual {
            change: Box::new(change),
            window: Window { length: Duration::from_millis(millis.into()), ends_at_millis },
        };
        (changes(), any::<u32>(), any::<u64>()).prop_map(change)
    }

    prop_compose! {
        fn announcements()(cache in ".{0,9}", change in prop_oneof![changes(), gradual_changes()], removes: bool) -> Announcement {
            let verb = if removes { Verb::Remove } else { Verb::Expire };
            Announcement { cache, change, verb }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(announcement in announcements()) {
            let bytes = encode(&announcement).expect("it is short");
            prop_assert_eq!(decode(&bytes), Some(announcement));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            announcement in announcements(),
            cut in 0..100_usize,
            change in proptest::option::of((0..60_usize, any::<u8>())),
        ) {
            let mut bytes = encode(&announcement).expect("it is short");
            if let Some((at, to)) = change && at < bytes.len() {
                bytes[at] = to;
            }
            bytes.truncate(cut);
            let _ = decode(&bytes);
            let _ = read_push(&bytes);
        }

        #[test]
        fn a_push_is_read(epoch: u64, sequence: u64, nonce: u64, version: u64, body: Vec<u8>) {
            let mut payload = format!("{epoch} {sequence}-{nonce} {version} ").into_bytes();
            payload.extend(&body);
            let id = MessageId { sequence, nonce };
            prop_assert_eq!(read_push(&payload), Some((epoch, id, version, body.as_slice())));
        }
    }

    #[test]
    fn another_format_is_not_understood() {
        let announcement =
            Announcement { cache: "a".to_owned(), change: Change::All, verb: Verb::Expire };
        let mut bytes = encode(&announcement).expect("it is short");
        bytes[0] = 2;
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn too_long_an_announcement_is_refused() {
        let change = Change::Keys(vec![Key::new(vec![0; ANNOUNCEMENT_BYTES_MAX])]);
        let announcement = Announcement { cache: "a".to_owned(), change, verb: Verb::Expire };
        let error = encode(&announcement).expect_err("it is too long");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
