use std::time::Duration;

use crate::{Class, Moment, Tag, Tags, Ttl, Value, Version};

/// Why an origin is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum LoadCause {
    /// Nobody had it.
    Miss,
    /// It is fresh, and is refreshed before it expires.
    RefreshAhead,
    /// It is stale.
    Revalidation,
}

/// What a loader is told about the load it runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadContext {
    /// Why the origin is asked.
    pub cause: LoadCause,
    /// When the answer is of no use any more: the hard timeout.
    pub deadline: Moment,
    /// The version held, if one is that may still be served: an origin that can
    /// tell that nothing changed since may answer [`Loaded::not_modified`]. What
    /// has expired is held for as long as it may be served stale; without a stale
    /// window in the cache's policy a load after expiry holds nothing. Loads of
    /// many keys at once are not told what is held.
    pub held: Option<Version>,
    /// How long ago the held value was read at the origin: what an
    /// `If-Modified-Since` counts back.
    pub held_age: Option<Duration>,
}

impl LoadContext {
    /// A load for this cause, with this deadline.
    #[must_use]
    pub const fn new(cause: LoadCause, deadline: Moment) -> Self {
        Self { cause, deadline, held: None, held_age: None }
    }

    /// The same, with the version that is held and how long ago it was read.
    #[must_use]
    pub const fn holding(mut self, version: Version, age: Duration) -> Self {
        self.held = Some(version);
        self.held_age = Some(age);
        self
    }
}

/// What a loader found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome<V> {
    /// A value, or that there is none.
    Found(Value<V>),
    /// What [`LoadContext::held`] names still holds.
    NotModified,
    /// An answer for whoever waits now, and not to be kept.
    DontCache(Value<V>),
}

/// A loader's answer: what it found and, if it knows, how long that holds and
/// what invalidates it. What it says goes before the cache's policy.
///
/// ```
/// use larder_core::{Loaded, Ttl};
///
/// let album = Loaded::value("Kind of Blue").ttl(Ttl::secs(3600)).tags(["artist:miles"]);
/// let missing: Loaded<&str> = Loaded::absent();
/// let from_option: Loaded<&str> = Some("Kind of Blue").into();
/// # let _ = (album, missing, from_option);
/// ```
#[derive(Clone, Debug)]
pub struct Loaded<V> {
    /// What it found.
    pub outcome: Outcome<V>,
    /// How long it holds from the start of the read, if the loader knows (K4).
    pub ttl: Option<Ttl>,
    /// What invalidates it, beside the tags the cache derives from the key.
    pub tags: Tags,
    /// From which entries of other caches it was computed, as
    /// [`Loaded::derived_from`] says.
    pub sources: Tags,
    /// Whether something stale went into it, as [`Loaded::derived_from_stale`] says.
    pub is_of_stale: bool,
    /// How sensitive it is, if that depends on the value.
    pub class: Option<Class>,
}

impl<V> Loaded<V> {
    /// The key has this value.
    #[must_use]
    pub const fn value(value: V) -> Self {
        Self::of(Outcome::Found(Value::Present(value)))
    }

    /// The key has no value: kept for the negative TTL.
    #[must_use]
    pub const fn absent() -> Self {
        Self::of(Outcome::Found(Value::Absent))
    }

    /// The version held still holds: its freshness starts anew. Its tags stay, and
    /// it is no less sensitive than before. Unless a TTL is given here, by the
    /// request or by the cache's rule, it holds as long as before at most.
    #[must_use]
    pub const fn not_modified() -> Self {
        Self::of(Outcome::NotModified)
    }

    /// The key has this value, and it is not to be kept.
    #[must_use]
    pub const fn dont_cache(value: V) -> Self {
        Self::of(Outcome::DontCache(Value::Present(value)))
    }

    /// Sets how long it holds, counted from the start of the read.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// Adds tags.
    #[must_use]
    pub fn tags<T: Into<Tag>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = self.tags.union(&Tags::new(tags));
        self
    }

    /// Says from which entries of other caches it was computed, such as
    /// `customer:17`, or from what has a tag, such as `tag:price-list:2`: a change of
    /// one of them invalidates it. The cache has to be declared as one whose loaders
    /// say so. Of more than 64, any change of those caches does.
    #[must_use]
    pub fn derived_from<T: Into<Tag>>(mut self, sources: impl IntoIterator<Item = T>) -> Self {
        self.sources = self.sources.union(&Tags::new(sources));
        self
    }

    /// Says that something stale went into it: whoever waits gets it, labelled stale,
    /// and it is not kept as fresh. Only for what the cache cannot see itself: what
    /// tasks of the loader's own were given, or another process.
    #[must_use]
    pub const fn derived_from_stale(mut self) -> Self {
        self.is_of_stale = true;
        self
    }

    /// Sets how sensitive it is.
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = Some(class);
        self
    }

    const fn of(outcome: Outcome<V>) -> Self {
        Self {
            outcome,
            ttl: None,
            tags: Tags::NONE,
            sources: Tags::NONE,
            is_of_stale: false,
            class: None,
        }
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Self::value(value)
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        value.map_or_else(Self::absent, Self::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_add_up_and_are_no_tags() {
        let loaded = Loaded::value(1).derived_from(["a:1"]).derived_from(["a:2", "a:1"]);
        assert_eq!(loaded.sources, Tags::new(["a:1", "a:2"]));
        assert!(loaded.tags.is_empty());
    }
}
