//! The tools of the tests, against what they are tools for.

mod data_sets;
mod redis;
mod redis_topologies;
