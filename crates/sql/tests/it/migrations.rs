//! Tables that change while Larder runs: a value never stands under another
//! column's name.

use larder_core::ErrorKind;
use larder_sql::{Database, SqlOrigin};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::Postgres;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::support::{
    assert_error, connect, load, load_many, query, query_origin, table_origin, values,
};

const SCRIPT: &str = "CREATE TABLE sc (id INT PRIMARY KEY, name VARCHAR(20), price INT);
     INSERT INTO sc VALUES (1, 'one', 10), (2, 'two', 20);";

struct Origins {
    table: SqlOrigin,
    row: SqlOrigin,
    list: SqlOrigin,
    named: SqlOrigin,
}

impl Origins {
    async fn of(database: &Database) -> Self {
        let list = query("sc:{id}", "SELECT * FROM sc WHERE id = :id ORDER BY price").list(true);
        Self {
            table: table_origin(database, "sc").await,
            row: query_origin(database, "sc:{id}", "SELECT * FROM sc WHERE id = :id").await,
            list: database.query_origin(list).await.expect("the query is sound"),
            named: query_origin(
                database,
                "sc:{id}",
                "SELECT id, price, COUNT(*) FROM sc WHERE id = :id GROUP BY id, price",
            )
            .await,
        }
    }

    /// Each way to read gives the row as it was when Larder started.
    async fn check_unchanged(&self) {
        let row = |id: u32, name| format!(r#"{{"id":{id},"name":"{name}","price":{id}0}}"#);
        for origin in [&self.table, &self.row] {
            let expected = [Some(row(2, "two")), None, Some(row(1, "one"))];
            assert_eq!(values(origin, ["sc:2", "sc:3", "sc:1"]).await, expected);
            assert_eq!(load(origin, "sc:2").await.expect("it loads"), Some(row(2, "two")));
        }
        let expected = [Some(format!("[{}]", row(2, "two"))), Some("[]".to_owned())];
        assert_eq!(values(&self.list, ["sc:2", "sc:3"]).await, expected);
        self.check_named().await;
    }

    async fn check_named(&self) {
        let found = values(&self.named, ["sc:2", "sc:3"]).await;
        let start = r#"{"id":2,"price":20,""#;
        assert!(found[0].as_ref().is_some_and(|row| row.starts_with(start)), "{found:?}");
        assert_eq!(found[1], None);
    }

    /// Whatever shows the lost column fails, and says what to do.
    async fn check_lost(&self, database: &Database) {
        for origin in [&self.table, &self.row, &self.list] {
            for answer in load_many(origin, ["sc:2", "sc:1"]).await {
                let error = answer.expect_err("a column is gone");
                assert_eq!(error.kind(), ErrorKind::OriginFailed, "{error}");
                assert_error(&error, &["name", "the table changed", "start Larder again"]);
            }
        }
        self.check_named().await;
        assert_eq!(database.pool_statistics().in_use, 0);
    }
}

const JOINED: &str = "SELECT * FROM sc JOIN city USING (id) WHERE id = :id";

/// A new column that makes two of one name is an error, not a guess.
async fn check_doubled(joined: &SqlOrigin) {
    let error = load(joined, "sc:2").await.expect_err("there are two of the name");
    assert_error(&error, &["mayor", "the table changed"]);
}

#[tokio::test]
async fn mysql_never_mixes_up_columns() {
    let mysql = MySql::launch();
    mysql.execute(SCRIPT);
    let database = connect(&mysql.url("larder")).await;
    let origins = Origins::of(&database).await;
    origins.check_unchanged().await;
    mysql.execute("ALTER TABLE sc ADD COLUMN secret INT DEFAULT 7 AFTER id");
    origins.check_unchanged().await;
    mysql.execute("ALTER TABLE sc MODIFY COLUMN price INT AFTER id");
    origins.check_unchanged().await;
    mysql.execute(
        "CREATE TABLE city (id INT PRIMARY KEY, mayor TEXT); INSERT INTO city VALUES (2, 'Ann')",
    );
    let joined = query_origin(&database, "sc:{id}", JOINED).await;
    mysql.execute("ALTER TABLE sc ADD COLUMN mayor TEXT");
    check_doubled(&joined).await;
    mysql.execute("ALTER TABLE sc DROP COLUMN name, ADD COLUMN city VARCHAR(20) DEFAULT 'Rome'");
    origins.check_lost(&database).await;
}

#[tokio::test]
async fn postgres_never_mixes_up_columns() {
    let postgres = Postgres::launch();
    postgres.execute(SCRIPT);
    let database = connect(&postgres.url("postgres")).await;
    let origins = Origins::of(&database).await;
    origins.check_unchanged().await;
    postgres.execute("ALTER TABLE sc ADD COLUMN secret int DEFAULT 7");
    origins.check_unchanged().await;
    postgres.execute(
        "CREATE TABLE city (id int PRIMARY KEY, mayor text); INSERT INTO city VALUES (2, 'Ann')",
    );
    let joined = query_origin(&database, "sc:{id}", JOINED).await;
    postgres.execute("ALTER TABLE sc ADD COLUMN mayor text");
    check_doubled(&joined).await;
    postgres.execute("ALTER TABLE sc DROP COLUMN name, ADD COLUMN city text DEFAULT 'Rome'");
    origins.check_lost(&database).await;
}

#[tokio::test]
async fn sqlite_never_mixes_up_columns() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("shop.db");
    write(&path, SCRIPT).await;
    let database = connect(&format!("sqlite:{}", path.display())).await;
    let origins = Origins::of(&database).await;
    origins.check_unchanged().await;
    write(&path, "ALTER TABLE sc ADD COLUMN secret INT DEFAULT 7").await;
    origins.check_unchanged().await;
    let script = "ALTER TABLE sc DROP COLUMN name; ALTER TABLE sc ADD COLUMN city DEFAULT 'Rome'";
    write(&path, script).await;
    origins.check_lost(&database).await;
}

/// A column's name can be anything, an expression around the key too.
#[tokio::test]
async fn columns_of_any_name_are_found() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("shop.db");
    write(&path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')")
        .await;
    let mysql = MySql::launch();
    mysql.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')");
    let sqlite = connect(&format!("sqlite:{}", path.display())).await;
    let mysql = connect(&mysql.url("larder")).await;
    for (database, select, row) in [
        (
            &sqlite,
            "SELECT :id, id AS \"a\"\"b `c\" FROM t WHERE id = :id",
            r#"{"?":1,"a\"b `c":1}"#,
        ),
        (&sqlite, "SELECT :id + 1, '?', 2 FROM t WHERE id = :id", r#"{"? + 1":2,"'?'":"?","2":2}"#),
        (&sqlite, "SELECT count(*), true FROM t WHERE id = :id", r#"{"count(*)":1,"true":1}"#),
        (&sqlite, "SELECT id, v AS ID FROM t WHERE id = :id", r#"{"id":1,"ID":"a"}"#),
        (&sqlite, "SELECT id AS q, v AS c0 FROM t AS q WHERE id = :id", r#"{"q":1,"c0":"a"}"#),
        (
            &sqlite,
            "WITH larder_rows AS (SELECT * FROM t) SELECT * FROM larder_rows WHERE id = :id",
            r#"{"id":1,"v":"a"}"#,
        ),
        (&mysql, "SELECT :id, id AS `a``b \"c` FROM t WHERE id = :id", r#"{"?":1,"a`b \"c":1}"#),
        (&mysql, "SELECT :id + 1, '?', 2 FROM t WHERE id = :id", r#"{"? + 1":2,"?":"?","2":2}"#),
        (&mysql, "SELECT COUNT(*), TRUE FROM t WHERE id = :id", r#"{"COUNT(*)":1,"TRUE":1}"#),
        (&mysql, "SELECT id AS q, v AS c0 FROM t AS q WHERE id = :id", r#"{"q":1,"c0":"a"}"#),
    ] {
        let options = query("t:{id}", select).parameter_type("id", larder_sql::KeyType::Integer);
        let origin = database.query_origin(options).await.expect(select);
        assert_eq!(load(&origin, "t:1").await.expect(select).as_deref(), Some(row), "{select}");
        let found = values(&origin, ["t:1", "t:1"]).await;
        assert_eq!(found, [Some(row.to_owned()), Some(row.to_owned())], "{select}");
    }
}

async fn write(path: &std::path::Path, script: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.expect("a file can be made");
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut connection).await.expect(script);
    connection.close().await.expect("it closes");
}
