use std::time::Duration;

use larder_core::{Class, Moment, Tags, Version};
use larder_memory::Resident;

/// What memory knows about one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether the origin has the key; if not, its absence is what is cached.
    pub present: bool,
    /// Whether it is within its TTL.
    pub fresh: bool,
    /// Time since the read at the origin began.
    pub age: Duration,
    /// For how much longer it is fresh; `None` if for ever.
    pub fresh_for: Option<Duration>,
    /// For how much longer it may be served at all; `None` if for ever.
    pub stale_for: Option<Duration>,
    /// Its version.
    pub version: Version,
    /// What the origin took.
    pub load_cost: Duration,
    /// What invalidates it together with others.
    pub tags: Tags,
    /// How sensitive it is.
    pub class: Class,
    /// Whether a load of the key runs now.
    pub loading: bool,
}

impl Inspection {
    pub(crate) fn new<K, V>(
        resident: &Resident<K, V>,
        now: Moment,
        stale_window: Duration,
        loading: bool,
    ) -> Self {
        let entry = resident.entry();
        // What was expired before its time is stale from then on.
        let stale_until = resident.stale_until().min(resident.fresh_until() + stale_window);
        let left = |until: Moment| (!until.is_never()).then(|| until.since(now));
        Self {
            present: entry.value.is_present(),
            fresh: resident.is_fresh(now),
            age: entry.age(now),
            fresh_for: left(resident.fresh_until()),
            stale_for: left(stale_until),
            version: entry.version,
            load_cost: entry.load_cost,
            tags: entry.tags.clone(),
            class: entry.class,
            loading,
        }
    }
}
