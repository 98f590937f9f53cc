//! What time it is on the server, told by this node's monotonic clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{Clock, Moment};

/// How fast two clocks may drift apart, in microseconds a second. Quartz keeps
/// within 100, and a clock that is being corrected runs up to 500 off.
const DRIFT_MICROS_A_SECOND: u64 = 600;

/// After how long a measurement is made again, if anybody needs the time.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// The server's clock, as far as this node knows it: between two bounds, which
/// are what one question and its answer leave open.
///
/// Ages are rounded up: what is put began at the earliest time that it may have,
/// and what is read is as old as it may be.
pub(crate) struct ServerTime {
    clock: Clock,
    known: Mutex<Option<Known>>,
}

/// The server's time less this node's, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Known {
    least: i128,
    most: i128,
    at: Moment,
}

impl ServerTime {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::new(None) }
    }

    /// Now, on this node.
    pub(crate) fn now(&self) -> Moment {
        self.clock.precise_now()
    }

    /// The server said this between the two moments.
    pub(crate) fn learn(&self, asked: Moment, server_micros: u64, answered: Moment) {
        let new = Known {
            least: i128::from(server_micros) - micros(answered),
            most: i128::from(server_micros) + 1 - micros(asked),
            at: answered,
        };
        let mut known = self.known();
        *known = Some(match *known {
            Some(old) => old.narrowed(new),
            None => new,
        });
    }

    /// Whether it should be measured again.
    pub(crate) fn is_old(&self) -> bool {
        self.known().is_none_or(|known| self.now().since(known.at) > FRESH_FOR)
    }

    /// When something began on the server's clock that is this old now: the
    /// earliest that it may have.
    pub(crate) fn began_micros(&self, age: Duration) -> u64 {
        let now = self.now();
        let Some(known) = *self.known() else { return 0 };
        let age = i128::try_from(age.as_micros()).unwrap_or(i128::MAX / 2) + 1;
        let began = known.widened(now).least + micros(now) - age;
        u64::try_from(began.max(0)).unwrap_or(u64::MAX)
    }

    /// How old is at most what began then. `None` for what has not begun yet: the
    /// server's clock was set back, and nobody knows.
    pub(crate) fn age(&self, began_micros: u64) -> Option<Duration> {
        let now = self.now();
        let known = (*self.known())?;
        let age = known.widened(now).most + micros(now) - i128::from(began_micros);
        u64::try_from(age).ok().map(Duration::from_micros)
    }

    /// How much is uncertain, in total.
    #[cfg(test)]
    pub(crate) fn uncertainty(&self) -> Option<Duration> {
        let known = (*self.known())?.widened(self.now());
        u64::try_from(known.most - known.least).ok().map(Duration::from_micros)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is still sure later.
    fn widened(self, now: Moment) -> Self {
        let drift = now.since(self.at).as_secs_f64() * DRIFT_MICROS_A_SECOND as f64;
        let drift = drift.ceil() as i128;
        Self { least: self.least - drift, most: self.most + drift, at: now }
    }

    /// What both say; the newer one if they contradict each other: then the
    /// server's clock was set, or it is another server.
    fn narrowed(self, new: Self) -> Self {
        let old = self.widened(new.at);
        let (least, most) = (old.least.max(new.least), old.most.min(new.most));
        if least <= most { Self { least, most, at: new.at } } else { new }
    }
}

fn micros(moment: Moment) -> i128 {
    i128::from(moment.as_nanos() / 1000)
}

#[cfg(test)]
mod tests {
    use larder_core::ManualClock;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_leaves_a_round_trip_open() {
        let manual = ManualClock::new();
        let time = ServerTime::new(manual.clone().into());
        assert!(time.is_old());
        let asked = time.now();
        manual.advance(Duration::from_millis(2));
        time.learn(asked, 1_000_000_000, time.now());
        assert!(!time.is_old());
        let uncertainty = time.uncertainty().expect("it was measured");
        assert!(uncertainty >= Duration::from_millis(2));
        assert!(uncertainty < Duration::from_millis(3));
        assert!(time.began_micros(Duration::ZERO) <= 1_000_000_000);
        let age = time.age(1_000_000_000).expect("it has begun");
        assert!((2000..3000).contains(&age.as_micros()), "{age:?}");
        assert_eq!(time.age(1_001_000_000), None);
    }

    #[test]
    fn a_clock_that_was_set_is_believed() {
        let manual = ManualClock::new();
        let time = ServerTime::new(manual.clone().into());
        time.learn(time.now(), 5_000_000_000, time.now());
        manual.advance(Duration::from_secs(1));
        time.learn(time.now(), 1_000_000, time.now());
        let age = time.age(0).expect("it has begun");
        assert!((1_000_000..1_001_000).contains(&age.as_micros()), "{age:?}");
    }

    proptest! {
        /// Whatever the delays and however the clocks drift, nothing is told
        /// younger than it is, nor much older.
        #[test]
        fn ages_are_rounded_up(
            samples in proptest::collection::vec((0..5000_u64, 0..5000_u64, 0..2_000_000_u64), 1..20),
            rate in -400..400_i64,
            age in 0..1_000_000_u64,
        ) {
            let manual = ManualClock::new();
            let time = ServerTime::new(manual.clone().into());
            let start = time.now();
            let server = |now: Moment| {
                let gone = now.since(start).as_micros() as i64;
                (1_700_000_000_000_000 + gone + gone * rate / 1_000_000) as u64
            };
            for (there, back, pause) in samples {
                let asked = time.now();
                manual.advance(Duration::from_micros(there));
                let said = server(time.now());
                manual.advance(Duration::from_micros(back));
                time.learn(asked, said, time.now());
                manual.advance(Duration::from_micros(pause));
            }
            let began = time.began_micros(Duration::from_micros(age));
            prop_assert!(began <= server(time.now()) - age);
            let read = time.age(began).expect("it has begun").as_micros() as u64;
            prop_assert!(read >= age, "{} read as {}", age, read);
            prop_assert!(read <= age + 2 * 10_000 + 4000, "{} read as {}", age, read);
        }
    }
}
