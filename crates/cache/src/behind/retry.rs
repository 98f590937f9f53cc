use std::time::Duration;

use larder_core::{Clock, Moment};

use super::options::BehindOptions;
use crate::sync::Mutex;

/// How often all lanes together may try again: a bucket that fills with time.
pub(super) struct RetryBudget {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    at: Moment,
}

impl RetryBudget {
    /// A full bucket: the retries of one second.
    pub(super) fn new(per_second: u32, clock: &Clock) -> Self {
        let tokens = f64::from(per_second);
        Self { per_second: tokens, bucket: Mutex::new(Bucket { tokens, at: clock.now() }) }
    }

    /// Takes a retry, now or later. Returns how long to wait for it.
    pub(super) fn take(&self, now: Moment) -> Duration {
        let mut bucket = self.bucket.lock();
        let filled = now.since(bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + filled).min(self.per_second) - 1.0;
        bucket.at = bucket.at.max(now);
        Duration::from_secs_f64((-bucket.tokens / self.per_second).max(0.0))
    }
}

/// How long a lane waits after this many failures in a row.
pub(super) fn pause(options: &BehindOptions, failures: u32) -> Duration {
    let doubled = options.retry_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let longest = doubled.min(options.retry_pause_max);
    longest.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use larder_core::ManualClock;

    use super::*;

    #[test]
    fn retries_of_all_lanes_keep_to_the_rate() {
        let manual = ManualClock::new();
        let clock = Clock::from(manual.clone());
        let budget = RetryBudget::new(10, &clock);
        let waits: Vec<Duration> = (0..30).map(|_| budget.take(clock.now())).collect();
        assert!(waits[..10].iter().all(Duration::is_zero));
        assert!(waits[29] > Duration::from_millis(1900), "{:?}", waits[29]);
        manual.advance(Duration::from_secs(10));
        assert_eq!(budget.take(clock.now()), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let options = BehindOptions::default();
        for failures in 1..40 {
            let (low, high) = (options.retry_pause / 2, options.retry_pause_max);
            let pause = pause(&options, failures);
            assert!(pause >= low && pause <= high, "{pause:?}");
        }
        let pauses: std::collections::HashSet<Duration> =
            (0..20).map(|_| pause(&options, 5)).collect();
        assert!(pauses.len() > 1);
        assert!(pause(&options, 30) >= options.retry_pause_max / 2);
    }
}
