use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

/// The name of a file: its number and when it was begun, in UTC, as in
/// `audit-0000000007-20261122T004001Z.jsonl`. Names sort by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FileName {
    pub(crate) number: u64,
    /// Since 1970, in whole seconds.
    pub(crate) began: Duration,
}

/// What a file is called until it is whole.
pub(crate) const UNFINISHED: &str = ".new";
const BEGINNING: &str = "audit-";
const END: &str = ".jsonl";
const TIME: &str = "%Y%m%dT%H%M%SZ";

impl FileName {
    pub(crate) fn spell(self) -> String {
        let seconds = i64::try_from(self.began.as_secs()).unwrap_or(i64::MAX);
        let began = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let began = began.round(Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{BEGINNING}{:010}-{}{END}", self.number, began.strftime(TIME))
    }

    /// `None` if it is the name of something else.
    pub(crate) fn read(name: &str) -> Option<Self> {
        let middle = name.strip_prefix(BEGINNING)?.strip_suffix(END)?;
        let (number, began) = middle.split_once('-')?;
        let number = number.parse().ok()?;
        let began = DateTime::strptime(TIME, began).ok()?;
        let began = began.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        let read = Self { number, began: Duration::from_secs(u64::try_from(began).ok()?) };
        (read.spell() == name).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_spelled_so_that_it_sorts() {
        let name = FileName { number: 7, began: Duration::from_secs(1_795_308_001) };
        assert_eq!(name.spell(), "audit-0000000007-20261122T004001Z.jsonl");
        let later = FileName { number: 10, began: Duration::ZERO };
        assert!(name.spell() < later.spell());
    }

    proptest! {
        #[test]
        fn names_are_read_back(number: u64, seconds in 0..200_000_000_000_u64) {
            let name = FileName { number, began: Duration::from_secs(seconds) };
            prop_assert_eq!(FileName::read(&name.spell()), Some(name));
        }

        #[test]
        fn other_names_are_left_alone(name: String) {
            prop_assert_eq!(FileName::read(&name), None);
            let dressed = format!("audit-{name}.jsonl");
            prop_assert!(FileName::read(&dressed).is_none_or(|read| read.spell() == dressed));
        }
    }
}
