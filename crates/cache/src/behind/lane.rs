use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use larder_core::{DynJournal, Error, ErrorKind, JournalOffset, LaneClaim, Moment, Result};

use super::strand::Strand;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;

/// A lane of the journal, and what of it waits.
pub(super) struct Lane {
    pub(super) number: u16,
    pub(super) strands: BTreeMap<Arc<str>, Arc<Strand>>,
    /// The epoch of the last claim, which grows when it was unknown what became
    /// of a batch.
    epoch: AtomicU64,
    /// All up to here was noted.
    seen: AtomicU64,
    trimmed: AtomicU64,
    /// One at a time takes over what the journal has.
    noting: tokio::sync::Mutex<()>,
    pub(super) last_claimed: Mutex<LaneClaim>,
}

impl Lane {
    pub(super) fn new(
        number: u16,
        claim: LaneClaim,
        strands: BTreeMap<Arc<str>, Arc<Strand>>,
    ) -> Self {
        Self {
            number,
            strands,
            epoch: AtomicU64::new(claim.epoch),
            seen: AtomicU64::new(claim.trimmed.0),
            trimmed: AtomicU64::new(claim.trimmed.0),
            noting: tokio::sync::Mutex::new(()),
            last_claimed: Mutex::new(claim),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Makes this the next owner of its own lane: whatever an earlier call of the
    /// origin still does is refused there.
    pub(super) async fn claim_again(&self, journal: &dyn DynJournal) -> Result<u64> {
        let claim = journal.claim(self.number).await?;
        self.epoch.fetch_max(claim.epoch, AcqRel);
        *self.last_claimed.lock() = claim;
        Ok(claim.epoch)
    }

    /// Notes everything in the journal up to `through`, in order. Returns how many
    /// records and bytes that was.
    ///
    /// # Errors
    /// Those of the journal; [`ErrorKind::Config`] for a record of a cache that
    /// has no origin.
    pub(super) async fn note(
        &self,
        journal: &dyn DynJournal,
        through: JournalOffset,
        noted: impl Fn(&larder_core::JournalRecord),
        now: impl Fn() -> Moment,
        batch_records: usize,
    ) -> Result<()> {
        let _alone = self.noting.lock().await;
        loop {
            let seen = self.seen.load(Acquire);
            if seen >= through.0 {
                return Ok(());
            }
            let entries = journal.read(self.number, JournalOffset(seen), NOTED_TOGETHER).await?;
            let is_all = entries.len() < NOTED_TOGETHER;
            let mut last = seen;
            for entry in entries {
                let strand = self.strands.get(&entry.record.cache);
                let strand =
                    strand.ok_or_else(|| unknown_cache(self.number, &entry.record.cache))?;
                noted(&entry.record);
                last = entry.offset.0;
                strand.note(entry, now(), batch_records);
                self.seen.store(last, std::sync::atomic::Ordering::Release);
            }
            if is_all {
                // What is not there up to `through` is a dead letter.
                self.seen.fetch_max(last.max(through.0), AcqRel);
            }
        }
    }

    /// Records that wait, of all caches.
    pub(super) fn waiting(&self) -> usize {
        self.strands.values().map(|strand| strand.waiting()).sum()
    }

    /// Up to where everything was noted.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Acquire)
    }

    /// Tells the journal what it need not keep: all before the first record that
    /// waits.
    pub(super) async fn trim(&self, journal: &dyn DynJournal) -> Result<()> {
        // Read first: what is noted later waits behind it.
        let seen = self.seen();
        let firsts = self.strands.values().filter_map(|strand| strand.first());
        let done = firsts.map(|first| first - 1).fold(seen, u64::min);
        if done <= self.trimmed.load(Acquire) {
            return Ok(());
        }
        loop {
            let epoch = self.epoch();
            match journal.trim(self.number, epoch, JournalOffset(done)).await {
                Ok(()) => break,
                // Another task of ours has claimed it meanwhile.
                Err(error) if error.kind() == ErrorKind::Conflict && epoch != self.epoch() => {}
                Err(error) => return Err(error),
            }
        }
        self.trimmed.fetch_max(done, AcqRel);
        Ok(())
    }
}

const NOTED_TOGETHER: usize = 1024;

pub(super) fn unknown_cache(lane: u16, cache: &str) -> Error {
    Error::new(ErrorKind::Config, "the journal holds writes of a cache that has no origin here")
        .with("cache", cache)
        .with("lane", lane)
        .remedy("configure the cache again until they are applied, or bury them as dead letters")
}
