use std::time::Duration;

use larder_core::Moment;

use crate::sync::Mutex;

/// When a circuit breaker opens and how it closes again (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Breaker {
    failures: u32,
    open_for: Duration,
}

impl Breaker {
    /// Opens after this many failures in a row. Default 5.
    pub const fn failures(mut self, failures: u32) -> Self {
        self.failures = if failures == 0 { 1 } else { failures };
        self
    }

    /// Stays open this long, then lets one load through to try. Default 60 s.
    pub const fn open_for(mut self, duration: Duration) -> Self {
        self.open_for = duration;
        self
    }

    /// The preset for an origin that serves many caches: 50 failures, 30 s.
    pub const fn shared_origin() -> Self {
        Self { failures: 50, open_for: Duration::from_secs(30) }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(60) }
    }
}

/// Whether an origin is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It is not.
    Open,
    /// One load is let through; its result decides.
    HalfOpen,
}

/// Proof that a load was let through, and in which state: a result that
/// belongs to an earlier state decides nothing about the present one.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Ticket {
    generation: u64,
}

#[derive(Debug)]
pub(crate) struct BreakerSwitch {
    options: Breaker,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Grows with each change of state.
    generation: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Moment,
    },
    /// The probe may be lost with its task; after `until` another may try.
    HalfOpen {
        until: Moment,
    },
}

impl BreakerSwitch {
    pub(crate) fn new(options: Breaker) -> Self {
        let inner = Inner { state: State::Closed { failures: 0 }, generation: 0 };
        Self { options, inner: Mutex::new(inner) }
    }

    /// Lets a load through, or says how long until the next may try.
    pub(crate) fn enter(&self, now: Moment) -> Result<Ticket, Duration> {
        let mut inner = self.inner.lock();
        match inner.state {
            State::Closed { .. } => {}
            State::Open { until } | State::HalfOpen { until } if now < until => {
                return Err(until.since(now));
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                inner.become_(State::HalfOpen { until: now + self.options.open_for });
            }
        }
        Ok(Ticket { generation: inner.generation })
    }

    pub(crate) fn settle(&self, ticket: Ticket, sick: bool, now: Moment) {
        let mut inner = self.inner.lock();
        if ticket.generation != inner.generation {
            return;
        }
        match (&mut inner.state, sick) {
            (State::Closed { failures }, false) => *failures = 0,
            (State::Closed { failures }, true) => {
                *failures += 1;
                if *failures >= self.options.failures {
                    inner.become_(State::Open { until: now + self.options.open_for });
                }
            }
            (State::HalfOpen { .. }, false) => inner.become_(State::Closed { failures: 0 }),
            (State::HalfOpen { .. }, true) => {
                inner.become_(State::Open { until: now + self.options.open_for });
            }
            // No ticket is given out while it is open.
            (State::Open { .. }, _) => {}
        }
    }

    /// For how much longer it is open; `None` if it is not.
    pub(crate) fn open_for(&self, now: Moment) -> Option<Duration> {
        match self.inner.lock().state {
            State::Open { until } if now < until => Some(until.since(now)),
            _ => None,
        }
    }

    pub(crate) fn would_refuse(&self, now: Moment) -> bool {
        match self.inner.lock().state {
            State::Closed { .. } => false,
            State::Open { until } | State::HalfOpen { until } => now < until,
        }
    }

    pub(crate) fn state(&self, now: Moment) -> BreakerState {
        match self.inner.lock().state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

impl Inner {
    fn become_(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn fail(switch: &BreakerSwitch, now: Moment) {
        let ticket = switch.enter(now).expect("it is not open");
        switch.settle(ticket, true, now);
    }

    #[test]
    fn it_opens_half_opens_and_closes() {
        let switch = BreakerSwitch::new(Breaker::default());
        let start = Moment::START + MINUTE;
        for _ in 0..5 {
            assert_eq!(switch.state(start), BreakerState::Closed);
            fail(&switch, start);
        }
        assert_eq!(switch.state(start), BreakerState::Open);
        assert_eq!(switch.enter(start + MINUTE / 2).expect_err("it is open"), MINUTE / 2);

        let later = start + MINUTE;
        assert_eq!(switch.state(later), BreakerState::HalfOpen);
        let probe = switch.enter(later).expect("one probe is let through");
        assert!(switch.enter(later).is_err(), "and only one");
        switch.settle(probe, true, later);
        assert_eq!(switch.state(later), BreakerState::Open);

        let probe = switch.enter(later + MINUTE).expect("the next probe");
        switch.settle(probe, false, later + MINUTE);
        assert_eq!(switch.state(later + MINUTE), BreakerState::Closed);
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let switch = BreakerSwitch::new(Breaker::default().failures(2));
        for _ in 0..10 {
            fail(&switch, Moment::START);
            let ticket = switch.enter(Moment::START).expect("it is closed");
            switch.settle(ticket, false, Moment::START);
        }
        assert_eq!(switch.state(Moment::START), BreakerState::Closed);
    }

    #[test]
    fn a_result_from_before_it_opened_does_not_close_it() {
        let switch = BreakerSwitch::new(Breaker::default().failures(1));
        let slow = switch.enter(Moment::START).expect("it is closed");
        fail(&switch, Moment::START);
        switch.settle(slow, false, Moment::START);
        assert_eq!(switch.state(Moment::START), BreakerState::Open);
    }

    #[test]
    fn a_probe_that_never_reports_does_not_keep_it_shut_for_ever() {
        let switch = BreakerSwitch::new(Breaker::default().failures(1));
        fail(&switch, Moment::START);
        let _lost = switch.enter(Moment::START + MINUTE).expect("a probe");
        assert!(switch.enter(Moment::START + MINUTE).is_err());
        assert!(switch.enter(Moment::START + MINUTE * 2).is_ok());
    }
}
