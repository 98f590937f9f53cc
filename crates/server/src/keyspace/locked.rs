//! What commands do with keys, under the locks of all the keys they name.

use std::cell::Cell;
use std::time::Duration;

use super::shard::{At, Shard};
use super::table::Position;
use super::{Form, Keyspace, OutOfMemory, ShardGuard, WallTime};

/// The keyspace with the shards of certain keys locked: what is done through
/// it to those keys happens at once for everyone else.
///
/// Time stands still while it is held: all that is done through it sees the
/// same moment. The locks are re-entrant, so a whole-keyspace operation may run
/// on the same thread meanwhile, if every shard is held ([`Keyspace::lock_all`]).
pub struct Locked<'a> {
    keyspace: &'a Keyspace,
    now: Cell<Option<WallTime>>,
    _guards: Guards<'a>,
}

/// The locks held, released on drop.
pub(super) enum Guards<'a> {
    None,
    One { _guard: ShardGuard<'a> },
    Two { _guards: [ShardGuard<'a>; 2] },
    Many { _guards: Vec<ShardGuard<'a>> },
}

/// When a written entry is to expire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Never.
    Never,
    /// As before, never if the entry is new.
    Keep,
    /// Once this time has passed.
    At(WallTime),
}

/// What is known about an entry besides its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryDetails {
    /// When it expires, if it does.
    pub expiry: Option<WallTime>,
    /// Time since the last use, to the second. Meaningful under policies that
    /// do not count frequency.
    pub idle: Duration,
    /// Use of late on a logarithmic scale to 255. Meaningful under policies
    /// that count frequency.
    pub frequency: u32,
    /// How the value came about.
    pub form: Form,
    /// What the allocator has handed out for it, with its slot in the table.
    pub bytes: usize,
}

impl<'a> Locked<'a> {
    pub(super) fn new(keyspace: &'a Keyspace, guards: Guards<'a>) -> Self {
        Self { keyspace, now: Cell::new(None), _guards: guards }
    }

    /// The keyspace this is a part of.
    #[must_use]
    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    /// The moment at which all this happens.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.now.get().unwrap_or_else(|| {
            let now = self.keyspace.now();
            self.now.set(Some(now));
            now
        })
    }

    /// Makes room for what a write adds, by evicting.
    ///
    /// # Errors
    /// The memory limit is reached and the policy leaves nothing to evict.
    pub fn make_room(&self) -> Result<(), OutOfMemory> {
        self.keyspace.make_room()
    }

    /// Reads a value; counts a hit or a miss and a use. `read` must not call
    /// the keyspace.
    #[inline]
    pub fn read<R>(&mut self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.keyspace.read(key, || self.now(), read)
    }

    /// Reads a value without counting anything. `read` must not call the
    /// keyspace.
    pub fn peek<R>(&mut self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.at(key, |shard, _, position| Some(read(shard.table.entry(position?).value())))
    }

    /// Whether the key is there.
    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.at(key, |_, _, position| position.is_some())
    }

    /// Notes a use of the key; whether it is there.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        self.read(key, |_| ()).is_some()
    }

    /// What is known about the key's entry besides its value. Counts nothing.
    pub fn inspect(&mut self, key: &[u8]) -> Option<EntryDetails> {
        self.at(key, |shard, at, position| {
            let entry = shard.table.entry(position?);
            let slot = shard.table.bytes_per_slot();
            Some(EntryDetails {
                expiry: entry.expiry(),
                idle: at.recency.idle(entry.access()),
                frequency: at.recency.frequency(entry.access()),
                form: entry.form(),
                bytes: entry.allocated() + slot,
            })
        })
    }

    /// Writes a value; an expiry that has passed removes the key instead.
    pub fn set(&mut self, key: &[u8], value: &[u8], expiry: Expiry, form: Form) {
        if let Expiry::At(time) = expiry
            && time <= self.now()
        {
            if !self.remove(key) {
                // It was there, for no time at all: who watches it is told.
                self.at(key, |shard, at, _| shard.bump(at.hash));
            }
            return;
        }
        self.at(key, |shard, at, position| {
            let expiry = match expiry {
                Expiry::Never => None,
                Expiry::At(time) => Some(time),
                Expiry::Keep => position.and_then(|it| shard.table.entry(it).expiry()),
            };
            shard.write(at, position, value, expiry, form);
        });
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.at(key, |shard, at, position| {
            position.map(|position| shard.remove(at.hash, position)).is_some()
        })
    }

    /// When the key expires; `None` if it is not there, `Some(None)` if it does
    /// not expire.
    pub fn expiry(&mut self, key: &[u8]) -> Option<Option<WallTime>> {
        self.at(key, |shard, _, position| Some(shard.table.entry(position?).expiry()))
    }

    /// Sets when the key expires; a time that has passed removes it. Whether
    /// the key was there.
    pub fn set_expiry(&mut self, key: &[u8], expiry: Option<WallTime>) -> bool {
        if expiry.is_some_and(|time| time <= self.now()) {
            return self.remove(key);
        }
        self.change(key, |entry| entry.set_expiry(expiry)).is_some()
    }

    /// Appends to the value of a key that is there; the new length, or `None`
    /// if there is no such key.
    pub fn append(&mut self, key: &[u8], suffix: &[u8]) -> Option<usize> {
        self.change(key, |entry| {
            entry.append(suffix);
            entry.value().len()
        })
    }

    /// Overwrites the value of a key that is there from `offset`, filling with
    /// zero bytes; the new length, or `None` if there is no such key.
    pub fn overwrite(&mut self, key: &[u8], offset: usize, patch: &[u8]) -> Option<usize> {
        self.change(key, |entry| {
            entry.overwrite(offset, patch);
            entry.value().len()
        })
    }

    /// Copies a value and its expiry to another key, replacing what was there.
    /// Whether the source was there.
    pub fn copy(&mut self, source: &[u8], target: &[u8]) -> bool {
        let copied = self.at(source, |shard, _, position| {
            let entry = shard.table.entry(position?);
            Some((entry.value().to_vec(), entry.expiry(), entry.form()))
        });
        let Some((value, expiry, form)) = copied else { return false };
        let form = if form == Form::Written { Form::Copied } else { form };
        self.at(target, |shard, at, position| shard.write(at, position, &value, expiry, form));
        true
    }

    /// Moves a value and its expiry to another key, replacing what was there.
    /// Whether the source was there.
    pub fn rename(&mut self, source: &[u8], target: &[u8]) -> bool {
        if source == target {
            return self.contains(source);
        }
        let moved = self.at(source, |shard, at, position| {
            position.map(|position| shard.remove(at.hash, position))
        });
        let Some(entry) = moved else { return false };
        let expiry = entry.expiry();
        self.at(target, |shard, at, position| {
            shard.write(at, position, entry.value(), expiry, entry.form());
        });
        true
    }

    /// A number that differs from an earlier one whenever the key was written,
    /// removed, evicted, flushed or has expired in between. Rarely it differs
    /// though the key did not change.
    pub fn watch_version(&mut self, key: &[u8]) -> u64 {
        self.at(key, |shard, at, _| shard.version(at.hash))
    }

    fn change<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut super::entry::Entry) -> R,
    ) -> Option<R> {
        self.at(key, |shard, at, position| {
            let mut result = None;
            shard.update(at.hash, position?, |entry| result = Some(change(entry)));
            result
        })
    }

    /// Runs `act` on the key's shard with the position of its live entry.
    fn at<R>(&self, key: &[u8], act: impl FnOnce(&mut Shard, At<'_>, Option<Position>) -> R) -> R {
        self.keyspace.at(key, || self.now(), act)
    }
}

impl std::fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locked").field("now", &self.now.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::{KeyspaceOptions, WallClock, parse_integer};

    fn keyspace(shard_count: usize) -> (Keyspace, WallClock) {
        let clock = WallClock::manual(WallTime::from_unix_millis(1000));
        let options = KeyspaceOptions { clock: clock.clone(), shard_count, ..Default::default() };
        (Keyspace::new(options), clock)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, Vec<u8>, Option<i64>, bool),
        Remove(u8),
        SetExpiry(u8, Option<i64>),
        Append(u8, Vec<u8>),
        Overwrite(u8, usize, Vec<u8>),
        Copy(u8, u8),
        Rename(u8, u8),
        Wait(u64),
        Clear,
        Maintain,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0_u8..6;
        let value = || proptest::collection::vec(any::<u8>(), 0..60);
        let time = || proptest::option::of(0_i64..5000);
        let step = prop_oneof![
            4 => (key.clone(), value(), time(), any::<bool>())
                .prop_map(|(key, value, time, keep)| Step::Set(key, value, time, keep)),
            1 => key.clone().prop_map(Step::Remove),
            2 => (key.clone(), time()).prop_map(|(key, time)| Step::SetExpiry(key, time)),
            2 => (key.clone(), value()).prop_map(|(key, value)| Step::Append(key, value)),
            1 => (key.clone(), 0_usize..90, value())
                .prop_map(|(key, offset, value)| Step::Overwrite(key, offset, value)),
            1 => (key.clone(), key.clone()).prop_map(|(from, to)| Step::Copy(from, to)),
            1 => (key.clone(), key).prop_map(|(from, to)| Step::Rename(from, to)),
            2 => (0_u64..1000).prop_map(Step::Wait),
            1 => Just(Step::Clear),
            1 => Just(Step::Maintain),
        ];
        proptest::collection::vec(step, 0..80)
    }

    type Model = BTreeMap<u8, (Vec<u8>, Option<i64>)>;

    /// Does to the model what [`apply`] does to the keyspace; whether the key
    /// was there.
    fn apply_to_model(model: &mut Model, step: &Step, now: i64) -> bool {
        let change = |model: &mut Model, key: &u8, change: &dyn Fn(&mut Vec<u8>)| {
            model.get_mut(key).map(|(value, _)| change(value)).is_some()
        };
        match step {
            Step::Set(key, value, time, keep) => {
                let kept = model.get(key).and_then(|(_, expiry)| *expiry);
                model.insert(*key, (value.clone(), if *keep { kept } else { *time }));
                // A time that has come removes the key.
                if !*keep && time.is_some_and(|time| time <= now) {
                    model.remove(key);
                }
            }
            Step::Remove(key) => return model.remove(key).is_some(),
            Step::SetExpiry(key, time) => {
                let Some((_, expiry)) = model.get_mut(key) else { return false };
                *expiry = *time;
                if time.is_some_and(|time| time <= now) {
                    model.remove(key);
                }
            }
            Step::Append(key, suffix) => {
                return change(model, key, &|value| value.extend_from_slice(suffix));
            }
            Step::Overwrite(key, offset, patch) => {
                return change(model, key, &|value| {
                    value.resize(value.len().max(offset + patch.len()), 0);
                    value[*offset..offset + patch.len()].copy_from_slice(patch);
                });
            }
            Step::Copy(from, to) | Step::Rename(from, to) => {
                let Some(entry) = model.get(from).cloned() else { return false };
                if matches!(step, Step::Rename(..)) {
                    model.remove(from);
                }
                model.insert(*to, entry);
            }
            Step::Clear => model.clear(),
            Step::Wait(_) | Step::Maintain => {}
        }
        true
    }

    fn apply(keyspace: &Keyspace, clock: &WallClock, step: &Step) -> bool {
        let mut locked = keyspace.lock([]);
        match step {
            Step::Set(key, value, time, keep) => {
                let at =
                    time.map_or(Expiry::Never, |time| Expiry::At(WallTime::from_unix_millis(time)));
                let expiry = if *keep { Expiry::Keep } else { at };
                locked.set(&[*key], value, expiry, Form::Written);
            }
            Step::Remove(key) => return locked.remove(&[*key]),
            Step::SetExpiry(key, time) => {
                return locked.set_expiry(&[*key], time.map(WallTime::from_unix_millis));
            }
            Step::Append(key, suffix) => return locked.append(&[*key], suffix).is_some(),
            Step::Overwrite(key, offset, patch) => {
                return locked.overwrite(&[*key], *offset, patch).is_some();
            }
            Step::Copy(from, to) => return locked.copy(&[*from], &[*to]),
            Step::Rename(from, to) => return locked.rename(&[*from], &[*to]),
            Step::Wait(millis) => clock.advance(Duration::from_millis(*millis)),
            Step::Clear => keyspace.clear(),
            Step::Maintain => {
                keyspace.maintain(Duration::from_secs(1));
            }
        }
        true
    }

    proptest! {
        #[test]
        fn the_keyspace_is_a_map_whose_entries_expire(
            shard_count in prop_oneof![Just(1_usize), Just(4)],
            steps in steps(),
        ) {
            let (keyspace, clock) = keyspace(shard_count);
            let mut model = Model::new();
            for step in &steps {
                let now = clock.now().unix_millis();
                model.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry >= now));
                let versions: Vec<u64> =
                    (0..6).map(|key| keyspace.watch_version(&[key])).collect();
                let before = model.clone();
                let expected = apply_to_model(&mut model, step, now);
                prop_assert_eq!(apply(&keyspace, &clock, step), expected, "{:?}", step);
                let now = clock.now().unix_millis();
                model.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry >= now));
                for key in 0..6_u8 {
                    let held = model.get(&key);
                    let mut locked = keyspace.lock([&[key][..]]);
                    let is_changed = held != before.get(&key);
                    let is_noticed = locked.watch_version(&[key]) != versions[usize::from(key)];
                    prop_assert!(is_noticed || !is_changed, "{:?} changed {} unseen", step, key);
                    let expiry = locked.expiry(&[key]);
                    let value = locked.read(&[key], <[u8]>::to_vec);
                    prop_assert_eq!(value.as_ref(), held.map(|(value, _)| value), "{:?}", step);
                    let expiry = expiry.map(|it| it.map(WallTime::unix_millis));
                    prop_assert_eq!(expiry, held.map(|(_, expiry)| *expiry), "{:?}", step);
                }
            }
        }
    }

    #[test]
    fn a_watched_key_that_expires_in_between_is_noticed() {
        let (keyspace, clock) = keyspace(1024);
        keyspace.lock([]).set(
            b"k",
            b"v",
            Expiry::At(WallTime::from_unix_millis(2000)),
            Form::Written,
        );
        let watched = keyspace.watch_version(b"k");
        assert_eq!(keyspace.watch_version(b"k"), watched);
        clock.advance(Duration::from_secs(2));
        assert_ne!(keyspace.lock([&b"k"[..]]).watch_version(b"k"), watched);
    }

    #[test]
    fn writes_to_other_keys_are_hardly_ever_taken_for_one_to_the_watched() {
        let (keyspace, _) = keyspace(1024);
        let watched = keyspace.watch_version(b"k");
        let in_vain = (0..20_000).filter(|number: &u32| {
            let before = keyspace.watch_version(b"k");
            keyspace.set(&number.to_le_bytes(), b"v").expect("there is no limit");
            keyspace.watch_version(b"k") != before
        });
        let in_vain = in_vain.count();
        assert!(in_vain < 20, "{in_vain} of 20 000, from version {watched}");
    }

    #[test]
    fn increments_from_many_threads_add_up() {
        let (keyspace, _) = keyspace(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for step in 0..2000_u32 {
                        let name = [b"abc"[step as usize % 3]];
                        let mut locked = keyspace.lock([&name[..]]);
                        let sum = locked.read(&name, parse_integer).flatten().unwrap_or(0) + 1;
                        let text = sum.to_string();
                        locked.set(&name, text.as_bytes(), Expiry::Never, Form::Written);
                    }
                });
            }
        });
        let sum: i64 = [b"a", b"b", b"c"]
            .into_iter()
            .filter_map(|name| keyspace.get(name, parse_integer).flatten())
            .sum();
        assert_eq!(sum, 16_000);
    }

    #[test]
    fn writes_of_several_keys_and_renames_are_seen_whole() {
        let (keyspace, _) = keyspace(64);
        let names: Vec<Vec<u8>> = (0..5_u8).map(|number| vec![b'k', number]).collect();
        let all = || names.iter().map(Vec::as_slice);
        let write = |value: &[u8]| {
            let mut locked = keyspace.lock(all());
            all().for_each(|name| locked.set(name, value, Expiry::Never, Form::Written));
        };
        write(b"0");
        keyspace.set(b"here", b"v").expect("there is no limit");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..4000).for_each(|round: u32| write(round.to_string().as_bytes()));
                is_done.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                for round in 0..4000 {
                    let (from, to) =
                        if round % 2 == 0 { (b"here", b"gone") } else { (b"gone", b"here") };
                    assert!(keyspace.lock([&from[..], &to[..]]).rename(from, to));
                }
            });
            while !is_done.load(Ordering::Acquire) {
                // Keys named in the other order must not stop the writer.
                let mut locked = keyspace.lock(all().rev());
                let values: Vec<Vec<u8>> =
                    all().filter_map(|name| locked.peek(name, <[u8]>::to_vec)).collect();
                assert!(
                    values.len() == 5 && values.iter().all(|it| *it == values[0]),
                    "{values:?}"
                );
                drop(locked);
                let mut locked = keyspace.lock([&b"gone"[..], b"here"]);
                assert!(locked.contains(b"here") != locked.contains(b"gone"));
            }
        });
    }

    #[test]
    fn holders_of_many_shards_never_wait_in_a_circle() {
        let options = KeyspaceOptions {
            memory_limit: Some(200_000),
            shard_count: 8,
            ..KeyspaceOptions::default()
        };
        let keyspace = Keyspace::new(options);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let keyspace = &keyspace;
                scope.spawn(move || {
                    for round in 0..2000_u32 {
                        let names: Vec<[u8; 4]> = (0..1 + round % 5)
                            .map(|index| {
                                (thread * 7919 + round * 31 + index * 104_729).to_le_bytes()
                            })
                            .collect();
                        let mut locked = match round % 50 {
                            0 => keyspace.lock_all(),
                            _ => keyspace.lock(names.iter().map(|name| &name[..])),
                        };
                        for name in &names {
                            // Evicts from other shards while these are held.
                            locked.make_room().expect("every entry may go");
                            locked.set(name, &[b'v'; 300], Expiry::Never, Form::Written);
                        }
                        if round % 50 == 0 {
                            assert!(keyspace.len() <= 8 * 5 * 2000);
                            keyspace.random_key(|_| ());
                            keyspace.scan(crate::keyspace::Cursor::START, 50, |_, _| ());
                            keyspace.maintain(Duration::from_millis(1));
                        }
                        if round % 500 == 0 {
                            keyspace.clear();
                        }
                    }
                });
            }
        });
        assert!(keyspace.statistics().bytes < 400_000);
    }
}
