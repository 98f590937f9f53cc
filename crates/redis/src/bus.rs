use std::fmt;
use std::sync::Arc;

use larder_core::{Announcement, Bus, BusPosition, Change, Error, ErrorKind, Key, Result, Version};
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

    async fn announce(&self, announcement: &Announcement, after: Version) -> Result<Version> {
        let body = encode(announcement)?;
        let names: Vec<Vec<u8>> = match &announcement.change {
            Change::Keys(keys) => self.entries(&announcement.cache, keys),
            _ => Vec::new(),
        };
        if !self.shared.links.has_slots() || names.is_empty() {
            return self.publish_step(announcement, body, &names, after, None).await;
        }
        let version = self.claim(after).await?;
        invalidate(&self.shared, &names, version, announcement.verb).await?;
        self.publish_step(announcement, body, &[], version, Some(version)).await
    }

    /// A version over every other, that nobody else gets.
    async fn claim(&self, after: Version) -> Result<Version> {
        let call = |epoch: String| {
            Call::new(&VERSION, vec![self.shared.names.clock()]).argument(epoch).number(after.get())
        };
        let answer = self.in_epoch(call).await?;
        number(&answer).map(Version::new).ok_or_else(nonsense)
    }

    async fn publish_step(
        &self,
        announcement: &Announcement,
        body: Vec<u8>,
        entries: &[Vec<u8>],
        after: Version,
        claimed: Option<Version>,
    ) -> Result<Version> {
        let (names, options) = (&self.shared.names, &self.shared.options);
        let cache = &announcement.cache;
        let members: Vec<Vec<u8>> = match &announcement.change {
            Change::Keys(_) => Vec::new(),
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
                .argument(claimed.map(|version| version.to_string()).unwrap_or_default())
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
        let answer = self.in_epoch(call).await?;
        let Value::Array(parts) = &answer else { return Err(nonsense()) };
        let version = parts.first().and_then(text).and_then(|text| text.parse().ok());
        version.map(Version::new).ok_or_else(nonsense)
    }

    /// Calls a script under the epoch known, and again if it is another one now:
    /// nothing has happened then.
    async fn in_epoch(&self, call: impl Fn(String) -> Call) -> Result<Value> {
        for _ in 0..EPOCH_TRIES {
            let epoch = self.shared.history().epoch;
            let known = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            match self.shared.links.call(&call(known)).await {
                Err(failure) if failure.is_other_epoch => self.shared.rejoin(epoch).await?,
                answer => return Ok(answer?),
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

    async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Version> {
        check_version(after)?;
        // Should the server have forgotten, it is told with the next epoch.
        self.shared.hear(after);
        let mut version = after;
        for part in parts(announcement) {
            version = self.announce(part.as_ref().unwrap_or(announcement), version).await?;
            self.shared.hear(version);
        }
        Ok(version)
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
    match &announcement.change {
        Change::Keys(keys) if keys.len() > ITEMS_MAX => {
            keys.chunks(ITEMS_MAX).map(|keys| part(Change::Keys(keys.to_vec()))).collect()
        }
        Change::Tags(tags) if tags.len() > ITEMS_MAX => {
            tags.chunks(ITEMS_MAX).map(|tags| part(Change::Tags(tags.to_vec()))).collect()
        }
        _ => vec![None],
    }
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis answered something that was not asked")
}
