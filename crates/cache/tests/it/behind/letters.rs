//! Writes that the origin will never take.

use larder::{ErrorKind, LetterId, Version};
use larder_core::{Action, DeathCause, Expected, Key, Write};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyTable, WriteAnswer};

use super::{CACHE, World, options, text};

/// Whether the table says which write of a batch is to blame.
fn poison_stops_nobody(blames: bool) {
    block_on(async {
        let world = World::with(FaultyTable::new(), options(|o| o.batch_records = 100)).await;
        world.table.poison("bad", blames);
        for number in 0..120 {
            world.put(&format!("key-{number}"), "good").await.expect("accepted");
            if number % 40 == 7 {
                world.put(&format!("key-{number}"), "bad").await.expect("accepted");
            }
        }
        world.flush().await;
        for number in 0..120 {
            assert_eq!(world.value(&format!("key-{number}")).as_deref(), Some("good"));
        }
        let letters = world.behind.dead_letters(None, 100).await.expect("they are listed");
        assert_eq!(letters.len(), 3);
        for letter in &letters {
            assert_eq!(letter.death.cause, DeathCause::Refused);
            assert!(letter.death.reason.contains("constraint"), "{letter:?}");
            assert_eq!(letter.record.write.action, Action::Put(text("bad")));
        }
        let statistics = world.behind.statistics();
        assert_eq!((statistics.buried, statistics.applied), (3, 120));
        assert_eq!(statistics.journal.dead_letters, 3);
    });
}

#[test]
fn poison_that_is_named_stops_nobody() {
    poison_stops_nobody(true);
}

#[test]
fn poison_that_is_not_named_is_found_and_stops_nobody() {
    poison_stops_nobody(false);
}

#[test]
fn of_coalesced_writes_only_the_one_to_blame_is_buried() {
    block_on(async {
        let world = World::new().await;
        world.table.poison("bad", true);
        for value in ["1", "bad", "3", "bad"] {
            world.put("ann", value).await.expect("accepted");
        }
        world.flush().await;
        assert_eq!(world.value("ann").as_deref(), Some("3"));
        assert_eq!(world.behind.statistics().buried, 2);
    });
}

/// A world with one dead letter, of `ann`.
async fn with_letter(queue_records_max: usize) -> (World, LetterId) {
    let options = options(|options| options.queue_records_max = queue_records_max);
    let world = World::with(FaultyTable::new(), options).await;
    world.table.poison("bad", true);
    world.put("ann", "bad").await.expect("accepted");
    world.flush().await;
    let letters = world.behind.dead_letters(None, 1).await.expect("listed");
    (world, LetterId::from(&letters[0]))
}

fn mended() -> Option<Write<Key, bytes::Bytes>> {
    Some(Write::new(Key::new("ann"), Action::Put(text("good"))))
}

#[test]
fn a_replay_waits_in_the_queue_like_any_other_write() {
    block_on(async {
        let (world, id) = with_letter(1).await;
        world.table.set_down(true);
        world.put("eve", "1").await.expect("there is room for one");
        let refused = world.behind.replay(id, Version::new(9), mended()).await;
        assert_eq!(refused.expect_err("there is no room").kind(), ErrorKind::Overloaded);
        assert!(world.behind.dead_letter(id).await.expect("read").is_some());
        world.table.set_down(false);
        world.flush().await;
        let replayed = world.behind.replay(id, Version::new(9), mended()).await;
        assert!(replayed.expect("there is room").is_some());
        world.flush().await;
        assert_eq!(world.value("ann").as_deref(), Some("good"));
    });
}

#[test]
fn letters_survive_a_restart_and_are_listed_replayed_mended_and_dropped() {
    block_on(async {
        let world = World::new().await;
        world.table.poison("bad", true);
        for key in ["ann", "bob", "eve"] {
            world.put(key, "bad").await.expect("accepted");
        }
        world.flush().await;
        let world = world.restart(options(|_| ())).await;
        let mut ids = Vec::new();
        let mut after = None;
        while let [letter] = &world.behind.dead_letters(after, 1).await.expect("listed")[..] {
            after = Some(LetterId::from(letter));
            ids.extend(after);
        }
        assert_eq!(ids.len(), 3);
        let id: LetterId = ids[0].to_string().parse().expect("its own name");
        let letter = world.behind.dead_letter(id).await.expect("read").expect("it is there");
        let key = letter.record.write.key.clone();

        // As it was, it fails again, under another name.
        let version = Version::new(9);
        let again = world.behind.replay(id, version, None).await.expect("accepted");
        assert!(again.is_some_and(|offset| offset > id.offset));
        world.flush().await;
        assert!(world.behind.dead_letter(id).await.expect("read").is_none());
        let letters = world.behind.dead_letters(None, 10).await.expect("listed");
        let again = letters.iter().find(|letter| letter.record.write.key == key);
        let again = LetterId::from(again.expect("it is buried again"));

        // Mended, it comes through, after what was written meanwhile.
        let other = Write::new(Key::new("nobody"), Action::Put(text("good")));
        let refused = world.behind.replay(again, version, Some(other)).await;
        assert_eq!(refused.expect_err("another key").kind(), ErrorKind::InvalidInput);
        let mended = Write::new(key.clone(), Action::Put(text("good")));
        world.behind.replay(again, version, Some(mended)).await.expect("accepted").expect("there");
        world.flush().await;
        assert_eq!(world.table.row(&key).map(|row| row.value), Some(text("good")));

        assert_eq!(world.behind.drop_letters(&ids[1..]).await.expect("dropped"), 2);
        assert_eq!(world.behind.drop_letters(&ids).await.expect("dropped"), 0);
        assert!(world.behind.dead_letters(None, 10).await.expect("listed").is_empty());
        let world = world.restart(options(|_| ())).await;
        assert!(world.behind.dead_letters(None, 10).await.expect("listed").is_empty());
    });
}

#[test]
fn what_found_something_else_than_it_expected_is_a_letter_and_the_rest_is_applied() {
    block_on(async {
        let world = World::new().await;
        world.table.set(Key::new("ann"), "0");
        let put = Write::new(Key::new("ann"), Action::Put(text("1")));
        world.write(put.expecting(Expected::Absent)).await.expect("accepted");
        world.add("ann", 1).await.expect("accepted");
        world.add("nobody", 1).await.expect("accepted");
        world.put("bob", "1").await.expect("accepted");
        world.flush().await;
        let letters = world.behind.dead_letters(None, 10).await.expect("listed");
        let mut causes: Vec<_> = letters.iter().map(|letter| letter.death.cause.name()).collect();
        causes.sort_unstable();
        assert_eq!(causes, ["conflict", "missing"]);
        assert_eq!((world.total("ann"), world.value("bob").as_deref()), (Some(1), Some("1")));
    });
}

#[test]
fn a_write_that_may_have_found_nothing_without_an_answer_is_in_doubt() {
    block_on(async {
        let world = World::new().await;
        world.table.set(Key::new("ann"), "0");
        world.table.script(vec![WriteAnswer::lost_reply(); 4]);
        world.add("nobody", 1).await.expect("accepted");
        world.add("ann", 1).await.expect("accepted");
        world.flush().await;
        let letters = world.behind.dead_letters(None, 10).await.expect("listed");
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!(letters[0].death.cause, DeathCause::InDoubt);
        assert_eq!(letters[0].record.write.key, Key::new("nobody"));
        assert_eq!(world.total("ann"), Some(1), "its row is there: it was added");
        assert!(world.behind.pending(CACHE, &Key::new("nobody")).is_none());
    });
}
