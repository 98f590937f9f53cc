use std::fmt::Write as _;
use std::time::Duration;

use larder_core::MachineClock;
use parking_lot::Mutex;

/// Draws identifiers: UUIDs of version 7 (RFC 9562, section 5.7) with 48 bits of
/// milliseconds, 12 of a counter and 62 that are drawn.
///
/// Each one is larger than those before it from here, also where the wall clock
/// goes backwards. What another process or an earlier one has drawn is smaller
/// only as far as the wall clocks agree.
pub(crate) struct Identifiers {
    clock: MachineClock,
    /// Milliseconds and the counter of the last one.
    last: Mutex<u64>,
}

const COUNTER_BITS: u32 = 12;

impl Identifiers {
    pub(crate) fn new(clock: MachineClock) -> Self {
        Self { clock, last: Mutex::new(0) }
    }

    pub(crate) fn next(&self) -> String {
        let mut last = self.last.lock();
        let now = millis(self.clock.now().since_1970) << COUNTER_BITS;
        // A full counter runs into the next millisecond.
        *last = now.max(*last + 1);
        let text = spell(*last, fastrand::u64(..));
        drop(last);
        text
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX) & ((1 << 48) - 1)
}

fn spell(moment: u64, drawn: u64) -> String {
    let (millis, counter) = (moment >> COUNTER_BITS, moment & ((1 << COUNTER_BITS) - 1));
    let variant = (drawn >> 2) | (1 << 63);
    let mut text = String::with_capacity(36);
    let _ = write!(
        text,
        "{:08x}-{:04x}-7{counter:03x}-{:04x}-{:012x}",
        millis >> 16,
        millis & 0xffff,
        variant >> 48,
        variant & 0xffff_ffff_ffff,
    );
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use larder_core::MachineTime;

    use super::*;

    #[test]
    fn identifiers_grow_also_where_the_clock_stands_or_goes_back() {
        let millis = Arc::new(AtomicU64::new(1_800_000_000_000));
        let told = Arc::clone(&millis);
        let clock = MachineClock::from_fn(move || MachineTime {
            boot: None,
            since_boot: Duration::ZERO,
            since_1970: Duration::from_millis(told.load(Ordering::Relaxed)),
        });
        let identifiers = Identifiers::new(clock);
        let mut last = String::new();
        for round in 0..20_000_u64 {
            if round % 5000 == 0 {
                millis.fetch_sub(7, Ordering::Relaxed);
            }
            let next = identifiers.next();
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn an_identifier_is_spelled_as_the_standard_says() {
        // The example of RFC 9562, A.6.
        let moment = (0x017f_22e2_79b0 << COUNTER_BITS) | 0xcc3;
        let drawn = 0x18c4_dc0c_0c07_398f_u64 << 2;
        assert_eq!(spell(moment, drawn), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }
}
