//! What a store has not heard of: invalidations that did not reach it.

use std::collections::HashMap;

use larder_core::{Key, Mark, Tag, Verb, Version};

/// Beyond so many, one watermark over the whole cache stands for all of them.
const PENDING_MAX: usize = 65_536;

/// Invalidations that a store is to be told before it is read again.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    keys: HashMap<(Key, Verb), Version>,
    marks: HashMap<(Option<Tag>, Verb), Version>,
}

impl Pending {
    pub(crate) fn add_keys(&mut self, keys: &[Key], at: Version, verb: Verb) {
        for key in keys {
            let held = self.keys.entry((key.clone(), verb)).or_default();
            *held = at.max(*held);
        }
        if self.keys.len() > PENDING_MAX {
            let newest = self.keys.values().copied().max().unwrap_or(at);
            self.keys.clear();
            // What is as old as the newest is touched, too.
            let version = Version::new(newest.get().saturating_add(1));
            self.add_marks(&[Mark { tag: None, verb: Verb::Remove, version }]);
        }
    }

    pub(crate) fn add_marks(&mut self, marks: &[Mark]) {
        for mark in marks {
            let held = self.marks.entry((mark.tag.clone(), mark.verb)).or_default();
            *held = mark.version.max(*held);
        }
        if self.marks.len() > PENDING_MAX {
            let version = self.marks.values().copied().max().unwrap_or_default();
            self.marks.clear();
            self.marks.insert((None, Verb::Remove), version);
        }
    }

    /// Whether the store may still hold this key at a version that was
    /// invalidated.
    pub(crate) fn hides(&self, key: &Key, version: Version) -> bool {
        [Verb::Remove, Verb::Expire].into_iter().any(|verb| {
            // The commonest case costs no clone.
            !self.keys.is_empty()
                && self.keys.get(&(key.clone(), verb)).is_some_and(|at| version <= *at)
        })
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

    /// The keys to be invalidated, gathered by what is to be said of them.
    pub(crate) fn keys(&self) -> Vec<(Vec<Key>, Version, Verb)> {
        let mut gathered: HashMap<(Version, Verb), Vec<Key>> = HashMap::new();
        for ((key, verb), version) in &self.keys {
            gathered.entry((*version, *verb)).or_default().push(key.clone());
        }
        gathered.into_iter().map(|((version, verb), keys)| (keys, version, verb)).collect()
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
    fn too_many_become_one_watermark_above_all_of_them() {
        let mut pending = Pending::default();
        for number in 0..=PENDING_MAX as u64 {
            pending.add_keys(&[Key::new(number.to_string())], Version::new(number), Verb::Expire);
        }
        assert_eq!(pending.keys(), []);
        let version = Version::new(PENDING_MAX as u64 + 1);
        assert_eq!(pending.marks(), [Mark { tag: None, verb: Verb::Remove, version }]);
    }
}
