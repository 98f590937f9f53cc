use std::fmt;
use std::sync::Arc;

use larder_core::Entry;

/// Why an entry is no longer held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RemovalCause {
    /// Its time was up: past `stale_until`, or not accessed for its idle time.
    Expired,
    /// It made room for others.
    Evicted,
    /// A newer entry of the same key took its place.
    Replaced,
    /// Its key was removed.
    Removed,
    /// One of its tags was removed.
    Tag,
    /// The tier was cleared.
    Cleared,
}

impl RemovalCause {
    /// Every cause, in order of declaration.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::Evicted, Self::Replaced, Self::Removed, Self::Tag, Self::Cleared];

    /// The name used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Tag => "tag",
            Self::Cleared => "cleared",
        }
    }
}

impl fmt::Display for RemovalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An entry that has just left the tier.
///
/// Told exactly once for each entry that was held, after every lock of the tier
/// is released: the listener may use the tier. An entry that was invalid already
/// when it left (expired, cleared, its tag removed) names that as the cause, not
/// the replacement or eviction that happened to carry it out. Dropping the tier
/// tells nothing.
#[derive(Debug)]
#[non_exhaustive]
pub struct Removal<'a, K, V> {
    /// The key it was held under.
    pub key: &'a K,
    /// What was held.
    pub entry: &'a Entry<V>,
    /// Why it left.
    pub cause: RemovalCause,
}

/// Hears of every removal. Runs on the thread that caused it, so it should be
/// short.
pub type RemovalListener<K, V> = Arc<dyn Fn(Removal<'_, K, V>) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_in_order_of_declaration() {
        for (index, cause) in RemovalCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
            assert_eq!(cause.to_string(), cause.name());
        }
    }
}
