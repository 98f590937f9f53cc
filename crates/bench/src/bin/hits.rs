//! What a hit in memory costs: `larder` with TTL, tags and statistics beside
//! bare and full-featured caches, with one thread and with two.
//!
//! ```text
//! cargo run --release --package larder-bench --bin hits -- [wall|cpu]
//! ```
//!
//! `cpu` counts the time that the threads ran instead of the time that passed:
//! for machines that are busy with other work too. Waiting for a lock is not in
//! it.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use larder::{Cache, Hit, Memory, Policy};
use larder_bench::load::{Random, Zipf};
use larder_bench::median;
use larder_bench::report::{self, Table, Target, verdict};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 256;
const ZIPF_EXPONENT: f64 = 0.99;
const GETS_PER_ROUND: usize = 1_000_000;
const ROUNDS: usize = 11;
const TTL: Duration = Duration::from_secs(3600);
/// Room for twice the keys: nothing is evicted, every get is a hit.
const CAPACITY: usize = 2 * KEYS;
/// The same in bytes, several times over.
const MEMORY_BYTES: usize = 512 * larder::MIB;

type Value = Arc<[u8]>;

fn main() {
    let clock = match std::env::args().nth(1).as_deref() {
        None | Some("wall") => ClockId::Monotonic,
        Some("cpu") => ClockId::ThreadCPUTime,
        Some(other) => panic!("the clock is `wall` or `cpu`, not `{other}`"),
    };
    report::machine();
    println!(
        "{KEYS} string keys, values of {VALUE_BYTES} bytes, Zipf {ZIPF_EXPONENT}, every get a \
         hit,\nmedian of {ROUNDS} interleaved rounds of {GETS_PER_ROUND} gets for each thread; \
         foldhash everywhere; clock: {clock:?}\n"
    );
    let keys: Vec<String> = (0..KEYS).map(|key| format!("product:{key}:details")).collect();
    let values: Vec<Value> =
        (0..KEYS).map(|key| Value::from(vec![key as u8; VALUE_BYTES])).collect();
    let contenders = contenders(&keys, &values);
    let zipf = Zipf::new(KEYS, ZIPF_EXPONENT);
    let draws: Vec<Vec<u32>> =
        (0..2).map(|thread| zipf.draws(GETS_PER_ROUND, &mut Random::new(thread))).collect();
    let single = measure(&contenders, &keys, &draws[..1], clock);
    let double = measure(&contenders, &keys, &draws, clock);
    print_table(&contenders, &single, &double);
    print_verdicts(&contenders, &single, &double);
}

/// Everyone takes part with the same keys, values and hasher, and with what it
/// can do of what Larder does: an hour's TTL where there is one.
fn contenders(keys: &[String], values: &[Value]) -> Vec<Box<dyn Contender>> {
    let rows = || keys.iter().cloned().zip(values.iter().cloned());
    let runtime = runtime();

    let papaya = papaya::HashMap::<String, Value, _>::with_hasher(hasher());
    rows().for_each(|(key, value)| _ = papaya.pin().insert(key, value));

    let quick = quick_cache::sync::Cache::<String, Value>::new(CAPACITY);
    rows().for_each(|(key, value)| quick.insert(key, value));

    let moka_sync = moka::sync::Cache::builder()
        .max_capacity(CAPACITY as u64)
        .time_to_live(TTL)
        .build_with_hasher(hasher());
    rows().for_each(|(key, value)| moka_sync.insert(key, value));

    let moka_future = moka::future::Cache::builder()
        .max_capacity(CAPACITY as u64)
        .time_to_live(TTL)
        .build_with_hasher(hasher());
    runtime.block_on(async {
        for (key, value) in rows() {
            moka_future.insert(key, value).await;
        }
    });

    let precise = cachet(rows(), &runtime, |clock| clock);
    let fast = cachet(rows(), &runtime, |clock| clock.with_fast_instant(true));

    let larder = larder(rows(), &runtime);
    let (for_memory, for_loads) = (larder.clone(), larder.clone());

    vec![
        Box::new(Blocking {
            name: PAPAYA,
            get: move |key: &String| papaya.pin().get(key.as_str()).is_some_and(used),
        }),
        Box::new(Blocking {
            name: QUICK_CACHE,
            get: move |key: &String| quick.get(key.as_str()).as_ref().is_some_and(used),
        }),
        Box::new(Blocking {
            name: MOKA,
            get: move |key: &String| moka_sync.get(key.as_str()).as_ref().is_some_and(used),
        }),
        Box::new(Awaiting {
            name: "moka 0.12 future",
            get: async move |key: &String| {
                moka_future.get(key.as_str()).await.as_ref().is_some_and(used)
            },
        }),
        Box::new(Awaiting {
            name: CACHET,
            get: async move |key: &String| cachet_get(&precise, key).await,
        }),
        Box::new(Awaiting {
            name: "cachet 0.16, coarse clock",
            get: async move |key: &String| cachet_get(&fast, key).await,
        }),
        Box::new(Awaiting {
            name: LARDER,
            get: async move |key: &String| {
                let hit = larder.get(key).await.expect("memory answers");
                hit.as_ref().and_then(Hit::value).is_some_and(used)
            },
        }),
        Box::new(Blocking {
            name: "larder get_memory",
            get: move |key: &String| {
                let hit = for_memory.get_memory(key.as_str());
                hit.as_ref().and_then(Hit::value).is_some_and(used)
            },
        }),
        Box::new(Awaiting {
            name: "larder get_or_load",
            get: async move |key: &String| {
                let hit = for_loads.get_or_load(key).await.expect("memory answers");
                hit.value().is_some_and(used)
            },
        }),
    ]
}

/// As its documentation sets up a memory tier with a TTL.
fn cachet(
    rows: impl Iterator<Item = (String, Value)>,
    runtime: &tokio::runtime::Runtime,
    tune: impl Fn(tick::Clock) -> tick::Clock,
) -> cachet::Cache<String, Value> {
    runtime.block_on(async {
        let cache = cachet::Cache::builder(tune(tick::Clock::new_tokio()))
            .memory_with(|memory| memory.max_capacity(CAPACITY as u64))
            .ttl(TTL)
            .build();
        for (key, value) in rows {
            cache.insert(key, cachet::CacheEntry::new(value)).await.expect("memory takes it");
        }
        cache
    })
}

async fn cachet_get(cache: &cachet::Cache<String, Value>, key: &str) -> bool {
    let entry = cache.get(key).await.expect("memory answers");
    entry.is_some_and(|entry| used(entry.value()))
}

/// With everything on that costs something on a hit: TTL with jitter, a tag on
/// every entry, statistics.
fn larder(
    rows: impl Iterator<Item = (String, Value)>,
    runtime: &tokio::runtime::Runtime,
) -> Cache<String, Value> {
    let cache = Cache::builder("product")
        .memory(Memory::bytes(MEMORY_BYTES))
        .policy(Policy::ttl(TTL).jitter(0.1))
        .runtime(runtime.handle().clone())
        .build()
        .expect("the options agree");
    runtime.block_on(async {
        for (index, (key, value)) in rows.enumerate() {
            let tag = format!("category:{}", index % 100);
            cache.put(&key, value).tags([tag]).await.expect("memory takes it");
        }
    });
    cache
}

const PAPAYA: &str = "papaya 0.2, a bare map";
const QUICK_CACHE: &str = "quick_cache 0.7, no TTL";
const MOKA: &str = "moka 0.12 sync";
const CACHET: &str = "cachet 0.16";
const LARDER: &str = "larder get";

/// Keeps the compiler from dropping the lookup of a value that nobody reads.
fn used(value: &Value) -> bool {
    black_box(value.len()) == VALUE_BYTES
}

fn hasher() -> foldhash::fast::RandomState {
    foldhash::fast::RandomState::default()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Gets every drawn key on this thread, after the others are ready too.
    fn run(&self, keys: &[String], draws: &[u32], start: &Start) -> Sample;
}

struct Blocking<F> {
    name: &'static str,
    get: F,
}

impl<F: Fn(&String) -> bool + Sync> Contender for Blocking<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, keys: &[String], draws: &[u32], start: &Start) -> Sample {
        let stopwatch = Stopwatch::start(start);
        let mut hits = 0;
        for &draw in draws {
            hits += usize::from((self.get)(&keys[draw as usize]));
        }
        stopwatch.stop(self.name, hits, draws.len())
    }
}

struct Awaiting<F> {
    name: &'static str,
    get: F,
}

impl<F: AsyncFn(&String) -> bool + Sync> Contender for Awaiting<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, keys: &[String], draws: &[u32], start: &Start) -> Sample {
        runtime().block_on(async {
            let stopwatch = Stopwatch::start(start);
            let mut hits = 0;
            for &draw in draws {
                hits += usize::from((self.get)(&keys[draw as usize]).await);
            }
            stopwatch.stop(self.name, hits, draws.len())
        })
    }
}

/// What one get cost on one thread.
#[derive(Clone, Copy, Debug)]
struct Sample {
    nanos: f64,
    allocated_bytes: f64,
}

/// What the threads of a round share.
struct Start {
    ready: Barrier,
    clock: ClockId,
}

struct Stopwatch {
    clock: ClockId,
    started: Duration,
    allocated: u64,
}

impl Stopwatch {
    fn start(start: &Start) -> Self {
        start.ready.wait();
        let allocated = allocated_bytes();
        Self { clock: start.clock, started: read(start.clock), allocated }
    }

    fn stop(self, name: &str, hits: usize, gets: usize) -> Sample {
        let elapsed = read(self.clock) - self.started;
        let allocated = allocated_bytes() - self.allocated;
        assert_eq!(hits, gets, "{name}: every get is to be a hit");
        Sample {
            nanos: elapsed.as_secs_f64() * 1e9 / gets as f64,
            allocated_bytes: allocated as f64 / gets as f64,
        }
    }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // Neither clock is ever negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that this thread has ever allocated.
fn allocated_bytes() -> u64 {
    tikv_jemalloc_ctl::thread::allocatedp::read().expect("jemalloc is the allocator").get()
}

/// Medians for each contender, with one thread for each sequence of draws. The
/// first round only warms up.
fn measure(
    contenders: &[Box<dyn Contender>],
    keys: &[String],
    draws: &[Vec<u32>],
    clock: ClockId,
) -> Vec<Sample> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let start = Start { ready: Barrier::new(draws.len()), clock };
            let round_samples = std::thread::scope(|scope| {
                let start = &start;
                let run = |draws: &'_ Vec<u32>| contender.run(keys, draws, start);
                let threads: Vec<_> =
                    draws.iter().map(|draws| scope.spawn(move || run(draws))).collect();
                let join = |thread: ScopedJoinHandle<'_, Sample>| thread.join();
                let samples: Result<Vec<_>, _> = threads.into_iter().map(join).collect();
                samples.expect("every get is a hit")
            });
            if round > 0 {
                samples.extend(round_samples);
            }
        }
    }
    let medians = samples.iter().map(|samples| Sample {
        nanos: median(samples.iter().map(|sample| sample.nanos)),
        allocated_bytes: median(samples.iter().map(|sample| sample.allocated_bytes)),
    });
    medians.collect()
}

fn print_table(contenders: &[Box<dyn Contender>], single: &[Sample], double: &[Sample]) {
    let quick = contenders.iter().position(|contender| contender.name() == QUICK_CACHE);
    let quick = quick.expect("quick_cache takes part");
    let mut table = Table::new([
        "",
        "ns, 1 thread",
        "× quick_cache",
        "ns, 2 threads",
        "× quick_cache",
        "bytes allocated",
    ]);
    for (index, contender) in contenders.iter().enumerate() {
        table.row([
            contender.name().to_owned(),
            format!("{:.1}", single[index].nanos),
            format!("{:.2}", single[index].nanos / single[quick].nanos),
            format!("{:.1}", double[index].nanos),
            format!("{:.2}", double[index].nanos / double[quick].nanos),
            format!("{:.1}", single[index].allocated_bytes),
        ]);
    }
    println!("{table}");
}

fn print_verdicts(contenders: &[Box<dyn Contender>], single: &[Sample], double: &[Sample]) {
    let of = |name: &str| contenders.iter().position(|contender| contender.name() == name);
    let Some(larder) = of(LARDER) else { return };
    for (threads, samples) in [("1 thread", single), ("2 threads", double)] {
        for (peer, limit) in [(QUICK_CACHE, 1.6), (MOKA, 1.0 / 2.5), (CACHET, 1.0 / 5.0)] {
            let peer_index = of(peer).expect("it takes part");
            let ratio = samples[larder].nanos / samples[peer_index].nanos;
            verdict(&format!("{threads}, × {peer}"), ratio, Target::AtMost, limit);
        }
    }
    verdict("bytes allocated by a get", single[larder].allocated_bytes, Target::AtMost, 0.0);
}
