//! Larder's own commands: what a cache knows, and how to make it forget.

use std::time::Duration;

use larder::{BreakerState, Inspection};
use larder_core::{BoxFuture, Key, Reach, Tag, Ttl};

use super::super::cached::{load_error, shown};
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::routes::ServedCache;
use super::super::session::Session;
use super::super::{Protocol, Reply, written};
use super::client::on_or_off;
use crate::keyspace::parse_integer;
use crate::registry::misses;
use crate::serve::journal::acknowledgement;

/// What all of these have in common. They are barred from transactions: what a
/// cache holds is not under the locks that make `EXEC` atomic.
const LARDER: Command = Command {
    name: "",
    arity: 2,
    syntax: "",
    summary: "",
    group: Group::Larder,
    since: "",
    complexity: "O(1)",
    flags: &["fast", "no_multi"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(explain),
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "larder.apply",
        arity: -1,
        syntax: "[milliseconds]",
        summary: "Gives the databases all that waits in the journal, and waits until they have it.",
        complexity: "O(N) where N is the number of writes that wait",
        flags: &["admin", "no_multi"],
        handler: Handler::Waiting(apply),
        ..LARDER
    },
    Command {
        name: "larder.clear",
        syntax: "cache",
        summary: "Removes every entry of a cache.",
        flags: &["admin", "no_multi"],
        handler: Handler::Waiting(clear),
        ..LARDER
    },
    Command {
        name: "larder.expire",
        arity: -3,
        syntax: "TAG tag [tag ...] | KEY key [key ...] | PREFIX prefix [prefix ...] | PATTERN glob [glob ...]",
        summary: "Marks cached entries as stale: they may be served while they are loaded anew.",
        complexity: "O(N) where N is the number of tags or keys",
        handler: Handler::Waiting(expire),
        ..LARDER
    },
    Command {
        name: "larder.explain",
        syntax: "key",
        summary: "Returns which cache a key belongs to, its policy, and what is cached.",
        flags: &["readonly", "fast", "no_multi"],
        handler: Handler::Session(explain),
        ..LARDER
    },
    Command {
        name: "larder.incr",
        arity: 4,
        syntax: "key field number",
        summary: "Adds to a numeric member of a row, in one step at the database.",
        flags: &["write", "no_multi"],
        handler: Handler::Waiting(incr),
        ..LARDER
    },
    Command {
        name: "larder.labels",
        syntax: "ON|OFF",
        summary: "Labels each answer of a cache with its freshness, tier and age (RESP3 only).",
        handler: Handler::Session(labels),
        ..LARDER
    },
    Command {
        name: "larder.patch",
        arity: 3,
        syntax: "key members",
        summary: "Replaces members of a row, given as a JSON object; the others stay.",
        flags: &["write", "no_multi"],
        handler: Handler::Waiting(patch),
        ..LARDER
    },
    Command {
        name: "larder.remove",
        arity: -3,
        syntax: "TAG tag [tag ...] | KEY key [key ...] | PREFIX prefix [prefix ...] | PATTERN glob [glob ...]",
        summary: "Removes cached entries: the next read loads them anew.",
        complexity: "O(N) where N is the number of tags or keys",
        handler: Handler::Waiting(remove),
        ..LARDER
    },
    Command {
        name: "larder.stats",
        arity: -1,
        syntax: "[cache]",
        summary: "Returns the statistics of one cache or of all.",
        complexity: "O(N) where N is the number of caches",
        flags: &["no_multi"],
        handler: Handler::Session(stats),
        ..LARDER
    },
];

/// How long `LARDER.APPLY` waits unless it says so.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);

fn apply<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let patience = match *arguments {
            [_] => Some(APPLY_PATIENCE),
            [_, number] => parse_integer(number)
                .and_then(|number| u64::try_from(number).ok())
                .map(Duration::from_millis),
            _ => None,
        };
        let Some(patience) = patience else {
            return reply.error("ERR syntax error, expected [milliseconds]");
        };
        let caches = session.shared.routes.caches();
        let Some(behind) = caches.into_iter().find_map(ServedCache::write_behind) else {
            return reply.error("ERR no cache writes behind: nothing waits");
        };
        match tokio::time::timeout(patience, behind.flush()).await {
            Ok(Ok(())) => reply.ok(),
            Ok(Err(error)) => reply.error(&load_error(&error)),
            Err(_) => reply.error("TIMEOUT not all is applied yet: it goes on"),
        }
    })
}

fn incr<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        if let Err(error) = written::add(session, arguments, reply).await {
            reply.error(&error);
        }
    })
}

fn patch<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        if let Err(error) = written::patch(session, arguments, reply).await {
            reply.error(&error);
        }
    })
}

/// What is done to tags and to keys.
#[derive(Clone, Copy)]
enum Verb {
    Expire,
    Remove,
}

fn expire<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(invalidate(session, arguments, reply, Verb::Expire))
}

fn remove<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(invalidate(session, arguments, reply, Verb::Remove))
}

async fn invalidate(session: &Session, arguments: &[&[u8]], reply: &mut Reply, verb: Verb) {
    let names = &arguments[2..];
    let count = match arguments[1].to_ascii_lowercase().as_slice() {
        b"tag" => invalidate_tags(session, names, verb).await,
        b"key" => invalidate_keys(session, names, verb).await,
        b"prefix" => invalidate_alike(session, names, Alike::Prefix, verb).await,
        b"pattern" => invalidate_alike(session, names, Alike::Pattern, verb).await,
        _ => Err("ERR syntax error, expected TAG, KEY, PREFIX or PATTERN".to_owned()),
    };
    match count {
        Ok(count) => reply.integer(count),
        Err(error) => reply.error(&error),
    }
}

/// Tags touch every cache. Returns how many these are.
async fn invalidate_tags(session: &Session, names: &[&[u8]], verb: Verb) -> Result<i64, String> {
    let tags = tags(names).ok_or_else(|| "ERR a tag is text in UTF-8".to_owned())?;
    let caches = session.shared.routes.caches();
    for cache in &caches {
        for tag in &tags {
            let done = match verb {
                Verb::Expire => cache.expire_tag(tag.clone()).await,
                Verb::Remove => cache.remove_tag(tag.clone()).await,
            };
            done.map_err(|error| load_error(&error))?;
        }
    }
    Ok(caches.len() as i64)
}

/// How keys are alike.
#[derive(Clone, Copy)]
enum Alike {
    Prefix,
    Pattern,
}

/// Prefixes and patterns touch the caches whose keys can be like that. Returns how many
/// these are.
async fn invalidate_alike(
    session: &Session,
    names: &[&[u8]],
    alike: Alike,
    verb: Verb,
) -> Result<i64, String> {
    let names: Vec<&str> = names
        .iter()
        .map(|name| std::str::from_utf8(name))
        .collect::<Result<_, _>>()
        .map_err(|_| "ERR keys of caches are text in UTF-8".to_owned())?;
    let mut count = 0;
    for cache in session.shared.routes.caches() {
        let mut is_touched = false;
        for name in &names {
            let cover = match (alike, verb) {
                (Alike::Prefix, Verb::Expire) => cache.expire_prefix(name).await,
                (Alike::Prefix, Verb::Remove) => cache.remove_prefix(name).await,
                (Alike::Pattern, Verb::Expire) => cache.expire_matching(name).await,
                (Alike::Pattern, Verb::Remove) => cache.remove_matching(name).await,
            };
            let cover = cover.map_err(|error| load_error(&error))?;
            is_touched |= cover.reach != Reach::Nothing;
        }
        count += i64::from(is_touched);
    }
    Ok(count)
}

/// Keys touch the cache they belong to. Returns how many of them were cached.
async fn invalidate_keys(session: &Session, names: &[&[u8]], verb: Verb) -> Result<i64, String> {
    let routes = &session.shared.routes;
    // All or nothing: a key without a cache is a mistake of the caller.
    if let Some(plain) = names.iter().find(|key| routes.route(key).is_none()) {
        return Err(format!("ERR '{}' belongs to no cache; use DEL for plain keys", shown(plain)));
    }
    let mut count = 0;
    for name in names {
        let Some(cache) = routes.route(name) else { continue };
        let key = Key::new(name);
        let was_cached = match verb {
            Verb::Expire => cache.expire(&key).await,
            Verb::Remove => cache.remove(&key).await,
        };
        count += i64::from(was_cached.map_err(|error| load_error(&error))?);
    }
    Ok(count)
}

fn tags(names: &[&[u8]]) -> Option<Vec<Tag>> {
    names.iter().map(|name| std::str::from_utf8(name).ok().map(Tag::new)).collect()
}

fn clear<'a>(
    session: &'a mut Session,
    arguments: &'a [&'a [u8]],
    reply: &'a mut Reply,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let Some(cache) = find(session, arguments[1]) else {
            return reply.error(&no_such_cache(session, arguments[1]));
        };
        match cache.clear().await {
            Ok(_) => reply.ok(),
            Err(error) => reply.error(&load_error(&error)),
        }
    })
}

fn labels(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match on_or_off(arguments[1]) {
        Some(true) if reply.protocol() == Protocol::Resp2 => {
            reply.error("ERR labels need RESP3; say HELLO 3 first");
        }
        Some(is_on) => {
            session.is_labelling = is_on;
            reply.ok();
        }
        None => reply.error("ERR syntax error"),
    }
}

fn find<'a>(session: &'a Session, name: &[u8]) -> Option<&'a ServedCache> {
    session.shared.routes.caches().into_iter().find(|cache| cache.name().as_bytes() == name)
}

fn no_such_cache(session: &Session, name: &[u8]) -> String {
    let caches = session.shared.routes.caches();
    let names: Vec<&str> = caches.iter().map(|cache| cache.name()).collect();
    let known = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
    format!("ERR there is no cache '{}'; caches: {known}", shown(name))
}

/// A value in a reply of names and values.
enum Field {
    Text(String),
    Number(i64),
    Nothing,
}

impl Field {
    fn number(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn millis(duration: Duration) -> Self {
        Self::Number(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    fn optional_millis(duration: Option<Duration>) -> Self {
        duration.map_or(Self::Nothing, Self::millis)
    }

    fn flag(is_set: bool) -> Self {
        Self::Text(if is_set { "yes" } else { "no" }.to_owned())
    }

    fn write(&self, reply: &mut Reply) {
        match self {
            Self::Text(text) => reply.bulk(text.as_bytes()),
            Self::Number(number) => reply.integer(*number),
            Self::Nothing => reply.null(),
        }
    }
}

fn write_fields(fields: &[(&str, Field)], reply: &mut Reply) {
    reply.map(fields.len());
    for (name, field) in fields {
        reply.bulk(name.as_bytes());
        field.write(reply);
    }
}

fn explain(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let key = arguments[1];
    let mut fields = vec![("key", Field::Text(shown(key)))];
    match session.shared.routes.route(key) {
        None => explain_plain(session, key, &mut fields),
        Some(cache) => explain_cached(cache, key, &mut fields),
    }
    write_fields(&fields, reply);
}

fn explain_plain(session: &Session, key: &[u8], fields: &mut Vec<(&'static str, Field)>) {
    if let Some(front) = &session.shared.front {
        let known = front.look(key);
        fields.push(("cache", Field::Nothing));
        fields.push(("kind", Field::Text("key of Redis".to_owned())));
        fields.push(("redis", Field::Text(front.label().to_owned())));
        fields.push(("memory-holds", Field::flag(front.holds())));
        fields.push(("in-memory", Field::flag(known.is_some())));
        if let Some(length) = known {
            fields.push(("present", Field::flag(length.is_some())));
            fields.push(("bytes", Field::number(length.unwrap_or(0) as u64)));
        }
        return;
    }
    let keyspace = &session.shared.keyspace;
    let mut locked = keyspace.lock([key]);
    let details = locked.inspect(key);
    let now = keyspace.now();
    fields.push(("cache", Field::Nothing));
    fields.push(("kind", Field::Text("plain key".to_owned())));
    fields.push(("present", Field::flag(details.is_some())));
    if let Some(details) = details {
        let left = details.expiry.map(|at| {
            let millis = at.unix_millis().saturating_sub(now.unix_millis());
            Duration::from_millis(u64::try_from(millis).unwrap_or(0))
        });
        fields.push(("expires-in-ms", Field::optional_millis(left)));
        fields.push(("bytes", Field::number(details.bytes as u64)));
    }
}

fn explain_cached(cache: &ServedCache, key: &[u8], fields: &mut Vec<(&'static str, Field)>) {
    let policy = cache.policy();
    let ttl = match policy.get_ttl() {
        Ttl::For(duration) => Field::millis(duration),
        Ttl::Forever => Field::Nothing,
    };
    fields.push(("cache", Field::Text(cache.name().to_owned())));
    fields.push(("kind", Field::Text("read-through cache".to_owned())));
    fields.push(("origin", Field::Text(cache.origin_guard().name().to_owned())));
    fields.push(("breaker", Field::Text(breaker_name(cache).to_owned())));
    fields.push(("ttl-ms", ttl));
    fields.push(("stale-window-ms", Field::millis(policy.stale_window())));
    fields.push(("hard-timeout-ms", Field::millis(policy.get_hard_timeout())));
    fields.push(("acknowledged", acknowledged(cache)));
    if let Some(behind) = cache.write_behind() {
        let pending = behind.pending(cache.name(), &Key::new(key));
        fields.push(("waits-for-origin", Field::flag(pending.is_some())));
    }
    let inspection = cache.inspect(key);
    fields.push(("cached", Field::flag(inspection.is_some())));
    if let Some(inspection) = inspection {
        explain_entry(&inspection, fields);
    }
}

/// When a write of the cache is acknowledged; nothing if it takes none.
fn acknowledged(cache: &ServedCache) -> Field {
    match cache.write_behind() {
        Some(behind) => Field::Text(acknowledgement(behind.profile().survives).to_owned()),
        None if written::takes_writes(cache) => Field::Text("committed".to_owned()),
        None => Field::Nothing,
    }
}

fn explain_entry(inspection: &Inspection, fields: &mut Vec<(&'static str, Field)>) {
    let state = if inspection.fresh { "fresh" } else { "stale" };
    let tags: Vec<&str> = inspection.tags.iter().map(Tag::as_str).collect();
    fields.push(("present", Field::flag(inspection.present)));
    fields.push(("freshness", Field::Text(state.to_owned())));
    fields.push(("age-ms", Field::millis(inspection.age)));
    fields.push(("fresh-for-ms", Field::optional_millis(inspection.fresh_for)));
    fields.push(("servable-for-ms", Field::optional_millis(inspection.stale_for)));
    fields.push(("version", Field::number(inspection.version.get())));
    fields.push(("load-cost-ms", Field::millis(inspection.load_cost)));
    fields.push(("class", Field::Text(inspection.class.to_string())));
    fields.push(("tags", Field::Text(tags.join(" "))));
    fields.push(("loading", Field::flag(inspection.loading)));
}

fn stats(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match *arguments {
        [_] => {
            let caches = session.shared.routes.caches();
            reply.map(caches.len());
            for cache in caches {
                reply.bulk(cache.name().as_bytes());
                write_statistics(cache, reply);
            }
        }
        [_, name] => match find(session, name) {
            Some(cache) => write_statistics(cache, reply),
            None => reply.error(&no_such_cache(session, name)),
        },
        _ => reply.error("ERR wrong number of arguments for 'larder.stats' command"),
    }
}

fn write_statistics(cache: &ServedCache, reply: &mut Reply) {
    let statistics = cache.statistics();
    let ratio = statistics.hit_ratio();
    let mut fields: Vec<(&str, Field)> = [
        ("requests", statistics.requests()),
        ("hits", statistics.hits),
        ("stale", statistics.stale()),
        ("stale-revalidating", statistics.stale_revalidating),
        ("stale-origin-failed", statistics.stale_origin_failed),
        ("stale-soft-timeout", statistics.stale_soft_timeout),
        ("stale-slow-load", statistics.stale_slow_load),
        ("stale-suspect", statistics.stale_suspect),
        ("stale-derived", statistics.stale_derived),
        ("misses", misses(&statistics)),
        ("store-answers", statistics.store_answers),
        ("load-answers", statistics.load_answers),
        ("joined-answers", statistics.joined_answers),
        ("fallbacks", statistics.fallbacks),
        ("failures", statistics.failures),
        ("unanswered", statistics.misses),
        ("loads", statistics.loads),
        ("loads-in-flight", statistics.loads_in_flight),
        ("load-failures", statistics.load_failures),
        ("load-timeouts", statistics.load_timeouts),
        ("load-panics", statistics.load_panics),
        ("loads-refused-by-breaker", statistics.loads_refused_by_breaker),
        ("refreshes", statistics.refreshes),
        ("fills-fenced", statistics.fills_fenced),
        ("expired-keys", statistics.expired_keys),
        ("removed-keys", statistics.removed_keys),
        ("expired-tags", statistics.expired_tags),
        ("removed-tags", statistics.removed_tags),
        ("clears", statistics.clears),
        ("entries", statistics.memory.entries),
        ("bytes", statistics.memory.bytes),
    ]
    .into_iter()
    .map(|(name, number)| (name, Field::number(number)))
    .collect();
    fields.push(("hit-ratio", ratio.map_or(Field::Nothing, |it| Field::Text(format!("{it:.4}")))));
    fields.push(("origin", Field::Text(cache.origin_guard().name().to_owned())));
    fields.push(("breaker", Field::Text(breaker_name(cache).to_owned())));
    write_fields(&fields, reply);
}

/// Whether the origin of a cache is asked at present.
pub(super) fn breaker_name(cache: &ServedCache) -> &'static str {
    name_of(cache.origin_health())
}

/// What a state of a breaker is called.
pub(super) fn name_of(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    }
}
