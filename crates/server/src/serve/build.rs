//! Builds the planned caches.

use std::sync::Arc;

use bytes::Bytes;
use larder::{BytesCodec, Cache, Dependencies, Edge, Memory, Stores};
use larder_core::{DynOrigin, Error, ErrorKind, Key, Result};
use larder_disk::DiskTier;

use super::connect::{Connected, loader, loader_mistake};
use super::journal::{Journal, Target};
use super::memory::Division;
use super::plan::{Plan, PlannedCache};
use super::rows::RowRules;
use super::ruled::RuledOrigin;
use super::shared_tiers::SharedTiers;
use super::{disk, made_by};
use crate::config::{CacheOptions, CacheWriteOptions, Diagnostic, Settings};
use crate::registry::{Registry, Served};
use crate::resp::ServedCache;

/// What there is below memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiers<'t> {
    /// This machine's disk.
    pub(super) disk: Option<&'t DiskTier>,
    /// What is shared with other servers.
    pub(super) shared: Option<&'t SharedTiers>,
}

/// What the caches stand amidst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'t> {
    pub(super) tiers: Tiers<'t>,
    /// What they depend on, if any do.
    pub(super) dependencies: Option<&'t Dependencies>,
    /// Where their writes wait, if they do.
    pub(super) journal: Option<&'t Journal>,
}

/// The registry of the planned caches, each with its part of the memory.
///
/// # Errors
/// One for each cache that cannot be built.
pub(super) async fn build(
    settings: &Settings,
    connected: &Connected,
    plan: &Plan,
    division: &Division,
    surroundings: Surroundings<'_>,
) -> Result<Registry, Vec<Diagnostic>> {
    let mut served = Vec::with_capacity(plan.caches.len());
    let mut mistakes = Vec::new();
    for (planned, bytes) in plan.caches.iter().zip(&division.caches) {
        let memory_bytes = usize::try_from(*bytes).unwrap_or(usize::MAX);
        match build_one(settings, connected, planned, memory_bytes, surroundings).await {
            Ok(cache) => served.push(cache),
            Err(mistake) => mistakes.push(*mistake),
        }
    }
    if mistakes.is_empty() { Ok(Registry::new(served)) } else { Err(mistakes) }
}

async fn build_one(
    settings: &Settings,
    connected: &Connected,
    planned: &PlannedCache,
    memory_bytes: usize,
    surroundings: Surroundings<'_>,
) -> Result<Served, Box<Diagnostic>> {
    let options = planned
        .config_name
        .as_ref()
        .and_then(|name| settings.config.caches.get(name))
        .cloned()
        .unwrap_or_default();
    let opened =
        open_cache(settings, connected, planned, &options, memory_bytes, surroundings).await;
    let cache = opened.map_err(|error| Box::new(loader_mistake(settings, planned, &error)))?;
    Ok(Served {
        cache,
        pattern: planned.pattern.clone(),
        origin: planned.origin.clone(),
        source: planned.source.clone(),
        config_name: planned.config_name.clone(),
        memory_bytes,
        tags: options.tags,
    })
}

async fn open_cache(
    settings: &Settings,
    connected: &Connected,
    planned: &PlannedCache,
    options: &CacheOptions,
    memory_bytes: usize,
    surroundings: Surroundings<'_>,
) -> Result<ServedCache> {
    let open = connected.origin(&planned.origin).ok_or_else(|| not_connected(planned))?;
    let Surroundings { tiers, dependencies, journal } = surroundings;
    let policy = settings.policy(planned.config_name.as_deref()).to_policy();
    let class = policy.get_class();
    let builder = Cache::<Key, Bytes>::builder(&planned.name)
        .memory(Memory::bytes(memory_bytes))
        .prefixes(planned.pattern.clone())
        .origin_guard(open.guard.clone())
        .policy(policy);
    let mut builder = match journal.and_then(|it| Some((it, it.origin(&planned.name)?))) {
        Some((journal, origin)) => {
            let is_only_writer = options.write.as_ref().is_some_and(|write| write.only_writer);
            let builder = builder.shared_origin(origin).write_behind(&journal.behind, BytesCodec);
            if is_only_writer { builder.only_writer() } else { builder }
        }
        None => builder.shared_origin(
            self::origin(settings, connected, planned, options, dependencies).await?,
        ),
    };
    if let Some(dependencies) = dependencies {
        builder = builder.dependencies(dependencies).tagged_by_origin();
    }
    // Also what has no place in a store is invalidated by other servers.
    if let Some(shared) = tiers.shared {
        builder = builder.fleet(&shared.fleet);
    }
    if class.may_leave_process() {
        let made_by = made_by::describe(planned, &open.database);
        // Nearest first: a hit on this machine's disk costs no round trip. A cache
        // without any store has none of these.
        let mut stores = Stores::new(BytesCodec);
        if let Some(disk) = tiers.disk {
            stores = disk::add(stores, disk, &planned.name, &made_by)?;
        }
        if let Some(shared) = tiers.shared {
            stores = shared.add(stores, &planned.name, &made_by);
        }
        builder = builder.stores(stores);
    }
    if let Some(fallback) = &options.fallback {
        let answer = Bytes::from(fallback.to_string());
        builder = builder.fallback(move |_| Some(answer.clone()));
    }
    builder.build()
}

/// What the writes of the caches that write behind are given to.
///
/// # Errors
/// One for each whose statements do not work.
pub(super) async fn targets(
    settings: &Settings,
    connected: &Connected,
    plan: &Plan,
    dependencies: Option<&Dependencies>,
) -> Result<Vec<Target>, Vec<Diagnostic>> {
    let mut targets = Vec::new();
    let mut mistakes = Vec::new();
    for planned in &plan.caches {
        let Some(options) = entry(settings, planned) else { continue };
        if !options.write.as_ref().is_some_and(CacheWriteOptions::is_behind) {
            continue;
        }
        match origin(settings, connected, planned, options, dependencies).await {
            Ok(origin) => targets.push((planned.name.clone(), origin)),
            Err(error) => mistakes.push(loader_mistake(settings, planned, &error)),
        }
    }
    if mistakes.is_empty() { Ok(targets) } else { Err(mistakes) }
}

fn entry<'s>(settings: &'s Settings, planned: &PlannedCache) -> Option<&'s CacheOptions> {
    planned.config_name.as_ref().and_then(|name| settings.config.caches.get(name))
}

/// The origin of a cache under its rules.
async fn origin(
    settings: &Settings,
    connected: &Connected,
    planned: &PlannedCache,
    options: &CacheOptions,
    dependencies: Option<&Dependencies>,
) -> Result<Arc<dyn DynOrigin<Key, Bytes>>> {
    let open = connected.origin(&planned.origin).ok_or_else(|| not_connected(planned))?;
    let loader = loader(settings, &open.database, planned).await?;
    let rules = RowRules::new(planned.pattern.clone(), options, edges(planned, dependencies));
    Ok(match rules {
        Some(rules) => Arc::new(RuledOrigin::new(loader, rules, &planned.name)),
        None => Arc::new(loader),
    })
}

fn not_connected(planned: &PlannedCache) -> Error {
    Error::new(ErrorKind::InvalidInput, "the origin is not connected")
        .with("origin", &planned.origin)
}

/// By what the entries of a cache are tagged with what they were computed from.
fn edges(planned: &PlannedCache, dependencies: Option<&Dependencies>) -> Vec<Edge> {
    let graph = dependencies.map(Dependencies::graph);
    let node = graph.and_then(|graph| graph.find(&planned.name).map(|node| (graph, node)));
    let edges = node.into_iter().flat_map(|(graph, node)| graph.dependencies_of(node));
    edges.filter(|edge| !edge.fields().is_empty()).cloned().collect()
}
