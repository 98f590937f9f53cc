use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use larder_core::{
    Clock, Codec, DynOrigin, Error, ErrorKind, HeapSize, KeyPattern, Moment, Origin, Result,
    SharedKey, Tags, Ttl,
};
use larder_memory::{Budget, Limit, MemoryTier, Options};

use crate::behind::WriteBehind;
use crate::cache::Cache;
use crate::dependencies::{Dependence, Dependencies, FieldRule};
use crate::engine::{CacheKey, CacheValue, Engine, Levels, Rules};
use crate::fleet::{Fleet, Seat};
use crate::flight::{Flights, Writers};
use crate::lower::{Lower, Stores};
use crate::maintenance;
use crate::origin::{Breaker, LoadBudget, OriginGuard};
use crate::pipeline::Behind;
use crate::policy::{Around, Policy, validate};
use crate::runtime::Runtime;
use crate::telemetry::{EventKind, Telemetry};

/// How much the memory tier may hold.
#[must_use]
pub struct Memory<K, V> {
    budget: Budget<K, V>,
    estimated_entries: Option<usize>,
}

impl<K: 'static, V: 'static> Memory<K, V> {
    /// At most this many bytes, with keys and bookkeeping.
    pub fn bytes(bytes: usize) -> Self
    where
        K: HeapSize + 'static,
        V: HeapSize + 'static,
    {
        Self::new(Budget::bytes(bytes as u64))
    }

    /// At most this many bytes, where a function says how many bytes a key and
    /// its value own on the heap. For types that are not [`HeapSize`]. Without a
    /// value, where "there is none" is what is kept, it says what the key owns.
    pub fn bytes_by(
        bytes: usize,
        size: impl Fn(&K, Option<&V>) -> usize + Send + Sync + 'static,
    ) -> Self {
        Self::new(Budget::bytes_by(bytes as u64, size))
    }

    /// At most this many entries, whatever their size.
    pub fn entries(entries: usize) -> Self {
        Self::new(Budget::entries(entries as u64))
    }

    /// About how many entries are expected: sizes what is set aside for the
    /// eviction policy. A guess within a factor of ten will do.
    pub fn estimated_entries(mut self, entries: usize) -> Self {
        self.estimated_entries = Some(entries);
        self
    }

    fn new(budget: Budget<K, V>) -> Self {
        Self { budget, estimated_entries: None }
    }

    /// Refuses a budget under which nothing would ever be kept.
    fn check(&self) -> Result<()> {
        match self.budget.limit() {
            Limit::Entries(0) | Limit::Bytes(0) => {
                Err(Error::new(ErrorKind::Config, "a memory budget of zero keeps nothing")
                    .remedy("give memory at least one entry or a few hundred kibibytes"))
            }
            Limit::Bytes(bytes) if bytes < Budget::<K, V>::smallest_bytes() => {
                let smallest = Budget::<K, V>::smallest_bytes();
                Err(Error::new(ErrorKind::Config, "a memory budget this small keeps nothing")
                    .with("bytes", bytes)
                    .remedy(format!("give memory at least {smallest} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// Puts a [`Cache`] together. Made by [`Cache::builder`].
#[must_use]
pub struct CacheBuilder<K, V> {
    name: String,
    memory: Option<Memory<K, V>>,
    stores: Option<Stores<K, V>>,
    seat: Option<Seat<K>>,
    origin: Option<Arc<dyn DynOrigin<K, V>>>,
    guard: Option<OriginGuard>,
    policy: Policy,
    rules: Rules<K, V>,
    clock: Clock,
    runtime: Option<tokio::runtime::Handle>,
    dependencies: Option<Join<K, V>>,
    fields: Option<FieldRule<K, V>>,
    tagged_by_origin: bool,
    behind: Option<Behind<K, V>>,
    only_writer: bool,
}

/// Joins a group, once the name and the fleet are known.
type Join<K, V> = Box<dyn FnOnce(Joining<'_, K, V>) -> Result<Dependence<K, V>> + Send>;

struct Joining<'b, K, V> {
    cache: &'b str,
    fleet: Option<&'b Fleet>,
    fields: Option<FieldRule<K, V>>,
    tagged_by_origin: bool,
}

impl<K: CacheKey, V: CacheValue> CacheBuilder<K, V> {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory: None,
            stores: None,
            seat: None,
            origin: None,
            guard: None,
            policy: Policy::default(),
            rules: Rules { ttl: None, tags: None, fallback: None, levels: None },
            clock: Clock::monotonic(),
            runtime: None,
            dependencies: None,
            fields: None,
            tagged_by_origin: false,
            behind: None,
            only_writer: false,
        }
    }

    /// How much memory it may hold. Default: 10 000 entries.
    pub fn memory(mut self, memory: Memory<K, V>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// The tiers below memory. Default: none.
    pub fn stores(mut self, stores: Stores<K, V>) -> Self {
        self.stores = Some(stores);
        self
    }

    /// The other nodes that keep the same data: what one invalidates is invalidated
    /// in all. Default: none.
    pub fn fleet(mut self, fleet: &Fleet) -> Self
    where
        K: SharedKey,
    {
        self.seat = Some(Seat::new(fleet));
        self
    }

    /// The caches that it depends on and that depend on it: what changes in one
    /// invalidates what others have computed from it (I3). Default: none.
    pub fn dependencies(mut self, dependencies: &Dependencies) -> Self
    where
        K: SharedKey,
    {
        let group = dependencies.clone();
        self.dependencies = Some(Box::new(move |joining| {
            let Joining { cache, fleet, fields, tagged_by_origin } = joining;
            let node = group.enter(cache, fleet)?;
            Dependence::new(group, node, fields, tagged_by_origin)
        }));
        self
    }

    /// The value of a field of an entry by its name, where dependencies name fields
    /// that are no part of the key. The value of the entry is `None` where the origin
    /// has no such key. An entry without the field does not depend on anything by it.
    pub fn fields(
        mut self,
        fields: impl Fn(&K, Option<&V>, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.fields = Some(Arc::new(fields));
        self
    }

    /// The origin gives its answers the tags of what they were computed from, by
    /// [`crate::Edge::tag_of`], in the place of [`CacheBuilder::fields`].
    pub fn tagged_by_origin(mut self) -> Self {
        self.tagged_by_origin = true;
        self
    }

    /// Where it reads what it does not have (P2).
    pub fn origin(self, origin: impl Origin<K, V>) -> Self {
        self.shared_origin(Arc::new(origin))
    }

    /// The same, for an origin that is shared or chosen at run time.
    pub fn shared_origin(mut self, origin: Arc<dyn DynOrigin<K, V>>) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Has writes acknowledged by a journal, and given to the origin later (P4): by
    /// [`Cache::write`] and [`Cache::write_all`]. The cache's name must be among the
    /// targets of the [`WriteBehind`], with the same origin; values wait in the form that
    /// this codec gives them. What was acknowledged is read at once. Patches and
    /// additions that wait are made to objects of JSON; where values are something else,
    /// a read of such a key waits until they are applied.
    ///
    /// [`Cache::put`] and the expectations of writes are refused.
    pub fn write_behind(mut self, behind: &WriteBehind, codec: impl Codec<V>) -> Self
    where
        K: SharedKey,
    {
        self.behind = Some(Behind::new(behind.clone(), &self.name, Arc::new(codec)));
        self
    }

    /// Declares that no other node writes the keys of this cache: then it may write
    /// behind over a journal of this process alone and have other nodes that read.
    /// Their writes of the same keys would be applied in any order, and each node would
    /// read its own only.
    pub fn only_writer(mut self) -> Self {
        self.only_writer = true;
        self
    }

    /// The breaker and load budget of the origin, shared with its other caches.
    /// Default: one of this cache's own with default limits, whose breaker stays
    /// closed without an origin: the loaders that callers bring along may have
    /// nothing in common.
    pub fn origin_guard(mut self, guard: OriginGuard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// What it promises about its answers. Default: [`Policy::default`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A TTL as a function of key and value (K4). `None` leaves it to the
    /// policy; what a loader or a request says goes before.
    pub fn ttl_rule(
        mut self,
        rule: impl Fn(&K, &V) -> Option<Ttl> + Send + Sync + 'static,
    ) -> Self {
        self.rules.ttl = Some(Arc::new(rule));
        self
    }

    /// Tags as a function of key and value (K1); the value is `None` where the
    /// origin has no such key. Added to what a loader or a request says.
    pub fn tag_rule(
        mut self,
        rule: impl Fn(&K, Option<&V>) -> Tags + Send + Sync + 'static,
    ) -> Self {
        self.rules.tags = Some(Arc::new(rule));
        self
    }

    /// The pattern of its keys: those that begin alike can then be invalidated at once,
    /// with [`Cache::remove_prefix`] and its kin (I1). Each entry has a tag for each
    /// parameter of its key but the last.
    pub fn prefixes(mut self, pattern: KeyPattern) -> Self
    where
        K: SharedKey,
    {
        self.rules.levels = Some(Levels { pattern, encode: K::to_key, decode: K::from_key });
        self
    }

    /// The answer when the origin fails and nothing stale is at hand (R5),
    /// labelled [`crate::Freshness::Fallback`] and never kept. `None`: an error
    /// after all.
    pub fn fallback(mut self, fallback: impl Fn(&K) -> Option<V> + Send + Sync + 'static) -> Self {
        self.rules.fallback = Some(Arc::new(fallback));
        self
    }

    /// Where it reads the time. Tests give a [`larder_core::ManualClock`].
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Where its loads and its upkeep run. Default: the runtime that `build` is
    /// called on. Without one, and once it has ended, loads run on the runtime of
    /// the reader that begins them and expired entries are reclaimed as others
    /// are written.
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if options contradict each other, or the runtime has
    /// no timer; the error names the remedy.
    pub fn build(self) -> Result<Cache<K, V>> {
        let Self { name, memory, stores, seat, origin, guard, policy, rules, clock, .. } = self;
        let (runtime, fields, tagged_by_origin) =
            (self.runtime, self.fields, self.tagged_by_origin);
        let (behind, only_writer) = (self.behind, self.only_writer);
        let dependence = self.dependencies.map(|join| {
            let fleet = seat.as_ref().map(|seat| &seat.fleet);
            join(Joining { cache: &name, fleet, fields, tagged_by_origin })
        });
        let dependence = dependence.transpose().map_err(|error| error.with("cache", &name))?;
        let memory = memory.unwrap_or_else(|| Memory::entries(10_000));
        memory.check().map_err(|error| error.with("cache", &name))?;
        let lower = stores.map(|stores| Lower::new(&name, policy.class, stores, seat.is_some()));
        let lower = lower.transpose()?.flatten();
        let around = Around {
            has_origin: origin.is_some(),
            has_stores: lower.is_some(),
            writes_behind: behind.is_some(),
        };
        validate(&name, &policy, around)?;
        let telemetry = Arc::new(Telemetry::new());
        let observer = Arc::clone(&telemetry);
        let mut options = Options::new(memory.budget).on_removal(Arc::new(
            move |removal: larder_memory::Removal<'_, K, V>| {
                observer.record(EventKind::LeftMemory(removal.cause), Some(removal.key));
            },
        ));
        if let Some(entries) = memory.estimated_entries {
            options = options.estimated_entries(entries as u64);
        }
        let runtime = Runtime::new(runtime);
        runtime.check_timer(&clock).map_err(|error| error.with("cache", &name))?;
        if let Some(guard) = &guard {
            guard.check().map_err(|error| error.with("cache", &name))?;
        }
        let has_breaker = origin.is_some() || guard.is_some();
        let guard = guard
            .unwrap_or_else(|| OriginGuard::new(&name, Breaker::default(), LoadBudget::default()));
        let settles_at = match (&seat, &lower) {
            (Some(seat), Some(lower)) => {
                // As long as whoever announced it may wait for the bus and the store.
                clock.precise_now() + seat.fleet.timeout() + lower.timeout
            }
            _ => Moment::START,
        };
        let engine = Arc::new(Engine {
            name,
            memory: MemoryTier::new(options),
            flights: Flights::new(),
            writers: Writers::default(),
            lower,
            origin,
            guard,
            has_breaker,
            policy: ArcSwap::from_pointee(policy),
            rules,
            clock,
            runtime,
            telemetry,
            closing: AtomicBool::new(false),
            trusted_until: AtomicU64::new(if seat.is_some() { 0 } else { u64::MAX }),
            doubted_below: AtomicU64::new(0),
            memory_doubted_below: AtomicU64::new(0),
            expired_below: AtomicU64::new(0),
            settles_at,
            writes_settle_at: AtomicU64::new(0),
            seat,
            behind,
            dependence,
        });
        engine.refuse_other_writers(only_writer)?;
        engine.attend_behind()?;
        maintenance::start(&engine);
        // First: what others announce is followed from the first message on.
        engine.attend_dependencies();
        engine.attend_fleet();
        Ok(Cache::new(engine))
    }
}

impl<K, V> fmt::Debug for CacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for Memory<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("estimated_entries", &self.estimated_entries)
            .finish_non_exhaustive()
    }
}
