//! Write-behind as a library, over the SQL origins themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{BehindOptions, Clock, WriteBehind};
use larder_core::{Action, DynOrigin, Key, Version, Write};
use larder_journal::{DiskJournal, JournalOptions};
use larder_sql::{DatabaseOptions, WriteOptions};
use tempfile::tempdir;

use super::*;
use crate::running::wait_until;

async fn open(
    journal: &DiskJournal,
    database: &larder_sql::Database,
    tables: &[larder_sql::Table],
) -> WriteBehind {
    let mut targets: Vec<(String, Arc<dyn DynOrigin<Key, Bytes>>)> = Vec::new();
    for name in ["stock", "note"] {
        let table = tables.iter().find(|table| table.name == name).expect("it is there");
        let origin = database.writing_table_origin(table, &WriteOptions::new());
        targets.push((name.to_owned(), Arc::new(origin.expect("it can be written"))));
    }
    let mut options = BehindOptions::default();
    options.batch_records = 25;
    options.batch_delay = Duration::from_millis(5);
    options.retry_pause = Duration::from_millis(5);
    options.retry_pause_max = Duration::from_millis(100);
    options.retries_per_second = 1000;
    let journal = Arc::new(journal.clone());
    WriteBehind::open(journal, targets, options, Clock::monotonic()).await.expect("it opens")
}

async fn over(directory: &Path, mut database: Database) {
    database.execute("INSERT INTO stock VALUES (1, 'cup', 5), (2, 'mug', 5)").await;
    let options = DatabaseOptions::new(database.url());
    let connected = larder_sql::Database::connect(&options).await.expect("it is there");
    let tables = connected.introspect().await.expect("it answers").tables;
    let version = Version::new(1);
    // Fewer than none would be refused.
    let mut added = [5_i64; 2];
    for round in 0..12 {
        let journal = DiskJournal::open(JournalOptions::new(directory.join("journal")));
        let journal = journal.await.expect("it opens");
        let behind = open(&journal, &connected, &tables).await;
        for number in 0..200 {
            let which = number % 2;
            let by = if number % 5 == 0 { -1 } else { 3 };
            let action = Action::Add { field: "pieces".into(), by: by.into() };
            let key = Key::new(format!("stock:{}", which + 1));
            behind.write("stock", Write::new(key, action), version).await.expect("accepted");
            added[which] += by;
            let row = Bytes::from(format!("{{\"id\":{which},\"n\":{}}}", round * 200 + number));
            let put = Write::new(Key::new(format!("note:{which}")), Action::Put(row));
            behind.write("note", put, version).await.expect("accepted");
            if number == 100 && round % 4 == 1 && matches!(database, Database::Postgres(_)) {
                database.postgres_mut().kill();
                database.postgres_mut().start();
            }
        }
        // Every other time it ends as it is.
        if round % 2 == 0 {
            let flushed = tokio::time::timeout(crate::running::PATIENCE, behind.flush()).await;
            flushed.expect("it comes to an end").expect("it is applied");
        }
        drop(behind);
        journal.close().await;
    }
    let journal = DiskJournal::open(JournalOptions::new(directory.join("journal")));
    let journal = journal.await.expect("it opens");
    let behind = open(&journal, &connected, &tables).await;
    let flushed = tokio::time::timeout(crate::running::PATIENCE, behind.flush()).await;
    flushed.expect("it comes to an end").expect("it is applied");
    wait_until("the journal is trimmed", || behind.statistics().journal.records == 0).await;
    assert_eq!(behind.statistics().journal.dead_letters, 0);
    for (which, sum) in added.into_iter().enumerate() {
        let pieces = database.member("stock", "pieces", which + 1).await;
        assert_eq!(pieces, Some(sum.to_string()));
        let last = 11 * 200 + 198 + which;
        assert_eq!(database.member("note", "n", which).await, Some(last.to_string()));
    }
    assert!(database.ask("SELECT CAST(id AS TEXT) FROM disorder").await.is_empty());
    behind.shut_down(Duration::ZERO).await;
    journal.close().await;
    connected.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_each_write_once_and_in_order_whenever_the_process_ends() {
    let directory = tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    over(directory.path(), database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_each_write_once_and_in_order_also_while_it_is_stopped() {
    let directory = tempdir().expect("a temporary directory");
    over(directory.path(), Database::postgres()).await;
}
