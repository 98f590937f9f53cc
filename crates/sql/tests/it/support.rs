use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Action, Error, Key, LoadCause, LoadContext, Loaded, Moment, Origin, Outcome, Result, Value,
    Write, Written,
};
use larder_sql::{Database, DatabaseOptions, QueryOptions, SqlOrigin, Table, WriteOptions};

/// A type, a literal of it and the JSON that it becomes.
pub(crate) type TypeCase = (&'static str, &'static str, &'static str);

/// The type of a key column, a literal, how a key spells it, and texts that
/// must be the key of no row.
pub(crate) type KeyCase = (&'static str, &'static str, &'static str, &'static [&'static str]);

pub(crate) fn options(url: &str) -> DatabaseOptions {
    let mut options = DatabaseOptions::new(url);
    options.connect_timeout = Duration::from_secs(20);
    options
}

pub(crate) async fn connect(url: &str) -> Database {
    Database::connect(&options(url)).await.expect("the database answers")
}

pub(crate) fn context() -> LoadContext {
    LoadContext::new(LoadCause::Miss, Moment::NEVER)
}

/// The table of that name, which must be served.
pub(crate) async fn table(database: &Database, name: &str) -> Table {
    let introspection = database.introspect().await.expect("the catalog can be read");
    let skipped = introspection.skipped.clone();
    let mut tables = introspection.tables.into_iter();
    tables
        .find(|table| table.name == name)
        .unwrap_or_else(|| panic!("{name} is not served: {skipped:?}"))
}

pub(crate) async fn table_origin(database: &Database, name: &str) -> SqlOrigin {
    database.table_origin(&table(database, name).await).expect("a table that was introspected")
}

pub(crate) async fn query_origin(database: &Database, pattern: &str, select: &str) -> SqlOrigin {
    database.query_origin(query(pattern, select)).await.expect(select)
}

pub(crate) fn query(pattern: &str, select: &str) -> QueryOptions {
    QueryOptions::new(pattern.parse().expect(pattern), select)
}

/// The value of a key as text; `None` if it is absent.
pub(crate) async fn load(origin: &SqlOrigin, key: &str) -> Result<Option<String>> {
    Origin::load(origin, &Key::new(key), &context()).await.map(text)
}

pub(crate) async fn load_many(
    origin: &SqlOrigin,
    keys: impl IntoIterator<Item = impl AsRef<str>>,
) -> Vec<Result<Option<String>>> {
    let keys: Vec<Key> = keys.into_iter().map(|key| Key::new(key.as_ref())).collect();
    let answers = Origin::load_many(origin, &keys, &context()).await;
    assert_eq!(answers.len(), keys.len(), "one answer for each key");
    answers.into_iter().map(|answer| answer.map(text)).collect()
}

/// All answers, none of which may be an error.
pub(crate) async fn values(
    origin: &SqlOrigin,
    keys: impl IntoIterator<Item = impl AsRef<str>>,
) -> Vec<Option<String>> {
    let answers = load_many(origin, keys).await;
    answers.into_iter().map(|answer| answer.expect("no key of the batch fails")).collect()
}

fn text(loaded: Loaded<Bytes>) -> Option<String> {
    match loaded.outcome {
        Outcome::Found(Value::Present(value)) => {
            let value = String::from_utf8(value.to_vec()).expect("JSON is UTF-8");
            let parsed = serde_json::from_str::<serde_json::Value>(&value);
            parsed.unwrap_or_else(|error| panic!("{value} is not JSON: {error}"));
            Some(value)
        }
        Outcome::Found(Value::Absent) => None,
        other => panic!("a load of SQL says {other:?}"),
    }
}

/// Tables `type_0`, `type_1`, … with a row of each literal and a row of NULL.
pub(crate) fn type_script(cases: &[TypeCase]) -> String {
    let table = |(index, (sql_type, literal, _)): (usize, &TypeCase)| {
        format!(
            "CREATE TABLE type_{index} (id int PRIMARY KEY, v {sql_type} NULL);\n\
             INSERT INTO type_{index} VALUES (1, {literal});\n\
             INSERT INTO type_{index} VALUES (2, NULL);\n"
        )
    };
    cases.iter().enumerate().map(table).collect()
}

/// Each literal is the same JSON read through the table and through a query, and
/// NULL is null.
pub(crate) async fn check_types(database: &Database, cases: &[TypeCase]) {
    let introspection = database.introspect().await.expect("the catalog can be read");
    let mut wrong = Vec::new();
    for (index, (sql_type, literal, json)) in cases.iter().enumerate() {
        let name = format!("type_{index}");
        let table = introspection.tables.iter().find(|table| table.name == name);
        let by_table = database
            .table_origin(table.unwrap_or_else(|| panic!("{name} is served")))
            .expect("a table that was introspected");
        let select = format!("SELECT id, v FROM {name} WHERE id = :id");
        let by_query = query_origin(database, &format!("{name}:{{id}}"), &select).await;
        let list = query(&format!("{name}:{{id}}"), &select).list(true);
        let by_list = database.query_origin(list).await.expect("the query is sound");
        let row = format!("{{\"id\":1,\"v\":{json}}}");
        let null = "{\"id\":2,\"v\":null}".to_owned();
        let keys = [1, 2, 3].map(|id| format!("{name}:{id}"));
        let mut check = |how: &str,
                         found: Vec<Result<Option<String>>>,
                         expected: [Option<String>; 3]| {
            let found: Vec<Option<String>> = found
                .into_iter()
                .map(|found| found.unwrap_or_else(|error| Some(error.to_string())))
                .collect();
            if found != expected {
                wrong.push(format!("{sql_type} {literal} by {how}: {found:?}, not {expected:?}"));
            }
        };
        check(
            "table",
            load_many(&by_table, &keys).await,
            [Some(row.clone()), Some(null.clone()), None],
        );
        check(
            "query",
            load_many(&by_query, &keys).await,
            [Some(row.clone()), Some(null.clone()), None],
        );
        let lists = [Some(format!("[{row}]")), Some(format!("[{null}]")), Some("[]".to_owned())];
        check("list", load_many(&by_list, &keys).await, lists);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The origin of a table that also writes.
pub(crate) async fn writer(database: &Database, name: &str, options: &WriteOptions) -> SqlOrigin {
    let table = table(database, name).await;
    database.writing_table_origin(&table, options).expect("the table can be written")
}

pub(crate) fn put(key: &str, value: &str) -> Write<Key, Bytes> {
    Write::new(Key::new(key), Action::Put(Bytes::copy_from_slice(value.as_bytes())))
}

pub(crate) fn patch(key: &str, value: &str) -> Write<Key, Bytes> {
    Write::new(Key::new(key), Action::Patch(Bytes::copy_from_slice(value.as_bytes())))
}

pub(crate) fn remove(key: &str) -> Write<Key, Bytes> {
    Write::new(Key::new(key), Action::Remove)
}

pub(crate) fn add(key: &str, field: &str, by: &str) -> Write<Key, Bytes> {
    let by = by.parse().expect("it is a number");
    Write::new(Key::new(key), Action::Add { field: field.into(), by })
}

/// What the key has now, of a write that was done.
pub(crate) fn now(written: &Written<Bytes>) -> Option<&str> {
    match written {
        Written::Done { now: Some(Value::Present(row)), .. } => {
            Some(std::str::from_utf8(row).expect("JSON is UTF-8"))
        }
        Written::Done { now: Some(Value::Absent), .. } => None,
        other => panic!("the write was not done, or nothing is known of the row: {other:?}"),
    }
}

/// Each row of [`type_script`] can be put back under another key, is told as it
/// was read, and reads the same.
pub(crate) async fn check_puts(database: &Database, cases: &[TypeCase]) {
    let introspection = database.introspect().await.expect("the catalog can be read");
    let mut wrong = Vec::new();
    for (index, (sql_type, literal, _)) in cases.iter().enumerate() {
        let name = format!("type_{index}");
        let table = introspection.tables.iter().find(|table| table.name == name);
        let table = table.unwrap_or_else(|| panic!("{name} is served"));
        let origin = database.writing_table_origin(table, &WriteOptions::new());
        let origin = origin.expect("the table can be written");
        for (from, to) in [(1, 11), (2, 12)] {
            let read = load(&origin, &format!("{name}:{from}")).await.expect("it loads");
            let row = read.expect("it is there").replacen(
                &format!("\"id\":{from}"),
                &format!("\"id\":{to}"),
                1,
            );
            // Twice: a row that is there is replaced.
            for _ in 0..2 {
                let key = format!("{name}:{to}");
                let written = match origin.write(&put(&key, &row)).await {
                    Ok(written) => written,
                    Err(error) => {
                        wrong.push(format!("{sql_type} {literal} is not put: {error}"));
                        continue;
                    }
                };
                let again = load(&origin, &key).await.expect("it loads");
                // White space around a JSON document is not kept.
                let expected = row.replace(": {", ":{").replace("\":  ", "\": ");
                let plain = |text: &str| {
                    text.replace(":  {", ":{")
                        .replace(": {", ":{")
                        .replace("} }", "}}")
                        .replace("\":  ", "\": ")
                };
                let told = now(&written).map(plain);
                let again = again.as_deref().map(plain);
                let expected = plain(&expected);
                if told.as_deref() != Some(expected.as_str())
                    || again.as_deref() != Some(expected.as_str())
                {
                    wrong.push(format!(
                        "{sql_type} {literal}: put {expected}, told {told:?}, read {again:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tables `key_0`, `key_1`, … with one row each.
pub(crate) fn key_script(cases: &[KeyCase]) -> String {
    let table = |(index, (sql_type, literal, ..)): (usize, &KeyCase)| {
        format!(
            "CREATE TABLE key_{index} (k {sql_type} NOT NULL PRIMARY KEY, n int NOT NULL);\n\
             INSERT INTO key_{index} VALUES ({literal}, {index});\n"
        )
    };
    cases.iter().enumerate().map(table).collect()
}

/// Each key finds its row, alone and among keys that are none, and no other
/// spelling does.
pub(crate) async fn check_keys(database: &Database, cases: &[KeyCase]) {
    let introspection = database.introspect().await.expect("the catalog can be read");
    let mut wrong = Vec::new();
    for (index, (sql_type, _, spelling, others)) in cases.iter().enumerate() {
        let name = format!("key_{index}");
        let table = introspection.tables.iter().find(|table| table.name == name);
        let origin = database
            .table_origin(table.unwrap_or_else(|| panic!("{name} is served")))
            .expect("a table that was introspected");
        let is_row = |found: &Option<String>| {
            found.as_ref().is_some_and(|json| json.ends_with(&format!(",\"n\":{index}}}")))
        };
        let alone = load(&origin, &format!("{name}:{spelling}")).await;
        if !alone.as_ref().is_ok_and(is_row) {
            wrong.push(format!("{sql_type} {spelling} alone: {alone:?}"));
        }
        let keys: Vec<String> = std::iter::once(spelling)
            .chain(others.iter())
            .map(|text| format!("{name}:{text}"))
            .collect();
        for (place, (key, found)) in keys.iter().zip(load_many(&origin, &keys).await).enumerate() {
            let right = match &found {
                Ok(found) => is_row(found) == (place == 0),
                Err(_) => false,
            };
            if !right {
                wrong.push(format!("{sql_type} {key}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The error text, which must hold each of these parts and no secret.
pub(crate) fn assert_error(error: &Error, parts: &[&str]) {
    let text = format!("{error} {error:?}");
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("s3cret"), "a secret is in: {text}");
}
