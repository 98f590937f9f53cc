//! The pages about caches and their keys.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use larder::{Latency, RemovalCause, Statistics, StoreStatistics};
use larder_core::{Key, KeyPattern};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Failure;
use super::extract::{Path, Query};
use super::health::breaker_name;
use crate::config::Settings;
use crate::explanation::{Subject, policy};
use crate::registry::{Served, misses};
use crate::serve::Server;

type Answer = Result<Json<Value>, Failure>;

/// Every cache, the tables that have none, and how the configuration stands.
pub(super) async fn list(State(server): State<Arc<Server>>) -> Json<Value> {
    let settings = server.settings.load_full();
    let caches: Vec<_> =
        server.registry.served().iter().map(|served| describe(served, &settings)).collect();
    let skipped: Vec<_> = server
        .skipped
        .iter()
        .map(|it| {
            json!({ "origin": it.origin, "table": it.table, "reason": it.reason, "remedy": it.remedy })
        })
        .collect();
    Json(json!({
        "caches": caches,
        "skipped_tables": skipped,
        "configuration": {
            "file": settings.path.as_ref().map(|path| path.display().to_string()),
            "reloads": server.reloads.succeeded(),
            "reload_failures": server.reloads.failed(),
            "last_error": server.reloads.last_error(),
        },
    }))
}

/// One cache.
pub(super) async fn show(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer {
    let settings = server.settings.load_full();
    Ok(Json(describe(named(&server, &name)?, &settings)))
}

/// Empties one cache.
pub(super) async fn clear(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer {
    let cleared = named(&server, &name)?.cache.clear().await;
    cleared.map_err(|error| Failure::internal(&error))?;
    Ok(Json(json!({ "cleared": name })))
}

/// What a request for a key may ask besides.
#[derive(Deserialize)]
pub(super) struct KeyQuery {
    #[serde(default)]
    value: bool,
}

/// One key of a cache: what memory knows about it.
pub(super) async fn show_key(
    State(server): State<Arc<Server>>,
    Path((name, key)): Path<(String, String)>,
    Query(query): Query<KeyQuery>,
) -> Answer {
    let served = of_key(&server, &name, &key)?;
    let mut entry = entry(served, &key).ok_or_else(|| not_cached(&key))?;
    if query.value {
        entry["value"] = value(served, &key).unwrap_or_default();
    }
    Ok(Json(entry))
}

/// Removes one key.
pub(super) async fn remove_key(
    State(server): State<Arc<Server>>,
    Path((name, key)): Path<(String, String)>,
) -> Answer {
    let removed = of_key(&server, &name, &key)?.cache.remove(&Key::new(&key)).await;
    let was_cached = removed.map_err(|error| Failure::internal(&error))?;
    Ok(Json(json!({ "key": key, "removed": was_cached })))
}

/// Makes one key stale.
pub(super) async fn expire_key(
    State(server): State<Arc<Server>>,
    Path((name, key)): Path<(String, String)>,
) -> Answer {
    let expired = of_key(&server, &name, &key)?.cache.expire(&Key::new(&key)).await;
    let was_cached = expired.map_err(|error| Failure::internal(&error))?;
    Ok(Json(json!({ "key": key, "expired": was_cached })))
}

/// What memory knows about a key; `None` if it does not have it. The look is no
/// read: it counts for nothing and refreshes nothing.
pub(super) fn entry(served: &Served, key: &str) -> Option<Value> {
    let inspection = served.cache.inspect(key.as_bytes())?;
    let bytes = served.cache.peek_value(key.as_bytes(), |value| value.map_or(0, Bytes::len));
    let tags: Vec<_> = inspection.tags.iter().map(|tag| tag.as_str().to_owned()).collect();
    Some(json!({
        "state": if inspection.fresh { "fresh" } else { "stale" },
        "present": inspection.present,
        "age_seconds": seconds(inspection.age),
        "fresh_for_seconds": inspection.fresh_for.map(seconds),
        "servable_for_seconds": inspection.stale_for.map(seconds),
        "version": inspection.version.get(),
        "value_bytes": bytes,
        "load_seconds": seconds(inspection.load_cost),
        "loading": inspection.loading,
        "class": inspection.class.name(),
        "tags": tags,
    }))
}

fn named<'s>(server: &'s Server, name: &str) -> Result<&'s Served, Failure> {
    server.registry.named(name).ok_or_else(|| {
        Failure::not_found(format!("there is no cache `{name}`; GET /caches lists them"))
    })
}

/// The cache, if the key is one of its keys.
fn of_key<'s>(server: &'s Server, name: &str, key: &str) -> Result<&'s Served, Failure> {
    let served = named(server, name)?;
    if server.registry.find(key.as_bytes()).is_some_and(|owner| owner.name() == name) {
        return Ok(served);
    }
    let pattern: &KeyPattern = &served.pattern;
    Err(Failure::not_found(format!(
        "`{key}` is no key of the cache `{name}`, whose keys are {pattern}"
    )))
}

fn not_cached(key: &str) -> Failure {
    Failure::not_found(format!("`{key}` is not cached: the next read loads it"))
}

/// The value as JSON: null where the origin has no such key.
fn value(served: &Served, key: &str) -> Option<Value> {
    served.cache.peek_value(key.as_bytes(), |value| match value {
        None => Value::Null,
        Some(bytes) => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
    })
}

fn describe(served: &Served, settings: &Settings) -> Value {
    let subject = Subject::served(served, settings);
    let policy: Map<_, _> = policy(settings, subject.config_name)
        .into_iter()
        .map(|it| {
            let value = json!({ "value": it.setting.value, "because": it.because });
            (it.setting.option.to_owned(), value)
        })
        .collect();
    json!({
        "name": served.name(),
        "pattern": served.pattern.as_str(),
        "source": subject.source,
        "origin": served.origin,
        "breaker": breaker_name(served.cache.origin_health()),
        "declared_at": subject.config_name.and_then(|name| settings.place(&["caches", name])),
        "tags": served.tags,
        "policy": policy,
        "statistics": statistics(&served.cache.statistics(), served.memory_bytes),
        "stores": served.cache.stores().iter().map(store).collect::<Vec<_>>(),
    })
}

fn statistics(statistics: &Statistics, memory_bytes: usize) -> Value {
    let left: Map<_, _> = RemovalCause::ALL
        .iter()
        .map(|cause| (cause.name().to_owned(), statistics.memory.removals.of(*cause).into()))
        .collect();
    json!({
        "requests": statistics.requests(),
        "hits": statistics.hits,
        "stale": statistics.stale(),
        "misses": misses(statistics),
        "hit_ratio": statistics.hit_ratio(),
        "loads": statistics.loads,
        "store_answers": statistics.store_answers,
        "load_answers": statistics.load_answers,
        "joined_answers": statistics.joined_answers,
        "load_failures": statistics.load_failures + statistics.load_timeouts + statistics.load_panics,
        "loads_refused_by_breaker": statistics.loads_refused_by_breaker,
        "loads_in_flight": statistics.loads_in_flight,
        "fallbacks": statistics.fallbacks,
        "failures": statistics.failures,
        "unanswered": statistics.misses,
        "refreshes": statistics.refreshes,
        "fills_fenced": statistics.fills_fenced,
        "hit_latency": latency(&statistics.hit_latency),
        "load_latency": latency(&statistics.load_latency),
        "memory": {
            "entries": statistics.memory.entries,
            "bytes": statistics.memory.bytes,
            "budget_bytes": memory_bytes,
            "left": left,
        },
    })
}

fn store(store: &StoreStatistics) -> Value {
    json!({
        "name": store.name,
        "hits": store.hits,
        "misses": store.misses,
        "fills": store.fills,
        "failures": store.failures,
        "undecodable": store.undecodable,
        "suspects": store.suspects,
        "breaker": breaker_name(store.breaker),
        "is_behind": store.is_behind,
    })
}

fn latency(latency: &Latency) -> Value {
    let quantile = |share| latency.quantile(share).map(seconds);
    json!({
        "count": latency.count(),
        "p50_seconds": quantile(0.5),
        "p99_seconds": quantile(0.99),
        "p999_seconds": quantile(0.999),
        "max_seconds": latency.max().map(seconds),
    })
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
