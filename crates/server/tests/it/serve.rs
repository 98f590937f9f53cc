//! The server's life: start, reload, stop, and what keeps it from starting.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::running::{PATIENCE, Running, larder};

/// A database with one album of one artist.
async fn database(directory: &Path) -> PathBuf {
    let path = directory.join("music.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.expect("it can be made");
    for statement in [
        "CREATE TABLE artist (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "CREATE TABLE album (id INTEGER PRIMARY KEY, title TEXT, artist_id INTEGER, updated_at TEXT)",
        "CREATE TABLE secret (id INTEGER PRIMARY KEY, token TEXT)",
        "INSERT INTO artist VALUES (3, 'Miles')",
        "INSERT INTO album VALUES (7, 'Kind of Blue', 3, '1959-08-17 00:00:00')",
        "INSERT INTO album VALUES (8, 'Milestones', 3, NULL)",
    ] {
        sqlx::query(statement).execute(&mut connection).await.expect("it is SQL");
    }
    connection.close().await.expect("it can be closed");
    path
}

const CONFIG: &str = r#"
[origins.music]
url = "sqlite:DATABASE"
exclude_tables = ["secret"]

[defaults]
ttl = "1m"

[caches.album]
table = "album"
ttl_by_age = { column = "updated_at" }
tags = ["artist:{artist_id}"]

[caches.albums_of_artist]
key = "artist:{artist_id}:albums"
query = "SELECT id, title FROM album WHERE artist_id = :artist_id ORDER BY id"
list = true
tags = ["artist:{artist_id}"]
"#;

/// Writes the configuration, changed as asked, and returns its path.
pub(crate) async fn config(directory: &Path, change: impl FnOnce(String) -> String) -> String {
    let database = database(directory).await;
    let text = change(CONFIG.replace("DATABASE", &database.display().to_string()));
    let path = directory.join("larder.toml");
    std::fs::write(&path, text).expect("it can be written");
    path.to_str().expect("the path is text").to_owned()
}

pub(crate) async fn get(
    redis: &mut redis::aio::MultiplexedConnection,
    key: &str,
) -> Option<String> {
    redis::cmd("GET").arg(key).query_async(redis).await.expect("it is answered")
}

#[tokio::test]
async fn caches_of_tables_and_queries_with_tags_and_rules() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config(directory.path(), |text| text).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    assert_eq!(get(&mut redis, "artist:3").await.as_deref(), Some(r#"{"id":3,"name":"Miles"}"#));
    assert_eq!(
        get(&mut redis, "artist:3:albums").await.as_deref(),
        Some(r#"[{"id":7,"title":"Kind of Blue"},{"id":8,"title":"Milestones"}]"#)
    );
    assert!(get(&mut redis, "album:7").await.expect("it is there").contains("Blue"));
    assert_eq!(get(&mut redis, "secret:1").await, None, "an excluded table has no keys");

    let (status, entry) = server.page("/caches/album/keys/album:7").await;
    assert_eq!(status, 200, "{entry}");
    assert_eq!(entry["tags"][0], "artist:3");
    let fresh = entry["fresh_for_seconds"].as_f64().expect("it ends");
    assert!(
        (70_000.0..86_400.0).contains(&fresh),
        "an old row holds for a day less jitter: {fresh}"
    );

    let removed: i64 = redis::cmd("LARDER.REMOVE")
        .arg("TAG")
        .arg("artist:3")
        .query_async(&mut redis)
        .await
        .expect("it is answered");
    assert!(removed >= 1);
    assert_eq!(server.page("/caches/album/keys/album:7").await.0, 404);
    assert_eq!(server.page("/caches/albums_of_artist/keys/artist:3:albums").await.0, 404);
}

#[tokio::test]
async fn a_policy_is_reloaded_and_a_bad_file_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config(directory.path(), |text| text).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let ttl = async |server: &Running| {
        let (_, cache) = server.page("/caches/artist").await;
        cache["policy"]["ttl"]["value"].as_str().expect("a TTL").to_owned()
    };
    assert_eq!(ttl(&server).await, "1m");

    let good = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, good.replace("ttl = \"1m\"", "ttl = \"9m\"")).expect("it is written");
    server.signal("HUP");
    // The change may be noticed before the signal is, and applied twice.
    server.wait_for_metric("larder_config_reloads_total", 1.0).await;
    assert_eq!(ttl(&server).await, "9m");

    // Put under the name of the old one, and noticed without a signal.
    let other = directory.path().join("other.toml");
    std::fs::write(&other, good.replace("ttl = \"1m\"", "tll = \"1s\"")).expect("it is written");
    std::fs::rename(&other, &path).expect("it is put in place");
    server.wait_for_metric("larder_config_reload_failures_total", 1.0).await;
    assert_eq!(ttl(&server).await, "9m", "what held before still holds");
    let (_, caches) = server.page("/caches").await;
    let error = caches["configuration"]["last_error"].as_str().expect("it is told").to_owned();
    assert!(error.contains("larder.toml:7:1") && error.contains("did you mean `ttl`?"), "{error}");
    assert!(server.log().contains("larder.toml:7:1"), "{}", server.log());

    let reloads = server.metric("larder_config_reloads_total").await.expect("it is counted");
    let changed = good.replace("ttl = \"1m\"", "ttl = \"2m\"") + "[server]\nmax_clients = 7\n";
    std::fs::write(&path, changed).expect("it is written");
    server.wait_for_metric("larder_config_reloads_total", reloads + 1.0).await;
    assert_eq!(ttl(&server).await, "2m");
    assert!(
        server.log().contains("needs a restart to hold: server.max_clients"),
        "{}",
        server.log()
    );
    assert_eq!(
        server.page("/caches").await.1["configuration"]["last_error"],
        serde_json::Value::Null
    );
}

#[tokio::test]
async fn a_reload_changes_what_the_next_load_keeps() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config(directory.path(), |text| text).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("ttl = \"1m\"", "ttl = \"1h\"")).expect("it is written");
    server.signal("HUP");
    server.wait_for_metric("larder_config_reloads_total", 1.0).await;
    get(&mut redis, "artist:3").await.expect("it is there");
    let (_, entry) = server.page("/caches/artist/keys/artist:3").await;
    assert!(entry["fresh_for_seconds"].as_f64().expect("it ends") > 3_000.0, "{entry}");
}

#[tokio::test]
async fn a_signal_drains_and_ends_with_success() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut server = Running::start(directory.path(), &[]);
    assert!(server.banner.contains("every key is a plain key"), "{}", server.banner);
    let mut redis = server.redis().await;
    let _: () = redis::cmd("SET").arg("a").arg("b").query_async(&mut redis).await.expect("OK");
    assert_eq!(get(&mut redis, "a").await.as_deref(), Some("b"));
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
    let log = server.log();
    assert!(log.contains("ready") && log.contains("stopped after"), "{log}");
    assert!(tokio::net::TcpStream::connect(server.redis).await.is_err());
}

/// A configuration with a query that takes its time: it counts up to a number.
async fn slow_config(directory: &Path, count: u64) -> String {
    slow_config_with(directory, count, "").await
}

/// The same, with more options of the origin.
async fn slow_config_with(directory: &Path, count: u64, origin: &str) -> String {
    let slow = r#"
[caches.slow]
key = "slow:{id}"
query = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < COUNT)
SELECT :id AS id, count(*) AS counted FROM n
"""
types = { id = "integer" }
soft_timeout = "50s"
hard_timeout = "55s"
"#;
    let slow = slow.replace("COUNT", &count.to_string());
    let change = |text: String| {
        let origin = format!("statement_timeout = \"60s\"\n{origin}exclude_tables");
        text.replace("exclude_tables", &origin) + &slow
    };
    config(directory, change).await
}

#[tokio::test]
async fn what_runs_is_finished_and_meanwhile_the_server_is_not_ready() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = slow_config(directory.path(), 3_000_000).await;
    let mut server = Running::start(directory.path(), &["--config", &path]);
    assert_eq!(server.page("/readyz").await.0, 200);
    let mut redis = server.redis().await;
    let reading = tokio::spawn(async move { get(&mut redis, "slow:1").await });
    server.wait_for_metric("larder_cache_loads_in_flight{cache=\"slow\"}", 1.0).await;
    server.signal("TERM");
    while server.metric("larder_draining").await != Some(1.0) {}
    let (status, page) = server.page("/readyz").await;
    assert_eq!((status, page["reasons"][0].as_str()), (503, Some("the server is stopping")));
    let row = reading.await.expect("it does not panic").expect("it is answered");
    assert_eq!(row, r#"{"id":1,"counted":3000000}"#);
    assert!(server.wait().success(), "{}", server.log());
    assert!(tokio::net::TcpStream::connect(server.redis).await.is_err());
}

#[tokio::test]
async fn a_burst_waits_its_turn_and_the_breaker_stays_closed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let origin = "pool_size = 1\nacquire_timeout = \"20ms\"\nbreaker = { failures = 1 }\n";
    let path = slow_config_with(directory.path(), 300_000, origin).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut clients = tokio::task::JoinSet::new();
    for id in 0..6 {
        let mut redis = server.redis().await;
        clients.spawn(async move { get(&mut redis, &format!("slow:{id}")).await });
    }
    for row in clients.join_all().await {
        assert!(row.expect("it is answered").contains("\"counted\":300000"));
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = slow_config(directory.path(), 3_000_000_000).await;
    let mut server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let reading = tokio::spawn(async move {
        let row: redis::RedisResult<Option<String>> =
            redis::cmd("GET").arg("slow:1").query_async(&mut redis).await;
        row.is_err()
    });
    server.wait_for_metric("larder_cache_loads_in_flight{cache=\"slow\"}", 1.0).await;
    server.signal("TERM");
    server.wait_for_metric("larder_draining", 1.0).await;
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    assert!(reading.await.expect("it does not panic"), "the client is cut off");
}

#[tokio::test]
async fn passwords_guard_both_doors() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Running::start_with(directory.path(), &["--password-env", "TEST_SECRET"], |it| {
        it.env("TEST_SECRET", "sesame");
    });
    let client = redis::Client::open(format!("redis://{}", server.redis)).expect("a URL");
    let mut stranger = client.get_multiplexed_async_connection().await.expect("the door is open");
    let refused = redis::cmd("GET").arg("a").query_async::<Option<String>>(&mut stranger).await;
    assert!(refused.expect_err("it needs a password").to_string().contains("NOAUTH"));
    let friend = format!("redis://:sesame@{}", server.redis);
    let client = redis::Client::open(friend).expect("a URL");
    let mut friend =
        client.get_multiplexed_async_connection().await.expect("the password is right");
    assert_eq!(get(&mut friend, "a").await, None);
    assert_eq!(server.page("/caches").await.0, 401);
    assert_eq!(server.page("/healthz").await.0, 200);
    let url = format!("http://{}/caches", server.admin);
    let answer = reqwest::Client::new().get(url).bearer_auth("sesame").send().await;
    assert_eq!(answer.expect("it is answered").status(), 200);
}

/// Runs a server that does not start; returns what it says.
fn refused(arguments: &[&str]) -> String {
    let mut child = larder()
        .arg("serve")
        .args(["--port", "0", "--admin-bind", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it starts");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("it ended");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("it says it in UTF-8")
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_in_a_paragraph() {
    let said = refused(&["--database", "sqlite:/no/such/shop.db"]);
    assert!(said.contains("/no/such/shop.db") && !said.contains("panicked"), "{said}");
    let said = refused(&["--database", "oracle://scott:tiger@db/shop"]);
    assert!(said.contains("sqlite:, postgres:// or mysql://") && !said.contains("tiger"), "{said}");
    let said = refused(&["--database", "postgres://ann:hunter2@127.0.0.1:1/shop"]);
    assert!(said.contains("origin `shop`") && !said.contains("hunter2"), "{said}");
    let said = refused(&["--bind", "0.0.0.0"]);
    assert!(said.contains("no password is set") && said.contains("--password-env"), "{said}");
    let said = refused(&["--config", "/no/such/larder.toml"]);
    assert!(said.contains("larder config example"), "{said}");
    let said = refused(&["--password-env", "LARDER_TEST_UNSET"]);
    assert!(said.contains("LARDER_TEST_UNSET"), "{said}");

    let directory = tempfile::tempdir().expect("a temporary directory");
    let taken = Running::start(directory.path(), &[]);
    let port = taken.redis.port().to_string();
    let said = refused(&["--port", &port]);
    assert!(said.contains(&port) && said.contains("choose another"), "{said}");
}

#[tokio::test]
async fn what_only_the_database_can_tell_is_told_with_its_place() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = config(directory.path(), |text| {
        text.replace("table = \"album\"", "table = \"albun\"")
            .replace("SELECT id, title", "SELECT id, titel")
    })
    .await;
    let said = refused(&["--config", &path]);
    assert!(said.contains("larder.toml:10:1") && said.contains("did you mean `album`?"), "{said}");
    let output = larder().args(["check", "--connect", &path]).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no such column: titel") && said.contains("2 errors"), "{said}");
}
