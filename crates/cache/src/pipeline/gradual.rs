//! Invalidations of many things at once, and at a moment of each entry's own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::{Change, Key, Mark, Moment, Result, Verb, Version, Window};
use larder_memory::{Gradual, Scope};

use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::Announced;
use crate::invalidation::{Invalidation, Target};
use crate::telemetry::EventKind;

/// When what is touched is touched in memory.
#[derive(Clone, Copy)]
struct Course {
    start: Moment,
    length: Duration,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Announces a change, makes it in memory, and has the stores told.
    pub(crate) async fn invalidate(&self, what: &Invalidation<K>) -> Result<Version> {
        let Invalidation { target, verb, window } = what;
        let course = self.course(*window, *window);
        let following: Vec<_> = match target {
            Target::Keys(keys) => vec![self.follow_keys(keys, *verb)],
            Target::Tags(tags) => tags.iter().map(|it| self.follow_mark(Some(it), *verb)).collect(),
            Target::All => vec![self.follow_mark(None, *verb)],
        };
        if course.is_none()
            && let Target::Keys(keys) = target
        {
            // What is to be gone at once is gone before anybody else is told.
            keys.iter().for_each(|key| self.touch_key_at_once(key, *verb));
        }
        let Announced { version, outcome } = self.number(target, *verb, *window).await;
        let is_announced = self.seat.is_some() && outcome.is_ok();
        self.touch(target, *verb, version, course);
        self.meet_stores().await;
        self.tell_all_stores(target, *verb, version, is_announced).await;
        if course.is_none()
            && let Target::Keys(keys) = target
        {
            // What was read below before the stores knew.
            keys.iter().for_each(|key| self.touch_key_at_once(key, *verb));
        }
        for following in following {
            self.finish(following, version, is_announced).await;
        }
        self.count_invalidation(target, *verb);
        outcome.map(|()| version)
    }

    /// What another node does by and by: here in the same time, which may be over.
    pub(super) fn hear_of_gradual(
        self: Arc<Self>,
        change: &Change,
        window: Window,
        verb: Verb,
        version: Version,
    ) {
        let course = self.course(window.length, window.remaining());
        let (target, keys) = match change {
            Change::Keys(keys) => (Target::Keys(self.decode(keys)), keys.as_slice()),
            Change::Tags(tags) => (Target::Tags(tags.clone()), &[][..]),
            _ => (Target::All, &[][..]),
        };
        // Noted before memory is: what a read brings meanwhile is found by one of the
        // two.
        match &target {
            Target::Keys(_) => self.have_stores_told(keys, verb, version),
            _ => self.have_marks_told(&marks(&target, verb, version)),
        }
        self.touch(&target, verb, version, course);
    }

    /// `None`: at once. A window is no longer than an answer may be stale.
    fn course(&self, length: Duration, remaining: Duration) -> Option<Course> {
        let now = self.clock.now();
        let start = now + remaining - length;
        let length = length.min(self.policy.load().stale_while_revalidate);
        (!length.is_zero() && now < start + length).then_some(Course { start, length })
    }

    fn touch(&self, target: &Target<K>, verb: Verb, version: Version, course: Option<Course>) {
        let Some(Course { start, length }) = course else {
            match target {
                Target::Keys(keys) => {
                    keys.iter().for_each(|key| self.invalidate_older(key, verb, version));
                }
                _ => marks(target, verb, version).iter().for_each(|it| self.raise_in_memory(it)),
            }
            return;
        };
        let now = self.clock.now();
        let change = Gradual { verb, version, start, length };
        let begin = |scope| self.memory.invalidate_gradually(scope, change, now);
        match target {
            Target::Keys(keys) => {
                for key in keys {
                    // A load that began before would bring what nobody remembers in the
                    // end.
                    self.flights.fence_before(key, version, || ());
                    begin(Scope::Key(key.clone()));
                }
            }
            Target::Tags(tags) => tags.iter().for_each(|tag| begin(Scope::Tag(tag.clone()))),
            Target::All => begin(Scope::All),
        }
    }

    fn touch_key_at_once(&self, key: &K, verb: Verb) {
        match verb {
            Verb::Expire => self.expire_in_memory(key),
            Verb::Remove => self.remove_in_memory(key),
        };
    }

    async fn number(&self, target: &Target<K>, verb: Verb, window: Duration) -> Announced {
        let Some(seat) = &self.seat else {
            self.meet_stores().await;
            return Announced { version: self.memory.versions().next(), outcome: Ok(()) };
        };
        let change = match target {
            Target::Keys(keys) => Change::Keys(keys.iter().map(seat.encode).collect()),
            Target::Tags(tags) => Change::Tags(tags.clone()),
            Target::All => Change::All,
        };
        let change = match window.is_zero() {
            true => change,
            false => {
                Change::Gradual { change: Box::new(change), window: Window::beginning_now(window) }
            }
        };
        seat.announce(&self.name, change, verb).await
    }

    /// For a store it is at once: it has no other way to keep it for a process that
    /// starts later, and nothing that is heard of now is read from it in memory's place.
    async fn tell_all_stores(
        &self,
        target: &Target<K>,
        verb: Verb,
        version: Version,
        is_announced: bool,
    ) {
        let Some(lower) = &self.lower else { return };
        let tiers = lower.tiers_to_tell(is_announced);
        match target {
            Target::Keys(keys) => {
                let keys: Vec<Key> = keys.iter().map(lower.encode).collect();
                let tell = |tier| {
                    let tier: &crate::lower::StoreTier = tier;
                    tier.invalidate(&keys, version, verb, self.grounds())
                };
                join_all(tiers.map(tell)).await;
            }
            _ => {
                let marks = marks(target, verb, version);
                join_all(tiers.map(|tier| tier.mark(&marks, self.grounds()))).await;
            }
        }
    }

    fn count_invalidation(&self, target: &Target<K>, verb: Verb) {
        let (event, count) = match (target, verb) {
            (Target::Keys(keys), Verb::Expire) => (EventKind::ExpiredKey, keys.len()),
            (Target::Keys(keys), Verb::Remove) => (EventKind::RemovedKey, keys.len()),
            (Target::Tags(tags), Verb::Expire) => (EventKind::ExpiredTag, tags.len()),
            (Target::Tags(tags), Verb::Remove) => (EventKind::RemovedTag, tags.len()),
            (Target::All, Verb::Expire) => (EventKind::ExpiredTag, 1),
            (Target::All, Verb::Remove) => (EventKind::Cleared, 1),
        };
        (0..count).for_each(|_| self.telemetry.record(event, None));
    }
}

/// The watermarks of what is no key.
fn marks<K>(target: &Target<K>, verb: Verb, version: Version) -> Vec<Mark> {
    match target {
        Target::Keys(_) => Vec::new(),
        Target::Tags(tags) => {
            let mark = |tag: &_| Mark { tag: Some(Clone::clone(tag)), verb, version };
            tags.iter().map(mark).collect()
        }
        Target::All => vec![Mark { tag: None, verb, version }],
    }
}
