//! The process is killed again and again while it appends, and files are begun.
//! Each record that was acknowledged is there once, in its order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_audit::{AuditBuffer, AuditFiles, AuditOptions, FileOptions};
use larder_core::{DynOrigin, Key};
use larder_testkit::conformance::block_on;
use tempfile::TempDir;

use crate::sql;
use crate::support::{STREAM, buffer, is_full, names, records};

const CHILD_DIRECTORY: &str = "LARDER_AUDIT_TEST_DIRECTORY";
const CHILD_ROUND: &str = "LARDER_AUDIT_TEST_ROUND";
const CHILD_ENDS: &str = "LARDER_AUDIT_TEST_ENDS";
const CHILD_WRITES_TO: &str = "LARDER_AUDIT_TEST_WRITES_TO";
const WRITERS: u64 = 6;

/// What the child said, in its order.
enum Said {
    Began(String),
    Acknowledged(String),
}

#[test]
fn files_have_each_acknowledged_record_once_whenever_the_process_is_killed() {
    let directory = TempDir::new().expect("a directory");
    let rounds = if is_full() { 200 } else { 10 };
    let said = kill_again_and_again(directory.path(), "files", rounds);
    let files = directory.path().join("files");
    let found: Vec<String> = records(&files).iter().map(|(_, record)| text(record)).collect();
    let (acknowledged, found) = check(&said, &found);
    let files = names(&files).len();
    eprintln!(
        "{rounds} kills, {files} files, {acknowledged} acknowledged, {found} in the files: \
         lost 0, twice 0, out of order 0"
    );
    assert!(acknowledged > rounds * 20, "the child hardly got to work");
    assert!(files as u64 > rounds, "no files were begun meanwhile");
}

#[test]
fn a_table_has_each_acknowledged_record_once_whenever_the_process_is_killed() {
    let directory = TempDir::new().expect("a directory");
    let rounds = if is_full() { 200 } else { 6 };
    let said = kill_again_and_again(directory.path(), "table", rounds);
    let found = block_on(sql::notes_in_order(&directory.path().join("audit.db")));
    let (acknowledged, found) = check(&said, &found);
    eprintln!(
        "{rounds} kills, {acknowledged} acknowledged, {found} rows: \
         lost 0, twice 0, out of order 0"
    );
    assert!(acknowledged > rounds * 20, "the child hardly got to work");
}

fn text(record: &serde_json::Value) -> String {
    record["note"].as_str().expect("a text").to_owned()
}

/// Compares what was found, in its order, with what was said. Returns how many
/// were acknowledged and how many found.
fn check(said: &[Said], found: &[String]) -> (u64, usize) {
    let mut places = HashMap::new();
    for (place, note) in found.iter().enumerate() {
        assert!(places.insert(note, place).is_none(), "{note} is there twice");
    }
    let mut acknowledged = 0;
    // What was acknowledged before a record was begun stands before it.
    let mut behind: Option<usize> = None;
    let mut begun = 0;
    for line in said {
        match line {
            Said::Began(note) => {
                if let Some(place) = places.get(note) {
                    begun += 1;
                    assert!(behind < Some(*place), "{note} is out of order");
                }
            }
            Said::Acknowledged(note) => {
                let place = places.get(note).copied();
                assert!(place.is_some(), "{note} was acknowledged and is lost");
                acknowledged += 1;
                behind = behind.max(place);
            }
        }
    }
    assert_eq!(begun, found.len(), "something is invented");
    (acknowledged, found.len())
}

fn kill_again_and_again(directory: &Path, writes_to: &str, rounds: u64) -> Vec<Said> {
    let mut random = fastrand::Rng::with_seed(8);
    let mut said = Vec::new();
    for round in 0..rounds {
        let lives_for = Duration::from_millis(random.u64(5..200));
        run(directory, writes_to, round, Some(lives_for), &mut said);
    }
    // The last one passes on what is left.
    run(directory, writes_to, rounds, None, &mut said);
    said
}

fn run(
    directory: &Path,
    writes_to: &str,
    round: u64,
    lives_for: Option<Duration>,
    said: &mut Vec<Said>,
) {
    let mut child = Command::new(std::env::current_exe().expect("the test has a program"))
        .args(["--exact", "kill::the_child_that_appends", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_ROUND, round.to_string())
        .env(CHILD_WRITES_TO, writes_to)
        .env(CHILD_ENDS, if lives_for.is_none() { "yes" } else { "no" })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test can start itself");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let killer = std::thread::spawn(move || {
        if is_ready.recv().is_ok()
            && let Some(lives_for) = lives_for
        {
            std::thread::sleep(lives_for);
            // SIGKILL.
            child.kill().expect("it runs");
        }
        child.wait().expect("a child ends")
    });
    for line in lines {
        let Ok(line) = line else { break };
        match line.split_once(' ') {
            Some(("B", note)) => said.push(Said::Began(note.to_owned())),
            Some(("A", note)) => said.push(Said::Acknowledged(note.to_owned())),
            _ if line == "ready" => ready.send(()).expect("the killer waits"),
            _ => {}
        }
    }
    drop(ready);
    let status = killer.join().expect("it does not panic");
    assert_eq!(status.success(), lives_for.is_none(), "round {round}: {status}");
}

/// Does nothing unless a test above starts it as a process of its own.
#[test]
fn the_child_that_appends() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let said = |name| std::env::var(name).expect("the parent says it");
    let round: u64 = said(CHILD_ROUND).parse().expect("a number");
    block_on(async {
        let origin = match &*said(CHILD_WRITES_TO) {
            "files" => files(&directory.join("files")).await,
            _ => Arc::new(sql::table(&directory.join("audit.db")).await),
        };
        let mut options = AuditOptions::default();
        options.behind.batch_records = 20;
        options.behind.batch_delay = Duration::from_millis(20);
        let audit = buffer(&directory.join("journal"), origin, options).await;
        say("ready");
        if said(CHILD_ENDS) == "yes" {
            audit.flush().await.expect("all is passed on");
            let letters = audit.behind().dead_letters(None, 1).await.expect("a list");
            assert!(letters.is_empty() && audit.statistics().coalesced == 0);
            return;
        }
        let append = |writer| tokio::spawn(append_for_ever(audit.clone(), writer, round));
        for writer in (0..WRITERS).map(append).collect::<Vec<_>>() {
            writer.await.expect("it appends until it is killed");
        }
    });
}

async fn files(directory: &Path) -> Arc<dyn DynOrigin<Key, Bytes>> {
    let mut options = FileOptions::new(directory);
    options.file_bytes_max = 8 << 10;
    options.files_max = usize::MAX;
    Arc::new(AuditFiles::open(options).await.expect("they open"))
}

async fn append_for_ever(audit: AuditBuffer, writer: u64, round: u64) {
    for number in 0_u64.. {
        let note = format!("{round}-{writer}-{number}");
        say(&format!("B {note}"));
        let record = format!("{{\"note\":\"{note}\",\"cents\":{number}}}");
        audit.append(STREAM, record).await.expect("it is accepted");
        say(&format!("A {note}"));
    }
}

/// One line, in one step: the parent reads what was written before the kill.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}
