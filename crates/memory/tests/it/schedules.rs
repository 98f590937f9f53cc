//! Small races on one key in every order a model checker finds.
//!
//! ```console
//! RUSTFLAGS="--cfg shuttle" cargo test -p larder-memory --test it
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use larder_core::{Tag, Tags};
use larder_memory::{Budget, Cursor, Lifetime, MemoryTier, Options, Removal};
use shuttle::sync::Arc;
use shuttle::thread;

use crate::support::{BEGIN, entry, secs};

const SCHEDULES: usize = 5000;

struct Race {
    tier: Arc<MemoryTier<u32, u64>>,
    told: Arc<[AtomicU32; 4]>,
}

impl Race {
    fn new() -> Self {
        let told: Arc<[AtomicU32; 4]> = Arc::default();
        let writer = told.clone();
        let listener = Arc::new(move |removal: Removal<'_, u32, u64>| {
            let number = *removal.entry.value.as_option().expect("every value is present");
            writer[number as usize].fetch_add(1, Ordering::Relaxed);
        });
        let options = Options::new(Budget::entries(32)).shards(1).on_removal(listener);
        Self { tier: Arc::new(MemoryTier::new(options)), told }
    }

    fn put(tier: &MemoryTier<u32, u64>, number: u64) {
        let mut entry = entry(number, tier.versions().next(), BEGIN);
        entry.tags = Tags::new(["tag"]);
        tier.insert(1, entry, Lifetime::OF_ENTRY, BEGIN);
    }

    /// Runs these at the same time, then checks that each of the values
    /// `0..values` is held and listed, or was told of exactly once.
    fn run(&self, values: usize, actions: &[fn(&MemoryTier<u32, u64>)]) {
        let threads: Vec<_> = actions
            .iter()
            .map(|action| {
                let (tier, action) = (self.tier.clone(), *action);
                thread::spawn(move || action(&tier))
            })
            .collect();
        for thread in threads {
            thread.join().expect("no action panics");
        }
        let told: u32 = self.told.iter().map(|times| times.load(Ordering::Relaxed)).sum();
        assert!(self.told.iter().all(|times| times.load(Ordering::Relaxed) <= 1), "told twice");
        let held = self.tier.statistics().entries;
        assert_eq!(u64::from(told) + held, values as u64, "one was lost");
        // A clear would hide what the roster still has, so list it all.
        self.tier.clear();
        while self.tier.sweep(BEGIN, 100).more {}
        assert_eq!(self.tier.statistics().entries, 0);
        assert!(self.tier.next_sweep(BEGIN).is_never(), "a timer was left behind");
        assert!(self.tier.list(Cursor::START, 100, BEGIN).residents.is_empty());
    }
}

#[test]
fn two_replace_and_one_removes() {
    shuttle::check_random(
        || {
            Race::new().run(
                2,
                &[
                    |tier| Race::put(tier, 0),
                    |tier| Race::put(tier, 1),
                    |tier| {
                        tier.remove(&1);
                    },
                ],
            );
        },
        SCHEDULES,
    );
}

#[test]
fn a_sweep_meets_a_replacement() {
    shuttle::check_random(
        || {
            let race = Race::new();
            Race::put(&race.tier, 0);
            race.run(
                2,
                &[
                    |tier| Race::put(tier, 1),
                    |tier| {
                        tier.sweep(BEGIN + secs(60), 10);
                    },
                    |tier| {
                        tier.get(&1, BEGIN + secs(60));
                    },
                ],
            );
        },
        SCHEDULES,
    );
}

#[test]
fn a_tag_is_removed_during_a_load() {
    shuttle::check_random(
        || {
            let race = Race::new();
            let began = race.tier.versions().next();
            let tier = race.tier.clone();
            let remover = thread::spawn(move || {
                tier.remove_tag(&Tag::new("tag"));
                assert!(tier.get(&1, BEGIN).is_none(), "served after its tag was removed");
            });
            let tier = race.tier.clone();
            let loader = thread::spawn(move || {
                let mut entry = entry(0, began, BEGIN);
                entry.tags = Tags::new(["tag"]);
                tier.insert(1, entry, Lifetime::OF_ENTRY, BEGIN);
                tier.get(&1, BEGIN);
            });
            remover.join().expect("the removal wins");
            loader.join().expect("the load ends");
            assert!(race.tier.get(&1, BEGIN).is_none(), "an invalidation was lost");
            race.run(1, &[]);
        },
        SCHEDULES,
    );
}
