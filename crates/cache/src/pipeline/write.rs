use std::borrow::Borrow;
use std::hash::Hash;

use larder_core::{Class, Entry, Error, ErrorKind, Moment, Result, Tag, Value, Version};
use larder_memory::Resident;

use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::Terms;
use crate::policy::{Answer, limits};
use crate::telemetry::EventKind;

/// What a put says about its entry.
pub(crate) type PutTerms = Terms;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Puts a value into memory. A load under way does not overwrite it.
    pub(crate) fn put(&self, key: &K, value: V, terms: &PutTerms) -> Result<Version> {
        let policy = self.policy.load();
        if !policy.class.may_be_cached() {
            return Err(self.never_kept(policy.class));
        }
        let value = Value::Present(value);
        let now = self.clock.now();
        let answer = Answer {
            present: true,
            origin_read_at: now,
            load_cost: std::time::Duration::ZERO,
            ttl: terms.ttl.or_else(|| self.ttl_rule(key, &value)),
            at_most: None,
            refreshable: self.origin.is_some(),
        };
        let tags = terms.tags.union(&self.tag_rule(key, &value));
        let Some(limits) = limits(&policy, &answer) else {
            // Whatever is there is older than what was not kept.
            self.remove(key);
            return Err(Error::new(ErrorKind::InvalidInput, "a TTL of zero keeps nothing")
                .with("cache", &self.name)
                .remedy("give the value a TTL above zero, or remove the key instead"));
        };
        self.reclaim_dead(key, now);
        let put = self.flights.fence(key, || {
            // Numbered under the fence, so that versions of one key grow in the
            // order in which they are written.
            let version = self.memory.versions().next();
            // And only then: whoever forbids the class clears the cache after that,
            // and so everything numbered before.
            let class = self.policy.load().class;
            if !class.may_be_cached() {
                return Err(self.never_kept(class));
            }
            let entry = Entry {
                value,
                version,
                origin_read_at: now,
                fresh_until: limits.fresh_until,
                stale_until: limits.stale_until,
                load_cost: answer.load_cost,
                tags,
                class: policy.class,
            };
            // Both leave the lock before either is dropped.
            let old = self.memory.peek(key, now);
            let new = self.memory.insert(key.clone(), entry, limits.lifetime, now);
            Ok((version, old, new))
        });
        let (version, _old, _new) = put?;
        self.telemetry.record(EventKind::Put, Some(key));
        self.reclaim_a_little();
        Ok(version)
    }

    fn never_kept(&self, class: Class) -> Error {
        Error::new(ErrorKind::InvalidInput, "data of this class is never kept")
            .with("cache", &self.name)
            .with("class", class)
            .remedy("write it to the origin only")
    }

    /// The key is no longer fresh; it may still be served stale.
    pub(crate) fn expire<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.clock.now();
        let expired = self.flights.fence(key, || {
            let held = self.memory.peek(key, now);
            self.memory.expire(key, now);
            held
        });
        self.telemetry.record(EventKind::ExpiredKey, expired.as_ref().map(Resident::key));
        expired.is_some()
    }

    /// The key is gone from memory, and no load that began before puts it back.
    /// Returns whether it could have been served.
    pub(crate) fn remove<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.clock.now();
        self.reclaim_dead(key, now);
        let removed = self.flights.fence(key, || self.take_out(key, now));
        self.telemetry.record(EventKind::RemovedKey, removed.as_ref().map(Resident::key));
        removed.is_some()
    }

    /// Takes the key's entry out of memory and returns it, so that it is dropped
    /// only after the lock under which this runs.
    pub(super) fn take_out<Q>(&self, key: &Q, now: Moment) -> Option<Resident<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let held = self.memory.peek(key, now);
        self.memory.remove(key);
        held
    }

    /// Gives back a dead entry of the key before a lock is taken under which it
    /// would be found and dropped.
    pub(super) fn reclaim_dead<Q>(&self, key: &Q, now: Moment)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if std::mem::needs_drop::<V>() && self.memory.peek(key, now).is_none() {
            // Getting what is dead reclaims it.
            drop(self.memory.get(key, now));
        }
    }

    /// Gives back a few of the entries that have expired, where no upkeep does so
    /// in the background.
    pub(super) fn reclaim_a_little(&self) {
        const ENTRIES: usize = 16;
        if !self.runtime.upkeep_runs() {
            self.memory.sweep(self.clock.now(), ENTRIES);
        }
    }

    // Tags and whole caches need no fence: an entry carries the version at which
    // its load began, and every look compares it with the watermark.

    pub(crate) fn expire_tag(&self, tag: &Tag) -> Version {
        let version = self.memory.expire_tag(tag, self.clock.now());
        self.telemetry.record(EventKind::ExpiredTag, None);
        version
    }

    pub(crate) fn remove_tag(&self, tag: &Tag) -> Version {
        let version = self.memory.remove_tag(tag);
        self.telemetry.record(EventKind::RemovedTag, None);
        version
    }

    pub(crate) fn clear(&self) -> Version {
        let version = self.memory.clear();
        self.telemetry.record(EventKind::Cleared, None);
        version
    }
}
