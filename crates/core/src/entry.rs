use std::time::Duration;

use crate::{Class, Moment, Tags, Version};

/// What the origin said about a key. "There is none" is an answer that can be
/// cached, neither a miss nor an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<V> {
    /// The key has this value.
    Present(V),
    /// The key has no value.
    Absent,
}

impl<V> Value<V> {
    /// The value, if there is one.
    #[must_use]
    pub const fn as_option(&self) -> Option<&V> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent => None,
        }
    }

    /// Whether there is a value.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        matches!(self, Self::Present(_))
    }
}

impl<V> From<Option<V>> for Value<V> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Absent, Self::Present)
    }
}

/// One cached answer and everything needed to judge it.
///
/// Ages count from `origin_read_at`, the *start* of the read at the origin, and
/// travel with the entry from tier to tier: a hit in a lower tier never makes
/// an entry younger.
#[derive(Clone, Debug)]
pub struct Entry<V> {
    /// What the origin said.
    pub value: Value<V>,
    /// The version at which the load began, or that the write was given.
    pub version: Version,
    /// When the read at the origin began.
    pub origin_read_at: Moment,
    /// Until when it is served as fresh.
    pub fresh_until: Moment,
    /// Until when it may be served, labelled stale, while a refresh runs or the
    /// origin fails. Never before `fresh_until`.
    pub stale_until: Moment,
    /// How long the origin took: the Δ of early refresh, and the price of
    /// losing the entry.
    pub load_cost: Duration,
    /// What invalidates it together with others.
    pub tags: Tags,
    /// How sensitive it is.
    pub class: Class,
}

impl<V> Entry<V> {
    /// Time since the read at the origin began.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.origin_read_at)
    }

    /// Whether it may be served as fresh.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        now < self.fresh_until
    }

    /// Whether it may be served at all.
    #[must_use]
    pub fn is_servable(&self, now: Moment) -> bool {
        now < self.stale_until
    }
}
