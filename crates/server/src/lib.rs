//! The Larder server: doors for Redis clients and administrators over the
//! caches of a database.
//!
//! ```text
//! cli ── the commands; `serve` puts the rest together
//!  ├─ config ── options, mistakes with their places, policies
//!  ├─ serve ── connects databases, plans and builds caches, reloads, drains
//!  │    └─ registry ── which cache a key belongs to
//!  ├─ resp ── the door for Redis clients
//!  │    ├─ keyspace ── the keys of no cache
//!  │    └─ front ── in place of those, an existing Redis behind this server
//!  ├─ admin ── metrics, health and caches over HTTP
//!  ├─ graph ── what depends on what, as text and picture
//!  ├─ doctor ── looks at each tier and says what is wrong
//!  └─ demo ── a shop to look around in
//! ```

pub mod admin;
pub mod build_info;
pub mod cli;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod explanation;
pub mod front;
pub mod graph;
pub mod keyspace;
pub mod logging;
pub mod registry;
pub mod resp;
pub mod serve;
