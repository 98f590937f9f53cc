//! Many nodes over the same data: what one invalidates, all give up, whatever
//! the bus does meanwhile.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Cache, ErrorKind, Fleet, FleetOptions, JsonCodec, ManualClock, Memory, Policy, StaleReason,
    Stores, Tier,
};
use larder_testkit::faulty::{Answer, FaultyBus, FaultyStore, Gate, PublishFault, StoreFault};

use crate::support::*;

/// How long a test waits for what is told in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// One process of a fleet.
struct Node {
    world: World,
    bus: FaultyBus,
    fleet: Fleet,
}

/// Processes with one origin, one bus and perhaps a store that they share.
struct Nodes {
    nodes: Vec<Node>,
    origin: Truth,
    bus: FaultyBus,
    store: Option<FaultyStore>,
    policy: Policy,
}

impl Nodes {
    async fn new(count: usize, policy: Policy) -> Self {
        Self::over(count, policy, None).await
    }

    async fn sharing(count: usize, policy: Policy) -> Self {
        let store = FaultyStore::new(larder::Clock::monotonic());
        Self::over(count, policy, Some(store)).await
    }

    async fn over(count: usize, policy: Policy, store: Option<FaultyStore>) -> Self {
        let origin = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]);
        let mut nodes = Self { nodes: Vec::new(), origin, bus: FaultyBus::new(), store, policy };
        for _ in 0..count {
            nodes.start().await;
        }
        nodes
    }

    /// Starts one more. Nothing is in its memory.
    async fn start(&mut self) {
        let bus = self.bus.join();
        let options = FleetOptions::default().staleness_bound(Duration::from_secs(1));
        let fleet = Fleet::join(Arc::new(bus.clone()), options).await.expect("it joins");
        let clock = ManualClock::new();
        clock.advance(MINUTE);
        let mut builder = Cache::builder("user")
            .memory(Memory::entries(1000))
            .origin(self.origin.clone())
            .policy(self.policy.clone())
            .fleet(&fleet);
        if let Some(store) = &self.store {
            builder = builder.stores(Stores::new(JsonCodec).store("shared", store.clone()));
        }
        let users = builder.build().expect("a coherent cache");
        let world = World { users, origin: self.origin.clone(), clock };
        self.nodes.push(Node { world, bus, fleet });
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// Every node reads until all have the value in memory.
    async fn warm(&self, value: i64) {
        for node in &self.nodes {
            node.comes_to(|hit| (hit.into_value(), true) == (Some(value), true)).await;
            node.in_memory(value).await;
        }
    }

    /// The origin has changed, and every node comes to say so.
    async fn converges(&self, value: i64) {
        for node in &self.nodes {
            node.comes_to(|hit| hit.into_value() == Some(value)).await;
        }
    }
}

impl Node {
    async fn comes_to(&self, is_so: impl Fn(larder::Hit<String, i64>) -> bool) {
        let reading = async {
            while !self.world.users.get_or_load(&ann()).await.is_ok_and(&is_so) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, reading).await;
        let (heard, hit) = (self.fleet.statistics(), self.world.users.get_or_load(&ann()).await);
        let value = hit.as_ref().map(|hit| hit.value().copied());
        assert!(came.is_ok(), "it never came to this: {heard:?}, {hit:?}: {value:?}");
    }

    /// Reads until memory answers.
    async fn in_memory(&self, value: i64) {
        self.comes_to(|hit| hit.tier() == Tier::Memory && hit.value() == Some(&value)).await;
    }

    /// From now on it says this within its bound.
    async fn is_not_behind_for_long(&self, value: i64) {
        let acknowledged = tokio::time::Instant::now();
        self.comes_to(|hit| hit.into_value() == Some(value)).await;
        let behind = acknowledged.elapsed();
        assert!(behind < Duration::from_secs(3), "{behind:?}");
    }

    fn peek(&self) -> Option<i64> {
        self.world.users.get_memory(&ann()).and_then(larder::Hit::into_value)
    }

    /// Waits until this is so of what the bus brought and took.
    async fn heard(&self, is_so: impl Fn(larder::FleetStatistics) -> bool) {
        let waiting = async {
            while !is_so(self.fleet.statistics()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(came.is_ok(), "it never came to this: {:?}", self.fleet.statistics());
    }
}

#[tokio::test]
async fn what_one_node_invalidates_all_give_up() {
    let nodes = Nodes::new(3, plain()).await;
    let mut value = 1;
    for way in 0..4 {
        nodes.warm(value).await;
        value += 1;
        nodes.origin.set(ann(), value);
        let users = &nodes.node(way % 3).world.users;
        let announced = match way {
            0 => users.remove(&ann()).await.map(|_| ()),
            1 => users.expire(&ann()).await.map(|_| ()),
            2 => users.clear().await.map(|_| ()),
            _ => users.put(&ann(), value).await.map(|_| ()),
        };
        announced.expect("it is announced");
        nodes.converges(value).await;
    }
}

#[tokio::test]
async fn tags_reach_entries_of_every_node() {
    let nodes = Nodes::sharing(2, plain()).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    one.world.users.put(&ann(), 7).tags(["people"]).await.expect("it is announced");
    two.in_memory(7).await;
    assert_eq!(nodes.origin.loads_of(&ann()), 0, "the store has it");
    nodes.origin.set(ann(), 8);
    let version = one.world.users.remove_tag("people").await.expect("it is announced");
    two.heard(|statistics| statistics.heard >= 2).await;
    assert_eq!(two.world.read().await, Some(8));
    // Whoever starts later knows the tag's watermark from the store.
    let mut nodes = nodes;
    nodes.start().await;
    assert_eq!(nodes.node(2).world.read().await, Some(8));
    assert!(version > larder::Version::ZERO);
}

#[tokio::test]
async fn a_load_of_one_node_saves_those_of_the_others() {
    let nodes = Nodes::sharing(3, plain()).await;
    nodes.warm(1).await;
    assert_eq!(nodes.origin.loads_of(&ann()), 1);
}

#[tokio::test]
async fn a_store_is_told_by_whoever_hears() {
    let nodes = Nodes::sharing(2, plain()).await;
    nodes.warm(1).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    let store = nodes.store.as_ref().expect("it is shared");
    nodes.origin.set(ann(), 2);
    // The first node's call is refused; the second one's is not.
    store.script([StoreFault::Refused]);
    one.world.users.remove(&ann()).await.expect("it is announced");
    nodes.converges(2).await;
    two.in_memory(2).await;
}

#[tokio::test]
async fn a_load_that_began_before_a_change_elsewhere_is_not_kept() {
    let nodes = Nodes::sharing(2, plain()).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    let gate = Gate::new();
    nodes.origin.script([Answer::Truth.held_at(&gate)]);
    let users = two.world.users.clone();
    let reader = tokio::spawn(async move { users.get_or_load(&ann()).await });
    gate.wait_for_arrivals(1).await;
    let heard = two.fleet.statistics().heard;
    one.world.users.remove(&ann()).await.expect("it is announced");
    two.heard(|statistics| statistics.heard > heard).await;
    gate.open();
    reader.await.expect("it ends").expect("it is answered");
    nodes.origin.set(ann(), 2);
    nodes.converges(2).await;
}

#[tokio::test]
async fn a_load_that_began_after_a_change_elsewhere_stays() {
    let nodes = Nodes::new(2, plain()).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    for round in 0..50 {
        one.world.users.remove(&ann()).await.expect("it is announced");
        let heard = round + 1;
        two.heard(|statistics| statistics.heard >= heard).await;
        let loads = nodes.origin.loads_of(&ann());
        two.world.read().await;
        two.world.read().await;
        assert_eq!(nodes.origin.loads_of(&ann()), loads + 1);
    }
}

#[tokio::test]
async fn without_a_sign_of_life_memory_is_not_trusted() {
    let nodes = Nodes::new(2, plain().stale_while_revalidate(MINUTE)).await;
    nodes.warm(1).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    two.bus.stall();
    nodes.origin.set(ann(), 2);
    let removed = tokio::time::Instant::now();
    one.world.users.remove(&ann()).await.expect("it is announced");
    two.comes_to(|hit| hit.into_value() == Some(2)).await;
    let behind = removed.elapsed();
    assert!(behind < Duration::from_secs(3), "{behind:?}");
    // Nothing of it is trusted until the bus is heard again.
    assert_eq!(two.peek(), None);
    let loads = nodes.origin.loads_of(&ann());
    two.world.read().await;
    assert_eq!(nodes.origin.loads_of(&ann()), loads + 1);
    // Cut off from the origin, too, it says that what it has may be old.
    two.bus.resume();
    two.in_memory(2).await;
}

#[tokio::test]
async fn cut_off_from_all_it_says_that_its_answer_may_be_old() {
    let nodes = Nodes::new(1, plain().stale_if_error(MINUTE)).await;
    nodes.warm(1).await;
    let one = nodes.node(0);
    one.bus.stall();
    one.comes_to(|hit| hit.tier() == Tier::Origin).await;
    nodes.origin.script([Answer::unavailable()]);
    let hit = one.world.hit().await;
    assert_eq!((hit.value(), stale_reason(&hit)), (Some(&1), Some(StaleReason::OriginFailed)));
}

#[tokio::test]
async fn lost_messages_put_everything_in_doubt() {
    let policy = plain().stale_while_revalidate(MINUTE).stale_if_error(MINUTE);
    for is_last in [true, false] {
        let nodes = Nodes::new(2, policy.clone()).await;
        nodes.warm(1).await;
        let [one, two] = [nodes.node(0), nodes.node(1)];
        two.bus.lose(1);
        nodes.origin.set(ann(), 2);
        one.world.users.remove(&ann()).await.expect("it is announced");
        if !is_last {
            one.world.users.remove(&"bob".to_owned()).await.expect("it is announced");
        }
        two.heard(|statistics| statistics.gaps == 1).await;
        // Not even while it is being refreshed: others may have removed it.
        assert_eq!(two.world.read().await, Some(2));
        two.in_memory(2).await;
    }
}

#[tokio::test]
async fn what_is_in_doubt_is_better_than_an_error() {
    let nodes = Nodes::new(2, plain().stale_if_error(MINUTE)).await;
    nodes.warm(1).await;
    let two = nodes.node(1);
    two.bus.change_epoch();
    two.heard(|statistics| statistics.gaps == 1).await;
    nodes.origin.script([Answer::unavailable()]);
    let hit = two.world.hit().await;
    assert_eq!((hit.value(), stale_reason(&hit)), (Some(&1), Some(StaleReason::OriginFailed)));
    assert_eq!(two.world.hit().await.tier(), Tier::Origin);
}

#[tokio::test]
async fn a_bus_that_forgets_all_is_gone_on_with() {
    let nodes = Nodes::sharing(3, plain()).await;
    for round in 1..6 {
        nodes.warm(round).await;
        nodes.bus.change_epoch();
        nodes.origin.set(ann(), round + 1);
        let users = &nodes.node(round as usize % 3).world.users;
        users.remove(&ann()).await.expect("it is announced");
        nodes.converges(round + 1).await;
    }
}

#[tokio::test]
async fn what_could_not_be_announced_is_an_error_and_is_announced_later() {
    for fault in [PublishFault::Refused, PublishFault::ReplyLost] {
        let nodes = Nodes::sharing(2, plain()).await;
        nodes.warm(1).await;
        let one = nodes.node(0);
        one.bus.script([fault, PublishFault::Refused, PublishFault::Refused]);
        nodes.origin.set(ann(), 2);
        let error = one.world.users.remove(&ann()).await.expect_err("it is not announced");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("as soon as the bus"), "{error}");
        // Here it holds at once.
        assert_eq!(one.world.read().await, Some(2));
        nodes.converges(2).await;
        assert!(one.fleet.flush(PATIENCE).await);
        assert_eq!(one.fleet.statistics().waiting, 0);
    }
}

#[tokio::test]
async fn tags_and_clears_that_could_not_be_announced_hold_here_at_once() {
    for clears in [true, false] {
        let nodes = Nodes::new(2, plain()).await;
        let one = nodes.node(0);
        one.world.users.put(&ann(), 5).tags(["people"]).await.expect("it is announced");
        one.in_memory(5).await;
        one.bus.script([PublishFault::Refused]);
        nodes.origin.set(ann(), 6);
        let told = match clears {
            true => one.world.users.clear().await,
            false => one.world.users.remove_tag("people").await,
        };
        told.expect_err("it is not announced");
        assert_eq!(one.world.read().await, Some(6));
        assert!(one.fleet.flush(PATIENCE).await);
        one.in_memory(6).await;
    }
}

#[tokio::test]
async fn a_dropped_invalidation_is_announced_all_the_same() {
    let nodes = Nodes::new(2, plain()).await;
    nodes.warm(1).await;
    let users = nodes.node(0).world.users.clone();
    nodes.origin.set(ann(), 2);
    let key = ann();
    let mut removal = Box::pin(users.remove(&key));
    // Once, so that it is on its way.
    let _ = futures_util::poll!(removal.as_mut());
    drop(removal);
    nodes.converges(2).await;
}

#[tokio::test]
async fn what_a_new_primary_lacks_is_announced_again() {
    let nodes = Nodes::new(2, plain()).await;
    nodes.warm(1).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    two.bus.stall();
    nodes.origin.set(ann(), 2);
    one.world.users.remove(&ann()).await.expect("it is announced");
    // It was acknowledged by a server that is gone before the other node heard.
    let announced = one.fleet.statistics().announced;
    one.bus.reconnect();
    one.heard(|statistics| statistics.announced > announced).await;
    two.bus.resume();
    nodes.converges(2).await;
}

/// FusionCache's hard case: the first node's write is not announced, the second
/// one's does not reach the store, and both heal, in either order.
#[tokio::test]
async fn of_two_writes_whose_parts_fail_the_newer_one_wins() {
    for first_heals_first in [true, false] {
        let nodes = Nodes::sharing(3, plain()).await;
        nodes.warm(1).await;
        let [one, two] = [nodes.node(0), nodes.node(1)];
        let store = nodes.store.as_ref().expect("it is shared");
        one.bus.stall();
        one.bus.script(vec![PublishFault::Refused; if first_heals_first { 2 } else { 8 }]);
        nodes.origin.set(ann(), 2);
        one.world.users.put(&ann(), 2).await.expect_err("it is not announced");
        nodes.origin.set(ann(), 3);
        store.script(vec![StoreFault::Refused; if first_heals_first { 8 } else { 2 }]);
        two.world.users.put(&ann(), 3).await.expect("it is announced");
        one.bus.resume();
        assert!(one.fleet.flush(PATIENCE).await);
        nodes.converges(3).await;
        for node in &nodes.nodes {
            node.in_memory(3).await;
        }
    }
}

#[tokio::test]
async fn a_node_that_starts_without_the_bus_serves_and_joins_later() {
    let bus = FaultyBus::new();
    bus.stall();
    let options = FleetOptions::default().timeout(Duration::from_millis(50));
    let fleet = Fleet::join(Arc::new(bus.clone()), options).await.expect("it goes on without");
    let origin = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]);
    let users = Cache::builder("user").origin(origin.clone()).policy(plain()).fleet(&fleet);
    let users = users.build().expect("a coherent cache");
    assert_eq!(users.get_or_load(&ann()).await.expect("it is loaded").into_value(), Some(1));
    assert!(users.get_memory(&ann()).is_none(), "nobody says that it still holds");
    origin.set(ann(), 2);
    // A change that this node does not hear of.
    let other = Fleet::join(Arc::new(bus.join()), FleetOptions::default()).await.expect("it joins");
    let others = Cache::<String, i64>::builder("user").fleet(&other).build().expect("a cache");
    others.remove(&ann()).await.expect("it is announced");
    bus.resume();
    let node = Node { world: World { users, origin, clock: ManualClock::new() }, bus, fleet };
    node.in_memory(2).await;
}

#[tokio::test]
async fn a_put_that_keeps_nothing_is_announced_once() {
    let nodes = Nodes::sharing(2, plain()).await;
    nodes.warm(1).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    nodes.origin.set(ann(), 2);
    let put = one.world.users.put(&ann(), 7).ttl(Duration::ZERO).await;
    assert_eq!(put.expect_err("it keeps nothing").kind(), ErrorKind::InvalidInput);
    two.comes_to(|hit| hit.into_value() == Some(2)).await;
    assert_eq!(one.fleet.statistics().announced, 1);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let bus: Arc<FaultyBus> = Arc::new(FaultyBus::new());
    let short = FleetOptions::default().staleness_bound(Duration::from_millis(10));
    let error = Fleet::join(bus.clone(), short).await.expect_err("it is too short");
    assert!(error.to_string().contains("at least a second"), "{error}");
    bus.shut_down();
    let error = Fleet::join(bus, FleetOptions::default()).await.expect_err("it is shut down");
    assert_eq!(error.kind(), ErrorKind::ShuttingDown);
    let shared = FaultyStore::new(larder::Clock::monotonic());
    let alone = Cache::<String, i64>::builder("user")
        .stores(Stores::new(JsonCodec).store("shared", shared))
        .build()
        .expect_err("nobody says what others change");
    assert!(alone.to_string().contains("join a fleet"), "{alone}");
}

/// A store that does not follow the bus is told after the bus: whoever starts in
/// between hears nothing of the change, and finds in the store what it touched.
#[tokio::test]
async fn a_node_that_starts_before_the_store_is_told_keeps_nothing_for_long() {
    let mut nodes = Nodes::sharing(1, plain()).await;
    nodes.warm(1).await;
    let store = nodes.store.clone().expect("it is shared");
    let gate = Gate::new();
    // The call of whoever announces, and that of whoever hears.
    store.script([StoreFault::Held(gate.clone()), StoreFault::Held(gate.clone())]);
    nodes.origin.set(ann(), 2);
    let users = nodes.node(0).world.users.clone();
    let removal = tokio::spawn(async move { users.remove(&ann()).await });
    gate.wait_for_arrivals(2).await;
    nodes.start().await;
    let late = nodes.node(1);
    assert_eq!(late.world.read().await, Some(1), "the store has it still");
    gate.open();
    removal.await.expect("it ends").expect("it is announced");
    late.is_not_behind_for_long(2).await;
}

/// The same of watermarks: who starts reads them before they are raised.
#[tokio::test]
async fn a_node_that_starts_before_a_watermark_is_raised_hears_of_it() {
    let mut nodes = Nodes::sharing(1, plain()).await;
    nodes.node(0).world.users.put(&ann(), 1).tags(["people"]).await.expect("it is announced");
    let store = nodes.store.clone().expect("it is shared");
    nodes.node(0).heard(|statistics| statistics.heard == 1).await;
    nodes.warm(1).await;
    let gate = Gate::new();
    store.script([StoreFault::Held(gate.clone()), StoreFault::Held(gate.clone())]);
    nodes.origin.set(ann(), 2);
    let users = nodes.node(0).world.users.clone();
    let removal = tokio::spawn(async move { users.remove_tag("people").await });
    gate.wait_for_arrivals(2).await;
    nodes.start().await;
    let late = nodes.node(1);
    assert_eq!(late.world.read().await, Some(1), "nobody says that it is not valid");
    gate.open();
    removal.await.expect("it ends").expect("it is announced");
    late.is_not_behind_for_long(2).await;
}

/// Who comes later does not get what was read before, although nobody says that
/// it was invalidated.
#[tokio::test]
async fn without_a_sign_of_life_no_load_of_before_is_joined() {
    let nodes = Nodes::new(2, plain()).await;
    let [one, two] = [nodes.node(0), nodes.node(1)];
    let gate = Gate::new();
    nodes.origin.script([Answer::Truth.held_at(&gate)]);
    two.bus.stall();
    let users = two.world.users.clone();
    let first = tokio::spawn(async move { users.get_or_load(&ann()).await });
    gate.wait_for_arrivals(1).await;
    nodes.origin.set(ann(), 2);
    one.world.users.remove(&ann()).await.expect("it is announced");
    // Longer than the staleness bound of one second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let users = two.world.users.clone();
    let late = tokio::spawn(async move { users.get_or_load(&ann()).await });
    let late = tokio::time::timeout(Duration::from_secs(2), late).await;
    gate.open();
    let late = late.expect("it waits for no load of before").expect("it ends");
    assert_eq!(late.expect("it is answered").into_value(), Some(2));
    first.await.expect("it ends").expect("it is answered");
}

#[tokio::test]
async fn what_is_put_stays_in_memory_although_the_store_is_told_of_it_later() {
    let nodes = Nodes::sharing(1, plain()).await;
    let one = nodes.node(0);
    let store = nodes.store.as_ref().expect("it is shared");
    for round in 1..20 {
        let before = store.calls_count();
        one.world.users.put(&ann(), round).await.expect("it is announced");
        // The put, and the change that this node hears of as well.
        while store.calls_count() < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(one.peek(), Some(round));
    }
}

/// Not even a store that takes its time to say what it remembers comes first.
#[tokio::test]
async fn a_change_that_is_dropped_while_the_store_is_met_is_announced_all_the_same() {
    for way in 0..3 {
        let mut nodes = Nodes::sharing(1, plain()).await;
        nodes.warm(1).await;
        nodes.start().await;
        let store = nodes.store.as_ref().expect("it is shared");
        let gate = Gate::new();
        store.script([StoreFault::Held(gate.clone())]);
        nodes.origin.set(ann(), 2);
        let users = nodes.node(1).world.users.clone();
        let change = tokio::spawn(async move {
            match way {
                0 => users.remove(&ann()).await.map(|_| ()),
                1 => users.clear().await.map(|_| ()),
                _ => users.put(&ann(), 2).await.map(|_| ()),
            }
        });
        gate.wait_for_arrivals(1).await;
        change.abort();
        gate.open();
        nodes.node(0).comes_to(|hit| hit.into_value() == Some(2)).await;
    }
}

/// Others read it, too, and may not have heard.
#[tokio::test]
async fn a_store_that_could_not_be_told_is_told_although_nobody_reads_here() {
    let nodes = Nodes::sharing(1, plain()).await;
    nodes.warm(1).await;
    let store = nodes.store.as_ref().expect("it is shared");
    // Neither whoever announces nor whoever hears can tell it.
    store.script(vec![StoreFault::Refused; 3]);
    nodes.node(0).world.users.remove(&ann()).await.expect("it is announced");
    let waiting = async {
        while store.entries_count() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), waiting).await.is_ok());
}
