//! Coalescing of wake-ups, as network cards coalesce interrupts.
//!
//! A thread that answers everything and goes to sleep at once is woken again by
//! the next request, a few microseconds later, and the sender pays for that: it
//! costs more than the request. When many clients ask at a time, the thread
//! sleeps by the clock for a moment instead. Requests that come meanwhile wake
//! nobody, and are answered together.

use std::cell::Cell;
use std::time::Duration;

/// After so many reads between two sleeps, more are on their way. With fewer,
/// a moment's sleep would be a delay that nobody gains from.
const READS_MIN: u32 = 4;

/// Clients that send so many commands at a time, or more, share their wake-ups
/// already.
const PIPELINE: u32 = 3;

/// Below what a round trip over a network takes.
const MOMENT: Duration = Duration::from_micros(20);

/// What a thread did since it last slept.
#[derive(Clone, Copy, Default)]
struct Turn {
    reads: u32,
    commands: u32,
}

impl Turn {
    fn is_worth_a_moment(self) -> bool {
        self.reads >= READS_MIN && self.commands < self.reads.saturating_mul(PIPELINE)
    }
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn { reads: 0, commands: 0 }) };
}

/// Counts a read of this thread and the commands that were answered after it.
#[inline]
pub(super) fn note_read(commands: u64) {
    let Turn { reads, commands: others } = TURN.get();
    let commands = u32::try_from(commands).unwrap_or(u32::MAX);
    TURN.set(Turn { reads: reads.saturating_add(1), commands: others.saturating_add(commands) });
}

/// Called when a thread has nothing left to do and is about to wait for events.
pub(super) fn before_waiting() {
    if TURN.take().is_worth_a_moment() {
        std::thread::sleep(MOMENT);
    }
}

/// Lets this thread sleep as short as it asks for; 50 µs longer is the default.
pub(super) fn sharpen_timers() {
    #[cfg(target_os = "linux")]
    {
        // If this is refused, the sleeps are longer and nothing else changes.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(reads: u32, commands: u32) -> Turn {
        Turn { reads, commands }
    }

    #[test]
    fn only_many_single_commands_are_waited_for() {
        assert!(!turn(0, 0).is_worth_a_moment());
        assert!(!turn(3, 3).is_worth_a_moment(), "few clients would only wait");
        assert!(turn(4, 4).is_worth_a_moment());
        assert!(turn(4, 0).is_worth_a_moment(), "commands that are not complete yet");
        assert!(!turn(4, 64).is_worth_a_moment(), "a pipeline is one wake-up");
        assert!(!turn(u32::MAX, u32::MAX).is_worth_a_moment());
    }

    #[test]
    fn each_sleep_begins_a_new_turn() {
        sharpen_timers();
        (0..READS_MIN).for_each(|_| note_read(1));
        let started = std::time::Instant::now();
        before_waiting();
        assert!(started.elapsed() >= MOMENT);
        assert!(!TURN.get().is_worth_a_moment());
        note_read(u64::MAX);
        before_waiting();
        assert_eq!(TURN.get().commands, 0);
    }
}
