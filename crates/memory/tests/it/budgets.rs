//! That a budget is kept, and is good for something.

use larder_core::Value;
use larder_memory::{Budget, Lifetime, MemoryTier, Options};

use crate::support::{BEGIN, entry};

fn fill(tier: &MemoryTier<u64, u64>, entries: u64) {
    for number in 0..entries {
        let entry = entry(number, tier.versions().next(), BEGIN);
        tier.insert(number, entry, Lifetime::OF_ENTRY, BEGIN);
    }
}

/// Holds the entries kept against the limit: never more, and no less than 31 of
/// 32 of it.
#[track_caller]
fn check_entries(limit: u64, change: impl FnOnce(Options<u64, u64>) -> Options<u64, u64>) {
    let tier = MemoryTier::new(change(Options::new(Budget::entries(limit))));
    fill(&tier, limit * 4 + 100);
    let held = tier.statistics().entries;
    assert!(held <= limit, "{held} entries are held where {limit} are allowed");
    assert!(held >= limit - limit / 32, "only {held} entries are held of {limit}");
}

#[test]
fn a_limit_of_entries_is_never_exceeded() {
    for limit in (0..100).chain([127, 128, 129, 255, 257, 1000, 9_999, 10_001]) {
        check_entries(limit, |options| options);
        check_entries(limit, |options| options.shards(8));
        check_entries(limit, |options| options.shards(1000));
        check_entries(limit, |options| options.estimated_entries(100_000));
        check_entries(limit, |options| options.estimated_entries(1));
    }
}

#[test]
fn a_wrong_estimate_does_little_harm() {
    const BYTES: u64 = 4 << 20;
    let held = |estimated: Option<u64>| {
        let options = Options::new(Budget::<u64, u64>::bytes(BYTES));
        let options = match estimated {
            Some(entries) => options.estimated_entries(entries),
            None => options,
        };
        let tier = MemoryTier::new(options);
        fill(&tier, 40_000);
        assert!(tier.statistics().bytes <= BYTES);
        tier.statistics().entries
    };
    let usual = held(None);
    for estimated in [0, 1, usual / 10, usual * 10, 2_000_000, u64::MAX] {
        let held = held(Some(estimated));
        assert!(held * 10 >= usual * 9, "{held} of {usual} with an estimate of {estimated}");
    }
}

#[test]
fn absences_of_long_keys_stay_within_the_budget() {
    let weigh = |key: &String, value: Option<&String>| {
        key.capacity() + value.map_or(0, |value| value.capacity())
    };
    let tier = MemoryTier::new(Options::new(Budget::bytes_by(1 << 20, weigh)));
    for number in 0..500 {
        let mut entry = entry(String::new(), tier.versions().next(), BEGIN);
        entry.value = Value::Absent;
        let key = format!("{number}{}", "x".repeat(100_000));
        tier.insert(key, entry, Lifetime::OF_ENTRY, BEGIN);
    }
    let statistics = tier.statistics();
    assert!((1..=10).contains(&statistics.entries), "{statistics:?}");
    assert!(statistics.bytes >= statistics.entries * 100_000);
}

#[test]
fn many_shards_do_not_eat_a_small_budget() {
    let tier = MemoryTier::new(Options::new(Budget::bytes(1 << 20)).shards(1 << 10));
    fill(&tier, 10_000);
    assert!(tier.statistics().bytes > 700_000, "{:?}", tier.statistics());
}

#[test]
fn the_smallest_budget_keeps_something() {
    let keeps = |bytes: u64| {
        let tier = MemoryTier::<String, String>::new(Options::new(Budget::bytes(bytes)));
        let entry = entry("x".repeat(128), tier.versions().next(), BEGIN);
        tier.insert("y".repeat(128), entry, Lifetime::OF_ENTRY, BEGIN);
        tier.get(&"y".repeat(128), BEGIN).is_some()
    };
    let smallest = Budget::<String, String>::smallest_bytes();
    assert!((0..4 * smallest).step_by(7).all(|bytes| bytes < smallest || keeps(bytes)));
    assert!(!keeps(smallest / 2), "{smallest} bytes are more than is needed");
}
