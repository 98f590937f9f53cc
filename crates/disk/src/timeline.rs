use std::sync::OnceLock;
use std::time::Duration;

use larder_core::{Clock, MachineClock, MachineTime, Moment};

/// The time by which the directory tells ages: microseconds that go on from
/// process to process.
///
/// What is promised: an entry never comes back younger than it was.
///
/// - While a process runs, [`Clock`] moves the timeline.
/// - A process that follows on the same start of the machine adds what the
///   machine's clock since boot moved, sleep included: exact.
/// - After a reboot only the wall clock can tell. Its difference is taken with a
///   surcharge of 2 s and a thousandth. If it went backwards, or says that less
///   time passed than the machine has been up, it is not believed: then nobody
///   knows how old the entries are, and all of them are dead. So it is where the
///   machine says no boot, and after the directory came from another machine
///   that has been up for longer.
///
/// What cannot be noticed: a wall clock set back while the machine was off by
/// less than it was off for; the clock since boot of a virtual machine that was
/// stopped and resumed, or of a container with a time namespace of its own.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Clock,
    started: OnceLock<Started>,
}

#[derive(Clone, Copy, Debug)]
struct Started {
    at: Moment,
    micros: u64,
    /// What was read before has an age that nobody knows.
    known_since_micros: u64,
}

/// A moment of the timeline beside what the machine said then: what the next
/// process reckons from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Anchor {
    pub(crate) micros: u64,
    pub(crate) known_since_micros: u64,
    pub(crate) machine: MachineTime,
}

/// The time, and since when ages are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Now {
    pub(crate) micros: u64,
    pub(crate) known_since_micros: u64,
}

/// A hundred years, so that what is put may be old already.
const ORIGIN_MICROS: u64 = 100 * YEAR_MICROS;
const YEAR_MICROS: u64 = 366 * 24 * 3600 * 1_000_000;
const SURCHARGE_MICROS: u64 = 2_000_000;

impl Timeline {
    /// A timeline that has not started: [`Timeline::now`] says nothing yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, started: OnceLock::new() }
    }

    /// Goes on from where an earlier process was. Does nothing the second time.
    pub(crate) fn start(&self, anchor: Option<&Anchor>, machine: &MachineClock) {
        self.started.get_or_init(|| {
            let at = self.clock.precise_now();
            let (micros, known_since_micros) =
                anchor.map_or((ORIGIN_MICROS, 0), |anchor| follow(anchor, machine.now()));
            Started { at, micros, known_since_micros }
        });
    }

    /// The time, once it has started.
    pub(crate) fn now(&self) -> Option<Now> {
        let started = self.started.get()?;
        let since = micros(self.clock.precise_now().since(started.at));
        let now = started.micros.saturating_add(since);
        Some(Now { micros: now, known_since_micros: started.known_since_micros })
    }

    /// What the next process reckons from. The machine is asked first: what
    /// passes between the two readings makes entries older, not younger.
    pub(crate) fn anchor(&self, machine: &MachineClock) -> Option<Anchor> {
        let machine = machine.now();
        let Now { micros, known_since_micros } = self.now()?;
        Some(Anchor { micros, known_since_micros, machine })
    }
}

/// Where the timeline is after an anchor, and since when ages are known.
fn follow(anchor: &Anchor, machine: MachineTime) -> (u64, u64) {
    let elapsed = match elapsed(&anchor.machine, &machine) {
        Some(elapsed) => elapsed,
        // Past everything that was written after the anchor, with room for what
        // is put now and was read long before.
        None => {
            let known_since_micros = anchor.micros.saturating_add(YEAR_MICROS);
            return (known_since_micros.saturating_add(YEAR_MICROS), known_since_micros);
        }
    };
    (anchor.micros.saturating_add(elapsed), anchor.known_since_micros)
}

/// Microseconds from one to the other, if they can be known.
fn elapsed(then: &MachineTime, now: &MachineTime) -> Option<u64> {
    if then.boot.is_some() && then.boot == now.boot {
        return now.since_boot.checked_sub(then.since_boot).map(micros);
    }
    let passed = micros(now.since_1970.checked_sub(then.since_1970)?);
    let surcharged = passed.saturating_add(passed / 1000).saturating_add(SURCHARGE_MICROS);
    // Whoever does not say which boot it is may be the same one.
    let rebooted = then.boot.is_some() && now.boot.is_some();
    (!rebooted || surcharged >= micros(now.since_boot)).then_some(surcharged)
}

/// A duration in microseconds, at most those of 580 000 years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use larder_core::ManualClock;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn machine(boot: Option<u128>, since_boot: Duration, since_1970: Duration) -> MachineTime {
        MachineTime { boot, since_boot, since_1970 }
    }

    /// Hours that pass from one machine time to another, or that nobody knows.
    fn check(then: MachineTime, now: MachineTime, hours: Option<u32>) {
        let anchor = Anchor { micros: ORIGIN_MICROS, known_since_micros: 7, machine: then };
        let (at, known_since) = follow(&anchor, now);
        match hours {
            Some(hours) => {
                let expected = ORIGIN_MICROS + micros(HOUR * hours);
                assert!(at >= expected, "{then:?} to {now:?}: {at} is before {expected}");
                assert!(at < expected + expected / 500 + SURCHARGE_MICROS, "{then:?} to {now:?}");
                assert_eq!(known_since, 7);
            }
            None => {
                assert!(known_since >= ORIGIN_MICROS + YEAR_MICROS, "{then:?} to {now:?}");
                assert_eq!(at, known_since + YEAR_MICROS, "{then:?} to {now:?}");
            }
        }
    }

    #[test]
    fn time_goes_on_between_processes_or_nobody_knows_it() {
        let then = machine(Some(1), HOUR * 5, HOUR * 1000);
        // The same boot: exact, whatever the wall clock says.
        check(then, machine(Some(1), HOUR * 7, HOUR * 1000), Some(2));
        check(then, machine(Some(1), HOUR * 7, HOUR), Some(2));
        check(then, machine(Some(1), HOUR * 4, HOUR * 1009), None);
        // Another boot: the wall clock, if it can be believed.
        check(then, machine(Some(2), HOUR, HOUR * 1009), Some(9));
        check(then, machine(Some(2), HOUR, HOUR * 999), None);
        check(then, machine(Some(2), HOUR * 3, HOUR * 1002), None);
        // A machine that does not tell its boots.
        let silent = machine(None, HOUR * 5, HOUR * 1000);
        check(silent, machine(None, HOUR * 7, HOUR * 1002), Some(2));
        check(silent, machine(None, HOUR * 7, HOUR * 998), None);
    }

    #[test]
    fn the_same_boot_is_exact() {
        let then = machine(Some(1), HOUR, HOUR);
        let anchor = Anchor { micros: 10, known_since_micros: 0, machine: then };
        let now = machine(Some(1), HOUR + Duration::from_micros(3), HOUR * 9);
        assert_eq!(follow(&anchor, now), (13, 0));
    }

    #[test]
    fn a_process_moves_the_timeline_with_its_own_clock() {
        let manual = ManualClock::new();
        let timeline = Timeline::new(manual.clone().into());
        assert_eq!(timeline.now(), None);
        let clock = MachineClock::from_fn(|| machine(Some(1), HOUR, HOUR));
        timeline.start(None, &clock);
        manual.advance(Duration::from_secs(3));
        let now = timeline.now().expect("it started");
        assert_eq!(now.micros, ORIGIN_MICROS + 3_000_000);
        let anchor = timeline.anchor(&clock).expect("it started");
        assert_eq!((anchor.micros, anchor.machine), (now.micros, clock.now()));
    }
}
