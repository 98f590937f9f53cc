//! The suite that every journal passes: in a directory, with small files, and on
//! a simulated disk that keeps nothing that was not synced.

use std::sync::Arc;

use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::conformance::journal::JournalHome;
use tempfile::TempDir;

use crate::simulated::SimulatedDisk;

larder_testkit::journal_conformance!(in_a_directory, async { Home::new(16 << 20).await });
larder_testkit::journal_conformance!(in_small_files, async { Home::new(4096).await });
larder_testkit::journal_conformance!(after_power_losses, async { Simulated::new() });

struct Home {
    directory: TempDir,
    options: JournalOptions,
    journal: DiskJournal,
}

impl Home {
    async fn new(segment_bytes: u64) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut options = JournalOptions::new(directory.path());
        options.segment_bytes = segment_bytes;
        Self::open(directory, options).await
    }

    async fn open(directory: TempDir, options: JournalOptions) -> Self {
        let journal = DiskJournal::open(options.clone()).await.expect("it opens");
        Self { directory, options, journal }
    }
}

impl JournalHome for Home {
    type Journal = DiskJournal;

    fn journal(&self) -> Arc<DiskJournal> {
        Arc::new(self.journal.clone())
    }

    async fn restart(self) -> Self {
        self.journal.close().await;
        Self::open(self.directory, self.options).await
    }
}

struct Simulated {
    disk: SimulatedDisk,
    journal: DiskJournal,
}

impl Simulated {
    fn new() -> Self {
        Self::open(SimulatedDisk::new(5))
    }

    fn open(disk: SimulatedDisk) -> Self {
        let mut options = JournalOptions::new("unused");
        options.segment_bytes = 4096;
        let journal = DiskJournal::open_on(disk.clone(), options).expect("it opens");
        Self { disk, journal }
    }
}

impl JournalHome for Simulated {
    type Journal = DiskJournal;

    fn journal(&self) -> Arc<DiskJournal> {
        Arc::new(self.journal.clone())
    }

    async fn restart(self) -> Self {
        // The power goes first.
        let after = self.disk.restart();
        self.journal.close().await;
        Self::open(after)
    }
}
