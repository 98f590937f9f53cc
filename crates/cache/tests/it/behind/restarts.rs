//! What the next process makes of what the last one left.

use larder::{BehindOptions, ErrorKind};
use larder_core::{DeathCause, Key, WriteAbilities};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyTable, WriteAnswer};

use super::{World, open, options};

#[test]
fn what_waits_is_applied_after_a_restart_and_nothing_twice() {
    block_on(async {
        let mut world = World::new().await;
        world.put("ann", "0").await.expect("accepted");
        for round in 0..10 {
            world.add("ann", 1).await.expect("accepted");
            world.add("ann", 10).await.expect("accepted");
            if round % 3 == 0 {
                world.flush().await;
            }
            world = world.restart(options(|_| ())).await;
        }
        world.flush().await;
        assert_eq!(world.total("ann"), Some(110));
        let is_empty = |world: &World| world.behind.statistics().journal.records == 0;
        world.settle("the journal is trimmed", is_empty).await;
    });
}

#[test]
fn what_was_committed_without_an_answer_is_not_applied_again_by_the_next_process() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "0").await.expect("accepted");
        world.flush().await;
        world.table.script([WriteAnswer::CommitAndHang]);
        world.add("ann", 5).await.expect("accepted");
        let flush = tokio::spawn({
            let behind = world.behind.clone();
            async move { behind.flush().await }
        });
        world.settle("it is committed", |world| world.total("ann") == Some(5)).await;
        flush.abort();
        assert_eq!(world.behind.statistics().journal.records, 1, "nobody heard of it");
        let world = world.restart(options(|_| ())).await;
        world.add("ann", 1).await.expect("accepted");
        world.flush().await;
        assert_eq!(world.total("ann"), Some(6));
    });
}

#[test]
fn an_origin_that_is_down_at_the_start_gets_its_writes_later() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("accepted");
        world.table.set_down(true);
        let world = world.restart(options(|_| ())).await;
        let pending = world.behind.pending(super::CACHE, &Key::new("ann")).expect("it waits");
        assert!(!pending.certain, "the origin has not said what it has");
        world.put("bob", "2").await.expect("accepted");
        world.table.set_down(false);
        world.flush().await;
        assert_eq!(
            (world.value("ann").as_deref(), world.value("bob").as_deref()),
            (Some("1"), Some("2"))
        );
    });
}

#[test]
fn an_origin_without_marks_gets_each_write_at_least_once() {
    block_on(async {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.presence = true;
        let table = FaultyTable::with_abilities(abilities);
        let world = World::with(table, options(|_| ())).await;
        for number in 0..30 {
            world.put(&format!("key-{}", number % 7), &number.to_string()).await.expect("accepted");
        }
        world.table.script([
            WriteAnswer::lost_reply(),
            WriteAnswer::Commit,
            WriteAnswer::lost_reply(),
        ]);
        world.flush().await;
        for number in 23..30 {
            let value = world.value(&format!("key-{}", number % 7));
            assert_eq!(value, Some(number.to_string()));
        }
        // An expectation that fails because of itself is in doubt, not a conflict.
        let put =
            larder_core::Write::new(Key::new("new"), larder_core::Action::Put(super::text("1")));
        world.table.script([WriteAnswer::lost_reply()]);
        world.write(put.expecting(larder_core::Expected::Absent)).await.expect("accepted");
        world.flush().await;
        let letters = world.behind.dead_letters(None, 10).await.expect("listed");
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].death.cause, DeathCause::InDoubt);
    });
}

#[test]
fn writes_of_a_cache_that_is_gone_are_refused_or_buried_as_one_says() {
    block_on(async {
        let world = World::new().await;
        world.table.set_down(true);
        world.put("ann", "1").await.expect("accepted");
        world.behind.shut_down(std::time::Duration::ZERO).await;
        let open = |options: BehindOptions| async {
            larder::WriteBehind::open(
                std::sync::Arc::new(world.journal.clone()),
                [],
                options,
                larder::Clock::from(world.clock.clone()),
            )
            .await
        };
        let refused = open(options(|_| ())).await.expect_err("nobody would apply it");
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.to_string().contains("cache: row"), "{refused}");
        let behind = open(options(|o| o.bury_unknown_caches = true)).await.expect("it opens");
        assert_eq!(behind.dead_letters(None, 10).await.expect("listed").len(), 1);
    });
}

#[test]
fn a_second_opening_in_one_process_takes_the_lanes_over() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "1").await.expect("accepted");
        let next = open(&world.journal, &world.table, &world.clock, options(|_| ())).await;
        let next = next.expect("it takes over");
        world.while_time_passes(next.flush()).await.expect("it is applied");
        assert_eq!(world.value("ann").as_deref(), Some("1"));
        let is_empty = |_: &World| next.statistics().journal.records == 0;
        world.settle("the journal is trimmed", is_empty).await;
    });
}
