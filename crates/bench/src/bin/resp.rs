//! What a GET and a SET over the network cost: `larder serve` beside
//! redis-server, driven by redis-benchmark.
//!
//! ```text
//! cargo run --release --package larder-bench --bin resp -- [ROUNDS]
//! ```
//!
//! `LARDER_BIN` names a server binary to measure instead of building one.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::path::Path;
use std::process::Command;

use larder_bench::process::{RespServer, free_port, larder_binary};
use larder_bench::redis_benchmark::{Directory, Load, Run, redis_server};
use larder_bench::report::{self, Table, Target, verdict};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
const CONNECTIONS: u32 = 50;
const ROUNDS_DEFAULT: usize = 5;
/// For the comparison of resident memory.
const SMALL_ENTRIES: u64 = 1_000_000;
const SMALL_VALUE_BYTES: usize = 100;

/// One kind of load, and what Larder is to reach there beside redis-server.
struct Case {
    command: &'static str,
    pipeline: u32,
    requests: u64,
    throughput_min: f64,
    /// No target where there is none.
    cpu_max: Option<f64>,
}

const CASES: [Case; 4] = [
    Case {
        command: "GET",
        pipeline: 1,
        requests: 300_000,
        throughput_min: 1.1,
        cpu_max: Some(0.95),
    },
    Case {
        command: "GET",
        pipeline: 16,
        requests: 2_000_000,
        throughput_min: 1.4,
        cpu_max: Some(0.6),
    },
    Case { command: "SET", pipeline: 1, requests: 300_000, throughput_min: 1.0, cpu_max: None },
    Case { command: "SET", pipeline: 16, requests: 2_000_000, throughput_min: 1.0, cpu_max: None },
];

fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS_DEFAULT, |argument| {
        argument.parse().ok().filter(|rounds| *rounds > 0).expect("ROUNDS is a positive number")
    });
    let larder = larder_binary();
    let directory = Directory::create();
    report::machine();
    println!(
        "{KEYS} keys, values of {VALUE_BYTES} bytes, {CONNECTIONS} connections, median of {rounds} \
         interleaved rounds\n"
    );
    throughput(rounds, &larder, &directory);
    resident_memory(&larder, &directory);
}

fn throughput(rounds: usize, larder: &Path, directory: &Directory) {
    let servers = [redis_server(), larder_server(larder, directory)];
    for server in &servers {
        server.fill(KEYS, VALUE_BYTES);
    }
    let mut table = Table::new([
        "",
        "pipeline",
        "requests/s",
        "×",
        "p50 ms",
        "p99 ms",
        "× p99",
        "CPU s per million",
        "× CPU",
    ]);
    let mut verdicts = Vec::new();
    for case in &CASES {
        let [redis, larder] = measure(case, &servers, rounds);
        let throughput = larder.requests_per_second / redis.requests_per_second;
        let p99 = larder.p99_ms / redis.p99_ms;
        let cpu = larder.cpu_seconds / redis.cpu_seconds;
        for (server, run, ratios) in
            [(&servers[0], &redis, [1.0; 3]), (&servers[1], &larder, [throughput, p99, cpu])]
        {
            table.row([
                format!("{} {}", case.command, server.name()),
                case.pipeline.to_string(),
                format!("{:.0}", run.requests_per_second),
                format!("{:.2}", ratios[0]),
                format!("{:.3}", run.p50_ms),
                format!("{:.3}", run.p99_ms),
                format!("{:.2}", ratios[1]),
                format!("{:.2}", run.cpu_seconds),
                format!("{:.2}", ratios[2]),
            ]);
        }
        let name = format!("{} at pipeline {}", case.command, case.pipeline);
        verdicts.push((
            format!("{name}, throughput"),
            throughput,
            Target::AtLeast,
            case.throughput_min,
        ));
        if case.command == "GET" {
            verdicts.push((format!("{name}, p99"), p99, Target::AtMost, 1.0));
        }
        if let Some(limit) = case.cpu_max {
            verdicts.push((format!("{name}, CPU"), cpu, Target::AtMost, limit));
        }
    }
    println!("{table}");
    for (what, figure, target, limit) in verdicts {
        verdict(&what, figure, target, limit);
    }
}

fn resident_memory(larder: &Path, directory: &Directory) {
    println!("\nresident memory, {SMALL_ENTRIES} entries of {SMALL_VALUE_BYTES} bytes\n");
    let mut table = Table::new(["", "empty, MiB", "full, MiB", "bytes for each entry"]);
    let mut full = Vec::new();
    for server in [redis_server(), larder_server(larder, directory)] {
        let before = server.resident_bytes();
        server.fill(SMALL_ENTRIES, SMALL_VALUE_BYTES);
        let after = server.resident_bytes();
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let each = (after - before) as f64 / SMALL_ENTRIES as f64;
        table.row([server.name().to_owned(), mib(before), mib(after), format!("{each:.0}")]);
        full.push(after as f64);
    }
    println!("{table}");
    verdict("resident memory", full[1] / full[0], Target::AtMost, 1.0);
}

/// The medians of each server.
fn measure(case: &Case, servers: &[RespServer; 2], rounds: usize) -> [Run; 2] {
    let load = Load {
        command: Vec::new(),
        test: if case.command == "GET" { "get" } else { "set" },
        pipeline: case.pipeline,
        connections: CONNECTIONS,
        requests: case.requests,
        processes: 1,
        keys: KEYS,
        value_bytes: VALUE_BYTES,
    };
    let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Who goes first alternates.
        for index in [round % 2, (round + 1) % 2] {
            runs[index].push(load.run(&[&servers[index]]));
        }
    }
    runs.map(|runs| Run::median(&runs))
}

/// With room for everything: what is compared is not eviction.
fn larder_server(binary: &Path, directory: &Directory) -> RespServer {
    let port = free_port();
    let config = directory.path().join(format!("larder-{port}.toml"));
    let text = format!(
        "[server]\nbind = \"127.0.0.1:{port}\"\nadmin_bind = \"127.0.0.1:{}\"\n\
         log_level = \"warn\"\n\n[memory]\nbudget = \"2GiB\"\nplain_keys = \"100%\"\n",
        free_port()
    );
    std::fs::write(&config, text).expect("a file can be written");
    let mut larder = Command::new(binary);
    larder.arg("serve").arg("--config").arg(config);
    RespServer::start("larder", larder, port)
}
