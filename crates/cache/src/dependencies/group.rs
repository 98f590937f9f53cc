use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures_util::future::join_all;
use larder_core::{
    Announcement, BoxFuture, BusMessage, Change, Error, ErrorKind, Key, Result, Verb, Version,
};
use parking_lot::Mutex;

use super::cascade::{Cascade, Touch, Touched};
use super::graph::DependencyGraph;
use super::{CascadeBound, Step};
use crate::fleet::{Fleet, Listener};
use crate::flight::{Hold, Writers};

/// A cache that may be touched.
pub(crate) trait Dependent: Send + Sync {
    /// Does what has to be done before anything can be numbered.
    fn prepare(self: Arc<Self>) -> BoxFuture<'static, ()>;
    /// Invalidates, here and for every later read of a store. With a version, what is
    /// older.
    fn touch(self: Arc<Self>, touched: &Touched, verb: Verb, version: Option<Version>);
    /// Has the stores told.
    fn settle(self: Arc<Self>) -> BoxFuture<'static, ()>;
    /// The same in the background.
    fn settle_later(self: Arc<Self>);
}

/// The caches of one process that depend on each other, and on what others announce:
/// a change of one invalidates what was computed from it (I3).
///
/// They join with [`crate::CacheBuilder::dependencies`], all of them in one fleet or
/// all in none. What is removed removes, what is expired expires. Cloning costs a
/// reference count.
///
/// ```
/// use larder::{Cache, Dependencies, DependencyGraph, Result};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let graph = DependencyGraph::builder()
///     .cache("customer", "{id}")
///     .cache("order", "{id}")
///     .depends("order", "customer:{customer_id}");
/// let dependencies = Dependencies::new(graph.build()?);
/// let customers =
///     Cache::<u64, String>::builder("customer").dependencies(&dependencies).build()?;
/// // An order is its customer's number and a text.
/// let orders = Cache::<u64, (u64, String)>::builder("order")
///     .dependencies(&dependencies)
///     .fields(|_, order, field| match field {
///         "customer_id" => order.map(|(customer, _)| customer.to_string()),
///         _ => None,
///     })
///     .build()?;
/// orders.put(&7, (17, "for Ann".to_owned())).await?;
/// orders.put(&8, (18, "for Bob".to_owned())).await?;
/// customers.remove(&17).await?;
/// assert!(orders.get(&7).await?.is_none());
/// assert!(orders.get(&8).await?.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Dependencies(Arc<Group>);

/// What dependencies have touched so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DependencyStatistics {
    /// Changes that touched anything else.
    pub cascades: u64,
    /// Keys touched.
    pub keys: u64,
    /// Tags touched.
    pub tags: u64,
    /// Times that a whole cache was touched.
    pub caches: u64,
    /// Times that a bound was hit, so that more was touched than necessary.
    pub bounds_hit: u64,
}

struct Group {
    graph: DependencyGraph,
    /// By node.
    members: Mutex<Vec<Vec<Weak<dyn Dependent>>>>,
    /// The fleet of all members, if they have one; the first decides.
    fleet: Mutex<Option<Option<Fleet>>>,
    /// The latest changes of this process that it has followed itself.
    own: Mutex<VecDeque<Version>>,
    /// Writes that have begun and not ended.
    writers: Writers,
    counts: [AtomicU64; 5],
    /// The bounds that were logged: each is once for each cache.
    logged: Mutex<HashSet<(usize, CascadeBound)>>,
}

/// So many changes of this process are remembered until they are heard back.
const OWN_MAX: usize = 1024;

impl Dependencies {
    /// Nobody has joined yet.
    #[must_use]
    pub fn new(graph: DependencyGraph) -> Self {
        let members = Mutex::new(vec![Vec::new(); graph.nodes().len()]);
        Self(Arc::new(Group {
            graph,
            members,
            fleet: Mutex::default(),
            own: Mutex::default(),
            writers: Writers::default(),
            counts: Default::default(),
            logged: Mutex::default(),
        }))
    }

    /// What depends on what.
    #[must_use]
    pub fn graph(&self) -> &DependencyGraph {
        &self.0.graph
    }

    /// What dependencies have touched so far.
    #[must_use]
    pub fn statistics(&self) -> DependencyStatistics {
        let [cascades, keys, tags, caches, bounds_hit] =
            [0, 1, 2, 3, 4].map(|at: usize| self.0.counts[at].load(Ordering::Relaxed));
        DependencyStatistics { cascades, keys, tags, caches, bounds_hit }
    }

    /// Hears from a fleet what is announced under the names of others. The caches that
    /// join do this by themselves; it is for a process whose own caches come later.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a cache has joined that is not in this fleet.
    pub fn follow(&self, fleet: &Fleet) -> Result<()> {
        self.0.agree(Some(fleet))
    }

    /// The node of a cache that is about to join with this fleet.
    pub(crate) fn enter(&self, cache: &str, fleet: Option<&Fleet>) -> Result<usize> {
        let node =
            self.0.graph.find(cache).filter(|node| !self.0.graph.nodes()[*node].is_service());
        let node = node.ok_or_else(|| {
            Error::new(ErrorKind::Config, "its dependencies do not know this cache")
                .with("cache", cache)
                .remedy("declare it with GraphBuilder::cache")
        })?;
        self.0.agree(fleet).map_err(|error| error.with("cache", cache))?;
        Ok(node)
    }

    pub(crate) fn join(&self, node: usize, member: Weak<dyn Dependent>) {
        let mut members = self.0.members.lock();
        members[node].retain(|member| member.strong_count() > 0);
        members[node].push(member);
    }

    /// What a change of this process touches; `None` if nothing. What is given back
    /// is followed at the latest when it is dropped.
    pub(crate) fn begin(
        &self,
        node: usize,
        touches: &[Touch<'_>],
        verb: Verb,
    ) -> Option<Following> {
        let name = self.0.graph.nodes()[node].name();
        let cascade = self.0.graph.cascade(name, touches);
        (!cascade.is_empty()).then(|| Following {
            group: self.clone(),
            cascade: Some(cascade),
            verb,
        })
    }
}

/// What a change touches and has not yet.
#[must_use = "it is followed when it is awaited, or dropped"]
pub(crate) struct Following {
    group: Dependencies,
    cascade: Option<Cascade>,
    verb: Verb,
}

impl Following {
    /// Touches it, and waits until the stores know. With the version of the change in a
    /// fleet; if it was announced under that, it will be heard back.
    pub(crate) async fn finish(mut self, version: Option<Version>, is_announced: bool) {
        let group = Arc::clone(&self.group.0);
        let steps = self.cascade.as_ref().map_or(&[][..], Cascade::steps);
        let members: Vec<_> = steps.iter().flat_map(|step| group.members_of(step.node())).collect();
        join_all(members.iter().map(|member| Arc::clone(member).prepare())).await;
        let Some(cascade) = self.cascade.take() else { return };
        group.touch(&cascade, self.verb, version);
        // Only now: what is heard back is passed over because all that it touches was.
        if let Some(version) = version.filter(|_| is_announced) {
            group.note_own(version);
        }
        join_all(members.into_iter().map(Dependent::settle)).await;
    }
}

impl Drop for Following {
    /// Whoever waited has left: what changed has changed all the same.
    fn drop(&mut self) {
        if let Some(cascade) = self.cascade.take() {
            let group = &self.group.0;
            for member in group.touch(&cascade, self.verb, None) {
                member.settle_later();
            }
        }
    }
}

impl Listener for Group {
    fn heard(self: Arc<Self>, message: &BusMessage) {
        let BusMessage { version, announcement, .. } = message;
        let Announcement { cache, change, verb } = announcement;
        match change {
            Change::Writing { keys, write, within } => {
                if self.is_touching(cache, keys) {
                    self.expect_end(announcement, keys, Hold(*write), *within);
                }
                return;
            }
            Change::Written { write, .. } => {
                self.writers.end(Hold(*write));
            }
            _ => {}
        }
        if self.is_own(*version) {
            return;
        }
        let cascade = cascade_of(&self.graph, cache, change);
        if !cascade.is_empty() {
            for member in self.touch(&cascade, *verb, Some(*version)) {
                member.settle_later();
            }
        }
    }
}

impl Group {
    /// All members have the fleet of the first.
    fn agree(self: &Arc<Self>, fleet: Option<&Fleet>) -> Result<()> {
        let mut of_all = self.fleet.lock();
        match (&*of_all, fleet) {
            (None, fleet) => {
                *of_all = Some(fleet.cloned());
                if let Some(fleet) = fleet {
                    let listener: Arc<dyn Listener> = Arc::clone(self) as _;
                    fleet.listen(Arc::downgrade(&listener));
                }
                Ok(())
            }
            (Some(None), None) => Ok(()),
            (Some(Some(one)), Some(other)) if one.is_same(other) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Config,
                "caches that depend on each other are not in one fleet",
            )
            .remedy("give all of them the same fleet, or none of them one")),
        }
    }

    fn members_of(&self, node: usize) -> Vec<Arc<dyn Dependent>> {
        self.members.lock()[node].iter().filter_map(Weak::upgrade).collect()
    }

    fn is_touching(&self, cache: &str, keys: &[Key]) -> bool {
        let node = self.graph.find(cache);
        node.is_some_and(|node| of_keys(keys).iter().any(|touch| self.graph.touches(node, *touch)))
    }

    /// Whoever wrote may be gone: then nobody says that it is over.
    fn expect_end(
        self: &Arc<Self>,
        announcement: &Announcement,
        keys: &[Key],
        hold: Hold,
        within: std::time::Duration,
    ) {
        let ended = self.writers.begin(hold);
        let (group, cache) = (Arc::downgrade(self), announcement.cache.clone());
        let keys = keys.to_vec();
        tokio::spawn(async move {
            if tokio::time::timeout(within, ended).await.is_ok() {
                return;
            }
            let Some(group) = group.upgrade() else { return };
            if group.writers.end(hold)
                && let Some(Some(fleet)) = &*group.fleet.lock()
            {
                let change = Change::Keys(keys);
                fleet.announce_later(Announcement { cache, change, verb: Verb::Remove });
            }
        });
    }

    /// Touches each in order. Returns who has stores to be told.
    fn touch(
        &self,
        cascade: &Cascade,
        verb: Verb,
        version: Option<Version>,
    ) -> Vec<Arc<dyn Dependent>> {
        self.count(cascade);
        let mut touched = Vec::new();
        for step in cascade.steps() {
            for member in self.members_of(step.node()) {
                let touch = |what: &Touched| Arc::clone(&member).touch(what, verb, version);
                // Keys are read by foreign code: where it panics nobody can say what
                // was touched.
                if catch_unwind(AssertUnwindSafe(|| touch(step.touched()))).is_err() {
                    tracing::error!("a key that a change touches could not be read");
                    touch(&Touched::All);
                }
                touched.push(member);
            }
        }
        touched
    }

    fn count(&self, cascade: &Cascade) {
        let add = |at: usize, count: usize| {
            self.counts[at].fetch_add(count as u64, Ordering::Relaxed);
        };
        add(0, 1);
        for touched in cascade.steps().iter().map(Step::touched) {
            match touched {
                Touched::Some { keys, tags } => {
                    add(1, keys.len());
                    add(2, tags.len());
                }
                Touched::All => add(3, 1),
            }
        }
        add(4, cascade.bounds_hit().len());
        for (node, bound) in cascade.bounds_hit() {
            if self.logged.lock().insert((*node, *bound)) {
                let (cache, bound) = (self.graph.nodes()[*node].name(), bound.name());
                tracing::warn!(
                    cache,
                    bound,
                    "a change touches more than is followed: whole caches are invalidated instead"
                );
            }
        }
    }

    fn note_own(&self, version: Version) {
        let mut own = self.own.lock();
        own.push_back(version);
        if own.len() > OWN_MAX {
            own.pop_front();
        }
    }

    /// Whether this process has followed the change itself.
    fn is_own(&self, version: Version) -> bool {
        let mut own = self.own.lock();
        let place = own.iter().position(|known| *known == version);
        place.and_then(|place| own.remove(place)).is_some()
    }
}

/// What an announced change touches.
///
/// What is computed from what changes by and by is touched at once: which part of it
/// has changed nobody can say.
pub(super) fn cascade_of(graph: &DependencyGraph, cache: &str, change: &Change) -> Cascade {
    match change.touched() {
        Change::Tags(tags) => {
            let touches: Vec<_> = tags.iter().map(|tag| Touch::Tag(tag.as_str())).collect();
            graph.cascade(cache, &touches)
        }
        change => match change.keys() {
            Some(keys) => graph.cascade(cache, &of_keys(keys)),
            // Also what a newer version of this program says, whatever it may be.
            None => graph.cascade(cache, &[Touch::All]),
        },
    }
}

/// Keys that are no text might be anybody's.
pub(crate) fn of_keys(keys: &[Key]) -> Vec<Touch<'_>> {
    let touch = |key: &'_ Key| std::str::from_utf8(key.as_bytes()).is_ok();
    if keys.iter().all(touch) {
        let text = |key| std::str::from_utf8(Key::as_bytes(key)).ok();
        keys.iter().filter_map(text).map(Touch::Key).collect()
    } else {
        vec![Touch::All]
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").field("graph", &self.0.graph).finish_non_exhaustive()
    }
}
