//! What a hit of the memory tier costs beside one of bare quick_cache.
//!
//! ```console
//! cargo run --release -p larder-memory --example hit_cost
//! ```
//!
//! 100 000 string keys, Zipf 0.99, every access a hit; time limits and a tag on
//! every entry. The two take turns in the same process; a figure is the median of
//! the rounds, in processor time, so that a busy machine disturbs it little.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Class, Clock, Entry, Moment, Tags, Value};
use larder_memory::{Budget, Lifetime, MemoryTier, Options};
use rustix::time::{ClockId, clock_gettime};

const KEYS: usize = 100_000;
const ACCESSES: usize = 1 << 18;
/// A build without optimisation only shows that it runs.
const ROUNDS: usize = if cfg!(debug_assertions) { 3 } else { 51 };

fn main() {
    let keys: Vec<String> = (0..KEYS).map(|number| format!("product:{number:08}")).collect();
    let accesses = zipf(0.99);
    let bare = quick_cache::sync::Cache::<String, Arc<[u8; 64]>>::new(KEYS * 2);
    let tier = MemoryTier::<String, [u8; 64]>::new(Options::new(Budget::entries(KEYS as u64 * 2)));
    let clock = Clock::monotonic();
    let now = clock.now();
    for key in &keys {
        bare.insert(key.clone(), Arc::new([1; 64]));
        let entry = Entry {
            value: Value::Present([1; 64]),
            version: tier.versions().next(),
            origin_read_at: now,
            fresh_until: now + Duration::from_secs(3600),
            stale_until: now + Duration::from_secs(7200),
            load_cost: Duration::from_millis(1),
            tags: Tags::new(["table:product"]),
            class: Class::Public,
        };
        tier.insert(key.clone(), entry, Lifetime::OF_ENTRY, now);
    }
    let bare_value = |index: u32| match bare.get(keys[index as usize].as_str()) {
        Some(value) => u64::from(value[0]),
        None => 0,
    };
    let bare_handle = |index: u32| u64::from(bare.get(keys[index as usize].as_str()).is_some());
    let hit = |index: u32, now: Moment| {
        tier.get(keys[index as usize].as_str(), now).filter(|hit| !hit.needs_attention(now))
    };
    let handle = |index: u32| u64::from(hit(index, now).is_some());
    let value = |index: u32, now: Moment| {
        let hit = hit(index, now);
        hit.and_then(|hit| hit.entry().value.as_option().map(|value| u64::from(value[0])))
    };
    let value_at = |index: u32| value(index, now).unwrap_or(0);
    let value_now = |index: u32| value(index, clock.now()).unwrap_or(0);
    for threads in [1, 2] {
        compare("a handle", threads, &accesses, &bare_handle, &handle);
        compare("and the value read", threads, &accesses, &bare_value, &value_at);
        compare("and the clock read", threads, &accesses, &bare_value, &value_now);
    }
}

/// Prints what an access costs either way.
#[allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
fn compare(
    what: &str,
    threads: usize,
    accesses: &[u32],
    bare: &(impl Fn(u32) -> u64 + Sync),
    tier: &(impl Fn(u32) -> u64 + Sync),
) {
    let rounds =
        (0..ROUNDS).map(|_| (round(threads, accesses, bare), round(threads, accesses, tier)));
    let (bare, tier): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let ratios = bare.iter().zip(&tier).map(|(bare, tier)| tier / bare).collect();
    println!(
        "{threads} thread(s), {what:18}: bare quick_cache {:5.1} ns, memory tier {:5.1} ns, ratio {:.2}",
        median(bare),
        median(tier),
        median(ratios),
    );
}

/// Nanoseconds of processor time for each access.
fn round(threads: usize, accesses: &[u32], hit: &(impl Fn(u32) -> u64 + Sync)) -> f64 {
    let nanos: f64 = std::thread::scope(|scope| {
        let thread = |number: usize| {
            let (first, second) = accesses.split_at(number * accesses.len() / threads);
            scope.spawn(move || {
                let begin = thread_nanos();
                let hits: u64 = second.iter().chain(first).map(|&index| hit(index)).sum();
                assert_eq!(black_box(hits), accesses.len() as u64, "every access is a hit");
                thread_nanos() - begin
            })
        };
        let handles: Vec<_> = (0..threads).map(thread).collect();
        handles.into_iter().map(|handle| handle.join().expect("no access panics")).sum()
    });
    nanos / (threads * accesses.len()) as f64
}

fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Accesses of which the key of rank r is drawn with a probability proportional
/// to 1 / r^exponent. Keys are ranked in a scattered order.
fn zipf(exponent: f64) -> Vec<u32> {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-exponent);
        sums.push(sum);
    }
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let draw = |point: f64| sums.partition_point(|&below| below < point * sum).min(KEYS - 1);
    (0..ACCESSES).map(|_| (draw(random()) * 7919 % KEYS) as u32).collect()
}
