//! The machine stops, or the disk fails, at any call. What was acknowledged is
//! there, in the order of its lane; what was refused is not; nothing is invented.

use std::time::Duration;

use fastrand::Rng;
use larder_core::{Journal, JournalOffset};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::block_on;

use crate::model::{Done, LANES, Model, Step, record, take};
use crate::simulated::{Fault, SimulatedDisk};
use crate::support::is_full;

fn options() -> JournalOptions {
    let mut options = JournalOptions::new("unused");
    options.lanes = LANES;
    options.segment_bytes = 4096;
    options.recovery_pause = Duration::ZERO;
    options
}

/// A journal on a simulated disk, and what it must hold.
struct Trial {
    disk: SimulatedDisk,
    journal: DiskJournal,
    epochs: Vec<u64>,
    model: Model,
    /// A step that may or may not have happened, if no later one did.
    doubtful: Option<Step>,
    /// The highest offset that was ever acknowledged, by lane.
    highest: [u64; LANES as usize],
    next_value: u64,
    random: Rng,
    tally: Tally,
}

#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    acknowledged: u64,
    refused: u64,
    doubtful: u64,
    recoveries: u64,
    torn: u64,
}

impl Trial {
    async fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed);
        let journal = DiskJournal::open_on(disk.clone(), options()).expect("it opens");
        let mut trial = Self {
            disk,
            journal,
            epochs: vec![0; usize::from(LANES)],
            model: Model::default(),
            doubtful: None,
            highest: [0; LANES as usize],
            next_value: 1,
            random: Rng::with_seed(seed),
            tally: Tally::default(),
        };
        trial.claim().await;
        trial
    }

    async fn claim(&mut self) {
        for lane in 0..LANES {
            let claim = self.journal.claim(lane).await.expect("it can be owned");
            let before = std::mem::replace(&mut self.epochs[usize::from(lane)], claim.epoch);
            assert!(claim.epoch > before, "epochs grow: {} after {before}", claim.epoch);
        }
    }

    /// Takes steps until there were this many, or the machine stops.
    async fn take_steps(&mut self, count: usize) {
        for _ in 0..count {
            let step = self.model.any_step(&mut self.next_value, &mut self.random);
            match take(&self.journal, &self.epochs, &step).await {
                Done::Yes(last) => {
                    self.doubtful = None;
                    self.model.note(&step, last);
                    self.tally.acknowledged += 1;
                    if let Step::Append { lane, .. } | Step::Replay { lane, .. } = step {
                        let highest = &mut self.highest[usize::from(lane)];
                        assert!(last > *highest, "offset {last} was given before");
                        *highest = last;
                    }
                }
                Done::No => self.tally.refused += 1,
                Done::Perhaps => {
                    assert!(self.doubtful.is_none(), "it stops after a failed sync");
                    self.doubtful = Some(step);
                    self.tally.doubtful += 1;
                }
            }
            if self.disk.is_down() {
                return;
            }
            if self.doubtful.is_none() {
                // What a running process reads needs no disk.
                assert_eq!(Model::of(&self.journal).await, self.model);
            }
        }
    }

    /// Stops the process and starts on what the disk has, as often as another
    /// crash comes while it opens.
    async fn restart(&mut self, crash_while_opening: bool) {
        let recoveries = self.journal.statistics().recoveries;
        self.tally.recoveries += recoveries;
        self.journal.close().await;
        let mut crash_at = crash_while_opening.then(|| self.random.u64(1..12));
        loop {
            self.disk = self.disk.restart();
            if let Some(call) = crash_at.take() {
                self.disk.fail_at(call, Fault::Crash);
            }
            let opened = DiskJournal::open_on(self.disk.clone(), options());
            if self.disk.is_down() {
                if let Ok(journal) = opened {
                    journal.close().await;
                }
                continue;
            }
            // It was open before the crash could come.
            self.disk.heal();
            self.journal = opened.unwrap_or_else(|error| panic!("it does not open: {error}"));
            break;
        }
        self.check().await;
    }

    async fn check(&mut self) {
        self.tally.torn += u64::from(self.journal.statistics().torn_bytes > 0);
        let found = Model::of(&self.journal).await;
        assert!(
            found.is_with_or_without(&self.model, self.doubtful.as_ref()),
            "found {found:?}\nafter {:?}\nperhaps with {:?}",
            self.model,
            self.doubtful
        );
        self.model = found;
        self.doubtful = None;
        self.claim().await;
        // No place is given a second time, whatever was trimmed.
        for lane in 0..LANES {
            let value = self.next_value;
            self.next_value += 1;
            let offset = self.journal.append(lane, &[record(value)]).await.expect("it writes");
            let highest = &mut self.highest[usize::from(lane)];
            assert!(offset.0 > *highest, "offset {} after {highest}", offset.0);
            *highest = offset.0;
            self.model.note(&Step::Append { lane, first: value, count: 1 }, offset.0);
        }
    }
}

/// Counts together what many trials did.
fn add(sum: &mut Tally, tally: Tally) {
    sum.acknowledged += tally.acknowledged;
    sum.refused += tally.refused;
    sum.doubtful += tally.doubtful;
    sum.recoveries += tally.recoveries;
    sum.torn += tally.torn;
}

#[test]
fn a_crash_at_any_call_loses_nothing_that_was_acknowledged() {
    let (seeds, step) = if is_full() { (8, 1) } else { (1, 2) };
    let (mut sum, mut points) = (Tally::default(), 0);
    for seed in 0..seeds {
        // How many calls there are until the steps are taken.
        let calls = block_on(async {
            let mut trial = Trial::new(seed).await;
            let before = trial.disk.calls();
            trial.take_steps(80).await;
            trial.disk.calls() - before
        });
        for call in (1..=calls).step_by(step) {
            points += 1;
            add(
                &mut sum,
                block_on(async {
                    let mut trial = Trial::new(seed).await;
                    trial.disk.fail_at(call, Fault::Crash);
                    trial.take_steps(80).await;
                    trial.restart(call % 3 == 0).await;
                    // And once more on what that left.
                    let call = trial.random.u64(1..60);
                    trial.disk.fail_at(call, Fault::Crash);
                    trial.take_steps(30).await;
                    trial.restart(false).await;
                    trial.tally
                }),
            );
        }
    }
    eprintln!("{points} crash points, then as many at random: {sum:?}; lost 0, invented 0");
    assert!(points >= if is_full() { 500 } else { 100 }, "{points}");
    assert!(sum.torn > 0 && sum.doubtful > 0 && sum.acknowledged > points as u64 * 20, "{sum:?}");
}

#[test]
fn a_disk_that_fails_or_is_full_at_any_call_loses_nothing_that_was_acknowledged() {
    let (seeds, step) = if is_full() { (8, 1) } else { (1, 3) };
    let (mut sum, mut points) = (Tally::default(), 0);
    for seed in 100..100 + seeds {
        for call in (1..=150).step_by(step) {
            for fault in [Fault::Io, Fault::Full] {
                points += 1;
                add(
                    &mut sum,
                    block_on(async {
                        let mut trial = Trial::new(seed).await;
                        trial.disk.fail_at(call, fault);
                        if call % 2 == 0 {
                            // What comes right behind fails as well: the recovery.
                            trial.disk.fail_at(call + 1, fault);
                            trial.disk.fail_at(call + 2, fault);
                            trial.disk.fail_at(call + 5, Fault::Io);
                        }
                        trial.take_steps(60).await;
                        trial.disk.heal();
                        let doubtful = trial.doubtful.take();
                        trial.take_steps(5).await;
                        assert!(!trial.disk.is_down() && trial.doubtful.is_none(), "{doubtful:?}");
                        assert_eq!(
                            Model::of(&trial.journal).await,
                            trial.model,
                            "it has recovered"
                        );
                        trial.restart(call % 5 == 0).await;
                        trial.tally
                    }),
                );
            }
        }
    }
    eprintln!("{points} points of failure: {sum:?}; lost 0, invented 0");
    assert!(sum.recoveries > 0 && sum.refused > 0, "{sum:?}");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    block_on(async {
        let mut trial = Trial::new(7).await;
        trial.take_steps(20).await;
        for call in 1..2000 {
            trial.disk.fail_at(call, Fault::Full);
        }
        let refused = trial.journal.append(0, &[record(9999)]).await;
        let refused = refused.expect_err("there is no room");
        assert!(refused.to_string().contains("nothing is accepted"), "{refused}");
        assert_eq!(Model::of(&trial.journal).await, trial.model, "all can be read");
        trial.disk.heal();
        trial.take_steps(20).await;
        trial.restart(false).await;
    });
}

#[test]
fn a_failed_sync_is_not_tried_again_and_what_it_lost_is_written_anew() {
    block_on(async {
        let mut trial = Trial::new(3).await;
        trial.take_steps(20).await;
        // One that fails while a segment begins needs no recovery.
        while trial.journal.statistics().recoveries == 0 {
            trial.take_steps(1).await;
            trial.disk.fail_next_sync();
            let refused = trial.journal.append(0, &[record(9999)]).await.expect_err("it failed");
            assert_eq!(refused.kind(), larder_core::ErrorKind::Unavailable, "{refused}");
        }
        let offset = trial.journal.append(0, &[record(10_000)]).await.expect("it goes on");
        trial.model.note(&Step::Append { lane: 0, first: 10_000, count: 1 }, offset.0);
        trial.highest[0] = offset.0;
        trial.next_value = 20_000;
        let entries = trial.journal.read(0, JournalOffset::START, 1000).await.expect("a read");
        assert!(entries.iter().all(|entry| entry.record.version.get() != 9999));
        trial.restart(false).await;
    });
}
