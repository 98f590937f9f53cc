//! Changing a cached value in place, by what an event says of it (I7).

use larder_core::{Entry, Result, Tags, Value, Verb};

use super::stores::Fill;
use crate::basis::{self, Basis};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::hit::Held;
use crate::policy::limits_below_stores;
use crate::telemetry::EventKind;

/// Changes of one key that come between before the value is given up.
const TRIES: usize = 16;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Replaces a fresh value by what `reduce` makes of it. Its age and its limits
    /// stay. Returns whether it did; if not, nothing is left that the change would have
    /// had to reach.
    pub(crate) async fn update(&self, key: &K, reduce: impl Fn(&V) -> Option<V>) -> Result<bool> {
        if self.seat.is_some() || self.behind.is_some() {
            // Which of two nodes changes it last, nobody could say; and what waits for the
            // origin is not to be changed but by what was accepted.
            self.remove(key).await?;
            return Ok(false);
        }
        let following = self.follow_keys([key], Verb::Remove);
        self.meet_stores().await;
        for _ in 0..TRIES {
            match self.update_in_memory(key, &reduce) {
                Tried::Updated(fill) => {
                    self.fill(fill.into_iter().collect()).await;
                    self.finish(following, self.begin_version(), false).await;
                    self.telemetry.record(EventKind::Updated, Some(key));
                    return Ok(true);
                }
                Tried::Nothing => break,
                Tried::Crossed => {}
            }
        }
        self.remove(key).await?;
        Ok(false)
    }

    fn update_in_memory(&self, key: &K, reduce: impl Fn(&V) -> Option<V>) -> Tried<K, V> {
        // Before it is looked at: a tag or a clear that comes later wins.
        let version = self.memory.versions().next();
        let now = self.clock.now();
        let is_fresh = |held: &larder_memory::Resident<K, V>| held.is_fresh(now);
        let Some(held) = self.memory.peek(key, now).filter(is_fresh) else {
            return Tried::Nothing;
        };
        let policy = self.policy.load();
        let entry = held.entry();
        // Foreign code: outside of every lock.
        let (value, basis) = basis::observe_call(|| entry.value.as_option().and_then(reduce));
        let Some(value) = value.filter(|_| basis == Basis::Fresh) else { return Tried::Nothing };
        let value = Value::Present(value);
        let Ok(sources) = self.dependency_tags(key, &value, &Tags::NONE) else {
            return Tried::Nothing;
        };
        let tags = entry.tags.union(&self.tag_rule(key, &value)).union(&sources);
        if !policy.class.may_be_cached() || !entry.class.may_be_cached() {
            return Tried::Nothing;
        }
        let updated = Entry {
            value,
            version,
            origin_read_at: entry.origin_read_at,
            fresh_until: held.fresh_until(),
            stale_until: held.stale_until(),
            load_cost: entry.load_cost,
            tags,
            class: entry.class.max(policy.class),
        };
        let (limits, _) = limits_below_stores(&policy, &updated, updated.age(now), now, None);
        let below = (limits.fresh_until, limits.stale_until);
        let put = self.flights.fence(key, || {
            let current = self.memory.peek(key, now);
            let is_same = current.as_ref().is_some_and(|current| current.is_same(&held));
            let new =
                is_same.then(|| self.memory.insert(key.clone(), updated, limits.lifetime, now));
            (current, new)
        });
        let (_current, new) = put;
        let Some(new) = new else { return Tried::Crossed };
        let (fresh_until, stale_until) = below;
        Tried::Updated(self.lower.is_some().then(|| Fill {
            held: Held::Resident(new),
            key: key.clone(),
            fresh_until,
            stale_until,
        }))
    }
}

/// How one try ended.
enum Tried<K, V> {
    Updated(Option<Fill<K, V>>),
    /// There is nothing fresh, or nothing is to be kept of it.
    Nothing,
    /// Something else changed the key meanwhile.
    Crossed,
}
