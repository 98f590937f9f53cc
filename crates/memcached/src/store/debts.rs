//! What this node could not invalidate on a server that may still have it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_core::{Key, Result, Verb, Version};

use super::MemcachedStore;
use super::invalidate::Invalidation;
use crate::server::Session;

/// More keys than this are not remembered for a server: all that the cache has
/// is given up instead.
const KEYS_MAX: usize = 10_000;
/// As many are made good in one batch.
const BATCH: usize = 500;

/// The debts to each server.
pub(super) struct Debts(Vec<Ledger>);

#[derive(Default)]
struct Ledger {
    owed: Mutex<Owed>,
    /// How much is owed, to be looked at without the lock.
    count: AtomicUsize,
    /// Held by who pays: everybody else waits until that is done.
    paying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Owed {
    /// Up to where a key is to be invalidated.
    keys: HashMap<(Key, Verb), Version>,
    /// More was owed than can be remembered.
    has_overflowed: bool,
}

/// Invalidations under way. What has not been kept when this is dropped, because
/// it failed or because the caller left, is owed.
#[must_use]
pub(super) struct Promise<'a> {
    ledger: &'a Ledger,
    invalidations: Vec<Invalidation>,
}

impl Debts {
    pub(super) fn new(servers_count: usize) -> Self {
        Self((0..servers_count).map(|_| Ledger::default()).collect())
    }

    /// How much is owed to all servers.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|ledger| ledger.count.load(Ordering::Acquire)).sum()
    }

    /// Notes what a server has to hear of later.
    pub(super) fn owe(&self, server: usize, invalidations: &[Invalidation]) {
        self.0[server].owe(invalidations);
    }

    /// Notes what is about to be done at a server.
    pub(super) fn promise(&self, server: usize, invalidations: Vec<Invalidation>) -> Promise<'_> {
        Promise { ledger: &self.0[server], invalidations }
    }
}

impl Promise<'_> {
    pub(super) fn invalidations(&self) -> &[Invalidation] {
        &self.invalidations
    }

    /// All of it has been done.
    pub(super) fn keep(mut self) {
        self.invalidations.clear();
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.ledger.owe(&self.invalidations);
    }
}

impl Ledger {
    fn owe(&self, invalidations: &[Invalidation]) {
        if invalidations.is_empty() {
            return;
        }
        let mut owed = self.owed();
        for Invalidation { key, at, verb } in invalidations {
            let level = owed.keys.entry((key.clone(), *verb)).or_default();
            *level = (*level).max(*at);
        }
        if owed.keys.len() > KEYS_MAX {
            owed.keys.clear();
            owed.has_overflowed = true;
        }
        self.note_count(&owed);
    }

    fn first(&self) -> (Vec<Invalidation>, bool) {
        let owed = self.owed();
        let invalidation = |((key, verb), at): (&(Key, Verb), &Version)| Invalidation {
            key: key.clone(),
            at: *at,
            verb: *verb,
        };
        let first = owed.keys.iter().take(BATCH).map(invalidation).collect();
        (first, owed.has_overflowed)
    }

    /// Forgets what was made good, but for what is owed at a higher version by
    /// now.
    fn paid(&self, invalidations: Vec<Invalidation>) {
        let mut owed = self.owed();
        for Invalidation { key, at, verb } in invalidations {
            let place = (key, verb);
            if owed.keys.get(&place).is_some_and(|level| *level <= at) {
                owed.keys.remove(&place);
            }
        }
        self.note_count(&owed);
    }

    fn overflow_paid(&self) {
        let mut owed = self.owed();
        owed.has_overflowed = false;
        self.note_count(&owed);
    }

    fn note_count(&self, owed: &Owed) {
        let count = owed.keys.len() + usize::from(owed.has_overflowed);
        self.count.store(count, Ordering::Release);
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemcachedStore {
    /// Makes good what is owed to a server, before anything else is done there.
    ///
    /// # Cancel safety
    /// What has not been made good stays owed.
    pub(super) async fn settle(&self, server: usize, session: &Session) -> Result<()> {
        let ledger = &self.debts.0[server];
        if ledger.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let _paying = ledger.paying.lock().await;
        loop {
            let (batch, has_overflowed) = ledger.first();
            if has_overflowed {
                self.control.renew().await?;
                ledger.overflow_paid();
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.apply(session, server, &batch).await?;
            ledger.paid(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalidation(key: usize, at: u64) -> Invalidation {
        let key = Key::new(key.to_string());
        Invalidation { key, at: Version::new(at), verb: Verb::Remove }
    }

    #[test]
    fn what_was_not_kept_is_owed_at_its_highest_version() {
        let debts = Debts::new(2);
        debts.promise(0, vec![invalidation(1, 5)]).keep();
        assert_eq!(debts.count(), 0);
        drop(debts.promise(1, vec![invalidation(1, 5), invalidation(2, 5)]));
        debts.owe(1, &[invalidation(1, 4), invalidation(2, 7)]);
        assert_eq!(debts.count(), 2);
        debts.0[1].paid(vec![invalidation(1, 5), invalidation(2, 5)]);
        assert_eq!(debts.0[1].first(), (vec![invalidation(2, 7)], false));
    }

    #[test]
    fn more_than_can_be_remembered_is_remembered_as_all() {
        let debts = Debts::new(1);
        let many: Vec<Invalidation> = (0..=KEYS_MAX).map(|key| invalidation(key, 1)).collect();
        debts.owe(0, &many);
        assert_eq!(debts.0[0].first(), (vec![], true));
        assert_eq!(debts.count(), 1);
        debts.0[0].overflow_paid();
        assert_eq!(debts.count(), 0);
    }
}
