use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{
    Announcement, Change, Class, Cover, Entry, Error, ErrorKind, Mark, Moment, Reach, Result, Tag,
    Value, Verb, Version, level_tag,
};
use larder_memory::Resident;

use super::stores::Fill;
use crate::engine::{CacheKey, CacheValue, Engine, Levels};
use crate::fleet::{Announced, Seat};
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
        self.refuse_put()?;
        let announced = match &self.seat {
            Some(seat) => Some(self.announce_key(seat, key, Verb::Remove).await),
            None => None,
        };
        let following = self.follow_keys([key], Verb::Remove);
        self.meet_stores().await;
        let is_announced = announced.as_ref().is_some_and(|announced| announced.outcome.is_ok());
        let (numbered, at, outcome) = match announced {
            Some(Announced { version, outcome: Ok(()) }) => (Some(version), version, Ok(())),
            // What could not be announced has no number that nobody else may have. It is
            // as old as what began before all that is not heard of yet.
            Some(Announced { version, outcome }) => (Some(self.begin_version()), version, outcome),
            None => (None, self.memory.versions().next(), Ok(())),
        };
        let put = match self.put_in_memory(key, value, terms, numbered) {
            Ok((version, None)) => outcome.map(|()| version),
            Ok((version, Some(fill))) => {
                self.fill(vec![fill]).await;
                self.take_out_overtaken(key, version);
                outcome.map(|()| version)
            }
            Err(error) => {
                self.tell_stores(key, at, Verb::Remove, is_announced).await;
                Err(error)
            }
        };
        self.finish(following, at, is_announced).await;
        put
    }

    /// Takes out what was read below before the stores had a put that memory did
    /// not keep.
    fn take_out_overtaken(&self, key: &K, version: Version) {
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

    /// Puts a value into memory, under the number that the bus gave it if there are
    /// other nodes. Returns what the stores are to learn, if there are any.
    pub(crate) fn put_in_memory(
        &self,
        key: &K,
        value: V,
        terms: &PutTerms,
        numbered: Option<Version>,
    ) -> Result<(Version, Option<Fill<K, V>>)> {
        self.refuse_put()?;
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
        let tags = tags.union(&self.dependency_tags(key, &value, &terms.sources)?);
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
            let version = numbered.unwrap_or_else(|| self.memory.versions().next());
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
            // A newer change may have been about this key, and nobody will say so again.
            let heard = self.seat.as_ref().map(|seat| seat.fleet.heard());
            if numbered.is_some() && heard > Some(version) {
                self.memory.remove(key);
            }
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
    pub(crate) async fn expire(&self, key: &K) -> Result<bool> {
        let is_held = self.expire_in_memory(key);
        let told = self.tell_of_key(key, Verb::Expire).await;
        self.telemetry.record(EventKind::ExpiredKey, Some(key));
        told.map(|()| is_held)
    }

    /// The key is gone from memory and the stores, and no load that began before
    /// puts it back. Returns whether memory could have served it.
    pub(crate) async fn remove(&self, key: &K) -> Result<bool> {
        let is_held = self.remove_in_memory(key);
        let told = self.tell_of_key(key, Verb::Remove).await;
        self.telemetry.record(EventKind::RemovedKey, Some(key));
        told.map(|()| is_held)
    }

    /// Tells the other nodes and the stores that a key was invalidated.
    async fn tell_of_key(&self, key: &K, verb: Verb) -> Result<()> {
        let following = self.follow_keys([key], verb);
        let (at, outcome) = match &self.seat {
            Some(seat) => {
                // First: from then on it is announced also if this call is dropped.
                let Announced { version, outcome } = self.announce_key(seat, key, verb).await;
                self.meet_stores().await;
                (version, outcome)
            }
            None if self.lower.is_some() || following.is_some() => {
                self.meet_stores().await;
                (self.memory.versions().next(), Ok(()))
            }
            None => return Ok(()),
        };
        let is_announced = self.seat.is_some() && outcome.is_ok();
        self.tell_stores(key, at, verb, is_announced).await;
        self.finish(following, at, is_announced).await;
        outcome
    }

    async fn tell_stores(&self, key: &K, at: Version, verb: Verb, is_announced: bool) {
        self.invalidate_stores(std::slice::from_ref(key), at, verb, is_announced).await;
        // What was read below before they knew.
        match verb {
            Verb::Expire => self.expire_in_memory(key),
            Verb::Remove => self.remove_in_memory(key),
        };
    }

    async fn announce_key(&self, seat: &Seat<K>, key: &K, verb: Verb) -> Announced {
        let change = Change::Keys(vec![(seat.encode)(key)]);
        seat.announce(&self.name, change, verb).await
    }

    pub(super) fn expire_in_memory(&self, key: &K) -> bool {
        let now = self.clock.now();
        let expired = self.flights.fence(key, || {
            let held = self.memory.peek(key, now);
            self.memory.expire(key, now);
            held
        });
        expired.is_some()
    }

    pub(super) fn remove_in_memory(&self, key: &K) -> bool {
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

    pub(crate) async fn expire_tag(&self, tag: &Tag) -> Result<Version> {
        self.telemetry.record(EventKind::ExpiredTag, None);
        self.raise(Some(tag), Verb::Expire).await
    }

    pub(crate) async fn remove_tag(&self, tag: &Tag) -> Result<Version> {
        self.telemetry.record(EventKind::RemovedTag, None);
        self.raise(Some(tag), Verb::Remove).await
    }

    pub(crate) async fn clear(&self) -> Result<Version> {
        self.telemetry.record(EventKind::Cleared, None);
        self.raise(None, Verb::Remove).await
    }

    /// Invalidates every key that begins like this, or more where no watermark is as
    /// narrow as that.
    pub(crate) async fn invalidate_prefix(&self, prefix: &str, verb: Verb) -> Result<Cover> {
        let cover = self.levels()?.pattern.cover_prefix(prefix);
        self.invalidate_cover(cover, verb).await
    }

    /// The same for every key that a glob matches.
    pub(crate) async fn invalidate_glob(&self, glob: &str, verb: Verb) -> Result<Cover> {
        let cover = self.levels()?.pattern.cover_glob(glob);
        self.invalidate_cover(cover, verb).await
    }

    fn levels(&self) -> Result<&Levels<K>> {
        self.rules.levels.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Config, "this cache does not know the pattern of its keys")
                .with("cache", &self.name)
                .remedy("declare it with `prefixes`")
        })
    }

    async fn invalidate_cover(&self, cover: Cover, verb: Verb) -> Result<Cover> {
        match &cover.reach {
            Reach::Nothing => {}
            Reach::Key(key) => {
                // What is no key of this cache is not in it.
                if let Some(key) = (self.levels()?.decode)(key) {
                    match verb {
                        Verb::Expire => self.expire(&key).await?,
                        Verb::Remove => self.remove(&key).await?,
                    };
                }
            }
            Reach::Level(prefix) => {
                let kind = match verb {
                    Verb::Expire => EventKind::ExpiredTag,
                    Verb::Remove => EventKind::RemovedTag,
                };
                self.telemetry.record(kind, None);
                self.raise(Some(&level_tag(prefix)), verb).await?;
            }
            _ => {
                self.telemetry.record(EventKind::Cleared, None);
                self.raise(None, verb).await?;
            }
        }
        Ok(cover)
    }

    /// Raises a watermark everywhere, over a tag or over all there is.
    async fn raise(&self, tag: Option<&Tag>, verb: Verb) -> Result<Version> {
        let following = self.follow_mark(tag, verb);
        let Announced { version, outcome } = match &self.seat {
            Some(seat) => {
                let change = tag.map_or(Change::All, |tag| Change::Tags(vec![tag.clone()]));
                seat.announce(&self.name, change, verb).await
            }
            None => {
                self.meet_stores().await;
                Announced { version: self.memory.versions().next(), outcome: Ok(()) }
            }
        };
        let mark = Mark { tag: tag.cloned(), verb, version };
        self.raise_in_memory(&mark);
        self.meet_stores().await;
        let is_announced = self.seat.is_some() && outcome.is_ok();
        self.mark_stores(&mark, is_announced).await;
        self.finish(following, version, is_announced).await;
        outcome.map(|()| version)
    }

    pub(super) fn raise_in_memory(&self, mark: &Mark) {
        let now = self.clock.now();
        match (&mark.tag, mark.verb) {
            (Some(tag), Verb::Remove) => self.memory.remove_tag_at(tag, mark.version),
            (Some(tag), Verb::Expire) => self.memory.expire_tag_at(tag, mark.version, now),
            (None, Verb::Remove) => self.memory.clear_at(mark.version),
            (None, Verb::Expire) => {
                self.expired_below.fetch_max(mark.version.get(), Ordering::AcqRel);
                self.memory.expire_all_at(mark.version, now);
            }
        }
    }

    /// Clears where nobody can wait for the stores and the other nodes to know.
    pub(crate) fn clear_now(self: &Arc<Self>) {
        self.telemetry.record(EventKind::Cleared, None);
        let version = self.number_now();
        self.memory.clear_at(version);
        self.mark_stores_later(Verb::Remove, version);
    }

    /// What the stores have is not served any more, and what comes is not put
    /// there.
    pub(crate) fn clear_stores_later(self: &Arc<Self>) {
        self.mark_stores_later(Verb::Remove, self.number_now());
    }

    /// A version above all that is held. What began with it already counts as
    /// older until the bus has numbered the change.
    fn number_now(&self) -> Version {
        let Some(seat) = &self.seat else { return self.memory.versions().next() };
        let (cache, change) = (self.name.clone(), Change::All);
        seat.fleet.announce_later(Announcement { cache, change, verb: Verb::Remove });
        seat.fleet.heard().above()
    }
}
