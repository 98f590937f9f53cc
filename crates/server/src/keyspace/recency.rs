//! What an entry's 24 bits about its use mean: under a policy that counts
//! frequency, 16 bits of minutes and a logarithmic counter of 8 bits;
//! otherwise the second of the last use.

use std::time::Duration;

use super::shard::next_random;

const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;
/// What a new entry's counter starts with, so that it is not the first to go.
const COUNTER_START: u32 = 5;
/// How much rarer each further step of the counter is.
const COUNTER_STEEPNESS: u64 = 10;
/// How many minutes without use cost the counter one step.
const MINUTES_PER_DECAY: u32 = 1;

/// How the use of entries is noted at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recency {
    /// Whether use is counted, rather than dated.
    pub(super) counts_frequency: bool,
    /// Seconds on any timeline.
    pub(super) seconds: u32,
}

impl Recency {
    /// The bits of a new entry.
    #[inline]
    pub(super) fn fresh(self) -> u32 {
        if self.counts_frequency {
            (self.minutes() << 8) | COUNTER_START
        } else {
            self.seconds & MASK
        }
    }

    /// The bits of an entry used now.
    #[inline]
    pub(super) fn used(self, access: u32, random: &mut u64) -> u32 {
        if !self.counts_frequency {
            return self.seconds & MASK;
        }
        let counter = self.frequency(access);
        let above_start = u64::from(counter.saturating_sub(COUNTER_START));
        // The upper half of the product is a number below the bound, each as
        // likely as any other.
        let bound = above_start * COUNTER_STEEPNESS + 1;
        let draw = ((next_random(random) >> 32) * bound) >> 32;
        let is_step = counter < 255 && draw == 0;
        (self.minutes() << 8) | (counter + u32::from(is_step))
    }

    /// How often the entry was used of late, on a logarithmic scale to 255.
    pub(super) fn frequency(self, access: u32) -> u32 {
        let idle_minutes = self.minutes().wrapping_sub(access >> 8) & 0xFFFF;
        (access & 0xFF).saturating_sub(idle_minutes / MINUTES_PER_DECAY)
    }

    /// How long ago the entry was used; wraps after 194 days.
    pub(super) fn idle(self, access: u32) -> Duration {
        Duration::from_secs(u64::from(self.seconds.wrapping_sub(access) & MASK))
    }

    fn minutes(self) -> u32 {
        (self.seconds / 60) & 0xFFFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_from_the_last_use_and_over_the_wrap() {
        let at = |seconds| Recency { counts_frequency: false, seconds };
        let access = at(MASK - 1).fresh();
        assert_eq!(at(MASK + 9).idle(access), Duration::from_secs(10));
        let used = at(MASK + 9).used(access, &mut 1);
        assert_eq!(at(MASK + 9).idle(used), Duration::ZERO);
    }

    #[test]
    fn frequency_grows_logarithmically_and_decays() {
        let mut random = 7;
        let now = Recency { counts_frequency: true, seconds: 600 };
        let mut access = now.fresh();
        let mut after = Vec::new();
        for uses in 1..=100_000 {
            access = now.used(access, &mut random);
            if [100, 10_000, 100_000].contains(&uses) {
                after.push(now.frequency(access));
            }
        }
        assert!(after[0] < after[1] && after[1] < after[2], "{after:?}");
        assert!((6..30).contains(&after[0]), "{after:?}");
        assert!((100..200).contains(&after[2]), "{after:?}");
        let later = Recency { counts_frequency: true, seconds: 600 + 20 * 60 };
        assert_eq!(later.frequency(access), after[2] - 20);
    }
}
