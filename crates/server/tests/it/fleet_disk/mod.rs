//! Servers with a disk each and a Redis between them: one that was away starts
//! warm, and serves nothing that the others removed meanwhile.

mod kills;
mod restarts;

use std::path::PathBuf;
use std::time::Duration;

use larder_testkit::redis::RedisServer;
use redis::aio::MultiplexedConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::running::Running;

/// The node that is stopped and started.
const AWAY: usize = 2;

/// How many items, and how many of them are on a shelf.
const ITEMS: u64 = 1000;
const PER_SHELF: u64 = 20;
const PAGES: u64 = 100;

/// Three servers over one database of items on shelves, and of pages. The number
/// of a row is what a test changes.
struct Shop {
    directory: TempDir,
    redis: RedisServer,
    nodes: Vec<Option<Running>>,
}

impl Shop {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let shop = Self { directory, redis: RedisServer::start(), nodes: Vec::new() };
        let mut database = shop.database().await;
        for statement in [
            "CREATE TABLE item (id INTEGER PRIMARY KEY, number INTEGER, shelf INTEGER)".to_owned(),
            "CREATE TABLE page (id INTEGER PRIMARY KEY, number INTEGER)".to_owned(),
            format!("{} INSERT INTO item SELECT i, 0, i / {PER_SHELF} FROM n", count_to(ITEMS)),
            format!("{} INSERT INTO page SELECT i, 0 FROM n", count_to(PAGES)),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&mut database)
                .await
                .expect("it is SQL");
        }
        database.close().await.expect("it can be closed");
        let mut shop = shop;
        for place in 0..3 {
            shop.nodes.push(None);
            shop.start(place);
        }
        shop
    }

    async fn database(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.path("shop.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(30));
        options.connect().await.expect("it can be opened")
    }

    /// Starts a node on the disk that it had before.
    fn start(&mut self, place: usize) {
        let home = self.path(&format!("node-{place}"));
        std::fs::create_dir_all(&home).expect("a directory can be made");
        let text = format!(
            "[origins.shop]\nurl = \"sqlite:{}\"\n\n[defaults]\nttl = \"1h\"\n\n\
             [caches.item]\ntable = \"item\"\ntags = [\"shelf:{{shelf}}\"]\n\n\
             [caches.page]\ntable = \"page\"\n\n\
             [redis]\nurl = \"redis://{}\"\nstaleness_bound = \"1s\"\n\n\
             [disk]\ndirectory = \"{}\"\nbudget = \"512MiB\"\n",
            self.path("shop.db").display(),
            self.redis.address(),
            home.join("disk").display(),
        );
        let path = home.join("larder.toml");
        std::fs::write(&path, text).expect("it can be written");
        let path = path.to_str().expect("the path is text");
        self.nodes[place] = Some(Running::start(&home, &["--config", path]));
    }

    /// Ends a node by a signal and waits until it is gone.
    fn end(&mut self, place: usize, signal: &str) {
        let mut node = self.nodes[place].take().expect("it runs");
        node.signal(signal);
        node.wait();
    }

    fn node(&self, place: usize) -> &Running {
        self.nodes[place].as_ref().expect("it runs")
    }

    /// The key of the bus' stream.
    fn trim(&self) {
        let streams = self.redis.command(&["KEYS", "*stream*"]);
        let stream = streams.items().first().expect("the bus has a stream").text();
        self.redis.command(&["XTRIM", &stream, "MAXLEN", "0"]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Running {
    /// What a store of a cache has counted.
    async fn store(&self, cache: &str, store: &str, what: &str) -> u64 {
        let sample = format!("larder_store_{what}_total{{cache=\"{cache}\",store=\"{store}\"}}");
        self.metric(&sample).await.expect("it is counted") as u64
    }
}

/// A table `n` of the numbers from 0.
fn count_to(end: u64) -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {})", end - 1)
}

/// The number in the row of a key.
async fn number(redis: &mut MultiplexedConnection, key: &str) -> redis::RedisResult<u64> {
    let row: String = redis::cmd("GET").arg(key).query_async(redis).await?;
    let row: serde_json::Value = serde_json::from_str(&row).expect("rows are JSON");
    Ok(row["number"].as_u64().expect("a row has a number"))
}

async fn tell(redis: &mut MultiplexedConnection, words: &[&str]) -> redis::RedisResult<()> {
    let told: redis::Value = redis::cmd(words[0]).arg(&words[1..]).query_async(redis).await?;
    drop(told);
    Ok(())
}
