use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Tag, Tags};
use larder_memory::{Budget, Cursor, Lifetime, MemoryTier, Options, Removal};

use crate::support::{BEGIN, entry};

/// Counts the values that exist.
#[derive(Debug)]
struct Counted(u64, Arc<AtomicU64>);

impl Counted {
    fn new(number: u64, alive: &Arc<AtomicU64>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(number, alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

type Tally = Arc<Mutex<HashMap<u64, u32>>>;

fn tallied(tally: &Tally) -> MemoryTier<u64, Counted> {
    let tally = tally.clone();
    let listener = Arc::new(move |removal: Removal<'_, u64, Counted>| {
        let number = removal.entry.value.as_option().expect("every value is present").0;
        *tally.lock().expect("no listener panics").entry(number).or_default() += 1;
    });
    MemoryTier::new(Options::new(Budget::entries(48)).shards(2).on_removal(listener))
}

/// One thread's random mixture of everything the tier can do.
fn work(tier: &MemoryTier<u64, Counted>, alive: &Arc<AtomicU64>, thread: u64, steps: u64) {
    let mut random = (thread + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for step in 0..steps {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = random % 64;
        let now = BEGIN + Duration::from_millis(step / 4);
        match random >> 32 & 31 {
            0..12 => {
                let number = thread * steps + step;
                let mut entry = entry(Counted::new(number, alive), tier.versions().next(), now);
                entry.fresh_until = now + Duration::from_millis(random >> 40 & 63);
                entry.stale_until = entry.fresh_until;
                entry.tags = Tags::new([format!("tag:{}", key % 5)]);
                let idle = (random >> 50 & 1 == 1).then_some(Duration::from_millis(20));
                tier.insert(key, entry, Lifetime { idle, ..Lifetime::OF_ENTRY }, now);
            }
            12..22 => drop(tier.get(&key, now)),
            22..24 => drop(tier.remove(&key)),
            24 => drop(tier.expire(&key, now)),
            25 => drop(tier.remove_tag(&Tag::new(&format!("tag:{}", key % 5)))),
            26 => drop((key == 0).then(|| tier.clear())),
            27..31 => drop(tier.sweep(now, 8)),
            _ => drop(tier.list(Cursor::START, 16, now)),
        }
    }
}

/// Whatever threads do to the same keys at the same time: every value that came
/// in is held or was told of exactly once, what is listed is what is held, and
/// nothing keeps a value alive that has left.
#[test]
fn every_entry_leaves_exactly_once() {
    const THREADS: u64 = 4;
    const STEPS: u64 = 30_000;
    let alive = Arc::new(AtomicU64::new(0));
    let tally = Tally::default();
    let tier = tallied(&tally);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (tier, alive) = (&tier, &alive);
            scope.spawn(move || work(tier, alive, thread, STEPS));
        }
    });
    let statistics = tier.statistics();
    assert_eq!(statistics.entries, alive.load(Ordering::Relaxed), "what left is freed");
    {
        let tally = tally.lock().expect("no listener panics");
        assert!(tally.values().all(|times| *times == 1), "an entry was told of twice");
        assert_eq!(statistics.removals.total(), tally.len() as u64);
        // Every removal is told, and every insertion is held or removed.
        let mut listed = 0;
        for resident in tier.list(Cursor::START, 1000, BEGIN).residents {
            let held = tier.peek(resident.key(), BEGIN).expect("what is listed is held");
            assert!(held.is_same(&resident), "the roster has what the cache has");
            let number = resident.entry().value.as_option().expect("every value is present").0;
            assert!(!tally.contains_key(&number), "what is held was not told of");
            listed += 1;
        }
        assert!(listed <= statistics.entries);
    }
    tier.clear();
    // The first round may only end a walk that a thread began.
    while tier.sweep(BEGIN, 1000).more {}
    while tier.sweep(BEGIN, 1000).more {}
    assert_eq!(tier.statistics().entries, 0);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "the roster holds on to something");
    drop(tier);
}
