use std::path::PathBuf;
use std::time::{Duration, Instant};

use larder_core::{ErrorKind, Key, Origin};
use larder_sql::{Database, DatabaseOptions, KeyType};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;

use crate::support::{
    KeyCase, TypeCase, assert_error, check_keys, check_puts, check_types, connect, context,
    key_script, load, load_many, options, query, query_origin, table_origin, type_script, values,
};

const TYPES: &[TypeCase] = &[
    ("INTEGER", "9223372036854775807", "9223372036854775807"),
    ("INTEGER", "-9223372036854775808", "-9223372036854775808"),
    ("INTEGER", "'no number'", "\"no number\""),
    ("REAL", "0.1", "0.1"),
    ("REAL", "0.1 + 0.2", "0.30000000000000004"),
    ("REAL", "3", "3.0"),
    ("REAL", "-0.0", "0.0"),
    ("", "-0.0", "0.0"),
    ("REAL", "1e300", "1e300"),
    ("REAL", "9e999", "\"Infinity\""),
    ("REAL", "-9e999", "\"-Infinity\""),
    ("TEXT", "'Ünï ''q'' \"d\" \\ 🙂'", "\"Ünï 'q' \\\"d\\\" \\\\ 🙂\""),
    ("TEXT", "''", "\"\""),
    ("TEXT", "char(97, 0, 98, 10)", "\"a\\u0000b\\n\""),
    ("TEXT", "CAST(x'61ff62' AS TEXT)", "\"a\u{FFFD}b\""),
    ("TEXT", "'2013-01-01 06:00:00'", "\"2013-01-01 06:00:00\""),
    ("DATETIME", "'2013-01-01T06:00:00Z'", "\"2013-01-01T06:00:00Z\""),
    ("BOOLEAN", "TRUE", "1"),
    ("DECIMAL(10,2)", "'19.90'", "19.9"),
    ("DECIMAL(10,2)", "19", "19"),
    ("BLOB", "x'00deadbeef'", "\"00deadbeef\""),
    ("BLOB", "x''", "\"\""),
    ("JSON", "'{\"a\": 1}'", "\"{\\\"a\\\": 1}\""),
    ("", "'untyped'", "\"untyped\""),
];

const KEYS: &[KeyCase] = &[
    ("INTEGER", "42", "42", &["042", "+42", "42 ", "abc", "42.0", "9223372036854775808", ""]),
    ("BIGINT", "-7", "-7", &["-07", "- 7", "7"]),
    ("TEXT", "'ann'", "ann", &["Ann", "ann ", "a%6En"]),
    ("TEXT COLLATE NOCASE", "'Ann'", "Ann", &["ann", "ANN"]),
    ("TEXT COLLATE RTRIM", "'ann'", "ann", &["ann  "]),
    ("VARCHAR(20)", "'a:b%c \"q\" \\'", "a:b%25c \"q\" \\", &["a%3Ab%25c \"q\" \\"]),
    ("TEXT", "'12'", "12", &["012", "12.0"]),
    ("REAL", "1.5", "1.5", &["1.50", "15e-1", "01.5"]),
    ("DECIMAL(10,2)", "10.25", "10.25", &["10.250"]),
    ("DATETIME", "'2013-01-01 06:00:00'", "2013-01-01 06:00:00", &["2013-01-01T06:00:00"]),
    ("BLOB", "x'00ff'", "00ff", &["00FF", "0", "\\x00ff", "zz"]),
];

/// A file with what the script makes.
pub(crate) async fn file(script: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("shop.db");
    write(&path, script).await;
    (directory, path)
}

pub(crate) async fn write(path: &std::path::Path, script: &str) {
    let mut connection = writer(path).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut connection).await.expect(script);
}

async fn writer(path: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.connect().await.expect("a file can be made")
}

async fn open(path: &std::path::Path) -> Database {
    connect(&format!("sqlite:{}", path.display())).await
}

#[tokio::test]
async fn every_storage_class_becomes_json() {
    let (_directory, path) = file(&type_script(TYPES)).await;
    let database = open(&path).await;
    check_types(&database, TYPES).await;
    check_puts(&database, TYPES).await;
}

#[tokio::test]
async fn every_float_comes_through_a_query_as_it_is() {
    let (_directory, path) = file("CREATE TABLE f (id INTEGER PRIMARY KEY, v REAL)").await;
    let mut connection = writer(&path).await;
    // Bit patterns of every magnitude, and the edges.
    let edges = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.0, 1.0, 1024.0, 1e15, 1e16, 1e22];
    let patterns =
        (1..2_000_u64).map(|seed| f64::from_bits(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let numbers: Vec<f64> =
        edges.into_iter().chain(patterns.filter(|number| !number.is_nan())).collect();
    sqlx::query("BEGIN").execute(&mut connection).await.expect("it begins");
    for (id, number) in numbers.iter().enumerate() {
        let insert = sqlx::query("INSERT INTO f VALUES (?, ?)").bind(id as i64).bind(number);
        insert.execute(&mut connection).await.expect("it is inserted");
    }
    sqlx::query("COMMIT").execute(&mut connection).await.expect("it commits");
    let database = open(&path).await;
    let by_table = table_origin(&database, "f").await;
    let by_query = query_origin(&database, "f:{id}", "SELECT id, v FROM f WHERE id = :id").await;
    for (block, some) in numbers.chunks(1_000).enumerate() {
        let keys: Vec<String> =
            (0..some.len()).map(|index| format!("f:{}", block * 1_000 + index)).collect();
        let (by_table, by_query) = (values(&by_table, &keys).await, values(&by_query, &keys).await);
        for ((number, one), other) in some.iter().zip(by_table).zip(by_query) {
            let text = one.as_deref().expect("it is there");
            let shown = text.split_once("\"v\":").expect("it has a value").1.trim_end_matches('}');
            assert_eq!(shown.parse::<f64>().ok(), Some(*number));
            assert_eq!(one, other);
        }
    }
}

#[tokio::test]
async fn every_key_has_one_spelling() {
    let (_directory, path) = file(&key_script(KEYS)).await;
    check_keys(&open(&path).await, KEYS).await;
}

#[tokio::test]
async fn batches_of_any_size_answer_in_order() {
    let script = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO t SELECT i, 'row ' || i FROM n WHERE i % 3 > 0;
        CREATE TABLE o (t INTEGER, line INTEGER, PRIMARY KEY (t, line));
        INSERT INTO o SELECT id, n FROM t, (SELECT 1 n UNION ALL SELECT 2) WHERE id % 2 = 0;";
    let (_directory, path) = file(script).await;
    let database = open(&path).await;
    let by_table = table_origin(&database, "t").await;
    let by_query = query_origin(&database, "t:{id}", "SELECT id, v FROM t WHERE id = :id").await;
    for origin in [&by_table, &by_query] {
        assert_eq!(origin.batch_limit(), 1_024);
        for size in [1, 2, 500, 501, 1_000, 1_024] {
            let mut keys: Vec<String> = (1..=size).rev().map(|id| format!("t:{id}")).collect();
            keys.push("t:1".to_owned());
            keys.push("t:nothing".to_owned());
            for (key, value) in keys.iter().zip(values(origin, &keys).await) {
                let id: Option<u32> = key[2..].parse().ok();
                let expected = id
                    .filter(|id| id % 3 > 0)
                    .map(|id| format!("{{\"id\":{id},\"v\":\"row {id}\"}}"));
                assert_eq!(value, expected, "{key} of {size}");
            }
        }
    }
    let lines = query("t:{id}:lines", "SELECT line FROM o WHERE t = :id ORDER BY line DESC");
    let lines = database.query_origin(lines.list(true)).await.expect("the query is sound");
    let keys: Vec<String> = (1..=1_000).map(|id| format!("t:{id}:lines")).collect();
    for (index, value) in values(&lines, &keys).await.into_iter().enumerate() {
        let id = index + 1;
        let some = id % 2 == 0 && id % 3 > 0;
        let expected = if some { "[{\"line\":2},{\"line\":1}]" } else { "[]" };
        assert_eq!(value.as_deref(), Some(expected), "{id}");
    }
}

#[tokio::test]
async fn views_composite_keys_and_odd_names_are_served() {
    let script = r#"
        CREATE TABLE "Odd ""name""" ("se lect" TEXT, "от" INTEGER, "x.y" ANY, PRIMARY KEY ("se lect", "от")) WITHOUT ROWID;
        INSERT INTO "Odd ""name""" VALUES ('a:b', 1, NULL), ('%', 2, 'z'), ('"; DROP TABLE t --', 3, 0);
        CREATE VIEW odd_view AS SELECT "от" AS nr, "se lect" AS name FROM "Odd ""name""" WHERE "от" < 3;
        CREATE VIEW joined AS SELECT a."от" FROM "Odd ""name""" a, "Odd ""name""" b;
        CREATE TABLE keyless (a);
        CREATE TABLE untyped (a PRIMARY KEY);
        CREATE TABLE by_index (a INTEGER NOT NULL, b TEXT NOT NULL, g AS (a + 1));
        CREATE UNIQUE INDEX by_b ON by_index (b);
        CREATE UNIQUE INDEX partial ON by_index (a) WHERE a > 0;
        INSERT INTO by_index VALUES (1, 'one');
        CREATE VIRTUAL TABLE searched USING fts5(body);
    "#;
    let (_directory, path) = file(script).await;
    let database = open(&path).await;
    let odd = table_origin(&database, "Odd \"name\"").await;
    assert_eq!(odd.key_pattern().as_str(), "Odd \"name\":{se_lect}:{__}");
    let keys = [
        "Odd \"name\":a%3Ab:1",
        "Odd \"name\":%25:2",
        "Odd \"name\":\"; DROP TABLE t --:3",
        "Odd \"name\":a:1",
        "Odd \"name\":%:2",
    ];
    let found = values(&odd, keys).await;
    assert_eq!(
        found,
        [
            Some(r#"{"se lect":"a:b","от":1,"x.y":null}"#.to_owned()),
            Some(r#"{"se lect":"%","от":2,"x.y":"z"}"#.to_owned()),
            Some(r#"{"se lect":"\"; DROP TABLE t --","от":3,"x.y":0}"#.to_owned()),
            None,
            None,
        ]
    );
    let view = table_origin(&database, "odd_view").await;
    assert_eq!(
        values(&view, ["odd_view:a%3Ab:1", "odd_view:\"; DROP TABLE t --:3"]).await,
        [Some(r#"{"nr":1,"name":"a:b"}"#.to_owned()), None]
    );
    let by_index = table_origin(&database, "by_index").await;
    assert_eq!(
        load(&by_index, "by_index:one").await.expect("it loads").as_deref(),
        Some(r#"{"a":1,"b":"one","g":2}"#)
    );
    let skipped = database.introspect().await.expect("the catalog can be read").skipped;
    let names: Vec<&str> = skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(names, ["joined", "keyless", "searched", "untyped"], "{skipped:?}");
    assert!(skipped.iter().all(|skipped| !skipped.reason.is_empty() && !skipped.remedy.is_empty()));
    assert!(database.server_version().await.expect("it says").starts_with("3."));
}

#[tokio::test]
async fn writes_of_others_are_seen_and_none_are_made() {
    let (_directory, path) = file(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');",
    )
    .await;
    let database = open(&path).await;
    let origin = table_origin(&database, "t").await;
    assert!(load(&origin, "t:1").await.expect("it loads").expect("it is there").contains("\"a\""));
    write(
        &path,
        "UPDATE t SET v = 'b'; ALTER TABLE t ADD COLUMN w; INSERT INTO t VALUES (2, 'c', 1)",
    )
    .await;
    assert!(load(&origin, "t:1").await.expect("it loads").expect("it is there").contains("\"b\""));
    assert!(load(&origin, "t:2").await.expect("it loads").expect("it is there").contains("\"c\""));
    let error = database
        .query_origin(query("x:{id}", "WITH x AS (SELECT 1) DELETE FROM t WHERE id = :id"))
        .await
        .expect_err("nothing is deleted");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(load(&origin, "t:1").await.expect("it loads").is_some());
}

#[tokio::test]
async fn a_key_whose_value_fails_fails_alone() {
    let (_directory, path) =
        file("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    let size = query("size:{x}", "SELECT abs(:x) AS size").parameter_type("x", KeyType::Integer);
    let size = open(&path).await.query_origin(size).await.expect("the query is sound");
    let found = load_many(&size, ["size:-1", "size:-9223372036854775808", "size:2"]).await;
    assert_eq!(found[0].as_ref().expect("it is sound").as_deref(), Some("{\"size\":1}"));
    assert_error(found[1].as_ref().expect_err("it has no size"), &["integer overflow"]);
    assert_eq!(found[2].as_ref().expect("it is sound").as_deref(), Some("{\"size\":2}"));
}

#[tokio::test]
async fn a_query_is_checked_at_start() {
    let (_directory, path) = file(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u (id INTEGER, t_id INTEGER);
         INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 1), (2, 1);",
    )
    .await;
    let database = open(&path).await;
    for (select, parts) in [
        ("SELECT id FROM nowhere WHERE id = :id", &["refuses", "no such table"][..]),
        (
            "SELECT * FROM nowhere WHERE id = :id",
            &["refuses", "no such table: nowhere", "correct the names"],
        ),
        ("SELECT n.id FROM main.nowhere AS n WHERE n.id = :id", &["no such table: main.nowhere"]),
        ("SELECT v FROM t WHERE id IN (SELECT id FROM nowhere WHERE id = :id)", &["no such table"]),
        ("SELECT (SELECT v FROM nowhere WHERE id = :id) AS v", &["no such table: nowhere"]),
        ("WITH x AS (SELECT id FROM nowhere WHERE id = :id) SELECT * FROM x", &["no such table"]),
        ("SELECT absent FROM t WHERE id = :id", &["no such column: absent"]),
        (
            "WITH Larder_Keys AS (SELECT 1 AS value) SELECT :id AS a FROM larder_keys",
            &["larder_keys", "another name"],
        ),
        ("SELECT t.id, u.id FROM t JOIN u ON u.t_id = t.id WHERE t.id = :id", &["one name", "AS"]),
        ("SELECT id FROM t", &["does not use", ":id"]),
        ("SELECT v FROM t WHERE id + 0 = :id", &["cannot be told", "id = \"integer\""]),
        ("SELECT id FROM t WHERE id = :id AND v = :v", &["has not", "pattern has: id"]),
        ("UPDATE t SET v = 1 WHERE id = :id", &["not a SELECT", "UPDATE"]),
        ("SELECT id FROM t WHERE id = :id; SELECT 1", &["more than one statement"]),
    ] {
        let error = database.query_origin(query("t:{id}", select)).await.expect_err(select);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_error(&error, parts);
    }
    let declared = query("t:{id}", "SELECT v FROM t WHERE id + 0 = :id");
    let declared = declared.parameter_type("id", KeyType::Integer);
    let origin = database.query_origin(declared).await.expect("the type is declared");
    assert_eq!(load(&origin, "t:1").await.expect("it loads").as_deref(), Some(r#"{"v":"a"}"#));

    let negative =
        query_origin(&database, "t:{id}", "SELECT -0.0 AS n FROM t WHERE id = :id").await;
    assert_eq!(load(&negative, "t:1").await.expect("it loads").as_deref(), Some(r#"{"n":0.0}"#));

    let many = query_origin(&database, "u:{t}", "SELECT u.id FROM u WHERE u.t_id = :t").await;
    let error = load(&many, "u:1").await.expect_err("two rows are too many");
    assert_error(&error, &["more than one row", "list = true"]);
    assert_eq!(load(&many, "u:2").await.expect("none is absent"), None);
}

#[tokio::test]
async fn what_is_no_database_is_said_with_the_remedy() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let text = directory.path().join("text.db");
    std::fs::write(&text, "this is a text and no database at all".repeat(100))
        .expect("it is written");
    for (url, kind, part) in [
        ("sqlite::memory:".to_owned(), ErrorKind::Config, "in-memory"),
        ("sqlite:x.db?mode=memory".to_owned(), ErrorKind::Config, "in-memory"),
        ("sqlite:".to_owned(), ErrorKind::Config, "no SQLite file"),
        (
            format!("sqlite:{}/none.db", directory.path().display()),
            ErrorKind::Config,
            "does not exist",
        ),
        (format!("sqlite:{}", directory.path().display()), ErrorKind::Config, "not a file"),
        (format!("sqlite:{}", text.display()), ErrorKind::OriginFailed, "no SQLite database"),
        ("oracle://u:s3cret@h/d".to_owned(), ErrorKind::Config, "scheme: oracle"),
    ] {
        let error = Database::connect(&DatabaseOptions::new(url)).await.expect_err(part);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
        assert_error(&error, &[part]);
    }
    assert!(!directory.path().join("none.db").exists(), "no file is made");
}

#[tokio::test]
async fn a_value_above_the_limit_is_an_error_of_its_key_alone() {
    let (_directory, path) = file(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, printf('%.*c', 2000, 'x'));",
    )
    .await;
    let mut options = options(&format!("sqlite:{}", path.display()));
    options.value_size_max = 1_000;
    let database = Database::connect(&options).await.expect("it opens");
    let origin = table_origin(&database, "t").await;
    let answers = load_many(&origin, ["t:1", "t:2"]).await;
    assert!(answers[0].is_ok());
    let error = answers[1].as_ref().expect_err("it is too large");
    assert_error(error, &["too large", "1000", "value_size_max"]);
}

/// Keeps SQLite busy for minutes in one step of one row.
const ENDLESS: &str = "SELECT t.id, (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
     WHERE i < 10000000000) SELECT max(i) FROM n) AS m FROM t WHERE t.id = :id";

#[tokio::test]
async fn a_statement_ends_at_its_timeout_and_the_connection_serves_on() {
    let (_directory, path) =
        file("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    let mut options = options(&format!("sqlite:{}", path.display()));
    options.statement_timeout = Duration::from_millis(200);
    options.max_connections = 1;
    let database = Database::connect(&options).await.expect("it opens");
    let endless = query_origin(&database, "e:{id}", ENDLESS).await;
    let started = Instant::now();
    let error = load(&endless, "e:1").await.expect_err("it never ends");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let origin = table_origin(&database, "t").await;
    assert!(load(&origin, "t:1").await.expect("it loads").is_some());
}

#[tokio::test]
async fn a_load_that_is_dropped_stops_its_statement() {
    let (_directory, path) =
        file("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    let mut options = options(&format!("sqlite:{}", path.display()));
    options.statement_timeout = Duration::from_secs(3_600);
    options.max_connections = 1;
    let database = Database::connect(&options).await.expect("it opens");
    let endless = query_origin(&database, "e:{id}", ENDLESS).await;
    let origin = table_origin(&database, "t").await;
    for _ in 0..3 {
        let key = Key::new("e:1");
        let context = context();
        let load = Origin::load(&endless, &key, &context);
        assert!(tokio::time::timeout(Duration::from_millis(50), load).await.is_err());
        assert!(self::load(&origin, "t:1").await.expect("the place is free").is_some());
    }
    assert!(database.pool_statistics().discarded >= 3);
    // A thread that still ran its statement would keep the file's threads alive.
    let deadline = Instant::now() + Duration::from_secs(20);
    while sqlite_threads() > 1 {
        assert!(Instant::now() < deadline, "the statements go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Threads of the driver in this process.
fn sqlite_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists the threads");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("sqlx-sqlite"))
        .count()
}

/// SQLite asks whether it is to stop after so many steps of a prepared statement, over
/// all its runs.
#[tokio::test]
async fn a_statement_that_failed_does_not_stop_those_after_it() {
    let (_directory, path) = file("CREATE TABLE n (id INTEGER PRIMARY KEY)").await;
    let mut one = options(&format!("sqlite:{}", path.display()));
    one.max_connections = 1;
    let database = Database::connect(&one).await.expect("the file is there");
    let select = query("n:{id}", "SELECT abs(:id - 1 + id) AS v FROM n");
    let select = select.parameter_type("id", KeyType::Integer);
    let origin = database.query_origin(select).await.expect("it is sound");
    write(
        &path,
        "INSERT INTO n VALUES (-9223372036854775807);
         CREATE TABLE larder_lanes (journal varchar(190) NOT NULL, lane integer NOT NULL,
         epoch bigint NOT NULL, applied bigint NOT NULL, PRIMARY KEY (journal, lane))",
    )
    .await;
    let failed = load(&origin, "n:0").await.expect_err("an integer overflows");
    assert_eq!(failed.kind(), ErrorKind::OriginFailed, "{failed}");
    for run in 0..2_000 {
        let applied = database.applied("journal", 1).await;
        assert_eq!(applied.unwrap_or_else(|error| panic!("run {run}: {error}")), None);
    }
}
