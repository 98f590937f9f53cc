//! Loads that cross writes: accepted, on their way, applied, refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use larder::Memory;
use larder_testkit::conformance::block_on;

use super::*;

#[test]
fn a_load_under_way_when_a_write_is_accepted_does_not_bring_back_what_was_there() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        let gate = world.shelf.hold_load();
        let reading = world.reading("a");
        gate.wait_for_arrivals(1).await;
        world.put("a", r#"{"n":2}"#).await;
        assert_eq!(world.read("a").await, row(2), "who comes later does not get the load's");
        gate.open();
        let first = reading.await.expect("no panic");
        assert!(first == row(1) || first == row(2), "it came before: {first:?}");
        assert_eq!((world.memory("a"), world.read("a").await), (Some(row(2)), row(2)));
    });
}

#[test]
fn a_load_under_way_when_a_change_is_accepted_has_it_or_came_before() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        let gate = world.shelf.hold_load();
        let before = world.reading("a");
        gate.wait_for_arrivals(1).await;
        world.add("a", 10).await;
        let (second, after) = (world.shelf.hold_load(), world.reading("a"));
        second.wait_for_arrivals(1).await;
        // What is accepted while a load knows of what waits is in its answer.
        world.add("a", 100).await;
        gate.open();
        assert_eq!(before.await.expect("no panic"), row(1), "it came before");
        second.open();
        assert_eq!(after.await.expect("no panic"), row(111));
        assert_eq!(world.memory("a"), Some(row(111)));
        world.flush().await;
        assert_eq!((world.shelf.row("a"), world.read("a").await), (row(111), row(111)));
    });
}

#[test]
fn a_load_that_read_before_a_commit_is_not_taken_for_what_is_there_after_it() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        world.add("a", 10).await;
        let gate = world.shelf.hold_load();
        let reading = world.reading("a");
        gate.wait_for_arrivals(1).await;
        // It has read 1, and now the addition is applied, and another one waits.
        world.flush().await;
        world.add("a", 100).await;
        gate.open();
        assert_eq!(reading.await.expect("no panic"), row(111));
        assert_eq!((world.read("a").await, world.shelf.row("a")), (row(111), row(11)));
    });
}

#[test]
fn while_a_change_is_on_its_way_nobody_counts_it_twice_or_not_at_all() {
    block_on(async {
        for is_in_memory in [true, false] {
            let world = World::new().await;
            world.shelf.set("a", r#"{"n":1}"#);
            if is_in_memory {
                world.read("a").await;
            }
            let (before, after) = world.shelf.hold_write();
            world.add("a", 10).await;
            let flushing = world.flushing();
            before.wait_for_arrivals(1).await;
            world.add("a", 100).await;
            let reading = world.reading("a");
            if is_in_memory {
                assert_eq!(world.read("a").await, row(111));
            }
            before.open();
            after.wait_for_arrivals(1).await;
            // It is committed, and nobody has heard of it.
            if is_in_memory {
                assert_eq!(world.read("a").await, row(111));
            }
            world.add("a", 1000).await;
            after.open();
            flushing.await.expect("no panic");
            assert_eq!(world.read("a").await, row(1111), "in memory: {is_in_memory}");
            let read = reading.await.expect("no panic");
            assert!(read == row(111) || read == row(1111), "{read:?}");
            world.flush().await;
            assert_eq!((world.shelf.row("a"), world.read("a").await), (row(1111), row(1111)));
        }
    });
}

#[test]
fn where_the_origin_does_not_say_what_it_has_it_is_read_after_the_write() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set_silent();
        world.shelf.set("a", r#"{"n":1}"#);
        world.read("a").await;
        world.add("a", 1).await;
        world.flush().await;
        world.until("memory gave it up", |world| world.memory("a").is_none()).await;
        assert_eq!((world.read("a").await, world.shelf.loads()), (row(2), 2));
    });
}

#[test]
fn what_the_origin_refuses_is_not_shown_any_more_and_what_came_after_it_is() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        world.read("a").await;
        world.shelf.refuse(Some("bad"));
        world.patch("a", r#"{"bad":1}"#).await;
        assert_eq!(world.read("a").await.as_deref(), Some(r#"{"n":1,"bad":1}"#));
        world.add("a", 5).await;
        world.flush().await;
        assert_eq!((world.shelf.row("a"), world.read("a").await), (row(6), row(6)));
        let letters = world.behind.dead_letters(None, 10).await.expect("the journal tells");
        assert_eq!(letters.len(), 1);
        world.shelf.refuse(None);
        let id = larder::LetterId::from(&letters[0]);
        world.behind.replay(id, larder::Version::new(1), None).await.expect("it is replayed");
        world.flush().await;
        let mended = Some(r#"{"bad":1,"n":6}"#.to_owned());
        assert_eq!((world.shelf.row("a"), world.read("a").await), (mended.clone(), mended));
    });
}

/// Counters that are added to, read, evicted, removed and flushed by many at once: who
/// reads gets at least what was acknowledged before, and never more than was asked for.
#[test]
fn readers_of_counters_get_all_that_was_acknowledged_and_nothing_twice() {
    const KEYS: usize = 6;
    const ADDS: usize = 150;
    block_on(async {
        let world = Arc::new(World::with(|builder| builder.memory(Memory::entries(3))).await);
        (0..KEYS).for_each(|key| world.shelf.set(&format!("c{key}"), r#"{"n":0}"#));
        let counts = || Arc::new([const { AtomicI64::new(0) }; KEYS]);
        let (acknowledged, asked) = (counts(), counts());
        let is_over = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|_| {
            let (world, acknowledged, asked) = (world.clone(), acknowledged.clone(), asked.clone());
            tokio::spawn(async move {
                for _ in 0..ADDS {
                    let key = fastrand::usize(..KEYS);
                    asked[key].fetch_add(1, Ordering::SeqCst);
                    world.add(&format!("c{key}"), 1).await;
                    acknowledged[key].fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let others = (0..5).map(|number| {
            let (world, acknowledged, asked) = (world.clone(), acknowledged.clone(), asked.clone());
            let is_over = is_over.clone();
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let key = fastrand::usize(..KEYS);
                    let name = format!("c{key}");
                    match number {
                        0 => world.flush().await,
                        1 => drop(world.stock.remove(&Key::new(&name)).await),
                        _ => {
                            let least = acknowledged[key].load(Ordering::SeqCst);
                            let read = world.read(&name).await.expect("it is there");
                            let most = asked[key].load(Ordering::SeqCst);
                            let found = shelf::parse(read.as_bytes())["n"];
                            assert!((least..=most).contains(&found), "{least} {found} {most}");
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let (writers, others): (Vec<_>, Vec<_>) = (writers.collect(), others.collect());
        for writer in writers {
            writer.await.expect("no panic");
        }
        is_over.store(true, Ordering::SeqCst);
        for other in others {
            other.await.expect("no panic");
        }
        world.flush().await;
        for key in 0..KEYS {
            let (name, sum) = (format!("c{key}"), acknowledged[key].load(Ordering::SeqCst));
            assert_eq!((world.shelf.row(&name), world.read(&name).await), (row(sum), row(sum)));
        }
    });
}
