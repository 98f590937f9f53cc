//! The process that writes behind is killed again and again. This process plays
//! the database that lives on: each write is in it once, in the order of its key.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder::{BehindOptions, Clock, ErrorKind, Version, WriteBehind};
use larder_core::{
    Action, BatchError, DynOrigin, Error, JournalOffset, JournalRecord, Key, LaneMark, LoadContext,
    Loaded, Origin, Result, Write, WriteAbilities, Written,
};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::FaultyTable;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{CACHE, text};

const CHILD_DIRECTORY: &str = "LARDER_BEHIND_TEST_DIRECTORY";
const CHILD_ROUND: &str = "LARDER_BEHIND_TEST_ROUND";
const WRITERS: u64 = 8;

/// What was said of one key.
#[derive(Default)]
struct Accepted {
    /// Puts, oldest first, and whether they were acknowledged.
    puts: Vec<(String, bool)>,
    added: i64,
    /// Of additions that were begun and not acknowledged.
    perhaps_added: i64,
}

#[test]
fn a_process_that_is_killed_loses_nothing_and_applies_nothing_twice() {
    let rounds = if std::env::var_os("LARDER_FULL").is_some() { 200 } else { 8 };
    let directory = TempDir::new().expect("a directory");
    let table = FaultyTable::new();
    for writer in 0..WRITERS {
        table.set(Key::new(format!("key-{writer}")), "first");
    }
    let mut accepted: HashMap<String, Accepted> = HashMap::new();
    let mut random = fastrand::Rng::with_seed(4);
    let mut acknowledged = 0;
    for round in 0..rounds {
        // The last one lives until all is applied.
        let lives_for = (round + 1 < rounds).then(|| Duration::from_millis(random.u64(5..200)));
        acknowledged += run(directory.path(), round, lives_for, &table, &mut accepted);
    }
    let mut writes = 0;
    for (key, accepted) in &accepted {
        writes += check(&table, key, accepted);
    }
    eprintln!(
        "{rounds} kills, {acknowledged} acknowledged writes, {writes} puts sent: \
         lost 0, applied twice 0, out of order 0, dead letters 0"
    );
    assert!(acknowledged > rounds * 20, "the child hardly got to work");
}

/// Compares what the table has with what was said. Returns how many puts it got.
fn check(table: &FaultyTable, key: &str, accepted: &Accepted) -> usize {
    let row = table.row(&Key::new(key)).expect("it has a row");
    let total = row.total.as_i64().expect("whole numbers");
    let possible = accepted.added..=accepted.added + accepted.perhaps_added;
    assert!(possible.contains(&total), "{key}: {total} and not {possible:?}");
    let history = table.history(&Key::new(key));
    let mut puts = accepted.puts.iter();
    for applied in history.iter().skip(1) {
        let applied = super::string(applied);
        assert!(puts.any(|(put, _)| *put == applied), "{key}: {applied} twice or out of order");
    }
    // What is left was coalesced into a later one, or never acknowledged.
    let left: Vec<_> = puts.filter(|(_, is_acknowledged)| *is_acknowledged).collect();
    assert!(left.is_empty(), "{key}: lost {left:?}");
    history.len() - 1
}

/// Lets a child work. Returns how many writes it acknowledged.
fn run(
    directory: &Path,
    round: u64,
    lives_for: Option<Duration>,
    table: &FaultyTable,
    accepted: &mut HashMap<String, Accepted>,
) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("the test has a program"))
        .args(["--exact", "behind::kill::the_child_that_writes", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_ROUND, round.to_string())
        .env("LARDER_BEHIND_TEST_LAST", if lives_for.is_none() { "1" } else { "0" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test can start itself");
    let mut answers = child.stdin.take().expect("it is piped");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let child = Arc::new(Mutex::new(child));
    let mut killer = None;
    let mut acknowledged = 0;
    for line in lines {
        let Ok(line) = line else { break };
        if line == "ready" {
            killer = lives_for.map(|lives_for| kill_after(&child, lives_for));
        } else if let Some(call) = line.strip_prefix("CALL ") {
            serve(call, table, &mut answers);
        } else {
            acknowledged += u64::from(note(&line, accepted));
        }
    }
    if let Some(killer) = killer {
        killer.join().expect("it is killed");
    }
    let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait().expect("it ends");
    assert_eq!(status.success(), lives_for.is_none(), "round {round}");
    acknowledged
}

fn kill_after(child: &Arc<Mutex<Child>>, after: Duration) -> std::thread::JoinHandle<()> {
    let child = Arc::clone(child);
    std::thread::spawn(move || {
        std::thread::sleep(after);
        // SIGKILL.
        child.lock().unwrap_or_else(PoisonError::into_inner).kill().expect("it runs");
    })
}

/// Answers a call of the child's origin, if the child still listens. What it sent
/// is done before.
fn serve(call: &str, table: &FaultyTable, answers: &mut ChildStdin) {
    let words: Vec<&str> = call.split(' ').collect();
    let [number, what, journal, lane, epoch, applied, writes] = words[..] else { return };
    let (Ok(lane), Ok(epoch), Ok(applied)) = (lane.parse(), epoch.parse(), applied.parse()) else {
        return;
    };
    let answer = if what == "applied" {
        let mark = table.mark(journal, lane);
        mark.map_or("none".to_owned(), |mark| format!("{} {}", mark.epoch, mark.applied.0))
    } else {
        // A call that was cut off by the kill never arrived.
        let Some(writes) = decode(writes) else { return };
        let journal = Arc::from(journal);
        let mark = LaneMark { journal, lane, epoch, applied: JournalOffset(applied) };
        match table.commit(&writes, Some(&mark)) {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("failed {}", error.error.kind() == ErrorKind::Conflict),
        }
    };
    let _ = answers.write_all(format!("{number} {answer}\n").as_bytes());
}

/// Notes what the child says of its writes. Returns whether it acknowledges one.
fn note(line: &str, accepted: &mut HashMap<String, Accepted>) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let [when @ ("A" | "B"), what, key, value] = words[..] else { return false };
    let of_key = accepted.entry(key.to_owned()).or_default();
    let by = || value.parse::<i64>().expect("a number");
    match (when, what) {
        ("B", "put") => of_key.puts.push((value.to_owned(), false)),
        ("A", "put") => of_key.puts.last_mut().expect("it began").1 = true,
        ("B", "add") => of_key.perhaps_added += by(),
        ("A", "add") => {
            of_key.perhaps_added -= by();
            of_key.added += by();
        }
        _ => return false,
    }
    when == "A"
}

/// Does nothing unless the test above starts it as a process of its own.
#[test]
fn the_child_that_writes() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let round = number(CHILD_ROUND).expect("the parent says which round");
    block_on(async {
        let mut options = JournalOptions::new(Path::new(&directory));
        options.lanes = 4;
        options.segment_bytes = 64 << 10;
        let journal = DiskJournal::open(options).await.expect("the journal opens");
        let mut options = BehindOptions::default();
        options.batch_records = 20;
        options.batch_delay = Duration::from_millis(20);
        let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(Parent::start());
        let targets = [(CACHE.to_owned(), origin)];
        let opened = WriteBehind::open(Arc::new(journal), targets, options, Clock::monotonic());
        let behind = opened.await.expect("it opens");
        say("ready");
        if number("LARDER_BEHIND_TEST_LAST") == Some(1) {
            behind.flush().await.expect("all is applied");
            assert!(behind.dead_letters(None, 1).await.expect("a list").is_empty());
            return;
        }
        let writers = (0..WRITERS).map(|writer| {
            let behind = behind.clone();
            tokio::spawn(write_for_ever(behind, format!("key-{writer}"), round))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("it writes until it is killed");
        }
    });
}

async fn write_for_ever(behind: WriteBehind, key: String, round: u64) {
    let mut random = fastrand::Rng::new();
    for number in 0_u64.. {
        let (what, value, action) = if random.bool() {
            let value = format!("{round}-{number}");
            ("put", value.clone(), Action::Put(text(&value)))
        } else {
            let by = random.i64(1..1000);
            let field = "total".into();
            ("add", by.to_string(), Action::Add { field, by: by.into() })
        };
        say(&format!("B {what} {key} {value}"));
        let write = Write::new(Key::new(&key), action);
        behind.write(CACHE, write, Version::new(number)).await.expect("it is accepted");
        say(&format!("A {what} {key} {value}"));
    }
}

/// An origin that asks the parent over the standard streams.
struct Parent {
    calls: Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>>,
    next: AtomicU64,
}

impl Parent {
    fn start() -> Self {
        let calls: Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>> = Arc::default();
        let waiting = Arc::clone(&calls);
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let Ok(line) = line else { return };
                let Some((number, answer)) = line.split_once(' ') else { continue };
                let number = number.parse().expect("a number");
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let call = waiting.remove(&number).expect("it was asked");
                let _ = call.send(answer.to_owned());
            }
        });
        Self { calls, next: AtomicU64::new(0) }
    }

    async fn ask(
        &self,
        what: &str,
        mark: &LaneMark,
        writes: &[Write<Key, Bytes>],
    ) -> Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(number, reply);
        let LaneMark { journal, lane, epoch, applied } = mark;
        let writes = encode(writes);
        say(&format!("CALL {number} {what} {journal} {lane} {epoch} {} {writes}", applied.0));
        let gone = |_| Error::new(ErrorKind::OutcomeUnknown, "the parent is gone");
        answer.await.map_err(gone)
    }
}

impl Origin<Key, Bytes> for Parent {
    async fn load(&self, _: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
        // Every key of this test has a row.
        Ok(Loaded::value(Bytes::new()))
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.add = true;
        abilities.batch_limit = 100;
        abilities.marks = true;
        abilities
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mark = mark.expect("it keeps marks");
        match &*self.ask("write", mark, writes).await? {
            "done" => {
                let done = Written::Done { changed: true, now: None, version: None };
                Ok(vec![done; writes.len()])
            }
            _ => Err(Error::new(ErrorKind::Conflict, "another owner has the lane").into()),
        }
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        let journal: Arc<str> = Arc::from(journal);
        let asked = LaneMark { journal, lane, epoch: 0, applied: JournalOffset::START };
        let answer = self.ask("applied", &asked, &[]).await?;
        let parts = answer.split_once(' ').map(|(epoch, applied)| (epoch.parse(), applied.parse()));
        let Some((Ok(epoch), Ok(applied))) = parts else { return Ok(None) };
        Ok(Some(LaneMark { epoch, applied: JournalOffset(applied), ..asked }))
    }
}

/// Writes as one word: their records in hexadecimal.
fn encode(writes: &[Write<Key, Bytes>]) -> String {
    let mut word = String::from("-");
    for write in writes {
        let (cache, version, age) = (CACHE.into(), Version::ZERO, Duration::ZERO);
        let record = JournalRecord { cache, write: write.clone(), version, age };
        let mut bytes = Vec::new();
        record.encode(&mut bytes).expect("it is short");
        bytes.iter().for_each(|byte| word.push_str(&format!("{byte:02x}")));
        word.push('-');
    }
    word.push('.');
    word
}

/// `None` if the end is missing.
fn decode(word: &str) -> Option<Vec<Write<Key, Bytes>>> {
    let records = word.strip_prefix('-')?.strip_suffix('.')?;
    let records = records.split('-').filter(|record| !record.is_empty());
    let read = |record: &str| {
        let byte = |at| u8::from_str_radix(record.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..record.len()).step_by(2).map(byte).collect();
        JournalRecord::decode(&Bytes::from(bytes?)).ok().map(|record| record.write)
    };
    records.map(read).collect()
}

/// One line, in one step: the parent reads what was written before the kill.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}
