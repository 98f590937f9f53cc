//! What the server says when it is ready.

use std::fmt::Write;
use std::net::SocketAddr;

use super::Server;
use crate::build_info;
use crate::config::show_bytes;

/// More key patterns than this are counted, not listed.
const PATTERNS_SHOWN: usize = 24;

const SKIPPED_SHOWN: usize = 8;

/// What is served, where, and what to try.
pub(super) fn banner(server: &Server, is_demo: bool) -> String {
    let mut text = format!("\nLarder {} is ready\n\n", build_info::VERSION);
    databases(&mut text, server);
    caches(&mut text, server);
    skipped(&mut text, server);
    let address = server.redis_address;
    let memory = &server.division;
    let _ = writeln!(
        text,
        "  memory    {}, {} of it for plain keys",
        show_rounded(memory.budget),
        show_rounded(memory.plain_keys)
    );
    if let Some(directory) =
        server.started_with.disk.directory.as_ref().filter(|_| server.disk.is_some())
    {
        let budget = show_bytes(server.started_with.disk.budget.0);
        let _ = writeln!(text, "  disk      {directory}, at most {budget}");
    }
    shared_tiers(&mut text, server);
    let _ = writeln!(text, "  Redis     {address}");
    let _ = writeln!(text, "  admin     http://{}", server.admin_address);
    if let Some(key) = is_demo.then_some("product:42") {
        try_this(&mut text, address, server.admin_address, key);
    }
    if build_info::IS_DEBUG {
        text.push_str(
            "\n  This is a debug build: it is slow. Measure with `cargo run --release`.\n",
        );
    }
    text
}

fn databases(text: &mut String, server: &Server) {
    if let Some(redis) = &server.upstream {
        let _ = writeln!(
            text,
            "  redis     {redis}: strings are answered from memory while they hold,\n            \
             everything else passes through"
        );
    } else if server.connected.origins.is_empty() {
        text.push_str(
            "  database  none: every key is a plain key, as in Redis.\n            \
             Serve one with --database URL, or look around with --demo.\n",
        );
    }
    for origin in &server.connected.origins {
        let _ = writeln!(text, "  database  {} ({})", origin.name, origin.database.label());
    }
}

fn shared_tiers(text: &mut String, server: &Server) {
    let Some(shared) = &server.shared_tiers else { return };
    let prefix = &server.started_with.redis.prefix;
    let parts = match (shared.keeps_entries_in_redis, &shared.memcached) {
        (true, _) => "entries, bus and leases",
        (false, Some(_)) => "bus and leases",
        (false, None) => "bus",
    };
    let _ = writeln!(text, "  shared    {parts} in Redis, with the prefix {prefix}");
    if let Some(memcached) = &shared.memcached {
        let servers: Vec<_> =
            memcached.servers().iter().map(|server| server.address.to_string()).collect();
        let _ = writeln!(text, "            entries in memcached: {}", servers.join(", "));
    }
}

fn caches(text: &mut String, server: &Server) {
    let served = server.registry.served();
    let width = served.iter().map(|it| it.pattern.as_str().len()).max().unwrap_or_default().min(40);
    for (index, served) in served.iter().take(PATTERNS_SHOWN).enumerate() {
        let label = if index == 0 { "keys" } else { "" };
        let pattern = served.pattern.as_str();
        let _ = writeln!(text, "  {label:8}  {pattern:width$}  {}", served.source.describe());
    }
    if served.len() > PATTERNS_SHOWN {
        let _ =
            writeln!(text, "            and {} more, see /caches", served.len() - PATTERNS_SHOWN);
    }
}

fn skipped(text: &mut String, server: &Server) {
    for (index, skipped) in server.skipped.iter().take(SKIPPED_SHOWN).enumerate() {
        let label = if index == 0 { "skipped" } else { "" };
        let _ = write!(text, "  {label:8}  {}: {}", skipped.table, skipped.reason);
        let _ = match skipped.remedy.is_empty() {
            true => writeln!(text),
            false => writeln!(text, "; {}", skipped.remedy),
        };
    }
    if server.skipped.len() > SKIPPED_SHOWN {
        let _ = writeln!(
            text,
            "            and {} more, see /caches",
            server.skipped.len() - SKIPPED_SHOWN
        );
    }
}

fn try_this(text: &mut String, redis: SocketAddr, admin: SocketAddr, key: &str) {
    let port = redis.port();
    let _ = write!(
        text,
        "\nTry:\n  \
         redis-cli -p {port} GET {key}\n  \
         redis-cli -p {port} LARDER.EXPLAIN {key}\n  \
         curl -s {admin}/metrics | grep loads\n"
    );
}

/// A size for people: three digits are enough.
fn show_rounded(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) if !bytes.is_multiple_of(*size) => {
            format!("{:.1} {unit}", bytes as f64 / *size as f64)
        }
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None => show_bytes(bytes),
    }
}
