//! Three processes write behind over one journal in Redis to one Postgres. One of
//! them is stopped past its lease and goes on, another one is killed, again and
//! again: every acknowledged write is in the database once, in the order of its key,
//! and what comes late is refused.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::{BehindOptions, Clock, Version, WriteBehind};
use larder_core::{
    Action, BatchError, DynOrigin, Key, LaneMark, LoadContext, Loaded, Origin, Result, Write,
    WriteAbilities, Written,
};
use larder_redis::{RedisJournal, RedisJournalOptions, RedisOptions, RedisTier};
use larder_sql::{Database, DatabaseOptions, SqlOrigin, WriteOptions};
use larder_testkit::conformance::block_on;
use larder_testkit::postgres::Postgres;
use larder_testkit::redis::RedisServer;
use rustix::process::{Pid, Signal, kill_process};

const NODES: usize = 3;
const LANES: u16 = 8;
const LEASE: Duration = Duration::from_millis(1000);
const NOTES_OF_NODE: usize = 4;
const COUNTERS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

const CHILD: &str = "LARDER_BEHIND_FLEET_NODE";
const CHILD_RUN: &str = "LARDER_BEHIND_FLEET_RUN";
const CHILD_REDIS: &str = "LARDER_BEHIND_FLEET_REDIS";
const CHILD_DATABASE: &str = "LARDER_BEHIND_FLEET_DATABASE";

/// Everything that a note ever was is remembered, in the transaction that wrote it.
const TABLES: &str = "
    CREATE TABLE note (id int PRIMARY KEY, text text NOT NULL);
    CREATE TABLE counter (id int PRIMARY KEY, sum bigint NOT NULL);
    CREATE TABLE past (place bigserial PRIMARY KEY, id int NOT NULL, text text NOT NULL);
    INSERT INTO counter SELECT id, 0 FROM generate_series(0, 4) id;
    CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO past (id, text) VALUES (NEW.id, NEW.text); RETURN NEW; END';
    CREATE TRIGGER remember AFTER INSERT OR UPDATE ON note
        FOR EACH ROW EXECUTE FUNCTION remember();";

/// What the processes said of their writes.
#[derive(Default)]
struct Ledger {
    /// Of each note its texts, oldest first, and whether they were acknowledged.
    notes: HashMap<usize, Vec<(String, bool)>>,
    added: [i64; COUNTERS],
    perhaps_added: [i64; COUNTERS],
    acknowledged: u64,
}

/// What a process said of itself.
#[derive(Default, Clone, Copy)]
struct Status {
    is_ready: bool,
    lanes_held: usize,
    fenced: u64,
    dead_letters: u64,
}

struct Node {
    place: usize,
    child: Child,
    stdin: Option<ChildStdin>,
    status: Arc<Mutex<Status>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

struct World {
    redis: RedisServer,
    postgres: Postgres,
    ledger: Arc<Mutex<Ledger>>,
    runs: u64,
    /// Of processes that were killed.
    fenced_before: u64,
}

#[test]
fn three_nodes_lose_nothing_and_apply_nothing_twice_while_they_are_stopped_and_killed() {
    let rounds = if std::env::var_os("LARDER_FULL").is_some() { 200 } else { 6 };
    let postgres = Postgres::launch();
    postgres.execute(TABLES);
    let mut world = World {
        redis: RedisServer::start(),
        postgres,
        ledger: Arc::default(),
        runs: 0,
        fenced_before: 0,
    };
    let mut nodes: Vec<Node> = (0..NODES).map(|place| world.start(place)).collect();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut kills, mut pauses) = (0, 0);
    for round in 0..rounds {
        until("every lane has an owner", || held(&nodes) == usize::from(LANES));
        std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        let chosen = random.usize(..NODES);
        if round % 2 == 0 {
            nodes[chosen].signal(Signal::STOP);
            let others: Vec<&Node> = nodes.iter().filter(|node| node.place != chosen).collect();
            until("the others have its lanes", || {
                others.iter().map(|node| node.status().lanes_held).sum::<usize>()
                    == usize::from(LANES)
            });
            // Their epochs reach the database before it goes on.
            std::thread::sleep(Duration::from_millis(random.u64(100..300)));
            nodes[chosen].signal(Signal::CONT);
            pauses += 1;
        } else {
            world.kill(&mut nodes[chosen]);
            nodes[chosen] = world.start(chosen);
            kills += 1;
        }
    }
    until("every lane has an owner", || held(&nodes) == usize::from(LANES));
    let mut fenced = world.fenced_before;
    let mut dead_letters = 0;
    for node in &mut nodes {
        node.end();
        fenced += node.status().fenced;
        dead_letters = dead_letters.max(node.status().dead_letters);
    }
    let ledger = lock(&world.ledger);
    let rows = world.check(&ledger);
    eprintln!(
        "{NODES} nodes, {kills} kills, {pauses} pauses past the lease: {} acknowledged, \
         {rows} puts committed, lost 0, applied twice 0, out of order per key 0, \
         refused by the fence {fenced}, dead letters {dead_letters}",
        ledger.acknowledged
    );
    assert!(fenced >= 1, "no late write came: the fence was not tried");
    assert_eq!(dead_letters, 0);
    assert!(ledger.acknowledged > rounds * 50, "the nodes hardly got to work");
}

fn held(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.status().lanes_held).sum()
}

impl World {
    fn start(&mut self, place: usize) -> Node {
        self.runs += 1;
        let mut child = Command::new(std::env::current_exe().expect("the test has a program"))
            .args(["--exact", "behind_fleet::the_node_that_writes", "--nocapture"])
            .env(CHILD, place.to_string())
            .env(CHILD_RUN, self.runs.to_string())
            .env(CHILD_REDIS, self.redis.url())
            .env(CHILD_DATABASE, self.postgres.url("postgres"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the test can start itself");
        let status: Arc<Mutex<Status>> = Arc::default();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (of_node, ledger) = (Arc::clone(&status), Arc::clone(&self.ledger));
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(std::result::Result::ok) {
                note(&line, &of_node, &ledger);
            }
        });
        let stdin = child.stdin.take();
        let node = Node { place, child, stdin, status, reader: Some(reader) };
        until("a node is ready", || node.status().is_ready);
        node
    }

    fn kill(&mut self, node: &mut Node) {
        node.child.kill().expect("it runs");
        node.child.wait().expect("it ends");
        if let Some(reader) = node.reader.take() {
            reader.join().expect("all is read");
        }
        self.fenced_before += node.status().fenced;
    }

    /// Compares the database with what was said. Returns how many puts it has had.
    fn check(&self, ledger: &Ledger) -> usize {
        for counter in 0..COUNTERS {
            let sum = format!("SELECT sum FROM counter WHERE id = {counter}");
            let sum: i64 = self.postgres.execute(&sum).trim().parse().expect("a number");
            let least = ledger.added[counter];
            let possible = least..=least + ledger.perhaps_added[counter];
            assert!(possible.contains(&sum), "counter {counter}: {sum} and not {possible:?}");
        }
        let mut rows = 0;
        for (id, texts) in &ledger.notes {
            let past = format!("SELECT text FROM past WHERE id = {id} ORDER BY place");
            let past = self.postgres.execute(&past);
            let mut begun = texts.iter();
            for text in past.lines() {
                rows += 1;
                let is_next = begun.any(|(other, _)| other == text);
                assert!(is_next, "note {id}: {text} twice, or out of order");
            }
            // What is left was never acknowledged; all before was replaced by what
            // came after it.
            let left: Vec<_> = begun.filter(|(_, is_acknowledged)| *is_acknowledged).collect();
            assert!(left.is_empty(), "note {id}: lost {left:?}");
        }
        rows
    }
}

impl Node {
    fn status(&self) -> Status {
        *lock(&self.status)
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Nobody has waited for it yet, so the id is still its own.
        kill_process(id.expect("a process id"), signal).expect("it runs");
        if signal == Signal::STOP {
            lock(&self.status).lanes_held = 0;
        }
    }

    /// Has it apply everything and end.
    fn end(&mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().expect("it ends").success(), "node {} failed", self.place);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("all is read");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes a line of a node: `B` begins a write, `A` acknowledges it, `S` is how it is.
fn note(line: &str, status: &Mutex<Status>, ledger: &Mutex<Ledger>) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse::<i64>().unwrap_or(0);
    let mut ledger = lock(ledger);
    match words[..] {
        ["S", lanes_held, fenced, dead_letters] => {
            *lock(status) = Status {
                is_ready: true,
                lanes_held: lanes_held.parse().expect("a number"),
                fenced: fenced.parse().expect("a number"),
                dead_letters: dead_letters.parse().expect("a number"),
            };
        }
        ["B", "put", id, text] => {
            let id = id.parse().expect("a number");
            ledger.notes.entry(id).or_default().push((text.to_owned(), false));
        }
        ["A", "put", id, _] => {
            let id = id.parse().expect("a number");
            let texts = ledger.notes.get_mut(&id).expect("it began");
            texts.last_mut().expect("it began").1 = true;
            ledger.acknowledged += 1;
        }
        ["B", "add", id, by] => {
            ledger.perhaps_added[id.parse::<usize>().expect("a number")] += number(by);
        }
        ["A", "add", id, by] => {
            let id = id.parse::<usize>().expect("a number");
            ledger.perhaps_added[id] -= number(by);
            ledger.added[id] += number(by);
            ledger.acknowledged += 1;
        }
        _ => {}
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "this does not come about: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does nothing unless the test above starts it as a process of its own.
#[test]
fn the_node_that_writes() {
    let variable = |name| std::env::var(name).ok();
    let Some(place) = variable(CHILD).and_then(|place| place.parse::<usize>().ok()) else { return };
    let run = variable(CHILD_RUN).expect("the parent says which run");
    let redis = variable(CHILD_REDIS).expect("the parent says where Redis is");
    let database = variable(CHILD_DATABASE).expect("the parent says where the database is");
    block_on(async {
        let behind = open(&redis, &database).await;
        let ends = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&ends);
        std::thread::spawn(move || {
            // Nothing is ever sent: it is the end that counts.
            let _ = std::io::stdin().lines().count();
            heard.store(true, Ordering::Release);
        });
        let mut writers = Vec::new();
        for number in 0..NOTES_OF_NODE {
            let note = place * NOTES_OF_NODE + number;
            writers.push(tokio::spawn(put(behind.clone(), note, run.clone(), Arc::clone(&ends))));
        }
        for counter in 0..COUNTERS {
            writers.push(tokio::spawn(add(behind.clone(), counter, Arc::clone(&ends))));
        }
        while !ends.load(Ordering::Acquire) {
            tell(&behind).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for writer in writers {
            writer.await.expect("it writes until the end");
        }
        behind.flush().await.expect("all is applied");
        tell(&behind).await;
        behind.shut_down(PATIENCE).await;
    });
}

async fn open(redis: &str, database: &str) -> WriteBehind {
    let mut options = RedisOptions::new(redis);
    options.response_timeout = Duration::from_secs(10);
    options.connect_timeout = Duration::from_secs(10);
    let tier = RedisTier::connect(options).await.expect("Redis runs");
    let mut options = RedisJournalOptions::default();
    (options.lanes, options.lease) = (LANES, LEASE);
    let journal = RedisJournal::open(&tier, options).await.expect("the journal opens");
    let mut options = DatabaseOptions::new(database);
    options.connect_timeout = Duration::from_secs(20);
    let database = Database::connect(&options).await.expect("the database runs");
    let tables = database.introspect().await.expect("the catalog can be read").tables;
    let targets = ["note", "counter"].map(|name| {
        let table = tables.iter().find(|table| table.name == name).expect("it is there");
        let origin = database.writing_table_origin(table, &WriteOptions::new());
        let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(Far(origin.expect("writable")));
        (name.to_owned(), origin)
    });
    let mut options = BehindOptions::default();
    options.batch_records = 10;
    options.batch_delay = Duration::from_millis(10);
    options.retry_pause_max = Duration::from_secs(1);
    // A node that stands still holds its locks in the database.
    options.attempt_timeout = Duration::from_secs(5);
    let opened = WriteBehind::open(Arc::new(journal), targets, options, Clock::monotonic());
    opened.await.expect("it opens")
}

/// A database to which the way is long: writes are on it while the process stands
/// still.
struct Far(SqlOrigin);

impl Origin<Key, Bytes> for Far {
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
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
        Origin::write_all(&self.0, writes, mark).await
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        Origin::applied(&self.0, journal, lane).await
    }
}

async fn put(behind: WriteBehind, note: usize, run: String, ends: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if ends.load(Ordering::Acquire) {
            return;
        }
        let text = format!("{run}-{number}");
        let value = Bytes::from(format!("{{\"text\":\"{text}\"}}"));
        let write = Write::new(Key::new(format!("note:{note}")), Action::Put(value));
        say(&format!("B put {note} {text}"));
        behind.write("note", write, Version::new(number)).await.expect("it is accepted");
        say(&format!("A put {note} {text}"));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
    }
}

async fn add(behind: WriteBehind, counter: usize, ends: Arc<AtomicBool>) {
    while !ends.load(Ordering::Acquire) {
        let by = fastrand::i64(1..1000);
        let action = Action::Add { field: "sum".into(), by: by.into() };
        let write = Write::new(Key::new(format!("counter:{counter}")), action);
        say(&format!("B add {counter} {by}"));
        behind.write("counter", write, Version::new(1)).await.expect("it is accepted");
        say(&format!("A add {counter} {by}"));
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
    }
}

async fn tell(behind: &WriteBehind) {
    let statistics = behind.statistics();
    let letters = statistics.journal.dead_letters;
    say(&format!("S {} {} {letters}", statistics.lanes_held, statistics.fenced));
}

/// One line, in one step: the parent reads what was written before the kill.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}
