//! Many nodes over one Redis while its network, its servers and its history fail:
//! no read is staler than the bound, and all agree with the origin soon after.

mod cluster;
mod costs;
mod faults;
mod node;
mod nodes;

use std::time::Duration;

use larder_testkit::history::Guarantee;
use tokio::time::Instant;

use faults::{FAULTS, Fault, VICTIM};
use nodes::{Conduct, Nodes, Setting};

/// What the nodes promise: an answer from memory is behind by no more than this.
const STALENESS_BOUND: Duration = Duration::from_secs(1);
/// What the scheduler of a busy machine may add between looking at the time and
/// answering.
const SCHEDULING: Duration = Duration::from_millis(100);
/// How soon after a fault every node agrees with the origin.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// How long each fault lasts.
const LASTS: Duration = Duration::from_millis(2500);
/// In so many steps: what goes on does so in each.
const STEPS: u32 = 10;

/// `./test --full` asks for the long form.
fn seeds() -> u64 {
    if std::env::var_os("LARDER_FULL").is_some() { 20 } else { 1 }
}

#[test]
fn no_fault_of_redis_makes_a_node_staler_than_its_bound() {
    prove("entries in Redis", Setting::Plain);
}

/// One node is killed and starts again in the middle of each fault.
#[test]
fn no_fault_makes_a_node_with_a_disk_staler_than_its_bound_nor_its_death() {
    prove("on a disk each, and in Redis", Setting::Disk);
}

#[test]
fn no_fault_makes_a_node_staler_over_tls_with_no_more_rights_than_needed() {
    prove("over TLS, with few rights", Setting::Encrypted);
}

#[allow(clippy::print_stdout, reason = "the proof is the table")]
fn prove(what: &str, setting: Setting) {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build().expect("a runtime starts");
    println!(
        "{what}: fault, seeds, reads, violations, longest staleness, available, from memory, \
         from disk"
    );
    for fault in FAULTS {
        let mut all = Conduct::default();
        for seed in 0..seeds() {
            all.add(&runtime.block_on(run(fault, seed, setting)));
        }
        println!(
            "{:<40} {:>5} {:>8} {:>11} {:>8.0?} {:>9.2} % {:>4.0} % {:>4.0} %",
            fault.name,
            seeds(),
            all.reads,
            0,
            all.staleness_max,
            all.available() * 100.0,
            all.hit_ratio() * 100.0,
            all.disk_ratio() * 100.0,
        );
    }
}

/// One fault under load. Panics at the first read that was too stale.
async fn run(fault: Fault, seed: u64, setting: Setting) -> Conduct {
    let mut nodes = Nodes::start(seed, STALENESS_BOUND, setting).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let load = nodes.load(seed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    if fault.needs_announcers() {
        nodes.restart(VICTIM).await;
    }
    nodes.begin_counting();
    (fault.strike)(&mut nodes);
    for step in 0..STEPS {
        (fault.goes_on)(&nodes, &mut random);
        tokio::time::sleep(LASTS / STEPS).await;
        if step == STEPS / 2 && !fault.needs_announcers() {
            nodes.restart(VICTIM).await;
        }
    }
    nodes.end_counting();
    (fault.heal)(&mut nodes);
    let healed = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.stop().await;
    nodes.agree_by(healed + HEALED_WITHIN, fault.name).await;
    let summary = nodes.history().check(Guarantee::Within(STALENESS_BOUND + SCHEDULING));
    let summary = summary.unwrap_or_else(|stale| panic!("{}, seed {seed}: {stale}", fault.name));
    let conduct = nodes.conduct();
    assert!(summary.reads > 200 && summary.writes > 50, "{}: {summary:?}", fault.name);
    conduct
}
