use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use larder_core::{
    Capabilities, Error, ErrorKind, Frame, Key, Mark, PutCondition, PutOutcome, Result, Store,
    StoredEntry, Tag, Ttl, Verb, Version,
};
use redis::Value;
use redis::cluster_routing::Slot;

use crate::keys;
use crate::script::{Call, INVALIDATE, MARK, PUT};
use crate::shared::{Shared, check_version};

/// How many keys one command has at most: a longer one would keep others waiting.
const KEYS_MAX: usize = 1000;

/// How many bytes of entries one command has, apart from its first.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// The entries of one cache in Redis.
///
/// In a cluster a primary that fails may take acknowledged invalidations with it
/// while the clock, on another server, goes on; the bus tells of it with
/// [`larder_core::BusEvent::Reconnected`]. On a shard that comes back empty in no
/// time, which nobody can tell, late puts find no floor.
///
/// Each batch costs one round trip: one command, or in a cluster one for each
/// slot, all sent at once. Versions are compared by a script where the entry
/// lies, so that of any writers the newest wins.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
    cache: String,
    entries: Vec<u8>,
}

impl RedisStore {
    pub(crate) fn new(shared: Arc<Shared>, cache: &str) -> Self {
        let entries = shared.names.entries(cache);
        Self { shared, cache: cache.to_owned(), entries }
    }

    /// What of the keys goes into one command: places in the list.
    fn batches(&self, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
        batches(self.shared.links.has_slots(), names)
    }

    fn names<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Vec<u8>> {
        keys.map(|key| keys::join(&self.entries, key)).collect()
    }

    /// What bytes from Redis say. What cannot be read, and what may not be served
    /// any more, is not there.
    fn read(&self, bytes: Vec<u8>) -> Option<StoredEntry> {
        let frame = Frame::decode(&Bytes::from(bytes)).ok()?;
        let frame = frame.unpacked(self.shared.options.value_bytes_max).ok()?;
        let Frame::Entry { entry, read_at_micros, .. } = frame else { return None };
        let age = self.shared.time.age(read_at_micros)?;
        (!is_over(&entry, age)).then_some(StoredEntry { age, ..entry })
    }

    /// The bytes of an entry, and for how many milliseconds Redis keeps them.
    fn frame(&self, key: &Key, entry: &StoredEntry) -> Result<(Vec<u8>, u128)> {
        let length = entry.value.as_option().map_or(0, Bytes::len);
        let limit = self.shared.options.value_bytes_max;
        if length > limit {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the value is too long for this store",
            )
            .with("cache", &self.cache)
            .with("key", key)
            .with("bytes", length)
            .with("value_bytes_max", limit)
            .remedy("raise value_bytes_max, or keep this value in memory only"));
        }
        check_version(entry.version)?;
        let read_at = self.shared.time.began_micros(entry.age);
        let above = self.shared.options.compress_above;
        let frame = Frame::encode_packed(entry, Version::ZERO, read_at, above)?;
        let retention = self.shared.options.mark_retention;
        let left = longest(entry).map_or(retention, |end| end.saturating_sub(entry.age));
        Ok((frame, left.min(retention).as_millis().max(1)))
    }

    async fn put_batch(
        &self,
        names: &[Vec<u8>],
        frames: &[(Vec<u8>, u128)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        let condition = match condition {
            PutCondition::NewerThanHeld => "newer",
            // A condition that is not known is taken for the strictest.
            _ => "vacant",
        };
        let checks_epoch = !self.shared.links.has_slots();
        let mut tries = 0;
        loop {
            let history = self.shared.history();
            let mut call = Call::new(&PUT, Vec::with_capacity(names.len() + 1));
            let epoch = history.epoch.filter(|_| checks_epoch);
            if epoch.is_some() {
                call.keys.push(self.shared.names.clock());
            }
            call.keys.extend_from_slice(names);
            call = call
                .argument(condition)
                .number(history.floor.get())
                .argument(epoch.map(|epoch| epoch.to_string()).unwrap_or_default())
                .number(self.shared.options.floor_window.as_millis());
            for (frame, lives) in frames {
                call = call.argument(frame.as_slice()).number(lives);
            }
            match self.shared.links.call(&call).await {
                Ok(answer) => return read_outcomes(&answer, names.len()),
                Err(failure) if failure.is_other_epoch && tries < 3 => {
                    tries += 1;
                    self.shared.rejoin(history.epoch).await?;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shared: true,
            durable: false,
            follows_bus: true,
            in_step: !self.shared.links.has_slots() && !self.shared.options.read_from_replicas,
            value_bytes_max: Some(self.shared.options.value_bytes_max),
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.shared.keep_time();
        let names = self.names(keys.iter());
        let batches = self.batches(&names);
        let reads = batches.iter().map(|places| {
            let mut command = redis::cmd("MGET");
            for place in places {
                command.arg(names[*place].as_slice());
            }
            let first = &names[places[0]];
            async move { self.shared.links.read(&command, first).await }
        });
        let mut entries = vec![None; keys.len()];
        for (answer, places) in try_join_all(reads).await?.into_iter().zip(&batches) {
            let Value::Array(values) = answer else { return Err(nonsense()) };
            for (value, place) in values.into_iter().zip(places) {
                if let Value::BulkString(bytes) = value {
                    entries[*place] = self.read(bytes);
                }
            }
        }
        Ok(entries)
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        if self.shared.history().epoch.is_none() {
            // Connected lazily: which history this is, and what time it is there, is
            // not known yet.
            self.shared.rejoin(None).await?;
        }
        self.shared.keep_time();
        let names = self.names(entries.iter().map(|(key, _)| key));
        let frames: Vec<(Vec<u8>, u128)> =
            entries.iter().map(|(key, entry)| self.frame(key, entry)).collect::<Result<_>>()?;
        let batches = by_size(self.batches(&names), &frames);
        let puts = batches.iter().map(|places| {
            let names: Vec<Vec<u8>> = places.iter().map(|place| names[*place].clone()).collect();
            let frames: Vec<_> = places.iter().map(|place| frames[*place].clone()).collect();
            async move { self.put_batch(&names, &frames, condition).await }
        });
        let mut outcomes = vec![PutOutcome::Stored; entries.len()];
        for (answers, places) in try_join_all(puts).await?.into_iter().zip(&batches) {
            for (answer, place) in answers.into_iter().zip(places) {
                outcomes[*place] = answer;
            }
        }
        Ok(outcomes)
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        invalidate(&self.shared, &self.names(keys.iter()), at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        let retention = self.shared.options.mark_retention.as_millis();
        for marks in marks.chunks(KEYS_MAX) {
            let names = &self.shared.names;
            let keys = vec![names.marks(&self.cache), names.mark_times(&self.cache)];
            let mut call = Call::new(&MARK, keys).number(retention);
            for mark in marks {
                check_version(mark.version)?;
                call =
                    call.number(mark.version.get()).argument(member(mark.tag.as_ref(), mark.verb));
            }
            self.shared.links.call(&call).await?;
        }
        Ok(())
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        let key = self.shared.names.marks(&self.cache);
        let mut command = redis::cmd("ZRANGE");
        command.arg(key.as_slice()).arg(0).arg(-1).arg("WITHSCORES");
        let Value::Array(members) = self.shared.links.ask(&command, &key).await? else {
            return Err(nonsense());
        };
        Ok(members.iter().filter_map(read_mark).collect())
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Invalidates entries by the names of their keys. One round trip.
pub(crate) async fn invalidate(
    shared: &Shared,
    names: &[Vec<u8>],
    at: Version,
    verb: Verb,
) -> Result<()> {
    check_version(at)?;
    let batches = batches(shared.links.has_slots(), names);
    let calls = batches.iter().map(|places| {
        let keys = places.iter().map(|place| names[*place].clone()).collect();
        let call = Call::new(&INVALIDATE, keys)
            .number(at.get())
            .argument(verb_name(verb))
            .number(shared.options.floor_window.as_millis());
        async move { shared.links.call(&call).await }
    });
    try_join_all(calls).await?;
    Ok(())
}

/// What scripts call a verb.
pub(crate) fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Expire => "expire",
        Verb::Remove => "remove",
    }
}

/// What a watermark is called among those of a cache.
pub(crate) fn member(tag: Option<&Tag>, verb: Verb) -> Vec<u8> {
    let verb = match verb {
        Verb::Expire => b'e',
        Verb::Remove => b'r',
    };
    match tag {
        Some(tag) => [&[verb, b't'], tag.as_str().as_bytes()].concat(),
        None => vec![verb, b'a'],
    }
}

fn read_mark(value: &Value) -> Option<Mark> {
    let Value::Array(pair) = value else { return None };
    let [Value::BulkString(member), Value::Double(version)] = pair.as_slice() else { return None };
    let (head, tag) = member.split_at_checked(2)?;
    let verb = match head[0] {
        b'e' => Verb::Expire,
        b'r' => Verb::Remove,
        _ => return None,
    };
    let tag = match head[1] {
        b't' => Some(Tag::new(std::str::from_utf8(tag).ok()?)),
        b'a' => None,
        _ => return None,
    };
    // Scores are versions that a script wrote: whole, and exact up to 2^53.
    Some(Mark { tag, verb, version: Version::new(*version as u64) })
}

fn read_outcomes(answer: &Value, count: usize) -> Result<Vec<PutOutcome>> {
    let Value::Array(answers) = answer else { return Err(nonsense()) };
    if answers.len() != count {
        return Err(nonsense());
    }
    let read = |answer: &Value| match answer {
        Value::Int(-1) => Ok(PutOutcome::Stored),
        Value::Int(version) => {
            let version = u64::try_from(*version).map_err(|_| nonsense())?;
            Ok(PutOutcome::Refused(Version::new(version)))
        }
        _ => Err(nonsense()),
    };
    answers.iter().map(read).collect()
}

/// How long after its load began it is of any use; `None`: always.
fn longest(entry: &StoredEntry) -> Option<Duration> {
    match (entry.fresh_for, entry.stale_for) {
        (Ttl::For(fresh), Ttl::For(stale)) => Some(fresh.max(stale)),
        _ => None,
    }
}

fn is_over(entry: &StoredEntry, age: Duration) -> bool {
    longest(entry).is_some_and(|end| age >= end)
}

/// Keys by command: one slot each where there are slots, and not too many.
pub(crate) fn batches(has_slots: bool, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
    if !has_slots {
        let places: Vec<usize> = (0..names.len()).collect();
        return places.chunks(KEYS_MAX).map(<[usize]>::to_vec).collect();
    }
    let mut slots: HashMap<Slot, Vec<usize>> = HashMap::new();
    for (place, name) in names.iter().enumerate() {
        slots.entry(Slot::for_key(name)).or_default().push(place);
    }
    slots.values().flat_map(|places| places.chunks(KEYS_MAX)).map(<[usize]>::to_vec).collect()
}

/// Splits batches that are too long in bytes.
fn by_size(batches: Vec<Vec<usize>>, frames: &[(Vec<u8>, u128)]) -> Vec<Vec<usize>> {
    let mut split: Vec<Vec<usize>> = Vec::with_capacity(batches.len());
    for batch in batches {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for place in batch {
            let length = frames[place].0.len();
            if !part.is_empty() && bytes + length > BATCH_BYTES_MAX {
                split.push(std::mem::take(&mut part));
                bytes = 0;
            }
            part.push(place);
            bytes += length;
        }
        split.push(part);
    }
    split
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis answered something that was not asked")
}
