use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_core::ErrorKind;
use larder_memory::RemovalCause;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::hit::StaleReason;
use crate::sync::Mutex;

/// Something that happened in a cache.
#[derive(Clone, Debug)]
pub struct Event<K> {
    /// What happened.
    pub kind: EventKind,
    /// The key it happened to. `None` for tags and whole caches, and after a look
    /// that found nothing.
    pub key: Option<K>,
}

/// What happened. The first ten are the ways a read ends: each read is
/// exactly one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A read was answered from memory, fresh.
    Hit,
    /// A read was answered stale.
    Stale {
        /// Time since the read at the origin began.
        age: Duration,
        /// Why.
        reason: StaleReason,
    },
    /// A read was answered by a load that another cache had given something stale.
    Derived {
        /// Time since the read at the origin began.
        age: Duration,
        /// Why what it was given was stale.
        reason: StaleReason,
    },
    /// A read that does not load found nothing.
    Missed,
    /// A read was answered by a load that it began.
    Answered,
    /// A read was answered by a store below memory, which it asked.
    Found,
    /// A read was answered by a load that another had begun.
    Joined,
    /// A read was answered with the declared fallback.
    Fallback,
    /// A read ended in an error.
    Failed(ErrorKind),
    /// A load finished.
    Loaded {
        /// What it took.
        cost: Duration,
    },
    /// A load failed.
    LoadFailed(ErrorKind),
    /// A refresh began in the background.
    Refreshed,
    /// A refresh was due and the origin had no place or no health for it, or it
    /// would have come too soon after one that was given something stale.
    RefreshSkipped,
    /// A load finished after its key was invalidated or written, or its tag or the
    /// whole cache removed: its answer was not kept.
    Fenced,
    /// A value was put.
    Put,
    /// The origin has committed a write.
    Written,
    /// A value was changed in place.
    Updated,
    /// A key was expired.
    ExpiredKey,
    /// A key was removed.
    RemovedKey,
    /// A tag was expired.
    ExpiredTag,
    /// A tag was removed.
    RemovedTag,
    /// The cache was cleared.
    Cleared,
    /// An entry left memory.
    LeftMemory(RemovalCause),
}

/// A subscription to the events of one cache.
#[derive(Debug)]
pub struct Events<K>(broadcast::Receiver<Event<K>>);

impl<K: Clone> Events<K> {
    pub(crate) fn new(receiver: broadcast::Receiver<Event<K>>) -> Self {
        Self(receiver)
    }

    /// The next event. `Err(n)`: this subscriber was too slow and `n` events
    /// were dropped. `None`: the cache is gone.
    ///
    /// # Cancel safety
    /// A dropped wait loses no event.
    pub async fn next(&mut self) -> Option<Result<Event<K>, u64>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(dropped)) => Some(Err(dropped)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// How many events a slow subscriber may lie behind before it loses the oldest.
const EVENTS_KEPT: usize = 4096;

/// Who listens. The channel is made for the first who does: a cache that nobody
/// watches pays one relaxed read an event.
pub(crate) struct Subscribers<K> {
    any: AtomicBool,
    sender: Mutex<Option<broadcast::Sender<Event<K>>>>,
}

impl<K: Clone> Subscribers<K> {
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    #[cold]
    pub(crate) fn send(&self, kind: EventKind, key: Option<K>) {
        let mut sender = self.sender.lock();
        let Some(channel) = &*sender else { return };
        if channel.send(Event { kind, key }).is_err() {
            // The last subscriber left.
            *sender = None;
            self.any.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event<K>> {
        let mut sender = self.sender.lock();
        let receiver = match &*sender {
            Some(channel) => channel.subscribe(),
            None => {
                let (channel, receiver) = broadcast::channel(EVENTS_KEPT);
                *sender = Some(channel);
                receiver
            }
        };
        self.any.store(true, Ordering::Relaxed);
        receiver
    }
}

impl<K> Default for Subscribers<K> {
    fn default() -> Self {
        Self { any: AtomicBool::new(false), sender: Mutex::new(None) }
    }
}
