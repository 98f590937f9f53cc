//! Commands on keys of a cache: what they mean there and how they are answered.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use larder::{Freshness, Hit, Inspection, Tier};
use larder_core::{Error, ErrorKind, Key, Result};

use super::Reply;
use super::command::OnCache;
use super::routes::ServedCache;
use super::session::Session;
use super::table::Entry;
use crate::keyspace::{Locked, parse_integer};

/// An answer of a cache.
pub(crate) type CachedHit = Hit<Key, Bytes>;

/// The commands that read keys of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CachedRead {
    Get,
    Mget,
    Strlen,
    Getrange,
    Exists,
    Touch,
    Type,
    Encoding,
    ReferenceCount,
    /// Something that caches do not keep for a key.
    Unrecorded,
    TimeLeft(TimeUnit),
    EndTime(TimeUnit),
    MemoryUsage,
}

/// In what a time is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeUnit {
    Seconds,
    Millis,
}

impl CachedRead {
    /// What the command with this name does on a key of a cache, if it can do
    /// anything.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "get" => Self::Get,
            "mget" => Self::Mget,
            "strlen" => Self::Strlen,
            "getrange" | "substr" => Self::Getrange,
            "exists" => Self::Exists,
            "touch" => Self::Touch,
            "type" => Self::Type,
            "object|encoding" => Self::Encoding,
            "object|refcount" => Self::ReferenceCount,
            "object|freq" | "object|idletime" => Self::Unrecorded,
            "ttl" => Self::TimeLeft(TimeUnit::Seconds),
            "pttl" => Self::TimeLeft(TimeUnit::Millis),
            "expiretime" => Self::EndTime(TimeUnit::Seconds),
            "pexpiretime" => Self::EndTime(TimeUnit::Millis),
            "memory|usage" => Self::MemoryUsage,
            _ => return None,
        })
    }
}

/// What was found out about one key of a command.
enum Looked<'a> {
    /// It belongs to no cache.
    Plain,
    /// Its cache answered, from memory or by a load.
    Hit(CachedHit),
    /// Its cache knows it; nothing was loaded.
    Known(Inspection, &'a ServedCache),
    /// Its cache does not know it, and was not to load it.
    Unknown,
    /// Its cache could not answer.
    Failed(Error),
}

/// Consecutive reads of one cache, of which at least one waits for a load: they
/// are loaded with one query and answered in order.
pub(crate) struct Gathered {
    cache: ServedCache,
    entry: &'static Entry,
    missing: Vec<Key>,
    slots: Vec<Slot>,
}

enum Slot {
    Hit(CachedHit),
    /// The place among the missing keys.
    Missing(usize),
}

/// How many reads are gathered at most, so that the first ones do not wait for
/// the last ones for ever.
const GATHERED_MAX: usize = 1024;

impl Gathered {
    pub(crate) fn new(cache: &ServedCache, key: &[u8], entry: &'static Entry) -> Self {
        Self {
            cache: cache.clone(),
            entry,
            missing: vec![Key::new(key)],
            slots: vec![Slot::Missing(0)],
        }
    }

    /// Adds a command if it is another GET on the same cache.
    pub(crate) fn add(&mut self, session: &Session, arguments: &[&[u8]]) -> bool {
        let [name, key] = *arguments else { return false };
        if !name.eq_ignore_ascii_case(b"get") || self.slots.len() >= GATHERED_MAX {
            return false;
        }
        match session.shared.routes.route(key) {
            Some(cache) if cache.name() == self.cache.name() => {}
            _ => return false,
        }
        self.slots.push(match self.cache.get_memory(key) {
            Some(hit) => {
                session.worker.counters.cache_hits.add(1);
                Slot::Hit(hit)
            }
            None => {
                session.worker.counters.cache_misses.add(1);
                self.missing.push(Key::new(key));
                Slot::Missing(self.missing.len() - 1)
            }
        });
        true
    }

    /// Loads what is missing and writes every answer.
    pub(crate) async fn answer(self, session: &mut Session, reply: &mut Reply) {
        let loaded = self.cache.get_or_load_many(&self.missing).await;
        for slot in &self.slots {
            let start = reply.as_bytes().len();
            match slot {
                Slot::Hit(hit) => write_value(session, hit, reply),
                Slot::Missing(place) => match loaded.get(*place) {
                    Some(Ok(hit)) => write_value(session, hit, reply),
                    Some(Err(error)) => reply.error(&load_error(error)),
                    None => reply.error("ERR the cache left a key unanswered"),
                },
            }
            session.count_call(self.entry, &reply.as_bytes()[start..]);
        }
    }
}

/// Writes the value of a hit, labelled if the client asked for that.
#[inline]
pub(crate) fn write_value(session: &Session, hit: &CachedHit, reply: &mut Reply) {
    if session.is_labelling {
        write_label(hit, reply);
    }
    match hit.value() {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
}

/// Answers a command of which at least one key belongs to a cache that has to
/// be asked or may have to load.
pub(crate) async fn answer(
    session: &mut Session,
    entry: &'static Entry,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    let shared = std::sync::Arc::clone(&session.shared);
    let keys = || entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
    let mut looked: Vec<Looked<'_>> = Vec::new();
    let mut missing: Vec<(&ServedCache, Vec<Key>, Vec<usize>)> = Vec::new();
    for (index, key) in keys().enumerate() {
        let Some(cache) = shared.routes.route(key) else {
            looked.push(Looked::Plain);
            continue;
        };
        looked.push(look_in_memory(cache, key, entry.command.on_cache));
        if entry.command.on_cache == OnCache::Read && matches!(looked[index], Looked::Unknown) {
            session.worker.counters.cache_misses.add(1);
            match missing.iter_mut().find(|(other, ..)| other.name() == cache.name()) {
                Some((_, keys, places)) => {
                    keys.push(Key::new(key));
                    places.push(index);
                }
                None => missing.push((cache, vec![Key::new(key)], vec![index])),
            }
        } else if entry.command.on_cache == OnCache::Read {
            session.worker.counters.cache_hits.add(1);
        }
    }
    for (cache, keys, places) in missing {
        let answers = cache.get_or_load_many(&keys).await;
        for (place, answer) in places.into_iter().zip(answers) {
            looked[place] = match answer {
                Ok(hit) => Looked::Hit(hit),
                Err(error) => Looked::Failed(error),
            };
        }
    }
    write_answer(session, entry, arguments, &looked, reply);
}

/// Takes the locks of the plain keys and answers.
fn write_answer(
    session: &Session,
    entry: &'static Entry,
    arguments: &[&[u8]],
    looked: &[Looked<'_>],
    reply: &mut Reply,
) {
    let keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
    let plain =
        keys.zip(looked).filter(|(_, looked)| matches!(looked, Looked::Plain)).map(|(key, _)| key);
    let mut locked = session.shared.keyspace.lock(plain);
    write(session, &mut locked, entry, arguments, looked, reply);
}

/// Answers a command inside a transaction, from what was loaded before it took
/// its locks.
pub(crate) fn answer_loaded(
    session: &Session,
    locked: &mut Locked<'_>,
    entry: &'static Entry,
    arguments: &[&[u8]],
    loaded: &HashMap<Key, Result<CachedHit>>,
    reply: &mut Reply,
) {
    let keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
    let looked: Vec<Looked<'_>> = keys
        .map(|key| match (session.shared.routes.route(key), loaded.get(key)) {
            (None, _) => Looked::Plain,
            (Some(_), Some(Ok(hit))) => Looked::Hit(hit.clone()),
            (Some(_), Some(Err(error))) => Looked::Failed(error.clone()),
            (Some(cache), None) => look_in_memory(cache, key, OnCache::Inspect),
        })
        .collect();
    write(session, locked, entry, arguments, &looked, reply);
}

/// What a cache has in memory, without waiting.
fn look_in_memory<'a>(cache: &'a ServedCache, key: &[u8], on_cache: OnCache) -> Looked<'a> {
    match on_cache {
        OnCache::Read => cache.get_memory(key).map_or(Looked::Unknown, Looked::Hit),
        _ => cache
            .inspect(key)
            .map_or(Looked::Unknown, |inspection| Looked::Known(inspection, cache)),
    }
}

fn write(
    session: &Session,
    locked: &mut Locked<'_>,
    entry: &Entry,
    arguments: &[&[u8]],
    looked: &[Looked<'_>],
    reply: &mut Reply,
) {
    let failed = looked.iter().find_map(|looked| match looked {
        Looked::Failed(error) => Some(error),
        _ => None,
    });
    if let Some(error) = failed {
        reply.error(&load_error(error));
        return;
    }
    let mut keys = entry.command.keys.positions(arguments.len()).map(|place| arguments[place]);
    match entry.cached {
        Some(CachedRead::Mget) => {
            reply.array(looked.len());
            for (key, looked) in keys.zip(looked) {
                write_element(session, locked, key, looked, reply);
            }
        }
        Some(CachedRead::Exists) => {
            let count = keys.zip(looked).filter(|(key, looked)| match looked {
                Looked::Plain => locked.contains(key),
                cached => cached.is_present(),
            });
            reply.integer(count.count() as i64);
        }
        Some(CachedRead::Touch) => {
            let count = keys.zip(looked).filter(|(key, looked)| match looked {
                Looked::Plain => locked.touch(key),
                cached => cached.is_present(),
            });
            reply.integer(count.count() as i64);
        }
        Some(read) => match keys.next().zip(looked.first()) {
            Some((key, looked)) => write_single(session, read, arguments, key, looked, reply),
            None => reply.error("ERR syntax error"),
        },
        None => reply.error(&format!(
            "ERR the command '{}' cannot read keys of a read-through cache",
            entry.command.name
        )),
    }
}

fn write_element(
    session: &Session,
    locked: &mut Locked<'_>,
    key: &[u8],
    looked: &Looked<'_>,
    reply: &mut Reply,
) {
    match looked {
        Looked::Plain => {
            if locked.read(key, |value| reply.bulk(value)).is_none() {
                reply.null();
            }
        }
        Looked::Hit(hit) => write_value(session, hit, reply),
        _ => reply.null(),
    }
}

/// Answers a command on a single key of a cache.
fn write_single(
    session: &Session,
    read: CachedRead,
    arguments: &[&[u8]],
    key: &[u8],
    looked: &Looked<'_>,
    reply: &mut Reply,
) {
    match read {
        CachedRead::Get => match looked {
            Looked::Hit(hit) => write_value(session, hit, reply),
            _ => reply.null(),
        },
        CachedRead::Strlen => {
            reply.integer(looked.value(key).map_or(0, |value| value.len() as i64));
        }
        CachedRead::Getrange => {
            let value = looked.value(key).unwrap_or_default();
            match (parse_integer(arguments[2]), parse_integer(arguments[3])) {
                (Some(start), Some(end)) => reply.bulk(part_of(&value, start, end)),
                _ => reply.error("ERR value is not an integer or out of range"),
            }
        }
        CachedRead::Type => reply.simple(if looked.is_present() { "string" } else { "none" }),
        CachedRead::TimeLeft(unit) => reply.integer(unit.time_left(looked)),
        CachedRead::EndTime(unit) => reply.integer(unit.end_time(looked)),
        CachedRead::Encoding => match looked.value(key) {
            Some(value) => reply.bulk(encoding(&value)),
            None => reply.null(),
        },
        CachedRead::ReferenceCount if looked.is_present() => reply.integer(1),
        CachedRead::Unrecorded if looked.is_present() => reply.error(
            "ERR a read-through cache keeps no such figure for a key; LARDER.EXPLAIN shows what \
             it knows",
        ),
        CachedRead::ReferenceCount | CachedRead::Unrecorded => reply.null(),
        CachedRead::MemoryUsage => write_memory_usage(key, looked.value(key), reply),
        CachedRead::Mget | CachedRead::Exists | CachedRead::Touch => {}
    }
}

fn write_memory_usage(key: &[u8], value: Option<Bytes>, reply: &mut Reply) {
    match value {
        Some(value) => {
            let bytes = ENTRY_OVERHEAD_BYTES
                + larder_core::allocation_size(key.len())
                + larder_core::allocation_size(value.len());
            reply.integer(bytes as i64);
        }
        None => reply.null(),
    }
}

/// What the cache keeps for an entry besides its key and value.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<larder_core::Entry<Bytes>>() + 64;

/// What Redis would call the encoding of such a string.
fn encoding(value: &[u8]) -> &'static [u8] {
    match value.len() {
        _ if parse_integer(value).is_some() => b"int",
        0..=44 => b"embstr",
        _ => b"raw",
    }
}

impl Looked<'_> {
    fn is_present(&self) -> bool {
        match self {
            Self::Hit(hit) => hit.value().is_some(),
            Self::Known(inspection, _) => inspection.present,
            Self::Plain | Self::Unknown | Self::Failed(_) => false,
        }
    }

    /// The value, of which nothing is copied.
    fn value(&self, key: &[u8]) -> Option<Bytes> {
        match self {
            Self::Hit(hit) => hit.value().cloned(),
            Self::Known(inspection, cache) if inspection.present => {
                cache.get_memory(key)?.into_value()
            }
            _ => None,
        }
    }

    /// For how much longer the key is fresh: `None` if it is not there,
    /// `Some(None)` if for ever.
    fn fresh_for(&self) -> Option<Option<Duration>> {
        match self {
            Self::Hit(hit) if hit.value().is_some() => Some(hit.fresh_for()),
            Self::Known(inspection, _) if inspection.present => Some(inspection.fresh_for),
            _ => None,
        }
    }
}

impl TimeUnit {
    fn time_left(self, looked: &Looked<'_>) -> i64 {
        match looked.fresh_for() {
            None => -2,
            Some(None) => -1,
            Some(Some(left)) => self.of_millis(millis(left)),
        }
    }

    fn end_time(self, looked: &Looked<'_>) -> i64 {
        match looked.fresh_for() {
            None => -2,
            Some(None) => -1,
            Some(Some(left)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.of_millis(millis(now).saturating_add(millis(left)))
            }
        }
    }

    /// Rounds as Redis does.
    fn of_millis(self, millis: i64) -> i64 {
        match self {
            Self::Seconds => millis.saturating_add(500) / 1000,
            Self::Millis => millis,
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The part of a value from `start` to `end`, both included; negative places
/// count from the end.
pub(crate) fn part_of(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    let place = |place: i64| if place < 0 { (length + place).max(0) } else { place };
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

/// Why a write to a key of a cache does not happen, and what to do instead.
pub(crate) fn refusal(key: &[u8], cache: &str) -> String {
    let key = shown(key);
    format!(
        "ERR '{key}' belongs to the read-through cache '{cache}', which takes no writes; write to \
         the database, then LARDER.REMOVE KEY {key}"
    )
}

/// Why a command over keys of a cache and of Redis is refused that cannot be done
/// in two.
pub(crate) fn mixed_refusal(key: &[u8], cache: &str) -> String {
    format!(
        "ERR '{}' belongs to the read-through cache '{cache}', other keys of this command to \
         Redis; ask for them separately",
        shown(key)
    )
}

/// Why a key of a cache is not watched.
pub(crate) fn watch_refusal(key: &[u8], cache: &str) -> String {
    format!(
        "ERR '{}' belongs to the read-through cache '{cache}', whose keys cannot be watched: the \
         database decides who writes first",
        shown(key)
    )
}

/// A key for people to read, cut to a length that fits a message.
pub(crate) fn shown(key: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    let cut = &key[..key.len().min(SHOWN_BYTES_MAX)];
    let dots = if cut.len() < key.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

/// What a client reads when a cache cannot answer: a code to branch on, then
/// what failed and what to do.
pub(crate) fn load_error(error: &Error) -> String {
    let code = match error.kind() {
        ErrorKind::Unavailable | ErrorKind::BreakerOpen | ErrorKind::ShuttingDown => "UNAVAILABLE",
        ErrorKind::Timeout => "TIMEOUT",
        ErrorKind::Overloaded => "OVERLOADED",
        ErrorKind::InvalidInput => "ERR",
        _ => "LOADFAILED",
    };
    format!("{code} {error}")
}

fn write_label(hit: &CachedHit, reply: &mut Reply) {
    reply.attribute(3);
    reply.bulk(b"freshness");
    reply.bulk(freshness_name(hit.freshness()).as_bytes());
    reply.bulk(b"tier");
    reply.bulk(tier_name(hit.tier()).as_bytes());
    reply.bulk(b"age-ms");
    reply.integer(millis(hit.age()));
}

fn freshness_name(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh => "fresh",
        Freshness::Stale { .. } => "stale",
        Freshness::Fallback => "fallback",
        _ => "unknown",
    }
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Memory => "memory",
        Tier::Origin => "origin",
        Tier::Fallback => "fallback",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_redis() {
        let check = |start, end, part: &[u8]| {
            assert_eq!(part_of(b"This is a string", start, end), part, "{start} {end}");
        };
        check(0, 3, b"This");
        check(-3, -1, b"ing");
        check(0, -1, b"This is a string");
        check(10, 100, b"string");
        check(-100, 3, b"This");
        check(5, 3, b"");
        check(-1, -5, b"");
        check(100, 200, b"");
        assert_eq!(part_of(b"", 0, -1), b"");
        assert_eq!(part_of(b"a", -5, -7), b"");
    }

    #[test]
    fn a_refusal_names_the_key_the_cache_and_the_way() {
        assert_eq!(
            refusal(b"product:42", "product"),
            "ERR 'product:42' belongs to the read-through cache 'product', which takes no writes; \
             write to the database, then LARDER.REMOVE KEY product:42"
        );
    }

    #[test]
    fn errors_start_with_a_code_to_branch_on() {
        let error = Error::new(ErrorKind::Timeout, "the load took too long").with("limit", "5s");
        assert_eq!(load_error(&error), "TIMEOUT the load took too long (limit: 5s)");
        let error = Error::new(ErrorKind::BreakerOpen, "the breaker is open");
        assert_eq!(load_error(&error), "UNAVAILABLE the breaker is open");
    }
}
