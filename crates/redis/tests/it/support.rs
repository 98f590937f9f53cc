//! What the tests of this crate share.

use std::time::{Duration, Instant};

use larder_core::{
    Announcement, Bus, BusEvent, BusMessage, BusPosition, Change, Key, Subscription, Tag, Verb,
    Version,
};
use larder_redis::{RedisOptions, RedisSubscription, RedisTier};
use larder_testkit::redis::RedisServer;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Options for this server, patient ones.
pub(crate) fn options(server: &RedisServer) -> RedisOptions {
    patient(RedisOptions::new(server.url()))
}

pub(crate) fn patient(mut options: RedisOptions) -> RedisOptions {
    options.connect_timeout = Duration::from_secs(10);
    options.response_timeout = Duration::from_secs(10);
    options.heartbeat = Duration::from_millis(100);
    options
}

pub(crate) async fn connect(server: &RedisServer) -> RedisTier {
    RedisTier::connect(options(server)).await.expect("the server runs and allows everything")
}

/// The removal of a key of the cache `album`.
pub(crate) fn removal(key: &str) -> Announcement {
    announcement(Change::Keys(vec![Key::new(key)]), Verb::Remove)
}

pub(crate) fn tagged(tag: &str) -> Announcement {
    announcement(Change::Tags(vec![Tag::new(tag)]), Verb::Remove)
}

pub(crate) fn announcement(change: Change, verb: Verb) -> Announcement {
    Announcement { cache: "album".to_owned(), change, verb }
}

pub(crate) async fn publish(tier: &RedisTier, announcement: &Announcement) -> Version {
    tier.bus().publish(announcement, Version::ZERO).await.expect("it is announced").version
}

pub(crate) async fn subscribe(tier: &RedisTier, after: Option<BusPosition>) -> RedisSubscription {
    tier.bus().subscribe(after, Version::ZERO).await.expect("the bus is there")
}

/// The next event.
pub(crate) async fn next(subscription: &mut RedisSubscription) -> BusEvent {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
    next.expect("an event comes in time").expect("the bus runs")
}

/// The next event that is no heartbeat.
pub(crate) async fn news(subscription: &mut RedisSubscription) -> BusEvent {
    loop {
        match next(subscription).await {
            BusEvent::Current { .. } => {}
            event => return event,
        }
    }
}

/// The next message; nothing but heartbeats may come before it.
pub(crate) async fn message(subscription: &mut RedisSubscription) -> BusMessage {
    match news(subscription).await {
        BusEvent::Message(message) => message,
        event => panic!("a message was due, and there was {event:?}"),
    }
}

/// The next heartbeat, and what came before it.
pub(crate) async fn until_current(
    subscription: &mut RedisSubscription,
) -> (Vec<BusEvent>, BusPosition, Version) {
    let mut before = Vec::new();
    loop {
        match next(subscription).await {
            BusEvent::Current { head, version, .. } => return (before, head, version),
            event => before.push(event),
        }
    }
}

/// Waits for the message of this version, or for word that messages up to it are
/// lost.
pub(crate) async fn until_told(subscription: &mut RedisSubscription, announced: Version) {
    loop {
        match next(subscription).await {
            BusEvent::Message(message) if message.version == announced => return,
            BusEvent::Lost { version, .. } if version >= announced => return,
            _ => {}
        }
    }
}

/// Waits until something holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "this does not come about: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
