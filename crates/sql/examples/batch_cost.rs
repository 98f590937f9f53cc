//! What a load costs: one key and a thousand keys, by table and by query, from
//! each kind of database. Starts Postgres and MariaDB on private ports.
//!
//! `cargo run --release -p larder-sql --example batch_cost`

#![allow(clippy::print_stdout, reason = "it is a program that prints")]

use std::time::{Duration, Instant};

use larder_core::{Key, LoadCause, LoadContext, Moment, Origin};
use larder_sql::{Database, DatabaseOptions, QueryOptions, SqlOrigin};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::Postgres;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

const ROWS: u32 = 100_000;
const BATCH: u32 = 1_000;
const ROUNDS: u32 = 30;

const TABLE: &str = "CREATE TABLE product (id INTEGER PRIMARY KEY, name VARCHAR(60), \
     maker VARCHAR(60), price DECIMAL(10,2), weight DOUBLE PRECISION, stock INTEGER, \
     added TIMESTAMP, note VARCHAR(200))";
const PAIRS: &str = "CREATE TABLE line (product INTEGER, place VARCHAR(20), n INTEGER, PRIMARY KEY (product, place))";
const QUERY: &str = "SELECT p.id, p.name, p.price, l.n FROM product p \
     JOIN line l ON l.product = p.id WHERE p.id = :id";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{ROWS} rows of 8 columns; medians of {ROUNDS}\n");
    println!("| database | origin | 1 key | {BATCH} keys | per key |");
    println!("|---|---|---|---|---|");
    let directory = tempfile::TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("shop.db");
    fill_sqlite(&path).await;
    measure("SQLite", &format!("sqlite:{}", path.display())).await;
    let postgres = Postgres::launch();
    let rows = format!("generate_series(1, {ROWS}) AS s(seq)");
    postgres.execute(&fill("'2013-01-01'::timestamp + seq * interval '1 s'", &rows));
    postgres.execute("ANALYZE");
    measure("Postgres", &postgres.url("postgres")).await;
    let mysql = MySql::launch();
    mysql.execute(&fill("FROM_UNIXTIME(1357000000 + seq)", &format!("seq_1_to_{ROWS}")));
    measure("MariaDB", &mysql.url("larder")).await;
}

fn fill(moment: &str, rows: &str) -> String {
    format!(
        "{TABLE}; {PAIRS};
         INSERT INTO product SELECT seq, CONCAT('product number ', seq), CONCAT('maker ', seq % 100),
         seq / 7.0, seq / 3.0, seq % 50, {moment}, 'a note of some length about the product' FROM {rows};
         INSERT INTO line SELECT seq, CONCAT('shelf ', seq), seq FROM {rows};"
    )
}

async fn fill_sqlite(path: &std::path::Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut writer = options.connect().await.expect("a file can be made");
    let rows = format!(
        "(WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {ROWS}) \
         SELECT seq FROM n)"
    );
    let script = fill("datetime(1357000000 + seq, 'unixepoch')", &rows);
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut writer).await.expect("it is filled");
}

async fn measure(name: &str, url: &str) {
    let database = Database::connect(&DatabaseOptions::new(url)).await.expect("it answers");
    let tables = database.introspect().await.expect("the catalog can be read").tables;
    for (table, key) in [("product", "product:{}"), ("line", "line:{}:shelf {}")] {
        let table = tables.iter().find(|known| known.name == table).expect("it is served");
        let origin = database.table_origin(table).expect("it was introspected");
        report(name, &format!("`{}`", origin.key_pattern()), &origin, key).await;
    }
    let pattern = "card:{id}".parse().expect("a key pattern");
    let query = QueryOptions::new(pattern, QUERY);
    let origin = database.query_origin(query).await.expect("the query is sound");
    report(name, "a join of two tables", &origin, "card:{}").await;
}

async fn report(name: &str, what: &str, origin: &SqlOrigin, key: &str) {
    let one = median(origin, key, 1).await;
    let batch = median(origin, key, BATCH).await;
    println!("| {name} | {what} | {one:.0?} | {batch:.0?} | {:.1?} |", batch / BATCH);
}

async fn median(origin: &SqlOrigin, key: &str, size: u32) -> Duration {
    let context = LoadContext::new(LoadCause::Miss, Moment::NEVER);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let id = |index: u32| (round * 7_919 + index * 97) % ROWS + 1;
        let keys: Vec<Key> =
            (0..size).map(|index| Key::new(key.replace("{}", &id(index).to_string()))).collect();
        let started = Instant::now();
        let answers = origin.load_many(&keys, &context).await;
        times.push(started.elapsed());
        assert!(answers.iter().all(Result::is_ok), "no key fails");
    }
    times.sort_unstable();
    times[times.len() / 2]
}
