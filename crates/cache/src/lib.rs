//! Larder in process: a typed cache that loads each key once, says how fresh
//! every answer is, and never keeps what was invalidated while it loaded.
//!
//! ```
//! use std::time::Duration;
//! use larder::{Cache, LoadContext, Loaded, Memory, Origin, Policy, Result};
//!
//! struct Albums; // your database
//!
//! impl Origin<u64, String> for Albums {
//!     async fn load(&self, id: &u64, _: &LoadContext) -> Result<Loaded<String>> {
//!         Ok(Loaded::value(format!("album {id}")).tags(["artist:miles"]))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let albums = Cache::<u64, String>::builder("album")
//!     .memory(Memory::bytes(64 * larder::MIB))
//!     .origin(Albums)
//!     .policy(
//!         Policy::ttl(Duration::from_secs(300)).stale_if_error(Duration::from_secs(7200)),
//!     )
//!     .build()?;
//!
//! let hit = albums.get_or_load(&42).await?;      // asks the origin, once
//! assert_eq!(hit.value().unwrap(), "album 42");
//! let hit = albums.get_or_load(&42).await?;      // from memory
//! assert!(hit.is_fresh());
//! albums.remove_tag("artist:miles").await?;      // and everything else with it
//! assert!(albums.get(&42).await?.is_none());
//! # Ok(()) }
//! ```
//!
//! | you want | call |
//! |---|---|
//! | read through to the origin | [`Cache::get_or_load`], [`Cache::get_or_load_many`] |
//! | cache-aside with your own loader | [`Cache::get_or_load_with`], [`Cache::get`], [`Cache::put`] |
//! | what memory has, without waiting | [`Cache::get_memory`] |
//! | write through to the origin | [`Cache::write`], [`Cache::write_all`] |
//! | change a value in place | [`Cache::update`] |
//! | invalidate a key | [`Cache::remove`], [`Cache::expire`] |
//! | invalidate many | [`Cache::remove_tag`], [`Cache::expire_tag`], [`Cache::remove_prefix`], [`Cache::remove_matching`], [`Cache::clear`] |
//! | invalidate what depends on it, too | [`Dependencies`], [`CacheBuilder::dependencies`] |
//! | acknowledge a write before the origin has it | [`WriteBehind`] |
//! | invalidate anything, at once or gradually | [`Cache::invalidate`] |
//! | agree with other processes | [`Fleet::join`], [`CacheBuilder::fleet`] |
//! | know what happens | [`Cache::statistics`], [`Cache::events`], [`Cache::inspect`] |

mod basis;
mod behind;
mod builder;
mod cache;
mod dependencies;
mod engine;
pub mod event_rules;
mod fleet;
mod flight;
mod hit;
mod inspection;
mod invalidation;
mod lower;
mod maintenance;
mod origin;
mod pipeline;
mod policy;
mod request;
mod runtime;
pub mod schedule;
mod stamp;
mod sync;
mod telemetry;

pub use behind::{
    BehindLane, BehindObserver, BehindOptions, BehindStatistics, LetterId, Pending, PendingBase,
    WriteBehind,
};
pub use builder::{CacheBuilder, Memory};
pub use cache::Cache;
pub use dependencies::{
    Cascade, CascadeBound, CascadeBounds, Dependencies, DependencyGraph, DependencyStatistics,
    Edge, GraphBuilder, Node, Step, Touch, Touched,
};
pub use engine::{CacheKey, CacheValue};
pub use fleet::{Fleet, FleetOptions, FleetStatistics};
pub use hit::{Freshness, Hit, StaleReason, Tier};
pub use inspection::Inspection;
pub use invalidation::Invalidation;
pub use larder_core::{
    Action, BatchError, BoxError, Bus, BytesCodec, Class, Clock, Codec, Cover, Decimal, DynBus,
    DynLease, DynOrigin, DynStore, Entry, Error, ErrorKind, Expected, HeapSize, JsonCodec, Key,
    KeyBuilder, KeyPattern, Lease, LoadCause, LoadContext, Loaded, ManualClock, Moment, Origin,
    Outcome, PatternError, Reach, Result, SharedKey, Store, Tag, Tags, Ttl, TtlClass, Value,
    Version, Write, WriteAbilities, Written, canonical_json, json_hash,
};
pub use larder_memory::{Limit, MemoryStatistics, RemovalCause, RemovalCounts};
pub use lower::{LeaseStatistics, StoreStatistics, Stores};
pub use origin::{Breaker, BreakerState, LoadBudget, OriginGuard};
pub use policy::{Policy, TtlByAge};
pub use request::{Get, GetOrLoad, Put, WriteThrough};
pub use telemetry::{Event, EventKind, Events, Latency, Statistics};

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;
/// Bytes in a gibibyte.
pub const GIB: usize = 1024 * MIB;

/// The README and the guide are tests: what they show compiles and runs.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/guide/patterns.md")]
    struct Patterns;
    #[doc = include_str!("../../../docs/guide/freshness.md")]
    struct Freshness;
    #[doc = include_str!("../../../docs/guide/stampede-protection.md")]
    struct StampedeProtection;
    #[doc = include_str!("../../../docs/guide/tiers.md")]
    struct Tiers;
    #[doc = include_str!("../../../docs/guide/dependencies.md")]
    struct WhatDependsOnWhat;
    #[doc = include_str!("../../../docs/guide/many-nodes.md")]
    struct ManyNodes;
    #[doc = include_str!("../../../docs/guide/write-behind.md")]
    struct WriteBehind;
    #[doc = include_str!("../../../docs/guide/invalidation.md")]
    struct Invalidation;
}
