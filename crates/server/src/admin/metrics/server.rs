//! The metrics of the process, the Redis door and the plain keys.

use super::encode::{Family, Sample};
use super::table::{self, Metric};
use super::{counter, gauge};
use crate::build_info;
use crate::front::{FrontStatistics, TrackingState};
use crate::serve::Server;

pub(super) fn families(server: &Server) -> Vec<Family> {
    let mut families = process(server);
    families.extend(door(server));
    families.extend(plain_keys(server));
    families.extend(server.door.front_statistics().into_iter().flat_map(|it| front(&it)));
    families
}

fn process(server: &Server) -> Vec<Family> {
    let version = vec![("version", build_info::VERSION.to_owned())];
    let mut families = vec![
        gauge(table::BUILD_INFO, vec![(version, 1.0)]),
        one(table::UPTIME_SECONDS, server.started_at.elapsed().as_secs_f64()),
        one(table::DRAINING, f64::from(u8::from(server.is_draining()))),
        count(table::CONFIG_RELOADS, server.reloads.succeeded()),
        count(table::CONFIG_RELOAD_FAILURES, server.reloads.failed()),
        one(table::MEMORY_BUDGET_BYTES, server.division.budget as f64),
    ];
    families.extend(allocator());
    families
}

/// What the process has asked of the system; nothing where it does not tell.
fn allocator() -> Vec<Family> {
    use tikv_jemalloc_ctl::{epoch, stats};
    if epoch::advance().is_err() {
        return Vec::new();
    }
    [
        (table::PROCESS_ALLOCATED_BYTES, stats::allocated::read()),
        (table::PROCESS_RESIDENT_BYTES, stats::resident::read()),
    ]
    .into_iter()
    .filter_map(|(metric, bytes)| Some(one(metric, bytes.ok()? as f64)))
    .collect()
}

fn door(server: &Server) -> Vec<Family> {
    let door = server.door.statistics();
    let commands = door.by_command.iter().filter(|it| it.calls + it.rejected > 0);
    let labels = |command: &str, outcome: &str| {
        vec![("command", command.to_owned()), ("outcome", outcome.to_owned())]
    };
    let by_command = commands.flat_map(|it| {
        [
            (labels(it.name, "ok"), it.calls - it.failed.min(it.calls)),
            (labels(it.name, "error"), it.failed),
            (labels(it.name, "rejected"), it.rejected),
        ]
    });
    vec![
        one(table::CONNECTIONS, server.door.clients_count() as f64),
        one(table::THREADS_IN_USE, server.door.threads_in_use() as f64),
        count(table::CONNECTIONS_ACCEPTED, door.connections),
        count(table::CONNECTIONS_REJECTED, door.rejected_connections),
        count(table::CONNECTIONS_TIMED_OUT, door.timeouts),
        count(table::COMMANDS, door.commands),
        counter(table::COMMAND_CALLS, by_command.collect()),
        count(table::PROTOCOL_ERRORS, door.protocol_errors),
        count(table::RECEIVED_BYTES, door.input_bytes),
        count(table::SENT_BYTES, door.output_bytes),
    ]
}

fn plain_keys(server: &Server) -> Vec<Family> {
    let keys = server.keyspace.statistics();
    let outcome = |name: &str| vec![("outcome", name.to_owned())];
    let cause = |name: &str| vec![("cause", name.to_owned())];
    vec![
        one(table::PLAIN_KEYS, keys.keys as f64),
        one(table::PLAIN_KEYS_BYTES, keys.bytes as f64),
        one(table::PLAIN_KEYS_BUDGET_BYTES, server.division.plain_keys as f64),
        counter(
            table::PLAIN_KEYS_READS,
            vec![(outcome("hit"), keys.hits), (outcome("miss"), keys.misses)],
        ),
        counter(
            table::PLAIN_KEYS_REMOVED,
            vec![(cause("expired"), keys.expired), (cause("evicted"), keys.evicted)],
        ),
    ]
}

/// The Redis that this server stands in front of.
fn front(front: &FrontStatistics) -> Vec<Family> {
    let outcome = |name: &str| vec![("outcome", name.to_owned())];
    let states = [TrackingState::Tracking, TrackingState::Lost, TrackingState::Refused];
    let state = |state: TrackingState| {
        let is_so = f64::from(u8::from(state == front.tracking));
        (vec![("state", state.name().to_owned())], is_so)
    };
    let latencies = Sample::Distribution {
        sum: front.latency_seconds,
        count: front.latency_buckets.iter().map(|(_, count)| count).sum(),
        buckets: front.latency_buckets.clone(),
    };
    vec![
        gauge(table::FRONT_TRACKING, states.map(state).to_vec()),
        one(table::FRONT_SERVERS, front.servers as f64),
        one(table::FRONT_REACHABLE, f64::from(u8::from(front.is_reachable))),
        counter(
            table::FRONT_READS,
            vec![(outcome("memory"), front.hits), (outcome("redis"), front.misses)],
        ),
        count(table::FRONT_PASSED, front.passed),
        counter(
            table::FRONT_FILLS,
            vec![(outcome("kept"), front.fills), (outcome("discarded"), front.fills_discarded)],
        ),
        count(table::FRONT_INVALIDATIONS, front.invalidations),
        count(table::FRONT_FLUSHES, front.flushes),
        count(table::FRONT_TRACKING_LOSSES, front.losses),
        one(table::FRONT_CONNECTIONS, front.connections as f64),
        counter(
            table::FRONT_CONNECTS,
            vec![(outcome("opened"), front.connects), (outcome("failed"), front.connect_failures)],
        ),
        count(table::FRONT_DISCONNECTS, front.disconnects),
        count(table::FRONT_HOLD_UPS, front.hold_ups),
        count(table::FRONT_GIVE_UPS, front.give_ups),
        count(table::FRONT_REDIRECTIONS, front.redirections),
        count(table::FRONT_MOVED_SLOTS, front.moved_slots),
        Family { metric: table::FRONT_LATENCY_SECONDS, samples: vec![(Vec::new(), latencies)] },
    ]
}

fn one(metric: Metric, number: f64) -> Family {
    gauge(metric, vec![(Vec::new(), number)])
}

fn count(metric: Metric, number: u64) -> Family {
    counter(metric, vec![(Vec::new(), number)])
}
