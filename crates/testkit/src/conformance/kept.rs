use std::time::Duration;

use larder_core::{
    Announcement, Bus, BusPosition, Capabilities, HeardUpTo, Key, Lease, LeaseGrant, LeaseToken,
    Mark, Published, PutCondition, PutOutcome, Result, Store, StoredEntry, Verb, Version,
};

/// A store, a bus or leases, together with the servers behind it, which run as
/// long as this lives: what a suite is given.
#[derive(Debug)]
pub struct Kept<S, K> {
    /// Before the servers, so that it ends first.
    seam: S,
    _servers: K,
}

impl<S, K> Kept<S, K> {
    /// The seam on these servers.
    #[must_use]
    pub const fn new(seam: S, servers: K) -> Self {
        Self { seam, _servers: servers }
    }
}

impl<S: Store, K: Send + Sync + 'static> Store for Kept<S, K> {
    fn capabilities(&self) -> Capabilities {
        self.seam.capabilities()
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.seam.get_many(keys).await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        self.seam.put_many(entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.seam.invalidate_many(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.seam.mark(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.seam.marks().await
    }

    async fn newest_version(&self) -> Result<Version> {
        self.seam.newest_version().await
    }

    async fn note_heard(&self, heard: HeardUpTo) -> Result<()> {
        self.seam.note_heard(heard).await
    }

    async fn heard(&self) -> Result<Option<HeardUpTo>> {
        self.seam.heard().await
    }

    async fn get(&self, key: &Key) -> Result<Option<StoredEntry>> {
        self.seam.get(key).await
    }
}

impl<B: Bus, K: Send + Sync + 'static> Bus for Kept<B, K> {
    type Subscription = B::Subscription;

    async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Published> {
        self.seam.publish(announcement, after).await
    }

    async fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> Result<Self::Subscription> {
        self.seam.subscribe(after, known).await
    }
}

impl<L: Lease, K: Send + Sync + 'static> Lease for Kept<L, K> {
    async fn acquire_many(&self, keys: &[Key], duration: Duration) -> Result<Vec<LeaseGrant>> {
        self.seam.acquire_many(keys, duration).await
    }

    async fn release_many(&self, leases: &[(Key, LeaseToken)]) -> Result<()> {
        self.seam.release_many(leases).await
    }

    async fn released(&self, key: &Key, at_most: Duration) {
        self.seam.released(key, at_most).await;
    }
}
