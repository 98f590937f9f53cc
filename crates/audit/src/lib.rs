//! The audit buffer: records that are only ever appended. One is acknowledged
//! when a journal has it, and gets to where it belongs, files or a table, a
//! hundred at a time or after five minutes: once, and in order.
//!
//! ```no_run
//! use std::sync::Arc;
//! use larder_audit::{AuditBuffer, AuditFiles, AuditOptions, FileOptions};
//! use larder_core::Clock;
//! use larder_journal::{DiskJournal, JournalOptions};
//!
//! # async fn example() -> larder_core::Result<()> {
//! let mut journal = JournalOptions::new("/var/lib/shop/audit-journal");
//! journal.lanes = 1; // the order of acknowledgement is one order
//! let journal = DiskJournal::open(journal).await?;
//! let files = AuditFiles::open(FileOptions::new("/var/log/shop/audit")).await?;
//! let audit = AuditBuffer::open(
//!     Arc::new(journal),
//!     [("payment".to_owned(), Arc::new(files) as _)],
//!     AuditOptions::default(),
//!     Clock::monotonic(),
//! )
//! .await?;
//!
//! let receipt = audit.append("payment", r#"{"who":"ann","cents":1250}"#).await?; // it is safe
//! println!("{}", receipt.key);
//! # Ok(())
//! # }
//! ```
//!
//! See the guide page `docs/guide/audit.md`.

mod buffer;
mod files;
mod identifier;
mod json;
mod lines;
mod name;
mod options;
mod shelf;

pub use buffer::{AuditBuffer, AuditReceipt};
pub use files::AuditFiles;
pub use options::{AuditOptions, FileOptions};
pub use shelf::FileStatistics;

/// The page of the guide is a test: what it shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/audit.md")]
mod guide {}
