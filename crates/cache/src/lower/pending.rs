//! What a store has not heard of: invalidations that did not reach it.

use std::collections::{HashMap, VecDeque};

use larder_core::{Key, Mark, Tag, Verb, Version};

/// Beyond so many, one watermark over the whole cache stands for all of them.
const PENDING_MAX: usize = 65_536;

/// So many of the keys noted last are remembered after they were told.
const LATEST_MAX: usize = 4096;

/// How many keys a store is told in one call.
const BATCH_MAX: usize = 4096;

/// Invalidations that a store is to be told before it is read again.
///
/// Until the store was asked what it remembers of before this process, nothing
/// is known of its versions: what is noted so far gets its version then, above
/// all of them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    keys: HashMap<(Key, Verb), Version>,
    marks: HashMap<(Option<Tag>, Verb), Version>,
    /// Every version from before this process is older. `None`: not asked yet.
    known_from: Option<Version>,
    /// Nothing older is shown any more.
    floor: Version,
    /// The keys noted last, told since or not: a read that was under way then may
    /// bring what the store had before.
    latest: VecDeque<(Key, Version)>,
    /// How many keys were noted ever.
    noted: u64,
}

/// A moment in the life of a store's [`Pending`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted(u64);

impl Pending {
    /// Raises what was noted so far above all that the store had: to `above`. From now
    /// on what is of `known_from` or newer is newer than that.
    pub(crate) fn meet(&mut self, above: Version, known_from: Version) {
        if self.known_from.is_some() {
            return;
        }
        self.known_from = Some(known_from);
        self.keys.values_mut().for_each(|at| *at = above.max(*at));
        if self.marks.values().any(|at| *at < above) {
            // Memory has them at versions of its own, so none of what the store had
            // can be compared with them.
            self.bury(above);
        }
    }

    /// The first version that is newer than all of before this process.
    pub(crate) fn known_from(&self) -> Option<Version> {
        self.known_from
    }

    /// Notes keys. Returns the version to be told, if the store can be told.
    pub(crate) fn add_keys(&mut self, keys: &[Key], at: Version, verb: Verb) -> Option<Version> {
        let at = at.max(self.known_from.unwrap_or_default());
        for key in keys {
            let held = self.keys.entry((key.clone(), verb)).or_default();
            *held = at.max(*held);
            self.latest.push_back((key.clone(), at));
        }
        self.noted += keys.len() as u64;
        self.latest.drain(..self.latest.len().saturating_sub(LATEST_MAX));
        if self.keys.len() > PENDING_MAX {
            let newest = self.keys.values().copied().max().unwrap_or(at);
            self.keys.clear();
            self.bury(newest);
        }
        self.known_from.map(|_| at)
    }

    /// Notes watermarks. Returns whether it is enough to tell the store these.
    pub(crate) fn add_marks(&mut self, marks: &[Mark]) -> bool {
        let Some(known_from) = self.known_from else {
            self.raise(marks);
            return false;
        };
        self.raise(marks);
        let is_late = marks.iter().any(|mark| mark.version < known_from);
        if is_late {
            self.bury(known_from);
        }
        !is_late
    }

    fn raise(&mut self, marks: &[Mark]) {
        for mark in marks {
            let held = self.marks.entry((mark.tag.clone(), mark.verb)).or_default();
            *held = mark.version.max(*held);
        }
        if self.marks.len() > PENDING_MAX {
            let newest = self.marks.values().copied().max().unwrap_or_default();
            self.marks.clear();
            self.bury(newest);
        }
    }

    /// Hides all that is older: from this process for good, and from later ones by
    /// a watermark.
    fn bury(&mut self, below: Version) {
        self.floor = below.max(self.floor);
        let held = self.marks.entry((None, Verb::Remove)).or_default();
        *held = below.max(*held);
    }

    /// Whether the store may still hold this key at a version that was
    /// invalidated.
    pub(crate) fn hides(&self, key: &Key, version: Version) -> bool {
        version < self.floor || self.hidden(key).is_some_and(|at| version < at)
    }

    /// Below which version the store may still hold this key although it was
    /// invalidated.
    pub(crate) fn hidden(&self, key: &Key) -> Option<Version> {
        // The commonest case costs no clone.
        if self.keys.is_empty() {
            return None;
        }
        let at = |verb| self.keys.get(&(key.clone(), verb)).copied();
        at(Verb::Remove).max(at(Verb::Expire))
    }

    /// Now.
    pub(crate) fn now(&self) -> Noted {
        Noted(self.noted)
    }

    /// Whether a key of this version was invalidated since, as far as is
    /// remembered: in doubt, it was.
    pub(crate) fn was_noted(&self, since: Noted, key: &Key, version: Version) -> bool {
        let count = self.noted - since.0;
        if count > self.latest.len() as u64 {
            return true;
        }
        let latest = self.latest.iter().rev().take(count as usize);
        { latest }.any(|(noted, at)| noted == key && version < *at)
    }

    /// The watermarks to be raised.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let mark = |((tag, verb), version): (&(Option<Tag>, Verb), &Version)| Mark {
            tag: tag.clone(),
            verb: *verb,
            version: *version,
        };
        self.marks.iter().map(mark).collect()
    }

    /// The keys to be invalidated, in batches. Each is told the newest version of
    /// its keys: that a few entries are invalidated that need not be costs less
    /// than a call for each version.
    pub(crate) fn keys(&self) -> Vec<(Vec<Key>, Version, Verb)> {
        let mut batches = Vec::new();
        for verb in [Verb::Remove, Verb::Expire] {
            let of_verb = self.keys.iter().filter(|((_, of), _)| *of == verb);
            let mut keys: Vec<_> = of_verb.map(|((key, _), at)| (*at, key)).collect();
            // Versions that are close to each other go together.
            keys.sort_unstable_by_key(|(at, _)| *at);
            for batch in keys.chunks(BATCH_MAX) {
                let newest = batch.last().map(|(at, _)| *at).unwrap_or_default();
                batches.push((batch.iter().map(|(_, key)| (*key).clone()).collect(), newest, verb));
            }
        }
        batches
    }

    /// Forgets what was told, unless something newer has come since.
    pub(crate) fn forget_marks(&mut self, told: &[Mark]) {
        for mark in told {
            let place = (mark.tag.clone(), mark.verb);
            if self.marks.get(&place).is_some_and(|held| *held <= mark.version) {
                self.marks.remove(&place);
            }
        }
    }

    /// The same for keys.
    pub(crate) fn forget_keys(&mut self, keys: &[Key], at: Version, verb: Verb) {
        for key in keys {
            let place = (key.clone(), verb);
            if self.keys.get(&place).is_some_and(|held| *held <= at) {
                self.keys.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_told_is_forgotten() {
        let mut pending = Pending::default();
        pending.meet(Version::new(1), Version::new(1));
        let keys = [Key::new("a"), Key::new("b")];
        pending.add_keys(&keys, Version::new(3), Verb::Remove);
        pending.add_keys(&keys[..1], Version::new(5), Verb::Remove);
        pending.add_keys(&keys[..1], Version::new(4), Verb::Remove);
        pending.forget_keys(&keys, Version::new(4), Verb::Remove);
        let left = vec![(vec![Key::new("a")], Version::new(5), Verb::Remove)];
        assert_eq!(pending.keys(), left);
        let mark = |version| Mark {
            tag: Some(Tag::new("t")),
            verb: Verb::Expire,
            version: Version::new(version),
        };
        pending.add_marks(&[mark(7), mark(6)]);
        pending.forget_marks(&[mark(6)]);
        assert_eq!(pending.marks(), [mark(7)]);
        pending.forget_marks(&[mark(7)]);
        pending.forget_keys(&keys, Version::new(5), Verb::Remove);
        assert_eq!((pending.keys(), pending.marks()), (vec![], vec![]));
    }

    #[test]
    fn what_was_told_meanwhile_is_remembered_for_those_who_read() {
        let mut pending = Pending::default();
        pending.meet(Version::new(1), Version::new(1));
        let (key, other) = (Key::new("a"), Key::new("b"));
        let before = pending.now();
        let keys = std::slice::from_ref(&key);
        pending.add_keys(keys, Version::new(5), Verb::Remove);
        pending.forget_keys(keys, Version::new(5), Verb::Remove);
        assert!(!pending.hides(&key, Version::new(4)));
        assert!(pending.was_noted(before, &key, Version::new(4)));
        assert!(!pending.was_noted(before, &key, Version::new(5)));
        assert!(!pending.was_noted(before, &other, Version::new(4)));
        assert!(!pending.was_noted(pending.now(), &key, Version::new(4)));
        for number in 0..LATEST_MAX {
            pending.add_keys(&[Key::new(number.to_string())], Version::new(6), Verb::Remove);
        }
        assert!(pending.was_noted(before, &other, Version::new(9)), "too long ago to know");
    }

    #[test]
    fn too_many_become_one_watermark_above_all_of_them() {
        let mut pending = Pending::default();
        pending.meet(Version::new(1), Version::new(1));
        for number in 0..=PENDING_MAX as u64 {
            pending.add_keys(&[Key::new(number.to_string())], Version::new(number), Verb::Expire);
        }
        assert_eq!(pending.keys(), []);
        let version = Version::new(PENDING_MAX as u64);
        let marks = [Mark { tag: None, verb: Verb::Remove, version }];
        assert_eq!(pending.marks(), marks);
        // Also when the store has heard of it: only later processes compare with it.
        pending.forget_marks(&marks);
        let key = Key::new("a");
        assert!(pending.hides(&key, Version::new(PENDING_MAX as u64 - 1)));
        assert!(!pending.hides(&key, version));
    }

    #[test]
    fn what_is_noted_before_the_store_is_known_is_newer_than_what_it_had() {
        let mut pending = Pending::default();
        let keys = [Key::new("a")];
        assert_eq!(pending.add_keys(&keys, Version::new(1), Verb::Remove), None);
        pending.meet(Version::new(51), Version::new(51));
        assert!(pending.hides(&keys[0], Version::new(50)));
        assert!(!pending.hides(&Key::new("b"), Version::new(50)));
        let late = pending.add_keys(&keys, Version::new(2), Verb::Expire);
        assert_eq!(late, Some(Version::new(51)));
        let mark = |version| {
            let (tag, verb) = (Some(Tag::new("t")), Verb::Remove);
            [Mark { tag, verb, version: Version::new(version) }]
        };
        assert!(pending.add_marks(&mark(60)));
        assert!(!pending.hides(&Key::new("b"), Version::new(50)));
        assert!(!pending.add_marks(&mark(3)));
        assert!(pending.hides(&Key::new("b"), Version::new(50)));
        assert!(!pending.hides(&Key::new("b"), Version::new(51)));
    }
}
