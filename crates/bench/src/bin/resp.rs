//! What a GET and a SET over the network cost: `larder serve` beside
//! redis-server, driven by redis-benchmark.
//!
//! ```text
//! cargo run --release --package larder-bench --bin resp -- [ROUNDS]
//! ```
//!
//! `LARDER_BIN` names a server binary to measure instead of building one.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use larder_bench::median;
use larder_bench::process::{RespServer, free_port, larder_binary};
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
    let directory = Directory::new();
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

/// What one run of redis-benchmark said, and what it cost the server.
struct Run {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// User and system time of the server for a million requests.
    cpu_seconds: f64,
}

/// The medians of each server.
fn measure(case: &Case, servers: &[RespServer; 2], rounds: usize) -> [Run; 2] {
    let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Who goes first alternates.
        for index in [round % 2, (round + 1) % 2] {
            runs[index].push(benchmark(case, &servers[index]));
        }
    }
    runs.map(|runs| {
        let of = |part: fn(&Run) -> f64| median(runs.iter().map(part));
        Run {
            requests_per_second: of(|run| run.requests_per_second),
            p50_ms: of(|run| run.p50_ms),
            p99_ms: of(|run| run.p99_ms),
            cpu_seconds: of(|run| run.cpu_seconds),
        }
    })
}

fn benchmark(case: &Case, server: &RespServer) -> Run {
    let cpu_before = server.cpu_time();
    let mut benchmark = Command::new("redis-benchmark");
    benchmark
        .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
        .args(["-t", &case.command.to_lowercase(), "-c", &CONNECTIONS.to_string()])
        .args(["-P", &case.pipeline.to_string(), "-n", &case.requests.to_string()])
        .args(["-r", &KEYS.to_string(), "-d", &VALUE_BYTES.to_string(), "--csv"]);
    let output = benchmark.output().expect("redis-benchmark (Debian: redis-tools) is installed");
    assert!(output.status.success(), "{benchmark:?}: {output:?}");
    let cpu = server.cpu_time() - cpu_before;
    let printed = String::from_utf8_lossy(&output.stdout);
    let figures = csv_figures(&printed).unwrap_or_else(|| panic!("{benchmark:?}: {printed}"));
    Run { cpu_seconds: cpu.as_secs_f64() * 1e6 / case.requests as f64, ..figures }
}

/// Reads the line `"GET","85324.23","0.293",…` by the names of its heading.
fn csv_figures(csv: &str) -> Option<Run> {
    let mut lines = csv.lines().filter(|line| line.starts_with('"'));
    let cells = |line: &str| -> Vec<String> {
        line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect()
    };
    let names = cells(lines.next()?);
    let figures = cells(lines.next()?);
    let figure = |name: &str| -> Option<f64> {
        figures.get(names.iter().position(|known| known == name)?)?.parse().ok()
    };
    Some(Run {
        requests_per_second: figure("rps")?,
        p50_ms: figure("p50_latency_ms")?,
        p99_ms: figure("p99_latency_ms")?,
        cpu_seconds: 0.0,
    })
}

fn redis_server() -> RespServer {
    let port = free_port();
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).args([
        "--save",
        "",
        "--appendonly",
        "no",
        "--loglevel",
        "warning",
    ]);
    RespServer::start("redis-server", redis, port)
}

/// With room for everything: what is compared is not eviction.
fn larder_server(binary: &Path, directory: &Directory) -> RespServer {
    let port = free_port();
    let config = directory.0.join(format!("larder-{port}.toml"));
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

/// A directory of this run, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("larder-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                   \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"GET\",\"85324.23\",\"0.29\",\"0.1\",\"0.287\",\"0.3\",\"0.415\",\"1.0\"\n";
        let run = csv_figures(csv).expect("all figures are there");
        assert!((run.requests_per_second - 85324.23).abs() < 0.001);
        assert!((run.p50_ms - 0.287).abs() < 0.001 && (run.p99_ms - 0.415).abs() < 0.001);
        assert!(csv_figures("ERROR\n").is_none());
    }
}
