use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in calendar time: milliseconds since the Unix epoch, as clients
/// give and read expiries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WallTime(i64);

impl WallTime {
    /// The time this many milliseconds after (or before) the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> i64 {
        self.0
    }
}

/// Where the keyspace reads calendar time: the machine's clock, or one that a
/// test moves by hand.
///
/// Plain entries promise what Redis promises, and that is calendar time: an
/// `EXPIREAT` follows the machine's clock when the clock is set.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
}

impl WallClock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `now` until [`WallClock::advance`] moves it. Clones
    /// share the time.
    #[must_use]
    pub fn manual(now: WallTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now.0))))
    }

    /// The time, exact to the millisecond.
    #[inline]
    #[must_use]
    pub fn now(&self) -> WallTime {
        match &self.0 {
            Source::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                WallTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(millis) => WallTime(millis.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward; the machine's clock stays as it is.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual(millis) = &self.0 {
            let step = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(step, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_and_is_shared() {
        let clock = WallClock::manual(WallTime::from_unix_millis(5));
        let other = clock.clone();
        clock.advance(Duration::from_millis(7));
        assert_eq!(other.now().unix_millis(), 12);
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let clock = WallClock::system();
        clock.advance(Duration::from_secs(1_000_000_000));
        let years = clock.now().unix_millis() / (365 * 86_400_000);
        assert!((50..130).contains(&years), "{years} years since 1970");
    }
}
