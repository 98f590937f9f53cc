//! The same over a real SQLite.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{BehindOptions, Clock, Version, WriteBehind};
use larder_core::{Action, DynOrigin, Key, Write};
use larder_journal::{DiskJournal, JournalOptions};
use larder_sql::{Database, DatabaseOptions, WriteOptions};
use larder_testkit::conformance::block_on;
use sqlx::{Connection, Executor, Row};
use tempfile::TempDir;

#[test]
fn sqlite_has_each_write_once() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("shop.db");
        let url = format!("sqlite:{}?mode=rwc", path.display());
        let mut raw = sqlx::SqliteConnection::connect(&url).await.expect("it opens");
        raw.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, name TEXT NOT NULL, pieces INTEGER NOT NULL CHECK (pieces >= 0))")
            .await
            .expect("a table");
        let database = Database::connect(&DatabaseOptions::new(&url)).await.expect("connected");
        let table = database.introspect().await.expect("a catalog").tables.remove(0);
        let origin =
            database.writing_table_origin(&table, &WriteOptions::default()).expect("it writes");
        let key = |id: u64| Key::new(format!("stock:{id}"));
        let mut expected = [0_i64; 5];
        for round in 0..20_i64 {
            let journal = DiskJournal::open(JournalOptions::new(directory.path().join("journal")))
                .await
                .expect("open");
            let target: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(origin.clone());
            let mut options = BehindOptions::default();
            options.batch_delay = Duration::from_millis(1 + (round as u64 % 3));
            let behind = WriteBehind::open(
                Arc::new(journal.clone()),
                [("stock".to_owned(), target)],
                options,
                Clock::monotonic(),
            )
            .await
            .expect("open");
            for number in 0..30_i64 {
                let id = (number % 5) as u64;
                if round == 0 && number < 5 {
                    let value = format!("{{\"id\":{id},\"name\":\"n\",\"pieces\":0}}");
                    behind
                        .write(
                            "stock",
                            Write::new(key(id), Action::Put(value.into())),
                            Version::new(1),
                        )
                        .await
                        .expect("accepted");
                } else {
                    let field = "pieces".into();
                    behind
                        .write(
                            "stock",
                            Write::new(key(id), Action::Add { field, by: number.into() }),
                            Version::new(1),
                        )
                        .await
                        .expect("accepted");
                    expected[id as usize] += number;
                }
            }
            // Refused by the constraint.
            let bad = "{\"id\":9,\"name\":\"bad\",\"pieces\":-1}".to_owned();
            behind
                .write("stock", Write::new(key(9), Action::Put(bad.into())), Version::new(1))
                .await
                .expect("accepted");
            if round == 19 {
                tokio::time::timeout(Duration::from_secs(60), behind.flush())
                    .await
                    .expect("in time")
                    .expect("applied");
                let letters = behind.dead_letters(None, 100).await.expect("listed");
                eprintln!("{} letters: {}", letters.len(), letters[0].death.reason);
                assert_eq!(
                    letters.len(),
                    20,
                    "{:?}",
                    letters.iter().map(|l| &l.death).collect::<Vec<_>>()
                );
                eprintln!("{:?}", behind.statistics());
            }
            drop(behind);
            journal.close().await;
        }
        for (id, pieces) in expected.iter().enumerate() {
            let row = sqlx::query("SELECT pieces FROM stock WHERE id = ?")
                .bind(id as i64)
                .fetch_one(&mut raw)
                .await
                .expect("a row");
            assert_eq!(row.get::<i64, _>(0), *pieces);
        }
        let marks = sqlx::query("SELECT journal, lane, epoch, applied FROM larder_lanes LIMIT 3")
            .fetch_all(&mut raw)
            .await
            .expect("marks");
        for mark in marks {
            eprintln!(
                "{} {} {} {}",
                mark.get::<String, _>(0),
                mark.get::<i64, _>(1),
                mark.get::<i64, _>(2),
                mark.get::<i64, _>(3)
            );
        }
    });
}
