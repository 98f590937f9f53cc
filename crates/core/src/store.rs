use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::{BoxFuture, BusPosition, Class, Key, Result, Tag, Tags, Ttl, Value, Verb, Version};

/// An entry as a byte store keeps it: the value encoded, ages instead of
/// moments, because moments mean nothing to another process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEntry {
    /// The encoded value, or that there is none.
    pub value: Value<Bytes>,
    /// Which codec encoded it.
    pub codec: u8,
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
    /// Only over an older version, or over nothing. Of two entries of one version
    /// the younger is the newer: nothing was invalidated between their reads.
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

/// A watermark: what was loaded before it is dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Every entry with this tag; `None` for every entry of the cache.
    pub tag: Option<Tag>,
    /// Expire or remove. A tag has one watermark for each.
    pub verb: Verb,
    /// Entries of older versions are touched.
    pub version: Version,
}

/// Up to where a store has heard of the changes that a bus brings, and which of
/// its entries that holds for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeardUpTo {
    /// The last change that it was told of, and every one before.
    pub position: BusPosition,
    /// Entries of older versions may have been invalidated without a word: some
    /// history was lost before the store could be told. Zero: there are none.
    pub since: Version,
}

/// What a store can do beyond the required.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Other processes see what is put here.
    pub shared: bool,
    /// What is put here survives a restart of this process.
    pub durable: bool,
    /// Announcing a change on the bus of the same server invalidates here, too,
    /// in one step: nobody need call [`Store::invalidate_many`] as well.
    pub follows_bus: bool,
    /// What it answers has every change in it that was announced on that bus before
    /// it was asked, watermarks included. Not so where an answer may come from a
    /// replica, or where an entry and the order of changes lie on different servers.
    pub in_step: bool,
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

    /// Invalidates many keys, where what is held is older than `at`: what has that
    /// very version began when the change was known. What was invalidated at a
    /// version, held or not, refuses any put of an older one for as long as a load may
    /// take. What was removed is not read any more; what expired is read back with
    /// `fresh_for` at zero.
    fn invalidate_many(
        &self,
        keys: &[Key],
        at: Version,
        verb: Verb,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Raises watermarks, for those who start later. Readers compare entries
    /// with watermarks themselves. A lower one than is held changes nothing.
    fn mark(&self, marks: &[Mark]) -> impl Future<Output = Result<()>> + Send;

    /// Every watermark that an entry of this store may still fall under.
    fn marks(&self) -> impl Future<Output = Result<Vec<Mark>>> + Send;

    /// No version that this store holds or was told of is higher, so that
    /// numbering goes on above it after a restart. A store whose versions come
    /// from a bus has no need of it.
    fn newest_version(&self) -> impl Future<Output = Result<Version>> + Send {
        async { Ok(Version::ZERO) }
    }

    /// Notes up to where in the bus' stream this store has heard of changes. It is
    /// as durable as what it was told before, and never outlives that. A store that
    /// others invalidate has no need of it; to one of a single process that does not
    /// keep it, every start is one after which nothing of before is trusted.
    fn note_heard(&self, _heard: HeardUpTo) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// What [`Store::note_heard`] noted last, also before a restart.
    fn heard(&self) -> impl Future<Output = Result<Option<HeardUpTo>>> + Send {
        async { Ok(None) }
    }

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
    /// [`Store::invalidate_many`].
    fn invalidate_many<'a>(
        &'a self,
        keys: &'a [Key],
        at: Version,
        verb: Verb,
    ) -> BoxFuture<'a, Result<()>>;
    /// [`Store::mark`].
    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>>;
    /// [`Store::marks`].
    fn marks(&self) -> BoxFuture<'_, Result<Vec<Mark>>>;
    /// [`Store::newest_version`].
    fn newest_version(&self) -> BoxFuture<'_, Result<Version>>;
    /// [`Store::note_heard`].
    fn note_heard(&self, heard: HeardUpTo) -> BoxFuture<'_, Result<()>>;
    /// [`Store::heard`].
    fn heard(&self) -> BoxFuture<'_, Result<Option<HeardUpTo>>>;
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

    fn invalidate_many<'a>(
        &'a self,
        keys: &'a [Key],
        at: Version,
        verb: Verb,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(Store::invalidate_many(self, keys, at, verb))
    }

    fn mark<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        Box::pin(Store::mark(self, marks))
    }

    fn marks(&self) -> BoxFuture<'_, Result<Vec<Mark>>> {
        Box::pin(Store::marks(self))
    }

    fn newest_version(&self) -> BoxFuture<'_, Result<Version>> {
        Box::pin(Store::newest_version(self))
    }

    fn note_heard(&self, heard: HeardUpTo) -> BoxFuture<'_, Result<()>> {
        Box::pin(Store::note_heard(self, heard))
    }

    fn heard(&self) -> BoxFuture<'_, Result<Option<HeardUpTo>>> {
        Box::pin(Store::heard(self))
    }
}
