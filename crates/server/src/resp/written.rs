//! Commands that write keys of a cache: to its origin, and committed there before
//! they are answered.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Action, Decimal, Error, ErrorKind, Expected, Key, Ttl, Value, Write, Written};
use serde_json::value::RawValue;

use super::Reply;
use super::cached::{self, TimeUnit, load_error, shown};
use super::routes::ServedCache;
use super::session::Session;
use super::table::Entry;
use crate::keyspace::parse_integer;

/// The commands that write keys of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CachedWrite {
    Set,
    SetIfNone,
    SetFor(TimeUnit),
    SetMany,
    Delete,
}

impl CachedWrite {
    /// What the command with this name does to a key of a cache, if it can do
    /// anything.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "set" => Self::Set,
            "setnx" => Self::SetIfNone,
            "setex" => Self::SetFor(TimeUnit::Seconds),
            "psetex" => Self::SetFor(TimeUnit::Millis),
            "mset" => Self::SetMany,
            "del" | "unlink" => Self::Delete,
            _ => return None,
        })
    }
}

/// Whether the origin of a cache takes writes.
pub(crate) fn takes_writes(cache: &ServedCache) -> bool {
    cache.write_abilities().batch_limit > 0
}

/// Why a command does not write a key of a cache.
pub(crate) fn refusal(command: &str, key: &[u8], cache: &ServedCache) -> String {
    if !takes_writes(cache) {
        return cached::refusal(key, cache.name());
    }
    format!(
        "ERR '{command}' cannot write '{}' of the cache '{}'; use SET, MSET, DEL, LARDER.PATCH or \
         LARDER.INCR, outside of MULTI",
        shown(key),
        cache.name()
    )
}

/// Answers a command of which at least one key belongs to a cache, and all that do to
/// caches that take writes.
pub(crate) async fn answer(
    session: &mut Session,
    entry: &Entry,
    write: CachedWrite,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    let done = match write {
        CachedWrite::Set => set(session, arguments, reply).await,
        CachedWrite::SetIfNone => set_if_none(session, arguments, reply).await,
        CachedWrite::SetFor(unit) => set_for(session, entry, unit, arguments, reply).await,
        CachedWrite::SetMany => set_many(session, entry, arguments, reply).await,
        CachedWrite::Delete => delete(session, arguments, reply).await,
    };
    if let Err(error) = done {
        reply.error(&error);
    }
}

async fn set(session: &Session, arguments: &[&[u8]], reply: &mut Reply) -> Result<(), String> {
    let (expected, ttl) = set_options(&arguments[3..])?;
    let written = put(session, arguments[1], arguments[2], expected, ttl).await?;
    if matches!(written, Written::Done { .. }) {
        reply.ok();
    } else {
        reply.null();
    }
    Ok(())
}

async fn set_if_none(
    session: &Session,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Result<(), String> {
    let written = put(session, arguments[1], arguments[2], Expected::Absent, None).await?;
    reply.integer(i64::from(matches!(written, Written::Done { .. })));
    Ok(())
}

async fn set_for(
    session: &Session,
    entry: &Entry,
    unit: TimeUnit,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Result<(), String> {
    let ttl = lifetime(entry.command.name, unit, arguments[2])?;
    put(session, arguments[1], arguments[3], Expected::Anything, Some(ttl)).await?;
    reply.ok();
    Ok(())
}

/// All of them in one transaction, so they have to be of one cache.
async fn set_many(
    session: &Session,
    entry: &Entry,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Result<(), String> {
    if arguments.len().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{}' command", entry.command.name));
    }
    let (pairs, _) = arguments[1..].as_chunks::<2>();
    let cache = cache_of(session, arguments[1])?;
    let other = pairs.iter().find(|[key, _]| {
        session.shared.routes.route(key).is_none_or(|other| other.name() != cache.name())
    });
    if let Some([key, _]) = other {
        return Err(format!(
            "ERR '{}' does not belong to the cache '{}': what is written at once is of one cache",
            shown(key),
            cache.name()
        ));
    }
    let write = |[key, value]: &[&[u8]; 2]| {
        Write::new(Key::new(key), Action::Put(Bytes::copy_from_slice(value)))
    };
    let writes = pairs.iter().map(write).collect();
    cache.write_all(writes).await.map_err(|failed| write_error(&failed.error))?;
    reply.ok();
    Ok(())
}

/// Those of one cache in as few transactions as its origin allows, plain keys last.
async fn delete(session: &Session, arguments: &[&[u8]], reply: &mut Reply) -> Result<(), String> {
    let mut by_cache: Vec<(&ServedCache, Vec<Key>)> = Vec::new();
    let mut plain = Vec::new();
    for &key in &arguments[1..] {
        let Some(cache) = session.shared.routes.route(key) else {
            plain.push(key);
            continue;
        };
        match by_cache.iter_mut().find(|(other, _)| other.name() == cache.name()) {
            Some((_, keys)) => keys.push(Key::new(key)),
            None => by_cache.push((cache, vec![Key::new(key)])),
        }
    }
    let mut count = 0;
    for (cache, keys) in by_cache {
        for keys in keys.chunks(cache.write_abilities().batch_limit.max(1)) {
            let writes = keys.iter().map(|key| Write::new(key.clone(), Action::Remove)).collect();
            let written = cache.write_all(writes).await;
            let written = written.map_err(|failed| write_error(&failed.error))?;
            let changed =
                |written: &&Written<_>| matches!(written, Written::Done { changed: true, .. });
            count += written.iter().filter(changed).count();
        }
    }
    let mut locked = session.shared.keyspace.lock(plain.iter().copied());
    count += plain.iter().filter(|key| locked.remove(key)).count();
    drop(locked);
    reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

/// `LARDER.PATCH`: 1 if the row is there.
pub(crate) async fn patch(
    session: &Session,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Result<(), String> {
    let (key, members) = (arguments[1], arguments[2]);
    let cache = cache_of(session, key)?;
    let action = Action::Patch(Bytes::copy_from_slice(members));
    let written = cache.write(&Key::new(key), action).await.map_err(|error| write_error(&error))?;
    reply.integer(i64::from(matches!(written, Written::Done { .. })));
    Ok(())
}

/// `LARDER.INCR`: what the member is now, or nothing where there is no such row.
pub(crate) async fn add(
    session: &Session,
    arguments: &[&[u8]],
    reply: &mut Reply,
) -> Result<(), String> {
    let text = |at: usize, what| {
        std::str::from_utf8(arguments[at]).map_err(|_| format!("ERR {what} is text in UTF-8"))
    };
    let (key, field) = (arguments[1], text(2, "the name of a member")?);
    let by = text(3, "a number")?.parse::<Decimal>().map_err(|error| load_error(&error))?;
    let cache = cache_of(session, key)?;
    let action = Action::Add { field: field.into(), by };
    let written = cache.write(&Key::new(key), action).await.map_err(|error| write_error(&error))?;
    match written {
        Written::Done { now: Some(Value::Present(row)), .. } => match member(&row, field) {
            Some(number) => reply.bulk(number.as_bytes()),
            None => reply.ok(),
        },
        Written::Done { .. } => reply.ok(),
        _ => reply.null(),
    }
    Ok(())
}

async fn put(
    session: &Session,
    key: &[u8],
    value: &[u8],
    expected: Expected,
    ttl: Option<Duration>,
) -> Result<Written<Bytes>, String> {
    let cache = cache_of(session, key)?;
    let action = Action::Put(Bytes::copy_from_slice(value));
    let mut write = cache.write(&Key::new(key), action).expecting(expected);
    if let Some(ttl) = ttl {
        write = write.ttl(Ttl::For(ttl));
    }
    write.await.map_err(|error| write_error(&error))
}

fn cache_of<'s>(session: &'s Session, key: &[u8]) -> Result<&'s ServedCache, String> {
    let cache = session.shared.routes.route(key);
    let cache = cache.ok_or_else(|| format!("ERR '{}' belongs to no cache", shown(key)))?;
    if takes_writes(cache) {
        return Ok(cache);
    }
    Err(cached::refusal(key, cache.name()))
}

/// What `SET` may say beside key and value. A lifetime is that of the cached copy.
fn set_options(options: &[&[u8]]) -> Result<(Expected, Option<Duration>), String> {
    let (mut expected, mut ttl) = (Expected::Anything, None);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let unit = match option.to_ascii_lowercase().as_slice() {
            b"nx" if expected == Expected::Anything => {
                expected = Expected::Absent;
                continue;
            }
            b"xx" if expected == Expected::Anything => {
                expected = Expected::Present;
                continue;
            }
            b"ex" if ttl.is_none() => TimeUnit::Seconds,
            b"px" if ttl.is_none() => TimeUnit::Millis,
            b"get" | b"keepttl" | b"exat" | b"pxat" => {
                return Err(format!(
                    "ERR SET of a key of a cache takes NX, XX, EX and PX, not {}",
                    shown(option).to_uppercase()
                ));
            }
            _ => return Err("ERR syntax error".to_owned()),
        };
        let time = options.next().ok_or_else(|| "ERR syntax error".to_owned())?;
        ttl = Some(lifetime("set", unit, time)?);
    }
    Ok((expected, ttl))
}

fn lifetime(command: &str, unit: TimeUnit, time: &[u8]) -> Result<Duration, String> {
    let number = parse_integer(time).ok_or("ERR value is not an integer or out of range")?;
    let number = u64::try_from(number).ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| format!("ERR invalid expire time in '{command}' command"))?;
    Ok(match unit {
        TimeUnit::Seconds => Duration::from_secs(number),
        TimeUnit::Millis => Duration::from_millis(number),
    })
}

/// A number of a row, as the database writes it.
fn member(row: &[u8], name: &str) -> Option<String> {
    let members: std::collections::HashMap<String, &RawValue> = serde_json::from_slice(row).ok()?;
    Some(members.get(name)?.get().trim_matches('"').to_owned())
}

/// What a client reads when a write fails: a code to branch on, then what failed and
/// what to do.
fn write_error(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutcomeUnknown => format!("UNKNOWN {error}"),
        ErrorKind::OriginFailed => format!("WRITEFAILED {error}"),
        ErrorKind::Conflict | ErrorKind::Unsupported => format!("ERR {error}"),
        _ => load_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_set_are_those_that_a_row_can_have() {
        let parse = |options: &[&str]| {
            set_options(&options.iter().map(|option| option.as_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]), Ok((Expected::Anything, None)));
        let minute = Some(Duration::from_secs(60));
        assert_eq!(parse(&["nx", "EX", "60"]), Ok((Expected::Absent, minute)));
        assert_eq!(parse(&["px", "60000", "XX"]), Ok((Expected::Present, minute)));
        let wrong: [&[&str]; 7] = [
            &["NX", "XX"],
            &["EX"],
            &["EX", "0"],
            &["EX", "-1"],
            &["GET"],
            &["EX", "1", "PX", "1"],
            &["what"],
        ];
        for options in wrong {
            assert!(parse(options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn a_member_is_as_the_database_writes_it() {
        let row = br#"{"id":1,"a \"b\"":2,"sum":"12.50","big":9007199254740993}"#;
        assert_eq!(member(row, "sum").as_deref(), Some("12.50"));
        assert_eq!(member(row, "big").as_deref(), Some("9007199254740993"));
        assert_eq!(member(row, "a \"b\"").as_deref(), Some("2"));
        assert_eq!(member(row, "none"), None);
    }
}
