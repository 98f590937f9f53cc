//! Stock programs of Redis, through Larder.

use std::process::Command;

use larder_testkit::redis::RedisServer;

use super::{Client, counted, front};

/// The names of the tests that `redis-benchmark` says it has run.
fn benchmark(port: u16, options: &[&str]) -> Vec<String> {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-n", "2000", "-c", "20", "--csv"])
        .args(options)
        .output()
        .expect("redis-benchmark runs: install the Debian package `redis-tools`");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(!complaint.contains("rror"), "{complaint}");
    said.lines().filter_map(|line| Some(line.split("\",\"").next()?.to_owned())).collect()
}

#[test]
fn the_full_default_set_of_redis_benchmark_runs_through() {
    let redis = RedisServer::start();
    let alone = RedisServer::start();
    let door = front(&redis);
    for options in [&[][..], &["-P", "16"], &["-3"], &["-r", "1000"]] {
        let expected = benchmark(alone.address().port(), options);
        let found = benchmark(door.address().port(), options);
        assert_eq!(found, expected, "{options:?}");
        assert!(found.len() > 15, "{found:?}");
    }
    assert!(counted(&door).hits > 0);
    // What it left behind is the same.
    let [mut there, mut here] = [alone.address(), door.address()].map(Client::connect);
    for question in ["STRLEN key:__rand_int__", "TYPE mylist", "TYPE myset", "TYPE myzset"] {
        assert_eq!(here.ask(question), there.ask(question), "{question}");
    }
}
