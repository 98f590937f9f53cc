//! A cache's entries in memcached.

mod control;
mod debts;
mod fetch;
mod invalidate;
mod read;
mod write;

use std::fmt;
use std::time::Duration;

use larder_core::{
    Capabilities, Key, Mark, PutCondition, PutOutcome, Result, Store, StoredEntry, Verb, Version,
};

use self::control::Control;
use self::debts::Debts;
use crate::item::{self, ItemNames};
use crate::{Memcached, failure};

/// What a [`MemcachedStore`] may keep, and for how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// For how long an invalidation refuses what was loaded before it: longer
    /// than any load may take.
    pub floor_window: Duration,
    /// Watermarks of tags, at most. One more, and the oldest becomes a watermark
    /// of the whole cache.
    pub marks_max: usize,
    /// For how long an entry may stay on a server that stands in for a dead one.
    pub stand_in_ttl: Duration,
    /// Values of more than this many bytes are packed with zstd where that makes them
    /// shorter; costs some 2 ms for each MiB. All nodes can read them, whatever this
    /// says there. `None`: none is.
    pub compress_above: Option<usize>,
}

impl Default for StoreOptions {
    /// Floors for 10 minutes, 2 000 watermarks, a minute on a stand-in.
    fn default() -> Self {
        Self {
            floor_window: Duration::from_secs(600),
            marks_max: 2_000,
            stand_in_ttl: Duration::from_secs(60),
            compress_above: None,
        }
    }
}

/// One cache's entries in memcached, as a shared tier.
///
/// Versions are compared and written in one step, with compare-and-swap.
/// Watermarks stand in one item for the whole cache; when that is lost, every
/// entry written before is dead to whoever asks for watermarks then. What else
/// memcached may lose, and what bounds the harm, is told in [the crate's
/// documentation](crate).
///
/// A server that cannot be reached makes misses of its keys while others
/// answer, and an error when none does. Writes to it are errors. What could not
/// be invalidated is remembered, and made good before this store uses that
/// server again.
///
/// # Cost
/// Reading a batch is one round trip to each server that has some of its keys,
/// all at once; writing and invalidating are two, and two more for each time
/// that others wrote the same keys meanwhile. The first call reads the control
/// item, one more.
pub struct MemcachedStore {
    client: Memcached,
    names: ItemNames,
    options: StoreOptions,
    control: Control,
    debts: Debts,
}

impl MemcachedStore {
    /// The entries of the cache with this name. Stores with one name on the same
    /// servers share their entries.
    #[must_use]
    pub fn new(client: &Memcached, cache: &str) -> Self {
        Self::with_options(client, cache, StoreOptions::default())
    }

    /// The same with other options than the usual.
    #[must_use]
    pub fn with_options(client: &Memcached, cache: &str, options: StoreOptions) -> Self {
        let names = ItemNames::new(cache);
        let control = Control::new(client.clone(), names.control(), options.marks_max);
        let debts = Debts::new(client.servers_count());
        Self { client: client.clone(), names, options, control, debts }
    }

    /// How many invalidations this node still has to make good on servers that
    /// it could not reach.
    #[must_use]
    pub fn owed_count(&self) -> usize {
        self.debts.count()
    }
}

impl Store for MemcachedStore {
    fn capabilities(&self) -> Capabilities {
        let item_bytes_max = self.client.item_bytes_max();
        Capabilities {
            shared: true,
            value_bytes_max: Some(item::value_bytes_max(item_bytes_max)),
            ..Capabilities::default()
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.read_many(keys).await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        self.write_many(entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.invalidate_all(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.control.raise(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.control.marks().await
    }
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, options, .. } = self;
        f.debug_struct("MemcachedStore")
            .field("names", names)
            .field("options", options)
            .finish_non_exhaustive()
    }
}

/// Attempts to write an item that others keep writing.
const ATTEMPTS_MAX: u32 = 40;

/// The pause before another attempt: random, so that not all come at once again.
async fn pause_before(attempt: u32) {
    if attempt > 0 {
        let most = Duration::from_millis(1 << attempt.min(5));
        tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
    }
}

fn contended(server: &crate::ServerAddress) -> larder_core::Error {
    larder_core::Error::new(
        larder_core::ErrorKind::Overloaded,
        "an item of memcached is written by too many at once",
    )
    .with("server", server)
    .with("attempts", ATTEMPTS_MAX)
    .remedy("try again; if it stays so, see who writes this key so often")
}

/// What stands for the answer when there was none that can be used.
fn unusable(server: &crate::ServerAddress, reply: &crate::protocol::Reply) -> larder_core::Error {
    match reply {
        crate::protocol::Reply::Complaint(complaint) => failure::refused(server, complaint),
        _ => failure::garbled(server, "an answer of another kind than asked for"),
    }
}
