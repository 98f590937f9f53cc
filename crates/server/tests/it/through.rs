//! Writes through the server to a real database, while the server is killed and the
//! database is stopped at random moments: nothing acknowledged is lost, nothing is read
//! that was not committed, and afterwards the cache says what the database has.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_core::Clock;
use larder_testkit::history::{Guarantee, History};
use larder_testkit::postgres::Postgres;
use redis::aio::MultiplexedConnection;

use crate::running::{PATIENCE, Running};

const KEYS: usize = 50;
const CLIENTS: usize = 64;

/// How many rounds there are, all of them with `LARDER_FULL`.
fn rounds(full: usize, short: usize) -> usize {
    if std::env::var_os("LARDER_FULL").is_some() { full } else { short }
}

/// A database that can be stopped, or cannot.
enum Database {
    Postgres(Postgres),
    Sqlite(std::path::PathBuf),
}

const TABLES: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE counter (id INTEGER PRIMARY KEY, sum BIGINT NOT NULL);";

impl Database {
    async fn postgres() -> Self {
        let postgres = Postgres::launch();
        postgres.execute(TABLES);
        let rows = format!(
            "INSERT INTO note SELECT id, 'first-' || id FROM generate_series(0, {}) id;
             INSERT INTO counter SELECT id, 0 FROM generate_series(0, {}) id;",
            KEYS - 1,
            KEYS - 1
        );
        postgres.execute(&rows);
        Self::Postgres(postgres)
    }

    async fn sqlite(directory: &Path) -> Self {
        use sqlx::{ConnectOptions, Connection};
        let path = directory.join("ledger.db");
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = options.connect().await.expect("it can be made");
        let rows = (0..KEYS).map(|id| {
            format!("INSERT INTO note VALUES ({id}, 'first-{id}'); INSERT INTO counter VALUES ({id}, 0);")
        });
        let script = format!("{TABLES} {}", rows.collect::<String>());
        sqlx::raw_sql(sqlx::AssertSqlSafe(script))
            .execute(&mut connection)
            .await
            .expect("it is SQL");
        connection.close().await.expect("it can be closed");
        Self::Sqlite(path)
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(postgres) => postgres.url("postgres"),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// Stops it for a moment, if it can be.
    fn restart(&mut self) {
        if let Self::Postgres(postgres) = self {
            postgres.kill();
            postgres.start();
        }
    }

    fn can_be_stopped(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Every row of a table, by its key.
    async fn rows(&self, table: &str, column: &str) -> Vec<String> {
        let sql = format!("SELECT CAST({column} AS TEXT) FROM {table} ORDER BY id");
        match self {
            Self::Postgres(postgres) => postgres.execute(&sql).lines().map(str::to_owned).collect(),
            Self::Sqlite(path) => {
                use sqlx::ConnectOptions;
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut connection = options.connect().await.expect("it is there");
                let rows = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql));
                rows.fetch_all(&mut connection).await.expect("it answers")
            }
        }
    }
}

/// What clients have asked for and been told so far.
struct Ledger {
    notes: History<usize, String>,
    /// Notes of writes that were refused: nobody may ever read them.
    refused: Mutex<HashSet<String>>,
    /// Of each counter: what was acknowledged, and what may have been added besides.
    acknowledged: Vec<AtomicI64>,
    perhaps: Vec<AtomicI64>,
    writes: AtomicU64,
    unknown: AtomicU64,
    reads: AtomicU64,
    next: AtomicU64,
}

impl Ledger {
    fn new() -> Self {
        let notes = History::new(Clock::monotonic());
        for id in 0..KEYS {
            notes.begin_write(id, format!("first-{id}")).committed();
        }
        let counts = || (0..KEYS).map(|_| AtomicI64::new(0)).collect();
        Self {
            notes,
            refused: Mutex::default(),
            acknowledged: counts(),
            perhaps: counts(),
            writes: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    /// One thing that a client does; an error ends its connection.
    async fn act(&self, redis: &mut MultiplexedConnection) -> Result<(), ()> {
        let id = fastrand::usize(..KEYS);
        match fastrand::u8(..10) {
            0..=1 => self.write_note(redis, id).await,
            2..=3 => self.add(redis, id).await,
            4..=6 => self.read_note(redis, id).await,
            _ => self.read_counter(redis, id).await,
        }
    }

    async fn write_note(&self, redis: &mut MultiplexedConnection, id: usize) -> Result<(), ()> {
        let text = format!("note-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let row = format!("{{\"id\":{id},\"text\":\"{text}\"}}");
        let write = self.notes.begin_write(id, text.clone());
        let mut set = redis::cmd("SET");
        let set = set.arg(format!("note:{id}")).arg(row).query_async::<()>(redis).await;
        match outcome(set) {
            Told::Done => {
                write.committed();
                self.writes.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Told::Refused => {
                self.refused.lock().expect("no panic under it").insert(text);
                Ok(())
            }
            Told::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Told::Gone => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Err(())
            }
        }
    }

    async fn add(&self, redis: &mut MultiplexedConnection, id: usize) -> Result<(), ()> {
        self.perhaps[id].fetch_add(1, Ordering::SeqCst);
        let mut add = redis::cmd("LARDER.INCR");
        let add = add.arg(format!("counter:{id}")).arg("sum").arg(1);
        match outcome(add.query_async::<redis::Value>(redis).await) {
            Told::Done => {
                self.acknowledged[id].fetch_add(1, Ordering::SeqCst);
                self.writes.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Told::Refused => {
                self.perhaps[id].fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            Told::Unknown => Ok(()),
            Told::Gone => Err(()),
        }
    }

    async fn read_note(&self, redis: &mut MultiplexedConnection, id: usize) -> Result<(), ()> {
        let read = self.notes.begin_read(id);
        let get = redis::cmd("GET").arg(format!("note:{id}")).query_async::<String>(redis).await;
        let row = match get {
            Ok(row) => row,
            Err(error) if error.is_io_error() => return Err(()),
            // A database that is gone is an error to readers, never an old row.
            Err(_) => return Ok(()),
        };
        let text = member(&row, "text");
        assert!(!self.refused.lock().expect("ok").contains(&text), "{text} was refused");
        read.returned(text);
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read_counter(&self, redis: &mut MultiplexedConnection, id: usize) -> Result<(), ()> {
        let least = self.acknowledged[id].load(Ordering::SeqCst);
        let get = redis::cmd("GET").arg(format!("counter:{id}")).query_async::<String>(redis).await;
        let row = match get {
            Ok(row) => row,
            Err(error) if error.is_io_error() => return Err(()),
            Err(_) => return Ok(()),
        };
        let sum: i64 = member(&row, "sum").parse().expect("it is a number");
        let most = self.perhaps[id].load(Ordering::SeqCst);
        assert!((least..=most).contains(&sum), "counter {id} is {sum}, not {least} to {most}");
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The server and the database say the same, and it is what was acknowledged.
    async fn is_settled(&self, redis: &mut MultiplexedConnection, database: &Database) {
        let (notes, sums) =
            (database.rows("note", "text").await, database.rows("counter", "sum").await);
        for id in 0..KEYS {
            let read = self.notes.begin_read(id);
            let row: String =
                redis::cmd("GET").arg(format!("note:{id}")).query_async(redis).await.expect("GET");
            let text = member(&row, "text");
            assert_eq!(text, notes[id], "note {id} in the cache and in the database");
            read.returned(text);
            let row: String = redis::cmd("GET")
                .arg(format!("counter:{id}"))
                .query_async(redis)
                .await
                .expect("it is answered");
            let sum = member(&row, "sum");
            assert_eq!(sum, sums[id], "counter {id} in the cache and in the database");
            let sum: i64 = sum.parse().expect("it is a number");
            let least = self.acknowledged[id].load(Ordering::SeqCst);
            let most = self.perhaps[id].load(Ordering::SeqCst);
            assert!((least..=most).contains(&sum), "counter {id} is {sum}, not {least} to {most}");
            // What was not there is not there later.
            self.acknowledged[id].store(sum, Ordering::SeqCst);
            self.perhaps[id].store(sum, Ordering::SeqCst);
        }
    }
}

enum Told {
    Done,
    /// It did not happen.
    Refused,
    /// It may have happened.
    Unknown,
    /// The server is gone.
    Gone,
}

fn outcome<T>(answer: redis::RedisResult<T>) -> Told {
    match answer {
        Ok(_) => Told::Done,
        Err(error) if error.code() == Some("UNKNOWN") => Told::Unknown,
        Err(error) if error.is_io_error() || error.is_connection_dropped() => Told::Gone,
        Err(error) if error.is_timeout() => panic!("a write took too long: {error}"),
        Err(_) => Told::Refused,
    }
}

fn member(row: &str, name: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(row).expect("a row is JSON");
    match &row[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What goes wrong in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    ServerKilled,
    DatabaseStopped,
    Both,
}

#[allow(clippy::print_stdout, reason = "a proof tells what it has judged")]
async fn proof(directory: &Path, mut database: Database, rounds: usize) {
    let config = directory.join("larder.toml");
    let text = format!(
        "[origins.ledger]\nurl = \"{}\"\n\n[origins.ledger.breaker]\nopen = \"100ms\"\n\n[disk]\ndirectory = \"{}\"\n\n\
         [caches.note]\ntable = \"note\"\nwrite = {{}}\nttl = \"1h\"\n\n\
         [caches.counter]\ntable = \"counter\"\nwrite = {{}}\nttl = \"1h\"\n",
        database.url(),
        directory.join("cache").display(),
    );
    std::fs::write(&config, text).expect("it can be written");
    let arguments = ["--config", config.to_str().expect("the path is text")];
    let ledger = Arc::new(Ledger::new());
    let mut server = Running::start(directory, &arguments);
    let (mut blows, mut longest) = ([0; 3], Duration::ZERO);
    for round in 0..rounds {
        let blow = match fastrand::u8(..3) {
            _ if !database.can_be_stopped() => Blow::ServerKilled,
            0 => Blow::ServerKilled,
            1 => Blow::DatabaseStopped,
            _ => Blow::Both,
        };
        blows[blow as usize] += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let address = server.redis;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(client(Arc::clone(&ledger), address, Arc::clone(&stop))))
            .collect();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        if blow != Blow::DatabaseStopped {
            server.signal("KILL");
            server.wait();
        }
        if blow != Blow::ServerKilled {
            // In the middle of whatever it does.
            database.restart();
        }
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.await.expect("no client saw what it must not see");
        }
        let healing = Instant::now();
        if blow != Blow::DatabaseStopped {
            server = Running::start(directory, &arguments);
        }
        let mut redis = server.redis().await;
        // A write that was sent and not answered may happen until it cannot any more.
        loop {
            let is_there = redis::cmd("GET").arg("note:0").query_async::<String>(&mut redis).await;
            if is_there.is_ok() {
                break;
            }
            assert!(healing.elapsed() < PATIENCE, "round {round}: {is_there:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ledger.is_settled(&mut redis, &database).await;
        longest = longest.max(healing.elapsed());
    }
    let summary = ledger.notes.check(Guarantee::Current);
    let summary = summary.unwrap_or_else(|violation| panic!("{violation}"));
    println!(
        "{rounds} rounds (server killed {}, database stopped {}, both {}), {} writes acknowledged, \
         {} unknown, {} reads, 0 violations; equal within {longest:?}; {summary:?}",
        blows[0],
        blows[1],
        blows[2],
        ledger.writes.load(Ordering::Relaxed),
        ledger.unknown.load(Ordering::Relaxed),
        ledger.reads.load(Ordering::Relaxed),
    );
}

async fn client(ledger: Arc<Ledger>, address: std::net::SocketAddr, stop: Arc<AtomicBool>) {
    let client = redis::Client::open(format!("redis://{address}")).expect("a URL");
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let Ok(mut redis) = client.get_multiplexed_async_connection_with_config(&config).await else {
        return;
    };
    while !stop.load(Ordering::SeqCst) && ledger.act(&mut redis).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_postgres() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    proof(directory.path(), Database::postgres().await, rounds(200, 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_sqlite() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    proof(directory.path(), database, rounds(200, 6)).await;
}
