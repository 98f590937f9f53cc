use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;

use larder_core::{Entry, Moment, Tag, Tags, Version};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};

use crate::budget::{Budget, GHOST_ALLOCATION, Limit};
use crate::invalidation::{Invalidations, Watermarks};
use crate::lifetime::Lifetime;
use crate::node::{Handle, Lookup, Node, Parts, lifetime_bytes};
use crate::options::Options;
use crate::removal::{Removal, RemovalCause, RemovalListener};
use crate::resident::Resident;
use crate::roster::Roster;
use crate::statistics::MemoryStatistics;
use crate::sweep::Sweeper;
use crate::sync::{AtomicU64, Hashing, Ordering, Padded};
use crate::tags::TagTable;
use crate::versions::Versions;

/// Entries in the memory of this process, within a budget.
///
/// Every method may be called from any thread at any time. No method waits for
/// anything but short internal locks.
pub struct MemoryTier<K, V> {
    /// Read by every hit, written by invalidations only.
    invalidations: Padded<Invalidations>,
    cache: Cache<Handle<K, V>, Handle<K, V>, StoredWeight, Hashing, Departures>,
    /// What quick_cache takes at most; a heavier entry is not offered to it.
    largest_entry: u64,
    budget: Budget<K, V>,
    pub(crate) roster: Roster<K, V>,
    pub(crate) sweeper: Sweeper,
    tags: TagTable,
    versions: Padded<Versions>,
    rejected: AtomicU64,
    on_removal: Option<RemovalListener<K, V>>,
}

/// quick_cache's own share of a shard for entries that proved themselves; it
/// keeps nothing heavier than that.
const HOT_ALLOCATION: f64 = 0.97;

impl<K, V> MemoryTier<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty tier. It takes memory for entries only when they come.
    #[must_use]
    pub fn new(options: Options<K, V>) -> Self {
        let layout = options.resolve();
        let hashing = Hashing::default();
        let cache_options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(
                usize::try_from(layout.estimated_entries).unwrap_or(usize::MAX),
            )
            .weight_capacity(layout.capacity)
            .shards(layout.shards)
            .hot_allocation(HOT_ALLOCATION)
            .ghost_allocation(GHOST_ALLOCATION)
            .build()
            .expect("both required options are set");
        let cache = Cache::with_options(cache_options, StoredWeight, hashing.clone(), Departures);
        let shard_capacity = cache.shard_capacity();
        let hot_capacity = (shard_capacity as f64 * HOT_ALLOCATION) as u64;
        Self {
            largest_entry: hot_capacity.clamp(shard_capacity.min(1), shard_capacity),
            roster: Roster::new(cache.num_shards(), hashing),
            cache,
            invalidations: Padded::default(),
            sweeper: Sweeper::default(),
            tags: TagTable::new(options.budget.spare_tag_bytes() as usize),
            versions: Padded::default(),
            rejected: AtomicU64::new(0),
            budget: options.budget,
            on_removal: options.on_removal,
        }
    }

    /// The entry of this key, if it may be served: fresh or stale, not idle for
    /// too long, not invalidated. Records the access.
    ///
    /// What turns out to be dead is reclaimed on the way.
    #[inline]
    pub fn get<Q>(&self, key: &Q, now: Moment) -> Option<Resident<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let handle = self.cache.get(&Lookup(key))?;
        if handle.is_quiet(now, self.invalidations.count()) {
            handle.touch(now);
            return Some(Resident(handle));
        }
        self.get_closely(handle, now)
    }

    /// The same without recording the access: it changes neither idle time nor
    /// freshness nor what is evicted next.
    pub fn peek<Q>(&self, key: &Q, now: Moment) -> Option<Resident<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let handle = self.cache.peek(&Lookup(key))?;
        self.death(&handle, Some(now)).is_none().then_some(Resident(handle))
    }

    /// Puts an entry in, in place of the key's previous one.
    ///
    /// Always returns the entry, also if the tier does not keep it: because it
    /// is heavier than [`MemoryStatistics::largest_entry`], or evicts itself, or
    /// is dead on arrival: its time is up or a watermark is above its version.
    /// The previous entry goes in any case.
    pub fn insert(
        &self,
        key: K,
        mut entry: Entry<V>,
        lifetime: Lifetime,
        now: Moment,
    ) -> Resident<K, V> {
        let interned = self.tags.intern(std::mem::take(&mut entry.tags));
        entry.tags = interned.tags;
        let owned_bytes = interned.bytes + lifetime_bytes(&lifetime);
        let weight = self.budget.weigh(&key, &entry, owned_bytes);
        let parts = Parts { key, entry, cells: interned.cells, lifetime, weight, now };
        let handle = Handle::new(Node::from(parts));
        if weight > self.largest_entry {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            if let Some((_, previous)) = self.cache.remove(&handle) {
                self.depart(&previous, RemovalCause::Replaced, Some(now));
            }
            return Resident(handle);
        }
        let mut departed = Departed::default();
        self.cache.insert_with_lifecycle(handle.clone(), handle.clone(), &mut departed);
        self.roster.join(&handle, now);
        for other in departed {
            let replaced = other == handle && !other.is(&handle);
            let cause = if replaced { RemovalCause::Replaced } else { RemovalCause::Evicted };
            self.depart(&other, cause, Some(now));
        }
        if let Some(cause) = self.death(&handle, Some(now)) {
            self.discard(&handle, cause, Some(now));
        }
        Resident(handle)
    }

    /// Drops the key's entry. Says whether there was one that was not
    /// invalidated before; one whose time is up counts until it is reclaimed.
    pub fn remove<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.cache.remove(&Lookup(key)).is_some_and(|(_, handle)| {
            self.depart(&handle, RemovalCause::Removed, None) == RemovalCause::Removed
        })
    }

    /// Ends the freshness of the key's entry; it may still be served stale until
    /// `stale_until`. Says whether there was a servable entry.
    pub fn expire<Q>(&self, key: &Q, now: Moment) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let resident = self.peek(key, now);
        if let Some(resident) = &resident {
            resident.0.expire(now);
        }
        resident.is_some()
    }

    /// The counter that numbers loads and invalidations.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Drops every entry that has this tag, also those still being loaded: all
    /// whose version is below the returned one. Takes the same short time
    /// whatever their number; their memory comes back by [`MemoryTier::sweep`].
    pub fn remove_tag(&self, tag: &Tag) -> Version {
        let version = self.versions.next();
        self.remove_tag_at(tag, version);
        version
    }

    /// The same with a version from elsewhere, which may be an old one. Does not
    /// make it known to [`MemoryTier::versions`].
    pub fn remove_tag_at(&self, tag: &Tag, version: Version) {
        // Where no entry holds the tag, no hit has to look closer and no sweep has
        // anything to find.
        if self.tags.remove(tag, version) {
            self.invalidations.announce_removal();
        }
    }

    /// Ends the freshness of every entry that has this tag and a version below
    /// the returned one, in the same short time whatever their number.
    pub fn expire_tag(&self, tag: &Tag, now: Moment) -> Version {
        let version = self.versions.next();
        self.expire_tag_at(tag, version, now);
        version
    }

    /// The same with a version from elsewhere, as [`MemoryTier::remove_tag_at`].
    pub fn expire_tag_at(&self, tag: &Tag, version: Version, now: Moment) {
        if self.tags.expire(tag, version, now) {
            self.invalidations.announce_expiry();
        }
    }

    /// Drops every entry, also those still being loaded: all whose version is
    /// below the returned one. Takes the same short time whatever their number;
    /// their memory comes back by [`MemoryTier::sweep`].
    pub fn clear(&self) -> Version {
        let version = self.versions.next();
        self.clear_at(version);
        version
    }

    /// The same with a version from elsewhere, as [`MemoryTier::remove_tag_at`].
    pub fn clear_at(&self, version: Version) {
        self.invalidations.tier.remove(version);
        self.invalidations.announce_removal();
    }

    /// Ends the freshness of every entry whose version is below the returned
    /// one, in the same short time whatever their number.
    pub fn expire_all(&self, now: Moment) -> Version {
        let version = self.versions.next();
        self.expire_all_at(version, now);
        version
    }

    /// The same with a version from elsewhere, as [`MemoryTier::remove_tag_at`].
    pub fn expire_all_at(&self, version: Version, now: Moment) {
        self.invalidations.tier.expire(version, now);
        self.invalidations.announce_expiry();
    }

    /// The newest invalidations of any of these tags or of the whole tier. What
    /// began before them must not be put in as if nothing had happened.
    ///
    /// May be newer than the tag's own where the memory of that was given up; it
    /// is never older.
    #[must_use]
    pub fn watermarks(&self, tags: &Tags) -> Watermarks {
        self.tags.watermarks(tags).max(self.invalidations.tier.read())
    }

    /// The same for the tags alone: without what was said of the whole tier.
    #[must_use]
    pub fn tag_watermarks(&self, tags: &Tags) -> Watermarks {
        self.tags.watermarks(tags)
    }

    /// Promises that no entry with a version below this one will be put in any
    /// more, so that older watermarks need not be remembered. Optional: without
    /// it the memory for tags is bounded as well, see [`MemoryTier::watermarks`].
    ///
    /// To be called with the version of the oldest load under way, or the newest
    /// version handed out if there is none: now and then, say before each sweep.
    /// Then, where tags without entries take too much memory, those go first
    /// whose invalidation no load can meet any more. Costs one atomic read if the
    /// version is no news, and never a lock.
    pub fn forget_watermarks_before(&self, version: Version) {
        self.tags.forget_before(version);
    }

    /// What the tier holds and what became of the rest. Takes the lock of each
    /// shard once.
    #[must_use]
    pub fn statistics(&self) -> MemoryStatistics {
        let limit = self.budget.limit();
        MemoryStatistics {
            entries: self.cache.len() as u64,
            bytes: if matches!(limit, Limit::Bytes(_)) { self.cache.weight() } else { 0 },
            limit,
            largest_entry: self.largest_entry,
            removals: self.roster.removals(),
            rejected: self.rejected.load(Ordering::Relaxed),
            tags: self.tags.len() as u64,
        }
    }

    /// A hit that the first comparison does not settle.
    fn get_closely(&self, handle: Handle<K, V>, now: Moment) -> Option<Resident<K, V>> {
        if let Some(cause) = self.death(&handle, Some(now)) {
            self.discard(&handle, cause, Some(now));
            return None;
        }
        handle.touch(now);
        handle.slide(now);
        Some(Resident(handle))
    }

    /// Why the node must not be served, or `None` if it may be. Without `now`
    /// its times are not looked at.
    pub(crate) fn death(&self, handle: &Handle<K, V>, now: Option<Moment>) -> Option<RemovalCause> {
        self.invalidated(handle, now)
            .or_else(|| now.filter(|now| handle.deadline() <= *now).map(|_| RemovalCause::Expired))
    }

    /// Compares the node with the watermarks, if there are new ones since it was
    /// last compared, and ends its freshness if one of them says so.
    fn invalidated(&self, handle: &Handle<K, V>, now: Option<Moment>) -> Option<RemovalCause> {
        // Read before the watermarks: one that rises meanwhile has a higher count.
        let count = self.invalidations.count();
        if handle.was_checked_at(count) {
            return None;
        }
        let version = handle.version();
        let tier = &self.invalidations.tier;
        if tier.removes(version) {
            return Some(RemovalCause::Cleared);
        }
        let mut expired_at = tier.expires(version);
        for cell in handle.cells.iter().flat_map(|cells| cells.slice.iter()) {
            if cell.marks.removes(version) {
                return Some(RemovalCause::Tag);
            }
            if let Some(at) = cell.marks.expires(version) {
                expired_at = Some(expired_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
        if let Some(at) = expired_at {
            // An entry that arrived expired was fresh up to when it was read.
            // Without the time the end of freshness waits for the next look.
            handle.expire(at.max(handle.entry.origin_read_at).min(now?));
        }
        handle.set_checked_at(count);
        None
    }

    /// Takes exactly this node out of the cache. If it is not there any more,
    /// whoever took it out tells of it.
    pub(crate) fn discard(
        &self,
        handle: &Handle<K, V>,
        cause: RemovalCause,
        now: Option<Moment>,
    ) -> bool {
        let taken = self.cache.remove_if(handle, |held| held.is(handle)).is_some();
        if taken {
            self.depart(handle, cause, now);
        }
        taken
    }

    /// Follows up on a node that the caller took out of the cache, outside its
    /// locks. Returns the cause told.
    fn depart(
        &self,
        handle: &Handle<K, V>,
        cause: RemovalCause,
        now: Option<Moment>,
    ) -> RemovalCause {
        let cause = self.death(handle, now).unwrap_or(cause);
        self.roster.leave(handle, cause);
        self.tags.let_go(&handle.cells);
        if let Some(listener) = &self.on_removal {
            listener(Removal { key: &handle.key, entry: &handle.entry, cause });
        }
        cause
    }

    pub(crate) fn tags(&self) -> &TagTable {
        &self.tags
    }

    pub(crate) fn invalidations(&self) -> &Invalidations {
        &self.invalidations
    }
}

impl<K, V> fmt::Debug for MemoryTier<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier").field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Entries know their weight.
#[derive(Clone)]
struct StoredWeight;

impl<K, V> Weighter<Handle<K, V>, Handle<K, V>> for StoredWeight {
    #[inline]
    fn weight(&self, _key: &Handle<K, V>, value: &Handle<K, V>) -> u64 {
        value.weight
    }
}

/// Collects what an insertion pushes out, so that it is dealt with after
/// quick_cache's lock is released.
#[derive(Clone)]
struct Departures;

impl<K, V> Lifecycle<Handle<K, V>, Handle<K, V>> for Departures {
    type RequestState = Departed<K, V>;

    #[inline]
    fn on_evict(&self, departed: &mut Departed<K, V>, _key: Handle<K, V>, value: Handle<K, V>) {
        departed.push(value);
    }
}

/// Most insertions push out no more than one entry: that one takes no allocation.
struct Departed<K, V> {
    first: Option<Handle<K, V>>,
    rest: Vec<Handle<K, V>>,
}

impl<K, V> Departed<K, V> {
    fn push(&mut self, handle: Handle<K, V>) {
        match self.first {
            None => self.first = Some(handle),
            Some(_) => self.rest.push(handle),
        }
    }
}

impl<K, V> Default for Departed<K, V> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<K, V> IntoIterator for Departed<K, V> {
    type Item = Handle<K, V>;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<Handle<K, V>>, std::vec::IntoIter<Handle<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}
