//! Commands and transactions over keys of a database's caches and keys of the
//! Redis behind the server.

use std::path::Path;

use larder_testkit::redis::{Cluster, RedisServer};
use redis::Value;
use sqlx::Connection as _;

use crate::running::Running;
use crate::serve::config;

const BLUE: &str =
    r#"{"id":7,"title":"Kind of Blue","artist_id":3,"updated_at":"1959-08-17 00:00:00"}"#;

/// A client that speaks as `redis-cli` does.
struct Asker(redis::aio::MultiplexedConnection);

impl Asker {
    /// Sends a command and shows its reply in one line.
    async fn ask(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let reply: redis::RedisResult<Value> =
            redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.0).await;
        match reply {
            Ok(value) => shown(&value),
            Err(error) => format!("-{error}"),
        }
    }

    async fn check(&mut self, lines: &[(&str, &str)]) {
        for (line, expected) in lines {
            assert_eq!(self.ask(line).await, *expected, "{line}");
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).replace(BLUE, "BLUE"),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::ServerError(error) => format!("-{error}"),
        other => format!("{other:?}"),
    }
}

async fn start(directory: &Path, url: &str) -> (Running, Asker) {
    start_with(directory, url, |text| text).await
}

/// The same with another configuration of the caches.
async fn start_with(
    directory: &Path,
    url: &str,
    change: impl FnOnce(String) -> String,
) -> (Running, Asker) {
    let front = format!("\n[front]\nurl = \"{url}\"\n");
    let path = config(directory, |text| change(text) + &front).await;
    let server = Running::start(directory, &["--config", &path]);
    let asker = Asker(server.redis().await);
    (server, asker)
}

/// In a cluster, other keys of Redis than these are elsewhere.
async fn transactions(asker: &mut Asker) {
    asker
        .check(&[
            ("MULTI", "OK"),
            ("SET {r}a 1", "QUEUED"),
            ("GET album:7", "QUEUED"),
            ("INCR {r}a", "QUEUED"),
            ("MGET {r}a album:99 album:7 {r}none", "QUEUED"),
            ("EXISTS album:7 {r}a {r}none album:99", "QUEUED"),
            ("STRLEN album:7", "QUEUED"),
            ("GET {r}a", "QUEUED"),
            ("EXEC", "[OK BLUE 2 [2 nil BLUE nil] 2 80 2]"),
            // Of caches alone, and of none.
            ("MULTI", "OK"),
            ("MGET album:7 album:99", "QUEUED"),
            ("TYPE album:7", "QUEUED"),
            ("EXEC", "[[BLUE nil] string]"),
            ("MULTI", "OK"),
            ("EXEC", "[]"),
            ("MULTI", "OK"),
            ("GET album:7", "QUEUED"),
            ("SET {r}a 9", "QUEUED"),
            ("DISCARD", "OK"),
            ("GET {r}a", "2"),
            // What was read in one transaction is not answered in the next.
            ("MULTI", "OK"),
            ("GET {r}a", "QUEUED"),
            ("EXEC", "[2]"),
            ("WATCH {r}a", "OK"),
            ("MGET {r}a album:7", "[2 BLUE]"),
            ("MULTI", "OK"),
            ("GET album:7", "QUEUED"),
            ("INCR {r}a", "QUEUED"),
            ("EXEC", "[BLUE 3]"),
            ("WATCH {r}a", "OK"),
            ("SET {r}a 5", "OK"),
            ("MULTI", "OK"),
            ("GET album:7", "QUEUED"),
            ("SET {r}a 6", "QUEUED"),
            ("EXEC", "nil"),
            ("GET {r}a", "5"),
        ])
        .await;
    for (mistake, complaint) in [
        ("SET album:7 x", "takes no writes"),
        ("HSET album:7 f v", "takes no writes"),
        ("DEL album:7 {r}a", "takes no writes"),
        ("GET album:7 x", "wrong number of arguments"),
        ("MSET album:7 x {r}a y", "takes no writes"),
        ("GET", "wrong number of arguments"),
    ] {
        asker.check(&[("MULTI", "OK"), ("SET {r}a spoiled", "QUEUED")]).await;
        asker.check(&[("GET album:7", "QUEUED")]).await;
        let reply = asker.ask(mistake).await;
        assert!(reply.contains(complaint), "{mistake}: {reply}");
        let exec = asker.ask("EXEC").await;
        assert!(exec.contains("EXECABORT") || exec.contains("discarded"), "{mistake}: {exec}");
        asker.check(&[("GET {r}a", "5")]).await;
    }
    asker.check(&[("MULTI", "OK"), ("GETRANGE album:7 a b", "QUEUED")]).await;
    let reply = asker.ask("EXEC").await;
    assert!(reply.contains("not an integer"), "{reply}");
}

async fn single_commands(asker: &mut Asker) {
    asker
        .check(&[
            ("SET other 1", "OK"),
            ("MGET other album:7 none album:99 other", "[1 BLUE nil nil 1]"),
            ("MGET album:7 other", "[BLUE 1]"),
            ("EXISTS other album:7 none album:99 album:7", "3"),
            ("TOUCH album:7 other none", "2"),
            ("SET other 2", "OK"),
            ("MGET album:7 other", "[BLUE 2]"),
            ("DEL other", "1"),
            ("MGET album:7 other", "[BLUE nil]"),
        ])
        .await;
    for command in ["DEL album:7 other", "MSET other 1 album:7 x", "RENAME other album:7"] {
        let reply = asker.ask(command).await;
        assert!(
            reply.contains("ask for them separately") || reply.contains("no writes"),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn keys_of_caches_and_of_redis_together() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("redis://{}", redis.address());
    let (server, mut asker) = start(directory.path(), &url).await;
    transactions(&mut asker).await;
    single_commands(&mut asker).await;
    // Where a cache cannot be loaded, nothing is done.
    let mut database = open_database(directory.path()).await;
    sqlx::query("ALTER TABLE album RENAME TO hidden").execute(&mut database).await.expect("it is");
    asker.check(&[("SET done no", "OK"), ("MULTI", "OK"), ("SET done yes", "QUEUED")]).await;
    asker.check(&[("GET album:8", "QUEUED")]).await;
    let aborted = asker.ask("EXEC").await;
    assert!(aborted.contains("EXECABORT") || aborted.contains("discarded"), "{aborted}");
    asker.check(&[("GET done", "no")]).await;
    let failed = asker.ask("MGET album:8 done").await;
    assert!(failed.starts_with('-'), "{failed}");
    sqlx::query("ALTER TABLE hidden RENAME TO album").execute(&mut database).await.expect("it is");
    // In one go, and in both protocols.
    let mut client = redis::Client::open(format!("redis://{}/?protocol=resp3", server.redis));
    let client = client.as_mut().expect("a URL");
    let mut three = client.get_multiplexed_async_connection().await.expect("the door is open");
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("INCR").arg("n").cmd("GET").arg("album:7").cmd("INCR").arg("n");
    for number in [1, 3, 5] {
        let found: (i64, String, i64) = pipeline.query_async(&mut three).await.expect("it runs");
        assert_eq!(found, (number, BLUE.to_owned(), number + 1));
    }
    let found: Vec<Option<String>> =
        redis::cmd("MGET").arg("n").arg("album:7").query_async(&mut three).await.expect("it is");
    assert_eq!(found, [Some("6".to_owned()), Some(BLUE.to_owned())]);
}

async fn open_database(directory: &Path) -> sqlx::SqliteConnection {
    let file = std::fs::read_dir(directory)
        .expect("it can be read")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == "db" || it == "sqlite"))
        .expect("there is a database");
    sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .expect("it can be opened")
}

#[tokio::test]
async fn keys_of_caches_and_of_a_cluster_together() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    // That it is a cluster it says itself.
    let url = format!("redis://{}", cluster.servers()[0].address());
    let (server, mut asker) = start(directory.path(), &url).await;
    assert!(server.banner.contains("(cluster)"), "{}", server.banner);
    transactions(&mut asker).await;
    single_commands(&mut asker).await;
    asker
        .check(&[
            // A key of a cache says nothing of where the transaction belongs.
            ("MULTI", "OK"),
            ("GET album:7", "QUEUED"),
            ("PING", "QUEUED"),
            ("SET {q}1 x", "QUEUED"),
            ("EXEC", "[BLUE PONG OK]"),
            ("MGET a b album:7 c", "[nil nil BLUE nil]"),
        ])
        .await;
    asker.check(&[("MULTI", "OK"), ("SET {q}1 y", "QUEUED"), ("GET album:7", "QUEUED")]).await;
    let reply = asker.ask("MGET {r}a album:7").await;
    assert!(reply.contains("CROSSSLOT") || reply.contains("same slot"), "{reply}");
    let reply = asker.ask("EXEC").await;
    assert!(reply.contains("EXECABORT") || reply.contains("discarded"), "{reply}");
    asker.check(&[("GET {q}1", "x")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_written_cache_refuses_is_not_said_to_take_no_writes() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("redis://{}", redis.address());
    let written = "table = \"album\"\nwrite = {}";
    let (_server, mut asker) =
        start_with(directory.path(), &url, |text| text.replace("table = \"album\"", written)).await;
    for (mistake, complaint) in [
        ("SET album:7 x", "'set' cannot write 'album:7' of the cache 'album'"),
        ("HSET album:7 f v", "'hset' cannot write 'album:7' of the cache 'album'"),
        ("DEL album:7 r", "ask for them separately"),
    ] {
        asker.check(&[("MULTI", "OK")]).await;
        let reply = asker.ask(mistake).await;
        assert!(reply.contains(complaint), "{mistake}: {reply}");
        let exec = asker.ask("EXEC").await;
        assert!(exec.contains("EXECABORT") || exec.contains("discarded"), "{mistake}: {exec}");
        if !mistake.starts_with("SET") {
            let reply = asker.ask(mistake).await;
            assert!(reply.contains(complaint), "{mistake}: {reply}");
        }
    }
}
