//! Write-behind, over a real journal in a directory and a table that fails as
//! told.

mod batches;
mod faults;
mod fencing;
mod journal;
mod kill;
mod letters;
mod restarts;
mod shared;
mod view;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{BehindOptions, Clock, ManualClock, Result, Version, WriteBehind};
use larder_core::{Action, DynOrigin, JournalOffset, Key, Write};
use larder_journal::{DiskJournal, JournalOptions};
use larder_testkit::faulty::FaultyTable;
use tempfile::TempDir;

pub(super) const CACHE: &str = "row";
/// Far in the future of every test: only what a test asks for is applied.
pub(super) const LATER: Duration = Duration::from_secs(5);

/// A table, a journal and what is between them.
pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) table: FaultyTable,
    pub(super) clock: ManualClock,
    pub(super) journal: DiskJournal,
    pub(super) behind: WriteBehind,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(FaultyTable::new(), BehindOptions::default()).await
    }

    pub(super) async fn with(table: FaultyTable, options: BehindOptions) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self::open_in(directory, table, ManualClock::new(), options).await
    }

    pub(super) async fn open_in(
        directory: TempDir,
        table: FaultyTable,
        clock: ManualClock,
        options: BehindOptions,
    ) -> Self {
        let journal = open_journal(directory.path(), &clock).await;
        let behind = open(&journal, &table, &clock, options).await.expect("it opens");
        Self { directory, table, clock, journal, behind }
    }

    /// Ends without applying anything more, and starts again.
    pub(super) async fn restart(self, options: BehindOptions) -> Self {
        let Self { directory, table, clock, journal, behind } = self;
        drop(behind);
        journal.close().await;
        Self::open_in(directory, table, clock, options).await
    }

    pub(super) async fn put(&self, key: &str, value: &str) -> Result<JournalOffset> {
        self.write(Write::new(Key::new(key), Action::Put(text(value)))).await
    }

    pub(super) async fn add(&self, key: &str, by: i64) -> Result<JournalOffset> {
        self.write(add(key, by)).await
    }

    pub(super) async fn write(&self, write: Write<Key, Bytes>) -> Result<JournalOffset> {
        self.behind.write(CACHE, write, Version::new(1)).await
    }

    pub(super) fn value(&self, key: &str) -> Option<String> {
        self.table.row(&Key::new(key)).map(|row| string(&row.value))
    }

    pub(super) fn total(&self, key: &str) -> Option<i64> {
        self.table.row(&Key::new(key)).and_then(|row| row.total.as_i64())
    }

    /// Applies all, and moves the clock whenever that only waits for time.
    pub(super) async fn flush(&self) {
        self.while_time_passes(self.behind.flush()).await.expect("it is applied");
    }

    /// Moves the clock while this goes on.
    pub(super) async fn while_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        for _ in 0..2_000_000 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::task::yield_now() => self.clock.advance(Duration::from_millis(2)),
            }
        }
        panic!("it never comes to an end: {:?}", self.behind.statistics());
    }

    /// Lets tasks run until this holds, without any time passing.
    pub(super) async fn settle(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            let statistics = self.behind.statistics();
            assert!(
                std::time::Instant::now() < deadline,
                "it never came to this: {what}: {statistics:?}"
            );
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn open_journal(directory: &std::path::Path, clock: &ManualClock) -> DiskJournal {
    let mut options = JournalOptions::new(directory);
    options.lanes = 4;
    options.clock = Clock::from(clock.clone());
    DiskJournal::open(options).await.expect("the journal opens")
}

pub(super) async fn open(
    journal: &DiskJournal,
    table: &FaultyTable,
    clock: &ManualClock,
    options: BehindOptions,
) -> Result<WriteBehind> {
    let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(table.clone());
    let targets = [(CACHE.to_owned(), origin)];
    WriteBehind::open(Arc::new(journal.clone()), targets, options, Clock::from(clock.clone())).await
}

pub(super) fn add(key: &str, by: i64) -> Write<Key, Bytes> {
    Write::new(Key::new(key), Action::Add { field: "total".into(), by: by.into() })
}

pub(super) fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

pub(super) fn string(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Options that a test changes.
pub(super) fn options(change: impl FnOnce(&mut BehindOptions)) -> BehindOptions {
    let mut options = BehindOptions::default();
    change(&mut options);
    options
}
