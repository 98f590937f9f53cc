//! An invalidation or a write during a load wins, in every interleaving: the
//! engine under a model checker. Runs with `RUSTFLAGS="--cfg shuttle"`; each test
//! prints how many schedules it explored.
//!
//! Each scenario has a row in the origin, readers, and writers that change the
//! row and then tell the cache in one of its ways. Whoever begins to read after
//! a writer has returned must see that writer's row or a newer one, and nobody
//! is left waiting (the checker reports tasks that can never go on).

#![cfg(shuttle)]

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::select;
use larder::{
    Action, Cache, Error, ErrorKind, Hit, LoadContext, Loaded, ManualClock, Memory, Origin, Policy,
    Result, Value, Write, WriteAbilities, Written,
};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{Config, Runner};
use shuttle::{future, thread};

const KEY: &str = "ann";
const TAG: &str = "people";
/// What the row holds before any writer.
const FIRST: u64 = 1;

/// How a writer tells the cache that the row has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Put,
    Remove,
    RemoveTag,
    Clear,
    Expire,
    ExpireTag,
    /// The cache changes the row itself.
    Write,
}

const VERBS: [Verb; 7] = [
    Verb::Put,
    Verb::Remove,
    Verb::RemoveTag,
    Verb::Clear,
    Verb::Expire,
    Verb::ExpireTag,
    Verb::Write,
];

/// A row that a load reads first and answers later, so that whatever can come
/// between does. Says "not modified" of what is held while no writer has come.
#[derive(Clone)]
struct Row {
    value: Arc<AtomicU64>,
    fails: Fails,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fails {
    Never,
    ByPanic,
    ByError,
}

impl Origin<String, u64> for Row {
    async fn load(&self, _: &String, context: &LoadContext) -> Result<Loaded<u64>> {
        let value = self.value.load(Ordering::SeqCst);
        future::yield_now().await;
        match self.fails {
            Fails::Never if context.held.is_some() && value == FIRST => Ok(Loaded::not_modified()),
            Fails::Never => Ok(Loaded::value(value).tags([TAG])),
            Fails::ByPanic => panic!("the loader of this scenario panics"),
            Fails::ByError => Err(Error::new(ErrorKind::Unavailable, "scripted")),
        }
    }

    fn write_abilities(&self) -> WriteAbilities {
        WriteAbilities::SIMPLE
    }

    /// Whatever is put, the row has the next number.
    async fn write(&self, _: &Write<String, u64>) -> Result<Written<u64>> {
        future::yield_now().await;
        let value = self.value.fetch_add(1, Ordering::SeqCst) + 1;
        future::yield_now().await;
        let now = Some(Value::Present(value));
        Ok(Written::Done { changed: true, now, version: None })
    }

    /// Takes a whole batch at once, which it answers key by key.
    fn batch_limit(&self) -> usize {
        8
    }
}

/// The cache, its row, and the newest row of which some writer has told.
#[derive(Clone)]
struct World {
    cache: Cache<String, u64>,
    row: Row,
    told: Arc<AtomicU64>,
    writers: Arc<Mutex<()>>,
}

impl World {
    fn new(fails: Fails) -> Self {
        Self::with(Policy::default(), &ManualClock::new(), fails)
    }

    /// A world in which the row has been read and has since expired; it may be
    /// served stale while it is refreshed.
    fn stale() -> Self {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(60);
        let world = Self::with(Policy::ttl(ttl).stale_while_revalidate(ttl), &clock, Fails::Never);
        future::block_on(world.read());
        clock.advance(ttl);
        world
    }

    fn with(policy: Policy, clock: &ManualClock, fails: Fails) -> Self {
        let row = Row { value: Arc::new(AtomicU64::new(FIRST)), fails };
        let cache = Cache::builder("user")
            .memory(Memory::entries(100))
            .origin(row.clone())
            .policy(policy.jitter(0.0).early_refresh_beta(None))
            .clock(clock.clone())
            .build()
            .expect("a coherent cache");
        Self {
            cache,
            row,
            told: Arc::new(AtomicU64::new(FIRST)),
            writers: Arc::new(Mutex::new(())),
        }
    }

    async fn read(&self) {
        let told = self.told.load(Ordering::SeqCst);
        let read = self.cache.get_or_load(&KEY.to_owned()).await;
        self.judge(told, read);
    }

    /// Reads the key twice in one batch, among others.
    async fn read_many(&self) {
        let told = self.told.load(Ordering::SeqCst);
        let keys = [KEY, "bob", KEY, "eve"].map(str::to_owned);
        let answers = self.cache.get_or_load_many(&keys).await;
        assert_eq!(answers.len(), keys.len());
        for (key, read) in keys.iter().zip(answers) {
            // Writers tell of one key by name, and of no other.
            self.judge(if key == KEY { told } else { FIRST }, read);
        }
    }

    fn judge(&self, told: u64, read: Result<Hit<String, u64>>) {
        match (self.row.fails, read) {
            (Fails::Never, Ok(hit)) => {
                let value = hit.value().copied().expect("the row is there");
                assert!(value >= told, "read {value} after being told of {told}");
            }
            (Fails::Never, Err(error)) => panic!("{error}"),
            // What was put may be read; a failed load is an error, and not a wait.
            (_, Ok(_) | Err(_)) => {}
        }
    }

    /// Changes the row, then tells the cache.
    fn write(&self, verb: Verb) {
        // Writers of one row take turns, as transactions do; loads do not wait.
        let _turn = self.writers.lock().expect("no writer panics");
        if verb == Verb::Write {
            return self.write_through();
        }
        let value = self.row.value.fetch_add(1, Ordering::SeqCst) + 1;
        match verb {
            Verb::Put => {
                let key = KEY.to_owned();
                let put = self.cache.put(&key, value).tags([TAG]).into_future();
                future::block_on(put).expect("it is put");
            }
            Verb::Remove | Verb::Expire | Verb::RemoveTag | Verb::ExpireTag | Verb::Clear => {
                future::block_on(self.invalidate(verb)).expect("memory does not fail");
            }
            Verb::Write => unreachable!("it changes the row itself"),
        }
        self.told.fetch_max(value, Ordering::SeqCst);
    }

    /// Has the cache change the row.
    fn write_through(&self) {
        let key = KEY.to_owned();
        let write = self.cache.write(&key, Action::Put(0)).tags([TAG]).into_future();
        let written = future::block_on(write).expect("the row takes it");
        let Written::Done { now: Some(Value::Present(value)), .. } = written else {
            panic!("it is committed: {written:?}")
        };
        self.told.fetch_max(value, Ordering::SeqCst);
    }

    async fn invalidate(&self, verb: Verb) -> Result<()> {
        let key = KEY.to_owned();
        match verb {
            Verb::Put | Verb::Write => {}
            Verb::Remove => drop(self.cache.remove(&key).await?),
            Verb::Expire => drop(self.cache.expire(&key).await?),
            Verb::RemoveTag => drop(self.cache.remove_tag(TAG).await?),
            Verb::ExpireTag => drop(self.cache.expire_tag(TAG).await?),
            Verb::Clear => drop(self.cache.clear().await?),
        }
        Ok(())
    }

    /// One reader after everything else, then the end of every load: nothing runs
    /// on when the checker takes the world down.
    fn ends(&self) {
        future::block_on(self.read());
        let ended = future::block_on(self.cache.shutdown(Duration::from_secs(1)));
        assert!(ended, "every load ends");
    }
}

/// Readers and writers side by side, then one reader after them all.
fn scenario(warm: bool, readers: usize, verbs: &[Verb], fails: Fails) {
    let world = World::new(fails);
    if warm {
        future::block_on(world.read());
    }
    beside(&world, &vec![Reader::One; readers], verbs);
}

/// Runs these readers of a world beside its writers, then one reader after all.
fn beside(world: &World, readers: &[Reader], verbs: &[Verb]) {
    let readers: Vec<_> = readers
        .iter()
        .copied()
        .map(|reader| {
            let world = world.clone();
            future::spawn(async move {
                match reader {
                    Reader::One => world.read().await,
                    Reader::Many => world.read_many().await,
                }
            })
        })
        .collect();
    let writers: Vec<_> = verbs
        .iter()
        .copied()
        .map(|verb| {
            let world = world.clone();
            thread::spawn(move || world.write(verb))
        })
        .collect();
    for reader in readers {
        future::block_on(reader).expect("no reader panics");
    }
    for writer in writers {
        writer.join().expect("no writer panics");
    }
    world.ends();
}

#[derive(Clone, Copy)]
enum Reader {
    One,
    Many,
}

/// Runs a scenario under a scheduler and returns how many schedules it took.
fn explore(scheduler: impl Scheduler + 'static, run: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 0x20000;
    let schedules = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&schedules);
    Runner::new(scheduler, config).run(move || {
        counter.fetch_add(1, Relaxed);
        run();
    });
    schedules.load(Relaxed)
}

/// How much to explore: all of it with `LARDER_FULL`, a tenth otherwise.
fn schedules(full: usize) -> usize {
    if std::env::var_os("LARDER_FULL").is_some() { full } else { full / 10 }
}

fn report(what: &str, schedules: usize) {
    println!("{what}: {schedules} schedules, 0 violations");
}

#[test]
fn one_reader_and_one_writer_depth_first() {
    for verb in VERBS {
        for warm in [false, true] {
            let scheduler = DfsScheduler::new(Some(schedules(200_000)), false);
            let count = explore(scheduler, move || scenario(warm, 1, &[verb], Fails::Never));
            report(&format!("depth first, {verb:?}, warm {warm}"), count);
        }
    }
}

#[test]
fn two_readers_and_each_pair_of_writers() {
    let mut count = 0;
    for first in VERBS {
        for second in VERBS {
            for warm in [false, true] {
                let run = move || scenario(warm, 2, &[first, second], Fails::Never);
                count += explore(RandomScheduler::new(schedules(5_000)), run);
                count += explore(PctScheduler::new(4, schedules(5_000)), run);
            }
        }
    }
    report("two readers, each pair of writers", count);
}

#[test]
fn three_readers_and_every_writer_at_once() {
    let run = || scenario(false, 3, &VERBS, Fails::Never);
    let random = explore(RandomScheduler::new(schedules(50_000)), run);
    let prioritised = explore(PctScheduler::new(6, schedules(50_000)), run);
    report("three readers, every writer", random + prioritised);
}

/// They take no turns: what they leave in memory is what the row has, or nothing.
#[test]
fn writers_through_the_cache_beside_each_other() {
    let mut count = 0;
    for (readers, writers) in [(1, 2), (2, 2), (1, 3)] {
        let run = move || {
            let world = World::new(Fails::Never);
            let readers: Vec<_> = (0..readers)
                .map(|_| {
                    let world = world.clone();
                    future::spawn(async move { world.read().await })
                })
                .collect();
            let writers: Vec<_> = (0..writers)
                .map(|_| {
                    let world = world.clone();
                    thread::spawn(move || world.write_through())
                })
                .collect();
            for reader in readers {
                future::block_on(reader).expect("no reader panics");
            }
            for writer in writers {
                writer.join().expect("no writer panics");
            }
            world.ends();
        };
        count += explore(RandomScheduler::new(schedules(50_000)), run);
        count += explore(PctScheduler::new(5, schedules(50_000)), run);
    }
    report("writers through the cache", count);
}

#[test]
fn a_failing_or_panicking_loader_leaves_nobody_waiting() {
    for (what, fails) in [("error", Fails::ByError), ("panic", Fails::ByPanic)] {
        let mut count = 0;
        for verb in VERBS {
            let run = move || scenario(false, 2, &[verb], fails);
            count += explore(RandomScheduler::new(schedules(5_000)), run);
            count += explore(PctScheduler::new(4, schedules(5_000)), run);
        }
        report(what, count);
    }
}

#[test]
fn a_reader_that_leaves_takes_nobody_along() {
    let run = || {
        let world = World::new(Fails::Never);
        let leaver = future::spawn({
            let world = world.clone();
            // It waits once for its load, then drops the read.
            async move {
                let read = pin!(world.read());
                select(read, pin!(future::yield_now())).await;
            }
        });
        let stayer = future::spawn({
            let world = world.clone();
            async move { world.read().await }
        });
        let writer = thread::spawn({
            let world = world.clone();
            move || world.write(Verb::Remove)
        });
        future::block_on(leaver).expect("it leaves");
        future::block_on(stayer).expect("it is answered");
        writer.join().expect("no panic");
        world.ends();
    };
    let random = explore(RandomScheduler::new(schedules(20_000)), run);
    let prioritised = explore(PctScheduler::new(4, schedules(20_000)), run);
    report("a reader that leaves", random + prioritised);
}

/// What is gone may not be served stale either. What is expired may be.
const REMOVING: [Verb; 4] = [Verb::Put, Verb::Remove, Verb::RemoveTag, Verb::Clear];

#[test]
fn a_refresh_behind_a_stale_answer_brings_nothing_back() {
    let mut count = 0;
    for verb in REMOVING {
        for readers in [&[Reader::One][..], &[Reader::One; 2], &[Reader::Many]] {
            let run = move || beside(&World::stale(), readers, &[verb]);
            count += explore(RandomScheduler::new(schedules(10_000)), run);
            count += explore(PctScheduler::new(4, schedules(10_000)), run);
        }
    }
    report("a refresh behind a stale answer", count);
}

#[test]
fn batches_beside_readers_and_writers() {
    let mut count = 0;
    for verb in VERBS {
        for readers in [[Reader::Many, Reader::Many], [Reader::Many, Reader::One]] {
            let run = move || beside(&World::new(Fails::Never), &readers, &[verb, Verb::Remove]);
            count += explore(RandomScheduler::new(schedules(5_000)), run);
            count += explore(PctScheduler::new(4, schedules(5_000)), run);
        }
    }
    report("batches beside readers and writers", count);
}

#[test]
fn a_failing_batch_leaves_nobody_waiting() {
    let mut count = 0;
    for fails in [Fails::ByError, Fails::ByPanic] {
        let run = move || {
            let readers = [Reader::Many, Reader::Many];
            beside(&World::new(fails), &readers, &[Verb::Clear]);
        };
        count += explore(RandomScheduler::new(schedules(5_000)), run);
        count += explore(PctScheduler::new(4, schedules(5_000)), run);
    }
    report("a failing batch", count);
}
