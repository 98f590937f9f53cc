//! A journal in Redis that several processes share. Each node here has a runtime of
//! its own, which ends at once when the node is killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::{BehindOptions, Clock, PendingBase, Version, WriteBehind};
use larder_core::{
    Action, BatchError, DynOrigin, Journal, Key, LaneMark, LoadContext, Loaded, Origin, Result,
    Write, WriteAbilities, Written,
};
use larder_redis::{RedisJournal, RedisJournalOptions, RedisOptions, RedisTier};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyTable, Gate, WriteAnswer};
use larder_testkit::redis::{AfterRestart, RedisServer};
use tokio::runtime::{Handle, Runtime};

use super::{CACHE, add, options, string, text};

const LANES: u16 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// A table that goes on with what it was sent, whether or not the client lives.
struct Database(FaultyTable, Handle);

impl Origin<Key, Bytes> for Database {
    async fn load(&self, key: &Key, context: &LoadContext) -> Result<Loaded<Bytes>> {
        Origin::load(&self.0, key, context).await
    }

    fn write_abilities(&self) -> WriteAbilities {
        Origin::write_abilities(&self.0)
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let (table, writes, mark) = (self.0.clone(), writes.to_vec(), mark.cloned());
        let call = async move { Origin::write_all(&table, &writes, mark.as_ref()).await };
        self.1.spawn(call).await.expect("the table lives")
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        Origin::applied(&self.0, journal, lane).await
    }
}

/// A process, as far as the others can tell.
struct Node {
    runtime: Option<Runtime>,
    behind: WriteBehind,
    journal: RedisJournal,
}

impl Node {
    /// A node with a lease that ends soon, or one that outlasts every test.
    async fn start(
        server: &RedisServer,
        table: &FaultyTable,
        lease: Duration,
        options: BehindOptions,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let database = Database(table.clone(), Handle::current());
        let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(database);
        let mut of_redis = RedisOptions::new(server.url());
        of_redis.response_timeout = Duration::from_secs(5);
        let opened = runtime.spawn(async move {
            let tier = RedisTier::connect(of_redis).await.expect("the server runs");
            let mut of_journal = RedisJournalOptions::default();
            (of_journal.lanes, of_journal.lease) = (LANES, lease);
            let journal = RedisJournal::open(&tier, of_journal).await.expect("it opens");
            let targets = [(CACHE.to_owned(), origin)];
            let shared = Arc::new(journal.clone());
            let behind = WriteBehind::open(shared, targets, options, Clock::monotonic()).await;
            (behind.expect("it opens"), journal)
        });
        let (behind, journal) = opened.await.expect("it opens");
        Self { runtime: Some(runtime), behind, journal }
    }

    async fn write(&self, write: Write<Key, Bytes>) {
        let behind = self.behind.clone();
        let runtime = self.runtime.as_ref().expect("it lives");
        let written =
            runtime.spawn(async move { behind.write(CACHE, write, Version::new(1)).await });
        written.await.expect("it lives").expect("accepted");
    }

    async fn put(&self, key: &str, value: &str) {
        self.write(Write::new(Key::new(key), Action::Put(text(value)))).await;
    }

    async fn flush(&self) {
        let flushed = tokio::time::timeout(PATIENCE, self.behind.flush()).await;
        flushed.expect("it ends").expect("all is applied");
    }

    fn held(&self) -> usize {
        self.behind.statistics().lanes_held
    }

    /// Ends every task at once: nothing is said to anybody.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

const SHORT: Duration = Duration::from_millis(800);
const LONG: Duration = Duration::from_secs(300);

fn at_once() -> BehindOptions {
    options(|options| {
        options.batch_records = 5;
        options.batch_delay = Duration::from_millis(10);
    })
}

/// Nothing is applied unless somebody asks.
fn later() -> BehindOptions {
    options(|options| options.batch_delay = Duration::from_secs(3600))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "this does not come about: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn lanes_are_spread_and_every_write_is_applied_once_wherever_it_was_accepted() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Node::start(&server, &table, LONG, at_once()).await);
        }
        until("each node has its share", || nodes.iter().all(|node| node.held() == 2)).await;
        assert!(nodes.iter().all(|node| node.behind.statistics().nodes == 3));
        for key in 0..30 {
            table.set(Key::new(format!("key-{key}")), "first");
        }
        for round in 0..10 {
            for key in 0..30 {
                nodes[(key + round) % 3].write(add(&format!("key-{key}"), 1)).await;
            }
        }
        for node in &nodes {
            node.flush().await;
        }
        for key in 0..30 {
            let row = table.row(&Key::new(format!("key-{key}"))).expect("a row");
            assert_eq!(row.total.as_i64(), Some(10));
        }
        assert_eq!((table.fenced_count(), nodes[0].journal.usage().dead_letters), (0, 0));
        assert!(nodes.iter().all(|node| node.behind.statistics().batches > 0), "all had work");
        // Nobody takes lanes from one another while all live.
        let claimed = || server.command(&["HGET", HEAD, "epoch:0"]).text();
        let before = claimed();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(claimed(), before);
    });
}

const HEAD: &str = "larder:journal:{larder.behind}:head";

#[test]
fn every_node_knows_what_waits_and_hears_when_it_is_applied() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        let one = Node::start(&server, &table, LONG, later()).await;
        until("the first has all lanes", || one.held() == usize::from(LANES)).await;
        let other = Node::start(&server, &table, LONG, later()).await;
        until("they share", || one.held() == 3 && other.held() == 3).await;
        for key in 0..20 {
            one.put(&format!("key-{key}"), "new").await;
        }
        for key in 0..20 {
            let key = Key::new(format!("key-{key}"));
            until("the other hears of it", || other.behind.pending(CACHE, &key).is_some()).await;
            let pending = other.behind.pending(CACHE, &key).expect("just seen");
            assert_eq!(pending.base, PendingBase::Value(text("new")));
            let here = one.behind.pending(CACHE, &key).expect("it waits");
            assert_ne!(here.applying, pending.applying, "only its owner knows");
        }
        assert_eq!(other.behind.statistics().depth_records, 20);
        // Asked by one node, both apply theirs.
        other.flush().await;
        for key in 0..20 {
            let key = Key::new(format!("key-{key}"));
            assert_eq!(table.row(&key).map(|row| string(&row.value)).as_deref(), Some("new"));
            until("nothing waits", || one.behind.pending(CACHE, &key).is_none()).await;
            assert!(other.behind.pending(CACHE, &key).is_none());
        }
        let statistics = one.behind.statistics();
        assert_eq!((statistics.depth_records, statistics.depth_bytes), (0, 0));
    });
}

#[test]
fn who_shuts_down_hands_its_lanes_over_at_once() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        // Long: nobody waits until a lease ends.
        let one = Node::start(&server, &table, LONG, later()).await;
        let other = Node::start(&server, &table, LONG, later()).await;
        until("they share", || one.held() == 3 && other.held() == 3).await;
        for key in 0..20 {
            one.put(&format!("key-{key}"), "new").await;
        }
        assert_eq!(one.behind.shut_down(PATIENCE).await, 0);
        until("the other has all", || other.held() == usize::from(LANES)).await;
        assert_eq!(other.behind.statistics().nodes, 1);
        other.flush().await;
        let rows = (0..20).filter_map(|key| table.row(&Key::new(format!("key-{key}"))));
        assert_eq!(rows.count(), 20);
        assert_eq!(table.fenced_count(), 0);
    });
}

#[test]
fn who_dies_is_followed_and_its_late_write_is_refused_by_the_fence() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        let mut one = Node::start(&server, &table, SHORT, later()).await;
        until("the first has all lanes", || one.held() == usize::from(LANES)).await;
        table.set(Key::new("ann"), "first");
        // Its transaction stands still on its way to the table.
        let gate = Gate::new();
        table.script([WriteAnswer::late(&gate)]);
        one.write(add("ann", 5)).await;
        let flush = one.behind.clone();
        one.runtime.as_ref().expect("it lives").spawn(async move { flush.flush().await });
        until("it is on its way", || !table.calls().is_empty()).await;
        one.kill();
        let other = Node::start(&server, &table, SHORT, at_once()).await;
        until("the lanes are followed", || other.held() == usize::from(LANES)).await;
        other.flush().await;
        assert_eq!(table.row(&Key::new("ann")).and_then(|row| row.total.as_i64()), Some(5));
        gate.open();
        until("the late one is refused", || table.fenced_count() == 1).await;
        assert_eq!(table.row(&Key::new("ann")).and_then(|row| row.total.as_i64()), Some(5));
        other.write(add("ann", 1)).await;
        other.flush().await;
        assert_eq!(table.row(&Key::new("ann")).and_then(|row| row.total.as_i64()), Some(6));
    });
}

#[test]
fn what_an_earlier_owner_buried_is_not_applied_by_the_next() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        table.poison("bad", true);
        let mut one = Node::start(&server, &table, SHORT, at_once()).await;
        until("the first has all lanes", || one.held() == usize::from(LANES)).await;
        let other = Node::start(&server, &table, SHORT, at_once()).await;
        until("they share", || one.held() == 3 && other.held() == 3).await;
        for value in ["bad", "good"] {
            for key in 0..12 {
                other.put(&format!("key-{key}"), value).await;
            }
            for node in [&one, &other] {
                node.flush().await;
            }
        }
        let letters = other.behind.dead_letters(None, 100).await.expect("a list");
        assert_eq!(letters.len(), 12, "each node buried its own");
        // Half of them are replayed by whoever: cured, and as new writes.
        table.cure();
        for letter in letters.iter().take(6) {
            let replayed = other.behind.replay(letter.into(), Version::new(2), None).await;
            replayed.expect("replayed").expect("a letter");
        }
        one.kill();
        until("the lanes are followed", || other.held() == usize::from(LANES)).await;
        other.flush().await;
        for (number, letter) in letters.iter().enumerate() {
            let history: Vec<String> =
                table.history(&letter.record.write.key).iter().map(string).collect();
            let expected: &[&str] = if number < 6 { &["good", "bad"] } else { &["good"] };
            assert_eq!(history, expected);
        }
        assert_eq!(other.behind.dead_letters(None, 100).await.expect("a list").len(), 6);
    });
}

/// The journal is gone; who owns a lane has what waits in memory and applies it.
#[test]
fn what_waits_is_applied_from_memory_when_redis_comes_back_empty() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        let one = Node::start(&server, &table, LONG, later()).await;
        let other = Node::start(&server, &table, LONG, later()).await;
        until("they share", || one.held() == 3 && other.held() == 3).await;
        table.set_down(true);
        for key in 0..20 {
            one.put(&format!("key-{key}"), "new").await;
        }
        until("both know", || other.behind.statistics().depth_records == 20).await;
        server.restart(AfterRestart::Empty);
        until("it is told", || one.journal.statistics().lost + other.journal.statistics().lost > 0)
            .await;
        table.set_down(false);
        until("the lanes have owners", || one.held() + other.held() == usize::from(LANES)).await;
        one.put("key-0", "newest").await;
        for node in [&one, &other] {
            node.flush().await;
        }
        for key in 0..20 {
            let history: Vec<String> =
                table.history(&Key::new(format!("key-{key}"))).iter().map(string).collect();
            let expected: &[&str] = if key == 0 { &["new", "newest"] } else { &["new"] };
            // The two may be coalesced.
            let is_it = history == expected || (key == 0 && history == ["newest"]);
            assert!(is_it, "{key}: {history:?}");
        }
    });
}

#[test]
fn what_a_node_remembers_of_others_is_bounded() {
    block_on(async {
        let (server, table) = (RedisServer::start(), FaultyTable::new());
        let one = Node::start(&server, &table, LONG, later()).await;
        until("the first has all lanes", || one.held() == usize::from(LANES)).await;
        table.set_down(true);
        for key in 0..3000 {
            one.put(&format!("key-{key}"), "new").await;
        }
        let bounded = options(|options| options.queue_records_max = 1000);
        let other = Node::start(&server, &table, LONG, bounded).await;
        // A piece is read as a whole.
        assert!(other.behind.statistics().depth_records < 2500);
        table.set_down(false);
        until("they share", || one.held() == 3 && other.held() == 3).await;
        one.flush().await;
        other.flush().await;
        let rows = (0..3000).filter_map(|key| table.row(&Key::new(format!("key-{key}"))));
        assert_eq!(rows.count(), 3000);
    });
}
