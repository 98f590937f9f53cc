//! What reads and writes of the disk tier take, on this machine and its disk:
//!
//! ```text
//! cargo run --release -p larder-disk --example disk_latency
//! ```

#![allow(clippy::print_stdout, reason = "it prints its measurements")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use larder_core::{
    Class, Key, PutCondition, Result, Store, StoredEntry, Tags, Ttl, Value, Verb, Version,
};
use larder_disk::{DiskOptions, DiskStore, DiskTier, Durability};

const ENTRIES: u64 = 100_000;
const ROUNDS: u64 = 20_000;
const VALUE_BYTES: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let tier = DiskTier::open(DiskOptions::new(directory.path())).await?;
    let store = tier.store("album")?;
    let began = Instant::now();
    for batch in 0..ENTRIES / 100 {
        put(&store, batch * 100..(batch + 1) * 100).await?;
    }
    println!(
        "{ENTRIES} entries of {VALUE_BYTES} bytes in batches of 100: {:.0} a second",
        ENTRIES as f64 / began.elapsed().as_secs_f64()
    );
    tier.compact().await?;
    measure_reads(&store).await?;
    let mut random = fastrand::Rng::with_seed(2);
    measure("put", ROUNDS, async || {
        let key = random.u64(..ENTRIES);
        put(&store, key..key + 1).await
    })
    .await?;
    tier.close().await;

    let mut options = DiskOptions::new(directory.path());
    options.durability = Durability::InvalidationsSurvivePowerLoss;
    let began = Instant::now();
    let tier = DiskTier::open(options).await?;
    println!("opened again in {:?}", began.elapsed());
    let store = tier.store("album")?;
    let mut version = 10;
    measure("invalidation that survives a power loss", 200, async || {
        version += 1;
        store.invalidate_many(&[key(1)], Version::new(version), Verb::Remove).await
    })
    .await?;
    tier.close().await;
    if let Some(most) = most_resident() {
        println!("memory of the process at most: {most}");
    }
    Ok(())
}

async fn measure_reads(store: &DiskStore) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    measure("get, held", ROUNDS, async || {
        let held = store.get(&key(random.u64(..ENTRIES))).await?;
        assert!(held.is_some(), "it was put");
        Ok(())
    })
    .await?;
    measure("get, missing", ROUNDS, async || {
        store.get(&key(ENTRIES + random.u64(..ENTRIES))).await.map(drop)
    })
    .await?;
    measure("get of 100 keys", ROUNDS / 100, async || {
        let keys: Vec<Key> = (0..100).map(|_| key(random.u64(..ENTRIES))).collect();
        store.get_many(&keys).await.map(drop)
    })
    .await
}

async fn measure(what: &str, rounds: u64, mut call: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("up to a minute");
    for _ in 0..rounds {
        let began = Instant::now();
        call().await?;
        took.saturating_record(began.elapsed().as_nanos() as u64);
    }
    let micros = |quantile| took.value_at_quantile(quantile) as f64 / 1000.0;
    println!("{what}: p50 {:.1} µs, p99 {:.1} µs", micros(0.5), micros(0.99));
    Ok(())
}

async fn put(store: &DiskStore, numbers: std::ops::Range<u64>) -> Result<()> {
    let entries: Vec<(Key, StoredEntry)> =
        numbers.map(|number| (key(number), new_entry(number))).collect();
    store.put_many(&entries, PutCondition::NewerThanHeld).await.map(drop)
}

fn key(number: u64) -> Key {
    Key::new(format!("album:{number}"))
}

fn new_entry(number: u64) -> StoredEntry {
    StoredEntry {
        value: Value::Present(Bytes::from(vec![number as u8; VALUE_BYTES])),
        codec: 0,
        version: Version::new(1),
        age: Duration::ZERO,
        fresh_for: Ttl::secs(3600),
        stale_for: Ttl::secs(7200),
        load_cost: Duration::from_millis(2),
        tags: Tags::NONE,
        class: Class::Public,
    }
}

fn most_resident() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
