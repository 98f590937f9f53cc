//! The metrics of the process, the Redis door and the plain keys.

use super::encode::Family;
use super::{counter, gauge};
use crate::build_info;
use crate::serve::Server;

pub(super) fn families(server: &Server) -> Vec<Family> {
    let mut families = process(server);
    families.extend(door(server));
    families.extend(plain_keys(server));
    families
}

fn process(server: &Server) -> Vec<Family> {
    let version = vec![("version", build_info::VERSION.to_owned())];
    let mut families = vec![
        gauge("larder_build_info", "1, with the version as a label", vec![(version, 1.0)]),
        one(
            "larder_uptime_seconds",
            "Time since the start",
            server.started_at.elapsed().as_secs_f64(),
        ),
        one(
            "larder_draining",
            "1 while the server stops",
            f64::from(u8::from(server.is_draining())),
        ),
        count(
            "larder_config_reloads",
            "Times the configuration was read again and applied",
            server.reloads.succeeded(),
        ),
        count(
            "larder_config_reload_failures",
            "Times the configuration was read again and refused",
            server.reloads.failed(),
        ),
        one(
            "larder_memory_budget_bytes",
            "What all caches and plain keys together may take",
            server.division.budget as f64,
        ),
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
        (
            "larder_process_allocated_bytes",
            "Memory in use by the program",
            stats::allocated::read(),
        ),
        ("larder_process_resident_bytes", "Memory held by the program", stats::resident::read()),
    ]
    .into_iter()
    .filter_map(|(name, help, bytes)| Some(one(name, help, bytes.ok()? as f64)))
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
        one(
            "larder_connections",
            "Redis clients connected now",
            server.door.clients_count() as f64,
        ),
        one(
            "larder_threads_in_use",
            "Threads that answer Redis clients at present",
            server.door.threads_in_use() as f64,
        ),
        count("larder_connections_accepted", "Redis clients accepted", door.connections),
        count(
            "larder_connections_rejected",
            "Redis clients turned away because the server was full",
            door.rejected_connections,
        ),
        count(
            "larder_connections_timed_out",
            "Redis clients disconnected because they idled or stalled",
            door.timeouts,
        ),
        count("larder_commands", "Commands answered, failed ones included", door.commands),
        counter("larder_command_calls", "Commands by name and outcome", by_command.collect()),
        count(
            "larder_protocol_errors",
            "Redis clients disconnected because what they sent was no command",
            door.protocol_errors,
        ),
        count("larder_received_bytes", "Bytes read from Redis clients", door.input_bytes),
        count("larder_sent_bytes", "Bytes written to Redis clients", door.output_bytes),
    ]
}

fn plain_keys(server: &Server) -> Vec<Family> {
    let keys = server.keyspace.statistics();
    let outcome = |name: &str| vec![("outcome", name.to_owned())];
    let cause = |name: &str| vec![("cause", name.to_owned())];
    vec![
        one("larder_plain_keys", "Keys of no cache", keys.keys as f64),
        one("larder_plain_keys_bytes", "What they take", keys.bytes as f64),
        one(
            "larder_plain_keys_budget_bytes",
            "What they may take",
            server.division.plain_keys as f64,
        ),
        counter(
            "larder_plain_keys_reads",
            "Reads of keys of no cache",
            vec![(outcome("hit"), keys.hits), (outcome("miss"), keys.misses)],
        ),
        counter(
            "larder_plain_keys_removed",
            "Keys of no cache that left by themselves",
            vec![(cause("expired"), keys.expired), (cause("evicted"), keys.evicted)],
        ),
    ]
}

fn one(name: &'static str, help: &'static str, number: f64) -> Family {
    gauge(name, help, vec![(Vec::new(), number)])
}

fn count(name: &'static str, help: &'static str, number: u64) -> Family {
    counter(name, help, vec![(Vec::new(), number)])
}
