//! The engine against a scripted origin on a clock that the tests move.

mod batches;
mod behind;
mod behind_cache;
mod budget;
mod build;
mod cascade_at_scale;
mod degraded;
mod dependencies;
mod derived;
mod early_refresh;
mod event_rules;
mod events;
mod fences;
mod fleet;
mod fleet_adrift;
mod fleet_local;
mod freshness;
mod gradual;
mod leases;
mod schedule;
mod shutdown;
mod single_flight;
mod stores;
mod stores_adrift;
mod support;
mod tags;
mod through;
mod writes;

/// Counts what a thread allocates.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
