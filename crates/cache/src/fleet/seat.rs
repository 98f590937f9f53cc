use larder_core::{Announcement, Change, Key, Result, SharedKey, Verb, Version};

use super::Fleet;

/// A cache's place in the fleet of its process.
pub(crate) struct Seat<K> {
    pub(crate) fleet: Fleet,
    pub(crate) encode: fn(&K) -> Key,
    pub(crate) decode: fn(&Key) -> Option<K>,
}

/// What came of announcing a change.
pub(crate) struct Announced {
    /// What is older is touched.
    pub(crate) version: Version,
    /// Whether the other nodes will hear of it without further ado.
    pub(crate) outcome: Result<()>,
}

impl<K: SharedKey> Seat<K> {
    pub(crate) fn new(fleet: &Fleet) -> Self {
        Self { fleet: fleet.clone(), encode: K::to_key, decode: K::from_key }
    }
}

impl<K> Seat<K> {
    pub(crate) async fn announce(&self, cache: &str, change: Change, verb: Verb) -> Announced {
        let cache = cache.to_owned();
        self.fleet.announce(Announcement { cache, change, verb }).await
    }
}
