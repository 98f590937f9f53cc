//! The machine stops, or the disk fails, at any call. Each record is in the files
//! once, in its order; what was acknowledged is there.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use larder_audit::{AuditFiles, FileOptions};
use larder_core::{Action, ErrorKind, JournalOffset, Key, LaneMark, Origin, Write};
use larder_journal::files::Files;
use larder_testkit::conformance::block_on;

use crate::simulated::{Fault, SimulatedDisk};
use crate::support::{STREAM, is_full, records_of, wall};

const RECORDS: u64 = 90;

fn options() -> FileOptions {
    let mut options = FileOptions::new("unused");
    // A few batches a file.
    options.file_bytes_max = 1500;
    options.files_max = usize::MAX;
    options.machine_clock = wall(|| Duration::from_secs(1_800_000_000));
    options
}

#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    points: u64,
    crashes: u64,
    failures: u64,
    /// Batches that were there although nobody had been told.
    unanswered: u64,
    torn: u64,
    files: u64,
}

/// Somebody who applies a lane, as write-behind does, on a disk that fails.
struct Trial {
    disk: SimulatedDisk,
    files: AuditFiles<SimulatedDisk>,
    epoch: u64,
    /// What the files have answered for.
    acknowledged: u64,
    random: Rng,
    tally: Tally,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed);
        let files = AuditFiles::open_on(disk.clone(), options()).expect("it opens");
        let random = Rng::with_seed(seed);
        Self { disk, files, epoch: 1, acknowledged: 0, random, tally: Tally::default() }
    }

    fn mark(&self, applied: u64) -> LaneMark {
        let journal = Arc::from("journal-1/payment");
        LaneMark { journal, lane: 0, epoch: self.epoch, applied: JournalOffset(applied) }
    }

    async fn write(&mut self, offsets: RangeInclusive<u64>) -> Result<(), ErrorKind> {
        let through = *offsets.end();
        let writes: Vec<Write<Key, Bytes>> = offsets.map(write).collect();
        let written = self.files.write_all(&writes, Some(&self.mark(through))).await;
        written.map(drop).map_err(|failed| {
            assert_eq!(failed.error.kind(), ErrorKind::Unavailable, "{failed}");
            assert!(failed.error.remedy_text().is_some());
            failed.error.kind()
        })
    }

    /// Applies everything, whatever comes between.
    async fn run(&mut self) {
        while self.acknowledged < RECORDS {
            let first = self.acknowledged + 1;
            let last = RECORDS.min(first + self.random.u64(0..6));
            match self.write(first..=last).await {
                Ok(()) => self.acknowledged = last,
                Err(_) if self.disk.is_down() => self.restart().await,
                Err(_) => self.tally.failures += 1,
            }
        }
    }

    /// Starts again on what the disk has, and asks it how far it is.
    async fn restart(&mut self) {
        self.tally.crashes += 1;
        let mut crash_at = self.random.bool().then(|| self.random.u64(1..10));
        let mark = loop {
            self.disk = self.disk.restart();
            if let Some(call) = crash_at.take() {
                self.disk.fail_at(call, Fault::Crash);
            }
            let opened = AuditFiles::open_on(self.disk.clone(), options());
            if self.disk.is_down() {
                continue;
            }
            self.files = opened.unwrap_or_else(|error| panic!("it does not open: {error}"));
            self.disk.heal();
            self.epoch += 1;
            let asked = self.files.applied("journal-1/payment", 0).await.expect("it answers");
            let held = asked.map_or(0, |mark| mark.applied.0);
            let epoch = self.mark(held);
            self.files.write_all(&[], Some(&epoch)).await.expect("it takes the epoch");
            break held;
        };
        self.tally.torn += u64::from(self.files.statistics().torn_bytes > 0);
        assert!(mark >= self.acknowledged, "{} was acknowledged: {mark}", self.acknowledged);
        self.tally.unanswered += u64::from(mark > self.acknowledged);
        self.acknowledged = mark;
    }

    /// What is in the newest file.
    fn newest(&self) -> Vec<u8> {
        let mut names = self.disk.names().expect("a list");
        names.retain(|name| name.ends_with(".jsonl"));
        self.disk.read(names.iter().max().expect("a file")).expect("it can be read")
    }

    /// Everything is there, also after one more crash.
    fn check(&mut self) {
        // A failure that nobody has met yet.
        self.disk.heal();
        for disk in [self.disk.clone(), self.disk.restart()] {
            let mut names = disk.names().expect("a list");
            // One that was never finished may be left until the next start.
            names.retain(|name| name.ends_with(".jsonl"));
            names.sort();
            let read = |name: &String| disk.read(name).expect("it can be read");
            let found: Vec<_> =
                names.iter().map(read).flat_map(|bytes| records_of(&bytes)).collect();
            let expected: Vec<_> = (1..=RECORDS).map(key).collect();
            let keys: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
            assert_eq!(keys, expected);
            let values = found.iter().map(|(_, record)| record["n"].as_u64());
            assert!(values.eq((1..=RECORDS).map(Some)));
            self.tally.files = names.len() as u64;
        }
        self.tally.points = 1;
    }
}

fn key(offset: u64) -> String {
    format!("{STREAM}:{offset}")
}

fn write(offset: u64) -> Write<Key, Bytes> {
    let filler = "x".repeat((offset * 7919 % 200) as usize);
    let record = format!("{{\"n\":{offset},\"filler\":\"{filler}\"}}");
    Write::new(Key::new(key(offset)), Action::Put(record.into()))
}

fn add(sum: &mut Tally, tally: Tally) {
    sum.points += tally.points;
    sum.crashes += tally.crashes;
    sum.failures += tally.failures;
    sum.unanswered += tally.unanswered;
    sum.torn += tally.torn;
    sum.files += tally.files;
}

/// How many calls of the disk a run makes.
fn calls(seed: u64) -> u64 {
    let mut trial = Trial::new(seed);
    let before = trial.disk.calls();
    block_on(trial.run());
    trial.disk.calls() - before
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_repeats_nothing() {
    let seeds = if is_full() { 20 } else { 1 };
    let mut sum = Tally::default();
    for seed in 0..seeds {
        for call in 1..=calls(seed) {
            let mut trial = Trial::new(seed);
            trial.disk.fail_at(call, Fault::Crash);
            block_on(trial.run());
            trial.check();
            add(&mut sum, trial.tally);
        }
    }
    eprintln!("{sum:?}; lost 0, twice 0, out of order 0");
    assert!(sum.points >= if is_full() { 2000 } else { 100 }, "{sum:?}");
    assert!(sum.torn > 0 && sum.unanswered > 0 && sum.files > sum.points * 4, "{sum:?}");
}

#[test]
fn a_disk_that_fails_or_is_full_at_any_call_makes_records_wait_and_loses_nothing() {
    let seeds = if is_full() { 10 } else { 1 };
    let mut sum = Tally::default();
    for seed in 100..100 + seeds {
        for call in 1..=calls(seed) {
            for (fault, then) in [(Fault::Io, None), (Fault::Full, None), (Fault::Io, Some(call))] {
                let mut trial = Trial::new(seed);
                trial.disk.fail_at(call, fault);
                trial.disk.fail_at(call + 1 + call % 3, fault);
                if let Some(call) = then {
                    // And the machine stops before or after it was put right.
                    trial.disk.fail_at(call + 2 + call % 5, Fault::Crash);
                }
                block_on(trial.run());
                trial.check();
                add(&mut sum, trial.tally);
            }
        }
    }
    eprintln!("{sum:?}; lost 0, twice 0, out of order 0");
    assert!(sum.failures > sum.points && sum.crashes > 0, "{sum:?}");
}

#[test]
fn a_full_disk_says_what_to_do_and_goes_on_when_there_is_room() {
    let mut trial = Trial::new(5);
    block_on(async {
        trial.write(1..=5).await.expect("there is room");
        for call in 1..200 {
            trial.disk.fail_at(call, Fault::Full);
        }
        for _ in 0..10 {
            let refused = trial.files.write_all(&[write(6)], Some(&trial.mark(6))).await;
            let refused = refused.expect_err("there is no room").error;
            assert!(refused.is_retryable(), "{refused:?}");
            assert!(refused.to_string().contains("make room on the disk"), "{refused}");
        }
        trial.disk.heal();
        trial.acknowledged = 5;
        trial.run().await;
    });
    trial.check();
}

#[test]
fn an_earlier_owner_is_refused_and_a_batch_that_is_there_is_not_repeated() {
    let mut trial = Trial::new(6);
    block_on(async {
        trial.write(1..=5).await.expect("written");
        trial.write(1..=5).await.expect("it is there");
        trial.epoch = 3;
        trial.write(1..=5).await.expect("it is there, and the epoch is kept");
        trial.epoch = 2;
        let refused = trial.files.write_all(&[write(6)], Some(&trial.mark(6))).await;
        assert_eq!(refused.expect_err("refused").error.kind(), ErrorKind::Conflict);
        let other = LaneMark { journal: Arc::from("journal-2/payment"), ..trial.mark(0) };
        trial.files.write_all(&[], Some(&other)).await.expect("another journal has its own");
        trial.files = AuditFiles::open_on(trial.disk.clone(), options()).expect("it opens");
        let mark = trial.files.applied("journal-1/payment", 0).await.expect("it answers");
        assert_eq!(mark.map(|mark| (mark.epoch, mark.applied.0)), Some((3, 5)));
        trial.epoch = 3;
        trial.acknowledged = 5;
        trial.run().await;
    });
    trial.check();
}

#[test]
fn a_batch_whose_sync_failed_is_cut_off_and_comes_once() {
    for seed in 0..30 {
        let mut trial = Trial::new(seed);
        block_on(async {
            trial.write(1..=3).await.expect("written");
            for first in [4, 7] {
                trial.disk.fail_next_sync();
                trial.write(first..=first + 2).await.expect_err("the sync failed");
                // Asked before it is tried again, it has nothing of it.
                let asked = trial.files.applied("journal-1/payment", 0).await;
                let applied = asked.expect("it answers").map(|mark| mark.applied.0);
                assert_eq!(applied, Some(first - 1));
                // It comes in other batches: the rest of it would stand behind them.
                trial.write(first..=first).await.expect("written");
                let file = trial.newest();
                assert!(file.ends_with(b"\"}\n"), "what failed is still there");
                assert_eq!(records_of(&file).last().map(|(key, _)| key), Some(&key(first)));
                trial.write(first + 1..=first + 2).await.expect("written");
            }
            trial.acknowledged = 9;
            trial.run().await;
        });
        assert_eq!(trial.files.statistics().failures, 2);
        trial.check();
    }
}
