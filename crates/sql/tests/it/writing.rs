//! The suite of writes, against each database, by table and by statement.

use bytes::Bytes;
use larder_core::Key;
use larder_sql::{Database, SqlOrigin, WriteOptions};
use larder_testkit::conformance::writes::WritingFixture;
use larder_testkit::mysql::MySql;
use larder_testkit::origin_writing_conformance;
use larder_testkit::postgres::Postgres;

use crate::support::{connect, put, query, writer};

type Fixture = WritingFixture<SqlOrigin, Key, Bytes>;

/// A table with a version, a decimal, a default and a constraint.
const STOCK: &str = "CREATE TABLE stock (
    id int NOT NULL PRIMARY KEY, name varchar(40) NOT NULL UNIQUE, note varchar(40) DEFAULT 'new',
    n int, version bigint NOT NULL, CHECK (n >= 0));
    INSERT INTO stock VALUES (5000, 'taken', NULL, 0, 1);";

/// A row of [`STOCK`] as it is put.
fn row(id: usize, name: &str, n: i64) -> Bytes {
    format!("{{\"id\":{id},\"name\":\"{name}\",\"note\":null,\"n\":{n}}}").into()
}

/// Without the version, which the origin counts.
fn plain(row: &Bytes) -> Bytes {
    let text = std::str::from_utf8(row).expect("JSON is UTF-8");
    match text.split_once(",\"version\":") {
        Some((plain, _)) => format!("{plain}}}").into(),
        None => row.clone(),
    }
}

fn fixture(origin: SqlOrigin, keep: impl Send + Sync + 'static) -> Fixture {
    let rows = (1..=100).map(|id| {
        let name = format!("item {id}");
        (Key::new(format!("stock:{id}")), row(id, &name, 7), row(id, &name, 10))
    });
    WritingFixture {
        origin,
        rows: rows.collect(),
        plain,
        patch: Some(Bytes::from_static(b"{\"n\":10}")),
        sum: Some(("n".into(), "3".parse().expect("a number"), row(1, "item 1", 10))),
        poison: Some(put("stock:900", "{\"name\":\"taken\",\"n\":1}")),
        keep: Box::new(keep),
    }
}

async fn by_table(database: &Database) -> SqlOrigin {
    writer(database, "stock", &WriteOptions::new().version_column("version")).await
}

/// The same writes as statements.
async fn by_statement(database: &Database, is_mysql: bool) -> SqlOrigin {
    let select = query("stock:{id}", "SELECT id, name, note, n, version FROM stock WHERE id = :id");
    let condition = "(:expected_version IS NULL OR version = :expected_version)";
    let put = if is_mysql {
        "INSERT INTO stock (id, name, note, n, version) VALUES (:id, :name, :note, :n, 1) \
         ON DUPLICATE KEY UPDATE note = VALUES(note), n = VALUES(n), version = version + 1"
    } else {
        "INSERT INTO stock (id, name, note, n, version) VALUES (:id, :name, :note, :n, 1) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, note = excluded.note, \
         n = excluded.n, version = stock.version + 1"
    };
    let options = WriteOptions::new()
        .version_column("version")
        .put(put)
        .remove(format!("DELETE FROM stock WHERE id = :id AND {condition}"))
        .patch(format!(
            "UPDATE stock SET name = COALESCE(:name, name), n = COALESCE(:n, n), \
             version = version + 1 WHERE id = :id AND {condition}"
        ))
        .add(
            "n",
            format!(
                "UPDATE stock SET n = n + :by, version = version + 1 WHERE id = :id AND {condition}"
            ),
        );
    database.writing_query_origin(select, &options).await.expect("the statements are sound")
}

async fn sqlite() -> (tempfile::TempDir, Database) {
    let (directory, path) = crate::sqlite::file(STOCK).await;
    let database = connect(&format!("sqlite:{}", path.display())).await;
    (directory, database)
}

async fn postgres() -> (Postgres, Database) {
    let postgres = Postgres::launch();
    postgres.execute(STOCK);
    let database = connect(&postgres.url("postgres")).await;
    (postgres, database)
}

async fn mysql() -> (MySql, Database) {
    let mysql = MySql::launch();
    mysql.execute(STOCK);
    let database = connect(&mysql.url("larder")).await;
    (mysql, database)
}

origin_writing_conformance!(table_of_sqlite, async {
    let (keep, database) = sqlite().await;
    fixture(by_table(&database).await, keep)
});
origin_writing_conformance!(table_of_postgres, async {
    let (keep, database) = postgres().await;
    fixture(by_table(&database).await, keep)
});
origin_writing_conformance!(table_of_mysql, async {
    let (keep, database) = mysql().await;
    fixture(by_table(&database).await, keep)
});
origin_writing_conformance!(statements_of_sqlite, async {
    let (keep, database) = sqlite().await;
    fixture(by_statement(&database, false).await, keep)
});
origin_writing_conformance!(statements_of_postgres, async {
    let (keep, database) = postgres().await;
    fixture(by_statement(&database, false).await, keep)
});
origin_writing_conformance!(statements_of_mysql, async {
    let (keep, database) = mysql().await;
    fixture(by_statement(&database, true).await, keep)
});
