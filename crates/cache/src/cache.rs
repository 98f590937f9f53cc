use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::{
    Action, BatchError, BoxError, Cover, Error, Loaded, Result, Tag, Verb, Version, Write,
    WriteAbilities, Written,
};

use crate::behind::WriteBehind;
use crate::builder::CacheBuilder;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::hit::Hit;
use crate::inspection::Inspection;
use crate::invalidation::Invalidation;
use crate::lower::{LeaseStatistics, StoreStatistics};
use crate::origin::{BreakerState, OriginGuard};
use crate::pipeline::{Source, WriteTerms};
use crate::policy::{Around, Policy, validate};
use crate::request::{Get, GetOrLoad, Put, WriteThrough};
use crate::telemetry::{Events, Statistics};

/// A cache of `V` by `K`: memory in front of an origin.
///
/// Cloning costs a reference count; clones are the same cache.
pub struct Cache<K, V>(Arc<Engine<K, V>>);

impl<K: CacheKey, V: CacheValue> Cache<K, V> {
    /// Starts a cache of this name. The name shows in metrics and errors.
    pub fn builder(name: &str) -> CacheBuilder<K, V> {
        CacheBuilder::new(name)
    }

    /// What memory has for a key, without waiting: fresh, or stale within
    /// `stale_while_revalidate` with a refresh begun in the background. Costs no
    /// round trip and no allocation.
    #[inline]
    #[must_use]
    pub fn get_memory<Q>(&self, key: &Q) -> Option<Hit<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.look(key)
    }

    /// What the tiers have for a key, never what only the origin has. Costs no
    /// round trip where memory has it, and at most one for each store below.
    ///
    /// # Errors
    /// None at present: a store that fails does not have the key.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing; what a store has is kept.
    #[inline]
    pub fn get<'c>(&'c self, key: &'c K) -> Get<'c, K, V> {
        Get::new(&self.0, key)
    }

    /// What the cache has for a key, or what the origin says (P2). Whoever asks
    /// for the same key meanwhile waits for the same load (R1). Options can be
    /// set before awaiting it.
    ///
    /// # Errors
    /// The origin's error if nothing may stand in for its answer; see
    /// [`Policy::stale_if_error`] and [`CacheBuilder::fallback`].
    /// [`larder_core::ErrorKind::Timeout`] at the hard timeout.
    ///
    /// # Cancel safety
    /// A dropped call does not stop the load; its answer is kept.
    pub fn get_or_load<'c>(&'c self, key: &'c K) -> GetOrLoad<'c, K, V> {
        GetOrLoad::new(&self.0, key, Source::Origin)
    }

    /// The same with a loader of the caller's (P1). It runs at most once, in a
    /// task of its own, and not at all if the key is there or being loaded.
    ///
    /// ```
    /// # use larder::{Cache, Result};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// let lengths = Cache::<String, usize>::builder("length").build()?;
    /// let key = "larder".to_owned();
    /// let hit = lengths
    ///     .get_or_load_with(&key, || async { Ok::<_, std::io::Error>(6) })
    ///     .await?;
    /// assert_eq!(hit.value(), Some(&6));
    /// # Ok(()) }
    /// ```
    pub fn get_or_load_with<'c, F, Fut, L, E>(&'c self, key: &'c K, load: F) -> GetOrLoad<'c, K, V>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<L, E>> + Send + 'static,
        L: Into<Loaded<V>>,
        E: Into<BoxError>,
    {
        let once = move || {
            let loading = load();
            Box::pin(async move {
                loading.await.map(Into::into).map_err(|error| Error::from_loader(error))
            }) as larder_core::BoxFuture<'static, _>
        };
        GetOrLoad::new(&self.0, key, Source::Once(Box::new(once)))
    }

    /// The same for many keys: one answer for each, in order. What memory lacks
    /// costs one call of the origin for each [`larder_core::Origin::batch_limit`]
    /// keys; a key that is being loaded already is waited for instead.
    ///
    /// # Cancel safety
    /// A dropped call does not stop the loads.
    pub async fn get_or_load_many(&self, keys: &[K]) -> Vec<Result<Hit<K, V>>> {
        self.0.load_many(keys).await
    }

    /// Puts a value. Options can be set before awaiting it. A load that is under
    /// way does not overwrite it. In a fleet the other nodes give up what they have,
    /// and of two puts the one announced later wins: where two write at a time, that
    /// need not be the one whose change the origin made last, so remove the key instead.
    /// One round trip for each store, and one for the bus of a fleet before.
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::InvalidInput`] for a class that is never kept, and
    /// for a TTL of zero; that removes the key's earlier value. In a fleet, that of a
    /// bus that cannot be reached: the value is kept until the change is announced in
    /// the background, which takes it away again here, too.
    ///
    /// # Cancel safety
    /// A dropped call may have put the value or not. In a fleet it is announced all the
    /// same that what was there is not valid any more.
    pub fn put<'c>(&'c self, key: &'c K, value: V) -> Put<'c, K, V> {
        Put::new(&self.0, key, value)
    }

    /// Changes a cached value in place by what `reduce` makes of it, without asking the
    /// origin (I7): a price in an order that is worth keeping, say. Age and lifetime stay
    /// what they were. Nothing is changed that another change crossed: `reduce` runs
    /// again on what is there then. Returns whether memory has the changed value. If not,
    /// the next read loads it: nothing fresh was there, `reduce` gave `None`, changes
    /// kept crossing, or there are other nodes, of which nobody could say which changes
    /// it last.
    ///
    /// One round trip for each store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::remove`].
    ///
    /// # Cancel safety
    /// A dropped call may have changed the value or not.
    pub async fn update(&self, key: &K, reduce: impl Fn(&V) -> Option<V>) -> Result<bool> {
        self.0.update(key, reduce).await
    }

    /// Changes a key at the origin, and the cache after it (P3). Options can be set
    /// before awaiting it. Where this returns `Ok`, the origin has committed it, and no
    /// later read of this process gets what was there before; in a fleet no other node
    /// does for longer than it takes to hear of it. Readers that find nothing while it
    /// is written wait for it. What was committed is in memory and the stores
    /// afterwards; in a fleet, and where the origin does not say what it made of a
    /// change, the next read loads it.
    ///
    /// One round trip to the origin; two for the bus of a fleet; two for each store.
    ///
    /// Of a cache with [`CacheBuilder::write_behind`], `Ok` means that the journal has it:
    /// one sync of the journal, shared with all writes of that moment, and no round trip.
    /// It says that something changed, whether it will or not.
    ///
    /// ```
    /// use larder::{Action, Cache, LoadContext, Loaded, Origin, Result, WriteAbilities};
    /// # use std::{collections::HashMap, sync::Mutex};
    ///
    /// #[derive(Default)]
    /// struct Names(Mutex<HashMap<u64, String>>); // your database
    ///
    /// impl Origin<u64, String> for Names {
    ///     async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<String>> {
    ///         Ok(Loaded::from(self.0.lock().unwrap().get(id).cloned()))
    ///     }
    ///     fn write_abilities(&self) -> WriteAbilities {
    ///         WriteAbilities::SIMPLE
    ///     }
    ///     async fn store(&self, id: &u64, name: &String) -> Result<Option<larder::Version>> {
    ///         self.0.lock().unwrap().insert(*id, name.clone());
    ///         Ok(None)
    ///     }
    ///     async fn remove(&self, id: &u64) -> Result<()> {
    ///         self.0.lock().unwrap().remove(id);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// let names = Cache::<u64, String>::builder("name").origin(Names::default()).build()?;
    /// names.write(&7, Action::Put("Ann".to_owned())).await?;
    /// assert_eq!(names.get(&7).await?.unwrap().value().unwrap(), "Ann");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::OutcomeUnknown`]: it was sent and not answered, or the
    /// other nodes could not be told; it may have happened. After any other error it has
    /// not. What was expected and is not there is no error but
    /// [`larder_core::Written::Conflict`].
    ///
    /// # Cancel safety
    /// A dropped call is made to its end.
    pub fn write<'c>(&'c self, key: &K, action: Action<V>) -> WriteThrough<'c, K, V> {
        WriteThrough::new(&self.0, Write::new(key.clone(), action))
    }

    /// Changes many keys at the origin in one transaction: all of them or none. As
    /// [`Cache::write`] otherwise. Of a cache with [`CacheBuilder::write_behind`] each is
    /// accepted and applied for itself; if only some are accepted, the outcome is unknown.
    ///
    /// # Errors
    /// As [`Cache::write`], with the write that is to blame; and
    /// [`larder_core::ErrorKind::Unsupported`] for more than the origin commits
    /// together.
    ///
    /// # Cancel safety
    /// A dropped call is made to its end.
    pub async fn write_all(&self, writes: Vec<Write<K, V>>) -> Result<Vec<Written<V>>, BatchError> {
        self.0.write(writes, WriteTerms::default()).await
    }

    /// The key is no longer fresh. It may still be served stale where the policy
    /// allows that. Returns whether memory had it. One round trip for each
    /// store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// In a fleet, that of a bus that cannot be reached: it is done here, and the
    /// other nodes are told as soon as they can be. A store that cannot be reached
    /// is told before it is read again.
    ///
    /// # Cancel safety
    /// A dropped call may have reached some stores and not others; memory is the
    /// first.
    pub async fn expire(&self, key: &K) -> Result<bool> {
        self.0.expire(key).await
    }

    /// The key is gone, and a load that began before does not bring it back.
    /// Returns whether memory had it: what had expired for good was not there. One
    /// round trip for each store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::expire`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn remove(&self, key: &K) -> Result<bool> {
        self.0.remove(key).await
    }

    /// Every entry with this tag is no longer fresh. O(1), however many there
    /// are. Returns the version of the change. One round trip for each
    /// store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::expire`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn expire_tag(&self, tag: impl Into<Tag>) -> Result<Version> {
        self.0.expire_tag(&tag.into()).await
    }

    /// Every entry with this tag is gone, and a load that began before does not
    /// bring it back. O(1), however many there are. Returns the version of the
    /// change. One round trip for each
    /// store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::expire`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn remove_tag(&self, tag: impl Into<Tag>) -> Result<Version> {
        self.0.remove_tag(&tag.into()).await
    }

    /// Every entry whose key begins so is gone (I1): with the pattern
    /// `order:{customer}:{id}` everything of a customer by `order:17:`. O(1), however
    /// many there are. A prefix that ends within a parameter reaches what has the
    /// parameters before it: what was reached is returned, and whether it is more than
    /// was asked for. One round trip for each store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::expire`]; [`larder_core::ErrorKind::Config`] without
    /// [`CacheBuilder::prefixes`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn remove_prefix(&self, prefix: &str) -> Result<Cover> {
        self.0.invalidate_prefix(prefix, Verb::Remove).await
    }

    /// Every entry whose key begins so is no longer fresh. As
    /// [`Cache::remove_prefix`] otherwise.
    ///
    /// # Errors
    /// As [`Cache::remove_prefix`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn expire_prefix(&self, prefix: &str) -> Result<Cover> {
        self.0.invalidate_prefix(prefix, Verb::Expire).await
    }

    /// Every entry whose key this glob matches is gone, `*` standing for any text. It
    /// reaches what the text before the first `*` does: as
    /// [`Cache::remove_prefix`] otherwise.
    ///
    /// # Errors
    /// As [`Cache::remove_prefix`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn remove_matching(&self, glob: &str) -> Result<Cover> {
        self.0.invalidate_glob(glob, Verb::Remove).await
    }

    /// Every entry whose key this glob matches is no longer fresh. As
    /// [`Cache::remove_matching`] otherwise.
    ///
    /// # Errors
    /// As [`Cache::remove_prefix`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn expire_matching(&self, glob: &str) -> Result<Cover> {
        self.0.invalidate_glob(glob, Verb::Expire).await
    }

    /// Every entry is gone, and no load that began before brings one back. O(1);
    /// the memory is given back in the background. Returns the version of the
    /// change. One round trip for each
    /// store, and one for the bus of a fleet.
    ///
    /// # Errors
    /// As [`Cache::expire`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn clear(&self) -> Result<Version> {
        self.0.clear().await
    }

    /// Waits until stores of this process alone have heard what other nodes said while
    /// it was not there, at most this long. Returns whether they have: before, they are
    /// not read. Returns at once if there is no such store or no fleet, and if the bus
    /// cannot be heard now: it is tried again in the background.
    ///
    /// # Cancel safety
    /// A dropped wait changes nothing.
    pub async fn until_caught_up(&self, patience: Duration) -> bool {
        self.0.until_caught_up(patience).await
    }

    /// Invalidates keys, tags or everything, at once or gradually, as it says: the one
    /// call that all the others are short forms of. Returns the version of the change.
    /// Takes the same short time however many entries are touched; one round trip for
    /// each store, and one for the bus of a fleet.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use larder::{Cache, Invalidation, Policy, Result};
    /// # use larder::{LoadContext, Loaded, Origin};
    /// # struct Exchange;
    /// # impl Origin<String, f64> for Exchange {
    /// #     async fn load(&self, _: &String, _: &LoadContext) -> Result<Loaded<f64>> {
    /// #         Ok(Loaded::value(12.5))
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// let window = Duration::from_secs(30);
    /// let quotes = Cache::<String, f64>::builder("quote")
    ///     .origin(Exchange)
    ///     .policy(Policy::ttl(Duration::from_secs(300)).stale_while_revalidate(window))
    ///     .build()?;
    /// quotes.put(&"ACME".to_owned(), 12.5).tags(["nyse"]).await?;
    /// quotes.invalidate(&Invalidation::tags(["nyse"]).gradually(window)).await?;
    /// let hit = quotes.get(&"ACME".to_owned()).await?.unwrap();
    /// assert!(!hit.is_fresh(), "served, and known to be suspect");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Cache::expire`].
    ///
    /// # Cancel safety
    /// As [`Cache::expire`].
    pub async fn invalidate(&self, what: &Invalidation<K>) -> Result<Version> {
        self.0.invalidate(what).await
    }

    /// What memory knows about a key, without counting as a read of it.
    #[must_use]
    pub fn inspect<Q>(&self, key: &Q) -> Option<Inspection>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.0.clock.now();
        let resident = self.0.memory.peek(key, now)?;
        let window = self.0.policy.load().stale_window();
        Some(Inspection::new(&resident, now, window, self.0.flights.is_under_way(key)))
    }

    /// Reads the value that memory holds for a key, fresh or not, without
    /// counting as a read of it and without beginning a refresh: for people who
    /// look into the cache. The value is `None` where the origin has no such key.
    pub fn peek_value<Q, R>(&self, key: &Q, read: impl FnOnce(Option<&V>) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let resident = self.0.memory.peek(key, self.0.clock.now())?;
        Some(read(resident.entry().value.as_option()))
    }

    /// What the cache has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let loads_in_flight = self.0.flights.running() as u64;
        self.0.telemetry.snapshot(self.0.memory.statistics(), loads_in_flight)
    }

    /// What each store below memory has done so far, nearest first.
    #[must_use]
    pub fn stores(&self) -> Vec<StoreStatistics> {
        let tiers = self.0.lower.iter().flat_map(|lower| &lower.tiers);
        tiers.map(|tier| tier.statistics(&self.0.clock)).collect()
    }

    /// What became of the leases it asked for. `None`: it asks for none.
    #[must_use]
    pub fn leases(&self) -> Option<LeaseStatistics> {
        let (_, desk) = self.0.lower.as_ref()?.desk()?;
        Some(desk.statistics(&self.0.clock))
    }

    /// What happens in the cache from now on. Costs each event a lock while
    /// anyone subscribes, and nothing otherwise.
    #[must_use]
    pub fn events(&self) -> Events<K> {
        Events::new(self.0.telemetry.subscribe())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it promises about its answers.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    /// Changes what it promises. Entries keep the limits they were made with, but
    /// a class of data that must not be cached clears the cache, and one that must
    /// not leave this process the stores below memory.
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::Config`] if the policy contradicts itself; the
    /// old one stays.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        let (has_origin, has_stores) = (self.0.origin.is_some(), self.0.lower.is_some());
        let writes_behind = self.0.behind.is_some();
        validate(&self.0.name, &policy, Around { has_origin, has_stores, writes_behind })?;
        let (may_be_cached, may_leave) =
            (policy.class.may_be_cached(), policy.class.may_leave_process());
        self.0.policy.store(Arc::new(policy));
        if !may_be_cached {
            self.0.clear_now();
        } else if !may_leave {
            self.0.clear_stores_later();
        }
        Ok(())
    }

    /// Where its writes wait for the origin, if they do.
    #[must_use]
    pub fn write_behind(&self) -> Option<&WriteBehind> {
        self.0.behind.as_ref().map(|behind| &behind.writes)
    }

    /// What its origin can do with writes: nothing, if it has none.
    #[must_use]
    pub fn write_abilities(&self) -> WriteAbilities {
        self.0.origin.as_ref().map_or(WriteAbilities::NONE, |origin| origin.write_abilities())
    }

    /// The breaker and load budget of its origin.
    #[must_use]
    pub fn origin_guard(&self) -> &OriginGuard {
        &self.0.guard
    }

    /// Whether the origin is asked at present.
    #[must_use]
    pub fn origin_health(&self) -> BreakerState {
        self.0.guard.breaker_state(&self.0.clock)
    }

    /// Begins no more loads and waits for those that run, at most this long
    /// (R10). What memory has is still served. Returns whether all ended.
    ///
    /// # Cancel safety
    /// A dropped call leaves the cache shut; calling again waits again.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        self.0.closing.store(true, Ordering::SeqCst);
        let deadline = self.0.clock.precise_now() + patience;
        let ended = std::pin::pin!(self.0.flights.all_ended());
        let sleep = std::pin::pin!(self.0.runtime.sleep_until(&self.0.clock, deadline));
        matches!(
            futures_util::future::select(ended, sleep).await,
            futures_util::future::Either::Left(_)
        )
    }

    pub(crate) fn new(engine: Arc<Engine<K, V>>) -> Self {
        Self(engine)
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.0.name).finish_non_exhaustive()
    }
}
