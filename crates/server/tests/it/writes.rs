//! A configuration that lets clients write: declared, checked, and used.

use larder_server::config::{self, Source};

use crate::running::{Running, larder};
use crate::serve::config as configured;

const WRITES: &str = r#"
[caches.title]
key = "title:{id}"
query = "SELECT id, title FROM album WHERE id = :id"

[caches.title.write]
put = "INSERT INTO album (id, title) VALUES (:id, :title) ON CONFLICT (id) DO UPDATE SET title = excluded.title"
remove = "DELETE FROM album WHERE id = :id"
"#;

fn writing(text: &str) -> String {
    let text = text.replace("table = \"album\"", "table = \"album\"\nwrite = {}");
    format!("{text}\n{WRITES}")
}

async fn ask(redis: &mut redis::aio::MultiplexedConnection, words: &[&str]) -> String {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    match command.query_async::<redis::Value>(redis).await {
        Ok(redis::Value::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_what_the_configuration_lets_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = configured(directory.path(), |text| writing(&text)).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let row = r#"{"id":9,"title":"Sketches of Spain","artist_id":3,"updated_at":null}"#;
    for (words, answer) in [
        (vec!["SET", "album:9", row], "ok"),
        (vec!["GET", "album:9"], row),
        (vec!["LARDER.PATCH", "album:9", r#"{"artist_id":4}"#], ""),
        (vec!["GET", "title:9"], r#"{"id":9,"title":"Sketches of Spain"}"#),
        (vec!["SET", "title:9", r#"{"title":"In a Silent Way"}"#], "ok"),
        (vec!["GET", "title:9"], r#"{"id":9,"title":"In a Silent Way"}"#),
        (vec!["DEL", "album:9"], "int(1)"),
        (vec!["GET", "album:9"], "nil"),
        (vec!["SET", "album:9", r#"{"titel":1}"#], "titel"),
        (vec!["SET", "artist:3", r#"{"name":"x"}"#], "writes"),
    ] {
        let found = ask(&mut redis, &words).await;
        assert!(found.contains(answer), "{words:?}: {found}");
    }
}

/// What is written is kept as what is loaded is: where its tags reach it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_invalidated_by_its_tags_and_by_what_it_depends_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let depends = "table = \"album\"\ndepends_on = [\"artist:{artist_id}\"]";
    let change = |text: String| writing(&text.replace("table = \"album\"", depends));
    let path = configured(directory.path(), change).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    let row = r#"{"id":9,"title":"Sketches","artist_id":3,"updated_at":"1960-07-18 00:00:00"}"#;
    let page = "/caches/album/keys/album:9";
    for invalidation in [["LARDER.REMOVE", "TAG", "artist:3"], ["LARDER.REMOVE", "KEY", "artist:3"]]
    {
        assert_eq!(ask(&mut redis, &["SET", "album:9", row]).await, "ok");
        let (status, entry) = server.page(page).await;
        let tags = serde_json::json!(["@artist:3", "artist:3"]);
        assert_eq!((status, &entry["tags"]), (200, &tags), "{entry}");
        let fresh = entry["fresh_for_seconds"].as_f64().expect("it ends");
        assert!(fresh > 70_000.0, "an old row holds for a day less jitter: {fresh}");
        ask(&mut redis, &invalidation).await;
        assert_eq!(server.page(page).await.0, 404, "{invalidation:?}");
    }
}

/// A statement may leave rows of a list, and a list without rows is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_removed_is_what_the_database_has_of_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let list = "[caches.albums_of_artist.write]\n\
                remove = \"DELETE FROM album WHERE artist_id = :artist_id AND updated_at IS NULL\"\n";
    let path = configured(directory.path(), |text| format!("{text}\n{list}")).await;
    let server = Running::start(directory.path(), &["--config", &path]);
    let mut redis = server.redis().await;
    for (words, answer) in [
        (
            ["GET", "artist:3:albums"],
            r#"[{"id":7,"title":"Kind of Blue"},{"id":8,"title":"Milestones"}]"#,
        ),
        (["DEL", "artist:3:albums"], "int(1)"),
        (["GET", "artist:3:albums"], r#"[{"id":7,"title":"Kind of Blue"}]"#),
    ] {
        assert_eq!(ask(&mut redis, &words).await, answer, "{words:?}");
    }
}

#[tokio::test]
async fn what_the_database_says_of_a_statement_stands_at_its_place() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (wrong, right, parts) in [
        ("INTO album (id, title)", "INTO albun (id, title)", &["`put`", "albun", "put = "][..]),
        ("write = {}", "write = { version_column = \"titel\" }", &["version_column", "titel"]),
    ] {
        let change = |text: String| writing(&text).replace(wrong, right);
        let path = configured(directory.path(), change).await;
        let output = larder().args(["check", "--connect", &path]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        std::fs::remove_file(directory.path().join("music.db")).expect("the database is there");
    }
}

#[test]
fn mistakes_in_writes_are_found_without_the_database() {
    let file = r#"
[origins.shop]
url = "sqlite:shop.db"
write_pool_size = 0

[caches.album]
table = "album"
write = { remove = "DELETE FROM album WHERE id = :id", putt = "x" }

[caches.stock]
table = "stock"
write = { remove = "DELETE FROM stock WHERE id = :id" }

[caches.title]
key = "title:{id}"
query = "SELECT title FROM album WHERE id = :id"
write = {}

[caches.shelf]
key = "shelf:{id}"
query = "SELECT title FROM album WHERE id = :id"
list = true

[caches.shelf.write]
put = "UPDATE album SET title = :title WHERE id = :id"

[caches.price]
key = "price:{id}"
query = "SELECT price FROM album WHERE id = :id"

[caches.price.write]
remove = "DELETE FROM album WHERE id = :idd"
add = { price = "UPDATE album SET price = 1 WHERE id = :id" }
"#;
    let source = Source { name: "larder.toml".into(), text: file.into() };
    let said = config::check(&source).diagnostics.to_string();
    for part in [
        "`write_pool_size` cannot be 0",
        "putt",
        "a table is written without statements",
        "a query is not written without statements",
        "a list can only be removed as a whole",
        "parameter: idd",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let fixed = file.replace(":idd", ":id");
    let source = Source { name: "larder.toml".into(), text: fixed };
    let said = config::check(&source).diagnostics.to_string();
    assert!(said.contains("does not use :by") && said.contains("larder.toml:33"), "{said}");
}
