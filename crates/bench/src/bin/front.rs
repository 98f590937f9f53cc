//! What it costs to put `larder serve --redis` in front of a redis-server, and
//! what it saves, driven by redis-benchmark.
//!
//! ```text
//! cargo run --release --package larder-bench --bin front -- [ROUNDS]
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

/// Hot keys: how many requests at which pipeline, from how many processes.
const HOT: [(u32, u32, u64); 4] =
    [(1, 1, 200_000), (1, 2, 200_000), (16, 1, 1_000_000), (16, 2, 1_000_000)];
const HOT_THROUGHPUT_MIN: f64 = 1.2;

/// What passes through, and what each is called.
const PASSED: [(&str, &[&str]); 8] = [
    ("SET", &["SET", "k:__rand_int__", "v"]),
    ("INCR", &["INCR", "n:__rand_int__"]),
    ("HSET", &["HSET", "h:__rand_int__", "f", "v"]),
    ("HGET", &["HGET", "h:__rand_int__", "f"]),
    ("LPUSH", &["LPUSH", "l:__rand_int__", "v"]),
    ("LPOP", &["LPOP", "l:__rand_int__"]),
    ("ZADD", &["ZADD", "z", "1", "m:__rand_int__"]),
    ("SADD", &["SADD", "s", "m:__rand_int__"]),
];
/// With so many connections, and so many requests.
const PASSED_LOADS: [(u32, u64); 3] = [(1, 15_000), (10, 60_000), (50, 100_000)];
const PASSED_LATENCY_MAX: f64 = 1.35;

fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS_DEFAULT, |argument| {
        argument.parse().ok().filter(|rounds| *rounds > 0).expect("ROUNDS is a positive number")
    });
    let binary = larder_binary();
    let directory = Directory::create();
    report::machine();
    println!(
        "{KEYS} keys, values of {VALUE_BYTES} bytes, median of {rounds} interleaved rounds; CPU is \
         that of Larder and of the Redis behind it\n"
    );
    let alone = redis_server();
    let behind = redis_server();
    let front = larder_in_front(&binary, &directory, &behind);
    for redis in [&alone, &behind] {
        redis.fill(KEYS, VALUE_BYTES);
    }
    let contenders = Contenders { alone: &alone, front: [&front, &behind] };
    hot(&contenders, rounds);
    passed(&contenders, rounds);
}

struct Contenders<'a> {
    alone: &'a RespServer,
    /// Larder, and what does work behind it.
    front: [&'a RespServer; 2],
}

impl Contenders<'_> {
    /// The medians of Redis alone and of Larder in front of another.
    fn measure(&self, load: &Load, rounds: usize) -> [Run; 2] {
        let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // Who goes first alternates.
            for index in [round % 2, (round + 1) % 2] {
                let servers: &[&RespServer] =
                    if index == 0 { &[self.alone] } else { self.front.as_slice() };
                runs[index].push(load.run(servers));
            }
        }
        runs.map(|runs| Run::median(&runs))
    }
}

fn hot(contenders: &Contenders<'_>, rounds: usize) {
    println!("GET of keys that are in Larder's memory, {CONNECTIONS} connections\n");
    let mut table = Table::new([
        "",
        "pipeline",
        "clients",
        "requests/s",
        "×",
        "p50 ms",
        "p99 ms",
        "CPU s per million",
        "× CPU",
    ]);
    let load = |pipeline, processes, requests| Load {
        command: Vec::new(),
        test: "get",
        pipeline,
        connections: CONNECTIONS,
        requests,
        processes,
        keys: KEYS,
        value_bytes: VALUE_BYTES,
    };
    // Whatever is asked for once is in memory: each key, nearly surely.
    let _ = load(16, 1, KEYS * 20).run(&contenders.front);
    let mut verdicts = Vec::new();
    for (pipeline, processes, requests) in HOT {
        let [redis, larder] = contenders.measure(&load(pipeline, processes, requests), rounds);
        let throughput = larder.requests_per_second / redis.requests_per_second;
        let cpu = larder.cpu_seconds / redis.cpu_seconds;
        for (name, run, ratios) in
            [("redis-server", redis, [1.0; 2]), ("larder in front", larder, [throughput, cpu])]
        {
            table.row([
                name.to_owned(),
                pipeline.to_string(),
                processes.to_string(),
                format!("{:.0}", run.requests_per_second),
                format!("{:.2}", ratios[0]),
                format!("{:.3}", run.p50_ms),
                format!("{:.3}", run.p99_ms),
                format!("{:.2}", run.cpu_seconds),
                format!("{:.2}", ratios[1]),
            ]);
        }
        let name = format!("GET at pipeline {pipeline} from {processes} clients, throughput");
        verdicts.push((name, throughput));
    }
    println!("{table}");
    for (what, figure) in verdicts {
        verdict(&what, figure, Target::AtLeast, HOT_THROUGHPUT_MIN);
    }
}

fn passed(contenders: &Contenders<'_>, rounds: usize) {
    println!("\nWhat passes through to Redis, latency in ms\n");
    let mut table = Table::new([
        "",
        "connections",
        "p50 Redis",
        "p50 Larder",
        "× p50",
        "p99 Redis",
        "p99 Larder",
        "× CPU",
    ]);
    let mut ratios = vec![Vec::new(); PASSED_LOADS.len()];
    for (name, command) in PASSED {
        for (place, (connections, requests)) in PASSED_LOADS.into_iter().enumerate() {
            let load = Load {
                command: command.to_vec(),
                test: "",
                pipeline: 1,
                connections,
                requests,
                processes: 1,
                keys: KEYS,
                value_bytes: VALUE_BYTES,
            };
            let [redis, larder] = contenders.measure(&load, rounds);
            let ratio = larder.p50_ms / redis.p50_ms;
            ratios[place].push(ratio);
            table.row([
                name.to_owned(),
                connections.to_string(),
                format!("{:.3}", redis.p50_ms),
                format!("{:.3}", larder.p50_ms),
                format!("{ratio:.2}"),
                format!("{:.3}", redis.p99_ms),
                format!("{:.3}", larder.p99_ms),
                format!("{:.2}", larder.cpu_seconds / redis.cpu_seconds),
            ]);
        }
    }
    println!("{table}");
    for ((connections, _), ratios) in PASSED_LOADS.into_iter().zip(ratios) {
        let what = format!("p50 of what passes, median of the commands, {connections} connections");
        verdict(&what, larder_bench::median(ratios), Target::AtMost, PASSED_LATENCY_MAX);
    }
}

fn larder_in_front(binary: &Path, directory: &Directory, redis: &RespServer) -> RespServer {
    let port = free_port();
    let config = directory.path().join("larder.toml");
    let text = format!(
        "[server]\nbind = \"127.0.0.1:{port}\"\nadmin_bind = \"127.0.0.1:{}\"\n\
         log_level = \"warn\"\n\n[front]\nurl = \"redis://127.0.0.1:{}\"\n\n\
         [memory]\nbudget = \"2GiB\"\nplain_keys = \"100%\"\n",
        free_port(),
        redis.port(),
    );
    std::fs::write(&config, text).expect("a file can be written");
    let mut larder = Command::new(binary);
    larder.arg("serve").arg("--config").arg(config);
    RespServer::start("larder", larder, port)
}
