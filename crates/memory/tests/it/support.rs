use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::{Class, Entry, Moment, Tags, Value, Version};
use larder_memory::{Budget, MemoryTier, Options, RemovalCause};

/// The moment tests begin at: late enough to have a past.
pub(crate) const BEGIN: Moment = Moment::from_nanos(3_600_000_000_000);

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// An entry that is fresh and then stale for ten seconds each.
pub(crate) fn entry<V>(value: V, version: Version, now: Moment) -> Entry<V> {
    Entry {
        value: Value::Present(value),
        version,
        origin_read_at: now,
        fresh_until: now + secs(10),
        stale_until: now + secs(20),
        load_cost: Duration::from_millis(1),
        tags: Tags::NONE,
        class: Class::Public,
    }
}

pub(crate) type Told = Arc<Mutex<Vec<(u32, u64, RemovalCause)>>>;

/// A tier from numbers to numbers that writes down the key, value and cause of
/// every removal.
pub(crate) fn observed(budget: Budget<u32, u64>) -> (MemoryTier<u32, u64>, Told) {
    let told = Told::default();
    let writer = told.clone();
    let options = Options::new(budget).shards(4).on_removal(Arc::new(
        move |removal: larder_memory::Removal<'_, u32, u64>| {
            let value = removal.entry.value.as_option().copied().unwrap_or(u64::MAX);
            writer.lock().expect("no listener panics").push((*removal.key, value, removal.cause));
        },
    ));
    (MemoryTier::new(options), told)
}

/// What was told since the last call, in order of key and value.
pub(crate) fn take(told: &Told) -> Vec<(u32, u64, RemovalCause)> {
    let mut told = std::mem::take(&mut *told.lock().expect("no listener panics"));
    told.sort_by_key(|(key, value, _)| (*key, *value));
    told
}
