//! What is there again after the directory was closed and opened.

use std::time::Duration;

use larder_core::{
    BusPosition, HeardUpTo, Mark, PutCondition, PutOutcome, Store, Tag, Ttl, Verb, Version,
};
use larder_testkit::conformance::{block_on, store::entry};

use crate::support::{Home, key, put, remove, text};

#[test]
fn entries_floors_watermarks_and_positions_survive() {
    block_on(async {
        let home = Home::open().await;
        put(&home.store, "kept", entry("kept", 3)).await.expect("a put");
        put(&home.store, "expired", entry("expired", 3)).await.expect("a put");
        put(&home.store, "removed", entry("removed", 3)).await.expect("a put");
        remove(&home.store, "removed", 7).await;
        let expired = [key("expired")];
        let expired = home.store.invalidate_many(&expired, Version::new(6), Verb::Expire).await;
        expired.expect("it expires");
        let tag = Mark { tag: Some(Tag::new("t")), verb: Verb::Remove, version: Version::new(9) };
        home.store.mark(std::slice::from_ref(&tag)).await.expect("a watermark");
        let heard =
            HeardUpTo { position: BusPosition { epoch: 77, sequence: 9 }, since: Version::new(5) };
        home.store.note_heard(heard).await.expect("a position");

        let home = home.reopen().await;
        assert!(!home.tier.healed());
        assert_eq!(text(&home.store, "kept").await.as_deref(), Some("kept"));
        assert_eq!(text(&home.store, "removed").await, None);
        let expired = home.store.get(&key("expired")).await.expect("a read").expect("stale");
        assert_eq!(expired.fresh_for, Ttl::For(Duration::ZERO));
        for (name, late) in [("removed", 6), ("expired", 5)] {
            let outcome = put(&home.store, name, entry("late", late)).await.expect("a put");
            assert!(matches!(outcome, PutOutcome::Refused(_)), "{name}: {outcome:?}");
        }
        assert_eq!(home.store.marks().await.expect("the watermarks"), [tag]);
        assert_eq!(home.store.heard().await.expect("the position"), Some(heard));
        assert_eq!(home.store.highest_version(), Version::new(9));
        assert_eq!(home.tier.highest_version(), Version::new(9));
    });
}

#[test]
fn caches_of_one_directory_know_nothing_of_each_other() {
    block_on(async {
        let home = Home::open().await;
        put(&home.store, "k", entry("album", 3)).await.expect("a put");
        let other = home.tier.store("artist").expect("a name");
        assert_eq!(text(&other, "k").await, None);
        put(&other, "k", entry("artist", 2)).await.expect("a put");
        remove(&home.store, "k", 4).await;
        assert_eq!(text(&other, "k").await.as_deref(), Some("artist"));
        let (album, artist) = (home.store.highest_version(), other.highest_version());
        assert_eq!((album, artist), (Version::new(4), Version::new(2)));
        assert!(home.tier.store("").is_err());
    });
}

#[test]
fn a_floor_survives_what_is_stored_over_it_and_a_compaction() {
    block_on(async {
        let home = Home::open().await;
        remove(&home.store, "k", 7).await;
        put(&home.store, "k", entry("new", 8)).await.expect("a put");
        remove(&home.store, "gone", 7).await;
        home.tier.compact().await.expect("a compaction");
        let home = home.reopen().await;
        assert_eq!(text(&home.store, "k").await.as_deref(), Some("new"));
        for name in ["k", "gone"] {
            let late = [(key(name), entry("late", 6))];
            let outcome = home.store.put_many(&late, PutCondition::NewerThanHeld).await;
            let outcome = outcome.expect("a put");
            assert!(matches!(outcome[..], [PutOutcome::Refused(_)]), "{name}: {outcome:?}");
        }
    });
}

#[test]
fn what_is_asked_after_the_end_fails_and_does_not_hang() {
    block_on(async {
        let home = Home::open().await;
        home.tier.close().await;
        home.tier.close().await;
        let error = home.store.get(&key("k")).await.expect_err("it is closed");
        assert_eq!(error.kind(), larder_core::ErrorKind::ShuttingDown);
        let error = put(&home.store, "k", entry("late", 1)).await.expect_err("it is closed");
        assert_eq!(error.kind(), larder_core::ErrorKind::ShuttingDown);
        assert!(home.tier.compact().await.is_err());
    });
}

#[test]
fn a_tier_that_was_only_dropped_is_closed_in_order() {
    block_on(async {
        let Home { directory, tier, store } = Home::open().await;
        put(&store, "k", entry("kept", 1)).await.expect("a put");
        drop((tier, store));
        let seal = directory.path().join("seal");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !seal.exists() {
            assert!(std::time::Instant::now() < deadline, "it is not closed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The seal comes before the lock is given up.
        let home = loop {
            let options = larder_disk::DiskOptions::new(directory.path());
            match larder_disk::DiskTier::open(options).await {
                Ok(tier) => break tier,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
        };
        let store = home.store("album").expect("a name");
        assert_eq!(text(&store, "k").await.as_deref(), Some("kept"));
    });
}
