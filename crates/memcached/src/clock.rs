//! The clock of a server, as far as it can be known.
//!
//! Nodes must agree on how old an item is without comparing their own clocks.
//! What all of them can see is the server's: `stats` tells its `time`, and an
//! item that expires at `E` of that clock has `t` seconds left, so that now is
//! `E - t`. That clock counts whole seconds, from 1970 as the server's machine
//! had it when the server started; from there it follows the machine's
//! monotonic clock and is never set.
//!
//! **How exact is it?** Once a second memcached reads its monotonic clock and
//! cuts the fraction off. So the second that it shows is at most 2 s behind the
//! truth: one for the fraction, one until it looks again. It is never ahead.
//!
//! - *Writing.* [`ServerClock::now_at_least`] is a time that the server has
//!   reached for certain: what `stats` showed once, plus the time gone by here
//!   since that answer came, less a thousandth in case this machine's clock is
//!   fast. An entry's origin read is dated back from there, and its expiry is
//!   sent as a point in time, not as a duration: bytes that lie in the network
//!   for long make it neither younger nor longer-lived.
//! - *Reading.* [`ServerClock::now_at_most`] is what the server shows plus those
//!   2 s.
//!
//! An age is the second less the first: never less than the truth (an answer's
//! way back included), and at most 4 s more, as a rule 1 to 3. It is not refined
//! from there: an entry must not get younger by being read. A TTL of a few
//! seconds is therefore of no use in this tier, which is a small loss: it is
//! meant for what is worth a round trip for longer.
//!
//! **What this cannot see.** A server that stood still as a process may answer
//! for a moment with the second from before. An item whose clock is that far
//! behind what has passed here for certain is taken as a miss.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND_MICROS: u64 = 1_000_000;

/// How far the second shown may be behind.
const BEHIND_SECS_MAX: u64 = 2;

/// Clocks of machines differ in rate by far less than this.
const RATE_ERROR: u32 = 1000;

/// What is known of a server's clock. Numbers are microseconds since 1970 as
/// the server has it.
#[derive(Debug)]
pub(crate) struct ServerClock {
    /// A time of the server, and when it had certainly been reached.
    anchor: Mutex<(u64, Instant)>,
    /// No answer of [`ServerClock::now_at_most`] was later.
    latest_micros: AtomicU64,
}

impl ServerClock {
    /// A clock that showed this second in an answer that came at this moment.
    pub(crate) fn new(shown_secs: u64, answered_at: Instant) -> Self {
        Self {
            anchor: Mutex::new((micros(shown_secs), answered_at)),
            latest_micros: AtomicU64::new(0),
        }
    }

    /// Learns from another such answer.
    pub(crate) fn observe(&self, shown_secs: u64, answered_at: Instant) {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if micros(shown_secs) > after(*anchor, answered_at) {
            *anchor = (micros(shown_secs), answered_at);
        }
    }

    /// A time that the server has reached by this moment.
    pub(crate) fn at_least(&self, moment: Instant) -> u64 {
        after(*self.anchor.lock().unwrap_or_else(PoisonError::into_inner), moment)
    }

    /// A time that the server has reached by now.
    pub(crate) fn now_at_least(&self) -> u64 {
        self.at_least(Instant::now())
    }

    /// A time that the server has not passed when the answer to what was asked
    /// at `asked_at` has come, which showed this second. Never earlier than what
    /// was said before. `None` if the server's clock stood still.
    pub(crate) fn now_at_most(&self, shown_secs: u64, asked_at: Instant) -> Option<u64> {
        let shown = micros(shown_secs.saturating_add(BEHIND_SECS_MAX));
        if shown < self.at_least(asked_at) {
            return None;
        }
        let latest = shown.saturating_add(duration_micros(asked_at.elapsed()));
        Some(self.latest_micros.fetch_max(latest, Ordering::Relaxed).max(latest))
    }
}

/// The anchor's time as of a later moment.
fn after((server_micros, reached_at): (u64, Instant), moment: Instant) -> u64 {
    let elapsed = moment.saturating_duration_since(reached_at);
    server_micros.saturating_add(duration_micros(elapsed - elapsed / RATE_ERROR))
}

fn micros(secs: u64) -> u64 {
    secs.saturating_mul(SECOND_MICROS)
}

pub(crate) fn duration_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up.
pub(crate) fn secs_up(micros: u64) -> u64 {
    micros.div_ceil(SECOND_MICROS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_800_000_000;

    /// What a server shows at a time: it looks at its clock once a second, at a
    /// fraction of its own, and cuts off the fraction.
    fn shown(true_micros: u64, looks_at: u64) -> u64 {
        let looked = (true_micros - looks_at) / SECOND_MICROS * SECOND_MICROS + looks_at;
        looked / SECOND_MICROS
    }

    proptest! {
        #[test]
        fn an_age_is_never_too_low_and_at_most_four_seconds_too_high(
            looks_at in 0..SECOND_MICROS,
            calibrated in 0..5 * SECOND_MICROS,
            written in 0..60 * SECOND_MICROS,
            read in 0..300 * SECOND_MICROS,
        ) {
            let base = Instant::now();
            let at = |micros| base + Duration::from_micros(micros);
            let truth = |micros: u64| START * SECOND_MICROS + micros;
            let (written, read) = (calibrated + written, calibrated + written + read);
            let clock =
                ServerClock::new(shown(truth(calibrated), looks_at), at(calibrated));
            let from = clock.at_least(at(written));
            // Moments later than now pass for an answer that takes no time.
            let to = clock.now_at_most(shown(truth(read), looks_at), at(read)).expect("it runs");
            let (age, true_age) = (to - from, read - written);
            let drift = (read - calibrated) / u64::from(RATE_ERROR);
            prop_assert!(age >= true_age, "{age} for {true_age}");
            prop_assert!(age <= true_age + 4 * SECOND_MICROS + drift, "{age} for {true_age}");
        }
    }

    #[test]
    fn what_is_not_passed_never_goes_back() {
        let base = Instant::now();
        let clock = ServerClock::new(START, base);
        let long_ago = base.checked_sub(Duration::from_secs(1)).expect("the machine runs longer");
        let first = clock.now_at_most(START, long_ago).expect("it runs");
        let second = clock.now_at_most(START, Instant::now()).expect("it runs");
        assert!(second >= first && first >= micros(START + 3), "{first} then {second}");
    }

    #[test]
    fn a_server_whose_clock_stood_still_is_found_out() {
        let base = Instant::now();
        let clock = ServerClock::new(START, base);
        assert!(clock.now_at_most(START, base + Duration::from_millis(1_900)).is_some());
        assert_eq!(clock.now_at_most(START, base + Duration::from_secs(3)), None);
    }

    #[test]
    fn a_later_look_sharpens_what_has_been_reached_and_never_blurs_it() {
        let base = Instant::now();
        let clock = ServerClock::new(START, base);
        clock.observe(START + 1, base + Duration::from_millis(100));
        assert_eq!(clock.at_least(base + Duration::from_millis(100)), micros(START + 1));
        clock.observe(START + 1, base + Duration::from_millis(900));
        assert!(clock.at_least(base + Duration::from_millis(900)) > micros(START + 1));
    }
}
