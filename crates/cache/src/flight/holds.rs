//! Keys that are being written at the origin: what is read of them meanwhile may be
//! what was there before, or what will never have been there, so it is not kept.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::sync::Mutex;

/// A write under way, by a number that no other has, whichever node makes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Hold(pub(crate) u64);

/// The writes that somebody waits for, in case their end is never told: nobody waits
/// for longer than they take.
#[derive(Default)]
pub(crate) struct Writers(Mutex<HashMap<Hold, oneshot::Sender<()>, RandomState>>);

impl Writers {
    /// Returns what ends when the write does. Whoever waited for it before does not
    /// any more.
    pub(crate) fn begin(&self, hold: Hold) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let replaced = self.0.lock().insert(hold, sender);
        drop(replaced);
        receiver
    }

    /// Returns whether anybody waited for it.
    pub(crate) fn end(&self, hold: Hold) -> bool {
        let ended = self.0.lock().remove(&hold);
        ended.is_some()
    }
}

/// The holds on keys, several on one where several write it.
pub(super) struct Holds<K>(HashMap<K, Vec<Hold>, RandomState>);

impl<K> Default for Holds<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Eq + Clone> Holds<K> {
    pub(super) fn add(&mut self, key: &K, hold: Hold) {
        let holds = self.0.entry(key.clone()).or_default();
        if !holds.contains(&hold) {
            holds.push(hold);
        }
    }

    /// Returns whether it was held so, and the key, to be dropped after the lock.
    pub(super) fn remove<Q>(&mut self, key: &Q, hold: Hold) -> (bool, Option<K>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(holds) = self.0.get_mut(key) else { return (false, None) };
        let count = holds.len();
        holds.retain(|other| *other != hold);
        let was_held = holds.len() < count;
        let last = if holds.is_empty() { self.0.remove_entry(key) } else { None };
        (was_held, last.map(|(key, _)| key))
    }

    /// Whether anybody else than `own` writes the key.
    pub(super) fn hinder<Q>(&self, key: &Q, own: Option<Hold>) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        !self.0.is_empty()
            && self.0.get(key).is_some_and(|holds| holds.iter().any(|hold| Some(*hold) != own))
    }
}
