//! An origin that fails in every way: each write is applied once, in the order of
//! its key.

use std::collections::HashMap;
use std::time::Duration;

use larder::{ErrorKind, Version};
use larder_core::{Action, Error, Key, Write};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{FaultyTable, Gate, WriteAnswer};

use super::{CACHE, World, add, options, string, text};

/// Something that goes wrong.
fn any_answer(random: &mut fastrand::Rng, gates: &mut Vec<Gate>) -> WriteAnswer {
    match random.u8(..9) {
        0 | 1 => WriteAnswer::unavailable(),
        2 => WriteAnswer::lost_reply(),
        3 => WriteAnswer::Hang,
        4 => WriteAnswer::CommitAndHang,
        5 => WriteAnswer::Panic,
        6 => {
            let gate = Gate::new();
            gates.push(gate.clone());
            WriteAnswer::late(&gate)
        }
        7 => WriteAnswer::CommitAndSay(Error::new(ErrorKind::Timeout, "scripted")),
        _ => WriteAnswer::Commit,
    }
}

/// What was accepted, by key.
#[derive(Default)]
struct Accepted {
    puts: Vec<String>,
    total: i64,
}

/// One run with faults and restarts. Returns how many writes it had.
async fn run(seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::with(FaultyTable::new(), options(|o| o.batch_records = 8)).await;
    let keys = ["ann", "bob", "eve", "joe", "kim"];
    let mut accepted: HashMap<&str, Accepted> = HashMap::new();
    for key in keys {
        world.put(key, "first").await.expect("accepted");
        accepted.entry(key).or_default().puts.push("first".to_owned());
    }
    let mut gates = Vec::new();
    for round in 0..60 {
        for number in 0..random.usize(1..12) {
            let key = keys[random.usize(..keys.len())];
            let of_key = accepted.entry(key).or_default();
            if random.bool() {
                let by = random.i64(1..100);
                world.add(key, by).await.expect("accepted");
                of_key.total += by;
            } else {
                let value = format!("{round}-{number}");
                world.put(key, &value).await.expect("accepted");
                of_key.puts.push(value);
            }
        }
        let answers: Vec<_> = (0..3).map(|_| any_answer(&mut random, &mut gates)).collect();
        world.table.script(answers);
        match random.u8(..8) {
            0 => world.flush().await,
            1 => {
                for _ in 0..random.u32(..50) {
                    world.clock.advance(Duration::from_secs(1));
                    tokio::task::yield_now().await;
                }
            }
            2 => world = world.restart(options(|o| o.batch_records = 8)).await,
            3 => gates.drain(..random.usize(..=gates.len())).for_each(|gate| gate.open()),
            _ => {}
        }
    }
    world.flush().await;
    // What was on its way all the time comes now.
    gates.iter().for_each(Gate::open);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    check(&world, &accepted, seed);
    let statistics = world.behind.statistics();
    assert_eq!(statistics.depth_records, 0);
    accepted.values().map(|of_key| of_key.puts.len() as u64).sum()
}

fn check(world: &World, accepted: &HashMap<&str, Accepted>, seed: u64) {
    for (key, accepted) in accepted {
        let history = world.table.history(&Key::new(key));
        let mut puts = accepted.puts.iter();
        for applied in &history {
            let applied = string(applied);
            assert!(
                puts.any(|put| *put == applied),
                "seed {seed}, {key}: {applied} is applied twice or out of order"
            );
        }
        assert_eq!(history.last().map(string).as_ref(), accepted.puts.last(), "seed {seed}, {key}");
        assert_eq!(world.total(key), Some(accepted.total), "seed {seed}, {key}: a sum");
    }
}

#[test]
fn every_write_is_applied_once_and_in_order_whatever_the_origin_does() {
    let runs = if std::env::var_os("LARDER_FULL").is_some() { 60 } else { 4 };
    // The table panics in some calls; that is not what this test is about.
    let mut writes = 0;
    for seed in 0..runs {
        writes += block_on(run(seed));
    }
    eprintln!("{runs} runs, {writes} puts and about as many additions: none lost, none twice");
    assert!(writes > runs * 100);
}

#[test]
fn a_commit_that_comes_late_is_refused_and_not_applied_twice() {
    block_on(async {
        let world = World::new().await;
        world.put("ann", "0").await.expect("accepted");
        world.flush().await;
        let gate = Gate::new();
        world.table.script([WriteAnswer::late(&gate)]);
        world.add("ann", 5).await.expect("accepted");
        world.flush().await;
        assert_eq!(world.total("ann"), Some(5));
        let before = world.table.fenced_count();
        gate.open();
        world.settle("it comes and is refused", |world| world.table.fenced_count() > before).await;
        assert_eq!(world.total("ann"), Some(5), "once");
        assert_eq!(world.behind.statistics().doubts, 1);
        // The lane goes on.
        world.add("ann", 2).await.expect("accepted");
        world.flush().await;
        assert_eq!(world.total("ann"), Some(7));
    });
}

#[test]
fn a_lane_that_fails_waits_longer_each_time_and_says_why() {
    block_on(async {
        let world = World::new().await;
        world.settle("it runs", |world| world.behind.statistics().lanes.is_empty()).await;
        world.put("ann", "0").await.expect("accepted");
        world.flush().await;
        world.table.script(vec![WriteAnswer::unavailable(); 40]);
        world.put("ann", "1").await.expect("accepted");
        let flush = tokio::spawn({
            let behind = world.behind.clone();
            async move { behind.flush().await }
        });
        let mut tries = Vec::new();
        for millisecond in 0..60_000_u64 {
            let count = world.table.calls().len();
            if count > tries.len() + 1 {
                tries.push(millisecond);
            }
            world.clock.advance(Duration::from_millis(1));
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        let lanes = world.behind.statistics().lanes;
        assert!(
            lanes[0].failing.as_ref().is_some_and(|error| error.kind() == ErrorKind::Unavailable)
        );
        assert!((5..=14).contains(&tries.len()), "{tries:?}");
        let last_pauses = tries.last().zip(tries.get(tries.len() - 2)).map(|(b, a)| b - a);
        assert!(last_pauses.is_some_and(|pause| pause > 4_000), "{tries:?}");
        world.while_time_passes(flush).await.expect("it ends").expect("it is applied");
        assert_eq!(world.value("ann").as_deref(), Some("1"));
        assert!(world.behind.statistics().lanes.is_empty());
    });
}

#[test]
fn an_origin_that_fails_holds_up_no_other() {
    block_on(async {
        use std::sync::Arc;

        use larder::{BehindOptions, Clock, WriteBehind};
        use larder_core::DynOrigin;

        let world = World::new().await;
        let (broken, sound) = (FaultyTable::new(), FaultyTable::new());
        broken.set_down(true);
        world.behind.shut_down(Duration::ZERO).await;
        let target = |table: &FaultyTable| -> Arc<dyn DynOrigin<Key, bytes::Bytes>> {
            Arc::new(table.clone())
        };
        let behind = WriteBehind::open(
            Arc::new(world.journal.clone()),
            [("broken".to_owned(), target(&broken)), ("sound".to_owned(), target(&sound))],
            BehindOptions::default(),
            Clock::from(world.clock.clone()),
        );
        let behind = behind.await.expect("it opens");
        let key = Key::new("ann");
        let put = || Write::new(key.clone(), Action::Put(text("1")));
        behind.write("broken", put(), Version::new(1)).await.expect("accepted");
        behind.write("sound", put(), Version::new(1)).await.expect("accepted");
        behind.write("broken", add("ann", 1), Version::new(1)).await.expect("accepted");
        let flush = tokio::spawn({
            let behind = behind.clone();
            async move { behind.flush().await }
        });
        world.settle("the sound one is written", |_| sound.row(&key).is_some()).await;
        assert!(broken.row(&key).is_none() && !flush.is_finished());
        // What the broken one has not is still in the journal.
        assert_eq!(behind.statistics().journal.records, 3);
        broken.set_down(false);
        world.while_time_passes(flush).await.expect("it ends").expect("it is applied");
        assert_eq!(broken.row(&key).and_then(|row| row.total.as_i64()), Some(1));
        let is_empty = |_: &World| behind.statistics().journal.records == 0;
        world.settle("the journal is trimmed", is_empty).await;
        assert!(behind.pending(CACHE, &key).is_none());
    });
}

/// Fails whoever tells it.
struct Touchy;

impl larder::BehindObserver for Touchy {
    fn applied(
        &self,
        _: &str,
        _: &Write<Key, bytes::Bytes>,
        _: &larder_core::Written<bytes::Bytes>,
    ) {
        panic!("as scripted");
    }

    fn buried(&self, _: &larder_core::DeadLetter) {
        panic!("as scripted");
    }
}

#[test]
fn an_observer_that_panics_stops_no_lane() {
    block_on(async {
        let observed = options(|o| o.observer = Some(std::sync::Arc::new(Touchy)));
        let world = World::with(FaultyTable::new(), observed).await;
        for value in ["one", "two"] {
            world.put("ann", value).await.expect("accepted");
            let flushed = tokio::time::timeout(Duration::from_secs(5), world.flush()).await;
            assert!(flushed.is_ok(), "the lane goes on");
            assert_eq!(world.value("ann").as_deref(), Some(value));
        }
        let refused = Write::new(Key::new("nobody"), Action::Patch(text("x")));
        world.write(refused).await.expect("accepted");
        let flushed = tokio::time::timeout(Duration::from_secs(5), world.flush()).await;
        assert!(flushed.is_ok(), "the lane goes on");
    });
}
