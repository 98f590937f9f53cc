//! `[redis]` and `[memcached]`: what a server does with them when it starts.

use std::path::Path;

use larder_testkit::certificates::{Authority, TlsOptions};
use larder_testkit::memcached::{Memcached, MemcachedOptions};
use larder_testkit::redis::{RedisOptions, RedisServer};

use crate::running::{Running, larder};
use crate::serve::{config, get};

/// The rules of a user with every right but those named.
pub(crate) fn user_without(missing: &[&str]) -> String {
    let rights = larder_redis::RIGHTS.iter().filter(|right| !missing.contains(right));
    let rights: Vec<String> = rights.map(|right| format!("+{right}")).collect();
    format!("app on >hunter2 ~larder:* ~{{larder}}:* &larder:* &{{larder}}:* {}", rights.join(" "))
}

/// The configuration of a server with these sections.
pub(crate) async fn config_with(directory: &Path, sections: &str) -> String {
    config(directory, |text| format!("{text}\n{sections}")).await
}

/// What a server says that does not start.
pub(crate) fn refusal(path: &str) -> String {
    let output = larder()
        .args(["serve", "--port", "0", "--admin-bind", "127.0.0.1:0", "--config", path])
        .env("CACHE_PASSWORD", "hunter2")
        .output()
        .expect("it runs");
    assert!(!output.status.success(), "it does not start");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("hunter"), "a password is shown: {said}");
    said
}

#[tokio::test]
async fn a_wrong_password_is_told_at_its_line() {
    let redis = RedisServer::launch(&RedisOptions::with_password("hunter3"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let section = format!(
        "[redis]\nurl = \"redis://{}\"\npassword_env = \"CACHE_PASSWORD\"\n",
        redis.address()
    );
    let path = config_with(directory.path(), &section).await;
    let said = refusal(&path);
    assert!(said.contains("larder.toml:20:2: error: [redis] cannot be used"), "{said}");
    assert!(
        said.contains("refused the login") && said.contains("check user and password"),
        "{said}"
    );
    assert!(said.contains(&redis.address().to_string()), "{said}");
}

#[tokio::test]
async fn a_missing_right_is_named_with_its_server() {
    let redis = RedisServer::launch(&RedisOptions {
        users: vec![user_without(&["xadd"])],
        ..RedisOptions::default()
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("redis://app@{}", redis.address());
    let section = format!("[redis]\nurl = \"{url}\"\npassword_env = \"CACHE_PASSWORD\"\n");
    let path = config_with(directory.path(), &section).await;
    let said = refusal(&path);
    assert!(said.contains("right: +xadd") && said.contains("give the user"), "{said}");
    assert!(said.contains(&redis.address().to_string()), "{said}");
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_told() {
    let redis = RedisServer::launch(&RedisOptions::with_tls(&Authority::new()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stranger = Authority::new();
    let section = format!(
        "[redis]\nurl = \"rediss://{}\"\nca_file = \"{}\"\n",
        redis.address(),
        stranger.certificate().display()
    );
    let path = config_with(directory.path(), &section).await;
    let said = refusal(&path);
    assert!(said.contains("certificate") && said.contains("ca_file"), "{said}");
}

#[tokio::test]
async fn a_memcached_that_does_not_let_it_in_is_told() {
    let (redis, authority) = (RedisServer::start(), Authority::new());
    let memcached = Memcached::launch(&MemcachedOptions {
        tls: Some(TlsOptions::new(&authority)),
        ..MemcachedOptions::default()
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sections = |options: &str| {
        format!(
            "[redis]\nurl = \"redis://{}\"\n\n[memcached]\nservers = [\"{}\"]\n{options}",
            redis.address(),
            memcached.address()
        )
    };
    let stranger = Authority::new();
    let options = format!("tls = true\nca_file = \"{}\"\n", stranger.certificate().display());
    let path = config_with(directory.path(), &sections(&options)).await;
    let said = refusal(&path);
    assert!(said.contains("[memcached] cannot be used") && said.contains("ca_file"), "{said}");
    let again = tempfile::tempdir().expect("a temporary directory");
    let options = format!("tls = true\nca_file = \"{}\"\n", authority.certificate().display());
    let path = config_with(again.path(), &sections(&options)).await;
    let server = Running::start(again.path(), &["--config", &path]);
    let shown = format!("entries in memcached: {}", memcached.address());
    assert!(server.banner.contains(&shown), "{}", server.banner);
    assert!(server.banner.contains("bus and leases in Redis"), "{}", server.banner);
}

#[tokio::test]
async fn a_server_starts_without_its_shared_tiers_and_says_so() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    redis.kill();
    memcached.kill();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let section = format!(
        "[redis]\nurl = \"redis://{}\"\n\n[memcached]\nservers = [\"{}\"]\n",
        redis.address(),
        memcached.address()
    );
    let path = config_with(directory.path(), &section).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    for tier in ["Redis cannot be used now", "memcached cannot be used now"] {
        assert!(server.log().contains(tier), "{}", server.log());
    }
    let mut connection = server.redis().await;
    let artist = get(&mut connection, "artist:3").await;
    assert_eq!(artist.as_deref(), Some(r#"{"id":3,"name":"Miles"}"#));
    redis.revive();
    crate::running::wait_until("Redis is used", || server.log().contains("Redis is there")).await;
}

#[tokio::test]
async fn the_configuration_in_force_shows_no_password() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let section = "[redis]\nurls = [\"redis://ann:hunter2@a\", \"redis://ann:hunter2@b\"]\n\n\
                   [memcached]\nservers = [\"c\"]\n";
    let path = config_with(directory.path(), section).await;
    let output = larder().args(["config", "print", "--config", &path]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("hunter2"), "{said}");
    assert!(said.contains("redis://ann:***@b") && said.contains("[memcached]"), "{said}");
}

#[tokio::test]
async fn what_the_sections_name_must_be_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let text = "[redis]\nurl_env = \"LARDER_TEST_URLS\"\npassword_env = \"NO_SUCH_VARIABLE\"\n\
                ca_file = \"/no/such/file\"\n\n[memcached]\nservers = [\"a\"]\nuser = \"ann\"\n\
                password_file = \"/no/such/password\"\n";
    std::fs::write(&path, text).expect("it can be written");
    let output = larder()
        .arg("check")
        .arg(&path)
        .env("LARDER_TEST_URLS", "rediss://a, http://ann:hunter2@b")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.contains("hunter2"), "{said}");
    for place in ["toml:2:", "NO_SUCH_VARIABLE", "/no/such/file", "/no/such/password"] {
        assert!(said.contains(place), "{place}: {said}");
    }
}
