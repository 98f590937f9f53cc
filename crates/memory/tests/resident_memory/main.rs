//! What the tier takes from the allocator. Its own binary, as the allocator is
//! that of the whole process; and each measurement runs in a process of its own,
//! as memory that an earlier one gave back would be used again unseen.
#![cfg(not(shuttle))]

mod heap_size;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_core::{Class, Entry, Moment, Tags, Value, Version};
use larder_memory::{Budget, Lifetime, MemoryTier, Options, Sliding};
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats, thread};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MIB: u64 = 1 << 20;
const NOW: Moment = Moment::from_nanos(3_600_000_000_000);

/// Says in the process of a measurement what its allocator does with free pages.
const ALONE: &str = "LARDER_MEMORY_TEST_ALONE";

/// As it does by itself: free pages go back to the system after some seconds.
const BY_DEFAULT: &str = "";

/// Free pages go back at once, so that nothing depends on how fast a test runs.
const AT_ONCE: &str = "dirty_decay_ms:0,muzzy_decay_ms:0";

/// The bytes of the allocator's map of addresses.
const MAP: &str = "stats.metadata_rtree\0";

/// Runs the test of this name in processes of its own, and there its body.
#[allow(clippy::print_stdout, reason = "the figures are what the test is about")]
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let this = std::env::current_exe().expect("a test binary has a path");
    for pages in [BY_DEFAULT, AT_ONCE] {
        let output = Command::new(&this)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ALONE, pages)
            .env("_RJEM_MALLOC_CONF", pages)
            .output()
            .expect("a test binary can be run");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert!(said.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Bytes of memory the allocator has from the system and has not given back,
/// and bytes of allocations.
///
/// Without the allocator's map of addresses. It counts as resident, whatever was
/// touched of it, and grows by half a megabyte wherever the system places memory
/// beyond what it covers so far: by chance, whatever the budget.
fn memory() -> (u64, u64) {
    epoch::advance().expect("jemalloc keeps statistics");
    let resident = stats::resident::read().expect("jemalloc keeps statistics");
    let allocated = stats::allocated::read().expect("jemalloc keeps statistics");
    let map: usize = MAP.name().read().expect("jemalloc keeps statistics");
    ((resident - map) as u64, allocated as u64)
}

type Tier = MemoryTier<String, Box<[u8]>>;

fn put(tier: &Tier, number: u64, size: usize, tags: &dyn Fn(u64) -> Tags) {
    let entry = Entry {
        value: Value::Present(vec![0; size].into_boxed_slice()),
        version: tier.versions().next(),
        origin_read_at: NOW,
        fresh_until: NOW + Duration::from_secs(60 + number % 3600),
        stale_until: NOW + Duration::from_secs(7200),
        load_cost: Duration::from_millis(1),
        tags: tags(number),
        class: Class::Public,
    };
    tier.insert(format!("product:{number:010}"), entry, Lifetime::OF_ENTRY, NOW);
}

/// Fills a tier, then replaces and evicts several times what it holds, and holds
/// the memory it takes against its budget.
#[allow(clippy::print_stdout, reason = "the figures are what the test is about")]
fn check(budget: u64, sizes: &[usize], tags: &dyn Fn(u64) -> Tags) {
    // What an earlier tier gave back is resident still as far as the allocator
    // keeps it for this thread, and with it each page of which it keeps a part: a
    // megabyte and more that a second tier would use without seeming to take it.
    static MEASURED: AtomicBool = AtomicBool::new(false);
    let is_second = MEASURED.swap(true, Ordering::Relaxed);
    assert!(!is_second, "a measurement has a process of its own: make a test of each");
    let (resident_before, allocated_before) = memory();
    let tier = Tier::new(Options::new(Budget::bytes(budget)));
    let size = |number: u64| sizes[number as usize % sizes.len()];
    let mut number = 0;
    while tier.statistics().removals.total() < 1000 {
        for _ in 0..500 {
            put(&tier, number, size(number), tags);
            number += 1;
        }
    }
    let judge = |phase: &str| {
        let statistics = tier.statistics();
        let (resident, allocated) = memory();
        let of_budget = |now: u64, before: u64| now.saturating_sub(before) as f64 / budget as f64;
        let allocated = of_budget(allocated, allocated_before);
        let resident = of_budget(resident, resident_before);
        println!(
            "{:4} MiB, values of {sizes:?} bytes, {phase}: {} entries, counted {:.3}, allocated \
             {:.3}, resident {resident:.3} of the budget",
            budget / MIB,
            statistics.entries,
            statistics.bytes as f64 / budget as f64,
            allocated,
        );
        if std::env::var_os(ALONE).is_some_and(|pages| pages == AT_ONCE) {
            assert!((0.75..=1.2).contains(&resident), "takes {resident:.3} of the budget");
        } else {
            // The allocator keeps for some seconds what was freed.
            for taken in [resident, allocated] {
                assert!((0.75..=1.25).contains(&taken), "takes {taken:.3} of the budget");
            }
        }
        allocated
    };
    judge("full");
    let entries = tier.statistics().entries;
    for step in 0..entries * 2 {
        // New keys, and every third time one that may be there still.
        let old = number.saturating_sub(step * 7919 % entries);
        let key = if step % 3 == 0 { old } else { number + step };
        put(&tier, key, size(step), tags);
        tier.get(format!("product:{old:010}").as_str(), NOW);
    }
    // What is counted is what is allocated; the rest is the allocator's own. A
    // table of one shard that has just doubled is some per cent of a small budget.
    let most = if budget < 16 * MIB { 1.1 } else { 1.0 };
    let allocated = judge("after churn");
    assert!(allocated <= most, "{allocated:.3} of the budget are allocated");
}

#[test]
fn small_values_stay_within_the_budget() {
    alone("small_values_stay_within_the_budget", || {
        check(32 * MIB, &[16], &|_| Tags::NONE);
    });
}

#[test]
fn large_values_stay_within_the_budget() {
    alone("large_values_stay_within_the_budget", || {
        check(32 * MIB, &[4096], &|_| Tags::NONE);
    });
}

#[test]
fn values_of_mixed_sizes_stay_within_the_budget() {
    alone("values_of_mixed_sizes_stay_within_the_budget", || {
        check(32 * MIB, &[16, 100, 333, 1000, 4096, 12_345], &|_| Tags::NONE);
    });
}

#[test]
fn a_small_budget_is_kept_with_small_values() {
    alone("a_small_budget_is_kept_with_small_values", || {
        check(4 * MIB, &[16], &|_| Tags::NONE);
    });
}

#[test]
fn a_small_budget_is_kept_with_large_values() {
    alone("a_small_budget_is_kept_with_large_values", || {
        check(4 * MIB, &[4096], &|_| Tags::NONE);
    });
}

#[test]
fn shared_tags_are_counted() {
    alone("shared_tags_are_counted", || {
        let shared = |number: u64| Tags::new(["table:product", &format!("page:{}", number % 50)]);
        check(16 * MIB, &[100], &shared);
    });
}

#[test]
fn tags_of_single_entries_are_counted() {
    alone("tags_of_single_entries_are_counted", || {
        let own = |number: u64| Tags::new([format!("customer:{number}")]);
        check(16 * MIB, &[100], &own);
    });
}

#[test]
fn tags_leave_with_their_entries() {
    alone("tags_leave_with_their_entries", || {
        let (_, before) = memory();
        let tier = Tier::new(Options::new(Budget::bytes(16 * MIB)));
        for number in 0..20_000 {
            put(&tier, number, 100, &|number| Tags::new([format!("customer:{number}")]));
        }
        for number in 0..80_000 {
            put(&tier, number, 100, &|_| Tags::NONE);
        }
        while tier.sweep(NOW, 1000).more {}
        let (_, after) = memory();
        assert!(tier.statistics().tags < 4000, "{} tags are left", tier.statistics().tags);
        assert!(after - before < 16 * MIB, "{} bytes are allocated", after - before);
    });
}

#[test]
fn an_empty_tier_takes_next_to_nothing() {
    alone("an_empty_tier_takes_next_to_nothing", || {
        let (_, before) = memory();
        let tier = Tier::new(Options::new(Budget::bytes(1024 * MIB)));
        let (_, after) = memory();
        assert!(after - before < 128 << 10, "{} bytes", after - before);
        drop(tier);
    });
}

#[test]
fn cleared_entries_give_their_memory_back() {
    alone("cleared_entries_give_their_memory_back", || {
        let (_, before) = memory();
        let tier = Tier::new(Options::new(Budget::bytes(64 * MIB)));
        for number in 0..10_000 {
            put(&tier, number, 4096, &|_| Tags::NONE);
        }
        let (_, full) = memory();
        assert!(full - before > 40 * MIB);
        tier.clear();
        while tier.sweep(NOW, 1000).more {}
        let (_, swept) = memory();
        assert!(swept.saturating_sub(before) < 3 * MIB, "{} bytes are left", swept - before);
    });
}

#[test]
fn a_hit_allocates_nothing() {
    alone("a_hit_allocates_nothing", || {
        let tier = Tier::new(Options::new(Budget::bytes(16 * MIB)));
        let tags = |number: u64| Tags::new([format!("page:{}", number % 50)]);
        for number in 0..1000 {
            put(&tier, number, 100, &tags);
        }
        let mut moving =
            tier.peek("product:0000000001", NOW).expect("it was put in").entry().clone();
        moving.version = Version::new(u64::MAX >> 1);
        let sliding = Sliding { base: Duration::from_secs(600), limit: Moment::NEVER };
        let lifetime = Lifetime {
            idle: Some(Duration::from_secs(60)),
            sliding: Some(sliding),
            attention_at: NOW + Duration::from_secs(30),
        };
        tier.insert("moving".to_owned(), moving, lifetime, NOW);
        let keys: Vec<String> = (0..1000).map(|number| format!("product:{number:010}")).collect();
        let hits = |now: Moment| {
            let seen = keys.iter().filter(|key| {
                let hit = tier.get(key.as_str(), now);
                hit.is_some_and(|hit| hit.entry().value.is_present() && hit.is_fresh(now))
            });
            let moving = tier.get("moving", now).is_some_and(|hit| !hit.needs_attention(now));
            seen.count() + usize::from(moving)
        };
        assert_eq!(hits(NOW), 1001, "the first look at each entry");
        let allocated = thread::allocatedp::read().expect("jemalloc counts by thread");
        let before = allocated.get();
        for millis in 0..100 {
            assert_eq!(hits(NOW + Duration::from_millis(millis * 10)), 1001);
        }
        assert_eq!(allocated.get() - before, 0, "bytes were allocated by hits");
        tier.expire_tag(&larder_core::Tag::new("page:1"), NOW);
        let before = allocated.get();
        assert_eq!(hits(NOW + Duration::from_secs(1)), 1001 - 20);
        assert_eq!(allocated.get() - before, 0, "bytes were allocated by a closer look");
    });
}
