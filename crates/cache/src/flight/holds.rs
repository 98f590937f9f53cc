//! Keys that are being written at the origin: what is read of them meanwhile may be
//! what was there before, or what will never have been there, so it is not kept.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A write under way, by a number that no other has, whichever node makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hold(pub(crate) u64);

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
