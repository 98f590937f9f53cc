use std::sync::Arc;
use std::time::Duration;

use larder_core::{Moment, Tag, Tags, Value, Version};
use larder_memory::{
    Budget, Cursor, Lifetime, MemoryTier, Options, Removal, RemovalCause, Sliding, Watermarks,
};

use crate::support::{BEGIN, entry, observed, secs, take};

#[test]
fn an_entry_is_fresh_then_stale_then_gone() {
    let (tier, told) = observed(Budget::entries(10));
    tier.insert(1, entry(7, tier.versions().next(), BEGIN), Lifetime::OF_ENTRY, BEGIN);
    let hit = tier.get(&1, BEGIN + secs(9)).expect("it is fresh");
    assert!(hit.is_fresh(BEGIN + secs(9)) && !hit.needs_attention(BEGIN + secs(9)));
    let hit = tier.get(&1, BEGIN + secs(10)).expect("it is stale");
    assert!(!hit.is_fresh(BEGIN + secs(10)) && hit.needs_attention(BEGIN + secs(10)));
    assert!(tier.peek(&1, BEGIN + secs(20)).is_none());
    assert_eq!(take(&told), [], "a peek reclaims nothing");
    assert!(tier.get(&1, BEGIN + secs(20)).is_none());
    assert_eq!(take(&told), [(1, 7, RemovalCause::Expired)]);
    assert_eq!(tier.statistics().entries, 0);
}

#[test]
fn attention_is_asked_for_before_the_end_of_freshness() {
    let (tier, _) = observed(Budget::entries(10));
    let lifetime = Lifetime { attention_at: BEGIN + secs(8), ..Lifetime::OF_ENTRY };
    let resident = tier.insert(1, entry(7, Version::new(1), BEGIN), lifetime, BEGIN);
    assert!(!resident.needs_attention(BEGIN + secs(7)));
    assert!(resident.needs_attention(BEGIN + secs(8)));
    assert!(resident.is_fresh(BEGIN + secs(8)));
}

#[test]
fn an_expired_entry_is_stale_at_once_but_served_as_long_as_before() {
    let (tier, told) = observed(Budget::entries(10));
    assert!(!tier.expire(&1, BEGIN), "there is nothing to expire");
    tier.insert(1, entry(7, Version::new(1), BEGIN), Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.expire(&1, BEGIN + secs(3)));
    let hit = tier.get(&1, BEGIN + secs(3)).expect("it is stale");
    assert!(!hit.is_fresh(BEGIN + secs(3)) && hit.needs_attention(BEGIN + secs(3)));
    assert_eq!(hit.fresh_until(), BEGIN + secs(3));
    assert!(tier.get(&1, BEGIN + secs(19)).is_some());
    assert!(!tier.expire(&1, BEGIN + secs(20)), "it is not servable any more");
    assert_eq!(take(&told), []);
}

#[test]
fn the_stale_window_is_never_shorter_than_freshness() {
    let (tier, _) = observed(Budget::entries(10));
    let mut short = entry(7, Version::new(1), BEGIN);
    short.stale_until = BEGIN;
    tier.insert(1, short, Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.get(&1, BEGIN + secs(9)).is_some());
    assert!(tier.get(&1, BEGIN + secs(10)).is_none());
}

#[test]
fn an_idle_entry_goes_unless_it_is_got() {
    let (tier, told) = observed(Budget::entries(10));
    let lifetime = Lifetime { idle: Some(secs(2)), ..Lifetime::OF_ENTRY };
    for key in [1, 2] {
        tier.insert(key, entry(7, Version::new(1), BEGIN), lifetime, BEGIN);
    }
    for second in 1..6 {
        assert!(tier.get(&1, BEGIN + secs(second)).is_some());
        // A peek keeps nothing alive.
        assert_eq!(tier.peek(&2, BEGIN + secs(second)).is_some(), second < 2);
    }
    assert_eq!(tier.sweep(BEGIN + secs(6), 100).expired, 1);
    assert_eq!(take(&told), [(2, 7, RemovalCause::Expired)]);
    let hit = tier.peek(&1, BEGIN + secs(6)).expect("it was got a second ago");
    assert_eq!((hit.hits(), hit.idle_for(BEGIN + secs(6))), (5, secs(1)));
    assert!(tier.get(&1, BEGIN + secs(7)).is_none());
}

#[test]
fn an_access_makes_a_sliding_entry_fresh_for_half_as_long_again() {
    let (tier, _) = observed(Budget::entries(10));
    let sliding = Sliding { base: secs(10), limit: BEGIN + secs(15) };
    let lifetime = Lifetime { idle: None, sliding: Some(sliding), attention_at: BEGIN + secs(9) };
    tier.insert(1, entry(7, Version::new(1), BEGIN), lifetime, BEGIN);
    let fresh_after = |second: u64| {
        let hit = tier.get(&1, BEGIN + secs(second)).expect("it is servable");
        hit.fresh_until().since(BEGIN)
    };
    assert_eq!(fresh_after(6), secs(12), "4 s were left, so 6 s are");
    let hit = tier.peek(&1, BEGIN).expect("it is servable");
    assert_eq!(hit.stale_until(), BEGIN + secs(15), "22 s, but for the limit");
    assert!(!hit.needs_attention(BEGIN + secs(10)), "attention moves along");
    assert!(hit.needs_attention(BEGIN + secs(11)));
    assert_eq!(fresh_after(6), secs(15), "9 s would be less than the base, but for the limit");
    assert_eq!(fresh_after(14), secs(15));
    assert!(tier.expire(&1, BEGIN + secs(14)));
    assert_eq!(fresh_after(14), secs(14), "what is stale stays so");
    assert!(tier.get(&1, BEGIN + secs(15)).is_none(), "the limit ends the stale window, too");
}

#[test]
fn a_sliding_access_never_shortens_freshness() {
    let (tier, _) = observed(Budget::entries(10));
    let sliding = Sliding { base: secs(3), limit: Moment::NEVER };
    let lifetime = Lifetime { sliding: Some(sliding), ..Lifetime::OF_ENTRY };
    tier.insert(1, entry(7, Version::new(1), BEGIN), lifetime, BEGIN);
    let hit = tier.get(&1, BEGIN + secs(1)).expect("it is fresh");
    assert_eq!(hit.fresh_until(), BEGIN + secs(10));
}

#[test]
fn the_stale_window_slides_along() {
    let (tier, _) = observed(Budget::entries(10));
    let sliding = Sliding { base: secs(10), limit: Moment::NEVER };
    let lifetime = Lifetime { sliding: Some(sliding), ..Lifetime::OF_ENTRY };
    tier.insert(1, entry(7, Version::new(1), BEGIN), lifetime, BEGIN);
    let hit = tier.get(&1, BEGIN + secs(6)).expect("it is fresh");
    assert_eq!((hit.fresh_until(), hit.stale_until()), (BEGIN + secs(12), BEGIN + secs(22)));
}

#[test]
fn every_cause_is_told() {
    let (tier, told) = observed(Budget::entries(4));
    let put = |key: u32, value: u64, tags: &[&str]| {
        let mut entry = entry(value, tier.versions().next(), BEGIN);
        entry.tags = Tags::new(tags.iter().copied());
        tier.insert(key, entry, Lifetime::OF_ENTRY, BEGIN);
    };
    put(1, 1, &[]);
    put(1, 2, &[]);
    assert_eq!(take(&told), [(1, 1, RemovalCause::Replaced)]);
    assert!(tier.remove(&1));
    assert!(!tier.remove(&1));
    assert_eq!(take(&told), [(1, 2, RemovalCause::Removed)]);
    put(2, 3, &["a", "b"]);
    put(3, 4, &["b"]);
    tier.remove_tag(&Tag::new("a"));
    assert!(tier.get(&2, BEGIN).is_none());
    assert!(tier.get(&3, BEGIN).is_some());
    assert_eq!(take(&told), [(2, 3, RemovalCause::Tag)]);
    tier.clear();
    assert!(!tier.remove(&3), "a cleared entry is not there to be removed");
    assert_eq!(take(&told), [(3, 4, RemovalCause::Cleared)]);
    for key in 10..20 {
        put(key, 5, &[]);
    }
    assert_eq!(take(&told).iter().filter(|told| told.2 == RemovalCause::Evicted).count(), 6);
    assert_eq!(tier.sweep(BEGIN + secs(21), 100).expired, 4);
    assert!(take(&told).iter().all(|told| told.2 == RemovalCause::Expired));
    let removals = tier.statistics().removals;
    let counts = RemovalCause::ALL.map(|cause| removals.of(cause));
    assert_eq!((counts, removals.total()), ([4, 6, 1, 1, 1, 1], 14));
}

#[test]
fn an_expired_tag_makes_stale_and_removes_nothing() {
    let (tier, told) = observed(Budget::entries(10));
    let mut tagged = entry(7, tier.versions().next(), BEGIN);
    tagged.tags = Tags::new(["a"]);
    tier.insert(1, tagged.clone(), Lifetime::OF_ENTRY, BEGIN);
    let mark = tier.expire_tag(&Tag::new("a"), BEGIN + secs(2));
    let hit = tier.get(&1, BEGIN + secs(5)).expect("it is stale");
    assert!(!hit.is_fresh(BEGIN + secs(5)));
    assert_eq!(hit.fresh_until(), BEGIN + secs(2), "since the tag was expired");
    let marks = Watermarks { removed: Version::ZERO, expired: mark };
    assert_eq!(tier.watermarks(&tagged.tags), marks);
    assert_eq!(tier.watermarks(&Tags::NONE), Watermarks::default());
    // What began before is stale when it comes, what began after is not.
    let late = tier.insert(2, tagged.clone(), Lifetime::OF_ENTRY, BEGIN + secs(5));
    assert!(tier.get(&2, BEGIN + secs(5)).is_some_and(|hit| hit.needs_attention(BEGIN + secs(5))));
    assert!(!late.is_fresh(BEGIN + secs(5)));
    tagged.version = tier.versions().next();
    tier.insert(3, tagged, Lifetime::OF_ENTRY, BEGIN + secs(5));
    assert!(tier.get(&3, BEGIN + secs(5)).is_some_and(|hit| hit.is_fresh(BEGIN + secs(5))));
    tier.expire_all(BEGIN + secs(5));
    assert!(tier.get(&3, BEGIN + secs(5)).is_some_and(|hit| !hit.is_fresh(BEGIN + secs(5))));
    assert_eq!(take(&told), []);
}

#[test]
fn a_second_expiry_does_not_date_the_first_anew() {
    let (tier, _) = observed(Budget::entries(10));
    let put = |key: u32, read_at: Moment, tags: &[&str]| {
        let mut entry = entry(7, tier.versions().next(), read_at);
        entry.fresh_until = BEGIN + secs(36_000);
        entry.stale_until = entry.fresh_until;
        entry.tags = Tags::new(tags.iter().copied());
        tier.insert(key, entry, Lifetime::OF_ENTRY, read_at);
    };
    let expired_at = |key: u32| {
        let hit = tier.get(&key, BEGIN + secs(1000)).expect("it is stale");
        hit.fresh_until().since(BEGIN)
    };
    put(1, BEGIN, &["a"]);
    put(2, BEGIN, &[]);
    tier.expire_tag(&Tag::new("a"), BEGIN + secs(1));
    tier.expire_all(BEGIN + secs(2));
    put(3, BEGIN + secs(3), &["a"]);
    let late = tier.versions().next();
    tier.expire_tag(&Tag::new("a"), BEGIN + secs(600));
    tier.expire_all(BEGIN + secs(601));
    assert_eq!([1, 2, 3].map(expired_at), [secs(1), secs(2), secs(600)]);
    // Its load waited while the tag was expired: it cannot have ended before.
    let mut waited = entry(7, late, BEGIN + secs(700));
    waited.fresh_until = BEGIN + secs(36_000);
    waited.tags = Tags::new(["a"]);
    tier.insert(4, waited, Lifetime::OF_ENTRY, BEGIN + secs(800));
    assert_eq!(expired_at(4), secs(700));
}

#[test]
fn an_invalidation_during_a_load_wins() {
    let (tier, told) = observed(Budget::entries(10));
    let began = tier.versions().next();
    let mark = tier.remove_tag(&Tag::new("a"));
    assert!(mark > began);
    let mut late = entry(7, began, BEGIN);
    late.tags = Tags::new(["a"]);
    assert!(tier.watermarks(&late.tags).removed > began);
    tier.insert(1, late, Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.peek(&1, BEGIN).is_none() && tier.get(&1, BEGIN).is_none());
    assert_eq!(take(&told), [(1, 7, RemovalCause::Tag)]);
    let began = tier.versions().next();
    tier.clear();
    tier.insert(1, entry(7, began, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.get(&1, BEGIN).is_none());
    assert_eq!(take(&told), [(1, 7, RemovalCause::Cleared)]);
}

#[test]
fn a_load_survives_invalidations_of_other_tags() {
    let (tier, _) = observed(Budget::entries(1000));
    let mut loaded = entry(7, tier.versions().next(), BEGIN);
    loaded.tags = Tags::new(["mine"]);
    for number in 0..1000 {
        tier.remove_tag(&Tag::new(&format!("other:{number}")));
        tier.expire_tag(&Tag::new(&format!("another:{number}")), BEGIN);
    }
    tier.insert(1, loaded, Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.get(&1, BEGIN).is_some_and(|hit| hit.is_fresh(BEGIN)));
}

#[test]
fn a_clear_gives_memory_back_in_bounded_steps() {
    let (tier, told) = observed(Budget::entries(10_000));
    for key in 0..5000 {
        let version = tier.versions().next();
        tier.insert(key, entry(7, version, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    }
    assert!(tier.next_sweep(BEGIN) > BEGIN + secs(10));
    tier.clear();
    assert_eq!(tier.next_sweep(BEGIN), BEGIN, "there is something to do at once");
    let kept = tier.versions().next();
    tier.insert(9999, entry(8, kept, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    let mut calls = 0;
    loop {
        let swept = tier.sweep(BEGIN, 100);
        assert!(swept.invalidated <= 100);
        calls += 1;
        if !swept.more {
            break;
        }
    }
    assert!(calls >= 50, "{calls} calls");
    assert_eq!(tier.statistics().entries, 1);
    assert_eq!(take(&told).len(), 5000);
    assert!(tier.next_sweep(BEGIN) > BEGIN);
    assert!(tier.get(&9999, BEGIN).is_some());
}

#[test]
fn removing_a_tag_that_no_entry_has_makes_no_walk() {
    let (tier, _) = observed(Budget::entries(10_000));
    for key in 0..1000 {
        let version = tier.versions().next();
        tier.insert(key, entry(7, version, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    }
    let idle = tier.next_sweep(BEGIN);
    let began = tier.versions().next();
    tier.remove_tag(&Tag::new("nobody has it"));
    tier.expire_tag(&Tag::new("nor this one"), BEGIN);
    assert!(idle > BEGIN && tier.next_sweep(BEGIN) == idle);
    assert!(!tier.sweep(BEGIN, 10).more);
    // Whoever has it later is hit all the same.
    for (tag, is_there) in [("nobody has it", false), ("nor this one", true)] {
        let mut late = entry(7, began, BEGIN);
        late.tags = Tags::new([tag]);
        tier.insert(1, late, Lifetime::OF_ENTRY, BEGIN);
        assert_eq!(tier.get(&1, BEGIN).is_some(), is_there);
        assert!(tier.get(&1, BEGIN).is_none_or(|hit| !hit.is_fresh(BEGIN)));
    }
}

#[test]
fn a_stream_of_removals_costs_one_walk_between_two_pauses() {
    let (tier, told) = observed(Budget::entries(10_000));
    let put = |key: u32, tag: &str| {
        let mut entry = entry(7, tier.versions().next(), BEGIN);
        entry.tags = Tags::new([tag]);
        tier.insert(key, entry, Lifetime::OF_ENTRY, BEGIN);
    };
    (0..1000).for_each(|key| put(key, "kept"));
    (1000..1100).for_each(|key| put(key, "removed"));
    for round in 0..3 {
        let mut calls = 0;
        loop {
            tier.remove_tag(&Tag::new("removed"));
            put(1000 + round, "removed");
            calls += 1;
            if !tier.sweep(BEGIN, 100).more {
                break;
            }
        }
        assert!(calls <= 16, "{calls} calls for 1100 entries in 4 shards");
    }
    tier.remove_tag(&Tag::new("removed"));
    while tier.sweep(BEGIN, 100).more {}
    assert_eq!(tier.statistics().entries, 1000);
    assert!(take(&told).iter().all(|told| told.0 >= 1000));
}

#[test]
fn what_expires_is_found_by_timer_in_bounded_steps() {
    let (tier, told) = observed(Budget::entries(100_000));
    for key in 1..=10_000_u32 {
        let mut entry = entry(7, Version::new(1), BEGIN);
        entry.fresh_until = BEGIN + Duration::from_millis(u64::from(key));
        entry.stale_until = entry.fresh_until;
        tier.insert(key, entry, Lifetime::OF_ENTRY, BEGIN);
    }
    let now = BEGIN + secs(5);
    let mut expired = 0;
    loop {
        let swept = tier.sweep(now, 64);
        expired += swept.expired;
        if !swept.more {
            break;
        }
    }
    // A timer may come a tick (17 ms) after the deadline.
    assert!((4980..=5000).contains(&expired), "{expired} expired");
    assert_eq!(take(&told).len(), expired);
    assert!(tier.next_sweep(now).since(now) < Duration::from_millis(20));
    assert!(tier.get(&5001, now).is_some());
}

#[test]
fn entries_without_an_end_are_never_swept() {
    let (tier, _) = observed(Budget::entries(10));
    let mut endless = entry(7, Version::new(1), BEGIN);
    endless.fresh_until = Moment::NEVER;
    endless.stale_until = Moment::NEVER;
    tier.insert(1, endless, Lifetime::OF_ENTRY, BEGIN);
    assert!(tier.next_sweep(BEGIN).is_never());
    let late = BEGIN + secs(1 << 33);
    assert_eq!(tier.sweep(late, 10).expired, 0);
    assert!(tier.get(&1, late).is_some());
}

#[test]
fn a_value_heavier_than_the_budget_is_not_kept_and_is_counted() {
    let told = crate::support::Told::default();
    let writer = told.clone();
    let listener = Arc::new(move |removal: Removal<'_, String, Vec<u8>>| {
        let size = removal.entry.value.as_option().map_or(0, Vec::len) as u64;
        writer.lock().expect("no listener panics").push((0, size, removal.cause));
    });
    let options = Options::new(Budget::bytes(1 << 20)).on_removal(listener);
    let tier = MemoryTier::<String, Vec<u8>>::new(options);
    let key = || "key".to_owned();
    tier.insert(key(), entry(vec![0; 10], Version::new(1), BEGIN), Lifetime::OF_ENTRY, BEGIN);
    let huge = entry(vec![0; 2 << 20], Version::new(2), BEGIN);
    let resident = tier.insert(key(), huge, Lifetime::OF_ENTRY, BEGIN);
    assert_eq!(resident.entry().value.as_option().map(Vec::len), Some(2 << 20));
    assert!(tier.get("key", BEGIN).is_none(), "the older value must not be served either");
    assert_eq!(take(&told), [(0, 10, RemovalCause::Replaced)]);
    let statistics = tier.statistics();
    assert_eq!((statistics.rejected, statistics.entries), (1, 0));
    assert!(statistics.largest_entry > 900_000, "{}", statistics.largest_entry);
    let nothing = MemoryTier::<String, Vec<u8>>::new(Options::new(Budget::bytes(0)));
    nothing.insert(key(), entry(vec![], Version::new(1), BEGIN), Lifetime::OF_ENTRY, BEGIN);
    assert_eq!(nothing.statistics().rejected, 1);
}

#[test]
fn an_absent_value_counts_its_key() {
    let tier = MemoryTier::<String, String>::new(Options::new(Budget::bytes(1 << 20)));
    let mut absent = entry(String::new(), Version::new(1), BEGIN);
    absent.value = Value::Absent;
    let light = tier.insert("k".to_owned(), absent.clone(), Lifetime::OF_ENTRY, BEGIN);
    let heavy = tier.insert("k".repeat(4096), absent, Lifetime::OF_ENTRY, BEGIN);
    assert_eq!(heavy.weight() - light.weight(), 4096 - 16);
}

#[test]
fn a_listener_may_use_the_tier() {
    let tier = Arc::new_cyclic(|weak: &std::sync::Weak<MemoryTier<u32, u64>>| {
        let weak = weak.clone();
        let listener = Arc::new(move |removal: Removal<'_, u32, u64>| {
            let tier = weak.upgrade().expect("the tier outlives its use");
            // What left is not there any more, unless something newer is.
            let held = tier.peek(removal.key, BEGIN);
            assert!(held.is_none_or(|held| !std::ptr::eq(held.entry(), removal.entry)));
            tier.sweep(BEGIN, 10);
            if removal.cause == RemovalCause::Replaced {
                tier.remove(removal.key);
            }
        });
        MemoryTier::new(Options::new(Budget::entries(4)).on_removal(listener))
    });
    for number in 0..100_u32 {
        let version = tier.versions().next();
        tier.insert(number % 7, entry(1, version, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    }
    assert!(tier.statistics().removals.of(RemovalCause::Evicted) > 0);
}

#[test]
fn a_listing_shows_each_entry_once() {
    let (tier, _) = observed(Budget::entries(10_000));
    for key in 0..1000 {
        let version = tier.versions().next();
        tier.insert(key, entry(7, version, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    }
    for key in 0..500 {
        tier.remove(&(key * 2));
    }
    let mut keys = Vec::new();
    let mut cursor = Some(Cursor::START);
    while let Some(from) = cursor {
        let from = Cursor::from_number(from.to_number());
        let page = tier.list(from, 37, BEGIN);
        assert!(page.residents.len() <= 37);
        keys.extend(page.residents.iter().map(|resident| *resident.key()));
        cursor = page.next;
    }
    keys.sort_unstable();
    assert_eq!(keys, (0..500).map(|key| key * 2 + 1).collect::<Vec<u32>>());
    assert!(tier.list(Cursor::from_number(u64::MAX), 10, BEGIN).next.is_none());
}

#[test]
fn a_scan_does_not_drive_out_what_is_used() {
    let (tier, _) = observed(Budget::entries(1000));
    let put = |key: u32| {
        let version = tier.versions().next();
        tier.insert(key, entry(7, version, BEGIN), Lifetime::OF_ENTRY, BEGIN);
    };
    (0..500).for_each(put);
    for _ in 0..3 {
        assert_eq!((0..500).filter(|key| tier.get(key, BEGIN).is_some()).count(), 500);
    }
    (10_000..20_000).for_each(put);
    let left = (0..500).filter(|key| tier.get(key, BEGIN).is_some()).count();
    assert!(left > 450, "only {left} of 500 used entries survived a scan of 10 000");
}
