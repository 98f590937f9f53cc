use std::time::{Duration, Instant};

use larder_core::{ErrorKind, Key, Origin};
use larder_sql::{Database, Dialect};
use larder_testkit::mysql::MySql;
use larder_testkit::process;

use crate::support::{
    assert_error, connect, context, load, load_many, options, query, query_origin, table_origin,
    values,
};

/// The sequence engine of MariaDB fills tables without a recursive query.
const BATCH: &str = "
    CREATE TABLE item (id BIGINT PRIMARY KEY, v VARCHAR(20));
    INSERT INTO item SELECT seq, CONCAT('row ', seq) FROM seq_1_to_2000 WHERE seq % 3 > 0;
    CREATE TABLE line (item BIGINT, `at:place` VARCHAR(20), n INT, PRIMARY KEY (item, `at:place`));
    INSERT INTO line SELECT id, CONCAT('a:', n), n FROM item, (SELECT 1 n UNION ALL SELECT 2) x WHERE id % 2 = 0;
    CREATE TABLE hour (place CHAR(3), at TIMESTAMP, PRIMARY KEY (place, at));
    INSERT INTO hour SELECT 'EWR', FROM_UNIXTIME(1357000000 + seq * 3600) FROM seq_1_to_5000;
    CREATE TABLE word (w VARCHAR(20) CHARACTER SET sjis COLLATE sjis_bin PRIMARY KEY);
    INSERT INTO word SELECT CONCAT('あ', seq) FROM seq_1_to_5000;
";

#[tokio::test]
async fn a_batch_of_any_size_is_one_statement() {
    let mysql = MySql::launch();
    mysql.execute(BATCH);
    let database = connect(&mysql.url("larder")).await;
    let by_table = table_origin(&database, "item").await;
    let by_query =
        query_origin(&database, "item:{id}", "SELECT id, v FROM item WHERE id = :id").await;
    for origin in [&by_table, &by_query] {
        for size in [1, 2, 3, 1_000, 1_024] {
            let mut keys: Vec<String> = (1..=size).rev().map(|id| format!("item:{id}")).collect();
            keys.extend(["item:1", "item:nothing", "item:1x", "item:01"].map(str::to_owned));
            let before = mysql.statements("item");
            let found = values(origin, &keys).await;
            assert_eq!(mysql.statements("item") - before, 1, "{size} keys are one statement");
            for (key, value) in keys.iter().zip(found) {
                let id = key[5..].parse().ok().filter(|_| !key.ends_with("01") || key.len() > 7);
                let expected = id
                    .filter(|id: &u32| !id.is_multiple_of(3))
                    .map(|id| format!("{{\"id\":{id},\"v\":\"row {id}\"}}"));
                assert_eq!(value, expected, "{key} of {size}");
            }
        }
        let before = mysql.statements("item");
        assert_eq!(values(origin, ["item:x", "item:01", "other:1"]).await, [None, None, None]);
        assert_eq!(mysql.statements("item"), before, "what can be no key costs no statement");
    }
    let by_pair = table_origin(&database, "line").await;
    let keys: Vec<String> = (1..=1_000).map(|id| format!("line:{id}:a:2")).collect();
    let before = mysql.statements("`line`");
    for (index, value) in values(&by_pair, &keys).await.into_iter().enumerate() {
        let id = index + 1;
        let expected = (id % 2 == 0 && id % 3 > 0)
            .then(|| format!("{{\"item\":{id},\"at:place\":\"a:2\",\"n\":2}}"));
        assert_eq!(value, expected);
    }
    assert_eq!(mysql.statements("`line`") - before, 1);

    let list = query(
        "item:{id}:lines",
        "SELECT n, `at:place` AS at FROM line WHERE item = :id ORDER BY n DESC",
    );
    let list = database.query_origin(list.list(true)).await.expect("the query is sound");
    let keys: Vec<String> = (1..=1_000).map(|id| format!("item:{id}:lines")).collect();
    let before = mysql.statements("FROM line");
    for (index, value) in values(&list, &keys).await.into_iter().enumerate() {
        let some = (index + 1) % 2 == 0 && (index + 1) % 3 > 0;
        let expected = if some { r#"[{"n":2,"at":"a:2"},{"n":1,"at":"a:1"}]"# } else { "[]" };
        assert_eq!(value.as_deref(), Some(expected));
    }
    assert_eq!(mysql.statements("FROM line") - before, 1);
}

#[tokio::test]
async fn a_batch_reads_the_rows_it_asks_for_and_not_the_table() {
    let mysql = MySql::launch();
    mysql.execute(BATCH);
    let mut options = options(&mysql.url("larder"));
    options.max_connections = 1;
    let database = Database::connect(&options).await.expect("the database answers");
    let lines = table_origin(&database, "line").await;
    let hours = table_origin(&database, "hour").await;
    let words = table_origin(&database, "word").await;
    // Reading rows one after the other is what a table scan does.
    let scanned = || -> u64 {
        let status = mysql.execute("SHOW GLOBAL STATUS LIKE 'Handler_read_rnd_next'");
        status.split_whitespace().last().and_then(|count| count.parse().ok()).expect("a count")
    };
    for (origin, keys) in [
        (&lines, (1..=64).map(|id| format!("line:{id}:a:1")).collect::<Vec<_>>()),
        (&hours, (10..20).map(|hour| format!("hour:EWR:2013-01-05T{hour}:26:40Z")).collect()),
        (&words, (1..=64).map(|n| format!("word:あ{n}")).collect()),
    ] {
        let floor = {
            let first = scanned();
            scanned() - first
        };
        let before = scanned();
        let found = values(origin, &keys).await.into_iter().flatten().count();
        let read = scanned() - before - floor;
        assert!(found >= 10, "{found} of {} are there", keys.len());
        assert!(read < 1_000, "{read} rows were scanned for {} keys", keys.len());
    }
}

#[tokio::test]
async fn a_key_whose_value_fails_fails_alone() {
    let mysql = MySql::launch();
    mysql.execute(
        "CREATE TABLE member (grp INT, id INT PRIMARY KEY); INSERT INTO member VALUES (1, 1), (2, 2), (2, 3), (3, 4);
         CREATE TABLE old (k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY); INSERT INTO old VALUES ('a'), ('€');",
    );
    let database = connect(&mysql.url("larder")).await;
    let only = "SELECT (SELECT id FROM member WHERE grp = :grp) AS id";
    let only = query_origin(&database, "only:{grp}", only).await;
    let found = load_many(&only, ["only:1", "only:2", "only:3"]).await;
    assert_eq!(found[0].as_ref().expect("there is one").as_deref(), Some("{\"id\":1}"));
    assert_error(found[1].as_ref().expect_err("there are two"), &["1242"]);
    assert_eq!(found[2].as_ref().expect("there is one").as_deref(), Some("{\"id\":4}"));

    let old = table_origin(&database, "old").await;
    let found = values(&old, ["old:a", "old:\u{80}", "old:\u{81}", "old:€"]).await;
    assert_eq!(
        found,
        [Some(r#"{"k":"a"}"#.to_owned()), None, None, Some(r#"{"k":"€"}"#.to_owned())]
    );
}

#[tokio::test]
async fn what_has_a_key_is_served_and_queries_are_checked() {
    let mysql = MySql::launch();
    mysql.execute(
        "CREATE TABLE `T ``q`` :x` (`Id` INT, `select` VARCHAR(20), `a.b` INT, PRIMARY KEY (`select`, `Id`));
         INSERT INTO `T ``q`` :x` VALUES (1, 'a:b', 5), (2, '%', 6);
         CREATE VIEW shown AS SELECT `a.b` AS price, `Id` AS nr, `select` AS name FROM `T ``q`` :x` WHERE `Id` > 1;
         CREATE VIEW again AS SELECT nr, name FROM shown;
         CREATE VIEW joined AS SELECT a.* FROM `T ``q`` :x` a JOIN `T ``q`` :x` b;
         CREATE TABLE by_index (a INT, b INT NOT NULL, UNIQUE KEY x (a), UNIQUE KEY y (b));
         INSERT INTO by_index VALUES (NULL, 7);
         CREATE TABLE by_prefix (v TEXT NOT NULL, UNIQUE KEY p (v(3)));
         INSERT INTO by_prefix VALUES ('abcdef');
         CREATE TABLE keyless (a INT);
         CREATE TABLE of_double (d DOUBLE PRIMARY KEY);
         CREATE TABLE artist (id INT PRIMARY KEY, name VARCHAR(20)); INSERT INTO artist VALUES (1, 'Miles');
         CREATE TABLE album (id INT PRIMARY KEY, artist INT, price DECIMAL(6,2)); INSERT INTO album VALUES (1, 1, 9.9), (2, 1, 12);
         CREATE DATABASE other; CREATE TABLE other.t (id INT PRIMARY KEY); INSERT INTO other.t VALUES (3);",
    );
    let database = connect(&mysql.url("larder")).await;
    assert_eq!(database.dialect(), Dialect::MySql);
    let found = database.introspect().await.expect("the catalog can be read");
    let mut served: Vec<String> = found.tables.iter().map(ToString::to_string).collect();
    served.sort();
    assert_eq!(
        served,
        [
            "T `q` %3Ax:{select}:{Id}",
            "again:{name}:{nr}",
            "album:{id}",
            "artist:{id}",
            "by_index:{b}",
            "by_prefix:{v}",
            "shown:{name}:{nr}"
        ]
    );
    let skipped: Vec<&str> = found.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["joined", "keyless", "of_double"], "{:?}", found.skipped);
    for (name, key, row) in [
        ("T `q` :x", "T `q` %3Ax:a%3Ab:1", r#"{"Id":1,"select":"a:b","a.b":5}"#),
        ("T `q` :x", "T `q` %3Ax:%25:2", r#"{"Id":2,"select":"%","a.b":6}"#),
        ("shown", "shown:%25:2", r#"{"price":6,"nr":2,"name":"%"}"#),
        ("again", "again:%25:2", r#"{"nr":2,"name":"%"}"#),
        ("by_index", "by_index:7", r#"{"a":null,"b":7}"#),
        ("by_prefix", "by_prefix:abcdef", r#"{"v":"abcdef"}"#),
    ] {
        let origin = table_origin(&database, name).await;
        assert_eq!(load(&origin, key).await.expect(key).as_deref(), Some(row), "{key}");
        let batch = values(&origin, [key, "x", key]).await;
        assert_eq!(batch, [Some(row.to_owned()), None, Some(row.to_owned())], "{key}");
    }
    let mut both = options(&mysql.url("larder"));
    both.schemas = vec!["other".to_owned()];
    let both = Database::connect(&both).await.expect("the database answers");
    let other = table_origin(&both, "t").await;
    assert_eq!(load(&other, "other.t:3").await.expect("it loads").as_deref(), Some("{\"id\":3}"));
    let none = connect(&mysql.url("")).await;
    assert_error(
        &none.introspect().await.expect_err("no database is named"),
        &["names no database", "schemas"],
    );

    for (select, parts) in [
        (
            "SELECT id FROM nowhere WHERE id = :id",
            &["refuses", "1146", "nowhere", "correct the names"][..],
        ),
        (
            "SELECT * FROM album a JOIN artist r ON r.id = a.artist WHERE a.id = :id",
            &["one name", "column: id"],
        ),
        (
            "SELECT id FROM album WHERE id + 0 = :id",
            &["cannot be told", "; declare it, such as types = { id"],
        ),
        (
            "SELECT id FROM album WHERE id = :id FOR UPDATE; DELETE FROM album",
            &["more than one statement"],
        ),
        ("SELECT id FROM album WHERE id = ?", &["without a name"]),
    ] {
        let error = database.query_origin(query("t:{id}", select)).await.expect_err(select);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_error(&error, parts);
    }
    let joined = query_origin(
        &database,
        "album:{id}",
        "SELECT a.id, r.name, ':id' AS `text` # :id\n FROM album a JOIN artist AS r ON r.id = a.artist WHERE a.id = :id AND :id > 0;",
    )
    .await;
    assert_eq!(
        values(&joined, ["album:2", "album:abc", "album:1"]).await,
        [
            Some(r#"{"id":2,"name":"Miles","text":":id"}"#.to_owned()),
            None,
            Some(r#"{"id":1,"name":"Miles","text":":id"}"#.to_owned())
        ]
    );
    let below =
        query("below:{price}", "SELECT id FROM album WHERE price < :price ORDER BY price DESC");
    let below = database.query_origin(below.list(true)).await.expect("the query is sound");
    assert_eq!(
        values(&below, ["below:100.00", "below:9.91", "below:cheap"]).await,
        [Some(r#"[{"id":2},{"id":1}]"#.to_owned()), Some(r#"[{"id":1}]"#.to_owned()), None]
    );
    let many =
        query_origin(&database, "m:{artist}", "SELECT id FROM album WHERE artist = :artist").await;
    assert_error(
        &load(&many, "m:1").await.expect_err("two rows are too many"),
        &["more than one row"],
    );
}

#[tokio::test]
async fn a_server_that_stops_and_starts_is_found_again() {
    let mut mysql = MySql::launch();
    mysql
        .execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_100");
    let database = connect(&mysql.url("larder")).await;
    let origin = table_origin(&database, "t").await;
    let warm = futures_util::future::join_all((1..=8).map(|id| {
        let origin = origin.clone();
        async move { load(&origin, &format!("t:{id}")).await }
    }));
    assert!(warm.await.into_iter().all(|answer| answer.is_ok_and(|row| row.is_some())));
    mysql.stop();
    for answer in load_many(&origin, ["t:1", "t:x", "t:2"]).await.into_iter().step_by(2) {
        let error = answer.expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_error(&error, &["refused"]);
    }
    mysql.start();
    for id in 1..=10 {
        assert!(load(&origin, &format!("t:{id}")).await.expect("it is back").is_some());
    }
    // All of the idle connections are dead, and no load sees it.
    mysql.stop();
    mysql.start();
    database.ping().await.expect("it is back");
    let version = database.server_version().await.expect("it says");
    assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
    assert!(load(&origin, "t:1").await.expect("it is back").is_some());

    // A server that stands still is given up, not waited for.
    let mut options = options(&mysql.url("larder"));
    options.statement_timeout = Duration::from_millis(300);
    let database = Database::connect(&options).await.expect("the database answers");
    let origin = table_origin(&database, "t").await;
    mysql.pause();
    let started = Instant::now();
    let error = load(&origin, "t:1").await.expect_err("it stands still");
    mysql.resume();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(load(&origin, "t:1").await.expect("it goes on").is_some());
}

#[tokio::test]
async fn time_runs_out_logins_fail_and_nothing_is_written() {
    let mysql = MySql::launch();
    mysql.execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut short = options(&mysql.url("larder"));
    short.statement_timeout = Duration::from_millis(300);
    short.max_connections = 1;
    let database = Database::connect(&short).await.expect("the database answers");
    let origin = table_origin(&database, "t").await;
    let slow =
        query_origin(&database, "s:{id}", "SELECT id, SLEEP(30) AS s FROM t WHERE id = :id").await;
    let error = load(&slow, "s:1").await.expect_err("it sleeps");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(load(&origin, "t:1").await.expect("it serves on").is_some());
    let (key, context) = (Key::new("s:1"), context());
    for _ in 0..3 {
        let dropped = Origin::load(&slow, &key, &context);
        assert!(tokio::time::timeout(Duration::from_millis(20), dropped).await.is_err());
        assert!(load(&origin, "t:1").await.expect("the place is free").is_some());
    }

    mysql.execute(
        "CREATE SEQUENCE counter; CREATE USER 'reader'@'127.0.0.1' IDENTIFIED BY 's3cret'; GRANT SELECT ON larder.t TO 'reader'@'127.0.0.1';",
    );
    let writing = query("w:{id}", "SELECT id, NEXTVAL(counter) AS n FROM t WHERE id = :id");
    let error = database.query_origin(writing).await.expect_err("nothing is written");
    assert_error(&error, &["1792", "only reads"]);

    let url = mysql.url("larder");
    let nobody = process::free_port();
    for (url, kind, parts) in [
        (
            url.replace("s3cret", "wrong-s3cret"),
            ErrorKind::Config,
            &["1045", "user or password"][..],
        ),
        (mysql.url("nowhere"), ErrorKind::Config, &["1049", "no such database"]),
        (
            url.replace(&mysql.port().to_string(), &nobody.to_string()),
            ErrorKind::Unavailable,
            &["refused"],
        ),
        (
            format!("mysql://reader:s3cret@127.0.0.1:{}/mysql", mysql.port()),
            ErrorKind::Config,
            &["1044"],
        ),
        (format!("{url}?ssl-mode=REQUIRED"), ErrorKind::Config, &["TLS"]),
    ] {
        let error = Database::connect(&options(&url)).await.expect_err(parts[0]);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
        assert_error(&error, parts);
    }
    let reader = format!("mysql://reader:s3cret@127.0.0.1:{}/larder", mysql.port());
    let reader = connect(&reader).await;
    let readable = table_origin(&reader, "t").await;
    assert!(load(&readable, "t:1").await.expect("it may").is_some());
    mysql.execute("REVOKE SELECT ON larder.t FROM 'reader'@'127.0.0.1'");
    let error = load(&readable, "t:1").await.expect_err("it may not");
    assert_eq!(error.kind(), ErrorKind::OriginFailed, "{error}");
    assert_error(&error, &["grant SELECT"]);
    mysql.execute("DROP TABLE t");
    let error = load(&origin, "t:1").await.expect_err("it is gone");
    assert_error(&error, &["1146", "start Larder again"]);
}
