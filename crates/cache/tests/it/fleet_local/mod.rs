//! Stores of one process in a fleet: what others said while the process was not
//! there is heard before the store is read.

mod courses;
mod gaps;
mod starts;

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Cache, Fleet, FleetOptions, JsonCodec, ManualClock, Memory, Policy, StaleReason, Stores, Tags,
    Tier,
};
use larder_core::{
    Announcement, Bus, BusEvent, BusPosition, Capabilities, HeardUpTo, Store, Subscription, Version,
};
use larder_testkit::faulty::{Answer, FaultyBus, FaultyStore, Gate, StoreFault};

use crate::support::*;

/// By so much may a process be behind that hears nothing.
const BOUND: Duration = Duration::from_secs(1);

/// Long enough for every heartbeat, and for noting how far was heard.
const A_WHILE: Duration = Duration::from_millis(1200);

/// A process with a store of its own.
struct Process {
    users: Users,
    fleet: Fleet,
    bus: FaultyBus,
    store: FaultyStore,
    clock: ManualClock,
}

/// What outlives processes.
struct World {
    origin: Truth,
    bus: FaultyBus,
    disk: FaultyStore,
    /// A store of all, which follows the bus in step.
    shared: Option<FaultyStore>,
    policy: Policy,
}

impl World {
    fn new(policy: Policy) -> Self {
        let rows = (0..8).map(|number| (user(number), 1));
        let origin = Truth::with_batch_limit(1000).with_rows(rows.chain([(ann(), 1)]));
        let disk = FaultyStore::new(larder::Clock::monotonic()).local();
        Self { origin, bus: FaultyBus::new(), disk, shared: None, policy }
    }

    /// The same with a store that all share, on the server of the bus.
    fn sharing(policy: Policy) -> Self {
        let world = Self::new(policy);
        let shared = FaultyStore::new(larder::Clock::monotonic()).following();
        world.bus.attach("user", &shared);
        Self { shared: Some(shared), ..world }
    }

    /// A process that opens the store.
    async fn start(&self) -> Process {
        self.start_at(self.bus.join()).await
    }

    async fn start_at(&self, bus: FaultyBus) -> Process {
        let options = FleetOptions::default().timeout(Duration::from_millis(50));
        let options = options.staleness_bound(BOUND);
        let fleet = Fleet::join(Arc::new(bus.clone()), options).await.expect("it joins");
        let store = self.disk.opened_again();
        let clock = ManualClock::new();
        clock.advance(MINUTE);
        let mut stores = Stores::new(JsonCodec).store("disk", store.clone()).memory_ttl(None);
        if let Some(shared) = &self.shared {
            stores = stores.store("shared", shared.clone());
        }
        let users = self.cache(&fleet, &clock).stores(stores).build().expect("a coherent cache");
        Process { users, fleet, bus, store, clock }
    }

    /// A process without a store of its own.
    async fn other(&self) -> Process {
        let bus = self.bus.join();
        let fleet = Fleet::join(Arc::new(bus.clone()), FleetOptions::default()).await;
        let (fleet, clock) = (fleet.expect("it joins"), ManualClock::new());
        clock.advance(MINUTE);
        let mut cache = self.cache(&fleet, &clock);
        if let Some(shared) = &self.shared {
            let stores = Stores::new(JsonCodec).store("shared", shared.clone()).memory_ttl(None);
            cache = cache.stores(stores);
        }
        let users = cache.build().expect("a coherent cache");
        Process { users, fleet, bus, store: self.disk.opened_again(), clock }
    }

    fn cache(&self, fleet: &Fleet, clock: &ManualClock) -> larder::CacheBuilder<String, i64> {
        Cache::builder("user")
            .memory(Memory::entries(1000))
            .origin(self.origin.clone())
            .policy(self.policy.clone())
            .clock(clock.clone())
            .tag_rule(|key, _| Tags::new([team(key)]))
            .fleet(fleet)
    }
}

fn user(number: u8) -> String {
    format!("user {number}")
}

/// Two users each are a team.
fn team(key: &str) -> String {
    let number = key.bytes().last().map_or(0, |byte| byte / 2);
    format!("team {number}")
}

impl Process {
    /// Lets everything happen that is due in this time.
    async fn pass(&self, time: Duration) {
        for _ in 0..=time.as_millis() / 50 {
            self.clock.advance(Duration::from_millis(50).min(time));
            tokio::time::sleep(Duration::from_millis(50).min(time)).await;
        }
    }

    async fn caught_up(&self) {
        for _ in 0..200 {
            if self.users.until_caught_up(Duration::ZERO).await {
                return;
            }
            self.pass(Duration::from_millis(50)).await;
        }
        panic!("it has not caught up: {:?}", self.fleet.statistics());
    }

    async fn read(&self, key: &str) -> (i64, Tier) {
        let hit = self.users.get_or_load(&key.to_owned()).await.expect("it is answered");
        let tier = hit.tier();
        (hit.into_value().expect("it is there"), tier)
    }

    /// Ends as by a signal.
    async fn stop(self) {
        assert!(self.fleet.flush(Duration::from_secs(5)).await);
        self.kill();
    }

    fn kill(self) {
        self.store.end_process();
    }
}
