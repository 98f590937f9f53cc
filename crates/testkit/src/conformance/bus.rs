//! What every [`Bus`] must do. Each function is one case and expects the places
//! of two nodes at a bus that no other case uses.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{
    Announcement, Bus, BusEvent, BusMessage, BusPosition, Change, Key, Subscription, Tag, Verb,
    Version, Window,
};

/// Within which everything happens that is to happen, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon a quiet bus says that nothing is missing.
const QUIET_UNTIL_CURRENT: Duration = Duration::from_secs(1);

/// Runs every case of the suite as a test of its own against a new bus.
///
/// The second argument is an expression for a future that makes a pair: the
/// places of two nodes at one new bus. It runs inside the test's runtime, once
/// for each case.
///
/// ```no_run
/// # use larder_testkit::faulty::FaultyBus;
/// larder_testkit::bus_conformance!(in_process, async {
///     let one = FaultyBus::new();
///     let two = one.join();
///     (one, two)
/// });
/// ```
#[macro_export]
macro_rules! bus_conformance {
    ($name:ident, $nodes:expr) => {
        $crate::bus_conformance! { @cases $name, $nodes,
            every_node_hears_each_message_once_and_in_order
            announcements_arrive_as_they_were_made
            versions_exceed_what_the_publisher_knows
            versions_exceed_what_a_subscriber_knows
            versions_rise_across_concurrent_publishers
            current_follows_when_it_is_quiet
            current_tells_the_truth
            a_new_subscriber_hears_nothing_old
            a_subscriber_hears_exactly_what_it_missed
            a_subscriber_that_missed_nothing_is_current
            a_position_of_another_epoch_is_lost
            a_position_ahead_of_the_stream_is_lost
            a_dropped_wait_loses_nothing
            a_subscriber_that_leaves_takes_nothing_along
        }
    };
    (@cases $name:ident, $nodes:expr, $($case:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::conformance::block_on(async {
                        let (one, two) = $nodes.await;
                        $crate::conformance::bus::$case(one, two).await;
                    });
                }
            )*
        }
    };
}

/// An announcement that a numbered key was removed.
#[must_use]
pub fn removal(number: u64) -> Announcement {
    Announcement {
        cache: "conformance".to_owned(),
        change: Change::Keys(vec![Key::new(format!("conformance:bus:{number}"))]),
        verb: Verb::Remove,
    }
}

/// The one that announced it included; positions have no gaps, and versions rise
/// along them.
pub async fn every_node_hears_each_message_once_and_in_order<B: Bus>(one: B, two: B) {
    let mut ears = [listen(&one, None).await, listen(&two, None).await];
    let mut expected = Vec::new();
    for number in 0..40 {
        let publisher = if number % 2 == 0 { &one } else { &two };
        expected.push((publish(publisher, number).await, removal(number)));
    }
    let mut heard = Vec::new();
    for ear in &mut ears {
        heard.push(messages(ear, expected.len()).await);
        nothing_follows(ear).await;
    }
    assert_eq!(heard[0], heard[1], "nodes hear different things");
    let heard = heard.swap_remove(0);
    assert_contiguous(&heard);
    let told: Vec<_> =
        heard.into_iter().map(|message| (message.version, message.announcement)).collect();
    assert_eq!(told, expected);
}

/// Whatever bytes they are made of.
pub async fn announcements_arrive_as_they_were_made<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let keys = [every_byte, b"\r\n \0".to_vec(), b"conformance:{a}:[b]".to_vec()].map(Key::new);
    let many = (0..300).map(|number| Key::new(format!("conformance:bus:{number}")));
    let tags = ["artist:miles", "é\u{301} \u{10FFFF}\r\n\0", ""].map(Tag::new);
    let window = Window { length: Duration::from_secs(30), ends_at_millis: 1_234_567_890_123 };
    let changes = [
        Change::Keys(keys.to_vec()),
        Change::Keys(many.collect()),
        Change::Tags(tags.to_vec()),
        Change::All,
        Change::Writing { keys: keys.to_vec(), write: u64::MAX, within: Duration::from_millis(7) },
        Change::Written { keys: keys.to_vec(), write: 0 },
        Change::Gradual { change: Box::new(Change::Tags(tags.to_vec())), window },
        Change::Gradual { change: Box::new(Change::Keys(keys.to_vec())), window },
    ];
    let mut made = Vec::new();
    for change in changes {
        for (cache, verb) in [("album", Verb::Expire), ("other cache: é", Verb::Remove)] {
            let announcement =
                Announcement { cache: cache.to_owned(), change: change.clone(), verb };
            one.publish(&announcement, Version::ZERO).await.expect("it is announced");
            made.push(announcement);
        }
    }
    let heard = messages(&mut ear, made.len()).await;
    let heard: Vec<_> = heard.into_iter().map(|message| message.announcement).collect();
    assert_eq!(heard, made);
}

/// Should the bus have forgotten what it gave before.
pub async fn versions_exceed_what_the_publisher_knows<B: Bus>(one: B, two: B) {
    let first = publish(&one, 1).await;
    let known = Version::new(first.get() + 1_000_000);
    let second = one.publish(&removal(2), known).await.expect("it is announced").version;
    assert!(second > known, "{second} after {known}");
    let third = two.publish(&removal(3), Version::ZERO).await.expect("it is announced").version;
    assert!(third > second, "{third} after {second}, of another node");
}

/// Whoever starts again may know versions that the bus has forgotten: from its
/// subscription on nobody is given one of them.
pub async fn versions_exceed_what_a_subscriber_knows<B: Bus>(one: B, two: B) {
    let known = Version::new(publish(&two, 1).await.get() + 1_000_000);
    let mut ear = one.subscribe(None, known).await.expect("the bus is there");
    let (_, version) = current(&mut ear).await;
    assert!(version >= known, "{version} is told to whoever knows {known}");
    let next = two.publish(&removal(2), Version::ZERO).await.expect("it is announced").version;
    assert!(next > known, "{next} after {known}, of another node");
}

/// What was announced later has the higher version, whoever announced it, and
/// stands behind it in the stream.
pub async fn versions_rise_across_concurrent_publishers<B: Bus>(one: B, two: B) {
    const PUBLISHERS: u64 = 8;
    const EACH: u64 = 25;
    let mut ear = listen(&one, None).await;
    let (one, two) = (Arc::new(one), Arc::new(two));
    let highest = Arc::new(Mutex::new(Version::ZERO));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let bus = Arc::clone(if publisher % 2 == 0 { &one } else { &two });
            let highest = Arc::clone(&highest);
            tokio::spawn(async move {
                let highest = || highest.lock().unwrap_or_else(PoisonError::into_inner);
                let mut versions = Vec::new();
                for number in 0..EACH {
                    let before = *highest();
                    let version = publish(&*bus, publisher * EACH + number).await;
                    assert!(version > before, "{version} was announced after {before}");
                    let mut highest = highest();
                    *highest = version.max(*highest);
                    versions.push(version);
                }
                versions
            })
        })
        .collect();
    let mut given = Vec::new();
    for publisher in publishers {
        given.extend(publisher.await.expect("the publisher ends"));
    }
    given.sort_unstable();
    let heard = messages(&mut ear, given.len()).await;
    assert_contiguous(&heard);
    let heard: Vec<_> = heard.iter().map(|message| message.version).collect();
    assert_eq!(heard, given, "in the order of the stream, and sorted");
}

/// The heartbeat behind the last message names it, and comes soon: the best of
/// some is held against the second.
pub async fn current_follows_when_it_is_quiet<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    let mut best = Duration::MAX;
    for number in 0..4 {
        let version = publish(&one, number).await;
        let last = messages(&mut ear, 1).await.swap_remove(0);
        let start = Instant::now();
        let (head, highest) = current(&mut ear).await;
        best = best.min(start.elapsed());
        assert_eq!(head, last.position, "the last message heard");
        assert!(highest >= version, "{highest} after {version}");
    }
    assert!(best <= QUIET_UNTIL_CURRENT, "the quickest took {best:?}");
}

/// Everything that was announced before (now − age) has been heard by then,
/// also by a subscriber that does not listen for a while.
pub async fn current_tells_the_truth<B: Bus>(one: B, two: B) {
    const COUNT: u64 = 150;
    let mut ear = listen(&two, None).await;
    let announced = Arc::new(Mutex::new(Vec::new()));
    let publisher = tokio::spawn({
        let announced = Arc::clone(&announced);
        async move {
            for number in 0..COUNT {
                let version = publish(&one, number).await;
                let at = Instant::now();
                announced.lock().unwrap_or_else(PoisonError::into_inner).push((at, version));
                tokio::time::sleep(Duration::from_millis(number % 7)).await;
            }
            one
        }
    });
    let (mut heard, mut currents) = (Version::ZERO, 0);
    let mut count = 0;
    while count < COUNT || currents < 3 {
        let (asked_at, event) = timed_event(&mut ear).await;
        match event {
            BusEvent::Message(message) => {
                heard = message.version;
                count += 1;
            }
            BusEvent::Current { age, version, .. } => {
                currents += 1;
                assert!(version >= heard, "{heard} was heard, and {version} is the highest");
                let announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
                let missed = announced.iter().find(|(at, version)| {
                    *version > heard && asked_at.checked_sub(age).is_some_and(|until| *at < until)
                });
                assert_eq!(missed, None, "not heard at {asked_at:?}, less {age:?}");
            }
            other => panic!("nothing is lost, and it says {other:?}"),
        }
        if count % 20 == 0 {
            // What waits for it meanwhile grows older.
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
    }
    drop(publisher.await.expect("the publisher ends"));
}

/// Without a position it begins at the head.
pub async fn a_new_subscriber_hears_nothing_old<B: Bus>(one: B, two: B) {
    for number in 0..5 {
        publish(&one, number).await;
    }
    let mut ear = listen(&two, None).await;
    let version = publish(&one, 5).await;
    let heard = messages(&mut ear, 1).await;
    assert_eq!(heard[0].version, version);
}

/// From its position on, and then what follows.
pub async fn a_subscriber_hears_exactly_what_it_missed<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    for number in 0..12 {
        publish(&one, number).await;
    }
    let all = messages(&mut ear, 12).await;
    drop(ear);
    for place in [0, 4, 10] {
        let mut ear = listen(&two, Some(all[place].position)).await;
        let missed = &all[place + 1..];
        assert_eq!(messages(&mut ear, missed.len()).await, missed);
        nothing_follows(&mut ear).await;
    }
    let mut ear = listen(&two, Some(all[10].position)).await;
    let version = publish(&one, 12).await;
    let heard = messages(&mut ear, 2).await;
    assert_eq!((&heard[0], heard[1].version), (&all[11], version));
}

/// It is told so, and of no loss.
pub async fn a_subscriber_that_missed_nothing_is_current<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    publish(&one, 1).await;
    let last = messages(&mut ear, 1).await.swap_remove(0);
    drop(ear);
    let mut ear = listen(&two, Some(last.position)).await;
    let (head, version) = current(&mut ear).await;
    assert_eq!(head, last.position);
    assert!(version >= last.version);
}

/// Before anything else it is told that messages may be missing. Then it hears
/// what follows.
pub async fn a_position_of_another_epoch_is_lost<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    let version = publish(&one, 1).await;
    let position = messages(&mut ear, 1).await[0].position;
    let other = BusPosition { epoch: position.epoch ^ 1, ..position };
    continues_behind_a_loss(&one, &two, other, version).await;
}

/// Such as one of a stream that was cut short.
pub async fn a_position_ahead_of_the_stream_is_lost<B: Bus>(one: B, two: B) {
    let mut ear = listen(&two, None).await;
    let version = publish(&one, 1).await;
    let position = messages(&mut ear, 1).await[0].position;
    let ahead = BusPosition { sequence: position.sequence + 1_000, ..position };
    continues_behind_a_loss(&one, &two, ahead, version).await;
}

/// However often a wait is given up, in whatever state it is.
pub async fn a_dropped_wait_loses_nothing<B: Bus>(one: B, two: B) {
    const COUNT: u64 = 100;
    let mut ear = listen(&two, None).await;
    let publisher = tokio::spawn(async move {
        let mut versions = Vec::new();
        for number in 0..COUNT {
            versions.push(publish(&one, number).await);
            if number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        (one, versions)
    });
    let mut heard = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut patience_us = 0;
    while heard.len() < COUNT as usize {
        assert!(Instant::now() < deadline, "{} of {COUNT} arrive", heard.len());
        patience_us = (patience_us + 137) % 1_000;
        let wait = tokio::time::timeout(Duration::from_micros(patience_us), ear.next());
        match wait.await {
            Ok(Some(BusEvent::Message(message))) => heard.push(message),
            Ok(Some(BusEvent::Current { .. })) | Err(_) => {}
            Ok(other) => panic!("nothing is lost, and it says {other:?}"),
        }
    }
    let (_one, versions) = publisher.await.expect("the publisher ends");
    assert_contiguous(&heard);
    let heard: Vec<_> = heard.into_iter().map(|message| message.version).collect();
    assert_eq!(heard, versions);
}

/// Others of the same node hear on.
pub async fn a_subscriber_that_leaves_takes_nothing_along<B: Bus>(one: B, two: B) {
    let mut stays = listen(&two, None).await;
    let leaves = listen(&two, None).await;
    publish(&one, 1).await;
    drop(leaves);
    publish(&one, 2).await;
    assert_contiguous(&messages(&mut stays, 2).await);
    nothing_follows(&mut stays).await;
}

async fn continues_behind_a_loss<B: Bus>(one: &B, two: &B, from: BusPosition, known: Version) {
    let mut ear = listen(two, Some(from)).await;
    let head = match event(&mut ear).await {
        BusEvent::Lost { head, version, .. } => {
            assert!(version >= known, "{known} was announced, and {version} is the highest");
            head
        }
        other => panic!("{from:?} cannot be continued, and it says {other:?}"),
    };
    let version = publish(one, 7).await;
    let message = messages(&mut ear, 1).await.swap_remove(0);
    let behind = BusPosition { sequence: head.sequence + 1, ..head };
    assert_eq!((message.position, message.version), (behind, version));
    nothing_follows(&mut ear).await;
}

async fn listen<B: Bus>(bus: &B, after: Option<BusPosition>) -> B::Subscription {
    bus.subscribe(after, Version::ZERO).await.expect("the bus is there")
}

async fn publish<B: Bus>(bus: &B, number: u64) -> Version {
    bus.publish(&removal(number), Version::ZERO).await.expect("it is announced").version
}

async fn event<S: Subscription>(ear: &mut S) -> BusEvent {
    timed_event(ear).await.1
}

/// The next event, and a moment just before it was handed over.
async fn timed_event<S: Subscription>(ear: &mut S) -> (Instant, BusEvent) {
    let mut next = pin!(ear.next());
    let next = std::future::poll_fn(|context| {
        let asked_at = Instant::now();
        next.as_mut().poll(context).map(|event| (asked_at, event))
    });
    let (asked_at, event) =
        tokio::time::timeout(PATIENCE, next).await.expect("a bus has something to say");
    (asked_at, event.expect("the bus is not shut down"))
}

/// The next messages. Heartbeats between them are passed over; nothing is lost.
async fn messages<S: Subscription>(ear: &mut S, count: usize) -> Vec<BusMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        match event(ear).await {
            BusEvent::Message(message) => messages.push(message),
            BusEvent::Current { .. } => {}
            other => panic!("nothing is lost, and it says {other:?}"),
        }
    }
    messages
}

/// The next heartbeat, with the last message heard and the highest version.
async fn current<S: Subscription>(ear: &mut S) -> (BusPosition, Version) {
    match event(ear).await {
        BusEvent::Current { head, version, .. } => (head, version),
        other => panic!("nothing was announced, and it says {other:?}"),
    }
}

/// Up to the second heartbeat there is no message: the first may be older than
/// the question.
async fn nothing_follows<S: Subscription>(ear: &mut S) {
    for _ in 0..2 {
        current(ear).await;
    }
}

fn assert_contiguous(messages: &[BusMessage]) {
    for pair in messages.windows(2) {
        let (before, after) = (pair[0].position, pair[1].position);
        let next = BusPosition { sequence: before.sequence + 1, ..before };
        assert_eq!(after, next, "behind {before:?}");
        assert!(pair[0].version < pair[1].version, "{pair:?}");
    }
}
