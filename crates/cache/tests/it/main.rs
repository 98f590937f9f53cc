//! The engine against a scripted origin on a clock that the tests move.

mod batches;
mod budget;
mod build;
mod degraded;
mod early_refresh;
mod event_rules;
mod events;
mod fences;
mod fleet;
mod fleet_adrift;
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
