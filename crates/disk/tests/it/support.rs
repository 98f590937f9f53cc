//! What the tests share.

use std::time::Duration;

use larder_core::{
    BusPosition, HeardUpTo, Key, PutCondition, PutOutcome, Result, Store, StoredEntry, Value, Verb,
    Version,
};
use larder_disk::{DiskOptions, DiskStore, DiskTier};
use larder_testkit::conformance::store::entry;
use tempfile::TempDir;

/// Heard up to this message.
pub(crate) fn heard(sequence: u64) -> HeardUpTo {
    HeardUpTo { position: BusPosition { epoch: 1, sequence }, since: Version::ZERO }
}

/// A directory of its own, and a store in it.
pub(crate) struct Home {
    pub(crate) directory: TempDir,
    pub(crate) tier: DiskTier,
    pub(crate) store: DiskStore,
}

impl Home {
    pub(crate) async fn open() -> Self {
        Self::open_in(TempDir::new().expect("a temporary directory"), |_| ()).await
    }

    pub(crate) async fn open_in(directory: TempDir, change: impl Fn(&mut DiskOptions)) -> Self {
        let mut options = DiskOptions::new(directory.path());
        change(&mut options);
        let tier = DiskTier::open(options).await.expect("it opens");
        let store = tier.store("album").expect("a name");
        Self { directory, tier, store }
    }

    /// Closes it and opens it again.
    pub(crate) async fn reopen(self) -> Self {
        let directory = self.close().await;
        Self::open_in(directory, |_| ()).await
    }

    /// Closes it and gives back the directory.
    pub(crate) async fn close(self) -> TempDir {
        self.tier.close().await;
        self.directory
    }
}

pub(crate) fn key(name: impl std::fmt::Display) -> Key {
    Key::new(name.to_string())
}

pub(crate) fn aged(text: &str, version: u64, age: Duration) -> StoredEntry {
    StoredEntry { age, ..entry(text, version) }
}

/// Puts one entry if it is newer.
pub(crate) async fn put(store: &DiskStore, name: &str, entry: StoredEntry) -> Result<PutOutcome> {
    let entries = [(key(name), entry)];
    store.put_many(&entries, PutCondition::NewerThanHeld).await.map(|outcomes| outcomes[0])
}

/// The text that is held.
pub(crate) async fn text(store: &DiskStore, name: &str) -> Option<String> {
    let held = store.get(&key(name)).await.expect("a read")?;
    match held.value {
        Value::Present(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Absent => None,
    }
}

pub(crate) async fn remove(store: &DiskStore, name: &str, version: u64) {
    let removed = store.invalidate_many(&[key(name)], Version::new(version), Verb::Remove).await;
    removed.expect("a removal");
}
