use std::borrow::Borrow;
use std::hash::Hash;

use larder_core::{Entry, Error, ErrorKind, Result, Tag, Value, Version};

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
            return Err(Error::new(ErrorKind::InvalidInput, "data of this class is never kept")
                .with("cache", &self.name)
                .with("class", policy.class)
                .remedy("write it to the origin only"));
        }
        let value = Value::Present(value);
        let now = self.clock.now();
        let answer = Answer {
            present: true,
            origin_read_at: now,
            load_cost: std::time::Duration::ZERO,
            ttl: terms.ttl.or_else(|| self.ttl_rule(key, &value)),
            refreshable: self.origin.is_some(),
        };
        let tags = terms.tags.union(&self.tag_rule(key, &value));
        let Some(limits) = limits(&policy, &answer) else {
            return Err(Error::new(ErrorKind::InvalidInput, "a TTL of zero keeps nothing")
                .with("cache", &self.name)
                .remedy("give the value a TTL above zero, or do not put it"));
        };
        let version = self.flights.fence(key, || {
            // Numbered under the fence, so that versions of one key grow in the
            // order in which they are written.
            let version = self.memory.versions().next();
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
            self.memory.insert(key.clone(), entry, limits.lifetime, now);
            version
        });
        self.telemetry.record(EventKind::Put, Some(key));
        Ok(version)
    }

    /// The key is no longer fresh; it may still be served stale.
    pub(crate) fn expire<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let expired = self.flights.fence(key, || self.memory.expire(key, self.clock.now()));
        self.telemetry.record(EventKind::ExpiredKey, None);
        expired
    }

    /// The key is gone from memory, and no load that began before puts it back.
    pub(crate) fn remove<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = self.flights.fence(key, || self.memory.remove(key));
        self.telemetry.record(EventKind::RemovedKey, None);
        removed
    }

    // Tags and whole caches need no fence: an entry carries the version at which
    // its load began, and every look compares it with the watermark.

    pub(crate) fn expire_tag(&self, tag: &Tag) -> Version {
        self.telemetry.record(EventKind::ExpiredTag, None);
        self.memory.expire_tag(tag, self.clock.now())
    }

    pub(crate) fn remove_tag(&self, tag: &Tag) -> Version {
        self.telemetry.record(EventKind::RemovedTag, None);
        self.memory.remove_tag(tag)
    }

    pub(crate) fn clear(&self) -> Version {
        self.telemetry.record(EventKind::Cleared, None);
        self.memory.clear()
    }
}
