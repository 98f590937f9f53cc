//! What the tests share: a cache over a scripted origin.

use std::time::Duration;

use larder::{Cache, CacheBuilder, Freshness, Hit, ManualClock, Memory, Policy, StaleReason};
use larder_testkit::faulty::FaultyOrigin;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) type Users = Cache<String, i64>;
pub(crate) type Truth = FaultyOrigin<String, i64>;

/// A cache of one row, `ann` = 1, its origin and its clock.
pub(crate) struct World {
    pub(crate) users: Users,
    pub(crate) origin: Truth,
    pub(crate) clock: ManualClock,
}

/// A minute of freshness and nothing else: no jitter, no early refresh, no stale
/// window, so that each test adds what it is about.
pub(crate) fn plain() -> Policy {
    Policy::ttl(MINUTE).jitter(0.0).early_refresh_beta(None)
}

pub(crate) fn ann() -> String {
    "ann".to_owned()
}

pub(crate) fn world(policy: Policy) -> World {
    world_with(policy, |builder| builder)
}

pub(crate) fn world_with(
    policy: Policy,
    configure: impl FnOnce(CacheBuilder<String, i64>) -> CacheBuilder<String, i64>,
) -> World {
    let clock = ManualClock::new();
    let origin = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]);
    let builder = Cache::builder("user")
        .memory(Memory::entries(10_000))
        .origin(origin.clone())
        .policy(policy)
        .clock(clock.clone());
    let users = configure(builder).build().expect("a coherent cache");
    World { users, origin, clock }
}

impl World {
    /// Reads `ann` and returns her value.
    pub(crate) async fn read(&self) -> Option<i64> {
        self.hit().await.into_value()
    }

    pub(crate) async fn hit(&self) -> Hit<String, i64> {
        self.users.get_or_load(&ann()).await.expect("it is answered")
    }

    pub(crate) fn loads(&self) -> usize {
        self.origin.loads_of(&ann())
    }

    /// Lets tasks run until the condition holds. Bounded by turns of the
    /// scheduler, not by time.
    pub(crate) async fn settle(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if condition(self) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never came to this: {what}");
    }

    /// Moves the clock once somebody sleeps on it besides the upkeep, so that a
    /// timeout under test has been armed.
    pub(crate) async fn advance_past_sleepers(&self, sleepers: usize, by: Duration) {
        self.settle("a timeout is armed", |world| world.clock.sleepers_count() >= sleepers).await;
        self.clock.advance(by);
    }
}

pub(crate) fn stale_reason(hit: &Hit<String, i64>) -> Option<StaleReason> {
    match hit.freshness() {
        Freshness::Stale { reason, .. } => Some(reason),
        _ => None,
    }
}
