//! The Redis tier against real servers.

mod bus;
mod cluster;
mod faults;
mod gaps;
mod journal;
mod late;
mod lease;
mod probe;
mod replicas;
mod rights;
mod security;
mod store;
mod support;
