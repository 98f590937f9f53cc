//! The in-process memory tier of Larder.
//!
//! [`MemoryTier`] keeps typed entries within a budget of bytes or entries. It is
//! synchronous and concurrent; a hit takes one shared lock, copies neither key
//! nor value and allocates nothing. Which entries stay is up to `quick_cache`
//! (a variant of CLOCK-Pro, which scans do not defeat); this crate adds what a
//! cache of an origin needs around it:
//!
//! * **Time**: fresh and stale limits, idle and sliding lifetimes, and a timing
//!   wheel that finds what is due without looking at what is not.
//! * **Invalidation**: by key, by tag and of everything, in constant time. A tag
//!   or the whole tier has a *watermark*: the version of its last invalidation.
//!   Entries whose load began before it are dead wherever they are, even still
//!   in flight.
//! * **Accounts**: the byte budget counts keys, values and bookkeeping, and each
//!   entry that leaves is reported once, with the cause.
//!
//! The tier reads no clock and starts no thread: the caller passes `now` and
//! calls [`MemoryTier::sweep`] now and then.
//!
//! ```
//! use std::time::Duration;
//! use larder_core::{Class, Clock, Entry, Tag, Tags, Value};
//! use larder_memory::{Budget, Lifetime, MemoryTier, Options};
//!
//! let tier = MemoryTier::<String, String>::new(Options::new(Budget::bytes(1 << 20)));
//! let clock = Clock::monotonic();
//! let now = clock.now();
//! let entry = Entry {
//!     value: Value::Present("Ada".to_owned()),
//!     version: tier.versions().next(),
//!     origin_read_at: now,
//!     fresh_until: now + Duration::from_secs(60),
//!     stale_until: now + Duration::from_secs(120),
//!     load_cost: Duration::from_millis(2),
//!     tags: Tags::new(["table:user"]),
//!     class: Class::Public,
//! };
//! tier.insert("user:1".to_owned(), entry, Lifetime::OF_ENTRY, now);
//!
//! let hit = tier.get("user:1", now).expect("it was just put in");
//! assert_eq!(hit.entry().value.as_option().map(String::as_str), Some("Ada"));
//! assert!(hit.is_fresh(now));
//!
//! tier.remove_tag(&Tag::new("table:user"));
//! assert!(tier.get("user:1", now).is_none());
//! ```

mod budget;
mod gradual;
mod invalidation;
mod lifetime;
mod listing;
mod node;
mod options;
mod removal;
mod resident;
mod roster;
mod statistics;
mod sweep;
mod sync;
mod tags;
mod tier;
mod versions;
mod wheel;

pub use budget::{Budget, Limit};
pub use gradual::{Gradual, Scope, Standing};
pub use invalidation::Watermarks;
pub use lifetime::{Lifetime, Sliding};
pub use listing::{Cursor, Page};
pub use options::Options;
pub use removal::{Removal, RemovalCause, RemovalListener};
pub use resident::Resident;
pub use statistics::{MemoryStatistics, RemovalCounts, Swept};
pub use tier::MemoryTier;
pub use versions::Versions;
