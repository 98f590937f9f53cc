//! Schedules over several processes: each time is run by one of them, whatever becomes
//! of the others, of the store and of the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use larder::schedule::{Calendar, Missed, ScheduledTask, Timetable};
use larder::{Clock, Error, ErrorKind, ManualClock};
use larder_testkit::faulty::{FaultyLease, FaultyStore};
use parking_lot::Mutex;

/// What several processes share: the time of day, a store, leases, and what was run.
#[derive(Clone)]
struct Town {
    seconds: Arc<AtomicI64>,
    record: FaultyStore,
    lease: FaultyLease,
    run: Arc<Mutex<Vec<Timestamp>>>,
    failures: Arc<AtomicU32>,
}

impl Town {
    fn at(time: &str) -> Self {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1000 * 24 * 3600));
        let start: Timestamp = time.parse().expect("a time");
        Self {
            seconds: Arc::new(AtomicI64::new(start.as_second())),
            record: FaultyStore::new(Clock::from(clock)),
            lease: FaultyLease::new(),
            run: Arc::default(),
            failures: Arc::default(),
        }
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A process that runs a task each day a minute before midnight in New York.
    fn process(&self, missed: Missed) -> Calendar {
        let timetable = Timetable::new("59 23 * * *", "America/New_York").expect("a timetable");
        let (town, seconds) = (self.clone(), Arc::clone(&self.seconds));
        let task: ScheduledTask = Arc::new(move |due| {
            let town = town.clone();
            Box::pin(async move {
                if town.failures.load(Ordering::Relaxed) > 0 {
                    town.failures.fetch_sub(1, Ordering::Relaxed);
                    return Err(Error::new(ErrorKind::Unavailable, "not now"));
                }
                town.run.lock().push(due.at);
                Ok(())
            })
        });
        let now = move || Timestamp::from_second(seconds.load(Ordering::Relaxed)).expect("a time");
        Calendar::builder()
            .schedule("rollover", timetable, missed, task)
            .record(Arc::new(self.record.clone()))
            .lease(Arc::new(self.lease.clone()))
            .wall_clock(Arc::new(now))
            .build()
            .expect("a coherent calendar")
    }

    fn runs(&self) -> usize {
        self.run.lock().len()
    }
}

#[tokio::test]
async fn three_processes_run_each_day_of_a_year_once_through_both_changes_of_clocks() {
    let town = Town::at("2026-01-01T12:00:00Z");
    let mut processes: Vec<_> = (0..3).map(|_| town.process(Missed::Skip)).collect();
    // A minute before midnight is 03:59 or 04:59 in UTC.
    for day in 1..=365 {
        for step in [54_000, 3540, 30, 3570, 30, 25_230] {
            town.pass(step);
            for process in &mut processes {
                process.look().await;
            }
        }
        assert_eq!(town.runs(), day, "once a day: {:?}", town.run.lock());
    }
    let mut distinct = town.run.lock().clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 365, "a time was run twice");
}

#[tokio::test]
async fn a_task_that_fails_is_run_again_until_it_does_not() {
    let town = Town::at("2026-05-02T03:58:00Z");
    let mut processes: Vec<_> = (0..2).map(|_| town.process(Missed::Skip)).collect();
    for process in &mut processes {
        process.look().await;
    }
    town.failures.store(3, Ordering::Relaxed);
    town.pass(61);
    for _ in 0..4 {
        for process in &mut processes {
            process.look().await;
        }
    }
    assert_eq!(town.runs(), 1);
    let watch = processes[0].watch();
    assert!(watch().failed >= 1, "{:?}", watch());
}

#[tokio::test]
async fn leases_that_cannot_be_asked_for_put_it_off() {
    let town = Town::at("2026-05-02T03:58:00Z");
    let mut process = town.process(Missed::Skip);
    process.look().await;
    town.lease.set_unreachable(true);
    town.pass(61);
    process.look().await;
    assert_eq!(town.runs(), 0);
    town.lease.set_unreachable(false);
    town.pass(5);
    process.look().await;
    process.look().await;
    assert_eq!(town.runs(), 1);
}

#[tokio::test]
async fn what_was_missed_while_nobody_ran_is_run_once_or_skipped() {
    for (missed, expected) in [(Missed::Run, 1), (Missed::Skip, 0)] {
        let town = Town::at("2026-05-02T03:58:00Z");
        let mut process = town.process(missed);
        process.look().await;
        town.pass(61);
        process.look().await;
        assert_eq!(town.runs(), 1, "on time");
        drop(process);
        // Four days and a half later two others start.
        town.pass(4 * 86_400 + 43_200);
        let mut processes: Vec<_> = (0..2).map(|_| town.process(missed)).collect();
        for process in &mut processes {
            process.look().await;
            process.look().await;
        }
        assert_eq!(town.runs(), 1 + expected, "{missed:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_put_back_runs_nothing_twice_also_after_a_restart() {
    let town = Town::at("2026-05-02T03:58:00Z");
    let mut process = town.process(Missed::Run);
    process.look().await;
    town.pass(61);
    process.look().await;
    assert_eq!(town.runs(), 1);
    town.pass(-3600);
    process.look().await;
    drop(process);
    let mut process = town.process(Missed::Run);
    for _ in 0..70 {
        process.look().await;
        town.pass(60);
    }
    assert_eq!(town.runs(), 1);
}

#[test]
fn leases_without_a_record_and_two_of_one_name_are_refused() {
    let timetable = || Timetable::new("* * * * *", "UTC").expect("a timetable");
    let task = || -> ScheduledTask { Arc::new(|_| Box::pin(async { Ok(()) })) };
    let alone = Calendar::builder().schedule("a", timetable(), Missed::Skip, task());
    let error = alone.lease(Arc::new(FaultyLease::new())).build().expect_err("no record");
    assert_eq!(error.kind(), ErrorKind::Config);
    let twice = Calendar::builder().schedule("a", timetable(), Missed::Skip, task()).schedule(
        "a",
        timetable(),
        Missed::Skip,
        task(),
    );
    assert_eq!(twice.build().expect_err("two of one name").kind(), ErrorKind::Config);
}
