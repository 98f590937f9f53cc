//! Which cache a key belongs to, as the door asks it.

use bytes::Bytes;
use larder::event_rules::EventRules;
use larder_core::Key;

/// A cache that the door serves: the text of rows under keys as bytes.
pub type ServedCache = larder::Cache<Key, Bytes>;

/// Tells keys of caches from plain keys.
pub trait Routes: Send + Sync + 'static {
    /// The cache that this key belongs to; `None` for a plain key. Called for
    /// every key of every command.
    fn route(&self, key: &[u8]) -> Option<&ServedCache>;

    /// Every cache, by name in the order of the configuration.
    fn caches(&self) -> Vec<&ServedCache>;

    /// Whether there is no cache at all, so that every key is plain.
    fn is_empty(&self) -> bool;

    /// What events invalidate; `None` where there are no rules for any.
    fn events(&self) -> Option<&EventRules> {
        None
    }
}

/// No caches: every key is plain.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCaches;

impl Routes for NoCaches {
    fn route(&self, _: &[u8]) -> Option<&ServedCache> {
        None
    }

    fn caches(&self) -> Vec<&ServedCache> {
        Vec::new()
    }

    fn is_empty(&self) -> bool {
        true
    }
}
