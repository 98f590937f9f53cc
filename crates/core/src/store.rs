use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::{BoxFuture, Class, Key, Result, Tags, Ttl, Value, Version};

/// An entry as a byte store keeps it: the value encoded, ages instead of
/// moments, because moments mean nothing to another process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEntry {
    /// The encoded value, or that there is none.
    pub value: Value<Bytes>,
    /// The version.
    pub version: Version,
    /// Time since the read at the origin began, when this was written or read.
    pub age: Duration,
    /// For how long after the origin read it is fresh.
    pub fresh_for: Ttl,
    /// For how long after the origin read it may be served stale.
    pub stale_for: Ttl,
    /// How long the origin took.
    pub load_cost: Duration,
    /// What invalidates it together with others.
    pub tags: Tags,
    /// How sensitive it is.
    pub class: Class,
}

/// When a put takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PutCondition {
    /// Only over an older version, or over nothing.
    NewerThanHeld,
    /// Only over nothing.
    Vacant,
}

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// It is stored.
    Stored,
    /// This version, not older, was there already; nothing changed.
    Refused(Version),
}

/// What a store can do beyond the required.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Other processes see what is put here.
    pub shared: bool,
    /// What is put here survives a restart of this process.
    pub durable: bool,
    /// Grants leases.
    pub leases: bool,
    /// The largest value in bytes, if there is a limit.
    pub value_bytes_max: Option<usize>,
}

/// A tier below memory: bytes by key, versions enforced by the store itself.
///
/// Every batch form costs one round trip (one for each slot group in a sharded
/// store). A lost connection is [`crate::ErrorKind::Unavailable`].
///
/// # Cancel safety
/// A dropped put may or may not have happened; the version it carries makes
/// repeating it harmless.
pub trait Store: Send + Sync + 'static {
    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads many keys, one answer for each key in the order asked.
    fn get_many(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<StoredEntry>>>> + Send;

    /// Writes many entries where the condition holds.
    fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> impl Future<Output = Result<Vec<PutOutcome>>> + Send;

    /// Removes many keys, where what is held is not newer than `at`. What has
    /// been removed at a version refuses any put of an older one for as long as
    /// a load may take.
    fn remove_many(&self, keys: &[Key], at: Version) -> impl Future<Output = Result<()>> + Send;

    /// Reads one key.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<StoredEntry>>> + Send {
        async move {
            let answers = self.get_many(std::slice::from_ref(key)).await?;
            Ok(answers.into_iter().next().flatten())
        }
    }
}

/// [`Store`] behind a pointer: the twin that the engine holds.
pub trait DynStore: Send + Sync + 'static {
    /// [`Store::capabilities`].
    fn capabilities(&self) -> Capabilities;
    /// [`Store::get_many`].
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<StoredEntry>>>>;
    /// [`Store::put_many`].
    fn put_many<'a>(
        &'a self,
        entries: &'a [(Key, StoredEntry)],
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Vec<PutOutcome>>>;
    /// [`Store::remove_many`].
    fn remove_many<'a>(&'a self, keys: &'a [Key], at: Version) -> BoxFuture<'a, Result<()>>;
}

impl<S: Store> DynStore for S {
    fn capabilities(&self) -> Capabilities {
        Store::capabilities(self)
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<StoredEntry>>>> {
        Box::pin(Store::get_many(self, keys))
    }

    fn put_many<'a>(
        &'a self,
        entries: &'a [(Key, StoredEntry)],
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Vec<PutOutcome>>> {
        Box::pin(Store::put_many(self, entries, condition))
    }

    fn remove_many<'a>(&'a self, keys: &'a [Key], at: Version) -> BoxFuture<'a, Result<()>> {
        Box::pin(Store::remove_many(self, keys, at))
    }
}
