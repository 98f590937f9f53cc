//! The same over a cluster whose slots move and whose primaries die.

use std::time::Duration;

use larder_testkit::history::Guarantee;
use larder_testkit::redis::Cluster;
use tokio::time::Instant;

use super::nodes::Nodes;
use super::{HEALED_WITHIN, SCHEDULING, STALENESS_BOUND};

/// Where the bus has its counter and its stream.
const CONTROL: &[u8] = b"{larder}";

#[test]
#[allow(clippy::print_stdout, reason = "the times are part of the proof")]
fn no_move_of_a_slot_and_no_death_of_a_primary_makes_a_node_staler_than_its_bound() {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let nodes = Nodes::start_over_cluster(STALENESS_BOUND).await;
        let load = nodes.load(7);
        tokio::time::sleep(Duration::from_millis(500)).await;
        nodes.begin_counting();
        let control = Cluster::slot(CONTROL);
        let from = nodes.cluster().place_of(control);
        nodes.cluster().migrate_slot(control, (from + 1) % 3);
        let moved = nodes.can_announce().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes.cluster().kill_primary(control);
        let died = nodes.can_announce().await;
        nodes.end_counting();
        nodes.cluster().wait_until_ready();
        let healed = Instant::now();
        tokio::time::sleep(Duration::from_millis(500)).await;
        load.stop().await;
        nodes.agree_by(healed + HEALED_WITHIN, "a primary of the cluster died").await;
        let summary = nodes.history().check(Guarantee::Within(STALENESS_BOUND + SCHEDULING));
        let summary = summary.unwrap_or_else(|stale| panic!("{stale}"));
        let conduct = nodes.conduct();
        println!(
            "slot moved: {moved:.0?} until every node could announce; primary killed: {died:.0?}; \
             {} reads, {} writes, no violation; available {:.2} %, from memory {:.0} %",
            summary.reads,
            summary.writes,
            conduct.available() * 100.0,
            conduct.hit_ratio() * 100.0,
        );
        assert!(summary.reads > 200 && summary.writes > 50, "{summary:?}");
        assert!((conduct.available() - 1.0).abs() < f64::EPSILON, "a read was an error");
    });
}
