//! When batches are applied, and what is in them.

use std::time::Duration;

use larder::ErrorKind;
use larder_core::WriteAbilities;
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::FaultyTable;

use super::{LATER, World, options};

#[test]
fn a_write_waits_for_its_time_and_no_longer() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("it is accepted");
        world.settle("the lane sleeps", |world| world.clock.sleepers_count() > 0).await;
        world.clock.advance(LATER - Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert_eq!(world.value("ann"), None);
        let statistics = world.behind.statistics();
        assert_eq!(statistics.depth_records, 1);
        assert!(statistics.oldest_age >= LATER - Duration::from_millis(2), "{statistics:?}");
        world.clock.advance(Duration::from_millis(2));
        world.settle("it is applied", |world| world.value("ann").as_deref() == Some("1")).await;
        world.settle("nothing waits", |world| world.behind.statistics().depth_records == 0).await;
        assert_eq!(world.behind.statistics().depth_bytes, 0);
    });
}

#[test]
fn enough_writes_do_not_wait() {
    block_on(async {
        let world = World::with(FaultyTable::new(), options(|o| o.batch_records = 10)).await;
        for number in 0..10 {
            world.put("ann", &number.to_string()).await.expect("it is accepted");
        }
        world.settle("it is applied", |world| world.value("ann").as_deref() == Some("9")).await;
        world.settle("it is told", |world| world.behind.statistics().applied == 10).await;
        let statistics = world.behind.statistics();
        assert_eq!((statistics.written, statistics.coalesced), (1, 9));
    });
}

#[test]
fn a_hot_key_is_written_once_and_sums_are_exact() {
    block_on(async {
        let world = World::with(FaultyTable::new(), options(|o| o.batch_records = 1000)).await;
        world.put("ann", "0").await.expect("it is accepted");
        for _ in 0..200 {
            world.add("ann", 3).await.expect("it is accepted");
        }
        world.flush().await;
        assert_eq!(world.total("ann"), Some(600));
        let statistics = world.behind.statistics();
        assert_eq!((statistics.accepted, statistics.applied, statistics.written), (201, 201, 2));
    });
}

#[test]
fn many_writers_share_a_sync_and_a_transaction() {
    block_on(async {
        let world = World::new().await;
        let mut writers = Vec::new();
        for number in 0..64 {
            let behind = world.behind.clone();
            writers.push(tokio::spawn(async move {
                for round in 0..10 {
                    let write = larder_core::Write::new(
                        larder_core::Key::new(format!("{number}-{round}")),
                        larder_core::Action::Put(super::text("x")),
                    );
                    behind
                        .write(super::CACHE, write, larder::Version::new(1))
                        .await
                        .expect("accepted");
                }
            }));
        }
        for writer in writers {
            writer.await.expect("it writes");
        }
        world.flush().await;
        let (statistics, journal) = (world.behind.statistics(), world.journal.statistics());
        assert_eq!(statistics.applied, 640);
        assert!(statistics.batches < 100, "{statistics:?}");
        assert!(journal.commits < 400, "{journal:?}");
    });
}

#[test]
fn what_waits_is_bounded_and_goes_on_when_there_is_room() {
    block_on(async {
        let world = World::with(FaultyTable::new(), options(|o| o.queue_records_max = 20)).await;
        world.table.set_down(true);
        let mut accepted = 0;
        let refused = loop {
            match world.put("ann", &accepted.to_string()).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((accepted, refused.kind()), (20, ErrorKind::Overloaded));
        assert!(refused.to_string().contains("queue_records_max: 20"), "{refused}");
        assert_eq!(world.behind.statistics().refused_full, 1);
        world.table.set_down(false);
        world.flush().await;
        assert_eq!(world.value("ann").as_deref(), Some("19"));
        world.put("ann", "more").await.expect("there is room");
    });
}

#[test]
fn what_an_origin_cannot_do_is_refused_before_it_is_accepted() {
    block_on(async {
        let table = FaultyTable::with_abilities(WriteAbilities::SIMPLE);
        let world = World::with(table, options(|_| ())).await;
        let refused = world.add("ann", 1).await.expect_err("it cannot add");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(world.behind.statistics().accepted, 0);
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.add = true;
        let table = FaultyTable::with_abilities(abilities);
        let world = World::with(table.clone(), options(|_| ())).await;
        let refused = world.add("ann", 1).await.expect_err("it keeps no marks");
        assert!(refused.to_string().contains("repeated_adds"), "{refused}");
        let world = World::with(table, options(|o| o.repeated_adds = true)).await;
        world.put("ann", "1").await.expect("accepted");
        world.add("ann", 1).await.expect("the user said so");
        world.flush().await;
        assert_eq!(world.total("ann"), Some(1));
    });
}

#[test]
fn a_shutdown_applies_what_it_can_and_keeps_the_rest() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("accepted");
        // No time passes: it is not waited for.
        assert_eq!(world.behind.shut_down(LATER).await, 0);
        assert_eq!(world.value("ann").as_deref(), Some("1"));
        let refused = world.put("ann", "2").await.expect_err("it is closed");
        assert_eq!(refused.kind(), ErrorKind::ShuttingDown);

        let world = world.restart(options(|_| ())).await;
        world.table.set_down(true);
        world.put("ann", "3").await.expect("accepted");
        assert_eq!(world.while_time_passes(world.behind.shut_down(LATER)).await, 1);
        world.table.set_down(false);
        let world = world.restart(options(|_| ())).await;
        world.flush().await;
        assert_eq!(world.value("ann").as_deref(), Some("3"));
    });
}
