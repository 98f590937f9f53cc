//! A cluster of Redis servers, of which each owns some slots: clients see a single
//! Redis.
//!
//! ```text
//! command ── place ── which server is asked: that of a key, all, or none
//!   ├─ split ── keys of many slots: a part for each, one reply made of theirs (merge)
//!   └─ link of that server ── it owns the slot no more? redirect ── link of another
//! topology ── who owns what, asked again and again, and when in doubt
//! pulse ── whether a server still owns what it owned
//! ```
//!
//! Invariants: a command is sent again only if a server said that it did not run
//! it. What a client asks of one slot, one after the other, is done in that order.

pub(crate) mod client;
pub(crate) mod map;
pub(crate) mod merge;
pub(crate) mod place;
pub(crate) mod pulse;
pub(crate) mod redirect;
pub(crate) mod slot;
pub(crate) mod split;
pub(crate) mod topology;

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What is known of the servers as a whole: those of a cluster, or those that
/// sentinels watch.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Under which epoch of theirs was last told who owns what.
    epoch: AtomicU64,
    wanted: Notify,
}

impl Cluster {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What was told is of this epoch, or a newer one.
    pub(crate) fn raise(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Waits until somebody is in doubt.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Asks for the owners of slots to be asked for.
    pub(crate) fn refresh(&self) {
        self.wanted.notify_one();
    }
}
