//! Random rows of every type are put, read as they were put, and put back.

use larder_core::Origin;
use larder_sql::{Database, WriteOptions};
use larder_testkit::mysql::MySql;
use larder_testkit::postgres::Postgres;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{connect, load, now, put, writer};

const ROWS: usize = 200;

/// A column: name, type, and the JSON of its values as a load writes it.
type Column = (&'static str, &'static str, BoxedStrategy<String>);

fn quoted(text: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    text.prop_map(|text| serde_json::to_string(&text).expect("a text is JSON")).boxed()
}

fn integer(bits: u32) -> BoxedStrategy<String> {
    any::<i64>().prop_map(move |number| (number >> (64 - bits)).to_string()).boxed()
}

fn float() -> BoxedStrategy<String> {
    any::<u64>()
        .prop_map(f64::from_bits)
        .prop_filter("JSON has it", |number| number.is_normal() || *number == 0.0)
        .prop_map(|number| format!("{:?}", number + 0.0))
        .boxed()
}

fn hexadecimal() -> BoxedStrategy<String> {
    quoted("([0-9a-f]{2}){0,40}")
}

fn decimal() -> BoxedStrategy<String> {
    let digits = (any::<bool>(), 0_u64..10_000_000_000_000, 0_u32..1_000_000);
    quoted(digits.prop_map(|(is_negative, whole, fraction)| {
        let sign = if is_negative && whole + u64::from(fraction) > 0 { "-" } else { "" };
        format!("{sign}{whole}.{fraction:06}")
    }))
}

fn date() -> impl Strategy<Value = String> {
    (1_000..10_000_u32, 1..13_u32, 1..29_u32)
        .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"))
}

fn clock() -> impl Strategy<Value = String> {
    (0..24_u32, 0..60_u32, 0..60_u32, 0..1_000_000_u32).prop_map(|(h, m, s, micros)| {
        let fraction = format!(".{micros:06}");
        let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
        format!("{h:02}:{m:02}:{s:02}{fraction}")
    })
}

fn moment(zone: &'static str) -> BoxedStrategy<String> {
    quoted((date(), clock()).prop_map(move |(date, clock)| format!("{date}T{clock}{zone}")))
}

fn text() -> BoxedStrategy<String> {
    quoted("[^\0]{0,60}")
}

fn array(of: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let item = prop_oneof![4 => of, 1 => Just("null".to_owned())];
    proptest::collection::vec(item, 0..6).prop_map(|items| format!("[{}]", items.join(","))).boxed()
}

/// Members in the order of the columns, some of them null.
fn rows(columns: &[Column]) -> Vec<Vec<String>> {
    let mut runner = TestRunner::deterministic();
    let mut value = |of: &BoxedStrategy<String>| {
        let with_null = prop_oneof![9 => of.clone(), 1 => Just("null".to_owned())];
        with_null.new_tree(&mut runner).expect("there is a value").current()
    };
    let row = |_| columns.iter().map(|(_, _, of)| value(of)).collect();
    (0..ROWS).map(row).collect()
}

fn script(columns: &[Column]) -> String {
    let columns: Vec<String> =
        columns.iter().map(|(name, sql_type, _)| format!("{name} {sql_type} NULL")).collect();
    format!("CREATE TABLE many (id int NOT NULL PRIMARY KEY, {})", columns.join(", "))
}

async fn check(database: &Database, columns: &[Column], same: fn(&str) -> String) {
    let origin = writer(database, "many", &WriteOptions::new()).await;
    let rows = rows(columns);
    let json = |id: usize, row: &[String]| {
        let members =
            columns.iter().zip(row).map(|((name, ..), value)| format!("\"{name}\":{value}"));
        format!("{{\"id\":{id},{}}}", members.collect::<Vec<_>>().join(","))
    };
    let key = |id: usize| format!("many:{id}");
    let writes: Vec<_> =
        rows.iter().enumerate().map(|(id, row)| put(&key(id), &json(id, row))).collect();
    let written = origin.write_all(&writes, None).await.expect("each row is one of the table");
    for (id, (row, written)) in rows.iter().zip(&written).enumerate() {
        let expected = json(id, row);
        let read = load(&origin, &key(id)).await.expect("it loads").expect("it is there");
        assert_eq!(same(&read), same(&expected), "row {id}");
        assert_eq!(now(written), Some(read.as_str()), "row {id} is told as it is read");
        // What is read can be put back, under another key too.
        let other = read.replacen(&format!("\"id\":{id}"), &format!("\"id\":{}", id + ROWS), 1);
        let back = origin.write(&put(&key(id + ROWS), &other)).await.expect("it is put back");
        assert_eq!(now(&back), Some(other.as_str()));
    }
}

#[tokio::test]
async fn random_rows_of_postgres_come_back() {
    let columns: Vec<Column> = vec![
        ("i2", "smallint", integer(16)),
        ("i4", "integer", integer(32)),
        ("i8", "bigint", integer(64)),
        ("f8", "double precision", float()),
        ("d", "numeric", decimal()),
        ("ds", "numeric(20,6)", decimal()),
        ("t", "text", text()),
        ("b", "bytea", hexadecimal()),
        ("day", "date", quoted(date())),
        ("clock", "time", quoted(clock())),
        ("local", "timestamp", moment("")),
        ("at", "timestamptz", moment("Z")),
        ("yes", "boolean", any::<bool>().prop_map(|yes| yes.to_string()).boxed()),
        ("j", "json", array(text())),
        ("a8", "bigint[]", array(integer(64))),
        ("at_all", "timestamptz[]", array(moment("Z"))),
        ("texts", "text[]", array(text())),
        ("bytes", "bytea[]", array(hexadecimal())),
        ("numbers", "numeric[]", array(decimal())),
    ];
    let postgres = Postgres::launch();
    postgres.execute(&script(&columns));
    check(&connect(&postgres.url("postgres")).await, &columns, number_forms).await;
}

#[tokio::test]
async fn random_rows_of_mysql_come_back() {
    let columns: Vec<Column> = vec![
        ("i1", "TINYINT", integer(8)),
        ("i3", "MEDIUMINT", integer(24)),
        ("i8", "BIGINT", integer(64)),
        ("u8", "BIGINT UNSIGNED", any::<u64>().prop_map(|number| number.to_string()).boxed()),
        ("f8", "DOUBLE", float()),
        ("ds", "DECIMAL(20,6)", decimal()),
        ("t", "VARCHAR(80)", text()),
        ("b", "VARBINARY(50)", hexadecimal()),
        ("day", "DATE", quoted(date())),
        ("clock", "TIME(6)", quoted(clock())),
        ("local", "DATETIME(6)", moment("")),
        ("j", "JSON", array(text())),
        ("bits", "BIT(64)", any::<u64>().prop_map(|number| number.to_string()).boxed()),
    ];
    let mysql = MySql::launch();
    mysql.execute(&script(&columns));
    check(&connect(&mysql.url("larder")).await, &columns, number_forms).await;
}

#[tokio::test]
async fn random_rows_of_sqlite_come_back() {
    let columns: Vec<Column> = vec![
        ("i8", "INTEGER", integer(64)),
        ("f8", "REAL", float()),
        ("t", "TEXT", text()),
        ("b", "BLOB", hexadecimal()),
        ("day", "TEXT", quoted(date())),
        ("untyped", "", integer(64)),
    ];
    let (_directory, path) = crate::sqlite::file(&script(&columns)).await;
    let database = connect(&format!("sqlite:{}", path.display())).await;
    check(&database, &columns, number_forms).await;
}

/// JSON with its strings and numbers in one spelling: Rust and a load write
/// `1e300` and `\u007f` in different ways.
fn number_forms(json: &str) -> String {
    use serde_json::value::RawValue;
    let members: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(json).expect("it is JSON");
    let plain = |(name, value): (String, Box<RawValue>)| {
        let text = value.get();
        let shown = match (name.as_str(), text.parse::<f64>()) {
            ("f8", Ok(number)) => format!("{:016x}", number.to_bits()),
            _ => serde_json::from_str::<String>(text).unwrap_or_else(|_| {
                serde_json::from_str::<Vec<Box<RawValue>>>(text).map_or_else(
                    |_| text.to_owned(),
                    |items| {
                        let item = |item: Box<RawValue>| {
                            serde_json::from_str::<String>(item.get())
                                .unwrap_or_else(|_| item.get().to_owned())
                        };
                        format!("{:?}", items.into_iter().map(item).collect::<Vec<_>>())
                    },
                )
            }),
        };
        format!("{name}={shown}")
    };
    members.into_iter().map(plain).collect::<Vec<_>>().join(";")
}
