//! A journal in a real directory.

use std::time::Duration;

use larder_core::{
    Clock, Death, DeathCause, ErrorKind, Journal, JournalOffset, ManualClock, Survives,
};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::block_on;
use tempfile::TempDir;

use crate::model::{record, value_of};

fn options(directory: &TempDir) -> JournalOptions {
    let mut options = JournalOptions::new(directory.path());
    options.lanes = 2;
    options
}

async fn open(options: JournalOptions) -> DiskJournal {
    DiskJournal::open(options).await.expect("it opens")
}

async fn values(journal: &DiskJournal, lane: u16) -> Vec<u64> {
    let entries = journal.read(lane, JournalOffset::START, usize::MAX).await.expect("a read");
    entries.iter().map(|entry| value_of(&entry.record)).collect()
}

#[test]
fn appends_that_come_together_share_a_sync_and_each_lane_is_in_order() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let journal = open(options(&directory)).await;
        let writers = (0..64_u64).map(|writer| {
            let journal = journal.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let value = writer * 1000 + round;
                    let lane = u16::try_from(writer % 2).expect("it is small");
                    journal.append(lane, &[record(value)]).await.expect("it is accepted");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("it writes");
        }
        let commits = journal.statistics().commits;
        eprintln!("1280 appends in {commits} syncs");
        assert!(commits <= 640, "{commits}");
        for lane in 0..2 {
            let values = values(&journal, lane).await;
            assert_eq!(values.len(), 640);
            for writer in 0..64 {
                let own = values.iter().filter(|value| **value / 1000 == writer);
                assert!(own.is_sorted(), "lane {lane}, writer {writer}");
            }
        }
    });
}

/// A sync of a file that became longer takes longer, so it becomes so in larger steps.
#[test]
fn a_file_is_longer_than_what_is_written_and_the_rest_of_it_is_not_torn() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let lengths = || -> Vec<u64> {
            let files = std::fs::read_dir(directory.path()).expect("it is there");
            let files = files.map(|file| file.expect("it is there").path());
            let logs = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
            let mut lengths: Vec<u64> =
                logs.map(|path| path.metadata().expect("it is there").len()).collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths
        };
        let journal = open(options(&directory)).await;
        let mut seen = Vec::new();
        for value in 0..100 {
            journal.append(0, &[record(value)]).await.expect("it is accepted");
            seen.push(lengths());
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "it grew once for all of them: {seen:?}");
        let segment_bytes = options(&directory).segment_bytes;
        assert!(seen[0].iter().all(|length| *length <= segment_bytes), "{seen:?}");
        let before = values(&journal, 0).await;
        journal.close().await;
        let journal = open(options(&directory)).await;
        assert_eq!(journal.statistics().torn_bytes, 0);
        assert!(journal.damages().is_empty());
        assert_eq!(values(&journal, 0).await, before);
    });
}

#[test]
fn a_directory_is_one_process_alone_and_is_given_back() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let journal = open(options(&directory)).await;
        let second = DiskJournal::open(options(&directory)).await.expect_err("it is taken");
        assert_eq!(second.kind(), ErrorKind::Config);
        assert!(second.to_string().contains("another process"), "{second}");
        journal.close().await;
        let refused = journal.append(0, &[record(1)]).await.expect_err("it is closed");
        assert_eq!(refused.kind(), ErrorKind::ShuttingDown);
        open(options(&directory)).await.close().await;
    });
}

#[test]
fn it_is_another_journal_when_it_begins_anew_and_the_same_after_a_restart() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let journal = open(options(&directory)).await;
        let profile = journal.profile();
        assert_eq!(profile.survives, Survives::PowerLoss);
        let first = journal.claim(1).await.expect("a claim");
        let second = journal.claim(1).await.expect("another");
        assert!(second.epoch > first.epoch);
        journal.close().await;
        let journal = open(options(&directory)).await;
        assert_eq!(journal.profile(), profile);
        assert!(journal.claim(1).await.expect("a claim").epoch > second.epoch);
        let other = TempDir::new().expect("a directory");
        assert_ne!(open(options(&other)).await.profile().name, profile.name);
    });
}

#[test]
fn lanes_can_be_changed_only_while_nothing_waits() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let journal = open(options(&directory)).await;
        let last = journal.append(1, &[record(1)]).await.expect("accepted");
        journal.close().await;
        let more = || {
            let mut more = options(&directory);
            more.lanes = 5;
            more
        };
        let refused = DiskJournal::open(more()).await.expect_err("a record waits");
        assert!(refused.to_string().contains("lanes before: 2"), "{refused}");
        let journal = open(options(&directory)).await;
        let claim = journal.claim(1).await.expect("a claim");
        journal.trim(1, claim.epoch, last).await.expect("it is trimmed");
        journal.close().await;
        let journal = open(more()).await;
        journal.append(4, &[record(2)]).await.expect("accepted");
        // Offsets go on: an origin may remember them.
        assert_eq!(journal.append(1, &[record(3)]).await.expect("accepted"), JournalOffset(2));
    });
}

#[test]
fn it_is_bounded_and_takes_more_when_there_is_room() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let mut options = options(&directory);
        options.bytes_max = 64 << 10;
        options.record_bytes_max = 2048;
        let journal = open(options.clone()).await;
        let mut last = JournalOffset::START;
        let full = loop {
            match journal.append(0, &[record(last.0)]).await {
                Ok(offset) => last = offset,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::Overloaded);
        assert!(full.remedy_text().is_some_and(|remedy| remedy.contains("bytes_max")), "{full}");
        assert!(journal.usage().bytes <= options.bytes_max && last.0 > 50);
        let claim = journal.claim(0).await.expect("a claim");
        // What is full of dead letters says so, and burying needs no room.
        let deaths: Vec<Death> = (1..=last.0)
            .map(|offset| Death::new(JournalOffset(offset), DeathCause::Refused, "poison"))
            .collect();
        journal.bury(0, claim.epoch, &deaths).await.expect("there is room for that");
        let full = journal.append(0, &[record(1)]).await.expect_err("it is full of letters");
        assert!(full.to_string().contains("drop dead letters"), "{full}");
        journal.replay(0, JournalOffset(1), None).await.expect("it takes no more").expect("there");
        let offsets: Vec<_> = deaths.iter().map(|death| death.offset).collect();
        let dropped = journal.drop_letters(0, &offsets).await.expect("dropped");
        assert_eq!(dropped as u64, last.0 - 1);
        journal.append(0, &[record(2)]).await.expect("there is room");
        let mut large = record(3);
        large.write = larder_core::Write::new(
            larder_core::Key::new("k"),
            larder_core::Action::Put(vec![0; 4096].into()),
        );
        let refused = journal.append(0, &[large]).await.expect_err("it is too large");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_lane_that_stands_still_does_not_keep_the_files_of_the_others() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let mut options = options(&directory);
        options.segment_bytes = 16 << 10;
        let journal = open(options.clone()).await;
        for value in 0..5 {
            journal.append(1, &[record(value)]).await.expect("accepted");
        }
        let claim = journal.claim(0).await.expect("a claim");
        for value in 0..1000 {
            let offset = journal.append(0, &[record(value)]).await.expect("accepted");
            journal.trim(0, claim.epoch, offset).await.expect("trimmed");
            let usage = journal.usage();
            let bound = 3 * usage.bytes + 4 * options.segment_bytes;
            assert!(usage.stored_bytes <= bound, "{usage:?}");
        }
        assert_eq!(values(&journal, 1).await, [0, 1, 2, 3, 4]);
        journal.close().await;
        let on_disk: u64 = std::fs::read_dir(directory.path())
            .expect("a directory")
            .map(|file| file.expect("a file").metadata().expect("its length").len())
            .sum();
        assert!(on_disk < 8 * options.segment_bytes, "{on_disk}");
        let journal = open(options).await;
        assert_eq!(values(&journal, 1).await, [0, 1, 2, 3, 4]);
        assert!(values(&journal, 0).await.is_empty());
    });
}

#[test]
fn the_age_of_a_record_goes_on() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let clock = ManualClock::new();
        let with_clock = || {
            let mut options = options(&directory);
            options.clock = Clock::from(clock.clone());
            options
        };
        let journal = open(with_clock()).await;
        journal.append(0, &[record(1)]).await.expect("accepted");
        clock.advance(Duration::from_secs(60));
        let age = |entries: Vec<larder_core::JournalEntry>| entries[0].record.age;
        let entries = journal.read(0, JournalOffset::START, 1).await.expect("a read");
        assert_eq!(age(entries), Duration::from_secs(60));
        // Something is written at that time, so that the file knows of it.
        journal.close().await;
        let journal = open(with_clock()).await;
        clock.advance(Duration::from_secs(10));
        let entries = journal.read(0, JournalOffset::START, 1).await.expect("a read");
        let age = age(entries);
        assert!(age >= Duration::from_secs(10), "{age:?}");
    });
}
