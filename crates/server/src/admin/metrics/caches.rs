//! The metrics of caches and of the origins they load from.

use larder::{BreakerState, Latency, RemovalCause, Statistics};
use larder_core::Clock;

use super::encode::{Family, Labels, Sample};
use super::{counter, family, gauge, seconds, table};
use crate::admin::health::breaker_name;
use crate::serve::Server;

/// The upper bounds of the histogram of loads, in seconds.
const LOAD_BUCKETS: [f64; 13] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.99", 0.99), ("0.999", 0.999)];

/// What is known of one cache at the moment of asking.
struct Look {
    name: String,
    statistics: Statistics,
    memory_bytes: usize,
}

pub(super) fn families(server: &Server) -> Vec<Family> {
    let looks: Vec<_> = server
        .registry
        .served()
        .iter()
        .map(|served| Look {
            name: served.name().to_owned(),
            statistics: served.cache.statistics(),
            memory_bytes: served.memory_bytes,
        })
        .collect();
    let mut families = reads(&looks);
    families.extend(loads(&looks));
    families.extend(invalidations(&looks));
    families.extend(latencies(&looks));
    families.extend(memory(&looks));
    families.extend(origins(server));
    families
}

/// One sample for each cache.
fn each<T>(looks: &[Look], of: impl Fn(&Look) -> T) -> Vec<(Labels, T)> {
    looks.iter().map(|look| (vec![("cache", look.name.clone())], of(look))).collect()
}

/// One sample for each cache and each of the named numbers.
fn split<T, const N: usize>(
    looks: &[Look],
    label: &'static str,
    of: impl Fn(&Statistics) -> [(&'static str, T); N],
) -> Vec<(Labels, T)> {
    looks
        .iter()
        .flat_map(|look| {
            of(&look.statistics).map(|(name, number)| {
                (vec![("cache", look.name.clone()), (label, name.to_owned())], number)
            })
        })
        .collect()
}

fn reads(looks: &[Look]) -> Vec<Family> {
    vec![
        counter(table::CACHE_REQUESTS, each(looks, |it| it.statistics.requests())),
        counter(
            table::CACHE_HITS,
            split(looks, "freshness", |it| [("fresh", it.hits), ("stale", it.stale())]),
        ),
        counter(
            table::CACHE_MISSES,
            split(looks, "answered_by", |it| {
                [
                    ("store", it.store_answers),
                    ("load", it.load_answers),
                    ("joined_load", it.joined_answers),
                    ("fallback", it.fallbacks),
                    ("error", it.failures),
                    ("nothing", it.misses),
                ]
            }),
        ),
        counter(
            table::CACHE_STALE_SERVED,
            split(looks, "reason", |it| {
                [
                    ("revalidating", it.stale_revalidating),
                    ("origin_failed", it.stale_origin_failed),
                    ("soft_timeout", it.stale_soft_timeout),
                    ("slow_load", it.stale_slow_load),
                    ("suspect", it.stale_suspect),
                    ("derived", it.stale_derived),
                ]
            }),
        ),
        gauge(
            table::CACHE_STALE_AGE_MAX_SECONDS,
            each(looks, |it| seconds(it.statistics.stale_age_max)),
        ),
    ]
}

fn loads(looks: &[Look]) -> Vec<Family> {
    vec![
        counter(table::CACHE_LOADS, each(looks, |it| it.statistics.loads)),
        counter(
            table::CACHE_LOAD_ERRORS,
            split(looks, "cause", |it| {
                [
                    ("failed", it.load_failures),
                    ("timeout", it.load_timeouts),
                    ("panic", it.load_panics),
                    ("breaker_open", it.loads_refused_by_breaker),
                ]
            }),
        ),
        gauge(table::CACHE_LOADS_IN_FLIGHT, each(looks, |it| it.statistics.loads_in_flight as f64)),
        counter(
            table::CACHE_REFRESHES,
            split(looks, "outcome", |it| {
                [("begun", it.refreshes), ("skipped", it.refreshes_skipped)]
            }),
        ),
        counter(table::CACHE_FILLS_FENCED, each(looks, |it| it.statistics.fills_fenced)),
    ]
}

fn invalidations(looks: &[Look]) -> Vec<Family> {
    vec![counter(
        table::CACHE_INVALIDATIONS,
        split(looks, "kind", |it| {
            [
                ("key_expired", it.expired_keys),
                ("key_removed", it.removed_keys),
                ("tag_expired", it.expired_tags),
                ("tag_removed", it.removed_tags),
                ("cleared", it.clears),
            ]
        }),
    )]
}

fn latencies(looks: &[Look]) -> Vec<Family> {
    let loads = looks.iter().map(|look| {
        (vec![("cache", look.name.clone())], distribution(&look.statistics.load_latency))
    });
    let hits = looks.iter().flat_map(|look| {
        QUANTILES.iter().filter_map(|(name, share)| {
            let duration = look.statistics.hit_latency.quantile(*share)?;
            let labels = vec![("cache", look.name.clone()), ("quantile", (*name).to_owned())];
            Some((labels, Sample::Number(seconds(duration))))
        })
    });
    vec![
        family(table::CACHE_LOAD_DURATION_SECONDS, loads),
        family(table::CACHE_HIT_DURATION_SECONDS, hits),
    ]
}

fn distribution(latency: &Latency) -> Sample {
    let mut below = 0;
    let mut buckets: Vec<_> = LOAD_BUCKETS
        .iter()
        .map(|bound| {
            let within = latency.count_within(std::time::Duration::from_secs_f64(*bound));
            // The histogram behind it is coarse: a bound may fall inside one of its cells.
            let within = within.max(below);
            let count = within - below;
            below = within;
            (*bound, count)
        })
        .collect();
    let count = latency.count().max(below);
    buckets.push((f64::INFINITY, count - below));
    Sample::Distribution { sum: seconds(latency.sum()), count, buckets }
}

fn memory(looks: &[Look]) -> Vec<Family> {
    let removals = looks.iter().flat_map(|look| {
        RemovalCause::ALL.map(|cause| {
            let labels = vec![("cache", look.name.clone()), ("cause", cause.name().to_owned())];
            (labels, look.statistics.memory.removals.of(cause))
        })
    });
    vec![
        gauge(table::CACHE_ENTRIES, each(looks, |it| it.statistics.memory.entries as f64)),
        gauge(table::CACHE_MEMORY_BYTES, each(looks, |it| it.statistics.memory.bytes as f64)),
        gauge(table::CACHE_MEMORY_BUDGET_BYTES, each(looks, |it| it.memory_bytes as f64)),
        counter(table::CACHE_EVICTIONS, removals.collect()),
        counter(table::CACHE_ENTRIES_REJECTED, each(looks, |it| it.statistics.memory.rejected)),
    ]
}

fn origins(server: &Server) -> Vec<Family> {
    const STATES: [BreakerState; 3] =
        [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open];
    let clock = Clock::monotonic();
    let origins = &server.connected.origins;
    let states = origins.iter().flat_map(|origin| {
        let now = origin.guard.breaker_state(&clock);
        STATES.map(|state| {
            let labels =
                vec![("origin", origin.name.clone()), ("state", breaker_name(state).to_owned())];
            (labels, f64::from(u8::from(state == now)))
        })
    });
    let labels = |name: &str| vec![("origin", name.to_owned())];
    let running =
        origins.iter().map(|origin| (labels(&origin.name), origin.guard.loads_running() as f64));
    let connections = origins.iter().flat_map(|origin| {
        let pool = origin.database.pool_statistics();
        [("in_use", pool.in_use as f64), ("idle", pool.idle as f64)].map(|(state, number)| {
            let labels = vec![("origin", origin.name.clone()), ("state", state.to_owned())];
            (labels, number)
        })
    });
    let waiting = origins
        .iter()
        .map(|origin| (labels(&origin.name), origin.database.pool_statistics().waiting as f64));
    let timed_out = origins
        .iter()
        .map(|origin| (labels(&origin.name), origin.database.pool_statistics().timed_out));
    vec![
        gauge(table::ORIGIN_BREAKER_STATE, states.collect()),
        gauge(table::ORIGIN_LOADS_RUNNING, running.collect()),
        gauge(table::ORIGIN_CONNECTIONS, connections.collect()),
        gauge(table::ORIGIN_LOADS_WAITING, waiting.collect()),
        counter(table::ORIGIN_CONNECTION_TIMEOUTS, timed_out.collect()),
    ]
}
