//! Runs of redis-benchmark, and the redis-server that they are compared with.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::median;
use crate::process::{RespServer, free_port};

/// What redis-benchmark is to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// A command of its own, such as `["HGET", "h:__rand_int__", "f"]`, or none for
    /// one that [`Load::test`] names.
    pub command: Vec<&'static str>,
    /// One of the tests that it knows by name; empty if there is a command.
    pub test: &'static str,
    /// How many commands a connection sends before it waits.
    pub pipeline: u32,
    /// How many connections there are, over all processes.
    pub connections: u32,
    /// How many requests, over all processes.
    pub requests: u64,
    /// How many processes send them.
    pub processes: u32,
    /// Of how many keys.
    pub keys: u64,
    /// How long values are.
    pub value_bytes: usize,
}

/// What runs of redis-benchmark said, and what they cost the servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Over all processes.
    pub requests_per_second: f64,
    /// The median latency in milliseconds; the mean over the processes.
    pub p50_ms: f64,
    /// The same of the slowest hundredth.
    pub p99_ms: f64,
    /// User and system time of the servers for a million requests.
    pub cpu_seconds: f64,
}

impl Run {
    /// The median of each figure.
    ///
    /// # Panics
    /// If there are no runs.
    #[must_use]
    pub fn median(runs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(runs.iter().map(part));
        Self {
            requests_per_second: of(|run| run.requests_per_second),
            p50_ms: of(|run| run.p50_ms),
            p99_ms: of(|run| run.p99_ms),
            cpu_seconds: of(|run| run.cpu_seconds),
        }
    }
}

impl Load {
    /// Runs it against the first of these servers; the others do work behind it,
    /// which is counted, too.
    ///
    /// # Panics
    /// If redis-benchmark is not installed or fails.
    #[must_use]
    pub fn run(&self, servers: &[&RespServer]) -> Run {
        let cpu = || servers.iter().map(|server| server.cpu_time()).sum::<Duration>();
        let before = cpu();
        let children: Vec<Child> = (0..self.processes).map(|_| self.start(servers[0])).collect();
        let runs: Vec<Run> = children.into_iter().map(finish).collect();
        let cpu = cpu() - before;
        let mean = |part: fn(&Run) -> f64| runs.iter().map(part).sum::<f64>() / runs.len() as f64;
        Run {
            requests_per_second: runs.iter().map(|run| run.requests_per_second).sum(),
            p50_ms: mean(|run| run.p50_ms),
            p99_ms: mean(|run| run.p99_ms),
            cpu_seconds: cpu.as_secs_f64() * 1e6 / self.requests as f64,
        }
    }

    fn start(&self, server: &RespServer) -> Child {
        let mut benchmark = Command::new("redis-benchmark");
        let share = |of: u64| (of / u64::from(self.processes)).to_string();
        benchmark
            .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
            .args(["-c", &share(u64::from(self.connections))])
            .args(["-P", &self.pipeline.to_string(), "-n", &share(self.requests)])
            .args(["-r", &self.keys.to_string(), "-d", &self.value_bytes.to_string(), "--csv"]);
        if self.test.is_empty() {
            benchmark.args(&self.command);
        } else {
            benchmark.args(["-t", self.test]);
        }
        benchmark.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        benchmark.spawn().expect("redis-benchmark (Debian: redis-tools) is installed")
    }
}

fn finish(child: Child) -> Run {
    let output = child.wait_with_output().expect("it can be waited for");
    assert!(output.status.success(), "redis-benchmark failed: {output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    csv_figures(&printed).unwrap_or_else(|| panic!("redis-benchmark says: {printed}"))
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

/// A redis-server with its defaults and no persistence.
#[must_use]
pub fn redis_server() -> RespServer {
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

/// A directory of this run, removed at its end.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// An empty one.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn create() -> Self {
        let path = std::env::temp_dir().join(format!("larder-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
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
