use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use larder_core::{
    DynJournal, Error, ErrorKind, JournalEntry, JournalOffset, JournalRecord, JournalSharing,
    LaneClaim, Result,
};

use super::shared::Shared;
use super::strand::Strand;
use super::tenure::Tenure;
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
    pub(super) tenure: Tenure,
    /// Records of caches that have no origin here: another process may have one.
    orphans: Mutex<BTreeSet<u64>>,
    /// There are records up to here, as far as was heard.
    pub(super) heard: AtomicU64,
    /// Somebody asked for all up to here to be applied at once.
    pub(super) hurried: AtomicU64,
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
            tenure: Tenure::default(),
            orphans: Mutex::new(BTreeSet::new()),
            heard: AtomicU64::new(0),
            hurried: AtomicU64::new(0),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Makes this the next owner of its own lane: whatever an earlier call of the
    /// origin still does is refused there.
    pub(super) async fn claim_again(&self, journal: &dyn DynJournal) -> Result<u64> {
        let claim = journal.claim(self.number).await?;
        self.claimed(claim);
        Ok(claim.epoch)
    }

    /// Takes note of a claim.
    pub(super) fn claimed(&self, claim: LaneClaim) {
        self.epoch.fetch_max(claim.epoch, AcqRel);
        *self.last_claimed.lock() = claim;
    }

    /// Notes everything in the journal up to `through`, in order, or as much as
    /// there is room for if others append, too.
    ///
    /// # Errors
    /// Those of the journal; [`ErrorKind::Config`] for a record of a cache that
    /// has no origin, unless another process may have one.
    pub(super) async fn note(&self, shared: &Shared, through: JournalOffset) -> Result<()> {
        let _alone = self.noting.lock().await;
        self.note_alone(shared, through).await
    }

    /// Notes records that were appended here just now and end at `last`. What
    /// others appended between is read.
    ///
    /// # Errors
    /// As [`Lane::note`].
    pub(super) async fn note_own(
        &self,
        shared: &Shared,
        records: Vec<JournalRecord>,
        last: JournalOffset,
    ) -> Result<()> {
        let _alone = self.noting.lock().await;
        let first = last.0 + 1 - records.len() as u64;
        if self.seen() + 1 != first {
            return self.note_alone(shared, last).await;
        }
        for (offset, record) in (first..).zip(records) {
            self.note_entry(shared, JournalEntry { offset: JournalOffset(offset), record })?;
        }
        Ok(())
    }

    /// Makes what is known here what the journal has, after a claim: nobody else
    /// trims or buries now. What the journal lacks, and lost, stays.
    ///
    /// # Errors
    /// Those of the journal.
    pub(super) async fn catch_up(
        &self,
        shared: &Shared,
        sharing: &dyn JournalSharing,
        claim: LaneClaim,
    ) -> Result<()> {
        let _alone = self.noting.lock().await;
        let buried = sharing.buried(self.number).await?;
        for strand in self.strands.values() {
            shared.released(strand.finish(buried.iter().map(|offset| offset.0)));
        }
        self.forget_through(shared, claim.trimmed);
        self.note_alone(shared, claim.last).await
    }

    /// Forgets what is applied: all up to here was trimmed.
    pub(super) fn forget_through(&self, shared: &Shared, trimmed: JournalOffset) {
        self.trimmed.fetch_max(trimmed.0, AcqRel);
        for strand in self.strands.values() {
            shared.released(strand.forget_through(trimmed.0));
        }
        self.orphans.lock().retain(|orphan| *orphan > trimmed.0);
    }

    async fn note_alone(&self, shared: &Shared, through: JournalOffset) -> Result<()> {
        let journal = &*shared.journal;
        loop {
            let seen = self.seen.load(Acquire);
            if seen >= through.0 || !shared.has_room_for_others() {
                return Ok(());
            }
            let entries = journal.read(self.number, JournalOffset(seen), NOTED_TOGETHER).await?;
            let is_all = entries.len() < NOTED_TOGETHER;
            let last = entries.last().map_or(seen, |entry| entry.offset.0);
            for entry in entries {
                self.note_entry(shared, entry)?;
            }
            if is_all {
                // What is not there up to `through` is a dead letter.
                self.seen.fetch_max(last.max(through.0), AcqRel);
            }
        }
    }

    fn note_entry(&self, shared: &Shared, entry: JournalEntry) -> Result<()> {
        let offset = entry.offset.0;
        match self.strands.get(&entry.record.cache) {
            Some(strand) => {
                shared.noted(&entry.record);
                strand.note(entry, shared.clock.now(), shared.options.batch_records);
            }
            None if shared.profile.shared => {
                if self.orphans.lock().insert(offset) && self.tenure.number() > 0 {
                    let error = unknown_cache(self.number, &entry.record.cache);
                    tracing::error!(%error, "writes wait for a process that has their origin");
                }
            }
            None => return Err(unknown_cache(self.number, &entry.record.cache)),
        }
        self.seen.fetch_max(offset, AcqRel);
        Ok(())
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
        let orphan = self.orphans.lock().first().copied();
        let done = firsts.chain(orphan).map(|first| first - 1).fold(seen, u64::min);
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
