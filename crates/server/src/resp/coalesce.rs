//! Coalescing of wake-ups, as network cards coalesce interrupts.
//!
//! A thread that answers everything and goes to sleep at once is woken again by
//! the next request, a few microseconds later, and the sender pays for that: it
//! costs more than the request. When many clients ask at a time, the thread
//! sleeps by the clock for a moment instead. Requests that come meanwhile wake
//! nobody, and are answered together.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use larder_core::Moment;

/// With fewer clients than this, all of them may be waiting for their answers:
/// a moment's sleep would be a delay that nobody gains from.
const CLIENTS_MIN: u32 = 24;

/// So many reads between two sleeps, and more are on their way. After still more
/// of them, some have arrived already, and there is no need to wait.
const READS: Range<u32> = 4..12;

/// Clients that send so many commands at a time, or more, share their wake-ups
/// already.
const PIPELINE: u32 = 3;

/// Below what a round trip over a network takes.
const MOMENT: Duration = Duration::from_micros(20);

/// Clients are counted for about four milliseconds: time is cut into windows by
/// leaving out so many bits of its nanoseconds.
const WINDOW_BITS: u32 = 22;

/// What a thread did since it last slept.
#[derive(Clone, Copy, Default)]
struct Turn {
    reads: u32,
    commands: u32,
}

impl Turn {
    fn is_worth_a_moment(self, clients: u32) -> bool {
        clients >= CLIENTS_MIN
            && READS.contains(&self.reads)
            && self.commands < self.reads.saturating_mul(PIPELINE)
    }
}

/// How many clients sent something in this window, and in the one before.
#[derive(Clone, Copy, Default)]
struct Clients {
    window: u64,
    count: u32,
    before: u32,
}

impl Clients {
    fn note(&mut self, counted_in: &mut u64, window: u64) {
        if window != self.window {
            self.before = if window == self.window + 1 { self.count } else { 0 };
            self.count = 0;
            self.window = window;
        }
        if *counted_in != window {
            *counted_in = window;
            self.count = self.count.saturating_add(1);
        }
    }
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn { reads: 0, commands: 0 }) };
    static CLIENTS: Cell<Clients> =
        const { Cell::new(Clients { window: 0, count: 0, before: 0 }) };
}

/// Counts a read of this thread at this time, and the commands that were
/// answered after it. `counted_in` belongs to the client who sent them.
#[inline]
pub(super) fn note_read(commands: u64, counted_in: &mut u64, now: Moment) {
    let Turn { reads, commands: others } = TURN.get();
    let commands = u32::try_from(commands).unwrap_or(u32::MAX);
    TURN.set(Turn { reads: reads.saturating_add(1), commands: others.saturating_add(commands) });
    let mut clients = CLIENTS.get();
    clients.note(counted_in, now.as_nanos() >> WINDOW_BITS);
    CLIENTS.set(clients);
}

/// Called when a thread has nothing left to do and is about to wait for events.
pub(super) fn before_waiting() {
    let Clients { count, before, .. } = CLIENTS.get();
    if TURN.take().is_worth_a_moment(count.max(before)) {
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
    fn only_many_clients_with_single_commands_are_waited_for() {
        let many = CLIENTS_MIN;
        assert!(!turn(0, 0).is_worth_a_moment(many));
        assert!(!turn(3, 3).is_worth_a_moment(many), "few more would come");
        assert!(turn(4, 4).is_worth_a_moment(many));
        assert!(turn(4, 0).is_worth_a_moment(many), "commands that are not complete yet");
        assert!(!turn(12, 12).is_worth_a_moment(many), "more have come already");
        assert!(!turn(4, 64).is_worth_a_moment(many), "a pipeline is one wake-up");
        assert!(!turn(4, 4).is_worth_a_moment(many - 1), "all of them may be waiting");
        assert!(!turn(u32::MAX, u32::MAX).is_worth_a_moment(u32::MAX));
    }

    #[test]
    fn a_client_counts_once_in_a_window_and_for_the_next_one() {
        let mut clients = Clients::default();
        let [mut one, mut other] = [0; 2];
        for _ in 0..3 {
            clients.note(&mut one, 7);
        }
        clients.note(&mut other, 7);
        assert_eq!((clients.count, clients.before), (2, 0));
        clients.note(&mut one, 8);
        assert_eq!((clients.count, clients.before), (1, 2));
        clients.note(&mut one, 10);
        assert_eq!((clients.count, clients.before), (1, 0), "nobody asked in between");
    }

    #[test]
    fn each_sleep_begins_a_new_turn() {
        sharpen_timers();
        let now = Moment::from_nanos(1 << 40);
        let ask = |_| note_read(1, &mut 0, now);
        (0..CLIENTS_MIN).for_each(ask);
        before_waiting();
        (0..READS.start).for_each(ask);
        let started = std::time::Instant::now();
        before_waiting();
        assert!(started.elapsed() >= MOMENT);
        assert!(!TURN.get().is_worth_a_moment(u32::MAX));
        note_read(u64::MAX, &mut 0, now);
        before_waiting();
        assert_eq!(TURN.get().commands, 0);
    }
}
