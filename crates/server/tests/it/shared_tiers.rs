//! `[redis]` and `[memcached]`: what a server does with them when it starts.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use larder_testkit::certificates::{Authority, TlsOptions};
use larder_testkit::memcached::{Memcached, MemcachedOptions};
use larder_testkit::redis::{RedisOptions, RedisServer};

use tempfile::TempDir;

use crate::running::{Running, larder, wait_until};
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

/// A memcached that asks for a password. The testkit's own looks whether it
/// answers without one.
struct PasswordMemcached {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl PasswordMemcached {
    async fn start(users: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let file = directory.path().join("users");
        std::fs::write(&file, users).expect("it can be written");
        // The server runs as another user.
        for (path, mode) in [(directory.path(), 0o755), (&*file, 0o644)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .expect("one's own file can be opened to others");
        }
        let address = SocketAddr::from(([127, 0, 0, 1], larder_testkit::process::free_port()));
        let child = Command::new("memcached")
            .args(["-u", "nobody", "-U", "0", "-l", &address.to_string(), "-Y"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("memcached is installed");
        let server = Self { child, address, _directory: directory };
        wait_until("memcached listens", || TcpStream::connect(address).is_ok()).await;
        server
    }
}

impl Drop for PasswordMemcached {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_memcached_with_a_password_is_used_with_the_right_one_only() {
    let redis = RedisServer::start();
    for (users, is_right) in [("ann:hunter2\n", true), ("ann:hunter3\n", false)] {
        let memcached = PasswordMemcached::start(users).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sections = format!(
            "[redis]\nurl = \"redis://{}\"\n\n[memcached]\nservers = [\"{}\"]\nuser = \"ann\"\n\
             password_env = \"CACHE_PASSWORD\"\n",
            redis.address(),
            memcached.address
        );
        let path = config_with(directory.path(), &sections).await;
        let checked = larder()
            .args(["check", "--connect", &path])
            .env("CACHE_PASSWORD", "hunter2")
            .output()
            .expect("it runs");
        let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.success(), is_right, "{complaints}");
        if !is_right {
            let said = refusal(&path);
            for said in [said, complaints] {
                assert!(said.contains("refused the user or password (server:"), "{said}");
                assert!(said.contains("larder.toml:23:2: error: [memcached]"), "{said}");
            }
            continue;
        }
        let server = Running::start_with(directory.path(), &["--config", &path], |command| {
            command.env("CACHE_PASSWORD", "hunter2");
        });
        get(&mut server.redis().await, "artist:3").await.expect("it is there");
        let fills = "larder_store_fills_total{cache=\"artist\",store=\"memcached\"}";
        server.wait_for_metric(fills, 1.0).await;
    }
}

#[tokio::test]
async fn check_connects_to_the_shared_tiers_if_it_is_told_to() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    redis.kill();
    memcached.kill();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sections = format!(
        "[redis]\nurl = \"redis://{}\"\n\n[memcached]\nservers = [\"{}\"]\n",
        redis.address(),
        memcached.address()
    );
    let path = config_with(directory.path(), &sections).await;
    let offline = larder().args(["check", &path]).output().expect("it runs");
    assert!(offline.status.success());
    let output = larder().args(["check", "--connect", &path]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for section in ["toml:20:2: error: [redis] cannot", "toml:23:2: error: [memcached] cannot"] {
        assert!(said.contains(section), "{said}");
    }
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
    wait_until("Redis is used", || server.log().contains("Redis is there")).await;
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
