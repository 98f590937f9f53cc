//! Ages go on while nobody looks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::{ManualClock, PutOutcome, Store, Ttl};
use larder_disk::{DiskOptions, MachineClock, MachineTime};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{Home, aged, key, put, remove, text};

const HOUR: Duration = Duration::from_secs(3600);

/// A machine that can be restarted and have its clocks set.
#[derive(Clone)]
struct Machine(Arc<Mutex<MachineTime>>, ManualClock);

impl Machine {
    fn new() -> Self {
        let time =
            MachineTime { boot: Some(1), since_boot: HOUR, since_1970: HOUR * 24 * 365 * 50 };
        Self(Arc::new(Mutex::new(time)), ManualClock::new())
    }

    fn options(&self, options: &mut DiskOptions) {
        let time = Arc::clone(&self.0);
        options.machine_clock =
            MachineClock::from_fn(move || *time.lock().expect("nobody panics here"));
        options.clock = self.1.clone().into();
    }

    fn set(&self, change: impl FnOnce(&mut MachineTime)) {
        change(&mut self.0.lock().expect("nobody panics here"));
    }

    /// Time passes, on all clocks.
    fn pass(&self, duration: Duration) {
        self.1.advance(duration);
        self.pass_while_away(duration);
    }

    fn pass_while_away(&self, duration: Duration) {
        self.set(|time| {
            time.since_boot += duration;
            time.since_1970 += duration;
        });
    }

    async fn open(&self) -> Home {
        let directory = TempDir::new().expect("a temporary directory");
        Home::open_in(directory, |options| self.options(options)).await
    }
}

async fn age(home: &Home) -> Option<Duration> {
    home.store.get(&key("k")).await.expect("a read").map(|held| held.age)
}

/// Puts what is fresh for ever.
async fn put_for_ever(home: &Home, version: u64) {
    let mut lasting = entry("value", version);
    lasting.fresh_for = Ttl::Forever;
    put(&home.store, "k", lasting).await.expect("a put");
}

#[test]
fn time_away_counts_exactly_on_the_same_boot() {
    block_on(async {
        let machine = Machine::new();
        let home = machine.open().await;
        let mut put_one = aged("value", 1, Duration::from_secs(10));
        put_one.stale_for = Ttl::secs(60 * 60);
        put(&home.store, "k", put_one).await.expect("a put");
        machine.pass(Duration::from_secs(5));
        let directory = home.close().await;
        // Nobody believes the wall clock while there is a better one.
        machine.pass_while_away(Duration::from_secs(100));
        machine.set(|time| time.since_1970 -= HOUR * 24);
        let home = Home::open_in(directory, |options| machine.options(options)).await;
        assert_eq!(age(&home).await, Some(Duration::from_secs(115)));
        let directory = home.close().await;
        machine.pass_while_away(HOUR - Duration::from_secs(115));
        let home = Home::open_in(directory, |options| machine.options(options)).await;
        assert_eq!(age(&home).await, None, "its stale window has ended");
    });
}

#[test]
fn after_a_reboot_the_wall_clock_tells_and_adds_something() {
    block_on(async {
        let machine = Machine::new();
        let home = machine.open().await;
        put_for_ever(&home, 1).await;
        let directory = home.close().await;
        machine.set(|time| {
            time.boot = Some(2);
            time.since_boot = Duration::from_secs(50);
            time.since_1970 += HOUR;
        });
        let home = Home::open_in(directory, |options| machine.options(options)).await;
        let age = age(&home).await.expect("it is fresh for ever");
        assert!(age >= HOUR && age < HOUR + Duration::from_secs(10), "{age:?}");
    });
}

#[test]
fn a_wall_clock_that_was_set_back_makes_nothing_younger() {
    let cases: [fn(&mut MachineTime); 3] = [
        |time| time.since_1970 -= HOUR,
        // A battery that was empty.
        |time| time.since_1970 = Duration::from_secs(9),
        // Up for longer than it says it was away.
        |time| time.since_boot = HOUR * 2,
    ];
    block_on(async {
        for change in cases {
            let machine = Machine::new();
            let home = machine.open().await;
            put_for_ever(&home, 5).await;
            remove(&home.store, "other", 9).await;
            let directory = home.close().await;
            machine.set(|time| {
                time.boot = Some(2);
                time.since_boot = Duration::from_secs(50);
                time.since_1970 += Duration::from_secs(60);
                change(time);
            });
            let home = Home::open_in(directory, |options| machine.options(options)).await;
            assert_eq!(age(&home).await, None, "nobody knows how old it is");
            assert!(!home.tier.healed(), "nothing is damaged");
            assert_eq!(home.store.highest_version().get(), 9);
            // What comes from another tier is older than this process.
            let carried = aged("new", 4, Duration::from_secs(30));
            let stored = put(&home.store, "k", carried).await.expect("a put");
            assert_eq!(stored, PutOutcome::Stored, "what is dead is vacant");
            assert_eq!(text(&home.store, "k").await.as_deref(), Some("new"));
        }
    });
}

#[test]
fn no_entry_outlives_its_watermarks() {
    block_on(async {
        let machine = Machine::new();
        let home = machine.open().await;
        put_for_ever(&home, 1).await;
        machine.pass(DiskOptions::new("x").marks_retention);
        assert_eq!(age(&home).await, None);
    });
}
