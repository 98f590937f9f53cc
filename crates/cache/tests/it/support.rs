//! What the tests share: a cache over a scripted origin.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use larder::{
    Cache, CacheBuilder, Freshness, Hit, LoadContext, Loaded, ManualClock, Memory, Origin, Policy,
    Result, StaleReason,
};
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

/// A key that can run something at one of its next hashings: between two steps
/// of the engine, where no other task can be made to come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HookedKey(pub(crate) u8);

type Hook = Box<dyn FnOnce()>;

thread_local! {
    static HOOK: RefCell<Option<(usize, Hook)>> = const { RefCell::new(None) };
}

/// Runs `hook` after this many hashings of a [`HookedKey`] on this thread.
pub(crate) fn after_hashings(hashings: usize, hook: impl FnOnce() + 'static) {
    HOOK.with(|slot| *slot.borrow_mut() = Some((hashings, Box::new(hook))));
}

/// Whether no hook is left to run.
pub(crate) fn hook_has_run() -> bool {
    HOOK.with(|slot| slot.borrow().is_none())
}

impl Hash for HookedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let due = HOOK.with(|slot| {
            let mut slot = slot.borrow_mut();
            match slot.as_mut() {
                Some((0, _)) => slot.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        });
        if let Some((_, hook)) = due {
            hook();
        }
        self.0.hash(state);
    }
}

/// The origin of hooked keys: seven, and "not modified" of what is held.
pub(crate) struct Sevens;

impl Origin<HookedKey, i64> for Sevens {
    async fn load(&self, _: &HookedKey, context: &LoadContext) -> Result<Loaded<i64>> {
        Ok(if context.held.is_some() { Loaded::not_modified() } else { Loaded::value(7) })
    }
}

pub(crate) fn hooked(policy: Policy, clock: &ManualClock) -> Cache<HookedKey, i64> {
    let builder = Cache::builder("hooked").origin(Sevens).policy(policy).clock(clock.clone());
    builder.build().expect("a coherent cache")
}
