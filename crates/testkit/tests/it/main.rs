//! The tools of the tests, against what they are tools for.

mod data_sets;
mod fleet;
mod memcached;
mod proxy;
mod redis;
mod redis_topologies;
