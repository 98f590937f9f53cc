use std::fmt;
use std::sync::Arc;

use larder_core::{
    Announcement, Bus, BusPosition, Change, Error, ErrorKind, Key, Published, Result, Version,
};
use redis::Value;

use crate::connector::text;
use crate::keys;
use crate::message::encode;
use crate::script::{Call, PUBLISH, VERSION};
use crate::shared::{Shared, check_version};
use crate::state::number;
use crate::store::{invalidate, member, verb_name};
use crate::subscription::RedisSubscription;

/// How many keys or tags one message has at most. More go in several.
const ITEMS_MAX: usize = 1000;

/// How many bytes of them, apart from the first.
const PART_BYTES_MAX: usize = 256 << 10;

/// How often a changed epoch is followed before it is an error.
const EPOCH_TRIES: usize = 4;

/// How nodes tell one another what changed, over a stream in Redis.
///
/// Announcing is one script: version, invalidation of the entries, watermarks and
/// message are one step, and one round trip. In a cluster, where entries lie on
/// other servers than the stream, it is three steps, one after the other: the
/// version, the entries, the message; what was announced has happened everywhere
/// when the call returns, and when it fails a part of it may have.
#[derive(Clone)]
pub struct RedisBus {
    shared: Arc<Shared>,
}

impl RedisBus {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn announce(&self, announcement: &Announcement, after: Version) -> Result<Published> {
        let body = encode(announcement)?;
        let keys = announcement.change.keys().unwrap_or_default();
        let names = self.entries(&announcement.cache, keys);
        if !self.shared.links.has_slots() || names.is_empty() {
            return self.publish_step(announcement, body, &names, after).await;
        }
        let version = self.claim(after).await?;
        invalidate(&self.shared, &names, version, announcement.verb).await?;
        // Others may have announced meanwhile: the message has a version of its own,
        // so that versions rise along the stream.
        self.publish_step(announcement, body, &[], version).await
    }

    /// A version over every other, that nobody else gets.
    async fn claim(&self, after: Version) -> Result<Version> {
        let call = |epoch: String| {
            Call::new(&VERSION, vec![self.shared.names.clock()]).argument(epoch).number(after.get())
        };
        let (_, answer) = self.in_epoch(call).await?;
        number(&answer).map(Version::new).ok_or_else(nonsense)
    }

    async fn publish_step(
        &self,
        announcement: &Announcement,
        body: Vec<u8>,
        entries: &[Vec<u8>],
        after: Version,
    ) -> Result<Published> {
        let (names, options) = (&self.shared.names, &self.shared.options);
        let cache = &announcement.cache;
        let members: Vec<Vec<u8>> = match announcement.change.touched() {
            change if change.keys().is_some() => Vec::new(),
            Change::Tags(tags) => {
                tags.iter().map(|tag| member(Some(tag), announcement.verb)).collect()
            }
            _ => vec![member(None, announcement.verb)],
        };
        let call = |epoch: String| {
            let mut keys =
                vec![names.clock(), names.stream(), names.marks(cache), names.mark_times(cache)];
            keys.extend_from_slice(entries);
            let mut call = Call::new(&PUBLISH, keys)
                .argument(epoch)
                .number(after.get())
                .argument(verb_name(announcement.verb))
                .argument(body.as_slice())
                .number(options.stream_length_max)
                .argument(names.channel())
                .argument(publish_command(&self.shared))
                .number(options.floor_window.as_millis())
                .number(options.mark_retention.as_millis());
            for member in &members {
                call = call.argument(member.as_slice());
            }
            call
        };
        let (epoch, answer) = self.in_epoch(call).await?;
        let Value::Array(parts) = &answer else { return Err(nonsense()) };
        let [version, sequence] = &parts[..] else { return Err(nonsense()) };
        let (version, sequence) = text(version).zip(text(sequence)).ok_or_else(nonsense)?;
        let version = version.parse().map(Version::new).map_err(|_| nonsense())?;
        let sequence = sequence.parse().map_err(|_| nonsense())?;
        Ok(Published { version, position: BusPosition { epoch, sequence } })
    }

    /// Calls a script under the epoch known, and again if it is another one now:
    /// nothing has happened then. Returns the epoch with the answer.
    async fn in_epoch(&self, call: impl Fn(String) -> Call) -> Result<(u64, Value)> {
        for _ in 0..EPOCH_TRIES {
            let epoch = self.shared.history().epoch;
            let known = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            match self.shared.links.call(&call(known)).await {
                Err(failure) if failure.is_other_epoch => self.shared.rejoin(epoch).await?,
                answer => return Ok((epoch.unwrap_or_default(), answer?)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the history in Redis is replaced again and again")
            .remedy("look for who empties it, or for keys evicted under memory pressure"))
    }

    fn entries(&self, cache: &str, keys: &[Key]) -> Vec<Vec<u8>> {
        let start = self.shared.names.entries(cache);
        keys.iter().map(|key| keys::join(&start, key)).collect()
    }
}

impl Bus for RedisBus {
    type Subscription = RedisSubscription;

    async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Published> {
        check_version(after)?;
        // Should the server have forgotten, it is told with the next epoch.
        self.shared.hear(after);
        let (mut version, mut published) = (after, None);
        for part in parts(announcement) {
            let part = self.announce(part.as_ref().unwrap_or(announcement), version).await?;
            version = part.version;
            self.shared.hear(version);
            published = Some(part);
        }
        published.ok_or_else(nonsense)
    }

    async fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> Result<RedisSubscription> {
        check_version(known)?;
        self.shared.hear(known);
        RedisSubscription::open(Arc::clone(&self.shared), after).await
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus").field("prefix", &self.shared.options.prefix).finish()
    }
}

/// How a message is pushed: in a cluster to the subscribers of the control slot
/// only.
pub(crate) fn publish_command(shared: &Shared) -> &'static str {
    if shared.links.has_slots() { "SPUBLISH" } else { "PUBLISH" }
}

/// An announcement in parts that are not too long; `None` for the whole.
fn parts(announcement: &Announcement) -> Vec<Option<Announcement>> {
    let part = |change| {
        Some(Announcement { cache: announcement.cache.clone(), change, verb: announcement.verb })
    };
    let change = &announcement.change;
    if let Some(keys) = change.keys() {
        let ends = ends(keys.iter().map(|key| key.as_bytes().len()));
        if ends.len() > 1 {
            return slices(keys, &ends).map(|keys| part(change.about(keys.to_vec()))).collect();
        }
    }
    if let Change::Tags(tags) = change.touched() {
        let ends = ends(tags.iter().map(|tag| tag.as_str().len()));
        if ends.len() > 1 {
            let slices = slices(tags, &ends);
            return slices.map(|tags| part(change.touching(Change::Tags(tags.to_vec())))).collect();
        }
    }
    vec![None]
}

/// Where parts of items with these lengths end.
fn ends(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut count, mut bytes, mut end) = (0, 0, 0);
    for length in lengths {
        if count == ITEMS_MAX || (count > 0 && bytes + length > PART_BYTES_MAX) {
            ends.push(end);
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += length;
        end += 1;
    }
    ends.push(end);
    ends
}

fn slices<'a, T>(items: &'a [T], ends: &'a [usize]) -> impl Iterator<Item = &'a [T]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| &items[start..*end])
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis answered something that was not asked")
}

#[cfg(test)]
mod tests {
    use larder_core::Verb;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_short_and_make_up_the_whole(
            lengths in proptest::collection::vec(0..150_000_usize, 0..12),
            small in 0..2500_usize,
        ) {
            let long = lengths.into_iter().map(|length| Key::new(vec![b'k'; length]));
            let keys: Vec<Key> = long.chain((0..small).map(|n| Key::new(n.to_string()))).collect();
            let whole = Announcement {
                cache: "album".to_owned(),
                change: Change::Keys(keys.clone()),
                verb: Verb::Remove,
            };
            let mut heard = Vec::new();
            for part in parts(&whole) {
                let Change::Keys(part) = part.unwrap_or_else(|| whole.clone()).change else {
                    unreachable!("keys stay keys")
                };
                prop_assert!(part.len() <= ITEMS_MAX);
                let bytes: usize = part.iter().map(|key| key.as_bytes().len()).sum();
                prop_assert!(part.len() == 1 || bytes <= PART_BYTES_MAX);
                heard.extend(part);
            }
            prop_assert_eq!(heard, keys);
        }
    }
}
