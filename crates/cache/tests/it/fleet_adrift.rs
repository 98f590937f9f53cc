//! Fleets whose bus refuses or says nothing, and keys that cannot be read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, Error, ErrorKind, Fleet, FleetOptions, Key, Result, SharedKey, Version};
use larder_core::{Announcement, Bus, BusEvent, BusPosition, Change, Published, Subscription};
use larder_testkit::faulty::{FaultyBus, PublishFault};

use crate::support::*;

/// How long a test waits for what is told in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bus that refuses one cache for good, and all others as the script says.
struct Partial(FaultyBus, Mutex<Vec<ErrorKind>>);

impl Bus for Partial {
    type Subscription = <FaultyBus as Bus>::Subscription;

    async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Published> {
        if announcement.cache == "refused" {
            return Err(Error::new(ErrorKind::InvalidInput, "not this one"));
        }
        let refusal = self.1.lock().expect("nobody panics with it").pop();
        if let Some(kind) = refusal {
            return Err(Error::new(kind, "not now"));
        }
        self.0.publish(announcement, after).await
    }

    async fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> Result<Self::Subscription> {
        Bus::subscribe(&self.0, after, known).await
    }
}

#[tokio::test]
async fn a_change_that_is_refused_for_good_holds_up_no_other() {
    let bus = FaultyBus::new();
    let partial = Arc::new(Partial(bus.clone(), Mutex::default()));
    let fleet = Fleet::join(partial, FleetOptions::default()).await.expect("it joins");
    let cache = |name| Cache::<String, i64>::builder(name).fleet(&fleet).build().expect("a cache");
    let (refused, good) = (cache("refused"), cache("good"));
    refused.remove(&ann()).await.expect_err("it is refused");
    bus.script([PublishFault::Refused]);
    good.remove(&ann()).await.expect_err("the bus is down for a moment");
    let waiting = async {
        while bus.announced() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{:?}", fleet.statistics());
}

#[tokio::test]
async fn what_is_refused_for_a_time_touches_no_more_than_it_did() {
    for kind in [ErrorKind::Overloaded, ErrorKind::Config] {
        let bus = FaultyBus::new();
        let mut heard = Bus::subscribe(&bus, None, Version::ZERO).await.expect("it is there");
        let partial = Arc::new(Partial(bus.clone(), Mutex::new(vec![kind; 3])));
        let fleet = Fleet::join(partial, FleetOptions::default()).await.expect("it joins");
        let users = Cache::<String, i64>::builder("user").fleet(&fleet).build().expect("a cache");
        users.remove(&ann()).await.expect_err("it is refused");
        let message = async {
            loop {
                if let BusEvent::Message(message) = heard.next().await.expect("it is up") {
                    return message;
                }
            }
        };
        let message = tokio::time::timeout(PATIENCE, message).await.expect("it is announced");
        assert_eq!(message.announcement.change, Change::Keys(vec![Key::new("ann")]), "{kind:?}");
    }
}

/// A bus whose subscription is silent, and notices its end.
struct Silent(Arc<()>);

impl Bus for Silent {
    type Subscription = Silence;

    async fn publish(&self, _: &Announcement, _: Version) -> Result<Published> {
        Err(Error::new(ErrorKind::Unavailable, "nobody is there"))
    }

    async fn subscribe(&self, _: Option<BusPosition>, _: Version) -> Result<Silence> {
        Ok(Silence(Arc::clone(&self.0)))
    }
}

struct Silence(#[allow(dead_code, reason = "its count tells that this is there")] Arc<()>);

impl Subscription for Silence {
    async fn next(&mut self) -> Option<BusEvent> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_fleet_that_is_gone_leaves_nothing_behind_although_the_bus_is_silent() {
    let there = Arc::new(());
    let options = FleetOptions::default().timeout(Duration::from_millis(50));
    let fleet = Fleet::join(Arc::new(Silent(Arc::clone(&there))), options).await;
    let fleet = fleet.expect("it goes on without");
    assert_eq!(Arc::strong_count(&there), 3, "the bus, its subscription and this test");
    drop(fleet);
    let waiting = async {
        while Arc::strong_count(&there) > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), waiting).await.is_ok());
}

/// A key whose form in bytes panics some of those who read it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Brittle(String);

impl SharedKey for Brittle {
    fn to_key(&self) -> Key {
        self.0.to_key()
    }

    fn from_key(key: &Key) -> Option<Self> {
        let text = String::from_key(key)?;
        assert!(text != "poison", "this panic is part of the test");
        Some(Self(text))
    }
}

#[tokio::test]
async fn a_key_whose_reading_panics_deafens_nobody() {
    let bus = FaultyBus::new();
    let mut caches = Vec::new();
    let mut fleets = Vec::new();
    for _ in 0..2 {
        let bus = Arc::new(bus.join());
        let fleet = Fleet::join(bus, FleetOptions::default()).await.expect("it joins");
        let cache = Cache::<Brittle, i64>::builder("brittle").fleet(&fleet).build();
        caches.push(cache.expect("a coherent cache"));
        fleets.push(fleet);
    }
    let key = Brittle("a".to_owned());
    let load = || async { Ok::<_, std::io::Error>(1) };
    caches[1].get_or_load_with(&key, load).await.expect("it is loaded");
    caches[0].remove(&Brittle("poison".to_owned())).await.expect("it is announced");
    caches[0].remove(&Brittle("b".to_owned())).await.expect("it is announced");
    let waiting = async {
        while fleets[1].statistics().heard < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok());
    assert!(caches[1].get_memory(&key).is_none(), "it may be what the key stands for");
}
