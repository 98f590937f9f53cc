use larder_core::{PutCondition, PutOutcome, Verb, Version};

use crate::record::{Floor, Head, Limits};
use crate::timeline::Now;

/// What is held under a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    Nothing,
    /// Something that cannot be read any more.
    Damaged,
    Record(Head),
}

/// What everything is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) now: Now,
    pub(crate) limits: Limits,
    /// No version of the cache was higher so far. What cannot be read may have
    /// been invalidated at this one.
    pub(crate) highest: Version,
}

/// What to do with a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Put {
    Store(Option<Floor>),
    Refuse(Version),
}

impl Put {
    pub(crate) fn outcome(self) -> PutOutcome {
        match self {
            Self::Store(_) => PutOutcome::Stored,
            Self::Refuse(version) => PutOutcome::Refused(version),
        }
    }
}

/// Whether a put takes effect. A floor stays with what is stored over it, so
/// that it is still known when that is evicted.
pub(crate) fn put(
    held: Held,
    version: Version,
    read_at_micros: u64,
    condition: PutCondition,
    given: Circumstances,
) -> Put {
    let (head, floor) = match held {
        Held::Nothing => return Put::Store(None),
        Held::Damaged => (None, Some(unknown_floor(given))),
        Held::Record(head) => {
            let live = !head.is_dead(given.now, given.limits);
            (live.then_some(head), head.live_floor(given.now, given.limits))
        }
    };
    let floor_version = floor.map_or(Version::ZERO, |floor| floor.version);
    let Some(head) = head else {
        return if version < floor_version {
            Put::Refuse(floor_version)
        } else {
            Put::Store(floor)
        };
    };
    match condition {
        PutCondition::NewerThanHeld => {
            let is_newer = (version, read_at_micros) > (head.version, head.read_at_micros);
            if is_newer && version >= floor_version {
                Put::Store(floor)
            } else {
                Put::Refuse(head.version.max(floor_version))
            }
        }
        // A condition that is not known here is not met.
        _ => Put::Refuse(head.version),
    }
}

/// What to do with an invalidation of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidation {
    Nothing,
    /// A gravestone takes the place of what is held.
    Bury(Floor),
    /// What is held stays, expired or not, and gets this floor.
    Raise {
        floor: Floor,
        expire: bool,
    },
}

/// What an invalidation does to a key.
pub(crate) fn invalidate(
    held: Held,
    at: Version,
    verb: Verb,
    given: Circumstances,
) -> Invalidation {
    let raised = |floor: Option<Floor>| Floor {
        version: at.max(floor.map_or(Version::ZERO, |floor| floor.version)),
        at_micros: given.now.micros,
    };
    let head = match held {
        Held::Nothing => return Invalidation::Bury(raised(None)),
        Held::Damaged => return Invalidation::Bury(raised(Some(unknown_floor(given)))),
        Held::Record(head) => head,
    };
    let floor = head.live_floor(given.now, given.limits);
    let is_known = floor.is_some_and(|floor| floor.version > at);
    if head.is_dead(given.now, given.limits) {
        return if is_known { Invalidation::Nothing } else { Invalidation::Bury(raised(floor)) };
    }
    if head.version >= at {
        // It is not older and stays; what is older than `at` may still be on its way.
        return if is_known {
            Invalidation::Nothing
        } else {
            Invalidation::Raise { floor: raised(floor), expire: false }
        };
    }
    match verb {
        Verb::Expire => Invalidation::Raise { floor: raised(floor), expire: true },
        Verb::Remove => Invalidation::Bury(raised(floor)),
    }
}

fn unknown_floor(given: Circumstances) -> Floor {
    Floor { version: given.highest, at_micros: given.now.micros }
}

#[cfg(test)]
mod tests {
    use larder_testkit::conformance::store::entry;

    use super::*;
    use crate::record::{entry_frame, entry_record, gravestone_record};

    const LIMITS: Limits = Limits { floor_window_micros: 1000, age_max_micros: 1_000_000_000 };

    fn given(micros: u64) -> Circumstances {
        let now = Now { micros, known_since_micros: 0 };
        Circumstances { now, limits: LIMITS, highest: Version::new(50) }
    }

    fn version(number: u64) -> Version {
        Version::new(number)
    }

    fn held(number: u64, floor: Option<Floor>) -> Held {
        let frame = entry_frame(&entry("value", number), 100).expect("few tags");
        let record = entry_record(b"key", &frame, floor);
        Held::Record(Head::read(&record).expect("a record"))
    }

    fn gravestone(floor: Floor) -> Held {
        Held::Record(Head::read(&gravestone_record(b"key", floor)).expect("a record"))
    }

    fn newer(held: Held, number: u64, micros: u64) -> Put {
        put(held, version(number), micros, PutCondition::NewerThanHeld, given(micros))
    }

    #[test]
    fn a_floor_outlives_what_is_stored_over_it() {
        let floor = Floor { version: version(9), at_micros: 200 };
        assert_eq!(newer(gravestone(floor), 8, 300), Put::Refuse(version(9)));
        assert_eq!(newer(gravestone(floor), 10, 300), Put::Store(Some(floor)));
        assert_eq!(newer(gravestone(floor), 8, 1200), Put::Store(None), "its window has passed");
        assert_eq!(newer(held(9, Some(floor)), 9, 300), Put::Store(Some(floor)), "the younger");
    }

    #[test]
    fn what_is_damaged_may_have_been_invalidated_at_the_highest_version() {
        assert_eq!(newer(Held::Damaged, 49, 300), Put::Refuse(version(50)));
        let floor = Floor { version: version(50), at_micros: 300 };
        assert_eq!(newer(Held::Damaged, 50, 300), Put::Store(Some(floor)));
        let buried = invalidate(Held::Damaged, version(7), Verb::Expire, given(300));
        assert_eq!(buried, Invalidation::Bury(floor));
    }

    #[test]
    fn what_is_dead_is_vacant() {
        let after_its_end = 100 + 60_000_000;
        let vacant =
            |micros| put(held(5, None), version(3), micros, PutCondition::Vacant, given(micros));
        assert_eq!(vacant(after_its_end - 1), Put::Refuse(version(5)));
        assert_eq!(vacant(after_its_end), Put::Store(None));
    }

    #[test]
    fn an_invalidation_that_was_overtaken_still_refuses_what_is_older_than_it() {
        let raised = invalidate(held(5, None), version(4), Verb::Remove, given(300));
        let floor = Floor { version: version(4), at_micros: 300 };
        assert_eq!(raised, Invalidation::Raise { floor, expire: false });
        let known = Floor { version: version(5), at_micros: 200 };
        let nothing = invalidate(held(5, Some(known)), version(4), Verb::Remove, given(300));
        assert_eq!(nothing, Invalidation::Nothing);
    }

    #[test]
    fn an_invalidation_never_lowers_a_floor() {
        let floor = Floor { version: version(9), at_micros: 200 };
        let late = invalidate(gravestone(floor), version(7), Verb::Remove, given(300));
        assert_eq!(late, Invalidation::Nothing);
        let again = invalidate(gravestone(floor), version(9), Verb::Remove, given(300));
        assert_eq!(again, Invalidation::Bury(Floor { version: version(9), at_micros: 300 }));
    }
}
