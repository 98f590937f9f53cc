//! The process is killed while it writes. What was acknowledged is there, in the
//! order of its lane, what was on its way is there or not, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use larder_core::{Journal, JournalOffset};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::block_on;
use tempfile::TempDir;

use crate::model::{record, value_of};
use crate::support::is_full;

const CHILD_DIRECTORY: &str = "LARDER_JOURNAL_TEST_DIRECTORY";
const LANES: u16 = 4;

fn options(directory: &Path) -> JournalOptions {
    let mut options = JournalOptions::new(directory);
    options.lanes = LANES;
    options.segment_bytes = 64 << 10;
    options
}

/// What the child said of one lane.
#[derive(Default)]
struct LaneLedger {
    /// Acknowledged and not trimmed, by offset.
    acknowledged: BTreeMap<u64, u64>,
    on_their_way: BTreeSet<u64>,
    /// A trim that was asked for reaches this far.
    trimming: u64,
    highest: u64,
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let rounds = if is_full() { 200 } else { 15 };
    let directory = TempDir::new().expect("a directory");
    let mut lanes: Vec<LaneLedger> = (0..LANES).map(|_| LaneLedger::default()).collect();
    let mut random = fastrand::Rng::with_seed(3);
    let mut acknowledged = 0;
    for round in 0..rounds {
        acknowledged += run_and_kill(directory.path(), round, &mut lanes, &mut random);
        block_on(check(directory.path(), round, &mut lanes));
    }
    eprintln!("{rounds} kills, {acknowledged} acknowledged, lost 0, twice 0, out of order 0");
    assert!(acknowledged > rounds * 10, "the child hardly got to work");
}

fn run_and_kill(
    directory: &Path,
    round: u64,
    lanes: &mut [LaneLedger],
    random: &mut fastrand::Rng,
) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("the test has a program"))
        .args(["--exact", "kill::the_child_that_writes", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env("LARDER_JOURNAL_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test can start itself");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let lives_for = Duration::from_millis(random.u64(1..150));
    let mut killer = None;
    let mut acknowledged = 0;
    for line in lines {
        let Ok(line) = line else { break };
        if line == "ready" {
            let id = i32::try_from(child.id()).expect("process ids are small");
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(lives_for);
                let id = rustix::process::Pid::from_raw(id).expect("a process id");
                // Nobody has waited for it yet, so the id is still its own.
                rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("it runs");
            }));
        }
        acknowledged += u64::from(note(&line, lanes));
    }
    killer.expect("the child got ready").join().expect("it is killed");
    assert!(!child.wait().expect("a child ends").success(), "it was killed");
    acknowledged
}

/// Notes a line: `B` begins, `A` acknowledges, `T` trims. Returns whether it
/// acknowledges.
fn note(line: &str, lanes: &mut [LaneLedger]) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let [what, lane, value, offset] = words[..] else { return false };
    let (Ok(lane), Ok(value), Ok(offset)) =
        (lane.parse::<usize>(), value.parse(), offset.parse::<u64>())
    else {
        return false;
    };
    let lane = &mut lanes[lane];
    match what {
        "B" => drop(lane.on_their_way.insert(value)),
        "A" => {
            lane.on_their_way.remove(&value);
            lane.acknowledged.insert(offset, value);
            assert!(offset > lane.highest || lane.acknowledged.len() > 1);
            lane.highest = lane.highest.max(offset);
            return true;
        }
        "T" => lane.trimming = lane.trimming.max(offset),
        _ => {}
    }
    false
}

async fn check(directory: &Path, round: u64, lanes: &mut [LaneLedger]) {
    let journal = DiskJournal::open(options(directory)).await.expect("it opens");
    for (number, lane) in (0..LANES).zip(lanes) {
        let entries = journal.read(number, JournalOffset::START, usize::MAX).await;
        let entries = entries.expect("a read");
        let found: BTreeMap<u64, u64> =
            entries.iter().map(|entry| (entry.offset.0, value_of(&entry.record))).collect();
        assert_eq!(found.len(), entries.len());
        for (offset, value) in &lane.acknowledged {
            let held = found.get(offset);
            let may_be_gone = *offset <= lane.trimming;
            assert!(
                held == Some(value) || (may_be_gone && held.is_none()),
                "round {round}, lane {number}: {offset} has {held:?} and not {value}"
            );
        }
        for (offset, value) in &found {
            let known = lane.acknowledged.get(offset) == Some(value);
            let known = known || lane.on_their_way.contains(value);
            assert!(known, "round {round}, lane {number}: {value} is invented");
        }
        let values: BTreeSet<&u64> = found.values().collect();
        assert_eq!(values.len(), found.len(), "round {round}: a value twice");
        lane.highest = lane.highest.max(found.keys().last().copied().unwrap_or(0));
        lane.acknowledged = found;
        lane.on_their_way.clear();
        lane.trimming = 0;
    }
    journal.close().await;
}

/// Does nothing unless a test above starts it as a process of its own.
#[test]
fn the_child_that_writes() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let round: u64 = std::env::var("LARDER_JOURNAL_TEST_ROUND")
        .ok()
        .and_then(|round| round.parse().ok())
        .expect("the parent says which round");
    block_on(async {
        let journal = DiskJournal::open(options(Path::new(&directory))).await.expect("it opens");
        say("ready");
        let writers = (0..8_u64).map(|writer| {
            let journal = journal.clone();
            tokio::spawn(write_for_ever(journal, writer, (round * 8 + writer) * 1_000_000 + 1))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("it writes until it is killed");
        }
    });
}

async fn write_for_ever(journal: DiskJournal, writer: u64, first: u64) {
    let lane = u16::try_from(writer).expect("few") % LANES;
    // One of the writers of a lane trims it.
    let epoch = journal.claim(lane).await.expect("a claim").epoch;
    for value in first.. {
        say(&format!("B {lane} {value} 0"));
        let offset = journal.append(lane, &[record(value)]).await.expect("accepted").0;
        say(&format!("A {lane} {value} {offset}"));
        if value % 16 == 0 && offset > 100 {
            say(&format!("T {lane} 0 {}", offset - 100));
            // The other writer may have claimed the lane since.
            let _ = journal.trim(lane, epoch, JournalOffset(offset - 100)).await;
        }
    }
}

/// One line, in one step: the parent reads what was written before the kill.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}
