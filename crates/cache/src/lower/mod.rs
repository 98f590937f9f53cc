//! The tiers below memory: byte stores, asked in order and filled together.
//!
//! ```text
//! Stores      what an application declares
//!   └ Lower   the same inside the engine: codec, form of keys, tiers
//!       └ StoreTier   one store behind its breaker and timeout, with what it
//!                     has not heard of yet
//!       └ LeaseDesk   where one node is chosen to load a key
//! ```
//! The steps that use them are in `pipeline::stores`.

mod caller;
mod desk;
mod hearing;
mod pending;
mod tier;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Class, Codec, DynLease, DynStore, Entry, Error, ErrorKind, Key, Lease, Moment, Result,
    SharedKey, Store, StoredEntry, Ttl, Value,
};

use crate::origin::Breaker;
use crate::stamp::STORES_MAX;
pub(crate) use caller::Grounds;
pub(crate) use desk::LeaseDesk;
pub use desk::LeaseStatistics;
pub(crate) use hearing::Hearing;
pub use tier::StoreStatistics;
pub(crate) use tier::{Memories, Read, StoreTier};

/// The tiers below memory, nearest first, and how values become bytes there.
///
/// A read that memory cannot answer asks them in this order before the origin; a
/// hit in one fills those above, and a load fills all (T7). Ages are carried: an
/// answer from a store is as old as its read at the origin. A store that fails
/// costs at most its timeout, and nothing while its breaker is open; what was
/// invalidated meanwhile is told to it before it is read again.
///
/// ```
/// # use larder_testkit::faulty::FaultyStore;
/// use larder::{Cache, Clock, JsonCodec, Stores};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> larder::Result<()> {
/// # let disk = FaultyStore::new(Clock::monotonic()).local();
/// let cache = Cache::<String, Vec<u32>>::builder("order")
///     .stores(Stores::new(JsonCodec).store("disk", disk))
///     .build()?;
/// # let _ = cache;
/// # Ok(()) }
/// ```
#[must_use]
pub struct Stores<K, V> {
    codec: Arc<dyn Codec<V>>,
    encode: fn(&K) -> Key,
    stores: Vec<(String, Arc<dyn DynStore>)>,
    lease: Option<Arc<dyn DynLease>>,
    memory_ttl: Option<Duration>,
    timeout: Duration,
    breaker: Breaker,
}

impl<K: SharedKey, V: 'static> Stores<K, V> {
    /// No store yet. Values are kept in the form that this codec gives them.
    pub fn new(codec: impl Codec<V>) -> Self {
        Self {
            codec: Arc::new(codec),
            encode: K::to_key,
            stores: Vec::new(),
            lease: None,
            memory_ttl: Some(Duration::from_secs(60)),
            timeout: Duration::from_millis(500),
            breaker: Breaker::default().open_for(Duration::from_secs(5)),
        }
    }
}

impl<K, V> Stores<K, V> {
    /// Adds a store below those that are there, of which there may be ten. The name
    /// shows in statistics.
    pub fn store(self, name: &str, store: impl Store) -> Self {
        self.shared_store(name, Arc::new(store))
    }

    /// The same, for a store that is chosen at run time.
    pub fn shared_store(mut self, name: &str, store: Arc<dyn DynStore>) -> Self {
        self.stores.push((name.to_owned(), store));
        self
    }

    /// Has one node at a time load a key (R2): the others wait for it and find its
    /// answer in a store that they share. A node that dies meanwhile costs them half
    /// of the hard timeout at most; where nobody can be asked, each loads for itself.
    /// Costs two more round trips for each load. Default: every node loads.
    pub fn lease(self, lease: impl Lease) -> Self {
        self.shared_lease(Arc::new(lease))
    }

    /// The same, for leases that are chosen at run time.
    pub fn shared_lease(mut self, lease: Arc<dyn DynLease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long memory serves an entry before it asks the stores again.
    /// Default 60 s. `None`: as long as the entry holds.
    pub fn memory_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.memory_ttl = ttl.into();
        self
    }

    /// How long one call of a store may take. Default 500 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When a store that fails is left alone, and for how long (R4). Default:
    /// after 5 failures in a row, for 5 s.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = breaker;
        self
    }
}

impl<K, V> fmt::Debug for Stores<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.stores.iter().map(|(name, _)| name).collect();
        f.debug_struct("Stores").field("stores", &names).finish_non_exhaustive()
    }
}

/// The tiers below memory, as the engine has them.
pub(crate) struct Lower<K, V> {
    pub(crate) codec: Arc<dyn Codec<V>>,
    pub(crate) encode: fn(&K) -> Key,
    pub(crate) tiers: Vec<StoreTier>,
    desk: Option<LeaseDesk>,
    /// How long one call of a store may take.
    pub(crate) timeout: Duration,
    pub(crate) memory_ttl: Option<Duration>,
}

impl<K, V: 'static> Lower<K, V> {
    /// Refuses what could not keep its promises.
    pub(crate) fn new(
        cache: &str,
        class: Class,
        stores: Stores<K, V>,
        has_fleet: bool,
    ) -> Result<Option<Self>> {
        let Stores { codec, encode, stores, lease, memory_ttl, timeout, breaker } = stores;
        if stores.is_empty() {
            return Ok(None);
        }
        let wrong = |message| Error::new(ErrorKind::Config, message).with("cache", cache);
        refuse_class_below(cache, class)?;
        let is_shared = |(_, store): &&(String, Arc<dyn DynStore>)| store.capabilities().shared;
        if let Some((name, _)) = stores.iter().find(is_shared).filter(|_| !has_fleet) {
            return Err(wrong("a store that others use, too, needs a bus to agree with them")
                .with("store", name)
                .remedy("join a fleet, or use a store of this process alone"));
        }
        if stores.len() > STORES_MAX {
            return Err(wrong("so many stores are not looked through for one read")
                .with("stores", stores.len())
                .with("limit", STORES_MAX)
                .remedy("declare fewer"));
        }
        if timeout.is_zero() {
            return Err(wrong("a timeout of zero lets no store answer")
                .remedy("give `timeout` some milliseconds, or declare no stores"));
        }
        if lease.is_some() && !has_fleet {
            return Err(wrong("a lease is of no use to a process that shares no store")
                .remedy("join a fleet and share a store, or declare no lease"));
        }
        let desk = lease.map(|lease| LeaseDesk::new(lease, timeout, breaker));
        let tiers = stores
            .into_iter()
            .map(|(name, store)| StoreTier::new(name, store, timeout, breaker, has_fleet))
            .collect();
        Ok(Some(Self { codec, encode, tiers, desk, timeout, memory_ttl }))
    }

    /// Where leases are asked for, if they are.
    pub(crate) fn desk(&self) -> Option<(&Self, &LeaseDesk)> {
        self.desk.as_ref().map(|desk| (self, desk))
    }

    /// The stores that have to be told of a change: not those that hear of what was
    /// announced by themselves.
    pub(crate) fn tiers_to_tell(&self, is_announced: bool) -> impl Iterator<Item = &StoreTier> {
        self.tiers.iter().filter(move |tier| !(is_announced && tier.follows_bus()))
    }

    /// An entry as stores keep it, `fresh_until` and `stale_until` being those
    /// below memory.
    pub(crate) fn stored(
        &self,
        entry: &Entry<V>,
        fresh_until: Moment,
        stale_until: Moment,
        now: Moment,
    ) -> Result<StoredEntry> {
        let value = match &entry.value {
            Value::Present(value) => Value::Present(guarded(|| self.codec.encode(value))?),
            Value::Absent => Value::Absent,
        };
        let held = |until: Moment| match until.is_never() {
            true => Ttl::Forever,
            false => Ttl::For(until.since(entry.origin_read_at)),
        };
        Ok(StoredEntry {
            value,
            codec: self.codec.id(),
            version: entry.version,
            age: entry.age(now),
            fresh_for: held(fresh_until),
            stale_for: held(stale_until),
            load_cost: entry.load_cost,
            tags: entry.tags.clone(),
            class: entry.class,
        })
    }

    /// An entry as memory keeps it; `None` if it is older than the clock can
    /// tell, and not fresh.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if another codec wrote it, or the bytes are not what
    /// the codec writes.
    pub(crate) fn entry(&self, stored: &StoredEntry, now: Moment) -> Result<Option<Entry<V>>> {
        let value = match &stored.value {
            Value::Present(_) if stored.codec != self.codec.id() => {
                return Err(Error::new(ErrorKind::Decode, "another codec wrote this value")
                    .with("codec", stored.codec)
                    .with("codec here", self.codec.id()));
            }
            Value::Present(bytes) => Value::Present(guarded(|| self.codec.decode(bytes))?),
            Value::Absent => Value::Absent,
        };
        let age = stored.age;
        let origin_read_at = now - age;
        let is_told = origin_read_at + age >= now;
        // What is left counts from now, where the beginning is before all time.
        let until = |ttl: Ttl| match ttl {
            Ttl::For(held) if held <= age => origin_read_at + held,
            Ttl::For(held) => now + (held - age),
            Ttl::Forever => Moment::NEVER,
        };
        let fresh_until = until(stored.fresh_for);
        if !is_told && fresh_until <= now {
            return Ok(None);
        }
        Ok(Some(Entry {
            value,
            version: stored.version,
            origin_read_at,
            fresh_until,
            stale_until: until(stored.stale_for).max(fresh_until),
            load_cost: stored.load_cost,
            tags: stored.tags.clone(),
            class: stored.class,
        }))
    }
}

/// Refuses a class of data that may be kept, but not in stores.
fn refuse_class_below(cache: &str, class: Class) -> Result<()> {
    if class.may_be_cached() && !class.may_leave_process() {
        let message = "data of this class must not leave the memory of this process";
        return Err(Error::new(ErrorKind::Config, message)
            .with("cache", cache)
            .with("class", class)
            .remedy("declare no stores for this cache"));
    }
    Ok(())
}

/// What a codec says, which is foreign code: one that panics has failed.
fn guarded<T>(codec: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(codec))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Panicked, "the codec panicked")))
}
