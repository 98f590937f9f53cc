use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Moment;

/// Where the engine reads the time: the machine's monotonic clock, or one that
/// a test moves by hand.
///
/// A value type rather than a trait object because every cache hit reads it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Monotonic,
    Manual(ManualClock),
}

impl Clock {
    /// The machine's monotonic clock.
    #[must_use]
    pub fn monotonic() -> Self {
        Self(Source::Monotonic)
    }

    /// The time to judge freshness by. On the monotonic clock this is the
    /// kernel's last tick, at most 4 ms behind [`Clock::precise_now`] and
    /// several times cheaper.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::Monotonic => read(ClockId::MonotonicCoarse),
            Source::Manual(manual) => manual.now(),
        }
    }

    /// The time to measure a duration with, on the same timeline as
    /// [`Clock::now`].
    #[inline]
    #[must_use]
    pub fn precise_now(&self) -> Moment {
        match &self.0 {
            Source::Monotonic => read(ClockId::Monotonic),
            Source::Manual(manual) => manual.now(),
        }
    }

    /// The manual clock behind this one, if it is one. Whoever waits for time
    /// to pass waits on [`ManualClock::sleep_until`] then, and on the runtime's
    /// timer otherwise.
    #[must_use]
    pub fn as_manual(&self) -> Option<&ManualClock> {
        match &self.0 {
            Source::Monotonic => None,
            Source::Manual(manual) => Some(manual),
        }
    }
}

impl From<ManualClock> for Clock {
    fn from(manual: ManualClock) -> Self {
        Self(Source::Manual(manual))
    }
}

#[inline]
fn read(id: ClockId) -> Moment {
    let time = clock_gettime(id);
    // Both parts of a monotonic clock are non-negative.
    Moment::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// A clock that stands still until it is told to advance. Clones share the
/// time.
///
/// ```
/// use std::time::Duration;
/// use larder_core::{Clock, ManualClock};
///
/// let manual = ManualClock::new();
/// let clock = Clock::from(manual.clone());
/// let before = clock.now();
/// manual.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    nanos: AtomicU64,
    sleepers: Mutex<Sleepers>,
}

/// Who waits, by when and in which order they came.
#[derive(Debug, Default)]
struct Sleepers {
    waiting: BTreeMap<(Moment, u64), Waker>,
    next: u64,
}

/// The smallest step of time.
const TICK: Duration = Duration::from_nanos(1);

impl ManualClock {
    /// A clock that shows one hour, so that ages up to an hour can be made.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Manual {
            nanos: AtomicU64::new(3_600_000_000_000),
            sleepers: Mutex::new(Sleepers::default()),
        }))
    }

    /// The time shown.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_nanos(self.0.nanos.load(Ordering::Acquire))
    }

    /// Moves the time forward, at most to the last moment that there is, and wakes
    /// every sleeper that is due.
    pub fn advance(&self, duration: Duration) {
        let advanced = |nanos| {
            let now = Moment::from_nanos(nanos) + duration;
            // No clock ever shows "never".
            now.min(Moment::from_nanos(Moment::NEVER.as_nanos() - 1))
        };
        let step = |nanos| advanced(nanos).as_nanos();
        let before = self.0.nanos.update(Ordering::AcqRel, Ordering::Acquire, step);
        let due = {
            let mut sleepers = self.sleepers();
            let later = sleepers.waiting.split_off(&(advanced(before) + TICK, 0));
            std::mem::replace(&mut sleepers.waiting, later)
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// Waits until the time shown reaches `at`.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the wait; nothing else is held.
    pub fn sleep_until(&self, at: Moment) -> Sleep {
        Sleep { clock: self.clone(), at, number: None }
    }

    /// How many waits are registered: lets a test advance only once the code
    /// under test sleeps.
    #[must_use]
    pub fn sleepers_count(&self) -> usize {
        self.sleepers().waiting.len()
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.0.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

/// A wait on a [`ManualClock`].
#[derive(Debug)]
#[must_use = "a future does nothing unless awaited"]
pub struct Sleep {
    clock: ManualClock,
    at: Moment,
    /// The place among the sleepers, once polled.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut sleepers = this.clock.sleepers();
        // Read under the lock: `advance` moves the time before it takes it, so
        // either this sees the new time or `advance` sees this sleeper.
        if this.clock.now() >= this.at {
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            sleepers.next += 1;
            sleepers.next
        });
        sleepers.waiting.insert((this.at, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.clock.sleepers().waiting.remove(&(self.at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_time_never_runs_ahead_of_precise_time() {
        let clock = Clock::monotonic();
        for _ in 0..1000 {
            let coarse = clock.now();
            let precise = clock.precise_now();
            assert!(coarse <= precise);
            assert!(precise.since(coarse) < Duration::from_millis(500));
        }
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let clock = ManualClock::new();
        let wait = tokio::spawn(clock.sleep_until(clock.now() + Duration::from_secs(2)));
        while clock.sleepers_count() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
        assert!(!wait.is_finished());
        clock.advance(Duration::from_secs(1));
        wait.await.expect("the sleeping task does not panic");
        assert_eq!(clock.sleepers_count(), 0);
    }

    #[tokio::test]
    async fn a_dropped_wait_is_forgotten() {
        let clock = ManualClock::new();
        let wait = tokio::spawn(clock.sleep_until(clock.now() + Duration::from_secs(2)));
        while clock.sleepers_count() == 0 {
            tokio::task::yield_now().await;
        }
        wait.abort();
        assert!(wait.await.is_err());
        assert_eq!(clock.sleepers_count(), 0);
    }

    #[tokio::test]
    async fn the_end_of_time_is_reached_and_not_passed() {
        let clock = ManualClock::new();
        let never = tokio::spawn(clock.sleep_until(Moment::NEVER));
        while clock.sleepers_count() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            clock.advance(Duration::MAX);
            assert!(clock.now() < Moment::NEVER);
            assert!(clock.now().since(Moment::START) > Duration::from_secs(3600 * 24 * 365 * 500));
        }
        tokio::task::yield_now().await;
        assert!(!never.is_finished());
        never.abort();
    }
}
