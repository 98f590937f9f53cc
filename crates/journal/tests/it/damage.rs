//! Files that changed while nobody wrote them.

use std::fs;
use std::path::{Path, PathBuf};

use larder_core::{ErrorKind, Journal, JournalOffset};
use larder_journal::{DiskJournal, JournalOptions, OnDamage};
use larder_testkit::conformance::block_on;
use tempfile::TempDir;

use crate::model::{record, value_of};
use crate::support::is_full;

const RECORDS: u64 = 60;

fn options(directory: &Path) -> JournalOptions {
    let mut options = JournalOptions::new(directory);
    options.lanes = 1;
    options.segment_bytes = 8192;
    options
}

/// A directory with some segments.
async fn written() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let journal = DiskJournal::open(options(directory.path())).await.expect("it opens");
    for value in 1..=RECORDS {
        journal.append(0, &[record(value)]).await.expect("accepted");
    }
    journal.close().await;
    directory
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("a directory").flatten().map(|file| file.path());
    let mut logs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    logs.sort();
    logs
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().expect("a directory");
    for file in segments(from) {
        fs::copy(&file, to.path().join(file.file_name().expect("a name"))).expect("a copy");
    }
    to
}

async fn values(journal: &DiskJournal) -> Vec<u64> {
    let entries = journal.read(0, JournalOffset::START, usize::MAX).await.expect("a read");
    entries.iter().map(|entry| value_of(&entry.record)).collect()
}

#[test]
fn a_flipped_bit_is_told_with_its_place_and_never_skipped_in_silence() {
    block_on(async {
        let original = written().await;
        let all: Vec<u64> = (1..=RECORDS).collect();
        let (mut tried, mut torn) = (0, 0);
        let mut random = fastrand::Rng::with_seed(1);
        let step = if is_full() { 211 } else { 797 };
        let logs = segments(original.path());
        assert!(logs.len() > 3, "{logs:?}");
        for file in &logs {
            let bytes = fs::read(file).expect("a file");
            for at in (0..bytes.len()).step_by(step) {
                tried += 1;
                let damaged = copy(original.path());
                let name = file.file_name().expect("a name");
                let mut changed = bytes.clone();
                changed[at] ^= 1 << random.u8(..8);
                fs::write(damaged.path().join(name), changed).expect("a write");
                match DiskJournal::open(options(damaged.path())).await {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
                        let said = error.to_string();
                        assert!(said.contains(&*name.to_string_lossy()), "byte {at}: {said}");
                    }
                    // In the last frame it is like a torn tail.
                    Ok(journal) => {
                        assert!(journal.statistics().torn_bytes > 0 && logs.last() == Some(file));
                        assert_eq!(values(&journal).await, all[..all.len() - 1]);
                        journal.close().await;
                        torn += 1;
                    }
                }
                check_readable(damaged.path(), &all).await;
            }
        }
        eprintln!(
            "{tried} flipped bits: {} told with their place, {torn} like a torn tail",
            tried - torn
        );
        assert!(tried > torn * 10);
    });
}

/// What can be read is, in order, and the journal is sound after that.
async fn check_readable(directory: &Path, all: &[u64]) {
    let keep = || {
        let mut options = options(directory);
        options.on_damage = OnDamage::KeepReadable;
        options
    };
    let journal = DiskJournal::open(keep()).await.expect("it opens");
    let left = values(&journal).await;
    assert!(left.is_sorted() && left.iter().all(|value| all.contains(value)));
    assert!(left.len() + 40 > all.len(), "{} of {}", left.len(), all.len());
    let next = journal.append(0, &[record(100)]).await.expect("it goes on");
    assert!(next.0 > left.last().copied().unwrap_or(0), "no offset twice");
    journal.close().await;
    let journal = DiskJournal::open(options(directory)).await.expect("it is sound now");
    assert!(journal.damages().is_empty());
    assert_eq!(values(&journal).await.last(), Some(&100));
    journal.close().await;
}

#[test]
fn a_tail_that_is_torn_at_any_byte_is_cut_off() {
    block_on(async {
        let original = written().await;
        let last = segments(original.path()).pop().expect("it has files");
        let bytes = fs::read(&last).expect("a file");
        let all: Vec<u64> = (1..=RECORDS).collect();
        let step = if is_full() { 11 } else { 37 };
        // The head of a segment is durable before it has its name.
        let mut lengths = std::collections::BTreeSet::new();
        for length in (400..bytes.len()).step_by(step) {
            let torn = copy(original.path());
            let name = last.file_name().expect("a name");
            fs::write(torn.path().join(name), &bytes[..length]).expect("a write");
            let journal = DiskJournal::open(options(torn.path())).await.expect("it opens");
            let left = values(&journal).await;
            assert_eq!(left, all[..left.len()], "a prefix");
            lengths.insert(left.len());
            journal.append(0, &[record(100)]).await.expect("it goes on");
            journal.close().await;
            let journal = DiskJournal::open(options(torn.path())).await.expect("it opens again");
            assert_eq!(values(&journal).await.len(), left.len() + 1);
            journal.close().await;
        }
        assert!(lengths.len() > 3, "{lengths:?}");
    });
}

#[test]
fn a_file_that_is_gone_is_noticed() {
    block_on(async {
        let original = written().await;
        let logs = segments(original.path());
        for gone in &logs[..logs.len() - 1] {
            let damaged = copy(original.path());
            fs::remove_file(damaged.path().join(gone.file_name().expect("a name")))
                .expect("removed");
            let error =
                DiskJournal::open(options(damaged.path())).await.expect_err("it is noticed");
            assert!(error.to_string().contains("are missing"), "{error}");
        }
    });
}
