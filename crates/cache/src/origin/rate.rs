use std::time::Duration;

use larder_core::Moment;

use crate::sync::Mutex;

/// So many loads a second, with bursts of as many: the generic cell rate
/// algorithm of ATM (ITU-T I.371), on whatever clock its caller reads. Governor,
/// the crate for this, keeps a clock of its own, which no test can move.
pub(crate) struct Rate {
    /// What one load costs of a second.
    interval: Duration,
    /// When the loads taken so far would all be paid for.
    paid_at: Mutex<Moment>,
}

/// What a burst may run ahead of its pay.
const BURST: Duration = Duration::from_secs(1);

impl Rate {
    /// At no loads a second it is never ready.
    pub(crate) fn per_second(loads: u32) -> Self {
        let interval = BURST.checked_div(loads).unwrap_or(Duration::MAX);
        Self { interval, paid_at: Mutex::new(Moment::START) }
    }

    /// From when on the next load may be taken, if no other is taken before.
    pub(crate) fn ready_at(&self) -> Moment {
        let paid_at = *self.paid_at.lock();
        paid_at + self.interval - BURST
    }

    /// Takes a load, ready or not.
    pub(crate) fn take(&self, now: Moment) {
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at).max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many loads are ready at once.
    fn burst(rate: &Rate, now: Moment) -> usize {
        (0..1000).take_while(|_| rate.ready_at() <= now).inspect(|_| rate.take(now)).count()
    }

    #[test]
    fn a_burst_is_a_seconds_worth_and_comes_back_evenly() {
        let rate = Rate::per_second(10);
        let start = Moment::START + SECOND * 3600;
        assert_eq!(burst(&rate, start), 10);
        assert_eq!(rate.ready_at(), start + SECOND / 10);
        assert_eq!(burst(&rate, start + SECOND / 2), 5);
        assert_eq!(burst(&rate, start + SECOND * 3600), 10, "rest is not saved up");
    }

    #[test]
    fn no_loads_a_second_are_none() {
        assert!(Rate::per_second(0).ready_at().is_never());
    }

    #[test]
    fn as_many_as_can_be_said_are_fine() {
        assert_eq!(burst(&Rate::per_second(u32::MAX), Moment::START + SECOND), 1000);
    }
}
