//! What a process has missed, and a store that all share has not: its entries are
//! answers still, where that is certain.

use super::*;

/// A name, what happens to the bus while the process hears nothing, before the stream
/// is trimmed, and whether what the shared store has of before is an answer then.
type Way = (&'static str, fn(&World), bool);

const WAYS: [Way; 4] = [
    ("nothing else", |_| {}, true),
    ("another epoch", |world| world.bus.change_epoch(), false),
    (
        "taken over by a replica that has everything",
        |world| {
            world.bus.hold_replica();
            assert!(world.bus.fail_over());
        },
        false,
    ),
    ("taken over by a replica without the tail", |world| assert!(world.bus.fail_over()), false),
];

#[tokio::test(start_paused = true)]
async fn after_a_gap_a_store_in_step_answers_what_was_not_invalidated() {
    for (way, happen, is_answered) in WAYS {
        let world = World::sharing(plain());
        let (one, other) = (world.other().await, world.other().await);
        for number in 0..8 {
            assert_eq!(one.read(&user(number)).await, (1, Tier::Origin));
        }
        one.pass(A_WHILE).await;
        one.bus.stall();
        world.bus.hold_replica();
        (0..8).for_each(|number| world.origin.set(user(number), 2));
        other.users.remove(&user(0)).await.expect("it is announced");
        other.users.expire(&user(1)).await.expect("it is announced");
        other.users.remove_tag(team(&user(2))).await.expect("it is announced");
        other.users.expire_tag(team(&user(4))).await.expect("it is announced");
        happen(&world);
        other.pass(A_WHILE).await;
        world.bus.trim();
        one.bus.resume();
        one.pass(A_WHILE).await;
        for number in 0..8 {
            let is_valid = number >= 6 && is_answered;
            let expected = if is_valid { (1, Tier::Store(0)) } else { (2, Tier::Origin) };
            let read = one.read(&user(number)).await;
            // What was loaded here was put there: others find it.
            assert_eq!(read, expected, "{way}, {number}");
        }
        // And memory has it from then on.
        one.pass(A_WHILE).await;
        for number in 0..8 {
            assert_eq!(one.read(&user(number)).await.1, Tier::Memory, "{way}, {number}");
        }
        other.users.clear().await.expect("it is announced");
        one.pass(A_WHILE).await;
        assert_eq!(one.read(&user(7)).await, (2, Tier::Origin), "{way}");
    }
}

/// What it has of today is worth keeping on a disk that is in doubt of all before.
#[tokio::test(start_paused = true)]
async fn what_a_store_in_step_has_fills_a_disk_that_is_in_doubt() {
    let world = World::sharing(plain());
    let process = world.start().await;
    process.caught_up().await;
    process.read(&user(0)).await;
    process.pass(A_WHILE).await;
    process.stop().await;
    let other = world.other().await;
    other.users.remove(&user(1)).await.expect("it is announced");
    world.bus.trim();
    for expected in [Tier::Store(1), Tier::Store(0)] {
        let process = world.start().await;
        process.caught_up().await;
        assert_eq!(process.read(&user(0)).await, (1, expected));
        process.pass(A_WHILE).await;
        process.stop().await;
    }
}

/// A number of one's own change says nothing of those that others announced before
/// it and that are still on their way.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_when_a_store_answers_is_heard_of() {
    let world = World::sharing(plain());
    let (one, other) = (world.other().await, world.other().await);
    one.read(&user(2)).await;
    one.pass(A_WHILE).await;
    // So that memory is in doubt of all of before.
    one.bus.lose(1);
    other.users.remove(&user(0)).await.expect("it is announced");
    one.pass(A_WHILE).await;
    // It asks for the watermarks of today.
    one.read(&user(4)).await;
    one.bus.stall();
    world.origin.set(user(2), 2);
    other.users.remove_tag(team(&user(2))).await.expect("it is announced");
    one.users.remove(&user(7)).await.expect("it is announced");
    let read = one.read(&user(2)).await;
    assert_eq!(read, (1, Tier::Store(0)), "it has not heard yet, within its bound");
    one.bus.resume();
    one.pass(Duration::from_millis(200)).await;
    assert_eq!(one.read(&user(2)).await, (2, Tier::Origin));
}
