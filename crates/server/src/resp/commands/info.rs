//! `INFO`: what goes on, in sections of `name:value` lines.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tikv_jemalloc_ctl::{epoch, stats};

use super::super::Reply;
use super::super::door::Shared;
use super::super::routes::ServedCache;
use super::super::session::Session;
use super::server::REDIS_VERSION;
use crate::front::FrontStatistics;
use crate::serve::journal::acknowledgement;

/// One section. Those that are not in the default set are shown on request and
/// in `INFO all`.
struct Section {
    name: &'static str,
    title: &'static str,
    is_default: bool,
    write: fn(&Shared, &mut String),
}

const SECTIONS: &[Section] = &[
    Section { name: "server", title: "Server", is_default: true, write: write_server },
    Section { name: "clients", title: "Clients", is_default: true, write: write_clients },
    Section { name: "memory", title: "Memory", is_default: true, write: write_memory },
    Section {
        name: "persistence",
        title: "Persistence",
        is_default: true,
        write: write_persistence,
    },
    Section { name: "stats", title: "Stats", is_default: true, write: write_stats },
    Section {
        name: "replication",
        title: "Replication",
        is_default: true,
        write: write_replication,
    },
    Section { name: "cpu", title: "CPU", is_default: true, write: write_cpu },
    Section {
        name: "commandstats",
        title: "Commandstats",
        is_default: false,
        write: write_commands,
    },
    Section { name: "cluster", title: "Cluster", is_default: true, write: write_cluster },
    Section { name: "keyspace", title: "Keyspace", is_default: true, write: write_keyspace },
    Section { name: "larder", title: "Larder", is_default: true, write: write_caches },
];

pub(super) fn info(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let asked: Vec<String> = arguments[1..]
        .iter()
        .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    let has = |name: &str| asked.iter().any(|asked| asked == name);
    let has_default = asked.is_empty() || has("default");
    let has_all = has("all") || has("everything");
    let mut text = String::with_capacity(4096);
    for section in SECTIONS {
        if !(has(section.name) || has_all || (has_default && section.is_default)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        line(&mut text, format_args!("# {}", section.title));
        (section.write)(&session.shared, &mut text);
    }
    reply.verbatim(&text);
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(content);
    text.push_str("\r\n");
}

fn write_server(shared: &Shared, text: &mut String) {
    let uptime = shared.clock.now().since(shared.opened_at).as_secs();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    line(text, format_args!("redis_version:{REDIS_VERSION}"));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("larder_version:{}", env!("CARGO_PKG_VERSION")));
    line(text, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("process_id:{}", std::process::id()));
    line(text, format_args!("tcp_port:{}", shared.address.port()));
    line(text, format_args!("server_time_usec:{}", now.as_micros()));
    line(text, format_args!("uptime_in_seconds:{uptime}"));
    line(text, format_args!("uptime_in_days:{}", uptime / 86_400));
    line(text, format_args!("io_threads:{}", shared.workers.len()));
}

fn write_clients(shared: &Shared, text: &mut String) {
    let clients = shared.clients();
    let largest = |bytes: fn(&super::super::client::Client) -> usize| {
        clients.iter().map(|client| bytes(client)).max().unwrap_or(0)
    };
    line(text, format_args!("connected_clients:{}", shared.clients_count()));
    line(text, format_args!("maxclients:{}", shared.settings.clients_max.get()));
    line(text, format_args!("client_recent_max_input_buffer:{}", largest(|it| it.input_bytes())));
    line(text, format_args!("client_recent_max_output_buffer:{}", largest(|it| it.output_bytes())));
    line(text, format_args!("blocked_clients:0"));
}

fn write_memory(shared: &Shared, text: &mut String) {
    // Figures of the allocator are cached until its epoch moves.
    let _ = epoch::advance();
    let used = stats::allocated::read().unwrap_or(0);
    let limit = shared.keyspace.memory_limit().unwrap_or(0);
    let caches: u64 =
        shared.routes.caches().iter().map(|cache| cache.statistics().memory.bytes).sum();
    line(text, format_args!("used_memory:{used}"));
    line(text, format_args!("used_memory_human:{}", human(used)));
    line(text, format_args!("used_memory_rss:{}", process::resident_bytes().unwrap_or(0)));
    line(text, format_args!("used_memory_dataset:{}", shared.keyspace.used_bytes() + caches));
    line(text, format_args!("used_memory_plain_keys:{}", shared.keyspace.used_bytes()));
    line(text, format_args!("used_memory_caches:{caches}"));
    line(text, format_args!("maxmemory:{limit}"));
    line(text, format_args!("maxmemory_human:{}", human(limit)));
    line(text, format_args!("maxmemory_policy:{}", shared.keyspace.eviction_policy()));
    line(text, format_args!("mem_allocator:jemalloc"));
}

/// Nothing is kept across a restart; monitoring tools ask nevertheless.
fn write_persistence(_: &Shared, text: &mut String) {
    line(text, format_args!("loading:0"));
    line(text, format_args!("rdb_bgsave_in_progress:0"));
    line(text, format_args!("aof_enabled:0"));
    line(text, format_args!("aof_rewrite_in_progress:0"));
}

fn write_stats(shared: &Shared, text: &mut String) {
    let door = shared.statistics();
    let keyspace = shared.keyspace.statistics();
    line(text, format_args!("total_connections_received:{}", door.connections));
    line(text, format_args!("total_commands_processed:{}", door.commands));
    line(text, format_args!("total_net_input_bytes:{}", door.input_bytes));
    line(text, format_args!("total_net_output_bytes:{}", door.output_bytes));
    line(text, format_args!("rejected_connections:{}", door.rejected_connections));
    line(text, format_args!("expired_keys:{}", keyspace.expired));
    line(text, format_args!("evicted_keys:{}", keyspace.evicted));
    line(text, format_args!("keyspace_hits:{}", keyspace.hits));
    line(text, format_args!("keyspace_misses:{}", keyspace.misses));
    line(text, format_args!("total_error_replies:{}", door.errors()));
    line(text, format_args!("cache_memory_hits:{}", door.cache_hits));
    line(text, format_args!("cache_memory_misses:{}", door.cache_misses));
    line(text, format_args!("clients_timed_out:{}", door.timeouts));
    line(text, format_args!("protocol_errors:{}", door.protocol_errors));
}

fn write_replication(_: &Shared, text: &mut String) {
    line(text, format_args!("role:master"));
    line(text, format_args!("connected_slaves:0"));
}

fn write_cluster(_: &Shared, text: &mut String) {
    line(text, format_args!("cluster_enabled:0"));
}

fn write_cpu(_: &Shared, text: &mut String) {
    let (user, system) = process::cpu_time().unwrap_or_default();
    line(text, format_args!("used_cpu_sys:{:.6}", system.as_secs_f64()));
    line(text, format_args!("used_cpu_user:{:.6}", user.as_secs_f64()));
}

fn write_commands(shared: &Shared, text: &mut String) {
    for command in shared.statistics().by_command {
        if command.calls + command.rejected > 0 {
            line(
                text,
                format_args!(
                    "cmdstat_{}:calls={},rejected_calls={},failed_calls={}",
                    command.name, command.calls, command.rejected, command.failed
                ),
            );
        }
    }
}

fn write_keyspace(shared: &Shared, text: &mut String) {
    let keyspace = shared.keyspace.statistics();
    if keyspace.keys > 0 {
        line(
            text,
            format_args!("db0:keys={},expires={},avg_ttl=0", keyspace.keys, keyspace.volatile_keys),
        );
    }
}

fn write_caches(shared: &Shared, text: &mut String) {
    if let (Some(front), Some(counted)) = (&shared.front, shared.front_statistics()) {
        write_front(front.label(), &counted, text);
    }
    if let Some(behind) = shared.routes.caches().into_iter().find_map(ServedCache::write_behind) {
        let it = behind.statistics();
        line(
            text,
            format_args!(
                "journal:acknowledged={},depth={},lag_ms={},dead_letters={},accepted={},applied={},\
                 coalesced={},refused={}",
                acknowledgement(behind.profile().survives),
                it.depth_records,
                it.oldest_age.as_millis(),
                it.journal.dead_letters,
                it.accepted,
                it.applied,
                it.coalesced,
                it.refused_full,
            ),
        );
    }
    for cache in shared.routes.caches() {
        let statistics = cache.statistics();
        line(
            text,
            format_args!(
                "cache_{}:entries={},bytes={},hits={},stale={},loads={},load_failures={},\
                 hit_ratio={:.4},origin={},breaker={}",
                cache.name(),
                statistics.memory.entries,
                statistics.memory.bytes,
                statistics.hits,
                statistics.stale(),
                statistics.loads,
                statistics.load_failures + statistics.load_timeouts + statistics.load_panics,
                statistics.hit_ratio().unwrap_or(0.0),
                cache.origin_guard().name(),
                super::larder::breaker_name(cache),
            ),
        );
        write_stores(cache, text);
    }
}

/// The stores below the memory of a cache.
fn write_stores(cache: &ServedCache, text: &mut String) {
    for store in cache.stores() {
        line(
            text,
            format_args!(
                "store_{}_{}:hits={},misses={},fills={},failures={},undecodable={},suspects={},\
                 breaker={},is_behind={}",
                cache.name(),
                store.name,
                store.hits,
                store.misses,
                store.fills,
                store.failures,
                store.undecodable,
                store.suspects,
                super::larder::name_of(store.breaker),
                u8::from(store.is_behind),
            ),
        );
    }
}

/// The Redis that this server stands in front of.
fn write_front(label: &str, front: &FrontStatistics, text: &mut String) {
    line(text, format_args!("front_redis:{label}"));
    line(text, format_args!("front_servers:{}", front.servers));
    line(text, format_args!("front_reachable:{}", u8::from(front.is_reachable)));
    line(text, format_args!("front_tracking:{}", front.tracking.name()));
    line(text, format_args!("front_memory_hits:{}", front.hits));
    line(text, format_args!("front_memory_misses:{}", front.misses));
    line(text, format_args!("front_passed:{}", front.passed));
    line(text, format_args!("front_fills:{}", front.fills));
    line(text, format_args!("front_fills_discarded:{}", front.fills_discarded));
    line(text, format_args!("front_invalidations:{}", front.invalidations));
    line(text, format_args!("front_tracking_losses:{}", front.losses));
    line(text, format_args!("front_redirections:{}", front.redirections));
    line(text, format_args!("front_moved_slots:{}", front.moved_slots));
    line(text, format_args!("front_connections:{}", front.connections));
}

/// Bytes as people read them.
fn human(bytes: usize) -> String {
    let bytes = bytes as f64;
    for (unit, size) in [("G", 1_u64 << 30), ("M", 1 << 20), ("K", 1 << 10)] {
        if bytes >= size as f64 {
            return format!("{:.2}{unit}", bytes / size as f64);
        }
    }
    format!("{bytes}B")
}

/// What the kernel tells of this process.
mod process {
    use super::Duration;

    /// The clock tick that `/proc` counts in: 100 a second on every Linux.
    const TICK: Duration = Duration::from_millis(10);

    /// Time spent in this process and in the kernel for it.
    pub(super) fn cpu_time() -> Option<(Duration, Duration)> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is a name in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |place: usize| Some(TICK * fields.get(place)?.parse::<u32>().ok()?);
        Some((ticks(11)?, ticks(12)?))
    }

    /// The memory of this process that is in RAM.
    pub(super) fn resident_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_redis() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1536), "1.50K");
        assert_eq!(human(3 << 30), "3.00G");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_tells_of_this_process() {
        assert!(process::resident_bytes().expect("Linux tells") > 1 << 20);
        assert!(process::cpu_time().is_some());
    }
}
