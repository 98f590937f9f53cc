//! What becomes of writes when the connection, the network or the server dies:
//! what is acknowledged is there, nothing is there twice, and what is not known
//! is said not to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{ErrorKind, JournalOffset, Key, LaneMark, Origin, Result, Write, Written};
use larder_sql::{Database, DatabaseOptions, SqlOrigin, WriteOptions};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::Postgres;
use larder_testkit::proxy::{Direction, FaultProxy};

use crate::support::{add, load, options, put, writer};

const COUNTER: &str = "CREATE TABLE counter (id int NOT NULL PRIMARY KEY, n bigint NOT NULL);";

/// What is waited for in vain fails soon.
fn hasty(url: &str) -> DatabaseOptions {
    let mut options = options(url);
    options.statement_timeout = Duration::from_millis(400);
    options.connect_timeout = Duration::from_secs(2);
    options
}

fn behind(proxy: &FaultProxy, url: &str, port: u16) -> String {
    url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()))
}

async fn counter(database: &Database) -> SqlOrigin {
    writer(database, "counter", &WriteOptions::new()).await
}

/// The number of a counter.
async fn number(origin: &SqlOrigin, id: usize) -> Result<i64> {
    let row = load(origin, &format!("counter:{id}")).await?.expect("the counter is there");
    let number = row.split_once("\"n\":").expect("it has a number").1.trim_end_matches('}');
    Ok(number.parse().expect("it is a number"))
}

/// Asks until the server answers.
async fn number_in_the_end(origin: &SqlOrigin, id: usize) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match number(origin, id).await {
            Ok(number) => return number,
            Err(error) => assert!(Instant::now() < deadline, "the server does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(Default)]
struct Tally {
    acknowledged: AtomicUsize,
    unknown_done: AtomicUsize,
    unknown_not_done: AtomicUsize,
    refused: AtomicUsize,
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds to its own counter until it is told to stop, and knows after each
/// addition whether it happened.
async fn write_alone(
    database: Database,
    origin: SqlOrigin,
    id: usize,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
) {
    let mut expected = 0;
    let write = add(&format!("counter:{id}"), "n", "1");
    while !stop.load(Ordering::Relaxed) {
        match origin.write(&write).await {
            Ok(Written::Done { .. }) => {
                expected += 1;
                count(&tally.acknowledged);
            }
            Ok(other) => panic!("the counter is there: {other:?}"),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                tokio::time::sleep(database.write_settled_after()).await;
                match number_in_the_end(&origin, id).await - expected {
                    0 => count(&tally.unknown_not_done),
                    1 => {
                        expected += 1;
                        count(&tally.unknown_done);
                    }
                    other => panic!("an addition of 1 added {other}"),
                }
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                count(&tally.refused);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    assert_eq!(number_in_the_end(&origin, id).await, expected, "counter {id}");
}

/// Applies batches under marks; what it does not know it applies again.
async fn write_lane(database: Database, origin: SqlOrigin, id: usize, stop: Arc<AtomicBool>) {
    let lane = u16::try_from(id).expect("there are few lanes");
    let keys = [id, id + 1_000];
    let writes: Vec<_> = keys.iter().map(|id| add(&format!("counter:{id}"), "n", "1")).collect();
    let batch: Vec<_> = writes.iter().map(|write| (&origin, write)).collect();
    let mut applied = 0;
    while !stop.load(Ordering::Relaxed) {
        let next = JournalOffset(applied + 1);
        let mark = LaneMark { journal: "faults".into(), lane, epoch: 1, applied: next };
        match database.write_all(&batch, Some(&mark)).await {
            Ok(_) => applied += 1,
            Err(failed) => {
                let kind = failed.error.kind();
                assert!(kind == ErrorKind::OutcomeUnknown || kind.is_retryable(), "{failed}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    // The last may have been applied without an answer.
    let known = loop {
        match database.applied("faults", lane).await {
            Ok(mark) => break mark.map_or(0, |mark| mark.applied.0),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(known == applied || known == applied + 1, "{known} are applied, not {applied}");
    for id in keys {
        let number = number_in_the_end(&origin, id).await;
        assert_eq!(u64::try_from(number).ok(), Some(known), "counter {id} of lane {lane}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the counts are the proof")]
async fn a_killed_server_loses_no_acknowledged_write_and_makes_none_twice() {
    const ROUNDS: usize = 8;
    const WRITERS: usize = 64;
    const LANES: usize = 6;
    let mut postgres = Postgres::launch();
    postgres.execute(COUNTER);
    postgres.execute("INSERT INTO counter SELECT i, 0 FROM generate_series(0, 2000) i");
    let database = Database::connect(&hasty(&postgres.url("postgres"))).await;
    let database = database.expect("the server runs");
    let origin = counter(&database).await;
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for id in 0..WRITERS {
        let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
        writers.push(tokio::spawn(write_alone(database.clone(), origin.clone(), id, tally, stop)));
    }
    for lane in 0..LANES {
        let id = 100 + lane;
        writers.push(tokio::spawn(write_lane(
            database.clone(),
            origin.clone(),
            id,
            Arc::clone(&stop),
        )));
    }
    for round in 0..ROUNDS {
        let before = tally.acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(60);
        // In the middle of it: at another moment each time.
        while tally.acknowledged.load(Ordering::Relaxed) < before + 150 + 37 * round {
            assert!(Instant::now() < deadline, "writes go on after round {round}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        postgres = tokio::task::spawn_blocking(move || {
            postgres.kill();
            postgres.start();
            postgres
        })
        .await
        .expect("the server is killed and started");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("its counter is right");
    }
    let tally = |counter: fn(&Tally) -> &AtomicUsize| counter(&tally).load(Ordering::Relaxed);
    println!(
        "rounds {ROUNDS}, writers {WRITERS}, acknowledged {}, unknown and done {}, \
         unknown and not done {}, refused {}, lost 0, twice 0",
        tally(|tally| &tally.acknowledged),
        tally(|tally| &tally.unknown_done),
        tally(|tally| &tally.unknown_not_done),
        tally(|tally| &tally.refused),
    );
}

/// One write, with the connection cut after so many bytes, in either direction.
async fn cut(
    proxy: &FaultProxy,
    origin: &SqlOrigin,
    direct: &SqlOrigin,
    writes: &[Write<Key, Bytes>],
    direction: Direction,
    bytes: u64,
) -> Option<ErrorKind> {
    let before = number(direct, 1).await.expect("the server runs");
    // A connection is at hand.
    number(origin, 1).await.expect("the proxy lets it pass");
    let nothing = [add("counter:1", "n", "0"), add("counter:1", "n", "0")];
    origin.write_all(&nothing, None).await.expect("the proxy lets it pass");
    proxy.all().truncate(direction, bytes);
    let outcome = match writes {
        [write] => origin.write(write).await.map(drop),
        writes => origin.write_all(writes, None).await.map(drop).map_err(|failed| failed.error),
    };
    proxy.all().reset();
    proxy.lift();
    let added = writes.len() as i64;
    let found = number(direct, 1).await.expect("the server runs") - before;
    match outcome {
        Ok(()) => assert_eq!(found, added, "it was acknowledged, {direction:?} {bytes}"),
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
            assert!(found == 0 || found == added, "{found}, {direction:?} {bytes}");
            return Some(error.kind());
        }
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            assert_eq!(found, 0, "it was refused: {error}, {direction:?} {bytes}");
            return Some(error.kind());
        }
    }
    None
}

/// Cuts the connection at every place of a write, and of a batch.
#[allow(clippy::print_stdout, reason = "the counts are the proof")]
async fn cut_everywhere(proxy: &FaultProxy, url: &str, direct_url: &str) {
    let mut quick = hasty(url);
    quick.statement_timeout = Duration::from_secs(2);
    let database = Database::connect(&quick).await.expect("the proxy lets it pass");
    let direct = Database::connect(&hasty(direct_url)).await.expect("the server runs");
    let (origin, direct) = (counter(&database).await, counter(&direct).await);
    let one = vec![add("counter:1", "n", "1")];
    let two = vec![add("counter:1", "n", "1"); 2];
    let (mut unknown, mut refused, mut done) = (0, 0, 0);
    for writes in [&one, &two] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            for bytes in (0..900).step_by(29) {
                match cut(proxy, &origin, &direct, writes, direction, bytes).await {
                    None => done += 1,
                    Some(ErrorKind::OutcomeUnknown) => unknown += 1,
                    Some(_) => refused += 1,
                }
            }
        }
    }
    println!("done {done}, unknown {unknown}, refused {refused}");
    assert!(done > 0 && unknown > 0 && refused > 0, "each of them is seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_anywhere_leaves_a_write_done_or_not_and_says_so() {
    let postgres = Postgres::launch();
    postgres.execute(COUNTER);
    postgres.execute("INSERT INTO counter VALUES (1, 0)");
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.port())));
    let url = postgres.url("postgres");
    cut_everywhere(&proxy, &behind(&proxy, &url, postgres.port()), &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_mysql_that_is_cut_leaves_a_write_done_or_not_and_says_so() {
    let mysql = MySql::launch();
    mysql.execute(COUNTER);
    mysql.execute("INSERT INTO counter VALUES (1, 0)");
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], mysql.port())));
    let url = mysql.url("larder");
    cut_everywhere(&proxy, &behind(&proxy, &url, mysql.port()), &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_told_apart_from_failure_and_idle_connections_are_replaced() {
    let postgres = Postgres::launch();
    postgres.execute(COUNTER);
    postgres.execute("INSERT INTO counter VALUES (1, 0)");
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.port())));
    let url = behind(&proxy, &postgres.url("postgres"), postgres.port());
    let database = Database::connect(&hasty(&url)).await.expect("the proxy lets it pass");
    let origin = counter(&database).await;
    let one = add("counter:1", "n", "1");
    origin.write(&one).await.expect("the proxy lets it pass");

    // Idle connections that are gone are replaced, and the write is sent once.
    proxy.all().reset();
    proxy.lift();
    let two = [one.clone(), one.clone()];
    origin.write_all(&two, None).await.expect("nothing was sent on the dead connection");
    assert_eq!(number_in_the_end(&origin, 1).await, 3);
    proxy.all().reset();
    proxy.lift();
    tokio::time::sleep(Duration::from_millis(600)).await;
    origin.write(&one).await.expect("it was asked whether it is still there");
    assert_eq!(number_in_the_end(&origin, 1).await, 4);

    // The write arrives, the answer does not.
    proxy.all().black_hole(Direction::ToClient);
    let unknown = origin.write(&one).await.expect_err("nobody answers");
    assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown}");
    assert!(!unknown.is_retryable());
    proxy.lift();
    proxy.all().reset();
    proxy.lift();
    assert_eq!(number_in_the_end(&origin, 1).await, 5, "it was made");

    // What begins a transaction does not arrive: nothing happened, and that is sure.
    origin.write(&one).await.expect("the proxy lets it pass");
    proxy.all().black_hole(Direction::ToServer);
    let refused = origin.write_all(&two, None).await.expect_err("nobody answers");
    assert_eq!(refused.error.kind(), ErrorKind::Unavailable, "{refused}");
    proxy.lift();
    proxy.all().reset();
    proxy.lift();
    assert_eq!(number_in_the_end(&origin, 1).await, 6);
}

/// What bounds how long after an unknown outcome a transaction may still commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_which_nobody_goes_on_is_ended_by_the_server() {
    let postgres = Postgres::launch();
    postgres.execute(COUNTER);
    postgres.execute("INSERT INTO counter VALUES (1, 0)");
    let proxy = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.port())));
    let url = behind(&proxy, &postgres.url("postgres"), postgres.port());
    let database = Database::connect(&hasty(&url)).await.expect("the proxy lets it pass");
    assert_eq!(database.write_settled_after(), Duration::from_millis(1_800));
    let origin = counter(&database).await;
    let two = [add("counter:1", "n", "1"), add("counter:1", "n", "1")];
    origin.write_all(&two, None).await.expect("the proxy lets it pass");
    // Longer than the server waits for the next statement, and shorter than its
    // answer is waited for here.
    proxy.all().delay(Direction::ToServer, Duration::from_millis(520), Duration::ZERO);
    let failed = origin.write_all(&two, None).await.expect_err("it comes too late");
    assert_eq!(failed.error.kind(), ErrorKind::Unavailable, "{failed}");
    proxy.lift();
    assert_eq!(number_in_the_end(&origin, 1).await, 2, "it never happens");
    origin.write(&put("counter:2", "{\"n\":1}")).await.expect("all is well again");
}
