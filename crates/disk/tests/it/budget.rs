//! The directory keeps to its budget; what is dead makes room first.

use std::future::Future;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{
    ErrorKind, Key, ManualClock, PutCondition, PutOutcome, Store, StoredEntry, Ttl, Value, Verb,
    Version,
};
use larder_disk::{DiskOptions, DiskStore};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{Home, key, put, remove};

const VALUE_BYTES: usize = 32 << 10;

fn large(seed: u64) -> StoredEntry {
    let mut bytes = vec![0; VALUE_BYTES];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let mut large = entry("", 1);
    large.value = Value::Present(Bytes::from(bytes));
    // It goes for want of room, not because the test takes long.
    large.stale_for = Ttl::secs(24 * 3600);
    large
}

/// Puts a batch, waiting while there is no room.
async fn put_all(store: &DiskStore, entries: &[(Key, StoredEntry)]) -> u64 {
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match store.put_many(entries, PutCondition::NewerThanHeld).await {
            Ok(_) => return refused,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                assert!(Instant::now() < deadline, "no room is made");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// What the file system says that the directory takes.
fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    let sizes = files.flatten().map(|file| match file.metadata() {
        Ok(metadata) if metadata.is_dir() => taken(&file.path()),
        // Between listing and looking it may have gone.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn the_budget_is_held_and_what_is_read_stays_no_shorter() {
    const BATCH: u64 = 32;
    block_on(async {
        let directory = TempDir::new().expect("a temporary directory");
        let home = Home::open_in(directory, |options| {
            options.disk_bytes_max = DiskOptions::DISK_BYTES_MIN;
        })
        .await;
        // The budget and half, in batches of 1 MiB.
        let batches = DiskOptions::DISK_BYTES_MIN * 3 / 2 / (BATCH * VALUE_BYTES as u64);
        let read_often: Vec<Key> = (0..BATCH * 8).step_by(4).map(key).collect();
        let (mut most, mut refused) = (0, 0);
        for batch in 0..batches {
            let entries: Vec<(Key, StoredEntry)> =
                (batch * BATCH..(batch + 1) * BATCH).map(|n| (key(n), large(n))).collect();
            refused += put_all(&home.store, &entries).await;
            home.store.get_many(&read_often).await.expect("a read");
            most = most.max(taken(home.directory.path()));
            assert!(most <= DiskOptions::DISK_BYTES_MIN, "{most} bytes after batch {batch}");
        }
        let statistics = home.tier.statistics();
        assert!(statistics.evicted_count > 0, "{statistics:?}");
        let held = async |keys: &[Key]| {
            let held = home.store.get_many(keys).await.expect("a read");
            held.iter().flatten().count() as f64 / keys.len() as f64
        };
        let of_the_read = held(&read_often).await;
        let others: Vec<Key> = (0..BATCH * 8).filter(|n| n % 4 != 0).map(key).collect();
        let of_others = held(&others).await;
        let all: Vec<Key> = (0..batches * BATCH).map(key).collect();
        eprintln!(
            "at most {} MiB of {} MiB; {refused} batches had to wait; held: {:.2} of those read \
             often, {of_others:.2} of their neighbours, {:.2} of all; {statistics:?}",
            most >> 20,
            DiskOptions::DISK_BYTES_MIN >> 20,
            of_the_read,
            held(&all).await,
        );
        // Both are whole while the tables of the first batches have not been merged.
        assert!(of_the_read >= of_others, "{of_the_read} and {of_others}");
        assert!(held(&all).await > 0.15, "too little of the budget is used");
    });
}

#[test]
fn an_invalidation_waits_for_its_place_in_the_queue_and_a_put_does_not() {
    block_on(async {
        let home = Home::open().await;
        let keys: Vec<Key> = (0..10_000).map(key).collect();
        let removals = (0..20).map(|version| {
            let (store, keys) = (home.store.clone(), keys.clone());
            tokio::spawn(async move {
                store.invalidate_many(&keys, Version::new(version), Verb::Remove).await
            })
        });
        // Together they are longer than the queue.
        for removal in removals.collect::<Vec<_>>() {
            removal.await.expect("it ends").expect("it is taken");
        }
        // One batch takes all places; while it is written there is none for another.
        let whole_queue: Vec<_> = (0..200).map(|n| (key(n), large(n))).collect();
        let small = [(key("small"), entry("value", 1))];
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut first =
                std::pin::pin!(home.store.put_many(&whole_queue, PutCondition::NewerThanHeld));
            let polled = std::future::poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx))).await;
            if let Poll::Ready(first) = polled {
                // This thread stood still for so long that it was written already.
                first.expect("it has its place");
                assert!(Instant::now() < deadline, "a batch is never on its way");
                continue;
            }
            let second = home.store.put_many(&small, PutCondition::NewerThanHeld).await;
            first.await.expect("it has its place");
            if let Err(error) = second {
                assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                break;
            }
            assert!(Instant::now() < deadline, "a put waits for a place");
        }
        assert_eq!(home.tier.statistics().refused_count, 1);
    });
}

#[test]
fn what_is_dead_is_reclaimed_by_compaction() {
    block_on(async {
        let clock = ManualClock::new();
        let directory = TempDir::new().expect("a temporary directory");
        let home = Home::open_in(directory, |options| options.clock = clock.clone().into()).await;
        for batch in 0..40 {
            let entries: Vec<(Key, StoredEntry)> =
                (batch * 32..(batch + 1) * 32).map(|n| (key(n), large(n))).collect();
            put_all(&home.store, &entries).await;
        }
        let mut lasting = entry("lasting", 1);
        lasting.stale_for = Ttl::secs(48 * 3600);
        put_all(&home.store, &[(key("lasting"), lasting)]).await;
        home.tier.compact().await.expect("a compaction");
        let before = home.tier.statistics();
        assert_eq!(before.reclaimed_count, 0);
        clock.advance(Duration::from_secs(24 * 3600));
        home.tier.compact().await.expect("a compaction");
        let after = home.tier.statistics();
        assert_eq!(after.reclaimed_count, 40 * 32);
        assert_eq!(after.evicted_count, 0);
        assert!(after.disk_bytes + (39 << 20) < before.disk_bytes, "{before:?} {after:?}");
        let kept = home.store.get(&key("lasting")).await.expect("a read");
        assert!(kept.is_some(), "it may be served stale");
    });
}

#[test]
fn a_floor_outlives_the_entry_that_compaction_drops() {
    block_on(async {
        let clock = ManualClock::new();
        let directory = TempDir::new().expect("a temporary directory");
        let home = Home::open_in(directory, |options| options.clock = clock.clone().into()).await;
        remove(&home.store, "k", 7).await;
        put(&home.store, "k", entry("short", 8)).await.expect("a put");
        clock.advance(Duration::from_secs(60));
        home.tier.compact().await.expect("a compaction");
        assert_eq!(home.tier.statistics().reclaimed_count, 1);
        let late = put(&home.store, "k", entry("late", 6)).await.expect("a put");
        assert_eq!(late, PutOutcome::Refused(Version::new(7)));
        clock.advance(DiskOptions::new("x").floor_window);
        let much_later = put(&home.store, "k", entry("later", 6)).await.expect("a put");
        assert_eq!(much_later, PutOutcome::Stored, "no load takes so long");
    });
}

#[test]
fn a_budget_that_was_made_smaller_is_reached_and_puts_wait_for_it() {
    block_on(async {
        let directory = TempDir::new().expect("a temporary directory");
        let home = Home::open_in(directory, |options| options.disk_bytes_max = 4 << 30).await;
        for batch in 0..400 {
            let entries: Vec<(Key, StoredEntry)> =
                (batch * 32..(batch + 1) * 32).map(|n| (key(n), large(n))).collect();
            put_all(&home.store, &entries).await;
        }
        home.tier.compact().await.expect("a compaction");
        let directory = home.close().await;
        let smaller = |options: &mut DiskOptions| {
            options.disk_bytes_max = DiskOptions::DISK_BYTES_MIN;
        };
        let home = Home::open_in(directory, smaller).await;
        let new = [(key("new"), entry("new", 1))];
        let deadline = Instant::now() + Duration::from_secs(60);
        while home.store.put_many(&new, PutCondition::NewerThanHeld).await.is_ok() {
            assert!(Instant::now() < deadline, "it does not notice that it is full");
        }
        remove(&home.store, "new", 2).await;
        assert!(put_all(&home.store, &[(key("newer"), entry("newer", 3))]).await > 0);
        let statistics = home.tier.statistics();
        assert!(statistics.disk_bytes < DiskOptions::DISK_BYTES_MIN, "{statistics:?}");
        assert!(statistics.evicted_count > 0, "{statistics:?}");
    });
}
