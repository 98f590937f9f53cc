//! Invalidations that take each entry at a moment of its own.
//!
//! A change has a window. When an entry is touched within it follows from a hash of
//! its key, seeded by the change, so that nothing is kept for an entry, every node
//! comes to the same moment, and the moments of many entries are spread evenly. Until
//! then an entry is suspect: not fresh any more, but not to be loaded anew either.
//! When the window is over the change is one like any other.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use larder_core::{Moment, Tag, Tags, Verb, Version};

use crate::sync::{AtomicU64, Hashing, Mutex, Ordering};

/// What a gradual change touches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope<K> {
    /// The entry of this key.
    Key(K),
    /// Every entry with this tag.
    Tag(Tag),
    /// Every entry.
    All,
}

/// A change that takes effect by and by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gradual {
    /// What an entry's moment does to it.
    pub verb: Verb,
    /// Entries of older versions are touched.
    pub version: Version,
    /// When the window begins: from then on they are suspect.
    pub start: Moment,
    /// How long it takes. Then all of them have been touched.
    pub length: Duration,
}

/// How an entry stands with gradual changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// None touches it.
    Sound,
    /// One has begun that will touch it at this moment.
    Suspect(Moment),
    /// Its moment has come.
    Touched(Verb),
}

/// What the changes under way say of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) standing: Standing,
    /// When the first of them began that touches it.
    pub(crate) since: Moment,
}

/// The changes under way.
#[derive(Debug)]
pub(crate) struct Graduals<K> {
    /// The highest version of any; zero where there is none.
    newest: AtomicU64,
    table: Mutex<Table<K>>,
}

#[derive(Debug)]
struct Table<K> {
    keys: HashMap<K, Changes, Hashing>,
    tags: HashMap<Tag, Changes, Hashing>,
    all: Changes,
    first_end: Moment,
    count: usize,
}

/// Changes of one scope, in the order in which they came.
type Changes = Vec<Seeded>;

#[derive(Clone, Copy, Debug)]
struct Seeded {
    change: Gradual,
    /// The version of the change whose moments these are.
    seed: u64,
}

/// So many overlapping changes of one scope are told apart. Of more, two that began
/// shortly after each other become one.
const OVERLAPS_MAX: usize = 8;

/// So many changes are under way at a time. What comes then takes effect at once.
const CHANGES_MAX: usize = 65_536;

impl Gradual {
    fn end(&self) -> Moment {
        self.start + self.length
    }
}

impl Seeded {
    /// The moment of a key.
    fn moment<Q: Hash + ?Sized>(&self, key: &Q) -> Moment {
        let length = u128::from(u64::try_from(self.change.length.as_nanos()).unwrap_or(u64::MAX));
        let offset = (length * u128::from(spread(key, self.seed))) >> 64;
        // Below the length, which fits.
        self.change.start + Duration::from_nanos(offset as u64)
    }
}

impl<K: Hash + Eq> Graduals<K> {
    pub(crate) fn new() -> Self {
        let table = Table {
            keys: HashMap::default(),
            tags: HashMap::default(),
            all: Vec::new(),
            first_end: Moment::NEVER,
            count: 0,
        };
        Self { newest: AtomicU64::new(0), table: Mutex::new(table) }
    }

    /// Notes a change. `false`: there are too many, it has to take effect at once.
    pub(crate) fn add(&self, scope: Scope<K>, change: Gradual) -> bool {
        let mut table = self.table.lock();
        if table.count >= CHANGES_MAX {
            return false;
        }
        let changes = match scope {
            Scope::Key(key) => table.keys.entry(key).or_default(),
            Scope::Tag(tag) => table.tags.entry(tag).or_default(),
            Scope::All => &mut table.all,
        };
        let seed = change.version.get();
        // Heard of twice: it ends when it was to end first.
        let known = changes.iter_mut().find(|it| it.seed == seed && it.change.verb == change.verb);
        if let Some(known) = known {
            if change.end() < known.change.end() {
                known.change = change;
            }
        } else {
            changes.push(Seeded { change, seed });
            if changes.len() > OVERLAPS_MAX {
                unite_closest(changes);
            } else {
                table.count += 1;
            }
        }
        table.first_end = table.first_end.min(change.end());
        self.newest.fetch_max(seed, Ordering::AcqRel);
        true
    }

    /// How an entry stands.
    pub(crate) fn verdict<Q>(&self, key: &Q, version: Version, tags: &Tags, now: Moment) -> Verdict
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut verdict = Verdict { standing: Standing::Sound, since: Moment::NEVER };
        if !self.concerns(version) {
            return verdict;
        }
        let table = self.table.lock();
        let tagged = tags.iter().filter_map(|tag| table.tags.get(tag)).flatten();
        let keyed = table.keys.get(key).into_iter().flatten();
        for it in tagged.chain(keyed).chain(&table.all) {
            if version < it.change.version {
                verdict = verdict.and(it.change.start, it.moment(key), it.change.verb, now);
            }
        }
        verdict
    }

    /// Whether any change may touch what has this version. One comparison.
    pub(crate) fn concerns(&self, version: Version) -> bool {
        version.get() < self.newest.load(Ordering::Acquire)
    }

    /// When the first of them is over.
    pub(crate) fn first_end(&self) -> Moment {
        self.table.lock().first_end
    }

    /// Has every change whose window is over take effect as any other, and forgets
    /// it. `settle` is called under a lock.
    pub(crate) fn settle(&self, now: Moment, mut settle: impl FnMut(Scope<&K>, Gradual)) {
        if self.newest.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut table = self.table.lock();
        if now < table.first_end {
            return;
        }
        let Table { keys, tags, all, first_end, count } = &mut *table;
        (*count, *first_end) = (0, Moment::NEVER);
        let mut newest = 0;
        let mut go_on = |changes: &mut Changes, settle: &mut dyn FnMut(Gradual)| {
            changes.retain(|it| {
                let goes_on = now < it.change.end();
                if goes_on {
                    *first_end = it.change.end().min(*first_end);
                    newest = newest.max(it.change.version.get());
                    *count += 1;
                } else {
                    settle(it.change);
                }
                goes_on
            });
            !changes.is_empty()
        };
        keys.retain(|key, changes| go_on(changes, &mut |change| settle(Scope::Key(key), change)));
        tags.retain(|tag, changes| {
            go_on(changes, &mut |change| settle(Scope::Tag(tag.clone()), change))
        });
        go_on(all, &mut |change| settle(Scope::All, change));
        self.newest.store(newest, Ordering::Release);
    }
}

impl Verdict {
    fn and(self, start: Moment, moment: Moment, verb: Verb, now: Moment) -> Self {
        let since = self.since.min(start);
        let standing = match (self.standing, now < moment) {
            (Standing::Touched(Verb::Remove), _) => self.standing,
            (Standing::Touched(_), _) if verb == Verb::Expire => self.standing,
            (Standing::Touched(_), true) => self.standing,
            (_, false) => Standing::Touched(verb),
            (Standing::Suspect(other), true) => Standing::Suspect(other.min(moment)),
            (Standing::Sound, true) => Standing::Suspect(moment),
        };
        Self { standing, since }
    }
}

/// Makes one of the two changes of one verb that began closest to each other. What
/// only the later one touches is touched early rather than late.
fn unite_closest(changes: &mut Changes) {
    let pairs = (1..changes.len()).flat_map(|later| (0..later).map(move |one| (one, later)));
    let of_one_verb =
        pairs.filter(|(one, later)| changes[*one].change.verb == changes[*later].change.verb);
    let gap = |(one, later): &(usize, usize)| {
        let (one, later) = (changes[*one].change.start, changes[*later].change.start);
        one.since(later).max(later.since(one))
    };
    // Of more than two changes there are two of one verb.
    let Some((one, later)) = of_one_verb.min_by_key(gap) else { return };
    let gone = changes.remove(later);
    let kept = &mut changes[one];
    let version = kept.change.version.max(gone.change.version);
    if gone.change.end() < kept.change.end() {
        *kept = gone;
    }
    kept.change.version = version;
}

/// A number for a key that is spread evenly over all numbers, and is the same in
/// every process.
fn spread<Q: Hash + ?Sized>(key: &Q, seed: u64) -> u64 {
    let mut hasher = Evenly(seed ^ 0x9E37_79B9_7F4A_7C15);
    key.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a over what a key consists of, and the finaliser of `SplitMix64` over that:
/// `foldhash` makes no promise to stay as it is.
struct Evenly(u64);

impl Hasher for Evenly {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn change(version: u64, start: u64, verb: Verb) -> Gradual {
        Gradual { verb, version: Version::new(version), start: at(start), length: SECOND * 30 }
    }

    fn tagged() -> Tags {
        Tags::new(["price"])
    }

    /// The greatest distance between the share of moments before a time and that
    /// time's share of the window (Kolmogorov and Smirnov).
    fn distance(mut shares: Vec<f64>) -> f64 {
        shares.sort_unstable_by(f64::total_cmp);
        let count = shares.len() as f64;
        let gap = |(index, share): (usize, &f64)| {
            let below = index as f64 / count;
            (share - below).abs().max((below + 1.0 / count - share).abs())
        };
        shares.iter().enumerate().map(gap).fold(0.0, f64::max)
    }

    #[test]
    fn moments_are_spread_evenly_over_the_window() {
        // 1.95/√n is passed by one even spread in a thousand, and there are 60 here;
        // seeds are fixed, so that the test says the same each time.
        const KEYS: u64 = 10_000;
        let threshold = 1.95 / (KEYS as f64).sqrt();
        let share = |moment: Moment, change: &Gradual| {
            moment.since(change.start).as_secs_f64() / change.length.as_secs_f64()
        };
        for version in 1..=20 {
            let change = change(version, 100, Verb::Expire);
            let it = Seeded { change, seed: version };
            let numbers = (0..KEYS).map(|key| share(it.moment(&key), &change)).collect();
            let names =
                (0..KEYS).map(|key| share(it.moment(&format!("quote:{key}")), &change)).collect();
            let bytes = (0..KEYS)
                .map(|key| share(it.moment(key.to_be_bytes().as_slice()), &change))
                .collect();
            for shares in [numbers, names, bytes] {
                let distance = distance(shares);
                assert!(distance < threshold, "{distance} of {threshold}, version {version}");
            }
        }
    }

    #[test]
    fn two_changes_have_moments_that_say_nothing_of_each_other() {
        let one = Seeded { change: change(1, 0, Verb::Expire), seed: 1 };
        let two = Seeded { change: change(2, 0, Verb::Expire), seed: 2 };
        // Of two even spreads that are independent the sum modulo one is even, too.
        let share = |it: &Seeded, key: u64| it.moment(&key).as_nanos() as f64 / 30e9;
        let both = (0..10_000).map(|key| (share(&one, key) + share(&two, key)).fract()).collect();
        let apart =
            (0..10_000).map(|key| (share(&one, key) - share(&two, key)).rem_euclid(1.0)).collect();
        assert!(distance(both) < 0.0195);
        assert!(distance(apart) < 0.0195);
    }

    #[test]
    fn an_entry_is_suspect_until_its_moment_and_touched_from_then_on() {
        let graduals = Graduals::<u64>::new();
        assert!(graduals.add(Scope::Tag(Tag::new("price")), change(9, 100, Verb::Remove)));
        let verdict = |version, now| graduals.verdict(&7, Version::new(version), &tagged(), now);
        let Standing::Suspect(moment) = verdict(8, at(100)).standing else {
            panic!("its moment comes later")
        };
        assert!(at(100) <= moment && moment < at(130));
        assert_eq!(verdict(8, moment).standing, Standing::Touched(Verb::Remove));
        assert_eq!(verdict(9, at(200)).standing, Standing::Sound, "it is no older");
        let other = graduals.verdict(&7, Version::new(8), &Tags::new(["other"]), at(200));
        assert_eq!(other.standing, Standing::Sound);
    }

    #[test]
    fn of_overlapping_changes_the_first_moment_counts() {
        let graduals = Graduals::<u64>::new();
        for number in 0..100 {
            graduals
                .add(Scope::Tag(Tag::new("price")), change(number + 1, 100 + number, Verb::Expire));
        }
        assert!(graduals.table.lock().count <= OVERLAPS_MAX);
        // Whatever became one: nothing is touched later than the first change says.
        for key in 0..1000 {
            let verdict = graduals.verdict(&key, Version::ZERO, &tagged(), at(130));
            assert_eq!(verdict.standing, Standing::Touched(Verb::Expire));
            // What came before the last one only is touched by its end.
            let last = graduals.verdict(&key, Version::new(99), &tagged(), at(229));
            assert_eq!(last.standing, Standing::Touched(Verb::Expire));
        }
        let later = |key: &u64| {
            let verdict = graduals.verdict(key, Version::new(99), &tagged(), at(199));
            matches!(verdict.standing, Standing::Suspect(_))
        };
        assert!((0..1000).filter(later).count() > 500, "becoming one makes few of them early");
    }

    #[test]
    fn what_is_over_is_settled_once() {
        let graduals = Graduals::<u64>::new();
        graduals.add(Scope::Key(1), change(3, 100, Verb::Remove));
        graduals.add(Scope::All, change(4, 110, Verb::Expire));
        let settled = |now| {
            let mut settled = Vec::new();
            graduals.settle(now, |scope, change| {
                let scope = match scope {
                    Scope::Key(key) => Scope::Key(*key),
                    Scope::Tag(tag) => Scope::Tag(tag),
                    Scope::All => Scope::All,
                };
                settled.push((scope, change.version.get()));
            });
            settled
        };
        assert_eq!(settled(at(129)), []);
        assert_eq!(settled(at(130)), [(Scope::Key(1), 3)]);
        assert!(graduals.concerns(Version::new(3)));
        assert_eq!(settled(at(140)), [(Scope::All, 4)]);
        assert!(!graduals.concerns(Version::ZERO), "no look is slowed down any more");
    }

    #[test]
    fn hearing_of_a_change_twice_does_not_lengthen_it() {
        let graduals = Graduals::<u64>::new();
        graduals.add(Scope::All, change(4, 100, Verb::Expire));
        graduals.add(Scope::All, change(4, 120, Verb::Expire));
        assert_eq!(graduals.table.lock().count, 1);
        let verdict = graduals.verdict(&1, Version::ZERO, &Tags::default(), at(130));
        assert_eq!(verdict.standing, Standing::Touched(Verb::Expire));
    }

    #[test]
    fn too_many_are_not_taken() {
        let graduals = Graduals::<u64>::new();
        for key in 0..CHANGES_MAX as u64 {
            assert!(graduals.add(Scope::Key(key), change(1, 100, Verb::Expire)));
        }
        assert!(!graduals.add(Scope::All, change(1, 100, Verb::Expire)));
    }
}
