use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the machine says of time, in words that another process understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineTime {
    /// Which start of the machine it is, if it says so.
    pub boot: Option<u128>,
    /// Time since that start, sleep included.
    pub since_boot: Duration,
    /// Time since 1970, as far as anybody has told the machine.
    pub since_1970: Duration,
}

/// Where [`MachineTime`] is read: the machine, or what a test says.
#[derive(Clone)]
pub struct MachineClock(Arc<dyn Fn() -> MachineTime + Send + Sync>);

impl MachineClock {
    /// The machine's own clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(system_time)
    }

    /// A clock that shows what the function says.
    pub fn from_fn(read: impl Fn() -> MachineTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> MachineTime {
        (self.0)()
    }
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MachineClock").field(&self.now()).finish()
    }
}

fn system_time() -> MachineTime {
    MachineTime {
        boot: boot(),
        since_boot: read(ClockId::Boottime),
        since_1970: read(ClockId::Realtime),
    }
}

fn read(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    // A wall clock before 1970 is as good as one at 1970.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The random number that the kernel drew when it started.
fn boot() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_the_same_boot_twice_and_time_goes_on() {
        let clock = MachineClock::system();
        let (first, second) = (clock.now(), clock.now());
        assert_eq!(first.boot, second.boot);
        assert!(second.since_boot >= first.since_boot && first.since_boot > Duration::ZERO);
    }
}
