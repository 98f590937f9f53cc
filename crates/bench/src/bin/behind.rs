//! How many durable writes are acknowledged in a second: through write-behind, with a
//! journal that is synced and a real Postgres to which all of it is applied, beside
//! the same rows written to the same Postgres directly, by as many clients.
//!
//! ```text
//! cargo run --release --package larder-bench --bin behind -- [seconds] [workload...]
//! ```
//!
//! Both write to one disk, and Postgres syncs what is committed. Each workload has its
//! own rounds, in which the two take turns; every row is counted at the end.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::{BehindOptions, Clock, Key, Version, WriteBehind};
use larder_bench::median;
use larder_bench::report::{self, Table, Target, verdict};
use larder_core::{Action, DynOrigin, Write};
use larder_journal::{DiskJournal, JournalOptions};
use larder_sql::{Database, DatabaseOptions, WriteOptions};
use larder_testkit::postgres::{Postgres, PostgresOptions};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLIENTS: u64 = 64;
const ROUNDS: usize = 3;
const SECONDS: u64 = 8;
/// What a row holds besides its numbers.
const TEXT: &str =
    "a row of a hundred bytes or so, as they are common in tables of orders, stock and readings";
/// Rows that are there before.
const ROWS: u64 = 100_000;

const TABLES: &str = "
    CREATE TABLE item (id bigint PRIMARY KEY, amount bigint NOT NULL, note text NOT NULL);
";

/// What is written.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    what: &'static str,
    /// The row of a client's next write, from the number of the write, which is
    /// different for each.
    row: fn(number: u64) -> u64,
    is_addition: bool,
    /// Whether the rows are there before.
    is_filled: bool,
    ratio_min: f64,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "counter",
        what: "one hot row, + 1",
        row: |_| 1,
        is_addition: true,
        is_filled: true,
        ratio_min: 10.0,
    },
    Workload {
        name: "hot",
        what: "16 hot rows, whole",
        row: |number| scattered(number) % 16,
        is_addition: false,
        is_filled: true,
        ratio_min: 10.0,
    },
    Workload {
        name: "update",
        what: "100 000 rows in any order, whole",
        row: |number| scattered(number) % ROWS,
        is_addition: false,
        is_filled: true,
        ratio_min: 3.0,
    },
    Workload {
        name: "insert",
        what: "new rows, each once",
        row: |number| number,
        is_addition: false,
        is_filled: false,
        ratio_min: 3.0,
    },
];

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let seconds = arguments.next_if(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = seconds.map_or(SECONDS, |it| it.parse().expect("it is a number of seconds"));
    let names: Vec<String> = arguments.collect();
    report::machine();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let options = PostgresOptions { durable: true, ..PostgresOptions::default() };
    let bench =
        Bench { postgres: Postgres::launch_with(&options), time: Duration::from_secs(seconds) };
    bench.postgres.execute(TABLES);
    let fsync = bench.postgres.execute("SHOW fsync; SHOW synchronous_commit;");
    println!(
        "{CLIENTS} clients, {seconds} s a round, {ROUNDS} rounds; Postgres with fsync and \
         synchronous_commit {}\n",
        fsync.split_whitespace().collect::<Vec<_>>().join(" and ")
    );
    let wanted = |it: &&Workload| names.is_empty() || names.iter().any(|name| name == it.name);
    let mut table = Table::new([
        "",
        "acknowledged/s",
        "×",
        "applied/s",
        "×",
        "p50 ms",
        "p99 ms",
        "rows a write",
        "waits s",
    ]);
    let mut ratios = Vec::new();
    for workload in WORKLOADS.iter().filter(wanted) {
        let contenders = runtime.block_on(bench.compare(workload));
        let (_, direct) = contenders[0];
        for (contender, figures) in &contenders {
            figures.row(&format!("{}: {}", workload.what, contender.what()), &direct, &mut table);
            if *contender != Contender::Direct {
                let what = format!("{}, {}", workload.what, contender.what());
                let (acknowledged, applied) = (figures.acknowledged, figures.applied);
                ratios.push((
                    what,
                    acknowledged / direct.acknowledged,
                    applied / direct.applied,
                    workload.ratio_min,
                ));
            }
        }
    }
    println!("{table}");
    for (what, acknowledged, applied, ratio_min) in ratios {
        verdict(&format!("{what}, × acknowledged"), acknowledged, Target::AtLeast, ratio_min);
        verdict(&format!("{what}, × applied"), applied, Target::AtLeast, ratio_min);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Direct,
    /// With this many writes in a transaction at most.
    Behind(usize),
}

const CONTENDERS: [Contender; 3] =
    [Contender::Direct, Contender::Behind(100), Contender::Behind(1000)];

impl Contender {
    fn what(self) -> String {
        match self {
            Self::Direct => "Postgres".to_owned(),
            Self::Behind(100) => "write-behind".to_owned(),
            Self::Behind(records) => format!("write-behind, {records} a batch"),
        }
    }
}

struct Bench {
    postgres: Postgres,
    time: Duration,
}

/// What one contender did in one round, or the medians of its rounds.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// A second, while clients wrote.
    acknowledged: f64,
    /// A second, until the database had all of it.
    applied: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Rows written in the database for each acknowledged write.
    rows: f64,
    /// How long it took from the last acknowledgement until all was applied.
    lag_seconds: f64,
}

impl Figures {
    fn medians(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure));
        Self {
            acknowledged: of(|it| it.acknowledged),
            applied: of(|it| it.applied),
            p50_ms: of(|it| it.p50_ms),
            p99_ms: of(|it| it.p99_ms),
            rows: of(|it| it.rows),
            lag_seconds: of(|it| it.lag_seconds),
        }
    }

    fn row(&self, what: &str, direct: &Self, table: &mut Table) {
        table.row([
            what.to_owned(),
            format!("{:.0}", self.acknowledged),
            format!("{:.2}", self.acknowledged / direct.acknowledged),
            format!("{:.0}", self.applied),
            format!("{:.2}", self.applied / direct.applied),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            format!("{:.4}", self.rows),
            format!("{:.2}", self.lag_seconds),
        ]);
    }
}

impl Bench {
    async fn compare(&self, workload: &Workload) -> Vec<(Contender, Figures)> {
        let mut rounds = vec![Vec::new(); CONTENDERS.len()];
        for round in 0..ROUNDS {
            // Who goes first changes.
            for turn in 0..CONTENDERS.len() {
                let place = (round + turn) % CONTENDERS.len();
                rounds[place].push(match CONTENDERS[place] {
                    Contender::Direct => self.direct(workload).await,
                    Contender::Behind(records) => self.behind(workload, records).await,
                });
            }
        }
        CONTENDERS.into_iter().zip(rounds.iter().map(|rounds| Figures::medians(rounds))).collect()
    }

    /// A table as it is before each round, and nothing left to be synced.
    async fn prepare(&self, workload: &Workload) {
        self.postgres.execute("TRUNCATE item; DROP TABLE IF EXISTS larder_lanes;");
        if workload.is_filled {
            let fill = format!(
                "INSERT INTO item SELECT id, 0, '{TEXT}' FROM generate_series(0, {}) id;",
                ROWS - 1
            );
            self.postgres.execute(&fill);
        }
        let connection = PgConnection::connect(&self.postgres.url("postgres")).await;
        let mut connection = connection.expect("it is there");
        for settle in ["VACUUM ANALYZE item", "CHECKPOINT"] {
            sqlx::raw_sql(settle).execute(&mut connection).await.expect("it is done");
        }
    }

    /// Clients with a connection each, which wait for their commit.
    async fn direct(&self, workload: &Workload) -> Figures {
        self.prepare(workload).await;
        let url = self.postgres.url("postgres");
        let statement = match workload.is_addition {
            true => "UPDATE item SET amount = amount + 1 WHERE id = $1 RETURNING id",
            false => {
                "INSERT INTO item (id, amount, note) VALUES ($1, $2, $3) \
                 ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount, note = EXCLUDED.note RETURNING id"
            }
        };
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push(PgConnection::connect(&url).await.expect("it is there"));
        }
        let numbers = Arc::new(AtomicU64::new(1));
        let workload = *workload;
        let until = Instant::now() + self.time;
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for mut connection in connections {
            let numbers = Arc::clone(&numbers);
            clients.spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let number = numbers.fetch_add(1, Relaxed);
                    let query = sqlx::query(statement).bind((workload.row)(number) as i64);
                    let query = if workload.is_addition {
                        query
                    } else {
                        query.bind(number as i64).bind(TEXT)
                    };
                    let sent = Instant::now();
                    let row = query.fetch_optional(&mut connection).await.expect("it is written");
                    waits.push(sent.elapsed());
                    assert!(row.is_some(), "there is such a row");
                }
                let _ = connection.close().await;
                waits
            });
        }
        let waits: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
        let lasted = began.elapsed();
        self.count(&workload, waits.len() as u64);
        Figures { rows: 1.0, ..figures(waits, lasted, Duration::ZERO) }
    }

    /// Clients of write-behind, whose other options, and those of its journal, are
    /// the defaults.
    async fn behind(&self, workload: &Workload, batch_records: usize) -> Figures {
        self.prepare(workload).await;
        let home = tempfile::tempdir().expect("a temporary directory");
        let database =
            Database::connect(&DatabaseOptions::new(self.postgres.url("postgres"))).await;
        let database = database.expect("it is there");
        let tables = database.introspect().await.expect("it tells its tables").tables;
        let item = tables.iter().find(|table| table.name == "item").expect("it was made");
        let origin = database.writing_table_origin(item, &WriteOptions::new()).expect("a table");
        let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(origin);
        let journal = DiskJournal::open(JournalOptions::new(home.path())).await.expect("a journal");
        let mut options = BehindOptions::default();
        options.batch_records = batch_records;
        let behind = WriteBehind::open(
            Arc::new(journal.clone()),
            [("item".to_owned(), origin)],
            options,
            Clock::monotonic(),
        );
        let behind = behind.await.expect("it opens");
        let numbers = Arc::new(AtomicU64::new(1));
        let workload = *workload;
        let until = Instant::now() + self.time;
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (behind, numbers) = (behind.clone(), Arc::clone(&numbers));
            clients.spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let number = numbers.fetch_add(1, Relaxed);
                    let write = write(&workload, number);
                    let sent = Instant::now();
                    let written = behind.write("item", write, Version::new(number)).await;
                    written.expect("it is accepted");
                    waits.push(sent.elapsed());
                }
                waits
            });
        }
        let waits: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
        let lasted = began.elapsed();
        behind.flush().await.expect("it is applied");
        let lag = began.elapsed() - lasted;
        let done = behind.statistics();
        assert_eq!((done.accepted, done.applied), (waits.len() as u64, waits.len() as u64));
        assert_eq!(done.buried, 0);
        self.count(&workload, done.accepted);
        println!(
            "{}, {batch_records} a batch: {} writes, {} syncs, {} transactions, {} rows, {} retries",
            workload.what,
            done.accepted,
            journal.statistics().commits,
            done.batches,
            done.written,
            done.retries
        );
        behind.shut_down(Duration::from_secs(30)).await;
        database.close().await;
        Figures { rows: done.written as f64 / done.accepted as f64, ..figures(waits, lasted, lag) }
    }

    /// Whether the database has what was acknowledged.
    fn count(&self, workload: &Workload, acknowledged: u64) {
        let (what, at_most) = match (workload.is_addition, workload.is_filled) {
            (true, _) => ("SUM(amount)", acknowledged),
            (false, true) => ("COUNT(*) FILTER (WHERE amount > 0)", ROWS),
            (false, false) => ("COUNT(*)", acknowledged),
        };
        let found = self.postgres.execute(&format!("SELECT {what} FROM item"));
        let found: u64 = found.trim().parse().expect("it is a number");
        let is_exact = workload.is_addition || !workload.is_filled;
        assert!(if is_exact { found == acknowledged } else { found <= at_most && found > 0 });
    }
}

fn write(workload: &Workload, number: u64) -> Write<Key, Bytes> {
    let key = Key::new(format!("item:{}", (workload.row)(number)));
    let action = match workload.is_addition {
        true => Action::Add { field: "amount".into(), by: 1_i64.into() },
        false => Action::Put(format!(r#"{{"amount":{number},"note":"{TEXT}"}}"#).into()),
    };
    Write::new(key, action)
}

fn figures(mut waits: Vec<Duration>, lasted: Duration, lag: Duration) -> Figures {
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let count = waits.len() as f64;
    Figures {
        acknowledged: count / lasted.as_secs_f64(),
        applied: count / (lasted + lag).as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        rows: 0.0,
        lag_seconds: lag.as_secs_f64(),
    }
}

/// Neighbouring numbers come to rows far apart.
const fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}
