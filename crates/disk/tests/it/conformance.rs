//! The suite that every store passes: as it is, waiting for the disk, and with
//! the directory closed and opened again before almost every call.

use larder_core::{
    Capabilities, HeardUpTo, Key, Mark, PutCondition, PutOutcome, Result, Store, StoredEntry, Verb,
    Version,
};
use larder_disk::{DiskOptions, DiskStore, DiskTier, Durability};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::support::Home;

larder_testkit::store_conformance!(as_it_is, async { Lasting::open(|_| ()).await });
larder_testkit::store_conformance!(waiting_for_the_disk, async {
    Lasting::open(|options| options.durability = Durability::AllSurvivesPowerLoss).await
});
larder_testkit::store_conformance!(reopened_in_between, async { Reopening::new().await });

/// A store whose directory lives as long as it.
struct Lasting(Home);

impl Lasting {
    async fn open(change: fn(&mut DiskOptions)) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self(Home::open_in(directory, change).await)
    }
}

impl Store for Lasting {
    fn capabilities(&self) -> Capabilities {
        self.0.store.capabilities()
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.0.store.get_many(keys).await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        self.0.store.put_many(entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.0.store.invalidate_many(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.0.store.mark(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.0.store.marks().await
    }

    async fn note_heard(&self, heard: HeardUpTo) -> Result<()> {
        self.0.store.note_heard(heard).await
    }

    async fn heard(&self) -> Result<Option<HeardUpTo>> {
        self.0.store.heard().await
    }
}

/// Whatever a call sees was read from closed files.
struct Reopening {
    directory: TempDir,
    open: RwLock<(DiskTier, DiskStore)>,
    capabilities: Capabilities,
}

impl Reopening {
    async fn new() -> Self {
        let Home { directory, tier, store } = Home::open().await;
        let capabilities = store.capabilities();
        Self { directory, open: RwLock::new((tier, store)), capabilities }
    }

    /// The store, opened anew. Nobody closes it while it is in use.
    async fn reopened(&self) -> RwLockReadGuard<'_, (DiskTier, DiskStore)> {
        let mut open = self.open.write().await;
        open.0.close().await;
        let options = DiskOptions::new(self.directory.path());
        let tier = DiskTier::open(options).await.expect("it opens again");
        assert!(!tier.healed(), "nothing was damaged");
        let store = tier.store("album").expect("a name");
        *open = (tier, store);
        open.downgrade()
    }
}

impl Store for Reopening {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.reopened().await.1.get_many(keys).await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        // Many write at once: they would only wait for each other's opening.
        self.open.read().await.1.put_many(entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.reopened().await.1.invalidate_many(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.reopened().await.1.mark(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.reopened().await.1.marks().await
    }
}
