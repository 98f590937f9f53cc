use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// A distribution of durations, to two significant digits up to one hour.
#[derive(Clone)]
pub struct Latency {
    histogram: Option<Histogram<u64>>,
    sum: Duration,
}

impl Latency {
    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// The sum of all measured.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The duration that this share of all measured did not exceed; `None` if
    /// none was measured.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let histogram = self.histogram.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(Duration::from_nanos(histogram.value_at_quantile(share)))
    }

    /// The longest measured.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.quantile(1.0)
    }

    /// How many took at most this long.
    #[must_use]
    pub fn count_within(&self, limit: Duration) -> u64 {
        self.histogram
            .as_ref()
            .map_or(0, |histogram| histogram.count_between(0, super::nanos(limit)))
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self { histogram: None, sum: Duration::ZERO }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

const HOUR_NANOS: u64 = 3_600_000_000_000;

/// Collects a [`Latency`]. Off the hot path: it takes a lock.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Latency>);

impl Recorder {
    pub(crate) fn record(&self, duration: Duration) {
        let mut latency = self.lock();
        latency.sum = latency.sum.saturating_add(duration);
        if latency.histogram.is_none() {
            // Two digits and an hour are within what the histogram takes.
            latency.histogram = Histogram::new_with_bounds(1, HOUR_NANOS, 2).ok();
        }
        if let Some(histogram) = &mut latency.histogram {
            histogram.saturating_record(super::nanos(duration).max(1));
        }
    }

    pub(crate) fn snapshot(&self) -> Latency {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Latency> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let recorder = Recorder::default();
        assert_eq!(recorder.snapshot().quantile(0.5), None);
        for millis in 1..=1000 {
            recorder.record(Duration::from_millis(millis));
        }
        let latency = recorder.snapshot();
        let p99 = latency.quantile(0.99).expect("a thousand were measured").as_secs_f64();
        assert!((p99 - 0.99).abs() < 0.01, "{p99}");
        assert_eq!(latency.count(), 1000);
        assert_eq!(latency.sum(), Duration::from_millis(500_500));
        let within = latency.count_within(Duration::from_millis(500));
        assert!((495..=505).contains(&within), "{within}");
    }
}
