use larder_core::Moment;

use crate::hit::{Label, StaleReason, Tier};

/// When an answer was given, whence and how fresh it was, in one word: an answer
/// of whole words passes through futures in registers, and one with narrow parts
/// is written to memory in pieces and waited for when it is read back whole.
///
/// The place of the answer stands in the six low bits of the moment. What they
/// held is below 64 nanoseconds: a millisecond is a multiple of that, and the
/// clock of reads moves in steps of milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

/// Stores that a cache can have: each has its place in a stamp.
pub(crate) const STORES_MAX: usize = 8;

const PLACE_BITS: u64 = 0b11_1111;
const LABELS: u64 = 6;
const FALLBACK: u64 = PLACE_BITS;

impl Stamp {
    #[inline]
    pub(crate) fn new(label: Label, tier: Tier, at: Moment) -> Self {
        let tier = match tier {
            Tier::Memory => 0,
            Tier::Origin => 1,
            Tier::Store(index) => 2 + u64::from(index).min(STORES_MAX as u64 - 1),
            Tier::Fallback => return Self(at.as_nanos() | FALLBACK),
        };
        let label = match label {
            Label::Fresh => 0,
            Label::Stale(StaleReason::Revalidating) => 1,
            Label::Stale(StaleReason::OriginFailed) => 2,
            Label::Stale(StaleReason::SoftTimeout) => 3,
            Label::Stale(StaleReason::SlowLoad) => 4,
            Label::Stale(StaleReason::Suspect) => 5,
            Label::Fallback => return Self(at.as_nanos() | FALLBACK),
        };
        Self((at.as_nanos() & !PLACE_BITS) | (tier * LABELS + label))
    }

    /// When the answer was given, at most 64 ns too early.
    pub(crate) const fn at(self) -> Moment {
        Moment::from_nanos(self.0 & !PLACE_BITS)
    }

    pub(crate) const fn label(self) -> Label {
        if self.place() == FALLBACK {
            return Label::Fallback;
        }
        match self.place() % LABELS {
            0 => Label::Fresh,
            1 => Label::Stale(StaleReason::Revalidating),
            2 => Label::Stale(StaleReason::OriginFailed),
            3 => Label::Stale(StaleReason::SoftTimeout),
            4 => Label::Stale(StaleReason::SlowLoad),
            _ => Label::Stale(StaleReason::Suspect),
        }
    }

    pub(crate) const fn tier(self) -> Tier {
        if self.place() == FALLBACK {
            return Tier::Fallback;
        }
        match self.place() / LABELS {
            0 => Tier::Memory,
            1 => Tier::Origin,
            // At most 63 / 5.
            #[allow(clippy::cast_possible_truncation, reason = "six bits")]
            store => Tier::Store((store - 2) as u8),
        }
    }

    const fn place(self) -> u64 {
        self.0 & PLACE_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stamp_tells_what_it_was_made_of() {
        let at = Moment::START + Duration::from_millis(1_234_567);
        let labels = [
            Label::Fresh,
            Label::Stale(StaleReason::Revalidating),
            Label::Stale(StaleReason::OriginFailed),
            Label::Stale(StaleReason::SoftTimeout),
            Label::Stale(StaleReason::SlowLoad),
            Label::Stale(StaleReason::Suspect),
        ];
        let stores = (0..u8::try_from(STORES_MAX).expect("few")).map(Tier::Store);
        for tier in [Tier::Memory, Tier::Origin].into_iter().chain(stores) {
            for label in labels {
                let stamp = Stamp::new(label, tier, at);
                assert!(stamp.label() == label && stamp.tier() == tier && stamp.at() == at);
            }
        }
        let stamp = Stamp::new(Label::Fallback, Tier::Fallback, at);
        assert!(stamp.label() == Label::Fallback && stamp.tier() == Tier::Fallback);
        assert_eq!(stamp.at(), at);
    }
}
