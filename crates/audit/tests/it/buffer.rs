//! What is accepted and what is refused, and when it is passed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::BehindStatistics;
use larder_audit::{AuditBuffer, AuditFiles, AuditOptions, FileOptions};
use larder_core::{Clock, DynOrigin, ErrorKind, Key, ManualClock, WriteAbilities};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::FaultyTable;
use tempfile::TempDir;

use crate::support::{STREAM, buffer, journal, records};

async fn files(directory: &TempDir) -> Arc<dyn DynOrigin<Key, Bytes>> {
    let options = FileOptions::new(directory.path().join("files"));
    let mut opened = AuditFiles::open(options.clone()).await;
    let until = Instant::now() + PATIENCE;
    while opened.is_err() && Instant::now() < until {
        // Tasks that end still hold them.
        tokio::time::sleep(Duration::from_millis(1)).await;
        opened = AuditFiles::open(options.clone()).await;
    }
    Arc::new(opened.expect("they open"))
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the statistics are as told.
async fn settles(audit: &AuditBuffer, what: &str, is_so: impl Fn(&BehindStatistics) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so(&audit.statistics()) {
        assert!(Instant::now() < until, "{what}: {:?}", audit.statistics());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn record(number: u64) -> Bytes {
    format!("{{\"n\":{number}}}").into()
}

#[test]
fn records_are_in_the_files_in_the_order_of_their_acknowledgement() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let origin = files(&directory).await;
        let audit =
            buffer(&directory.path().join("journal"), origin, AuditOptions::default()).await;
        let mut receipts = Vec::new();
        for number in 0..50 {
            receipts.push(audit.append(STREAM, record(number)).await.expect("accepted"));
        }
        let more = audit.append_many(STREAM, (50..70).map(record)).await.expect("accepted");
        receipts.extend(more);
        assert!(records(&directory.path().join("files")).is_empty(), "they wait");
        assert_eq!(audit.statistics().depth_records, 70);
        audit.flush().await.expect("passed on");

        let found = records(&directory.path().join("files"));
        let numbers = found.iter().map(|(_, record)| record["n"].as_u64());
        assert!(numbers.eq((0..70).map(Some)));
        let keys: Vec<String> = receipts.iter().map(|receipt| receipt.key.to_string()).collect();
        assert!(found.iter().map(|(key, _)| key).eq(&keys));
        assert!(keys.is_sorted() && keys.iter().all(|key| key.starts_with("payment:")));
        assert!(receipts.iter().map(|receipt| receipt.place.0).eq(1..=70));
        assert_eq!(audit.statistics().coalesced, 0);
        assert_eq!(audit.shut_down(Duration::from_secs(10)).await, 0);
        let refused = audit.append(STREAM, record(0)).await.expect_err("it is shut down");
        assert_eq!(refused.kind(), ErrorKind::ShuttingDown);
    });
}

#[test]
fn a_hundred_records_are_passed_on_at_once_and_fewer_after_five_minutes() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let manual = ManualClock::new();
        let mut options = JournalOptions::new(directory.path());
        options.lanes = 1;
        options.clock = Clock::from(manual.clone());
        let journal = DiskJournal::open(options).await.expect("it opens");
        let table = FaultyTable::new();
        let audit = AuditBuffer::open(
            Arc::new(journal),
            [(STREAM.to_owned(), Arc::new(table.clone()) as _)],
            AuditOptions::default(),
            Clock::from(manual.clone()),
        );
        let audit = audit.await.expect("it opens");
        let row = |number: u64| Bytes::from(format!("{{\"text\":\"{number}\"}}"));
        audit.append_many(STREAM, (0..99).map(row)).await.expect("accepted");
        manual.advance(Duration::from_secs(299));
        // The lane is awake and has looked at the time.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(audit.statistics().applied, 0);
        manual.advance(Duration::from_secs(2));
        settles(&audit, "the time has come", |statistics| statistics.applied == 99).await;
        audit.append_many(STREAM, (0..100).map(row)).await.expect("accepted");
        settles(&audit, "it is a hundred", |statistics| statistics.applied == 199).await;
        assert_eq!(audit.statistics().batches, 2);
    });
}

#[test]
fn what_is_no_record_and_what_is_too_much_is_refused_before_it_is_acknowledged() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let origin = files(&directory).await;
        let mut options = AuditOptions::default();
        options.record_bytes_max = 100;
        options.behind.queue_records_max = 10;
        let audit = buffer(&directory.path().join("journal"), origin, options).await;
        let large = format!("{{\"text\":\"{}\"}}", "x".repeat(100));
        for (bad, part) in
            [("[1]", "no"), ("{\"a\":", "not a JSON object"), (&*large, "record_bytes_max: 100")]
        {
            let refused = audit.append(STREAM, bad.to_owned()).await.expect_err("it is refused");
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains(part), "{refused}");
        }
        let refused = audit.append("other", record(1)).await.expect_err("no such stream");
        assert!(refused.to_string().contains("other"), "{refused}");

        audit.append_many(STREAM, (0..10).map(record)).await.expect("accepted");
        let refused = audit.append(STREAM, record(10)).await.expect_err("it is full");
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        let refused = audit.append_many(STREAM, (10..12).map(record)).await;
        assert_eq!(refused.expect_err("it is full").kind(), ErrorKind::Overloaded);
        audit.flush().await.expect("passed on");
        settles(&audit, "nothing waits", |statistics| statistics.depth_records == 0).await;
        audit.append(STREAM, "{\n \"n\": 10\n}").await.expect("there is room again");
        audit.flush().await.expect("passed on");
        let found = records(&directory.path().join("files"));
        let numbers = found.iter().map(|(_, record)| record["n"].as_u64());
        assert!(numbers.eq((0..=10).map(Some)), "nothing of what was refused is there");
    });
}

#[test]
fn two_streams_share_files_and_each_goes_on_where_it_was() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        for round in 0..3_u64 {
            let origin = files(&directory).await;
            let streams = ["payment", "login"].map(|name| (name.to_owned(), Arc::clone(&origin)));
            let journal = journal(&directory.path().join("journal")).await;
            let audit = AuditBuffer::open(
                Arc::new(journal.clone()),
                streams,
                AuditOptions::default(),
                Clock::monotonic(),
            );
            let audit = audit.await.expect("it opens");
            for number in round * 10..(round + 1) * 10 {
                let stream = if number % 3 == 0 { "login" } else { "payment" };
                audit.append(stream, record(number)).await.expect("accepted");
            }
            if round % 2 == 0 {
                audit.flush().await.expect("passed on");
            }
            audit.shut_down(Duration::from_secs(10)).await;
            drop((audit, origin));
            journal.close().await;
        }
        let found = records(&directory.path().join("files"));
        let of = |stream: &str| {
            let mine = found.iter().filter(|(key, _)| key.starts_with(stream));
            mine.map(|(_, record)| record["n"].as_u64().expect("a number")).collect::<Vec<_>>()
        };
        let expected = |is_login: bool| {
            (0..30).filter(|number| (number % 3 == 0) == is_login).collect::<Vec<u64>>()
        };
        assert_eq!((of("login"), of("payment")), (expected(true), expected(false)));
    });
}

#[test]
fn a_journal_with_lanes_and_an_origin_without_marks_are_refused() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let origin = files(&directory).await;
        let open = async |journal, stream: &str, origin| {
            let streams = [(stream.to_owned(), origin)];
            let options = AuditOptions::default();
            let opened = AuditBuffer::open(journal, streams, options, Clock::monotonic()).await;
            opened.expect_err("it is refused").to_string()
        };
        let many = JournalOptions::new(directory.path().join("many"));
        let many = Arc::new(DiskJournal::open(many).await.expect("it opens"));
        let refused = open(many, STREAM, Arc::clone(&origin)).await;
        assert!(refused.contains("more than one lane (lanes: 16)"), "{refused}");

        let one = Arc::new(journal(&directory.path().join("one")).await);
        for name in ["", "a b", "a\n", "{}", &"x".repeat(65)] {
            let refused = open(one.clone(), name, Arc::clone(&origin)).await;
            assert!(refused.contains("no name of an audit stream"), "{refused}");
        }
        let plain = FaultyTable::with_abilities(WriteAbilities::SIMPLE);
        let refused = open(one, STREAM, Arc::new(plain)).await;
        assert!(refused.contains("keeps no marks"), "{refused}");
    });
}
