//! One owner at a time.

use std::fs;
use std::path::Path;

use larder::{BehindOptions, ErrorKind};
use larder_core::Journal;
use larder_core::JournalOffset;
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyTable, Gate, WriteAnswer};
use tempfile::TempDir;

use super::{World, open, open_journal, options};

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().expect("a temporary directory");
    for file in fs::read_dir(from).expect("a directory").flatten() {
        fs::copy(file.path(), to.path().join(file.file_name())).expect("a copy");
    }
    to
}

#[test]
fn an_owner_that_was_replaced_stops_at_once_loses_nothing_and_says_so() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("accepted");
        world.add("ann", 1).await.expect("accepted");
        world.flush().await;
        // As a node that stood still, whose lanes another one took over.
        let theirs = copy(world.directory.path());
        open_journal(theirs.path(), &world.clock).await.close().await;
        let journal = open_journal(theirs.path(), &world.clock).await;
        let next = open(&journal, &world.table, &world.clock, BehindOptions::default()).await;
        let next = next.expect("it takes over");
        world.while_time_passes(next.flush()).await.expect("nothing waits");

        world
            .settle("they have taken over", |world| {
                (0..4).all(|lane| {
                    let mark = world.table.mark(&format!("{}/row", next.profile().name), lane);
                    mark.is_some_and(|mark| mark.epoch >= 3 << 32)
                })
            })
            .await;
        world.add("ann", 1).await.expect("accepted, as far as anybody knows here");
        let refused = world.while_time_passes(world.behind.flush()).await;
        let refused = refused.expect_err("the origin knows another owner");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert_eq!(world.total("ann"), Some(1), "their late write is refused by the fence");
        assert!(world.table.fenced_count() > 0);
        let statistics = world.behind.statistics();
        let stopped = statistics.lanes.iter().find(|lane| lane.stopped.is_some());
        assert_eq!(stopped.expect("it is told").records, 1);
        assert_eq!(world.journal.usage().records, 1, "it is in the journal");
        let refused = world.add("ann", 1).await.expect_err("nobody would apply it");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(world.journal.usage().records, 1);
    });
}

#[test]
fn an_old_copy_of_a_journal_is_noticed() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("accepted");
        world.flush().await;
        let old = copy(world.directory.path());
        for number in 0..20 {
            world.put("ann", &number.to_string()).await.expect("accepted");
        }
        world.flush().await;
        // So often that its epoch is later than the one that the origin knows.
        for _ in 0..3 {
            open_journal(old.path(), &world.clock).await.close().await;
        }
        let journal = open_journal(old.path(), &world.clock).await;
        let behind = open(&journal, &world.table, &world.clock, options(|_| ())).await;
        let behind = behind.expect("it opens");
        let told = || behind.statistics().lanes.into_iter().find_map(|lane| lane.stopped);
        world.settle("it is noticed", |_| told().is_some()).await;
        let error = told().expect("just seen");
        assert!(error.to_string().contains("old copy of the journal"), "{error}");
    });
}

#[test]
fn a_commit_of_a_process_that_ended_is_refused_after_the_next_has_begun() {
    block_on(async {
        let world = World::with(FaultyTable::new(), options(|_| ())).await;
        world.put("ann", "0").await.expect("accepted");
        world.flush().await;
        let gate = Gate::new();
        world.table.script([WriteAnswer::late(&gate)]);
        world.add("ann", 5).await.expect("accepted");
        world.table.set_down(false);
        // The process ends while its transaction is on its way.
        let flush = tokio::spawn({
            let behind = world.behind.clone();
            async move { behind.flush().await }
        });
        world.settle("it is on its way", |world| world.table.calls().len() > 1).await;
        flush.abort();
        let world = world.restart(options(|_| ())).await;
        world.flush().await;
        gate.open();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.total("ann"), Some(5));
        let claim = world.journal.claim(0).await.expect("a claim");
        assert_eq!(world.journal.trim(0, claim.epoch, JournalOffset::START).await.ok(), Some(()));
    });
}
