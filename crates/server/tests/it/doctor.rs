//! `larder doctor` against real servers: sound ones, and each kind of trouble.

use std::path::Path;
use std::time::{Duration, Instant};

use larder_testkit::certificates::Authority;
use larder_testkit::memcached::Memcached;
use larder_testkit::redis::{Cluster, RedisOptions, RedisServer, Sentinel};
use serde_json::Value;

use crate::fleet::{cluster_section, sentinel_section};
use crate::running::larder;
use crate::shared_tiers::{config_with, user_without};

/// What the doctor says, and its exit status.
fn doctor(arguments: &[&str]) -> (String, i32) {
    let output = larder()
        .arg("doctor")
        .args(arguments)
        .env("CACHE_PASSWORD", "hunter2")
        .output()
        .expect("it runs");
    let said = String::from_utf8(output.stdout).expect("it speaks UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("hunter") && !errors.contains("hunter"), "{said}{errors}");
    (said, output.status.code().expect("it ends by itself"))
}

/// The findings as JSON, and whether all is well, which the status says, too.
fn findings(path: &str) -> (Vec<Value>, bool) {
    let (said, status) = doctor(&["--config", path, "--json"]);
    let report: Value = serde_json::from_str(&said).expect("it is JSON");
    let is_healthy = report["is_healthy"].as_bool().expect("it says so");
    assert_eq!(status, i32::from(!is_healthy), "{said}");
    (report["findings"].as_array().expect("a list").clone(), is_healthy)
}

/// The finding of this tier and check.
fn found<'f>(findings: &'f [Value], tier: &str, check: &str) -> &'f Value {
    findings
        .iter()
        .find(|finding| finding["tier"] == tier && finding["check"] == check)
        .unwrap_or_else(|| panic!("{tier} {check} in {findings:#?}"))
}

fn redis_section(redis: &RedisServer, user: &str) -> String {
    let url = format!("redis://{user}@{}", redis.address());
    format!("[redis]\nurl = \"{url}\"\npassword_env = \"CACHE_PASSWORD\"\n")
}

async fn tiers(directory: &Path, redis: &RedisServer, memcached: &Memcached) -> String {
    let sections = format!(
        "[redis]\nurl = \"redis://{}\"\n\n[memcached]\nservers = [\"{}\"]\n",
        redis.address(),
        memcached.address()
    );
    config_with(directory, &sections).await
}

#[tokio::test]
async fn sound_tiers_are_found_sound() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "volatile-lru"]);
    let memcached = Memcached::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = tiers(directory.path(), &redis, &memcached).await;
    let (findings, is_healthy) = findings(&path);
    assert!(is_healthy, "{findings:#?}");
    let fine = [
        ("database", "reachable"),
        ("database", "version"),
        ("database", "queries"),
        ("redis", "reachable"),
        ("redis", "version"),
        ("redis", "rights"),
        ("redis", "clock"),
        ("redis", "eviction"),
        ("redis", "round trip"),
        ("bus", "message"),
        ("bus", "listeners"),
        ("memcached", "connection"),
        ("memcached", "rights"),
    ];
    for (tier, check) in fine {
        assert_eq!(found(&findings, tier, check)["level"], "fine", "{tier} {check}");
    }
    assert_eq!(found(&findings, "redis", "reachable")["at"], redis.address().to_string());
    let message = found(&findings, "bus", "message")["message"].as_str().expect("a text");
    assert!(message.contains("heard back in") && message.ends_with("ms"), "{message}");
    assert_eq!(found(&findings, "bus", "listeners")["message"], "no server listens now");

    let (said, status) = doctor(&["--config", &path]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains(&format!("redis {}\n  ok ", redis.address())), "{said}");
    assert!(said.contains("everything works"), "{said}");
}

#[tokio::test]
async fn clusters_and_sentinels_are_looked_at() {
    let (cluster, sentinel) = (Cluster::start(), Sentinel::start());
    for (section, primaries) in [(cluster_section(&cluster), 3), (sentinel_section(&sentinel), 1)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = config_with(directory.path(), &section).await;
        let (findings, is_healthy) = findings(&path);
        assert!(is_healthy, "{findings:#?}");
        let roles =
            findings.iter().filter(|it| it["check"] == "role" && it["message"] == "primary");
        assert_eq!(roles.count(), primaries, "{findings:#?}");
        for (tier, check) in [("redis", "rights"), ("redis", "round trip"), ("bus", "message")] {
            assert_eq!(found(&findings, tier, check)["level"], "fine", "{findings:#?}");
        }
    }
    sentinel.servers().iter().for_each(RedisServer::kill);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config_with(directory.path(), &sentinel_section(&sentinel)).await;
    let (findings, is_healthy) = findings(&path);
    assert!(!is_healthy, "{findings:#?}");
    assert_eq!(found(&findings, "redis", "reachable")["level"], "failure");
}

#[tokio::test]
async fn a_wrong_password_is_a_failure_with_a_remedy() {
    let redis = RedisServer::launch(&RedisOptions::with_password("hunter3"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config_with(directory.path(), &redis_section(&redis, "")).await;
    let (findings, is_healthy) = findings(&path);
    assert!(!is_healthy);
    let failure = found(&findings, "redis", "reachable");
    assert_eq!(failure["level"], "failure");
    let text = |name: &str| failure[name].as_str().expect("a text").to_owned();
    assert!(text("message").contains("refused the login"), "{failure}");
    assert!(text("remedy").contains("check user and password"), "{failure}");
    let (said, _) = doctor(&["--config", &path]);
    assert!(said.contains("= check user and password") && said.contains("1 failure"), "{said}");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    for right in ["xadd", "mget", "subscribe"] {
        let redis = RedisServer::launch(&RedisOptions {
            users: vec![user_without(&[right])],
            ..RedisOptions::default()
        });
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = config_with(directory.path(), &redis_section(&redis, "app")).await;
        let (findings, is_healthy) = findings(&path);
        assert!(!is_healthy, "{right}");
        let failure = found(&findings, "redis", "rights");
        assert_eq!(
            (failure["level"].as_str(), &failure["at"]),
            (Some("failure"), &redis.address().to_string().into())
        );
        let message = failure["message"].as_str().expect("a text");
        assert!(message.contains(right), "{right}: {message}");
        assert!(failure["remedy"].as_str().expect("a text").contains(&format!("+{right}")));
    }
}

#[tokio::test]
async fn a_user_with_no_more_than_the_rights_needed_is_fine() {
    let redis = RedisServer::launch(&RedisOptions {
        users: vec![user_without(&[])],
        ..RedisOptions::default()
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config_with(directory.path(), &redis_section(&redis, "app")).await;
    let (findings, is_healthy) = findings(&path);
    assert!(is_healthy, "{findings:#?}");
    let listeners = found(&findings, "bus", "listeners");
    assert_eq!(listeners["level"], "warning", "{listeners}");
    assert_eq!(found(&findings, "bus", "message")["level"], "fine");
}

#[tokio::test]
async fn servers_that_are_down_are_told() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = tiers(directory.path(), &redis, &memcached).await;
    redis.kill();
    memcached.kill();
    let (findings, is_healthy) = findings(&path);
    assert!(!is_healthy);
    for (tier, check) in [("redis", "reachable"), ("memcached", "connection")] {
        let failure = found(&findings, tier, check);
        assert_eq!(failure["level"], "failure", "{failure}");
        assert!(failure["remedy"].is_string(), "{failure}");
    }
    assert_eq!(found(&findings, "database", "reachable")["level"], "fine");
}

#[tokio::test]
async fn servers_that_stand_still_are_told_in_good_time() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = tiers(directory.path(), &redis, &memcached).await;
    redis.pause();
    memcached.pause();
    let began = Instant::now();
    let (findings, is_healthy) = findings(&path);
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    assert!(!is_healthy);
    for (tier, check) in [("redis", "reachable"), ("memcached", "connection")] {
        assert_eq!(found(&findings, tier, check)["level"], "failure", "{findings:#?}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_a_failure_with_a_remedy() {
    let redis = RedisServer::launch(&RedisOptions::with_tls(&Authority::new()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let section = format!("[redis]\nurl = \"rediss://{}\"\n", redis.address());
    let path = config_with(directory.path(), &section).await;
    let (findings, is_healthy) = findings(&path);
    assert!(!is_healthy);
    let failure = found(&findings, "redis", "reachable");
    let text = |name: &str| failure[name].as_str().expect("a text").to_owned();
    assert!(text("message").contains("certificate"), "{failure}");
    assert!(text("remedy").contains("ca_file"), "{failure}");
}

#[tokio::test]
async fn databases_directories_and_an_existing_redis_are_looked_at() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sections = "[disk]\ndirectory = \"/dev/null/larder\"\n\n\
                    [front]\nurl = \"redis://127.0.0.1:1\"\n\n\
                    [caches.odd]\nkey = \"odd:{id}\"\nquery = \"SELECT nothing FROM nowhere WHERE id = :id\"\n";
    let path = config_with(directory.path(), sections).await;
    let (findings, is_healthy) = findings(&path);
    assert!(!is_healthy);
    for (tier, check) in [("database", "queries"), ("disk", "directory"), ("front", "reachable")] {
        assert_eq!(found(&findings, tier, check)["level"], "failure", "{findings:#?}");
    }
    assert!(
        found(&findings, "database", "queries")["message"]
            .as_str()
            .expect("a text")
            .contains("odd")
    );

    let sound = tempfile::tempdir().expect("a temporary directory");
    let disk = sound.path().join("disk");
    let section = format!("[disk]\ndirectory = \"{}\"\n", disk.display());
    let path = config_with(sound.path(), &section).await;
    let (findings, is_healthy) = self::findings(&path);
    assert!(is_healthy, "{findings:#?}");
    assert_eq!(found(&findings, "disk", "directory")["message"], "it can be made");
    assert!(!disk.exists(), "the doctor makes nothing");

    let missing = directory.path().join("no.db");
    let url = format!("sqlite:{}", missing.display());
    let (said, status) = doctor(&["--database", &url]);
    assert!(status == 1 && said.contains("database no") && said.contains("failure"), "{said}");
}

#[test]
fn a_file_with_mistakes_is_told_in_both_forms() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let path = path.to_str().expect("the path is text");
    std::fs::write(path, "[redis]\nprefix = \"x\"\n").expect("it can be written");
    let (findings, _) = findings(path);
    let mistake = found(&findings, "configuration", "option");
    assert_eq!(mistake["at"], format!("{path}:1"));
    let (_, status) = doctor(&["--config", path]);
    assert_eq!(status, 1);
    std::fs::write(path, "[redis]\nurl_env = \"NO_SUCH_VARIABLE\"\n").expect("it can be written");
    let (findings, is_healthy) = self::findings(path);
    assert!(!is_healthy && findings.len() == 1, "{findings:#?}");
    let (said, status) = doctor(&[]);
    assert!(status == 0 && said.contains("no tier is configured"), "{said}");
}
