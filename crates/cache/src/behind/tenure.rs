use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use larder_core::Moment;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64};

/// The time from a claim of a lane to its end. A journal of one process has one for
/// good.
#[derive(Default)]
pub(super) struct Tenure {
    /// Which one it is, the epoch of its claim; 0 if another process has the lane.
    number: AtomicU64,
    /// Until when nobody else can have claimed the lane; `None`: for good.
    certain_until: Mutex<Option<Moment>>,
    /// It has ended here, and is to be told when its tasks have ended, too.
    is_leaving: AtomicBool,
}

impl Tenure {
    pub(super) fn number(&self) -> u64 {
        self.number.load(Acquire)
    }

    /// Whether this one goes on.
    pub(super) fn is(&self, number: u64) -> bool {
        self.number() == number
    }

    pub(super) fn begin(&self, number: u64, certain_until: Option<Moment>) {
        *self.certain_until.lock() = certain_until;
        self.is_leaving.store(false, Release);
        self.number.store(number, Release);
    }

    /// Ends it, unless another one has begun. Says whether it did.
    pub(super) fn end(&self, number: u64) -> bool {
        number > 0 && self.number.compare_exchange(number, 0, AcqRel, Acquire).is_ok()
    }

    /// Nobody else can claim the lane before then.
    pub(super) fn renew(&self, certain_until: Moment) {
        let mut held = self.certain_until.lock();
        *held = (*held).max(Some(certain_until));
    }

    /// Whether nobody else can have claimed the lane by now. Else what is sent may be
    /// refused.
    pub(super) fn is_certain(&self, now: Moment) -> bool {
        self.certain_until.lock().is_none_or(|until| now < until)
    }

    pub(super) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Release);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Acquire)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::time::Duration;

    use larder_core::{Clock, ManualClock};

    use super::*;

    #[test]
    fn only_the_tenure_that_goes_on_can_end() {
        let tenure = Tenure::default();
        assert!(!tenure.end(0));
        tenure.begin(3, None);
        assert!(tenure.is(3) && !tenure.end(2));
        assert!(tenure.end(3) && !tenure.end(3));
        assert_eq!(tenure.number(), 0);
    }

    #[test]
    fn a_lease_is_certain_until_it_ends_and_one_for_good_always() {
        let manual = ManualClock::new();
        let clock = Clock::from(manual.clone());
        let tenure = Tenure::default();
        tenure.begin(1, None);
        assert!(tenure.is_certain(clock.now()));
        let second = Duration::from_secs(1);
        tenure.begin(2, Some(clock.now() + second));
        assert!(tenure.is_certain(clock.now()));
        manual.advance(second);
        assert!(!tenure.is_certain(clock.now()));
        tenure.renew(clock.now() + second);
        assert!(tenure.is_certain(clock.now()));
        // An answer that was on its way for long.
        tenure.renew(clock.now());
        assert!(tenure.is_certain(clock.now()));
    }
}
