//! Records in a table of SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_audit::{AuditBuffer, AuditOptions};
use larder_sql::{Database, DatabaseOptions, QueryOptions, SqlOrigin, WriteOptions};
use larder_testkit::conformance::block_on;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};
use tempfile::TempDir;

use crate::support::{STREAM, buffer};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS payment (
    id TEXT NOT NULL PRIMARY KEY, note TEXT NOT NULL, cents INTEGER NOT NULL CHECK (cents >= 0))";

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let options = options.busy_timeout(Duration::from_secs(20));
    options.connect().await.expect("a database in a file")
}

async fn database(path: &Path) -> Database {
    let mut connection = connect(path).await;
    sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await.expect("set");
    sqlx::raw_sql(TABLE).execute(&mut connection).await.expect("a table");
    let url = format!("sqlite:{}", path.display());
    Database::connect(&DatabaseOptions::new(&url)).await.expect("it answers")
}

/// The table of the stream, made if it is not there.
pub(crate) async fn table(path: &Path) -> SqlOrigin {
    let database = database(path).await;
    let tables = database.introspect().await.expect("the catalog can be read").tables;
    let table = tables.iter().find(|table| table.name == STREAM).expect("it is served");
    database.writing_table_origin(table, &WriteOptions::new()).expect("it can be written")
}

/// The notes of all rows, in the order of their identifiers.
pub(crate) async fn notes_in_order(path: &Path) -> Vec<String> {
    let mut connection = connect(path).await;
    let select = "SELECT note FROM payment ORDER BY id";
    let rows = sqlx::query(select).fetch_all(&mut connection).await.expect("rows");
    rows.iter().map(|row| row.get("note")).collect()
}

async fn open(directory: &Path, origin: SqlOrigin) -> AuditBuffer {
    let options = AuditOptions::default();
    buffer(&directory.join("journal"), Arc::new(origin), options).await
}

fn record(number: u64) -> Bytes {
    format!("{{\"note\":\"{number}\",\"cents\":{number}}}").into()
}

#[test]
fn each_record_is_a_row_and_the_identifiers_are_in_order() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("audit.db");
        let audit = open(directory.path(), table(&path).await).await;
        for number in 0..30 {
            audit.append(STREAM, record(number)).await.expect("accepted");
        }
        audit.append_many(STREAM, (30..250).map(record)).await.expect("accepted");
        audit.flush().await.expect("passed on");
        let expected: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        assert_eq!(notes_in_order(&path).await, expected);
        let statistics = audit.statistics();
        assert_eq!((statistics.coalesced, statistics.buried), (0, 0));
        assert!(statistics.batches >= 3, "a hundred at most: {statistics:?}");
    });
}

#[test]
fn a_row_that_the_table_refuses_holds_up_nobody_and_can_be_mended() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("audit.db");
        let audit = open(directory.path(), table(&path).await).await;
        audit.append(STREAM, record(1)).await.expect("accepted");
        let bad = audit.append(STREAM, "{\"note\":\"bad\",\"cents\":-1}").await.expect("accepted");
        audit.append(STREAM, record(2)).await.expect("accepted");
        audit.flush().await.expect("passed on");
        assert_eq!(notes_in_order(&path).await, ["1", "2"]);

        let letters = audit.behind().dead_letters(None, 10).await.expect("a list");
        let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
        assert_eq!(letter.record.write.key, bad.key);
        assert_eq!(letter.death.offset, bad.place);
        let mut mended = letter.record.write.clone();
        mended.action = larder_core::Action::Put("{\"note\":\"mended\",\"cents\":1}".into());
        let replayed =
            audit.behind().replay(letter.into(), larder_core::Version::ZERO, Some(mended));
        replayed.await.expect("accepted");
        audit.flush().await.expect("passed on");
        // It has kept its identifier, and so its place.
        assert_eq!(notes_in_order(&path).await, ["1", "mended", "2"]);
    });
}

#[test]
fn a_statement_that_only_inserts_is_enough() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("audit.db");
        let database = database(&path).await;
        let pattern = "payment:{id}".parse().expect("a pattern");
        let query =
            QueryOptions::new(pattern, "SELECT id, note, cents FROM payment WHERE id = :id");
        let insert = "INSERT INTO payment (id, note, cents) VALUES (:id, :note, :cents)";
        let writes = WriteOptions::new().put(insert);
        let origin = database.writing_query_origin(query, &writes).await.expect("it is checked");
        let audit = open(directory.path(), origin).await;
        audit.append_many(STREAM, (0..120).map(record)).await.expect("accepted");
        audit.flush().await.expect("passed on");
        let expected: Vec<String> = (0..120).map(|number| number.to_string()).collect();
        assert_eq!(notes_in_order(&path).await, expected);
        assert_eq!(audit.statistics().buried, 0);
    });
}
