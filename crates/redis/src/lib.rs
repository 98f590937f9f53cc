//! Redis and Valkey for Larder: a shared tier below memory, the bus by which
//! nodes tell one another what changed, leases, and a journal of writes that many
//! nodes share.
//!
//! ```no_run
//! use larder_redis::{RedisOptions, RedisTier};
//!
//! # async fn run() -> larder_core::Result<()> {
//! let options = RedisOptions::new("rediss://app:secret@cache.example:6380");
//! let tier = RedisTier::connect(options).await?;
//! let (store, bus, lease) = (tier.store("album"), tier.bus(), tier.lease("album"));
//! # let _ = (store, bus, lease);
//! # Ok(())
//! # }
//! ```
//!
//! # How it keeps its word
//!
//! - **Every change is one script**, loaded on demand: a version, the entries that
//!   it touches, watermarks and the message on the stream are one atomic step.
//!   Reads are plain `MGET`.
//! - **Versions come from one counter**, in a hash together with the epoch and the
//!   number of the last message. Whoever knows a higher version raises it, so that
//!   versions never go back for nodes that live. A new counter starts at the
//!   server's time in microseconds, which is above what an earlier one reached.
//! - **A lost history is a new epoch.** Scripts refuse callers of another epoch;
//!   subscribers who find that the server has forgotten a message that they heard
//!   begin a new one; and what was loaded under an old one is not put any more.
//! - **Nothing is missing if the numbers say so.** Each heartbeat asks for the last
//!   message's number; pushes only save the wait.
//! - **Time is the server's**, which every node knows to within a round trip; ages
//!   are rounded up. A server whose clock is set back makes entries younger by as
//!   much, but those that begin in the future are not read.
//!
//! What no client can know: an old primary that was cut off and has not noticed
//! takes writes that are lost later. `min-replicas-to-write 1` on the server bounds
//! that.

mod address;
mod backoff;
mod bus;
mod circle;
mod cluster_link;
mod connector;
mod continuity;
mod discovery;
mod events;
mod failure;
mod journal;
mod keys;
mod lease;
mod links;
mod message;
mod options;
mod primary_id;
mod probe;
mod reopening;
mod rights;
mod script;
mod server_time;
mod shared;
mod state;
mod store;
mod subscription;
mod tier;
mod wakes;

pub use bus::RedisBus;
pub use events::{RedisChannel, RedisEvent, RedisStream};
pub use journal::{Acknowledge, RedisJournal, RedisJournalOptions, RedisJournalStatistics};
pub use lease::RedisLease;
pub use options::{CONNECTIONS_LIMIT, RedisOptions, Topology};
pub use probe::{Finding, Level};
pub use rights::{CLUSTER_RIGHTS, JOURNAL_RIGHTS, RIGHTS};
pub use store::RedisStore;
pub use subscription::RedisSubscription;
pub use tier::RedisTier;
