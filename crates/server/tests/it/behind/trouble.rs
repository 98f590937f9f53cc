//! Writes that the database refuses, and a database that is gone.

use std::process::Output;

use tempfile::tempdir;

use super::*;
use crate::running::larder;

fn letters(server: &Running, arguments: &[&str]) -> String {
    let admin = format!("http://{}", server.admin);
    let mut command = larder();
    command.arg("dead-letters").args(arguments).args(["--admin", &admin]);
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&stderr));
    said
}

async fn poison(directory: &Path, database: Database) {
    let config = configure(directory, &database, SLOW);
    let server = start(directory, &config);
    let mut redis = server.redis().await;
    for id in 0..40 {
        let pieces = if id % 20 == 7 { -1 } else { id };
        let row = format!("{{\"id\":{id},\"name\":\"n{id}\",\"pieces\":{pieces}}}");
        assert_eq!(ask(&mut redis, &["SET", &format!("stock:{id}"), &row]).await, "ok");
    }
    assert_eq!(letters(&server, &["list"]), "no dead letters\n");
    assert_eq!(ask(&mut redis, &["LARDER.APPLY"]).await, "ok");
    let count = database.ask("SELECT CAST(COUNT(*) AS TEXT) FROM stock").await;
    assert_eq!(count, ["38"], "the others are not held up");
    assert_eq!(ask(&mut redis, &["GET", "stock:7"]).await, "nil", "it is not shown any more");
    let listed = letters(&server, &["list"]);
    assert!(listed.contains("stock:7 ") && listed.contains("refused"), "{listed}");
    assert!(listed.contains("stock:27 ") && listed.ends_with("2 dead letters\n"), "{listed}");
    assert_eq!(server.metric("larder_journal_dead_letters").await, Some(2.0));
    let id_of = |key: &str| {
        let line = listed.lines().find(|line| line.contains(&format!(" {key} ")));
        line.and_then(|line| line.split_whitespace().next()).expect("it is listed").to_owned()
    };
    let (first, second) = (id_of("stock:7"), id_of("stock:27"));
    assert!(letters(&server, &["show", &first]).contains("\"pieces\": -1"));
    // Mended, and written again.
    let mended = r#"{"id":7,"name":"seven","pieces":70}"#;
    letters(&server, &["replay", &first, "--with", mended]);
    assert_eq!(ask(&mut redis, &["GET", "stock:7"]).await, mended, "it is read at once");
    assert_eq!(letters(&server, &["drop", &second]), "dropped 1 dead letter\n");
    assert_eq!(ask(&mut redis, &["LARDER.APPLY"]).await, "ok");
    assert_eq!(database.member("stock", "pieces", 7).await.as_deref(), Some("70"));
    assert_eq!(database.member("stock", "pieces", 27).await, None);
    assert_eq!(letters(&server, &["list"]), "no dead letters\n");
    let (status, page) = server.page("/dead-letters/3-1207").await;
    assert!(status == 404 && page["error"].as_str().is_some_and(|it| it.contains("3-1207")));
    let (_, page) = server.page("/journal").await;
    assert_eq!((&page["buried"], &page["depth_records"]), (&2.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sqlite_refuses_holds_nobody_up_and_is_mended_and_replayed() {
    let directory = tempdir().expect("a temporary directory");
    let database = Database::sqlite(directory.path()).await;
    poison(directory.path(), database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_refuses_holds_nobody_up_and_is_mended_and_replayed() {
    let directory = tempdir().expect("a temporary directory");
    poison(directory.path(), Database::postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_takes_writes_again_when_the_database_is_back() {
    let directory = tempdir().expect("a temporary directory");
    let mut database = Database::postgres();
    database.execute("INSERT INTO stock VALUES (1, 'cup', 0)").await;
    let options = format!("{FAST}\nqueue_records_max = 60");
    let config = configure(directory.path(), &database, &options);
    let server = start(directory.path(), &config);
    let mut redis = server.redis().await;
    assert_eq!(member(&ask(&mut redis, &["GET", "stock:1"]).await, "pieces"), "0");
    database.postgres_mut().kill();
    let mut accepted = 0;
    let refused = loop {
        let answer = ask(&mut redis, &["LARDER.INCR", "stock:1", "pieces", "1"]).await;
        if answer.contains("OVERLOADED") {
            break answer;
        }
        accepted += 1;
        assert_eq!(answer, accepted.to_string(), "it is counted while the database is gone");
        assert!(accepted <= 60, "the queue is bounded");
    };
    assert!(refused.contains("wait") && refused.contains("queue_records_max"), "{refused}");
    assert_eq!(accepted, 60);
    let refusals = "larder_journal_writes_total{outcome=\"refused\"}";
    assert_eq!(server.metric(refusals).await, Some(1.0));
    assert_eq!(member(&ask(&mut redis, &["GET", "stock:1"]).await, "pieces"), "60");
    database.postgres_mut().start();
    // Once the database has what waited, there is room, and the sum can be told.
    assert_eq!(ask(&mut redis, &["LARDER.APPLY", "60000"]).await, "ok");
    assert_eq!(member(&ask(&mut redis, &["GET", "stock:1"]).await, "pieces"), "60");
    let answer = ask(&mut redis, &["LARDER.INCR", "stock:1", "pieces", "1"]).await;
    assert_eq!(answer, "61");
    assert_eq!(ask(&mut redis, &["LARDER.APPLY", "60000"]).await, "ok");
    assert_eq!(database.member("stock", "pieces", 1).await.as_deref(), Some("61"));
}
