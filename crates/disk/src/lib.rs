//! The disk tier: entries, watermarks and bus positions that survive a restart,
//! within a budget of bytes.
//!
//! ```no_run
//! use larder_core::{Key, Store};
//! use larder_disk::{DiskOptions, DiskTier};
//!
//! # async fn example() -> larder_core::Result<()> {
//! let tier = DiskTier::open(DiskOptions::new("/var/cache/larder")).await?;
//! let albums = tier.store("album")?;
//! let held = albums.get(&Key::new("album:42")).await?;
//! tier.close().await;
//! # let _ = held;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Versions**: comparing and writing is one step, because one thread writes.
//!   What was invalidated refuses what is older for
//!   [`DiskOptions::floor_window`], also when it was evicted meanwhile.
//! - **Ages** go on while the process is away; an entry never comes back younger.
//!   On the same start of the machine the time away is exact. After a reboot the
//!   wall clock tells it, with a surcharge; if it cannot be believed, every entry
//!   is dead. A watermark outlives the entries under it:
//!   [`DiskOptions::marks_retention`] bounds both.
//! - **After a crash** there is what was written up to some moment, nothing later
//!   and nothing torn: one journal, one keyspace. What is acknowledged survives
//!   as [`Durability`] says. A bus position never survives the invalidations
//!   before it.
//! - **Damage** is a miss, never a wrong value and never a reason not to start.
//!   Each record carries a checksum over its key and itself. A closed directory
//!   is sealed; one that does not fit its seal, or that fjall cannot use, is
//!   emptied. What loads bring that began before is refused then.
//! - **The budget** is held by compaction, which leaves out what is dead, and as
//!   the directory fills what is worth least; when it is full, puts are refused.
//!
//! What is not promised: bits that flip in the journal between a crash and the
//! next opening may go unnoticed where fjall has no checksum (the head of a
//! batch).
//!
//! # What it costs
//!
//! A read or a write is one hop to a thread of the tier and back, whatever the
//! size of the batch. In memory there are at most
//! [`DiskOptions::memory_bytes_max`] of caches, buffers and queues.

mod core;
mod directory;
mod engine;
mod layout;
mod options;
mod reader;
mod recency;
mod reclaim;
mod record;
mod rules;
mod seal;
mod state;
mod store;
mod tier;
mod timeline;
mod upkeep;
mod writer;

pub use larder_core::{MachineClock, MachineTime};
pub use options::{DiskOptions, Durability};
pub use store::DiskStore;
pub use tier::{DiskStatistics, DiskTier};
