//! The process is killed while it writes. What was acknowledged is there, what
//! was on its way is there or not, and nothing else is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{
    Key, Mark, PutCondition, PutOutcome, Store, StoredEntry, Tag, Ttl, Value, Verb, Version,
};
use larder_disk::{DiskOptions, DiskStore, DiskTier, Durability};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{heard, key};

const CHILD_DIRECTORY: &str = "LARDER_DISK_TEST_DIRECTORY";
const CHILD_DURABILITY: &str = "LARDER_DISK_TEST_DURABILITY";
const WRITERS: u64 = 4;
const KEYS_OF_A_WRITER: u64 = 16;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    rounds(if is_full() { 200 } else { 20 }, "kill");
}

#[test]
fn what_waits_for_the_disk_survives_a_kill() {
    rounds(if is_full() { 50 } else { 5 }, "power");
}

/// `./test --full` asks for the long form.
fn is_full() -> bool {
    std::env::var_os("LARDER_FULL").is_some()
}

fn rounds(count: u32, durability: &str) {
    let directory = TempDir::new().expect("a temporary directory");
    let mut ledger = Ledger::default();
    let mut random = fastrand::Rng::with_seed(7);
    let mut acknowledged = 0;
    for round in 0..count {
        acknowledged += run_and_kill(directory.path(), durability, &mut ledger, &mut random);
        block_on(ledger.check(directory.path(), round));
    }
    eprintln!("{count} kills, {acknowledged} acknowledged changes, none undone, no value torn");
    assert!(acknowledged > u64::from(count) * 10, "the child hardly got to work");
}

/// Lets a child write for a random time. Returns how much it acknowledged.
fn run_and_kill(
    directory: &Path,
    durability: &str,
    ledger: &mut Ledger,
    random: &mut fastrand::Rng,
) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("the test has a program"))
        .args(["--exact", "kill::the_child_that_writes", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_DURABILITY, durability)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test can start itself");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let lives_for = Duration::from_millis(random.u64(1..250));
    let mut killer = None;
    let mut acknowledged = 0;
    for line in lines {
        let Ok(line) = line else { break };
        if line == "ready" {
            killer = Some(kill_after(&mut child, lives_for));
        }
        acknowledged += u64::from(ledger.note(&line));
    }
    killer.expect("the child got ready").join().expect("it is killed");
    let status = child.wait().expect("a child ends");
    assert!(!status.success(), "it was killed and did not end by itself");
    acknowledged
}

fn kill_after(child: &mut Child, after: Duration) -> std::thread::JoinHandle<()> {
    let id = i32::try_from(child.id()).expect("process ids are small");
    std::thread::spawn(move || {
        std::thread::sleep(after);
        let id = rustix::process::Pid::from_raw(id).expect("a process id");
        // Nobody has waited for it yet, so the id is still its own.
        rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("it runs");
    })
}

/// What a key holds, as the child says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Nothing,
    Put(u64),
    Removed(u64),
    /// The version of the entry, and that of the change.
    Expired(u64, u64),
}

/// What the child said.
#[derive(Default)]
struct Ledger {
    keys: HashMap<u64, Vec<State>>,
    /// By writer: watermarks and positions acknowledged, and on their way.
    marks: HashMap<u64, (u64, u64)>,
    highest: u64,
}

impl Ledger {
    /// Notes a line: `B` begins and `A` acknowledges, then what, where and which
    /// version. Returns whether it acknowledges.
    fn note(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let [when @ ("A" | "B"), what, place, version] = words[..] else { return false };
        let (Ok(place), Ok(version)) = (place.parse(), version.parse()) else { return false };
        let is_acknowledged = when == "A";
        if is_acknowledged {
            self.highest = self.highest.max(version);
        }
        if what == "mark" {
            let mark = self.marks.entry(place).or_default();
            mark.1 = version;
            if is_acknowledged {
                mark.0 = version;
            }
            return is_acknowledged;
        }
        let states = self.keys.entry(place).or_insert_with(|| vec![State::Nothing]);
        if is_acknowledged {
            let last = states.pop().expect("it began before");
            *states = vec![last];
        } else {
            let next = match (what, states.last()) {
                ("put", _) => State::Put(version),
                ("expire", Some(State::Put(held) | State::Expired(held, _))) => {
                    State::Expired(*held, version)
                }
                _ => State::Removed(version),
            };
            states.push(next);
        }
        is_acknowledged
    }

    /// Opens the directory and compares. What was on its way is known then.
    async fn check(&mut self, directory: &Path, round: u32) {
        let tier = DiskTier::open(options(directory)).await.expect("it opens");
        assert!(!tier.healed(), "round {round}: nothing was damaged");
        let store = tier.store("album").expect("a name");
        for (number, states) in &mut self.keys {
            let held = found(&store, *number, states).await;
            assert!(states.contains(&held), "round {round}, key {number}: {held:?} of {states:?}");
            let was_probed = held == State::Nothing && states.len() > 1;
            *states = vec![if was_probed { State::Put(0) } else { held }];
        }
        let highest = store.highest_version().get();
        assert!(highest >= self.highest, "round {round}: {highest} after {}", self.highest);
        let marks = store.marks().await.expect("the watermarks");
        let position =
            store.heard().await.expect("the position").map_or(0, |at| at.position.sequence);
        for (writer, (acknowledged, begun)) in &self.marks {
            let tag = Tag::new(&writer.to_string());
            let held = marks.iter().find(|mark| mark.tag.as_ref() == Some(&tag));
            let held = held.map_or(0, |mark| mark.version.get());
            assert!(
                (*acknowledged..=*begun).contains(&held),
                "round {round}, watermark {writer}: {held} of {acknowledged} to {begun}"
            );
        }
        // A position is noted after the watermark of the same number.
        let furthest = marks.iter().map(|mark| mark.version.get()).max().unwrap_or(0);
        assert!(position <= furthest, "round {round}: position {position} after {furthest}");
        tier.close().await;
    }
}

/// What the store holds, if the ledger says that it may; the floor is tried, too.
async fn found(store: &DiskStore, number: u64, states: &[State]) -> State {
    let held = store.get(&key(number)).await.expect("a read");
    let Some(held) = held else {
        if !states.iter().any(|state| matches!(state, State::Removed(_))) {
            return State::Nothing;
        }
        // The refusal names the floor. Without one, what is put is the state.
        let outcome = store.put_many(&[new_entry(number, 0)], PutCondition::NewerThanHeld).await;
        return match outcome.expect("a put")[..] {
            [PutOutcome::Refused(floor)] => State::Removed(floor.get()),
            _ => State::Nothing,
        };
    };
    let version = held.version.get();
    let expected = value(number, version);
    assert!(held.value == Value::Present(expected.into()), "key {number}: a torn value");
    if held.fresh_for != Ttl::For(Duration::ZERO) {
        return State::Put(version);
    }
    let expired = states.iter().rev().find(|state| matches!(state, State::Expired(..)));
    expired.copied().unwrap_or(State::Expired(version, 0))
}

fn new_entry(number: u64, version: u64) -> (Key, StoredEntry) {
    let mut entry = entry("", version);
    entry.value = Value::Present(value(number, version).into());
    entry.stale_for = Ttl::secs(24 * 3600);
    entry.fresh_for = entry.stale_for;
    (key(number), entry)
}

/// A value that says itself whose it is, of some length.
fn value(number: u64, version: u64) -> String {
    let length = (number * 7919 + version * 104_729) % 30_000;
    format!("{number}:{version}:").repeat(length as usize / 8 + 1)
}

fn options(directory: &Path) -> DiskOptions {
    let mut options = DiskOptions::new(directory);
    if std::env::var(CHILD_DURABILITY).is_ok_and(|durability| durability == "power") {
        options.durability = Durability::AllSurvivesPowerLoss;
    }
    options
}

/// Does nothing unless a test above starts it as a process of its own.
#[test]
fn the_child_that_writes() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    block_on(async {
        let tier = DiskTier::open(options(Path::new(&directory))).await.expect("it opens");
        let next = Arc::new(AtomicU64::new(tier.highest_version().get() + 1));
        say("ready");
        let writers = (0..WRITERS).map(|writer| {
            let store = tier.store("album").expect("a name");
            tokio::spawn(write_for_ever(store, writer, Arc::clone(&next)))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("it writes until it is killed");
        }
    });
}

async fn write_for_ever(store: DiskStore, writer: u64, next: Arc<AtomicU64>) {
    let mut random = fastrand::Rng::new();
    loop {
        let number = writer * KEYS_OF_A_WRITER + random.u64(..KEYS_OF_A_WRITER);
        let version = next.fetch_add(1, Ordering::Relaxed);
        let keys = [key(number)];
        let at = Version::new(version);
        match random.u8(..10) {
            0..5 => {
                say(&format!("B put {number} {version}"));
                let put = [new_entry(number, version)];
                let outcome = store.put_many(&put, PutCondition::NewerThanHeld).await;
                assert_eq!(outcome.expect("a put"), [PutOutcome::Stored]);
                say(&format!("A put {number} {version}"));
            }
            5..8 => {
                say(&format!("B remove {number} {version}"));
                store.invalidate_many(&keys, at, Verb::Remove).await.expect("a removal");
                say(&format!("A remove {number} {version}"));
            }
            8 => {
                say(&format!("B expire {number} {version}"));
                store.invalidate_many(&keys, at, Verb::Expire).await.expect("it expires");
                say(&format!("A expire {number} {version}"));
            }
            _ => {
                say(&format!("B mark {writer} {version}"));
                let tag = Some(Tag::new(&writer.to_string()));
                let mark = [Mark { tag, verb: Verb::Remove, version: at }];
                store.mark(&mark).await.expect("a watermark");
                store.note_heard(heard(version)).await.expect("a position");
                say(&format!("A mark {writer} {version}"));
            }
        }
    }
}

/// One line, in one step: the parent reads what was written before the kill.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}
