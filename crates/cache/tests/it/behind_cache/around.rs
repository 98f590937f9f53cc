//! What stands around a cache that writes behind: stores, other nodes, what is refused.

use larder::{Class, Expected, Fleet, FleetOptions, LetterId, Policy, Stores, Write};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyBus, FaultyStore};

use super::*;
use crate::support::MINUTE;

#[test]
fn a_store_never_gives_what_was_there_before_and_has_nothing_of_it_afterwards() {
    block_on(async {
        let clock = ManualClock::new();
        let store = FaultyStore::new(clock).local();
        let stores = Stores::new(BytesCodec).store("local", store.clone());
        let world = World::with(|builder| builder.stores(stores)).await;
        world.shelf.set("a", r#"{"n":1}"#);
        world.shelf.set("b", r#"{"n":1}"#);
        world.shelf.set_silent();
        assert_eq!((world.read("a").await, world.read("b").await), (row(1), row(1)));
        world.until("the store has them", |_| store.entries_count() == 2).await;
        world.put("a", r#"{"n":2}"#).await;
        world.add("b", 1).await;
        for _ in 0..3 {
            world.stock.get_or_load_many(&[Key::new("a"), Key::new("b"), Key::new("c")]).await;
            assert_eq!((world.read("a").await, world.read("b").await), (row(2), row(2)));
            world.clock.advance(MINUTE * 2);
        }
        world.flush().await;
        world.until("it is told", |world| world.memory("a").is_none()).await;
        assert_eq!((world.read("a").await, world.read("b").await), (row(2), row(2)));
        world.clock.advance(MINUTE * 2);
        assert_eq!((world.read("a").await, world.read("b").await), (row(2), row(2)));
    });
}

#[test]
fn what_a_write_leaves_in_the_stores_is_what_the_origin_says() {
    block_on(async {
        let store = FaultyStore::new(ManualClock::new()).local();
        let stores = Stores::new(BytesCodec).store("local", store.clone());
        let world = World::with(|builder| builder.stores(stores)).await;
        world.put("a", r#"{"n":2}"#).await;
        assert_eq!(store.entries_count(), 0, "the origin has it not yet");
        world.flush().await;
        world.until("the store has it", |_| store.entries_count() == 1).await;
        assert_eq!((world.read("a").await, world.shelf.loads()), (row(2), 0));
    });
}

async fn join(bus: &FaultyBus) -> Fleet {
    let options = FleetOptions::default().staleness_bound(MINUTE);
    Fleet::join(Arc::new(bus.join()), options).await.expect("it joins")
}

#[test]
fn other_nodes_give_up_what_they_have_when_it_is_applied() {
    block_on(async {
        let bus = FaultyBus::new();
        let (fleet, other_fleet) = (join(&bus).await, join(&bus).await);
        let world = World::with(|builder| builder.fleet(&fleet).only_writer()).await;
        world.shelf.set("a", r#"{"n":1}"#);
        let other = Cache::builder(CACHE)
            .origin(world.shelf.clone())
            .policy(plain())
            .fleet(&other_fleet)
            .build()
            .expect("a coherent cache");
        let key = Key::new("a");
        let comes_to_keep = |n| {
            let (other, key) = (other.clone(), key.clone());
            async move {
                let deadline = std::time::Instant::now() + Duration::from_secs(60);
                loop {
                    let hit = other.get_or_load(&key).await.expect("it is answered");
                    let value = hit.value().map(|it| String::from_utf8_lossy(it).into_owned());
                    if value == row(n) && other.get_memory(&key).is_some() {
                        return;
                    }
                    assert!(std::time::Instant::now() < deadline, "it has {value:?}, not {n}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        comes_to_keep(1).await;
        world.add("a", 1).await;
        assert_eq!(world.read("a").await, row(2));
        assert!(other.get_memory(&key).is_some(), "nothing is committed yet");
        let (before, after) = world.shelf.hold_write();
        let flushing = world.flushing();
        before.wait_for_arrivals(1).await;
        // From now on nobody keeps what was there before, should the writer end here.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            other.remove(&key).await.expect("the bus is there");
            let hit = other.get_or_load(&key).await.expect("it is answered");
            assert_eq!(hit.value().map(|it| String::from_utf8_lossy(it).into_owned()), row(1));
            if other.get_memory(&key).is_none() {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "it goes on keeping it");
        }
        before.open();
        after.open();
        flushing.await.expect("no panic");
        comes_to_keep(2).await;
        assert_eq!(world.read("a").await, row(2));
    });
}

#[test]
fn a_journal_of_one_process_beside_other_writers_is_refused_unless_it_is_declared() {
    block_on(async {
        let fleet = join(&FaultyBus::new()).await;
        let world = World::new().await;
        let behind = open_behind_elsewhere(&world).await;
        let build = |declared: bool| {
            let builder = builder(&world.shelf, &world.clock).fleet(&fleet);
            let builder = builder.write_behind(&behind, BytesCodec);
            if declared { builder.only_writer().build() } else { builder.build() }
        };
        let error = build(false).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.remedy_text().is_some_and(|it| it.contains("only_writer")), "{error}");
        build(true).expect("it is declared");
    });
}

async fn open_behind_elsewhere(world: &World) -> WriteBehind {
    let journal = open_journal(&world.directory.path().join("other")).await;
    open_behind(&journal, &world.shelf).await
}

#[test]
fn what_contradicts_writing_behind_is_refused_with_a_remedy() {
    block_on(async {
        let world = World::new().await;
        let behind = open_behind_elsewhere(&world).await;
        for class in [Class::Preference, Class::Financial, Class::Personal, Class::Credential] {
            let policy = Policy::default().class(class);
            let built = builder(&world.shelf, &world.clock).policy(policy);
            let error = built.write_behind(&behind, BytesCodec).build().err();
            let error = error.unwrap_or_else(|| panic!("{class} is refused"));
            assert!(error.kind() == ErrorKind::Config && error.remedy_text().is_some(), "{error}");
        }
        let other = Cache::<Key, Bytes>::builder("unknown").origin(world.shelf.clone());
        assert_eq!(kind(other.write_behind(&behind, BytesCodec).build()), ErrorKind::Config);
        let none = Cache::<Key, Bytes>::builder(CACHE).write_behind(&behind, BytesCodec);
        assert_eq!(kind(none.build()), ErrorKind::Config, "there is no origin");
        // Two caches of one name would each show what the other does not know.
        let second = builder(&world.shelf, &world.clock).write_behind(&world.behind, BytesCodec);
        assert_eq!(kind(second.build()), ErrorKind::Config);
        let personal = Policy::default().class(Class::Personal);
        assert_eq!(kind(world.stock.set_policy(personal)), ErrorKind::Config);
    });
}

#[test]
fn what_cannot_be_acknowledged_is_refused() {
    block_on(async {
        let world = World::new().await;
        let key = Key::new("a");
        assert_eq!(kind(world.stock.put(&key, text("{}")).await), ErrorKind::Unsupported);
        for expected in
            [Expected::Absent, Expected::Present, Expected::Version(larder::Version::new(1))]
        {
            let write = world.stock.write(&key, Action::Put(text("{}"))).expecting(expected);
            assert_eq!(kind(write.await), ErrorKind::Unsupported);
        }
        assert!(world.behind.pending(CACHE, &key).is_none());
        world.behind.shut_down(Duration::ZERO).await;
        assert_eq!(kind(world.write("a", add(1)).await), ErrorKind::ShuttingDown);
    });
}

#[test]
fn many_writes_are_accepted_at_once_and_a_dead_letter_of_one_is_its_own() {
    block_on(async {
        let world = World::new().await;
        let put = |key: &str, row: &str| Write::new(Key::new(key), Action::Put(text(row)));
        let writes = vec![put("a", r#"{"n":1}"#), put("b", r#"{"bad":1}"#), put("c", r#"{"n":3}"#)];
        world.shelf.refuse(Some("bad"));
        assert_eq!(world.stock.write_all(writes).await.expect("accepted").len(), 3);
        assert_eq!((world.read("a").await, world.read("c").await), (row(1), row(3)));
        world.flush().await;
        assert_eq!((world.read("a").await, world.read("b").await), (row(1), None));
        let letters = world.behind.dead_letters(None, 10).await.expect("the journal tells");
        assert_eq!(letters.len(), 1);
        let id = LetterId::from(&letters[0]);
        assert_eq!(world.behind.drop_letters(&[id]).await.expect("it is dropped"), 1);
    });
}
