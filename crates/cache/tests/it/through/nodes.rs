//! The same where several nodes keep what is written: none keeps what was there before.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Action, BatchError, Cache, Fleet, FleetOptions, JsonCodec, LoadContext, Loaded, ManualClock,
    Memory, Origin, Result, Stores, Tier, Write, WriteAbilities, Written,
};
use larder_testkit::faulty::{FaultyBus, FaultyStore, Gate, PublishFault, StoreFault};

use super::{Database, Desk, Fate};
use crate::support::*;

/// One process of a fleet, which can end.
struct Node {
    desk: Desk,
    _fleet: Fleet,
}

async fn node(bus: &FaultyBus, database: &Database) -> Node {
    node_at(bus.join(), database).await
}

/// One with this place at the bus.
async fn node_at(place: FaultyBus, database: &Database) -> Node {
    let options = FleetOptions::default().staleness_bound(MINUTE);
    let fleet = Fleet::join(Arc::new(place), options).await.expect("it joins");
    let users = Cache::builder("user")
        .memory(Memory::entries(1000))
        .origin(database.clone())
        .policy(plain())
        .fleet(&fleet)
        .build()
        .expect("a coherent cache");
    let world = World { users, origin: database.rows.clone(), clock: ManualClock::new() };
    Node { desk: Desk { world, database: database.clone() }, _fleet: fleet }
}

impl Node {
    async fn comes_to_keep(&self, value: i64) {
        let keeping = async {
            while self.desk.memory() != Some(value) {
                let _ = self.desk.world.users.get_or_load(&ann()).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let kept = tokio::time::timeout(Duration::from_secs(20), keeping).await;
        kept.unwrap_or_else(|_| panic!("it keeps {:?}", self.desk.memory()));
    }
}

#[tokio::test]
async fn another_node_keeps_nothing_while_it_is_written_and_hears_when_it_is_over() {
    let (bus, database) = (FaultyBus::new(), Database::new());
    let (writer, other) = (node(&bus, &database).await, node(&bus, &database).await);
    other.comes_to_keep(1).await;
    let (write, before, after) = writer.desk.begin(7);
    before.wait_for_arrivals(1).await;
    assert_eq!(other.desk.memory(), Some(1), "nothing was committed yet");
    // Whoever loads it now may get what was there before.
    other.desk.world.users.remove(&ann()).await.expect("the bus is there");
    let hit = other.desk.world.users.get_or_load(&ann()).await.expect("it is answered");
    assert_eq!((hit.value(), other.desk.memory()), (Some(&1), None));
    before.open();
    after.open();
    write.await.expect("no panic").expect("it is committed");
    other.comes_to_keep(7).await;
    writer.comes_to_keep(7).await;
    assert_eq!(other.desk.world.users.get_or_load(&ann()).await.expect("ok").tier(), Tier::Memory);
}

#[tokio::test]
async fn a_beginning_that_could_not_be_told_is_not_told_after_the_end() {
    let (bus, database) = (FaultyBus::new(), Database::new());
    let place = bus.join();
    let (writer, other) = (node_at(place.clone(), &database).await, node(&bus, &database).await);
    place.script([PublishFault::Refused]);
    writer.desk.put(7).await.expect("it is committed, and its end is told");
    // Longer than it takes to announce what could not be.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bus.announced(), 1);
    let kept = tokio::time::timeout(Duration::from_secs(5), other.comes_to_keep(7)).await;
    assert!(kept.is_ok(), "nobody writes it any more");
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_a_write_that_was_told() {
    let (bus, database) = (FaultyBus::new(), Database::new());
    let (writer, other) = (node(&bus, &database).await, node(&bus, &database).await);
    writer.desk.put(0).await.expect("it is committed");
    other.comes_to_keep(0).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for value in 1..=100 {
        writer.desk.put(value).await.expect("it is committed");
    }
    other.comes_to_keep(100).await;
    let few = async {
        while tasks() > before + 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), few).await;
    assert!(ended.is_ok(), "{} tasks more", tasks() - before);
}

#[tokio::test]
async fn slow_stores_do_not_make_a_write_outlast_what_was_announced() {
    let (bus, database) = (FaultyBus::new(), Database::new());
    let other = node(&bus, &database).await;
    let options = FleetOptions::default().staleness_bound(MINUTE);
    let fleet = Fleet::join(Arc::new(bus.join()), options).await.expect("it joins");
    let store = FaultyStore::new(larder::Clock::monotonic());
    let users = Cache::builder("user")
        .origin(Hasty(database.clone()))
        .policy(plain().soft_timeout(SECOND / 10).hard_timeout(SECOND * 9 / 10))
        .stores(Stores::new(JsonCodec).store("slow", store.clone()))
        .fleet(&fleet)
        .build()
        .expect("a coherent cache");
    // The store is met.
    users.get_or_load(&ann()).await.expect("it is loaded");
    let gates: Vec<Gate> = (0..30).map(|_| Gate::new()).collect();
    store.script(gates.iter().cloned().map(StoreFault::Held));
    let slow = tokio::spawn(async move {
        for gate in gates {
            gate.wait_for_arrivals(1).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            gate.open();
        }
    });
    let writes = (0..9).map(|number| Write::new(number.to_string(), Action::Put(7)));
    let writes = writes.chain([Write::new(ann(), Action::Put(7))]).collect();
    let write = tokio::spawn(async move { users.write_all(writes).await });
    while bus.announced() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.desk.world.users.remove(&ann()).await.expect("the bus is there");
    while other._fleet.statistics().heard < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while database.truth().await != Some(7) {
        let _ = other.desk.world.users.get_or_load(&ann()).await;
        if database.truth().await != Some(7) {
            assert_eq!(other.desk.memory(), None, "it is still to be written");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!write.is_finished() || database.truth().await == Some(7));
    }
    write.await.expect("no panic").expect("it is committed");
    slow.abort();
}

#[tokio::test]
async fn a_writer_that_ends_before_it_says_so_leaves_nothing_stale_behind() {
    let (bus, database) = (FaultyBus::new(), Database::new());
    let other = node(&bus, &database).await;
    other.comes_to_keep(1).await;
    // It announces a write, commits it and ends, all in a runtime of its own.
    let (before, after) = (Gate::new(), Gate::new());
    database.next_write(Fate::Between(before.clone(), after.clone()));
    let (far_bus, far_database) = (bus.clone(), database.clone());
    let (write_ends, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        runtime.block_on(async move {
            let options = FleetOptions::default().staleness_bound(MINUTE);
            let fleet = Fleet::join(Arc::new(far_bus.join()), options).await.expect("it joins");
            let policy = plain()
                .soft_timeout(Duration::from_millis(100))
                .hard_timeout(Duration::from_millis(900));
            let users = Cache::builder("user")
                .origin(Hasty(far_database))
                .policy(policy)
                .fleet(&fleet)
                .build()
                .expect("a coherent cache");
            let write = tokio::spawn(async move { users.write(&ann(), Action::Put(7)).await });
            before.wait_for_arrivals(1).await;
            before.open();
            after.wait_for_arrivals(1).await;
            drop(write);
        });
        drop(write_ends);
    });
    let _ = ended.await;
    thread.join().expect("no panic");
    assert_eq!(other.desk.memory(), Some(1), "nobody has said anything");
    other.comes_to_keep(7).await;
}

/// The same database, whose writes settle at once.
struct Hasty(Database);

impl Origin<String, i64> for Hasty {
    async fn load(&self, key: &String, context: &LoadContext) -> Result<Loaded<i64>> {
        Origin::load(&self.0, key, context).await
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = self.0.write_abilities();
        abilities.settles_within = Duration::from_millis(100);
        abilities
    }

    async fn write(&self, write: &Write<String, i64>) -> Result<Written<i64>> {
        self.0.write(write).await
    }

    async fn write_all(
        &self,
        writes: &[Write<String, i64>],
        mark: Option<&larder_core::LaneMark>,
    ) -> Result<Vec<Written<i64>>, BatchError> {
        self.0.write_all(writes, mark).await
    }
}
