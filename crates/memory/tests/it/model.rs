//! The tier against a map with times, driven by the same steps.

use std::collections::HashMap;
use std::time::Duration;

use larder_core::{Moment, Tag, Tags, Version};
use larder_memory::{Budget, Lifetime, MemoryTier, RemovalCause};
use proptest::prelude::*;

use crate::support::{BEGIN, Told, entry, observed, take};

const KEYS: u32 = 6;
const TAGS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    /// Key, milliseconds fresh and stale, idle milliseconds, tags as bits, and
    /// how many versions ago the load began.
    Put {
        key: u32,
        fresh: u64,
        stale: u64,
        idle: Option<u64>,
        tags: usize,
        ago: u64,
    },
    Get(u32),
    Peek(u32),
    Remove(u32),
    Expire(u32),
    RemoveTag(usize),
    ExpireTag(usize),
    Clear,
    ExpireAll,
    Sweep,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let put = (key(), 0..400_u64, 0..400_u64, prop::option::of(1..300_u64), 0..8_usize, 0..4_u64)
        .prop_map(|(key, fresh, stale, idle, tags, ago)| Step::Put {
            key,
            fresh,
            stale,
            idle,
            tags,
            ago,
        });
    prop_oneof![
        6 => put,
        6 => key().prop_map(Step::Get),
        2 => key().prop_map(Step::Peek),
        1 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::Expire),
        1 => (0..TAGS.len()).prop_map(Step::RemoveTag),
        1 => (0..TAGS.len()).prop_map(Step::ExpireTag),
        1 => Just(Step::Clear),
        1 => Just(Step::ExpireAll),
        2 => Just(Step::Sweep),
        5 => (0..200_u64).prop_map(Step::Advance),
    ]
}

struct Held {
    value: u64,
    version: Version,
    fresh_until: Moment,
    stale_until: Moment,
    idle: Option<Duration>,
    last_access: Moment,
    tags: usize,
    /// Set by an invalidation, at once for all it concerns.
    dead: Option<RemovalCause>,
}

impl Held {
    fn death(&self, now: Moment) -> Option<RemovalCause> {
        let idle_until = self.idle.map_or(Moment::NEVER, |idle| self.last_access + idle);
        let over = now >= self.stale_until.min(idle_until);
        self.dead.or(over.then_some(RemovalCause::Expired))
    }
}

struct Model {
    held: HashMap<u32, Held>,
    told: Vec<(u32, u64, RemovalCause)>,
    removed: [Version; 3],
    expired: [Version; 3],
    cleared: Version,
    all_expired: Version,
    now: Moment,
    values: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            held: HashMap::new(),
            told: Vec::new(),
            removed: [Version::ZERO; 3],
            expired: [Version::ZERO; 3],
            cleared: Version::ZERO,
            all_expired: Version::ZERO,
            now: BEGIN,
            values: 0,
        }
    }

    fn leave(&mut self, key: u32, cause: RemovalCause) -> Option<RemovalCause> {
        let held = self.held.remove(&key)?;
        self.told.push((key, held.value, cause));
        Some(cause)
    }

    /// The value and freshness of a servable entry.
    fn look(&self, key: u32) -> Option<(u64, bool)> {
        let held = self.held.get(&key).filter(|held| held.death(self.now).is_none())?;
        Some((held.value, self.now < held.fresh_until))
    }

    fn invalidate(&mut self) {
        for held in self.held.values_mut() {
            let tagged = |marks: &[Version; 3]| {
                (0..3).any(|tag| held.tags & 1 << tag != 0 && held.version < marks[tag])
            };
            if held.version < self.cleared {
                held.dead = Some(RemovalCause::Cleared);
            } else if tagged(&self.removed) {
                held.dead = Some(RemovalCause::Tag);
            }
            if held.version < self.all_expired || tagged(&self.expired) {
                held.fresh_until = held.fresh_until.min(self.now);
            }
        }
    }

    fn run(&mut self, tier: &MemoryTier<u32, u64>, step: &Step) {
        match *step {
            Step::Put { .. } => self.put(tier, step),
            Step::Get(key) => {
                let got = tier.get(&key, self.now);
                let seen = got.map(|hit| {
                    (*hit.entry().value.as_option().expect("present"), hit.is_fresh(self.now))
                });
                assert_eq!(seen, self.look(key), "get {key}");
                match self.held.get_mut(&key).map(|held| (held.death(self.now), held)) {
                    Some((None, held)) => held.last_access = self.now,
                    Some((Some(cause), _)) => drop(self.leave(key, cause)),
                    None => {}
                }
            }
            Step::Peek(key) => {
                let seen = tier.peek(&key, self.now).map(|hit| {
                    (*hit.entry().value.as_option().expect("present"), hit.is_fresh(self.now))
                });
                assert_eq!(seen, self.look(key), "peek {key}");
            }
            Step::Remove(key) => {
                let cause = self.held.get(&key).and_then(|held| held.dead);
                let cause = self.leave(key, cause.unwrap_or(RemovalCause::Removed));
                assert_eq!(tier.remove(&key), cause == Some(RemovalCause::Removed));
            }
            Step::Expire(key) => {
                let there = self.look(key).is_some();
                assert_eq!(tier.expire(&key, self.now), there);
                if let Some(held) = self.held.get_mut(&key).filter(|_| there) {
                    held.fresh_until = held.fresh_until.min(self.now);
                }
            }
            Step::RemoveTag(tag) => self.removed[tag] = tier.remove_tag(&Tag::new(TAGS[tag])),
            Step::ExpireTag(tag) => {
                self.expired[tag] = tier.expire_tag(&Tag::new(TAGS[tag]), self.now);
            }
            Step::Clear => self.cleared = tier.clear(),
            Step::ExpireAll => self.all_expired = tier.expire_all(self.now),
            Step::Sweep => self.sweep(tier),
            Step::Advance(millis) => self.now = self.now + Duration::from_millis(millis),
        }
        self.invalidate();
    }

    fn put(&mut self, tier: &MemoryTier<u32, u64>, step: &Step) {
        let Step::Put { key, fresh, stale, idle, tags, ago } = *step else { return };
        let next = tier.versions().next();
        let version = Version::new(next.get().saturating_sub(ago));
        self.values += 1;
        let mut entry = entry(self.values, version, self.now);
        entry.fresh_until = self.now + Duration::from_millis(fresh);
        entry.stale_until = entry.fresh_until + Duration::from_millis(stale);
        entry.tags =
            (0..3).filter(|tag| tags & 1 << tag != 0).map(|tag| TAGS[tag]).collect::<Tags>();
        let idle = idle.map(Duration::from_millis);
        let lifetime = Lifetime { idle, ..Lifetime::OF_ENTRY };
        if let Some(held) = self.held.get(&key) {
            let cause = held.death(self.now).unwrap_or(RemovalCause::Replaced);
            self.leave(key, cause);
        }
        let held = Held {
            value: self.values,
            version,
            fresh_until: entry.fresh_until,
            stale_until: entry.stale_until,
            idle,
            last_access: self.now,
            tags,
            dead: None,
        };
        self.held.insert(key, held);
        tier.insert(key, entry, lifetime, self.now);
        self.invalidate();
        if let Some(cause) = self.held[&key].death(self.now) {
            self.leave(key, cause);
        }
    }

    fn sweep(&mut self, tier: &MemoryTier<u32, u64>) {
        while tier.sweep(self.now, 3).more {}
        // Timers come up to a tick late, so what expired just now may be left.
        let tick = Duration::from_millis(17);
        for (key, held) in std::mem::take(&mut self.held) {
            let swept = held.dead.is_some() || held.death(self.now - tick).is_some();
            let there = tier.list(larder_memory::Cursor::START, 100, Moment::START);
            let there = there
                .residents
                .iter()
                .any(|resident| resident.entry().value.as_option() == Some(&held.value));
            if there {
                assert!(!swept, "key {key} is still held after a sweep");
                self.held.insert(key, held);
            } else {
                let cause = held.death(self.now).expect("only what is dead is swept");
                self.told.push((key, held.value, cause));
            }
        }
    }
}

fn check(steps: &[Step]) {
    let (tier, told): (MemoryTier<u32, u64>, Told) = observed(Budget::entries(1000));
    let mut model = Model::new();
    for step in steps {
        model.run(&tier, step);
        let mut expected = std::mem::take(&mut model.told);
        expected.sort_by_key(|(key, value, _)| (*key, *value));
        assert_eq!(take(&told), expected, "after {step:?}");
        assert_eq!(tier.statistics().entries, model.held.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_tier_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        check(&steps);
    }
}
