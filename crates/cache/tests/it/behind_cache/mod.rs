//! Caches that write behind: what was acknowledged is read at once, by everybody, and
//! nothing that was there before is kept.

mod around;
mod crossings;
mod reads;
mod shelf;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{
    Action, BehindOptions, BytesCodec, Cache, CacheBuilder, Clock, DynOrigin, ErrorKind, Key,
    ManualClock, Memory, Result, WriteBehind, Written,
};
use larder_journal::{DiskJournal, JournalOptions};
use tempfile::TempDir;

use crate::support::plain;
use shelf::Shelf;

const CACHE: &str = "stock";

/// A cache over a journal over a table. Nothing is applied unless a test says so.
struct World {
    directory: TempDir,
    shelf: Shelf,
    clock: ManualClock,
    journal: DiskJournal,
    behind: WriteBehind,
    stock: Cache<Key, Bytes>,
}

type Builder = CacheBuilder<Key, Bytes>;

async fn open_journal(directory: &Path) -> DiskJournal {
    let mut options = JournalOptions::new(directory);
    options.lanes = 4;
    DiskJournal::open(options).await.expect("the journal opens")
}

/// Applied by flushes, and never because time passes.
async fn open_behind(journal: &DiskJournal, shelf: &Shelf) -> WriteBehind {
    let mut options = BehindOptions::default();
    options.batch_records = 100_000;
    options.batch_delay = Duration::from_secs(3600);
    let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(shelf.clone());
    let targets = [(CACHE.to_owned(), origin)];
    let journal = Arc::new(journal.clone());
    WriteBehind::open(journal, targets, options, Clock::monotonic()).await.expect("it opens")
}

fn builder(shelf: &Shelf, clock: &ManualClock) -> Builder {
    Cache::builder(CACHE)
        .memory(Memory::entries(10_000))
        .origin(shelf.clone())
        .policy(plain())
        .clock(clock.clone())
}

impl World {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self::open(directory, Shelf::new(), configure).await
    }

    async fn open(
        directory: TempDir,
        shelf: Shelf,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (journal, clock) = (open_journal(directory.path()).await, ManualClock::new());
        let behind = open_behind(&journal, &shelf).await;
        let builder = configure(builder(&shelf, &clock)).write_behind(&behind, BytesCodec);
        let stock = builder.build().expect("a coherent cache");
        Self { directory, shelf, clock, journal, behind, stock }
    }

    /// Ends without applying anything more, and starts again.
    async fn restart(self) -> Self {
        let Self { directory, shelf, journal, behind, stock, .. } = self;
        drop((stock, behind));
        journal.close().await;
        Self::open(directory, shelf, |builder| builder).await
    }

    async fn write(&self, key: &str, action: Action<Bytes>) -> Result<Written<Bytes>> {
        self.stock.write(&Key::new(key), action).await
    }

    async fn put(&self, key: &str, row: &str) {
        self.write(key, Action::Put(text(row))).await.expect("it is accepted");
    }

    async fn patch(&self, key: &str, members: &str) {
        self.write(key, Action::Patch(text(members))).await.expect("it is accepted");
    }

    async fn add(&self, key: &str, by: i64) -> Written<Bytes> {
        self.write(key, add(by)).await.expect("it is accepted")
    }

    async fn try_read(&self, key: &str) -> Result<Option<String>> {
        let hit = self.stock.get_or_load(&Key::new(key)).await?;
        Ok(hit.value().map(|value| String::from_utf8_lossy(value).into_owned()))
    }

    async fn read(&self, key: &str) -> Option<String> {
        self.try_read(key).await.expect("it is answered")
    }

    /// What memory has, without asking anybody.
    fn memory(&self, key: &str) -> Option<Option<String>> {
        let string =
            |value: Option<&Bytes>| value.map(|it| String::from_utf8_lossy(it).into_owned());
        self.stock.peek_value(key.as_bytes(), string)
    }

    async fn flush(&self) {
        self.behind.flush().await.expect("it is applied");
    }

    fn reading(&self, key: &str) -> tokio::task::JoinHandle<Option<String>> {
        let (stock, key) = (self.stock.clone(), Key::new(key));
        tokio::spawn(async move {
            let hit = stock.get_or_load(&key).await.expect("it is answered");
            hit.value().map(|value| String::from_utf8_lossy(value).into_owned())
        })
    }

    fn flushing(&self) -> tokio::task::JoinHandle<()> {
        let behind = self.behind.clone();
        tokio::spawn(async move { behind.flush().await.expect("it is applied") })
    }

    /// Lets tasks run until this holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            assert!(std::time::Instant::now() < deadline, "it never came to this: {what}");
            tokio::task::yield_now().await;
        }
    }
}

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn add(by: i64) -> Action<Bytes> {
    Action::Add { field: "n".into(), by: by.into() }
}

fn row(n: i64) -> Option<String> {
    Some(format!("{{\"n\":{n}}}"))
}

fn kind(answer: Result<impl Sized>) -> ErrorKind {
    answer.err().expect("it is refused").kind()
}
