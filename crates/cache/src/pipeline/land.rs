use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::{
    Class, Entry, Error, ErrorKind, Loaded, Moment, Outcome, Result, Tags, Ttl, Value,
};
use larder_memory::Resident;

use super::stores::Fill;
use crate::basis::Basis;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Flight, Landing};
use crate::hit::{Held, StaleReason, Tier};
use crate::policy::{Answer, Limits, limits};
use crate::telemetry::{EndedBy, EventKind};

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Ends a flight: keeps the answer if its fence still holds, and tells
    /// everyone who waits. Returns what the stores below are to learn of it.
    pub(super) fn land(
        &self,
        flight: &Arc<Flight<K, V>>,
        answer: Result<Loaded<V>>,
        read_at: Moment,
        cost: Duration,
        end: EndedBy,
        basis: Basis,
    ) -> Aftermath<K, V> {
        let landing = answer.and_then(|loaded| {
            let basis = basis.and(said_basis(&loaded));
            let (entry, limits) = self.entry(flight, loaded, read_at, cost, basis)?;
            Ok((entry, limits, basis))
        });
        match landing {
            Ok((entry, limits, basis)) => {
                self.telemetry.record(EventKind::Loaded { cost }, Some(&flight.key));
                let below = limits.as_ref().map(|l| (l.fresh_until, l.stale_until));
                let (held, is_kept) =
                    self.keep(flight, entry, limits.map(|limits| self.in_memory(limits)));
                let tier = Tier::Origin;
                flight.land(Landing::Answer { held: held.clone(), tier, basis });
                match below {
                    None => Aftermath::Forget,
                    Some((fresh_until, stale_until)) if is_kept => {
                        let key = flight.key.clone();
                        Aftermath::Fill(Fill { held, key, fresh_until, stale_until })
                    }
                    Some(_) => Aftermath::Nothing,
                }
            }
            Err(error) => {
                self.land_failed(flight, end, error);
                Aftermath::Nothing
            }
        }
    }

    /// Keeps what a write has committed. Returns what the stores are to learn; `None`
    /// if it is not to be kept, or something came between.
    pub(super) fn keep_written(
        &self,
        flight: &Arc<Flight<K, V>>,
        loaded: Loaded<V>,
        read_at: Moment,
        cost: Duration,
    ) -> Option<Fill<K, V>> {
        let basis = said_basis(&loaded);
        let (entry, limits) = self.entry(flight, loaded, read_at, cost, basis).ok()?;
        let limits = limits?;
        let (fresh_until, stale_until) = (limits.fresh_until, limits.stale_until);
        let (held, is_kept) = self.keep(flight, entry, Some(self.in_memory(limits)));
        if !is_kept {
            return None;
        }
        flight.land(Landing::Answer { held: held.clone(), tier: Tier::Origin, basis });
        Some(Fill { held, key: flight.key.clone(), fresh_until, stale_until })
    }

    /// The limits in memory: where there are stores, they are asked again before
    /// the entry expires.
    pub(super) fn in_memory(&self, limits: Limits) -> Limits {
        match self.lower.as_ref().and_then(|lower| lower.memory_ttl) {
            Some(ttl) => limits.at_most(self.clock.now() + ttl),
            None => limits,
        }
    }

    pub(super) fn land_failed(&self, flight: &Arc<Flight<K, V>>, end: EndedBy, error: Error) {
        let error = error.with("cache", &self.name);
        self.telemetry.load_failed(end, error.kind(), &flight.key);
        self.flights.leave(flight, || ());
        flight.land(Landing::Failed(error));
    }

    /// Puts the entry into memory if it is to be kept and nothing came between.
    /// Says whether nothing did.
    pub(super) fn keep(
        &self,
        flight: &Arc<Flight<K, V>>,
        entry: Entry<V>,
        limits: Option<Limits>,
    ) -> (Held<K, V>, bool) {
        let now = self.clock.now();
        self.reclaim_dead(&flight.key, now);
        let Some(limits) = limits else {
            // A newer answer that is not to be kept leaves nothing older behind.
            self.flights.leave(flight, || self.take_out(&flight.key, now));
            return (Held::Detached(Arc::new(entry)), false);
        };
        let mut entry = Some(limited(entry, &limits));
        let kept = self.flights.leave_unheld(flight, || {
            // Both leave the lock before either is dropped.
            let old = self.memory.peek(&flight.key, now);
            let keep = |entry| self.memory.insert(flight.key.clone(), entry, limits.lifetime, now);
            (old, entry.take().map(keep))
        });
        self.reclaim_a_little();
        let kept = kept.and_then(|(_old, new)| new);
        let is_fenced = kept.as_ref().is_none_or(|kept| self.was_removed(kept.entry()));
        if is_fenced {
            self.telemetry.record(EventKind::Fenced, Some(&flight.key));
        }
        match (kept, entry) {
            (Some(resident), _) => (Held::Resident(resident), !is_fenced),
            (None, Some(entry)) => (Held::Detached(Arc::new(entry)), false),
            (None, None) => unreachable!("the entry is either kept or still here"),
        }
    }

    /// Whether a load's answer was removed by tag, or with the whole cache, before
    /// it came.
    fn was_removed(&self, entry: &Entry<V>) -> bool {
        self.memory.watermarks(&entry.tags).removed > entry.version
    }

    /// What "not modified" may be said of: what memory had, unless a tag or a clear
    /// took it before the load began. One that comes later fences the load. Nor what
    /// was computed from something stale: its loader is to look again.
    pub(super) fn renewable<'f>(&self, flight: &'f Flight<K, V>) -> Option<&'f Entry<V>> {
        // What memory has of a key may have had writes in it that the origin had not.
        let held = flight.held.as_ref().filter(|_| self.behind.is_none());
        let entry = held.map(Resident::entry)?;
        let removed = self.memory.watermarks(&entry.tags).removed;
        let is_valid = removed <= entry.version || removed > flight.begun();
        (is_valid && entry.fresh_until > entry.origin_read_at).then_some(entry)
    }

    /// The entry of a loader's answer, with its limits if it is to be kept.
    pub(super) fn entry(
        &self,
        flight: &Flight<K, V>,
        loaded: Loaded<V>,
        read_at: Moment,
        cost: Duration,
        basis: Basis,
    ) -> Result<(Entry<V>, Option<Limits>)> {
        let policy = self.policy.load();
        let mut renewed = None;
        let (value, mut may_keep, tags) = match loaded.outcome {
            Outcome::Found(value) => (value, true, loaded.tags),
            Outcome::DontCache(value) => (value, false, loaded.tags),
            Outcome::NotModified => {
                let held = self.renewable(flight).ok_or_else(not_held)?;
                renewed = Some(held);
                (held.value.clone(), true, loaded.tags.union(&held.tags))
            }
            _ => return Err(Error::new(ErrorKind::Unsupported, "unknown loader outcome")),
        };
        // What still holds is no less sensitive than it was.
        let class = renewed.map_or(policy.class, |held| held.class.max(policy.class));
        let class = loaded.class.unwrap_or(class);
        let of_value = || flight.terms.ttl.or_else(|| self.ttl_rule(&flight.key, &value));
        // What a request says is about a value; absence has a TTL of its own.
        let ttl = loaded.ttl.or_else(|| value.is_present().then(of_value).flatten());
        let tags = tags.union(&flight.terms.tags).union(&self.tag_rule(&flight.key, &value));
        let tags = match self.dependency_tags(&flight.key, &value, &loaded.sources) {
            Ok(others) => tags.union(&others),
            Err(error) => {
                // Nothing would invalidate it.
                may_keep = false;
                self.warn_of_sources(&error);
                tags
            }
        };
        let answer = Answer {
            present: value.is_present(),
            origin_read_at: read_at,
            load_cost: cost,
            ttl,
            // Nor does it hold longer, unless somebody says so.
            at_most: renewed.filter(|_| ttl.is_none()).map(|held| held.age(held.fresh_until)),
            refreshable: self.origin.is_some(),
        };
        may_keep &= basis != Basis::Fallback;
        let kept = may_keep && class.may_be_cached() && policy.class.may_be_cached();
        let limits = kept.then(|| limits(&policy, &answer)).flatten();
        let limits = match basis {
            Basis::Fresh => limits,
            _ => limits.and_then(|limits| limits.never_fresh(&policy, read_at)),
        };
        let limits = limits.map(|limits| self.until_writes_settle(limits));
        let entry = self.new_entry(value, flight, &limits, read_at, cost, tags, class);
        Ok((entry, limits))
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one struct, named there")]
    fn new_entry(
        &self,
        value: Value<V>,
        flight: &Flight<K, V>,
        limits: &Option<Limits>,
        read_at: Moment,
        load_cost: Duration,
        tags: Tags,
        class: Class,
    ) -> Entry<V> {
        let (fresh_until, stale_until) =
            limits.as_ref().map_or((read_at, read_at), |l| (l.fresh_until, l.stale_until));
        Entry {
            value,
            version: flight.begun(),
            origin_read_at: read_at,
            fresh_until,
            stale_until,
            load_cost,
            tags,
            class,
        }
    }

    /// Only so long that a write of which this node has not heard does not matter.
    fn until_writes_settle(&self, limits: Limits) -> Limits {
        let settled = Moment::from_nanos(self.writes_settle_at.load(Ordering::Acquire));
        if self.clock.now() < settled { limits.at_most(settled) } else { limits }
    }

    pub(crate) fn ttl_rule(&self, key: &K, value: &Value<V>) -> Option<Ttl> {
        let (rule, value) = (self.rules.ttl.as_ref()?, value.as_option()?);
        rule(key, value)
    }

    pub(crate) fn tag_rule(&self, key: &K, value: &Value<V>) -> Tags {
        let tags = self.rules.tags.as_ref().map_or(Tags::NONE, |rule| rule(key, value.as_option()));
        match &self.rules.levels {
            Some(levels) => tags.union(&levels.tags(key)),
            None => tags,
        }
    }
}

/// What the stores below are to learn of a load.
pub(super) enum Aftermath<K, V> {
    /// Its answer.
    Fill(Fill<K, V>),
    /// That what they have is older than an answer that is not kept.
    Forget,
    /// Nothing: it failed, or an invalidation came first, and told them itself.
    Nothing,
}

/// The entry with these limits.
pub(super) fn limited<V>(entry: Entry<V>, limits: &Limits) -> Entry<V> {
    Entry { fresh_until: limits.fresh_until, stale_until: limits.stale_until, ..entry }
}

/// What the loader says that the cache did not see.
pub(super) fn said_basis<V>(loaded: &Loaded<V>) -> Basis {
    if loaded.is_of_stale { Basis::Stale(StaleReason::Revalidating) } else { Basis::Fresh }
}

fn not_held() -> Error {
    let message = "the loader says \"not modified\" of what is not held";
    Error::new(ErrorKind::OriginFailed, message)
        .remedy("answer not_modified only when LoadContext::held names a version")
}
