use std::time::Duration;

use larder_core::Ttl;

/// A TTL as a function of the value's age (K4): what changed a moment ago
/// changes again soon, what is old stays.
///
/// ```
/// use std::time::Duration;
/// use larder::{Ttl, TtlByAge};
///
/// let rule = TtlByAge::default();
/// assert_eq!(rule.ttl_at(Duration::from_secs(10 * 60)), Ttl::secs(30));
/// assert_eq!(rule.ttl_at(Duration::from_secs(30 * 86_400)), Ttl::secs(86_400));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlByAge {
    steps: Vec<(Duration, Ttl)>,
    beyond: Ttl,
}

impl TtlByAge {
    /// Values younger than each step's age get its TTL, the first that fits;
    /// older ones get `beyond`. The steps are put in order of age.
    #[must_use]
    pub fn new(steps: impl IntoIterator<Item = (Duration, Ttl)>, beyond: Ttl) -> Self {
        let mut steps: Vec<_> = steps.into_iter().collect();
        steps.sort_by_key(|(age, _)| *age);
        Self { steps, beyond }
    }

    /// The TTL of a value that is this old.
    #[must_use]
    pub fn ttl_at(&self, age: Duration) -> Ttl {
        let step = self.steps.iter().find(|(younger_than, _)| age < *younger_than);
        step.map_or(self.beyond, |(_, ttl)| *ttl)
    }
}

impl Default for TtlByAge {
    /// Under an hour 30 s, under a day 300 s, under a week 3600 s, else a day.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        Self::new(
            [
                (Duration::from_secs(HOUR), Ttl::secs(30)),
                (Duration::from_secs(DAY), Ttl::secs(300)),
                (Duration::from_secs(7 * DAY), Ttl::secs(HOUR)),
            ],
            Ttl::secs(DAY),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_on_the_step_belongs_to_the_next() {
        let rule = TtlByAge::default();
        assert_eq!(rule.ttl_at(Duration::from_secs(3599)), Ttl::secs(30));
        assert_eq!(rule.ttl_at(Duration::from_secs(3600)), Ttl::secs(300));
        assert_eq!(rule.ttl_at(Duration::from_secs(86_400)), Ttl::secs(3600));
        assert_eq!(rule.ttl_at(Duration::from_secs(7 * 86_400)), Ttl::secs(86_400));
    }
}
