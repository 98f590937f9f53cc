//! A node is killed at any moment while rows change, and every read is judged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use larder_core::Clock;
use larder_testkit::history::{Guarantee, History, WriteInProgress};
use larder_testkit::redis::AfterRestart;
use tokio::task::JoinSet;

use super::*;

/// As configured, and what a busy machine may add.
const BOUND: Duration = Duration::from_millis(1000 + 200);
const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// The rows that change: a few, so that each is read and changed often.
const HOT_ITEMS: u64 = 3 * PER_SHELF;
const HOT_PAGES: u64 = 10;

/// `./test --full` asks for the long form.
fn rounds() -> u32 {
    if std::env::var_os("LARDER_FULL").is_some() { 60 } else { 6 }
}

/// What readers and writers share with who kills.
#[derive(Clone)]
struct Load {
    history: History<String, u64>,
    /// Where each node answers at present.
    doors: Arc<Mutex<Vec<Option<SocketAddr>>>>,
    is_over: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
}

impl Load {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn set_door(&self, place: usize, door: Option<SocketAddr>) {
        self.doors.lock().expect("nobody panicked")[place] = door;
    }

    async fn connect(&self, place: usize) -> Option<MultiplexedConnection> {
        let door = self.doors.lock().expect("nobody panicked")[place]?;
        let client = redis::Client::open(format!("redis://{door}")).expect("a URL");
        client.get_multiplexed_async_connection().await.ok()
    }

    /// Reads hot rows of one node, for as long as it lives, and again when it does.
    async fn read(self, place: usize, mut random: fastrand::Rng) {
        while !self.is_over() {
            let Some(mut node) = self.connect(place).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            while !self.is_over() {
                let key = any_key(&mut random);
                let read = self.history.begin_read(key.clone());
                let Ok(number) = number(&mut node, &key).await else { break };
                read.returned(number);
                self.reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(random.u64(..3))).await;
            }
        }
    }

    /// Changes rows, a key, a shelf or all pages at a time, first in the database, and
    /// then says so to a node that lives.
    async fn write(self, mut database: SqliteConnection, mut random: fastrand::Rng) {
        let mut value = 0;
        let mut nodes = [self.connect(0).await, self.connect(1).await];
        while !self.is_over() {
            value += 1;
            let (update, rows, words) = match random.u8(..12) {
                0 if random.bool() => {
                    let all = (0..HOT_PAGES).map(|row| format!("page:{row}"));
                    let update = format!("UPDATE page SET number = {value} WHERE id < {HOT_PAGES}");
                    (update, all.collect(), vec!["LARDER.CLEAR".to_owned(), "page".to_owned()])
                }
                1 => {
                    let shelf = random.u64(..HOT_ITEMS / PER_SHELF);
                    let items = shelf * PER_SHELF..(shelf + 1) * PER_SHELF;
                    let update = format!("UPDATE item SET number = {value} WHERE shelf = {shelf}");
                    let tag = format!("shelf:{shelf}");
                    let words = vec!["LARDER.REMOVE".to_owned(), "TAG".to_owned(), tag];
                    (update, items.map(|row| format!("item:{row}")).collect(), words)
                }
                _ => {
                    let key = any_key(&mut random);
                    let (table, row) = key.split_once(':').expect("keys have a table");
                    let update = format!("UPDATE {table} SET number = {value} WHERE id = {row}");
                    let words = vec!["LARDER.REMOVE".to_owned(), "KEY".to_owned(), key.clone()];
                    (update, vec![key], words)
                }
            };
            let begin = |key: String| self.history.begin_write(key, value);
            let writes: Vec<WriteInProgress<String, u64>> =
                Vec::into_iter(rows).map(begin).collect();
            sqlx::raw_sql(sqlx::AssertSqlSafe(update))
                .execute(&mut database)
                .await
                .expect("it is written");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let node = nodes[random.usize(..2)].as_mut().expect("it lives");
            // What is an error is announced later.
            if tell(node, &words).await.is_ok() {
                writes.into_iter().for_each(WriteInProgress::committed);
            }
            tokio::time::sleep(Duration::from_millis(random.u64(10..80))).await;
        }
    }
}

fn any_key(random: &mut fastrand::Rng) -> String {
    match random.u8(..6) {
        0 => format!("page:{}", random.u64(..HOT_PAGES)),
        _ => format!("item:{}", random.u64(..HOT_ITEMS)),
    }
}

async fn agrees(shop: &Shop, place: usize) {
    let began = Instant::now();
    let mut node = shop.node(place).redis().await;
    let mut database = shop.database().await;
    for (table, rows) in [("item", HOT_ITEMS), ("page", HOT_PAGES)] {
        for row in 0..rows {
            let query = format!("SELECT number FROM {table} WHERE id = {row}");
            let truth = sqlx::query_scalar(sqlx::AssertSqlSafe(query));
            let truth: i64 = truth.fetch_one(&mut database).await.expect("it is there");
            let key = format!("{table}:{row}");
            while number(&mut node, &key).await.ok() != u64::try_from(truth).ok() {
                assert!(began.elapsed() < AGREED_WITHIN, "node {place} has another {key}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the proof is the line")]
async fn a_server_that_is_killed_again_and_again_serves_nothing_that_was_removed() {
    let mut shop = Shop::open().await;
    let load = Load {
        history: History::new(Clock::monotonic()),
        doors: Arc::new(Mutex::new(vec![None; 3])),
        is_over: Arc::default(),
        reads: Arc::default(),
    };
    for key in (0..HOT_ITEMS).map(|row| format!("item:{row}")) {
        load.history.begin_write(key, 0).committed();
    }
    for key in (0..HOT_PAGES).map(|row| format!("page:{row}")) {
        load.history.begin_write(key, 0).committed();
    }
    (0..3).for_each(|place| load.set_door(place, Some(shop.node(place).redis)));
    let mut random = fastrand::Rng::with_seed(7);
    let mut tasks = JoinSet::new();
    for place in 0..3 {
        for _ in 0..2 {
            tasks.spawn(load.clone().read(place, random.fork()));
        }
    }
    tasks.spawn(load.clone().write(shop.database().await, random.fork()));
    let mut hits = 0;
    for round in 0..rounds() {
        tokio::time::sleep(Duration::from_millis(random.u64(100..1500))).await;
        hits += shop.node(AWAY).store("item", "disk", "hits").await;
        load.set_door(AWAY, None);
        shop.end(AWAY, if round % 5 == 4 { "TERM" } else { "KILL" });
        match round % 6 {
            2 => shop.trim(),
            5 => shop.redis.restart(AfterRestart::Empty),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        shop.start(AWAY);
        load.set_door(AWAY, Some(shop.node(AWAY).redis));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    hits += shop.node(AWAY).store("item", "disk", "hits").await;
    load.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("it does not panic");
    }
    for place in 0..3 {
        agrees(&shop, place).await;
    }
    let summary = load.history.check(Guarantee::Within(BOUND));
    let summary = summary.unwrap_or_else(|stale| panic!("{stale}"));
    println!(
        "{} ends at any moment: {} reads, {} writes, no violation; {hits} hits on its disk",
        rounds(),
        summary.reads,
        summary.writes,
    );
    assert!(summary.reads > 1000 && summary.writes > 100 && hits > 20, "{summary:?}, {hits}");
}
