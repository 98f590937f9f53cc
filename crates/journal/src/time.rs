use std::time::Duration;

use larder_core::{Clock, MachineClock, Moment};

use crate::operation::MachineStamp;

/// The journal's time in microseconds, by which the ages of records go on from
/// process to process.
///
/// On the same start of the machine it goes on exactly. After a reboot the wall
/// clock tells how long the machine was away; if it went backwards, no time is
/// taken to have passed. Only lag is told by it: nothing is decided by it.
#[derive(Debug)]
pub(crate) struct JournalTime {
    clock: Clock,
    machine: MachineClock,
    began: Moment,
    began_micros: u64,
}

/// A hundred years, so that what is appended may be old already.
const ORIGIN_MICROS: u64 = 100 * 366 * 24 * 3600 * 1_000_000;

impl JournalTime {
    /// Goes on from where an earlier process was.
    pub(crate) fn start(
        clock: Clock,
        machine: MachineClock,
        before: Option<(u64, MachineStamp)>,
    ) -> Self {
        let began_micros = before.map_or(ORIGIN_MICROS, |(micros, then)| {
            micros.saturating_add(elapsed(then, MachineStamp::from(machine.now())))
        });
        Self { began: clock.precise_now(), clock, machine, began_micros }
    }

    pub(crate) fn now(&self) -> u64 {
        let since = self.clock.precise_now().since(self.began).as_micros();
        self.began_micros.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The time, and what the machine says now.
    pub(crate) fn anchor(&self) -> (u64, MachineStamp) {
        (self.now(), MachineStamp::from(self.machine.now()))
    }

    /// How long ago something was, now.
    pub(crate) fn age(&self, accepted: u64) -> Duration {
        Duration::from_micros(self.now().saturating_sub(accepted))
    }
}

fn elapsed(then: MachineStamp, now: MachineStamp) -> u64 {
    if then.boot != 0 && then.boot == now.boot {
        return now.since_boot.saturating_sub(then.since_boot);
    }
    now.since_1970.saturating_sub(then.since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_go_on_over_a_restart_and_a_reboot_and_never_backwards() {
        let stamp = |boot, since_boot, since_1970| MachineStamp { boot, since_boot, since_1970 };
        assert_eq!(elapsed(stamp(1, 10, 1000), stamp(1, 25, 0)), 15);
        assert_eq!(elapsed(stamp(1, 10, 1000), stamp(2, 3, 1700)), 700);
        assert_eq!(elapsed(stamp(1, 10, 1000), stamp(2, 3, 900)), 0);
        assert_eq!(elapsed(stamp(0, 10, 1000), stamp(0, 3, 1001)), 1);
    }
}
