//! The journal on a local disk: writes that are acknowledged before the origin
//! has them, and survive a loss of power.
//!
//! ```no_run
//! use larder_core::{Action, Journal, JournalRecord, Key, Version, Write};
//! use larder_journal::{DiskJournal, JournalOptions};
//!
//! # async fn example() -> larder_core::Result<()> {
//! let journal = DiskJournal::open(JournalOptions::new("/var/lib/larder/journal")).await?;
//! let record = JournalRecord {
//!     cache: "order".into(),
//!     write: Write::new(Key::new("order:42"), Action::Put("{}".into())),
//!     version: Version::new(1),
//!     age: std::time::Duration::ZERO,
//! };
//! let offset = journal.append(3, &[record]).await?; // it is on the disk
//! # let _ = offset;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **What was acknowledged is read back**, in the order of its lane, after any
//!   crash, until it is trimmed or dropped. What was refused is not, and nothing
//!   is that was never appended.
//! - **A failed sync is not tried again.** Nobody knows what the disk has then,
//!   and the page cache shows what it has not. All that was acknowledged is
//!   written from memory into a new file, read back from the disk, and only then
//!   the journal goes on. What was on its way is refused, and cannot come back.
//! - **A torn tail is cut off**: nothing in it was acknowledged. Damage anywhere
//!   else is an error that names the file and the byte.
//! - **It is bounded**: in bytes and records, and refuses beyond them.
//!
//! What is not promised: that the loss of the disk is survived; that flipped bits
//! in the very last frame are told from a torn tail; that a removed last file is
//! missed.
//!
//! # What it costs
//!
//! One thread writes. All appends that come while it syncs, of whatever lanes,
//! are one write and one sync of the disk. What waits is held in memory as well,
//! so reading costs no access to the disk.

pub mod files;
mod journal;
mod log;
mod opening;
mod operation;
mod options;
mod segment;
mod state;
mod time;
mod writer;

pub use journal::{DiskJournal, JournalStatistics};
#[doc(hidden)]
pub use log::check_segment;
pub use opening::Damage;
pub use options::{JournalOptions, OnDamage};
