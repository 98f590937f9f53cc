//! How far resident memory is from the budget: each cache is given a budget in
//! bytes and three times as much data, and its process is measured.
//!
//! ```text
//! cargo run --release --package larder-bench --bin memory
//! ```
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, MIB, Memory, Policy};
use larder_bench::load::Random;
use larder_bench::process::resident_bytes;
use larder_bench::report::{self, Table, Target, verdict};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Value = Arc<[u8]>;

/// The data offered, as a multiple of the budget.
const OFFERED: u64 = 3;
const BUDGETS_MIB: [u64; 2] = [32, 128];
const TTL: Duration = Duration::from_secs(3600);

/// How long values are.
const SIZES: [(&str, Sizes); 3] = [
    ("16 B", Sizes { least: 16, most: 16 }),
    ("256 B", Sizes { least: 256, most: 256 }),
    ("16 B to 16 KiB", Sizes { least: 16, most: 16 << 10 }),
];

#[derive(Clone, Copy)]
struct Sizes {
    least: u64,
    most: u64,
}

impl Sizes {
    /// Every order of magnitude is as frequent as any other.
    fn draw(self, random: &mut Random) -> usize {
        let (least, most) = (self.least as f64, self.most as f64);
        (least * (most / least).powf(random.unit())) as usize
    }
}

type Fill = fn(u64, Sizes) -> Filled;

/// Who is measured. The peers count what their users commonly let them count:
/// the bytes of key and value.
const CONTENDERS: [(&str, Fill); 3] =
    [("larder", larder), ("quick_cache 0.7", quick_cache), ("moka 0.12 sync", moka)];

/// What a filled cache holds, kept alive while its process is measured.
struct Filled {
    entries: u64,
    cache: Box<dyn std::any::Any>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [contender, budget, sizes] = &arguments[..] {
        let number = |text: &str| text.parse::<usize>().expect("an index or a size");
        return measure(number(contender), number(budget) as u64 * MIB as u64, number(sizes));
    }
    report::machine();
    println!("budget in MiB, {OFFERED} × as much data offered, resident memory of the process\n");
    let mut table = Table::new(["", "values", "budget", "entries", "resident MiB", "× budget"]);
    let mut worst: f64 = 1.0;
    for (sizes, (sizes_name, _)) in SIZES.iter().enumerate() {
        for budget in BUDGETS_MIB {
            for (contender, (name, _)) in CONTENDERS.iter().enumerate() {
                let (entries, resident) = run(contender, budget, sizes);
                let ratio = resident / (budget * MIB as u64) as f64;
                if contender == 0 && (ratio - 1.0).abs() > (worst - 1.0).abs() {
                    worst = ratio;
                }
                table.row([
                    (*name).to_owned(),
                    (*sizes_name).to_owned(),
                    budget.to_string(),
                    entries.to_string(),
                    format!("{:.1}", resident / MIB as f64),
                    format!("{ratio:.2}"),
                ]);
            }
        }
    }
    println!("{table}");
    verdict(
        "larder, furthest from its budget, distance",
        (worst - 1.0).abs(),
        Target::AtMost,
        0.25,
    );
}

/// Measures in a process of its own, so that nothing is left from another.
fn run(contender: usize, budget_mib: u64, sizes: usize) -> (u64, f64) {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"));
    child.args([contender.to_string(), budget_mib.to_string(), sizes.to_string()]);
    let output = child.output().expect("this program can be started again");
    assert!(output.status.success(), "{child:?}: {output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let (entries, resident) = printed.trim().split_once(' ').expect("two figures");
    let resident: u64 = resident.parse().expect("bytes");
    (entries.parse().expect("a number of entries"), resident as f64)
}

/// Prints the entries held and the bytes that holding them takes.
fn measure(contender: usize, budget: u64, sizes: usize) {
    let this = std::process::id();
    let before = resident_bytes(this);
    let filled = CONTENDERS[contender].1(budget, SIZES[sizes].1);
    let resident = resident_bytes(this) - before;
    println!("{} {resident}", filled.entries);
    drop(filled.cache);
}

/// Keys and values, until as much is offered as is to be offered.
fn rows(budget: u64, sizes: Sizes) -> impl Iterator<Item = (String, Value)> {
    let mut random = Random::new(budget);
    let mut offered = 0;
    (0_u64..).map_while(move |key| {
        let key = format!("product:{key}");
        let value = Value::from(vec![7; sizes.draw(&mut random)]);
        offered += (key.len() + value.len()) as u64;
        (offered <= OFFERED * budget).then_some((key, value))
    })
}

fn larder(budget: u64, sizes: Sizes) -> Filled {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let cache = Cache::<String, Value>::builder("product")
        .memory(Memory::bytes(budget as usize))
        .policy(Policy::ttl(TTL))
        .runtime(runtime.handle().clone())
        .build()
        .expect("the options agree");
    runtime.block_on(async {
        for (key, value) in rows(budget, sizes) {
            cache.put(&key, value).await.expect("memory takes it");
        }
    });
    let entries = cache.statistics().memory.entries;
    Filled { entries, cache: Box::new((cache, runtime)) }
}

fn quick_cache(budget: u64, sizes: Sizes) -> Filled {
    let each = (sizes.least + sizes.most) / 2;
    let cache = quick_cache::sync::Cache::<String, Value, KeyAndValue>::with_weighter(
        (budget / each) as usize,
        budget,
        KeyAndValue,
    );
    rows(budget, sizes).for_each(|(key, value)| cache.insert(key, value));
    Filled { entries: cache.len() as u64, cache: Box::new(cache) }
}

#[derive(Clone)]
struct KeyAndValue;

impl quick_cache::Weighter<String, Value> for KeyAndValue {
    fn weight(&self, key: &String, value: &Value) -> u64 {
        (key.len() + value.len()) as u64
    }
}

fn moka(budget: u64, sizes: Sizes) -> Filled {
    let cache = moka::sync::Cache::builder()
        .max_capacity(budget)
        .weigher(|key: &String, value: &Value| (key.len() + value.len()) as u32)
        .time_to_live(TTL)
        .build();
    rows(budget, sizes).for_each(|(key, value)| cache.insert(key, value));
    cache.run_pending_tasks();
    Filled { entries: cache.entry_count(), cache: Box::new(cache) }
}
