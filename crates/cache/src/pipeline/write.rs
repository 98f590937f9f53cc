use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use larder_core::{Class, Entry, Error, ErrorKind, Moment, Result, Tag, Value, Verb, Version};
use larder_memory::Resident;

use super::stores::Fill;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::Terms;
use crate::hit::Held;
use crate::policy::{Answer, limits};
use crate::telemetry::EventKind;

/// What a put says about its entry.
pub(crate) type PutTerms = Terms;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Puts a value into memory and the stores. A load under way does not overwrite
    /// it.
    pub(crate) async fn put(&self, key: &K, value: V, terms: &PutTerms) -> Result<Version> {
        self.meet_stores().await;
        match self.put_in_memory(key, value, terms) {
            Ok((version, None)) => Ok(version),
            Ok((version, Some(fill))) => {
                self.fill(vec![fill]).await;
                self.take_out_older(key, version);
                Ok(version)
            }
            Err(error) => {
                self.remove_below(key).await;
                Err(error)
            }
        }
    }

    /// Takes out what was read below before the stores had a put that memory did
    /// not keep.
    fn take_out_older(&self, key: &K, version: Version) {
        let now = self.clock.now();
        let held = || self.memory.peek(key, now);
        if held().is_some_and(|held| held.entry().version >= version) {
            return;
        }
        self.reclaim_dead(key, now);
        let _old = self.flights.fence(key, || {
            let is_older = held().is_some_and(|held| held.entry().version < version);
            is_older.then(|| self.take_out(key, now))
        });
    }

    /// Puts a value into memory. Returns what the stores are to learn, if there
    /// are any.
    pub(crate) fn put_in_memory(
        &self,
        key: &K,
        value: V,
        terms: &PutTerms,
    ) -> Result<(Version, Option<Fill<K, V>>)> {
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
            self.remove_in_memory(key);
            return Err(Error::new(ErrorKind::InvalidInput, "a TTL of zero keeps nothing")
                .with("cache", &self.name)
                .remedy("give the value a TTL above zero, or remove the key instead"));
        };
        let below = (limits.fresh_until, limits.stale_until);
        let limits = self.in_memory(limits);
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
        let (version, _old, new) = put?;
        self.telemetry.record(EventKind::Put, Some(key));
        self.reclaim_a_little();
        let (fresh_until, stale_until) = below;
        let fill = self.lower.is_some().then(|| Fill {
            held: Held::Resident(new),
            key: key.clone(),
            fresh_until,
            stale_until,
        });
        Ok((version, fill))
    }

    fn never_kept(&self, class: Class) -> Error {
        Error::new(ErrorKind::InvalidInput, "data of this class is never kept")
            .with("cache", &self.name)
            .with("class", class)
            .remedy("write it to the origin only")
    }

    /// The key is no longer fresh; it may still be served stale.
    pub(crate) async fn expire(&self, key: &K) -> bool {
        let is_held = self.expire_in_memory(key);
        if self.lower.is_some() {
            self.meet_stores().await;
            let at = self.memory.versions().next();
            self.invalidate_stores(key, at, Verb::Expire).await;
            // What was read below before they knew.
            self.expire_in_memory(key);
        }
        self.telemetry.record(EventKind::ExpiredKey, Some(key));
        is_held
    }

    /// The key is gone from memory and the stores, and no load that began before
    /// puts it back. Returns whether memory could have served it.
    pub(crate) async fn remove(&self, key: &K) -> bool {
        let is_held = self.remove_in_memory(key);
        self.remove_below(key).await;
        self.telemetry.record(EventKind::RemovedKey, Some(key));
        is_held
    }

    async fn remove_below(&self, key: &K) {
        if self.lower.is_none() {
            return;
        }
        self.meet_stores().await;
        let at = self.memory.versions().next();
        self.invalidate_stores(key, at, Verb::Remove).await;
        // What was read below before they knew.
        self.remove_in_memory(key);
    }

    fn expire_in_memory(&self, key: &K) -> bool {
        let now = self.clock.now();
        let expired = self.flights.fence(key, || {
            let held = self.memory.peek(key, now);
            self.memory.expire(key, now);
            held
        });
        expired.is_some()
    }

    fn remove_in_memory(&self, key: &K) -> bool {
        let now = self.clock.now();
        self.reclaim_dead(key, now);
        let removed = self.flights.fence(key, || self.take_out(key, now));
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

    pub(crate) async fn expire_tag(&self, tag: &Tag) -> Version {
        self.meet_stores().await;
        let version = self.memory.expire_tag(tag, self.clock.now());
        self.mark_stores(Some(tag), Verb::Expire, version).await;
        self.telemetry.record(EventKind::ExpiredTag, None);
        version
    }

    pub(crate) async fn remove_tag(&self, tag: &Tag) -> Version {
        self.meet_stores().await;
        let version = self.memory.remove_tag(tag);
        self.mark_stores(Some(tag), Verb::Remove, version).await;
        self.telemetry.record(EventKind::RemovedTag, None);
        version
    }

    pub(crate) async fn clear(&self) -> Version {
        self.meet_stores().await;
        let version = self.clear_in_memory();
        self.mark_stores(None, Verb::Remove, version).await;
        version
    }

    /// The same where nobody can wait for the stores to know.
    pub(crate) fn clear_now(self: &Arc<Self>) {
        let version = self.clear_in_memory();
        self.mark_stores_later(Verb::Remove, version);
    }

    /// What the stores have is not served any more, and what comes is not put
    /// there.
    pub(crate) fn clear_stores_later(self: &Arc<Self>) {
        self.mark_stores_later(Verb::Remove, self.memory.versions().next());
    }

    fn clear_in_memory(&self) -> Version {
        let version = self.memory.clear();
        self.telemetry.record(EventKind::Cleared, None);
        version
    }
}
