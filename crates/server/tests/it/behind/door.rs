//! What clients see of writes that wait.

use tempfile::tempdir;

use super::*;
use crate::running::larder;

async fn own_writes(directory: &Path, database: Database) {
    let config = configure(directory, &database, SLOW);
    database.execute("INSERT INTO stock VALUES (1, 'cup', 10)").await;
    let mut server = start(directory, &config);
    let (mut one, mut other) = (server.redis().await, server.redis().await);
    let row = r#"{"id":2,"name":"mug","pieces":5}"#;
    assert_eq!(ask(&mut one, &["SET", "stock:2", row]).await, "ok");
    assert_eq!(ask(&mut other, &["GET", "stock:2"]).await, row);
    for number in 11..=30 {
        let added = ask(&mut one, &["LARDER.INCR", "stock:1", "pieces", "1"]).await;
        if number > 11 {
            assert_eq!(added, number.to_string());
        }
        let read = ask(&mut other, &["GET", "stock:1"]).await;
        assert_eq!(member(&read, "pieces"), number.to_string());
    }
    assert_eq!(ask(&mut one, &["LARDER.PATCH", "stock:2", r#"{"name":"jug"}"#]).await, "int(1)");
    let read = ask(&mut other, &["GET", "stock:2"]).await;
    assert_eq!((member(&read, "name"), member(&read, "pieces")), ("jug".into(), "5".into()));
    assert_eq!(ask(&mut one, &["SET", "stock:3", r#"{"name":"x","pieces":1}"#]).await, "ok");
    assert_eq!(ask(&mut one, &["DEL", "stock:3"]).await, "int(1)");
    assert_eq!(ask(&mut other, &["GET", "stock:3"]).await, "nil");
    assert_eq!(ask(&mut other, &["MGET", "stock:3", "stock:2"]).await.matches("jug").count(), 1);
    // Nobody but the journal has any of it.
    assert_eq!(database.member("stock", "pieces", 1).await.as_deref(), Some("10"));
    assert_eq!(database.member("stock", "pieces", 2).await, None);
    let info = ask(&mut one, &["INFO", "larder"]).await;
    assert!(info.contains("journal:acknowledged=survives-power-loss,depth=24"), "{info}");
    let explained = ask(&mut one, &["LARDER.EXPLAIN", "stock:1"]).await;
    assert!(explained.contains("survives-power-loss"), "{explained}");
    let (_, page) = server.page("/explain/stock:1").await;
    assert_eq!(page["cache"]["acknowledged"], "survives-power-loss");
    assert_eq!(server.metric("larder_journal_depth_records").await, Some(24.0));
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/metrics.md");
    let reference = std::fs::read_to_string(reference).expect("it is there");
    let page = server.request(reqwest::Method::GET, "/metrics").await.text().await.expect("text");
    for line in reference.lines().filter(|line| line.starts_with("| `larder_journal_")) {
        let name = line.trim_start_matches("| `").split('`').next().expect("a name");
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
    }
    // What cannot be promised is not acknowledged.
    for words in [&["SET", "stock:9", row, "NX"], &["SET", "stock:9", row, "XX"]] {
        let refused = ask(&mut one, words).await;
        assert!(refused.contains("expected"), "{refused}");
    }
    assert_eq!(ask(&mut one, &["LARDER.APPLY"]).await, "ok");
    assert_eq!(database.member("stock", "pieces", 1).await.as_deref(), Some("30"));
    assert_eq!(database.member("stock", "name", 2).await.as_deref(), Some("jug"));
    assert_eq!(database.member("stock", "name", 3).await, None);
    let applied = "larder_journal_writes_total{outcome=\"applied\"}";
    assert_eq!(server.metric(applied).await, Some(24.0));
    let coalesced = "larder_journal_writes_total{outcome=\"coalesced\"}";
    assert_eq!(server.metric(coalesced).await, Some(19.0));
    let read = ask(&mut other, &["GET", "stock:1"]).await;
    assert_eq!((member(&read, "pieces"), member(&read, "name")), ("30".into(), "cup".into()));
    // What a write leaves in memory is tagged as what is loaded.
    database.execute("UPDATE stock SET pieces = 77 WHERE id = 1").await;
    let _ = ask(&mut one, &["LARDER.REMOVE", "TAG", "name:cup"]).await;
    assert_eq!(member(&ask(&mut other, &["GET", "stock:1"]).await, "pieces"), "77");
    // A server that is told to stop applies what waits.
    let _ = ask(&mut one, &["LARDER.INCR", "stock:1", "pieces", "3"]).await;
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
    assert_eq!(database.member("stock", "pieces", 1).await.as_deref(), Some("80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_read_at_once_and_sqlite_has_it_once_later() {
    let directory = tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    own_writes(directory.path(), database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_read_at_once_and_postgres_has_it_once_later() {
    let directory = tempdir().expect("a temporary directory");
    own_writes(directory.path(), Database::postgres()).await;
}

#[tokio::test]
async fn mistakes_are_named_at_their_place_with_a_remedy() {
    let directory = tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    let config = configure(directory.path(), &database, "");
    let right = std::fs::read_to_string(&config).expect("it is there");
    for (from, to, parts) in [
        ("directory =", "# directory =", vec!["no journal", "[journal] directory"]),
        ("[caches.stock]", "[redis]\nurl = \"redis://h\"\n[caches.stock]", vec!["only_writer"]),
        ("table = \"stock\"", "table = \"stock\"\nclass = \"financial\"", vec!["class financial"]),
        ("[journal]", "[journal]\nbatch_records = 0", vec!["batch_records", "1 or more"]),
        ("[journal]", "[journal]\nretry_pause = \"1h\"", vec!["pauses", "retry_pause_max"]),
        ("[journal]", "[journal]\nlanes = 5000", vec!["lanes", "4096"]),
        ("mode = \"behind\"", "mode = \"behnd\"", vec!["behnd"]),
        ("{ mode = \"behind\" }", "{ only_writer = true }", vec!["only_writer", "mode"]),
    ] {
        assert!(right.contains(from), "{from}");
        let path = directory.path().join("wrong.toml");
        std::fs::write(&path, right.replacen(from, to, 1)).expect("it can be written");
        let path = path.display().to_string();
        let checked = larder().args(["check", &path]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        let said = format!("{said}{}", String::from_utf8_lossy(&checked.stdout));
        assert!(!checked.status.success(), "{to}: {said}");
        assert!(said.contains("wrong.toml:"), "{to}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
