//! What is written and what is refused, database by database.

use std::sync::Arc;

use larder_core::{Error, ErrorKind, Expected, Key, Origin, Value, Version, Write, Written};
use larder_sql::{Database, SqlOrigin, WriteOptions};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::Postgres;
use larder_testkit::proxy::FaultProxy;

use crate::support::{
    add, assert_error, connect, load, now, patch, put, query, remove, table, writer,
};

/// What each database is shown, but for the words in which they differ.
const ITEM: &str = "CREATE TABLE item (
    id int NOT NULL PRIMARY KEY, name varchar(5) NOT NULL DEFAULT 'none', code int UNIQUE,
    price decimal(6,2), small smallint, at timestamp NULL, CHECK (price >= 0));
    CREATE TABLE part (id int NOT NULL PRIMARY KEY, item int REFERENCES item (id),
    FOREIGN KEY (item) REFERENCES item (id));
    CREATE TABLE loose (k varchar(10) NOT NULL PRIMARY KEY);
    INSERT INTO item (id, name, code) VALUES (1, 'one', 100);
    CREATE VIEW cheap AS SELECT id, name FROM item WHERE price < 10;";

/// The value of a secret is in no error.
const SECRET: &str = "s3cret";

async fn refused(origin: &SqlOrigin, write: Write<Key, bytes::Bytes>) -> Error {
    let failed = origin.write_all(std::slice::from_ref(&write), None).await;
    let failed = failed.expect_err("it is refused");
    assert_eq!(failed.index, Some(0), "{failed}");
    let error = origin.write(&write).await.expect_err("it is refused");
    assert!(error.remedy_text().is_some(), "{error}");
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(error.kind(), failed.error.kind());
    error
}

async fn check_refusals(database: &Database, checks_ranges: bool) {
    let item = writer(database, "item", &WriteOptions::new()).await;
    for (write, kind, parts) in [
        (
            put("item:1", "{\"nmae\":1}"),
            ErrorKind::InvalidInput,
            &["nmae", "the columns are id"][..],
        ),
        (put("item:1", "[]"), ErrorKind::InvalidInput, &["not a JSON object"]),
        (put("item:1", "{\"id\":1,\"id\":1}"), ErrorKind::InvalidInput, &["two members"]),
        (
            put("item:1", "{\"id\":2}"),
            ErrorKind::InvalidInput,
            &["contradicts the key", "column: id"],
        ),
        (put("item:x", "{}"), ErrorKind::InvalidInput, &["key of no row", "pattern: item:{id}"]),
        (
            put("item:1", "{\"name\":7}"),
            ErrorKind::InvalidInput,
            &["column: name", "write a JSON string"],
        ),
        (patch("item:1", "{}"), ErrorKind::InvalidInput, &["changes no column"]),
        (add("item:1", "name", "1"), ErrorKind::InvalidInput, &["column: name"]),
        (add("item:1", "nmae", "1"), ErrorKind::InvalidInput, &["field: nmae"]),
        (add("item:1", "id", "1"), ErrorKind::InvalidInput, &["part of the key"]),
        (add("item:1", "code", "1.5"), ErrorKind::InvalidInput, &["whole number", "column: code"]),
        (add("item:1", "small", "1"), ErrorKind::InvalidInput, &["column: small", "null"]),
        (
            remove("item:1").expecting(Expected::Absent),
            ErrorKind::InvalidInput,
            &["only a put can expect"],
        ),
        (
            put("item:1", "{}").expecting(Expected::Version(Version::new(1))),
            ErrorKind::Unsupported,
            &["version_column"],
        ),
        (put("item:1", "{\"name\":null}"), ErrorKind::InvalidInput, &["column: name", "NOT NULL"]),
        (put("item:2", "{\"code\":100}"), ErrorKind::OriginFailed, &["code"]),
        (
            put("item:2", "{\"price\":\"-1\"}"),
            ErrorKind::OriginFailed,
            &["write a value that the constraint allows"],
        ),
    ] {
        let error = refused(&item, write).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert_error(&error, parts);
    }
    let part = writer(database, "part", &WriteOptions::new()).await;
    let error = refused(&part, put("part:1", "{\"item\":77}")).await;
    assert_eq!(error.kind(), ErrorKind::OriginFailed, "{error}");
    assert_error(&error, &["foreign key"]);
    if checks_ranges {
        for (write, parts) in [
            (
                put("item:1", &format!("{{\"name\":\"{SECRET}\"}}")),
                &["column: name", "at most 5 characters"][..],
            ),
            (put("item:1", "{\"small\":32768}"), &["column: small", "from -32768 to 32767"]),
            (put("item:1", "{\"price\":\"1.234\"}"), &["column: price", "2 digits behind"]),
            (put("item:1", "{\"price\":12345}"), &["column: price", "4 digits before"]),
            (put("item:1", "{\"price\":1e2}"), &["column: price", "digits with at most one point"]),
            (put("item:1", "{\"at\":\"yesterday\"}"), &["column: at", "2013-01-31T06:00:00"]),
            (add("item:1", "price", "0.001"), &["column: price"]),
        ] {
            let error = refused(&item, write).await;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_error(&error, parts);
        }
        item.write(&patch("item:1", "{\"small\":32767,\"price\":9999.99}")).await.expect("it fits");
        for field in ["small", "price"] {
            let error = refused(&item, add("item:1", field, "1")).await;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_error(&error, &["out of"]);
        }
    }
    check_what_is_kept(database, &item, &part).await;
}

/// What of a row stays, what is replaced, and what order does not spoil.
async fn check_what_is_kept(database: &Database, item: &SqlOrigin, part: &SqlOrigin) {
    let row = put("item:1", "{\"id\":1,\"price\":\"2.50\"}");
    let written = item.write(&row).await.expect("it is put");
    let told = now(&written).expect("it is there").to_owned();
    assert!(told.contains("\"name\":\"none\",\"code\":null,\"price\":"), "defaults: {told}");
    assert_eq!(load(item, "item:1").await.expect("it loads"), Some(told));

    // A row that only has a key, put twice.
    let loose = writer(database, "loose", &WriteOptions::new()).await;
    for _ in 0..2 {
        let written = loose.write(&put("loose:Ann", "{}")).await.expect("it is put");
        assert_eq!(now(&written), Some("{\"k\":\"Ann\"}"));
    }

    // Parts before their items: in the order given each of them is sound.
    let (second, third) = (put("item:2", "{\"name\":\"two\"}"), put("item:3", "{}"));
    let parts = [put("part:1", "{\"item\":1}"), put("part:2", "{\"item\":2}")];
    let batch = [(part, &parts[0]), (item, &second), (part, &parts[1]), (item, &third)];
    let answers = database.write_all(&batch, None).await.expect("each finds its item");
    assert_eq!(answers.len(), 4);
    assert!(now(&answers[2]).is_some_and(|row| row.contains("\"item\":2")));
    let gone = [(item, &remove("item:2")), (part, &remove("part:2"))];
    let failed = database.write_all(&gone, None).await.expect_err("a part needs its item");
    assert_eq!(failed.index, Some(0), "{failed}");

    // A view is not written, and neither is what was not asked to be.
    let view = table(database, "cheap").await;
    let error = database.writing_table_origin(&view, &WriteOptions::new()).expect_err("a view");
    assert_error(&error, &["a view is not written", "cheap"]);
    let items = table(database, "item").await;
    let reader = database.table_origin(&items).expect("it is served");
    assert_eq!(reader.write_abilities().batch_limit, 0);
    let error = reader.write(&row).await.expect_err("it only reads");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // A number that can be NULL counts nothing.
    for column in ["name", "missing", "id", "code"] {
        let options = WriteOptions::new().version_column(column);
        let error = database.writing_table_origin(&items, &options).expect_err(column);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let key = Key::new("item:1");
    assert_eq!(reader.validator(&key).await.expect("it has none"), None);
}

/// Statements that are wrong are told apart before anything is written.
async fn check_statements(database: &Database) {
    let select = || query("item:{id}", "SELECT id, name, code FROM item WHERE id = :id");
    for (options, parts) in [
        (WriteOptions::new(), &["without statements"][..]),
        (WriteOptions::new().put("SELECT :id"), &["statement: put", "INSERT, UPDATE or DELETE"]),
        (
            WriteOptions::new().put("INSERT INTO item (id) VALUES (:id); SELECT 1"),
            &["more than one"],
        ),
        (WriteOptions::new().remove("DELETE FROM item"), &["statement: remove", "parameter: id"]),
        (
            WriteOptions::new().remove("DELETE FROM item WHERE id = :id AND name = :name"),
            &["parameter: name"],
        ),
        (
            WriteOptions::new().remove("DELETE FROM itme WHERE id = :id"),
            &["refuses the statement", "statement: remove", "itme"],
        ),
        (
            WriteOptions::new().add("code", "UPDATE item SET code = 1 WHERE id = :id"),
            &["statement: add.code", ":by"],
        ),
        (
            WriteOptions::new()
                .remove("DELETE FROM item WHERE id = :id AND code = :expected_version"),
            &["declare version_column"],
        ),
        (
            WriteOptions::new().remove("DELETE FROM item WHERE id = :id").version_column("v"),
            &["does not select the version column"],
        ),
    ] {
        let error = database.writing_query_origin(select(), &options).await.expect_err(parts[0]);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
        assert_error(&error, parts);
    }
    let list = WriteOptions::new().put("UPDATE item SET name = :name WHERE id = :id");
    let error = database.writing_query_origin(select().list(true), &list).await;
    assert_error(&error.expect_err("a list is not put"), &["a list can only be removed"]);

    let options = WriteOptions::new()
        .put("UPDATE item SET name = :name WHERE id = :id")
        .remove("DELETE FROM part WHERE item = :id");
    let origin = database.writing_query_origin(select(), &options).await.expect("they are sound");
    let abilities = origin.write_abilities();
    assert!(abilities.put && abilities.remove && !abilities.patch && !abilities.versions);
    for (write, kind, part) in [
        (put("item:1", "{}"), ErrorKind::InvalidInput, "lacks a member"),
        (put("item:1", "{\"name\":\"a\",\"x\":1}"), ErrorKind::InvalidInput, "member: x"),
        (put("item:99", "{\"name\":\"a\"}"), ErrorKind::OriginFailed, "changed no row"),
        (patch("item:1", "{\"name\":\"a\"}"), ErrorKind::Unsupported, "declare patch"),
        (
            put("item:1", "{\"name\":\"a\"}").expecting(Expected::Present),
            ErrorKind::Unsupported,
            ":expected_version",
        ),
    ] {
        let error = refused(&origin, write).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert_error(&error, &[part]);
    }
    // What the query selects beyond what is written can be put back.
    let row = "{\"id\":1,\"name\":\"back\",\"code\":null}";
    let written = origin.write(&put("item:1", row)).await.expect("it is put");
    assert_eq!(now(&written), Some(row));
}

#[tokio::test]
async fn sqlite_refuses_with_the_column_and_the_remedy() {
    let (_directory, path) = crate::sqlite::file(ITEM).await;
    let url = format!("sqlite:{}", path.display());
    let database = connect(&url).await;
    check_refusals(&database, false).await;
    check_statements(&database).await;

    let script = "CREATE TABLE n (id INTEGER PRIMARY KEY, v INTEGER, t TEXT);
        INSERT INTO n VALUES (1, 9223372036854775807, 'x'), (2, 1.5, 'x');
        CREATE TABLE folded (k TEXT COLLATE NOCASE PRIMARY KEY, v INTEGER);
        INSERT INTO folded VALUES ('Ann', 1);
        CREATE TABLE kept (id INTEGER PRIMARY KEY, v INTEGER, twice INTEGER AS (v * 2));
        CREATE TRIGGER kept_change AFTER INSERT ON kept BEGIN
            UPDATE kept SET v = v + 1 WHERE id = new.id; END;";
    crate::sqlite::write(&path, script).await;
    let by_statement = WriteOptions::new().put("UPDATE n SET v = :v WHERE id = :id");
    let select = query("n:{id}", "SELECT id, v FROM n WHERE id = :id");
    let origin = database.writing_query_origin(select, &by_statement).await.expect("it is sound");
    for number in ["9223372036854775808", "-9223372036854775809", "99999999999999999999"] {
        let error = refused(&origin, put("n:1", &format!("{{\"v\":{number}}}"))).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "it is not rounded: {error}");
        assert_error(&error, &["member: v", "2^63"]);
    }
    let numbers = writer(&database, "n", &WriteOptions::new()).await;
    for key in ["n:1", "n:2"] {
        let error = refused(&numbers, add(key, "v", "1")).await;
        assert_error(&error, &["column: v", "out of its range"]);
    }
    let folded = writer(&database, "folded", &WriteOptions::new()).await;
    let error = refused(&folded, put("folded:ann", "{\"v\":2}")).await;
    assert_error(&error, &["spells this key otherwise"]);
    assert_eq!(folded.write(&remove("folded:ann")).await.expect("it is not there"), gone());
    assert!(load(&folded, "folded:Ann").await.expect("it loads").is_some());
    let kept = writer(&database, "kept", &WriteOptions::new()).await;
    let written = kept.write(&put("kept:1", "{\"v\":1,\"twice\":99}")).await.expect("it is put");
    assert_eq!(now(&written), Some("{\"id\":1,\"v\":2,\"twice\":4}"), "after the trigger");
    let error = refused(&kept, patch("kept:1", "{\"twice\":1}")).await;
    assert_error(&error, &["column: twice", "fills it itself"]);

    // The replica has not heard of it yet.
    let (_other, replica) = crate::sqlite::file(script).await;
    let mut options = crate::support::options(&url);
    options.replica_url = Some(format!("sqlite:{}", replica.display()));
    let both = Database::connect(&options).await.expect("both are there");
    let row = "{\"id\":5,\"v\":5,\"twice\":10}";
    let writing = writer(&both, "kept", &WriteOptions::new()).await;
    writing.write(&put("kept:5", "{\"v\":4}")).await.expect("it is put");
    assert_eq!(load(&writing, "kept:5").await.expect("it loads").as_deref(), Some(row));
    let reading = crate::support::table_origin(&both, "kept").await;
    assert_eq!(load(&reading, "kept:5").await.expect("it loads"), None);

    let reader = connect(&format!("{url}?mode=ro")).await;
    let closed = writer(&reader, "kept", &WriteOptions::new()).await;
    let error = closed.write(&remove("kept:1")).await.expect_err("it is opened for reading");
    assert_error(&error, &["for reading only", "mode=ro"]);
}

fn gone() -> Written<bytes::Bytes> {
    Written::Done { changed: false, now: Some(Value::Absent), version: None }
}

#[tokio::test]
async fn postgres_refuses_with_the_column_and_the_remedy() {
    let postgres = Postgres::launch();
    postgres.execute(&ITEM.replace("at timestamp NULL", "at timestamptz"));
    postgres.execute(
        "CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,
            twice int GENERATED ALWAYS AS (v * 2) STORED, nr int GENERATED BY DEFAULT AS IDENTITY);
         CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE TABLE typed (id numeric PRIMARY KEY, p positive, j jsonb, a int[], t text);
         CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE folded (k text COLLATE nocase PRIMARY KEY, v int);
         INSERT INTO folded VALUES ('Ann', 1);",
    );
    let database = connect(&postgres.url("postgres")).await;
    check_refusals(&database, true).await;
    check_statements(&database).await;
    let always = writer(&database, "always", &WriteOptions::new()).await;
    let row = "{\"v\":3,\"twice\":0,\"nr\":7}";
    let written = always.write(&put("always:5", row)).await.expect("the key is what it says");
    assert_eq!(now(&written), Some("{\"id\":5,\"v\":3,\"twice\":6,\"nr\":7}"));
    let error = refused(&always, patch("always:5", "{\"twice\":1}")).await;
    assert_error(&error, &["column: twice", "fills it itself"]);
    let folded = writer(&database, "folded", &WriteOptions::new()).await;
    let error = refused(&folded, put("folded:ann", "{\"v\":2}")).await;
    assert_error(&error, &["spells this key otherwise"]);
    assert_eq!(
        load(&folded, "folded:Ann").await.expect("it loads").as_deref(),
        Some("{\"k\":\"Ann\",\"v\":1}")
    );
    let typed = writer(&database, "typed", &WriteOptions::new()).await;
    for (value, parts) in [
        ("{\"p\":0}", &["check"][..]),
        ("{\"p\":\"s3cret\"}", &["column: p"]),
        ("{\"t\":\"\\u0000\"}", &["column: t", "U+0000"]),
        ("{\"j\":\"\\u0000\"}", &["22P05"]),
        ("{\"a\":[[1],[1,2]]}", &["database refuses"]),
        ("{\"a\":[\"s3cret\"]}", &["column: a", "whole number"]),
    ] {
        let error = refused(&typed, put("typed:1", value)).await;
        assert_error(&error, parts);
    }
    typed.write(&put("typed:1.50", "{\"p\":1}")).await.expect("it is put");
    let error = refused(&typed, put("typed:1.5", "{\"p\":2}")).await;
    assert_error(&error, &["spells this key otherwise"]);
}

#[tokio::test]
async fn mysql_refuses_with_the_column_and_the_remedy() {
    let mysql = MySql::launch();
    mysql.execute(ITEM);
    mysql.execute(
        "CREATE TABLE folded (k VARCHAR(10) PRIMARY KEY, v INT, u INT UNIQUE, e ENUM('a','b'), g INT AS (v * 2));
         INSERT INTO folded (k, v, u) VALUES ('Ann', 1, 7);",
    );
    let database = connect(&mysql.url("larder")).await;
    check_refusals(&database, true).await;
    check_statements(&database).await;
    let folded = writer(&database, "folded", &WriteOptions::new()).await;
    // MySQL's own upsert would change the row of another key.
    for write in [put("folded:ann", "{\"v\":2}"), put("folded:Bob", "{\"v\":2,\"u\":7}")] {
        let error = refused(&folded, write).await;
        assert_error(&error, &["unique"]);
    }
    let row = "{\"k\":\"Ann\",\"v\":1,\"u\":7,\"e\":null,\"g\":2}";
    assert_eq!(load(&folded, "folded:Ann").await.expect("it loads").as_deref(), Some(row));
    let error = refused(&folded, put("folded:Ann", "{\"e\":\"s3cret\"}")).await;
    assert_error(&error, &["1265", "column: e"]);
    let written = folded.write(&put("folded:Ann", row)).await.expect("it is put back");
    assert_eq!(now(&written), Some(row));

    // Of many that put what is not there one wins, and the others are told so.
    mysql.execute("SET GLOBAL tx_isolation = 'READ-COMMITTED'");
    let database = connect(&mysql.url("larder")).await;
    one_wins(&writer(&database, "folded", &WriteOptions::new()).await).await;
}

async fn one_wins(folded: &SqlOrigin) {
    for round in 0..10 {
        let puts = (0..8).map(|_| {
            let write = put(&format!("folded:{round}"), "{}").expecting(Expected::Absent);
            async move { folded.write(&write).await.expect("it is answered") }
        });
        let answers = futures_util::future::join_all(puts).await;
        let won = answers.iter().filter(|answer| matches!(answer, Written::Done { .. })).count();
        let lost =
            answers.iter().filter(|answer| matches!(answer, Written::Conflict { .. })).count();
        assert_eq!((won, lost), (1, 7), "{answers:?}");
    }
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the counts are the proof")]
async fn a_hundred_puts_of_postgres_are_few_round_trips() {
    let postgres = Postgres::launch();
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text, version bigint NOT NULL)");
    let upstream = std::net::SocketAddr::from(([127, 0, 0, 1], postgres.port()));
    let proxy = FaultProxy::start(upstream);
    let url = postgres.url("postgres");
    let url =
        url.replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.address().port()));
    let database = connect(&url).await;
    let origin = writer(&database, "t", &WriteOptions::new().version_column("version")).await;
    let puts = |round: usize| -> Vec<_> {
        (0..100).map(|id| put(&format!("t:{id}"), &format!("{{\"v\":\"{round}\"}}"))).collect()
    };
    origin.write_all(&puts(0), None).await.expect("they are put");
    let (trips, statements) = (proxy.round_trips(), postgres.statements("INSERT INTO"));
    origin.write_all(&puts(1), None).await.expect("they are put");
    assert_eq!(postgres.statements("INSERT INTO") - statements, 1);
    let batch_trips = proxy.round_trips() - trips;
    assert!(batch_trips <= 4, "begin, one statement, commit: {batch_trips}");
    let trips = proxy.round_trips();
    origin.write(&put("t:1", "{\"v\":\"x\"}")).await.expect("it is put");
    let first = proxy.round_trips() - trips;
    let trips = proxy.round_trips();
    let version = origin.validator(&Key::new("t:1")).await.expect("it answers");
    let probe = proxy.round_trips() - trips;
    let trips = proxy.round_trips();
    let expected = Expected::Version(version.expect("it is counted"));
    for _ in 0..3 {
        let write = patch("t:1", "{\"v\":\"y\"}").expecting(expected);
        origin.write(&write).await.expect("it is answered");
    }
    println!(
        "100 puts: {batch_trips} round trips, one put: {first}, probe: {probe}, \
         a patch by version and two conflicts: {}",
        proxy.round_trips() - trips
    );
    assert_eq!(first, 1, "one put is one round trip");
}

/// Transactions that take the same rows in opposite orders are tried again.
async fn write_across(database: &Database) {
    let origin = Arc::new(writer(database, "item", &WriteOptions::new()).await);
    for id in 0..10 {
        origin
            .write(&put(&format!("item:{}", 100 + id), "{\"small\":0}"))
            .await
            .expect("it is put");
    }
    let tasks = (0..16_usize).map(|task| {
        let origin = Arc::clone(&origin);
        tokio::spawn(async move {
            for round in 0..10 {
                // Two shapes, so that the order of keys does not help.
                let (one, other) = ((task + round) % 10, (task * 7 + round * 3 + 1) % 10);
                let writes = [
                    add(&format!("item:{}", 100 + one), "small", "1"),
                    patch(&format!("item:{}", 100 + other), "{\"name\":\"x\"}"),
                ];
                // What is given up after some tries did not happen.
                while let Err(failed) = origin.write_all(&writes, None).await {
                    assert_eq!(failed.error.kind(), ErrorKind::Unavailable, "{failed}");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("each batch is made");
    }
    let mut sum = 0;
    for id in 0..10 {
        let row = load(&origin, &format!("item:{}", 100 + id)).await.expect("it loads");
        let row = row.expect("it is there");
        let small = row.split_once("\"small\":").expect("it has one").1;
        let digits = small.split([',', '}']).next().expect("there is a first part");
        sum += digits.parse::<i64>().expect("it is a number");
    }
    assert_eq!(sum, 160, "each addition counts once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_in_each_others_way_are_tried_again() {
    let (postgres, mysql) = (Postgres::launch(), MySql::launch());
    postgres.execute(&ITEM.replace("at timestamp NULL", "at timestamptz"));
    postgres.execute("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'");
    mysql.execute(ITEM);
    write_across(&connect(&postgres.url("postgres")).await).await;
    write_across(&connect(&mysql.url("larder")).await).await;
    let (_directory, path) = crate::sqlite::file(ITEM).await;
    write_across(&connect(&format!("sqlite:{}", path.display())).await).await;
}

#[tokio::test]
async fn without_the_right_to_make_it_the_table_of_marks_is_asked_for() {
    let postgres = Postgres::launch();
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int)");
    let mut options = crate::support::options(&postgres.url("postgres"));
    options.create_lanes_table = false;
    let database = Database::connect(&options).await.expect("the database answers");
    let origin = writer(&database, "t", &WriteOptions::new()).await;
    let mark = larder_core::LaneMark {
        journal: "j".into(),
        lane: 0,
        epoch: 1,
        applied: larder_core::JournalOffset(1),
    };
    let writes = [put("t:1", "{\"v\":1}")];
    let failed = origin.write_all(&writes, Some(&mark)).await.expect_err("there is no table");
    let ddl = larder_sql::lanes_table(database.dialect());
    assert_eq!(failed.error.kind(), ErrorKind::Config);
    assert_error(&failed.error, &["larder_lanes", ddl]);
    assert_eq!(load(&origin, "t:1").await.expect("it loads"), None);
    postgres.execute(ddl);
    origin.write_all(&writes, Some(&mark)).await.expect("the table is there");
    let huge = larder_core::LaneMark { epoch: u64::MAX, ..mark };
    let failed = origin.write_all(&writes, Some(&huge)).await.expect_err("out of range");
    assert_eq!(failed.error.kind(), ErrorKind::InvalidInput);
}
