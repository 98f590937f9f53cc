//! Which files there are.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_audit::{AuditFiles, FileOptions};
use larder_core::{Action, ErrorKind, JournalOffset, Key, LaneMark, Origin, Write};
use larder_testkit::conformance::block_on;
use tempfile::TempDir;

use crate::support::{names, records, wall};

/// Files whose wall clock shows what it is told.
struct World {
    directory: TempDir,
    seconds: Arc<AtomicU64>,
    options: FileOptions,
    files: AuditFiles,
    written: u64,
}

impl World {
    async fn new(change: impl FnOnce(&mut FileOptions)) -> Self {
        let directory = TempDir::new().expect("a directory");
        // Past the time below by 1 s.
        let seconds = Arc::new(AtomicU64::new(1_795_308_001));
        let told = Arc::clone(&seconds);
        let mut options = FileOptions::new(directory.path().join("audit"));
        options.machine_clock = wall(move || Duration::from_secs(told.load(Ordering::Relaxed)));
        change(&mut options);
        let files = AuditFiles::open(options.clone()).await.expect("it opens");
        Self { directory, seconds, options, files, written: 0 }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("audit")
    }

    async fn append(&mut self, count: u64) {
        let offsets = self.written + 1..=self.written + count;
        let put = |offset: u64| {
            let record = format!("{{\"n\":{offset},\"filler\":\"{}\"}}", "x".repeat(100));
            Write::new(Key::new(format!("a:{offset}")), Action::Put(record.into()))
        };
        let writes: Vec<_> = offsets.map(put).collect();
        self.written += count;
        let applied = JournalOffset(self.written);
        let mark = LaneMark { journal: "journal-1/a".into(), lane: 0, epoch: 1, applied };
        self.files.write_all(&writes, Some(&mark)).await.expect("written");
    }

    async fn reopen(&mut self) {
        // The directory is let go by the old ones.
        let nowhere = TempDir::new().expect("a directory");
        let none = AuditFiles::open(FileOptions::new(nowhere.path())).await.expect("it opens");
        drop(std::mem::replace(&mut self.files, none));
        self.files = AuditFiles::open(self.options.clone()).await.expect("it opens");
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    fn numbers(&self) -> Vec<u64> {
        let found = records(&self.path());
        found.iter().map(|(_, record)| record["n"].as_u64().expect("a number")).collect()
    }
}

#[test]
fn a_file_is_closed_when_it_is_full_and_its_name_says_when_it_was_begun() {
    block_on(async {
        let mut world = World::new(|options| options.file_bytes_max = 2000).await;
        assert!(names(&world.path()).is_empty(), "a file is begun with the first record");
        for _ in 0..6 {
            world.append(5).await;
            world.pass(Duration::from_secs(60));
        }
        assert_eq!(
            names(&world.path()),
            [
                "audit-0000000001-20261122T004001Z.jsonl",
                "audit-0000000002-20261122T004201Z.jsonl",
                "audit-0000000003-20261122T004401Z.jsonl",
            ]
        );
        for name in names(&world.path()) {
            let file = std::fs::metadata(world.path().join(name)).expect("a file");
            assert!(file.len() <= 2000);
            assert_eq!(file.permissions().mode() & 0o777, 0o600);
        }
        let directory = std::fs::metadata(world.path()).expect("a directory");
        assert_eq!(directory.permissions().mode() & 0o777, 0o700);

        world.append(100).await;
        world.append(1).await;
        assert_eq!(names(&world.path()).len(), 5, "a batch is never divided");
        assert_eq!(world.numbers(), (1..=131).collect::<Vec<_>>());
    });
}

#[test]
fn a_file_becomes_old_also_while_nobody_has_it_open() {
    block_on(async {
        let mut world =
            World::new(|options| options.file_age_max = Duration::from_secs(3600)).await;
        world.append(1).await;
        world.pass(Duration::from_secs(3599));
        world.append(1).await;
        assert_eq!(names(&world.path()).len(), 1);
        world.reopen().await;
        world.append(1).await;
        assert_eq!(names(&world.path()).len(), 1, "a start goes on with the newest file");
        world.pass(Duration::from_secs(1));
        world.reopen().await;
        world.append(1).await;
        assert_eq!(names(&world.path()).len(), 2);
        assert_eq!(world.numbers(), [1, 2, 3, 4]);
    });
}

#[test]
fn no_more_old_files_are_kept_than_told_and_others_are_left_alone() {
    block_on(async {
        let mut world = World::new(|options| {
            options.file_bytes_max = 1024;
            options.files_max = 3;
        })
        .await;
        let note = world.path().join("README.jsonl");
        std::fs::write(&note, "").expect("written");
        for _ in 0..10 {
            world.append(5).await;
        }
        std::fs::remove_file(&note).expect("it is still there");
        let names = names(&world.path());
        assert_eq!(names.len(), 4, "three and the one that is written: {names:?}");
        assert!(names[0].starts_with("audit-0000000007-"), "{names:?}");
        assert_eq!(world.numbers(), (31..=50).collect::<Vec<_>>());
        assert_eq!(world.files.statistics().removed, 6);
        // What was removed is known to be applied.
        let mark = world.files.applied("journal-1/a", 0).await.expect("it answers");
        assert_eq!(mark.map(|mark| mark.applied.0), Some(50));
    });
}

#[test]
fn a_file_that_was_closed_long_ago_is_removed() {
    block_on(async {
        let mut world = World::new(|options| {
            options.file_age_max = Duration::from_secs(60);
            options.kept_for = Some(Duration::from_secs(150));
        })
        .await;
        for _ in 0..10 {
            world.append(1).await;
            world.pass(Duration::from_secs(60));
        }
        // Closed 0, 60 and 120 s before the newest was begun.
        assert_eq!(world.numbers(), [7, 8, 9, 10]);
    });
}

#[test]
fn a_file_that_is_taken_away_while_it_is_written_is_missed() {
    block_on(async {
        let mut world = World::new(|_| ()).await;
        world.append(3).await;
        let [name] = &names(&world.path())[..] else { panic!("one file") };
        std::fs::rename(world.path().join(name), world.path().join("taken")).expect("renamed");
        world.append(2).await;
        assert_eq!(world.numbers(), [4, 5]);
        assert_eq!(world.files.statistics().missed, 1);
        world.reopen().await;
        let mark = world.files.applied("journal-1/a", 0).await.expect("it answers");
        assert_eq!(mark.map(|mark| mark.applied.0), Some(5));
    });
}

#[test]
fn a_damaged_file_is_named_and_a_torn_one_cut_off() {
    block_on(async {
        let mut world = World::new(|_| ()).await;
        for _ in 0..3 {
            world.append(2).await;
        }
        let path = world.path().join(&names(&world.path())[0]);
        let whole = std::fs::read(&path).expect("it can be read");
        let open = |path: &Path| AuditFiles::open(FileOptions::new(path));
        drop(world.files);

        let mut damaged = whole.clone();
        let at = String::from_utf8_lossy(&whole).find("\"n\":3").expect("it is there");
        damaged[at + 4] = b'7';
        std::fs::write(&path, &damaged).expect("written");
        let refused = open(path.parent().expect("a directory")).await.expect_err("it is damaged");
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.to_string().contains("audit-0000000001"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("it can be read"), damaged, "it is left alone");

        std::fs::write(&path, &whole[..whole.len() - 20]).expect("written");
        let files = open(path.parent().expect("a directory")).await.expect("it opens");
        let mark = files.applied("journal-1/a", 0).await.expect("it answers");
        assert_eq!(mark.map(|mark| mark.applied.0), Some(4));
        assert!(files.statistics().torn_bytes > 100);
        assert_eq!(records(path.parent().expect("a directory")).len(), 4);

        let second = open(path.parent().expect("a directory")).await.expect_err("it is taken");
        assert!(second.to_string().contains("another process uses the directory"), "{second}");
    });
}

#[test]
fn bounds_that_make_no_sense_are_refused() {
    block_on(async {
        let directory = TempDir::new().expect("a directory");
        let refused = [
            |options: &mut FileOptions| options.file_bytes_max = 1000,
            |options: &mut FileOptions| options.file_bytes_max = 2 << 30,
            |options: &mut FileOptions| options.files_max = 0,
            |options: &mut FileOptions| options.file_age_max = Duration::ZERO,
        ];
        for change in refused {
            let mut options = FileOptions::new(directory.path().join("none"));
            change(&mut options);
            let refused = AuditFiles::open(options).await.expect_err("it is refused");
            assert!(refused.kind() == ErrorKind::Config && refused.remedy_text().is_some());
        }
        assert!(!directory.path().join("none").exists());
    });
}
