//! Writes to the origin: what is committed is read, what is not is never kept, and
//! nobody keeps what was there before.

mod nodes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{
    Action, BatchError, Cache, CacheBuilder, Error, ErrorKind, Expected, JsonCodec, LoadContext,
    Loaded, ManualClock, Memory, Origin, Outcome, Result, Stores, Value, Version, Write,
    WriteAbilities, Written,
};
use larder_testkit::faulty::{Answer, FaultyStore, Gate};

use crate::support::*;

const SETTLES: Duration = Duration::from_secs(10);

/// What becomes of one write.
enum Fate {
    Commits,
    /// Waits at the first gate, commits, and answers at the second.
    Between(Gate, Gate),
    Fails(ErrorKind),
    Conflicts,
    /// Commits at the gate, and never answers.
    CommitsInSilence(Gate),
    Panics,
}

/// An origin whose writes have scripted fates.
#[derive(Clone)]
struct Database {
    rows: Truth,
    fates: Arc<Mutex<VecDeque<Fate>>>,
}

impl Database {
    fn new() -> Self {
        let rows = Truth::with_batch_limit(1000).with_rows([(ann(), 1)]);
        Self { rows, fates: Arc::default() }
    }

    fn next_write(&self, fate: Fate) {
        self.fates.lock().expect("no panic under it").push_back(fate);
    }

    /// What it has now.
    async fn truth(&self) -> Option<i64> {
        let context = LoadContext::new(larder::LoadCause::Miss, larder::Moment::NEVER);
        let loaded = Origin::load(&self.rows, &ann(), &context).await.expect("it is answered");
        match loaded.outcome {
            larder::Outcome::Found(value) => value.as_option().copied(),
            _ => None,
        }
    }

    fn commit(&self, write: &Write<String, i64>) {
        match &write.action {
            Action::Put(value) => self.rows.set(write.key.clone(), *value),
            Action::Remove => self.rows.delete(&write.key),
            _ => unreachable!("the tests only put and remove"),
        }
    }
}

fn done() -> Written<i64> {
    Written::Done { changed: true, now: None, version: None }
}

impl Origin<String, i64> for Database {
    async fn load(&self, key: &String, context: &LoadContext) -> Result<Loaded<i64>> {
        Origin::load(&self.rows, key, context).await
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.batch_limit = 10;
        abilities.settles_within = SETTLES;
        abilities
    }

    async fn write(&self, write: &Write<String, i64>) -> Result<Written<i64>> {
        let fate = self.fates.lock().expect("no panic under it").pop_front();
        match fate.unwrap_or(Fate::Commits) {
            Fate::Commits => self.commit(write),
            Fate::Between(before, after) => {
                before.pass().await;
                self.commit(write);
                after.pass().await;
            }
            Fate::Fails(kind) => return Err(Error::new(kind, "as scripted")),
            Fate::Conflicts => return Ok(Written::Conflict { version: Some(Version::new(3)) }),
            Fate::CommitsInSilence(gate) => {
                let (database, write) = (self.clone(), write.clone());
                tokio::spawn(async move {
                    gate.pass().await;
                    database.commit(&write);
                });
                std::future::pending::<()>().await;
            }
            Fate::Panics => panic!("as scripted"),
        }
        Ok(done())
    }

    async fn write_all(
        &self,
        writes: &[Write<String, i64>],
        _: Option<&larder_core::LaneMark>,
    ) -> Result<Vec<Written<i64>>, BatchError> {
        if let Some(index) = writes.iter().position(|write| write.action == Action::Put(-1)) {
            let error = Error::new(ErrorKind::OriginFailed, "a constraint");
            return Err(BatchError { index: Some(index), error });
        }
        writes.iter().for_each(|write| self.commit(write));
        Ok(writes.iter().map(|_| done()).collect())
    }
}

/// A cache over a database.
struct Desk {
    world: World,
    database: Database,
}

fn desk_with(
    configure: impl FnOnce(CacheBuilder<String, i64>) -> CacheBuilder<String, i64>,
) -> Desk {
    let database = Database::new();
    let clock = ManualClock::new();
    let builder = Cache::builder("user")
        .memory(Memory::entries(1000))
        .origin(database.clone())
        .policy(plain())
        .clock(clock.clone());
    let users = configure(builder).build().expect("a coherent cache");
    let world = World { users, origin: database.rows.clone(), clock };
    Desk { world, database }
}

fn desk() -> Desk {
    desk_with(|builder| builder)
}

impl Desk {
    async fn put(&self, value: i64) -> Result<Written<i64>> {
        self.world.users.write(&ann(), Action::Put(value)).await
    }

    /// Begins a write that commits and answers as the gates say.
    fn begin(&self, value: i64) -> (tokio::task::JoinHandle<Result<Written<i64>>>, Gate, Gate) {
        let (before, after) = (Gate::new(), Gate::new());
        self.database.next_write(Fate::Between(before.clone(), after.clone()));
        let users = self.world.users.clone();
        let write = tokio::spawn(async move { users.write(&ann(), Action::Put(value)).await });
        (write, before, after)
    }

    fn memory(&self) -> Option<i64> {
        self.world.users.get_memory(&ann()).and_then(larder::Hit::into_value)
    }
}

#[tokio::test]
async fn what_was_written_is_in_the_origin_and_in_memory() {
    let desk = desk();
    assert_eq!(desk.put(7).await.expect("it is committed"), done());
    assert_eq!((desk.memory(), desk.world.loads()), (Some(7), 0));
    desk.world.users.write(&ann(), Action::Remove).await.expect("it is committed");
    let hit = desk.world.users.get(&ann()).await.expect("no error").expect("it is known");
    assert_eq!((hit.value(), desk.world.loads()), (None, 0));
    assert_eq!(desk.world.users.statistics().writes, 2);
    assert_eq!(desk.world.users.statistics().loads, 0);
}

#[tokio::test]
async fn around_the_cache_the_next_read_loads() {
    let desk = desk();
    assert_eq!(desk.world.read().await, Some(1));
    desk.world.users.write(&ann(), Action::Put(7)).around().await.expect("it is committed");
    assert_eq!(desk.memory(), None);
    assert_eq!((desk.world.read().await, desk.world.loads()), (Some(7), 2));
}

#[tokio::test]
async fn until_it_is_committed_memory_says_what_was_there_before() {
    let desk = desk();
    desk.world.read().await;
    let (write, before, after) = desk.begin(7);
    before.wait_for_arrivals(1).await;
    assert_eq!(desk.memory(), Some(1));
    before.open();
    after.open();
    write.await.expect("no panic").expect("it is committed");
    assert_eq!((desk.memory(), desk.world.loads()), (Some(7), 1));
}

#[tokio::test]
async fn whoever_finds_nothing_meanwhile_waits_for_what_is_written() {
    let desk = desk();
    let (write, before, after) = desk.begin(7);
    before.wait_for_arrivals(1).await;
    let users = desk.world.users.clone();
    let read = tokio::spawn(async move { users.get_or_load(&ann()).await });
    tokio::task::yield_now().await;
    before.open();
    after.open();
    write.await.expect("no panic").expect("it is committed");
    let hit = read.await.expect("no panic").expect("it is answered");
    assert_eq!((hit.value(), desk.world.loads()), (Some(&7), 0));
}

#[tokio::test]
async fn whoever_waits_for_a_write_that_fails_loads() {
    let desk = desk();
    let gate = Gate::new();
    desk.database.next_write(Fate::CommitsInSilence(gate));
    let users = desk.world.users.clone();
    let write = tokio::spawn(async move { users.write(&ann(), Action::Put(7)).await });
    desk.world.settle("it is sent", |_| desk.database.fates.lock().expect("ok").is_empty()).await;
    let users = desk.world.users.clone();
    let read = tokio::spawn(async move { users.get_or_load(&ann()).await });
    desk.world.advance_past_sleepers(2, Duration::from_millis(4900)).await;
    desk.world.clock.advance(Duration::from_millis(100));
    let error = write.await.expect("no panic").expect_err("no answer came");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let _ = read.await.expect("no panic");
    assert_eq!(desk.world.read().await, Some(1));
}

#[tokio::test]
async fn a_load_under_way_is_not_kept_after_a_write() {
    let desk = desk();
    let gate = Gate::new();
    desk.database.rows.script([Answer::Truth.held_at(&gate)]);
    let users = desk.world.users.clone();
    let read = tokio::spawn(async move { users.get_or_load(&ann()).await });
    gate.wait_for_arrivals(1).await;
    desk.put(7).await.expect("it is committed");
    gate.open();
    let hit = read.await.expect("no panic").expect("it is answered");
    assert_eq!(hit.value(), Some(&1), "it came before the write");
    assert_eq!(desk.memory(), Some(7));
}

#[tokio::test]
async fn what_is_removed_while_it_is_written_is_loaded() {
    let desk = desk();
    let (write, before, after) = desk.begin(7);
    before.open();
    after.wait_for_arrivals(1).await;
    // Somebody else has changed it since, and says so.
    desk.database.rows.set(ann(), 8);
    desk.world.users.remove(&ann()).await.expect("memory does not fail");
    after.open();
    write.await.expect("no panic").expect("it is committed");
    assert_eq!(desk.memory(), None);
    assert_eq!(desk.world.read().await, Some(8));
}

#[tokio::test]
async fn a_tag_removed_while_it_is_written_removes_it() {
    let desk = desk();
    let (before, after) = (Gate::new(), Gate::new());
    desk.database.next_write(Fate::Between(before.clone(), after.clone()));
    let users = desk.world.users.clone();
    let write =
        tokio::spawn(async move { users.write(&ann(), Action::Put(7)).tags(["team"]).await });
    before.wait_for_arrivals(1).await;
    desk.world.users.remove_tag("team").await.expect("memory does not fail");
    before.open();
    after.open();
    write.await.expect("no panic").expect("it is committed");
    assert_eq!(desk.memory(), None);
}

#[tokio::test]
async fn what_the_origin_refuses_changes_nothing() {
    let desk = desk();
    desk.world.read().await;
    for kind in [ErrorKind::OriginFailed, ErrorKind::InvalidInput] {
        desk.database.next_write(Fate::Fails(kind));
        let error = desk.put(7).await.expect_err("it is refused");
        assert_eq!(error.kind(), kind);
        assert_eq!(desk.world.read().await, Some(1));
    }
    assert_eq!(desk.world.users.statistics().writes, 0);
}

#[tokio::test]
async fn a_conflict_is_an_answer_and_the_next_read_loads() {
    let desk = desk();
    desk.world.read().await;
    desk.database.rows.set(ann(), 5);
    desk.database.next_write(Fate::Conflicts);
    let write = desk.world.users.write(&ann(), Action::Put(7));
    let written = write.expecting(Expected::Version(Version::new(2))).await.expect("an answer");
    assert_eq!(written, Written::Conflict { version: Some(Version::new(3)) });
    assert_eq!(desk.world.read().await, Some(5));
}

#[tokio::test]
async fn what_was_not_answered_is_not_kept_until_it_has_happened_or_never_will() {
    let desk = desk();
    desk.world.read().await;
    let gate = Gate::new();
    desk.database.next_write(Fate::CommitsInSilence(gate.clone()));
    let users = desk.world.users.clone();
    let write = tokio::spawn(async move { users.write(&ann(), Action::Put(7)).await });
    desk.world.advance_past_sleepers(2, Duration::from_secs(5)).await;
    let error = write.await.expect("no panic").expect_err("no answer came");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    // It may still happen at any moment, and does.
    assert_eq!((desk.world.read().await, desk.memory()), (Some(1), None));
    gate.open();
    while desk.database.truth().await != Some(7) {
        tokio::task::yield_now().await;
    }
    assert_eq!((desk.world.read().await, desk.memory()), (Some(7), None));
    desk.world.advance_past_sleepers(2, SETTLES).await;
    desk.world
        .settle("it is kept again", |world| {
            let users = world.users.clone();
            let _ =
                futures_util::FutureExt::now_or_never(
                    async move { users.get_or_load(&ann()).await },
                );
            world.users.get_memory(&ann()).is_some()
        })
        .await;
    assert_eq!(desk.memory(), Some(7));
}

#[tokio::test]
async fn an_origin_that_panics_may_have_written() {
    let desk = desk();
    desk.world.read().await;
    desk.database.next_write(Fate::Panics);
    let error = desk.put(7).await.expect_err("it panicked");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!((desk.world.read().await, desk.memory()), (Some(1), None));
}

#[tokio::test]
async fn a_dropped_call_is_made_to_its_end() {
    let desk = desk();
    let (write, before, after) = desk.begin(7);
    before.wait_for_arrivals(1).await;
    write.abort();
    before.open();
    after.open();
    desk.world.settle("it is written", |world| world.users.statistics().writes == 1).await;
    assert_eq!(desk.memory(), Some(7));
}

#[tokio::test]
async fn writers_of_one_key_leave_what_the_origin_has_or_nothing() {
    for seed in 0..200_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let desk = desk();
        let mut gates = Vec::new();
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for value in 0..4 {
            let (write, before, after) = desk.begin(value);
            writes.push(write);
            gates.extend([before, after]);
        }
        random.shuffle(&mut gates);
        for gate in gates {
            gate.open();
            for _ in 0..random.usize(..20) {
                tokio::task::yield_now().await;
            }
            if random.bool() {
                let users = desk.world.users.clone();
                reads.push(tokio::spawn(async move { users.get_or_load(&ann()).await }));
            }
        }
        for write in writes {
            write.await.expect("no panic").expect("it is committed");
        }
        for read in reads {
            read.await.expect("no panic").expect("it is answered");
        }
        let kept = desk.memory();
        let truth = desk.database.truth().await;
        assert!(
            kept.is_none() || kept == truth,
            "seed {seed}: {kept:?}, and the origin has {truth:?}",
        );
    }
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let desk = desk();
    let write = |key: &str, value| Write::new(key.to_owned(), Action::Put(value));
    let written = desk.world.users.write_all(vec![write("ann", 7), write("bob", 8)]).await;
    assert_eq!(written.expect("it is committed").len(), 2);
    let bob = desk.world.users.get_memory("bob").and_then(larder::Hit::into_value);
    assert_eq!((desk.memory(), bob), (Some(7), Some(8)));
    let failed = desk.world.users.write_all(vec![write("ann", 9), write("bob", -1)]).await;
    assert_eq!(failed.expect_err("a constraint").index, Some(1));
    assert_eq!(desk.world.read().await, Some(7));
    let many = (0..11).map(|number| write(&number.to_string(), 1)).collect();
    let refused = desk.world.users.write_all(many).await.expect_err("too many");
    assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
    // Twice the same key: which of them the origin made last is its own affair.
    desk.world.users.write_all(vec![write("ann", 1), write("ann", 2)]).await.expect("committed");
    assert_eq!(desk.memory(), None);
}

#[tokio::test]
async fn an_origin_that_takes_no_writes_says_what_to_do() {
    let world = world(plain());
    let error = world.users.write(&ann(), Action::Put(7)).await.expect_err("it takes none");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.remedy_text().is_some());
    assert_eq!(world.read().await, Some(1));
}

#[tokio::test]
async fn stores_give_up_what_they_have_before_the_origin_is_written() {
    let store = FaultyStore::new(larder::Clock::monotonic()).local();
    let shown = store.clone();
    let desk =
        desk_with(|builder| builder.stores(Stores::new(JsonCodec).store("disk", store.clone())));
    desk.world.read().await;
    let (write, before, after) = desk.begin(7);
    before.wait_for_arrivals(1).await;
    // A process that ends here leaves nothing behind that is not true any more.
    assert!(shown.entries_count() == 0);
    // Nor does a reader put it back.
    desk.world.users.expire(&ann()).await.expect("the store does not fail");
    let users = desk.world.users.clone();
    let read = tokio::spawn(async move { users.get_or_load(&ann()).await });
    let hit = read.await.expect("no panic").expect("it is answered");
    assert_eq!(hit.value(), Some(&1));
    assert!(shown.entries_count() == 0);
    before.open();
    after.open();
    write.await.expect("no panic").expect("it is committed");
    assert_eq!(desk.world.read().await, Some(7));
    assert!(shown.entries_count() == 1);
}

#[tokio::test]
async fn what_is_put_or_updated_while_it_is_written_stays_in_no_store() {
    for updates in [false, true] {
        let store = FaultyStore::new(larder::Clock::monotonic()).local();
        let desk = desk_with(|builder| {
            builder.stores(Stores::new(JsonCodec).store("disk", store.clone()))
        });
        desk.world.read().await;
        let (write, before, after) = desk.begin(7);
        before.wait_for_arrivals(1).await;
        let users = &desk.world.users;
        if updates {
            assert!(users.update(&ann(), |value| Some(value + 1)).await.expect("no fleet"));
        } else {
            users.put(&ann(), 5).await.expect("memory does not fail");
        }
        before.open();
        after.open();
        write.await.expect("no panic").expect("it is committed");
        assert_eq!(desk.memory(), None, "they overlapped");
        assert_eq!(desk.world.read().await, Some(7), "updated: {updates}");
    }
}

#[tokio::test]
async fn what_is_put_before_a_write_is_known_to_have_happened_stays_in_no_store() {
    let store = FaultyStore::new(larder::Clock::monotonic()).local();
    let desk =
        desk_with(|builder| builder.stores(Stores::new(JsonCodec).store("disk", store.clone())));
    desk.world.read().await;
    let gate = Gate::new();
    desk.database.next_write(Fate::CommitsInSilence(gate.clone()));
    let users = desk.world.users.clone();
    let write = tokio::spawn(async move { users.write(&ann(), Action::Put(7)).await });
    desk.world.advance_past_sleepers(2, Duration::from_secs(5)).await;
    let error = write.await.expect("no panic").expect_err("no answer came");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    desk.world.users.put(&ann(), 5).await.expect("memory does not fail");
    gate.open();
    while desk.database.truth().await != Some(7) {
        tokio::task::yield_now().await;
    }
    desk.world.advance_past_sleepers(2, SETTLES).await;
    desk.world.settle("it is over", |world| world.users.get_memory(&ann()).is_none()).await;
    desk.world.settle("the store is told", |_| store.entries_count() == 0).await;
    assert_eq!(desk.world.read().await, Some(7));
}

#[tokio::test]
async fn a_write_that_an_open_breaker_refuses_leaves_what_memory_has() {
    let guard = larder::OriginGuard::new(
        "db",
        larder::Breaker::default().failures(1),
        larder::LoadBudget::default(),
    );
    let desk = desk_with(|builder| {
        builder.origin_guard(guard).policy(plain().stale_if_error(MINUTE * 10))
    });
    desk.world.read().await;
    desk.database.next_write(Fate::Fails(ErrorKind::Unavailable));
    let other = desk.world.users.write(&"bob".to_owned(), Action::Put(7)).await;
    assert_eq!(other.expect_err("it is down").kind(), ErrorKind::Unavailable);
    let error = desk.put(7).await.expect_err("the origin is not asked");
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
    assert_eq!(desk.memory(), Some(1), "nothing was sent");
}

/// A value that may panic where it is cloned, which is foreign code.
#[derive(Debug, PartialEq)]
struct Fragile(i64);

thread_local! {
    static BREAKS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!BREAKS.get(), "as scripted");
        Self(self.0)
    }
}

struct Shelf;

impl Origin<String, Fragile> for Shelf {
    async fn load(&self, _: &String, _: &LoadContext) -> Result<Loaded<Fragile>> {
        Ok(Loaded::value(Fragile(1)))
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::SIMPLE;
        abilities.settles_within = SETTLES;
        abilities
    }

    async fn write(&self, _: &Write<String, Fragile>) -> Result<Written<Fragile>> {
        Ok(Written::Done { changed: true, now: None, version: None })
    }
}

/// An origin that tags what it loads, and so what it was given to write.
struct Tagged(Database);

impl Origin<String, i64> for Tagged {
    async fn load(&self, key: &String, context: &LoadContext) -> Result<Loaded<i64>> {
        Ok(Origin::load(&self.0, key, context).await?.tags(["team:1"]))
    }

    fn write_abilities(&self) -> WriteAbilities {
        Origin::write_abilities(&self.0)
    }

    async fn write(&self, write: &Write<String, i64>) -> Result<Written<i64>> {
        Origin::write(&self.0, write).await
    }

    fn committed(&self, key: &String, value: Value<i64>) -> Loaded<i64> {
        match value {
            // Odd ones are for whoever asks now.
            Value::Present(odd) if odd % 2 == 1 => {
                Loaded { outcome: Outcome::DontCache(value), ..Loaded::absent() }
            }
            value => Origin::committed(&self.0, key, value).tags(["team:1"]),
        }
    }
}

#[tokio::test]
async fn what_was_written_is_kept_as_its_origin_says() {
    let desk = desk_with(|builder| builder.origin(Tagged(Database::new())));
    desk.put(8).await.expect("it is committed");
    assert_eq!(desk.memory(), Some(8));
    desk.world.users.remove_tag("team:1").await.expect("it is removed");
    assert_eq!(desk.memory(), None);
    desk.put(7).await.expect("it is committed");
    assert_eq!(desk.memory(), None);
}

#[tokio::test]
async fn foreign_code_that_panics_in_a_write_leaves_the_key_held_for_no_longer_than_that() {
    let clock = ManualClock::new();
    let builder = Cache::<String, Fragile>::builder("shelf").origin(Shelf).policy(plain());
    let shelf = builder.clock(clock.clone()).build().expect("a coherent cache");
    BREAKS.set(true);
    let written = shelf.write(&ann(), Action::Put(Fragile(7))).await;
    BREAKS.set(false);
    assert_eq!(written.expect_err("it panicked").kind(), ErrorKind::OutcomeUnknown);
    shelf.get_or_load(&ann()).await.expect("it is loaded");
    assert!(shelf.get_memory("ann").is_none(), "it may have been written");
    for _ in 0..10_000 {
        if clock.sleepers_count() >= 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    clock.advance(SETTLES);
    for _ in 0..1000 {
        shelf.get_or_load(&ann()).await.expect("it is loaded");
        if shelf.get_memory("ann").is_some() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it is never kept again");
}
