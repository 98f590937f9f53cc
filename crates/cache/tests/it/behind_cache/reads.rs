//! What was acknowledged is read at once, whatever memory has kept of it.

use std::time::Duration;

use larder::{Action, EventKind, Memory, Tier};
use larder_testkit::conformance::block_on;

use super::*;

#[test]
fn what_was_acknowledged_is_read_at_once_and_the_origin_has_it_later() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        assert_eq!(world.read("a").await, row(1));
        world.put("a", r#"{"n":2}"#).await;
        assert_eq!((world.memory("a"), world.shelf.row("a")), (Some(row(2)), row(1)));
        world.patch("a", r#"{"m":7}"#).await;
        let both = Some(r#"{"n":2,"m":7}"#.to_owned());
        assert_eq!((world.memory("a"), world.read("a").await), (Some(both.clone()), both));
        world.write("b", Action::Remove).await.expect("it is accepted");
        assert_eq!((world.memory("b"), world.read("b").await), (Some(None), None));
        world.write("a", Action::Remove).await.expect("it is accepted");
        assert_eq!(world.read("a").await, None);
        world.put("a", r#"{"n":9}"#).await;
        world.flush().await;
        assert_eq!((world.shelf.row("a"), world.read("a").await), (row(9), row(9)));
        let loads = world.shelf.loads();
        assert!(loads <= 2, "all but the last was known: of several writes none says so");
    });
}

#[test]
fn a_counter_in_memory_is_counted_there_and_the_origin_is_not_asked() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":0}"#);
        world.read("a").await;
        let mut events = world.stock.events();
        for number in 1..=300 {
            let Written::Done { now, .. } = world.add("a", 1).await else { panic!("it is done") };
            let now = now.expect("it can be told");
            assert_eq!(shelf::parse(now.as_option().expect("it is there"))["n"], number);
            assert_eq!(world.read("a").await, row(number));
            if number % 70 == 0 {
                world.flush().await;
                assert_eq!(world.shelf.row("a"), row(number));
                // Until then it is unknown what the table made of it.
                while let Some(event) = events.next().await {
                    if event.is_ok_and(|event| event.kind == EventKind::Written) {
                        break;
                    }
                }
            }
        }
        assert_eq!(world.shelf.loads(), 1);
    });
}

#[test]
fn a_change_of_what_is_not_in_memory_is_made_to_what_the_origin_has() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":5}"#);
        world.add("a", 2).await;
        assert_eq!(world.memory("a"), None, "the origin was not asked");
        assert_eq!(world.read("a").await, row(7));
        world.add("a", 1).await;
        assert_eq!((world.memory("a"), world.shelf.loads()), (Some(row(8)), 1));
        let hit = world.stock.get(&Key::new("a")).await.expect("it is answered").expect("a hit");
        assert_eq!(hit.tier(), Tier::Memory);
        // A look that never asks the origin does not.
        world.add("b", 1).await;
        assert!(world.stock.get(&Key::new("b")).await.expect("it is answered").is_none());
        assert_eq!(world.read("b").await, None, "there is nothing to change");
    });
}

#[test]
fn neither_eviction_nor_time_nor_a_clear_takes_what_waits() {
    block_on(async {
        let world = World::with(|builder| builder.memory(Memory::entries(4))).await;
        for key in 0..200 {
            world.shelf.set(&format!("c{key}"), r#"{"n":100}"#);
            world.put(&format!("p{key}"), &format!("{{\"n\":{key}}}")).await;
            world.add(&format!("c{key}"), key).await;
        }
        for round in 0..3 {
            for key in 0..200 {
                assert_eq!(world.read(&format!("p{key}")).await, row(key), "{round}");
                assert_eq!(world.read(&format!("c{key}")).await, row(100 + key), "{round}");
            }
            match round {
                0 => world.clock.advance(Duration::from_secs(3600)),
                _ => drop(world.stock.clear().await.expect("it is cleared")),
            }
        }
        assert_eq!(world.shelf.row("p7"), None);
        world.flush().await;
        assert_eq!((world.shelf.row("p7"), world.shelf.row("c7")), (row(7), row(107)));
        assert_eq!((world.read("p7").await, world.read("c7").await), (row(7), row(107)));
    });
}

#[test]
fn a_removal_by_hand_has_the_origin_read_again_under_what_waits() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("a", r#"{"n":1}"#);
        world.read("a").await;
        world.add("a", 1).await;
        assert_eq!(world.read("a").await, row(2));
        // Somebody else changed the table, and says so.
        world.shelf.set("a", r#"{"n":50}"#);
        world.stock.remove(&Key::new("a")).await.expect("it is removed");
        assert_eq!(world.read("a").await, row(51));
        world.shelf.set("a", r#"{"n":70}"#);
        world.stock.clear().await.expect("it is cleared");
        world.add("a", 1).await;
        assert_eq!(world.read("a").await, row(72));
    });
}

#[test]
fn what_waits_is_read_after_a_restart_while_the_origin_is_down() {
    block_on(async {
        let world = World::new().await;
        world.shelf.set("c", r#"{"n":10}"#);
        world.put("a", r#"{"n":1}"#).await;
        world.add("c", 5).await;
        world.shelf.set_down(true);
        let world = world.restart().await;
        assert_eq!(world.read("a").await, row(1), "the origin is not needed for it");
        let reading = world.reading("c");
        world.shelf.set_down(false);
        // The lane asks the origin again after a pause of real time.
        let told = async {
            loop {
                if world.behind.pending(CACHE, &Key::new("c")).is_none_or(|it| it.certain) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is taken over");
        assert_eq!(reading.await.expect("no panic"), row(15));
        world.flush().await;
        assert_eq!((world.shelf.row("a"), world.shelf.row("c")), (row(1), row(15)));
        assert_eq!(world.read("c").await, row(15));
    });
}

#[test]
fn where_only_the_origin_can_tell_what_comes_of_a_write_it_is_applied_first() {
    block_on(async {
        let world = World::new().await;
        // The member is not there: whatever an addition makes of it, the table knows.
        world.shelf.set("a", r#"{"m":1}"#);
        world.shelf.add_to_missing();
        world.read("a").await;
        world.add("a", 5).await;
        assert_eq!(world.read("a").await.as_deref(), Some(r#"{"m":1,"n":5}"#));
        assert_eq!(world.shelf.row("a").as_deref(), Some(r#"{"m":1,"n":5}"#), "it is applied");
        world.put("b", r#"{"m":2}"#).await;
        world.add("b", 6).await;
        assert_eq!(world.read("b").await.as_deref(), Some(r#"{"m":2,"n":6}"#));
    });
}
