//! Memcached as a shared tier of Larder: our own asynchronous client of the meta
//! protocol, and on it [`MemcachedStore`] and [`MemcachedLease`].
//!
//! ```no_run
//! use std::time::Duration;
//! use larder_memcached::{Memcached, MemcachedLease, MemcachedOptions, MemcachedStore};
//!
//! # async fn example() -> larder_core::Result<()> {
//! let mut options = MemcachedOptions::new(["cache-1:11211".parse()?, "cache-2/?3".parse()?]);
//! options.response_timeout = Duration::from_millis(300);
//! let memcached = Memcached::connect(options).await?;
//! let store = MemcachedStore::new(&memcached, "album");
//! let lease = MemcachedLease::new(&memcached, "album");
//! # Ok(())
//! # }
//! ```
//!
//! # What memcached can promise, and what it cannot
//!
//! Memcached evicts what it likes and forgets everything when it restarts. That
//! is fine for entries: a miss is a miss. It is less fine for what keeps old
//! entries out:
//!
//! | what is lost | what follows | what bounds it |
//! |---|---|---|
//! | an entry | a load | |
//! | a gravestone, or the floor in an expired entry | a load that began before the invalidation, on a node that has not heard of it, may put its old answer | the time a load may take, after which no such load is under way; then the entry's TTL. Gravestones are small and young, which evictions hit last |
//! | the control item with the watermarks | the whole cache is dead to whoever asks for watermarks after that: the cache gets a new generation | loads. Nodes that know the old generation go on with it until they meet an entry of the new one: they have heard of every watermark themselves |
//! | a server | its keys miss, or move ([`WhenDead`]) | it returns |
//! | the way to a server, which lives and keeps its items | what this node could not invalidate there is owed: it is made good before this node uses the server again. Other nodes may read it until then | a node that dies with its debts leaves them to the TTL |
//!
//! # Ages
//!
//! Nodes agree on the age of an entry by the server's clock, which memcached
//! shows in whole seconds. An entry looks older than it is by 1 to 3 seconds as
//! a rule, never younger and never by more than 4. Entries that live only for
//! seconds do not belong into this tier.
//!
//! # Cost
//!
//! A batch of any number of keys is one write and one round trip to each server
//! that has some of them, all servers at the same time. Writes compare versions
//! first and store with compare-and-swap: two round trips, and two more for
//! each time that somebody else wrote in between.

mod client;
mod clock;
mod connection;
mod failure;
mod handshake;
mod item;
mod lease;
mod options;
mod pending;
mod probe;
pub mod protocol;
mod ring;
mod server;
mod store;
mod tls;

pub use client::{Memcached, ServerState};
pub use lease::MemcachedLease;
pub use options::{
    CONNECTIONS_MAX, Credentials, MemcachedOptions, ServerAddress, TlsOptions, WhenDead,
};
pub use probe::{Finding, Severity, probe};
pub use store::{MemcachedStore, StoreOptions};
