use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on this process's monotonic timeline, in nanoseconds.
///
/// Moments of two processes cannot be compared: between processes travels an
/// *age*, never a moment. [`Moment::NEVER`] is later than every other moment
/// and absorbs additions, so "no expiry" needs no special case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The start of the timeline: earlier than anything a clock returns.
    pub const START: Self = Self(0);
    /// Later than anything a clock returns.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after [`Moment::START`].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since [`Moment::START`].
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whether this is [`Moment::NEVER`].
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        if self.is_never() {
            return self;
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            return f.write_str("never");
        }
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_absorbs_arithmetic() {
        let hour = Duration::from_secs(3600);
        assert!((Moment::NEVER + hour).is_never());
        assert!((Moment::NEVER - hour).is_never());
        assert!((Moment::START + Duration::MAX).is_never());
    }

    #[test]
    fn since_saturates() {
        let early = Moment::from_nanos(5);
        let late = Moment::from_nanos(9);
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
