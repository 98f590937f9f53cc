use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use larder_core::{
    Capabilities, Error, ErrorKind, HeardUpTo, Key, Mark, PutCondition, PutOutcome, Result, Store,
    StoredEntry, Verb, Version,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::layout;
use crate::reader::Request;
use crate::record;
use crate::state::CacheState;
use crate::tier::{QUEUE_PLACES, Shared};
use crate::timeline::micros;
use crate::writer::{Job, NewEntry, Order, Work};

/// One cache of a [`crate::DiskTier`]. Clones are the same.
///
/// A batch is one hop to a thread and back. A put finds the queue full at once
/// ([`ErrorKind::Overloaded`]); everything else waits for its place.
#[derive(Clone)]
pub struct DiskStore {
    shared: Arc<Shared>,
    cache: Arc<CacheState>,
}

impl DiskStore {
    pub(crate) fn new(shared: Arc<Shared>, cache: Arc<CacheState>) -> Self {
        Self { shared, cache }
    }

    /// The highest version that was ever put, invalidated or marked in this
    /// cache, also before a restart.
    #[must_use]
    pub fn highest_version(&self) -> Version {
        self.cache.highest()
    }

    /// Hands work to the writer and waits until it is done.
    async fn write(&self, work: Work, place: OwnedSemaphorePermit) -> Result<Vec<PutOutcome>> {
        let (reply, done) = oneshot::channel();
        let job = Job { cache: Arc::clone(&self.cache), work, reply, place };
        let closed = || self.shared.core.closed();
        self.shared.writes.send(Order::Do(job)).map_err(|_| closed())?;
        done.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits for a place in the queue of writes.
    async fn place(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.shared.write_places);
        let place = places.acquire_many_owned(places_for(bytes)).await;
        place.map_err(|_| self.shared.core.closed())
    }

    fn new_entries(&self, entries: &[(Key, StoredEntry)]) -> Result<Vec<NewEntry>> {
        let core = &self.shared.core;
        let limit = core.options.value_bytes_max;
        let now = core.now();
        let new_entry = |(key, entry): &(Key, StoredEntry)| {
            let bytes = entry.value.as_option().map_or(0, Bytes::len);
            if bytes > limit {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "the value is too long for the disk tier",
                )
                .with("key", key)
                .with("bytes", bytes)
                .with("bytes_max", limit)
                .remedy("raise value_bytes_max, or do not keep such values on disk"));
            }
            let read_at_micros = now.micros.saturating_sub(micros(entry.age));
            Ok(NewEntry {
                key: layout::entry_key(&self.cache.name, key)?,
                frame: record::entry_frame(entry, read_at_micros)?,
                version: entry.version,
                read_at_micros,
            })
        };
        entries.iter().map(new_entry).collect()
    }

    fn entry_keys(&self, keys: &[Key]) -> Result<Vec<Vec<u8>>> {
        keys.iter().map(|key| layout::entry_key(&self.cache.name, key)).collect()
    }

    fn overloaded(&self, what: &'static str, remedy: &'static str) -> Error {
        self.shared.core.refused_count.fetch_add(1, Ordering::Relaxed);
        Error::new(ErrorKind::Overloaded, what).with("cache", &self.cache.name).remedy(remedy)
    }
}

impl Store for DiskStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            value_bytes_max: Some(self.shared.core.options.value_bytes_max),
            ..Capabilities::default()
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let closed = || self.shared.core.closed();
        let keys = self.entry_keys(keys)?;
        let places = Arc::clone(&self.shared.read_places);
        let place = places.acquire_owned().await.map_err(|_| closed())?;
        let (reply, read) = oneshot::channel();
        let request = Request { cache: Arc::clone(&self.cache), keys, reply, _place: place };
        self.shared.reads.send(request).map_err(|_| closed())?;
        read.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.new_entries(entries)?;
        if self.shared.core.is_full.load(Ordering::Relaxed) {
            let remedy = "wait until compaction has made room, or raise disk_bytes_max";
            return Err(self.overloaded("the disk tier is full", remedy));
        }
        let bytes = entries.iter().map(|entry| entry.key.len() + entry.frame.len()).sum();
        let places = Arc::clone(&self.shared.write_places);
        let place = places.try_acquire_many_owned(places_for(bytes)).map_err(|_| {
            self.overloaded("the disk tier's queue is full", "put less, or use a faster disk")
        })?;
        self.write(Work::Put(entries, condition), place).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys = self.entry_keys(keys)?;
        let place = self.place(keys.iter().map(Vec::len).sum()).await?;
        self.write(Work::Invalidate { keys, at, verb }, place).await.map(drop)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        for mark in marks {
            bytes += layout::mark_key(&self.cache.name, mark.tag.as_ref(), mark.verb)?.len();
        }
        let place = self.place(bytes).await?;
        self.write(Work::Mark(marks.to_vec()), place).await.map(drop)
    }

    /// From memory: no hop.
    async fn marks(&self) -> Result<Vec<Mark>> {
        Ok(self.cache.marks().into_iter().map(|(mark, _)| mark).collect())
    }

    /// After a power loss it may be an older one, never a newer one than the
    /// invalidations and watermarks that were written before it.
    async fn newest_version(&self) -> Result<Version> {
        Ok(self.highest_version())
    }

    async fn note_heard(&self, heard: HeardUpTo) -> Result<()> {
        let place = self.place(0).await?;
        self.write(Work::Heard(heard), place).await.map(drop)
    }

    /// From memory: no hop.
    async fn heard(&self) -> Result<Option<HeardUpTo>> {
        Ok(self.cache.heard())
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("cache", &self.cache.name).finish_non_exhaustive()
    }
}

/// One for each KiB, at least one. A batch that is longer than the queue takes
/// all of it.
fn places_for(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10).clamp(1, QUEUE_PLACES)).unwrap_or(1)
}
