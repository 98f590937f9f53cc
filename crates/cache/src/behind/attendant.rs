//! The caches over write-behind: told before their keys are written at the origin, and
//! after.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{BoxFuture, Error, ErrorKind, Key, Result, Value};

use super::strand::Strand;
use super::{WriteBehind, no_such_cache, shutting_down};
use crate::sync::Mutex;

/// A key whose writes the origin has, or that are dead letters, and what it has now
/// where the origin said so.
pub(crate) type Settled = (Key, Option<Value<Bytes>>);

/// Who is told of the writes of one cache.
pub(crate) trait Attendant: Send + Sync + 'static {
    /// Writes of these keys are about to be sent to the origin, whose answer may take
    /// this long. Returns a number under which they are announced.
    fn before(self: Arc<Self>, keys: Vec<Key>, within: Duration) -> BoxFuture<'static, u64>;

    /// A write of this key was accepted by other ways than the cache.
    fn accepted(&self, key: &Key);

    /// What was sent is settled. Without a number nobody was told before.
    fn after(self: Arc<Self>, settled: Vec<Settled>, number: Option<u64>)
    -> BoxFuture<'static, ()>;
}

/// Where a strand keeps its attendant.
pub(super) struct Attention(Mutex<Attended>);

enum Attended {
    /// Nobody has come yet. These keys were settled meanwhile; `None`: too many.
    NotYet(Option<Vec<Key>>),
    By(Weak<dyn Attendant>),
}

/// Keys that are remembered for one who comes late.
const MISSED_MAX: usize = 1024;

impl Attention {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Attended::NotYet(Some(Vec::new()))))
    }

    /// Tells that keys are about to be written.
    pub(super) async fn before(&self, keys: Vec<Key>, within: Duration) -> Option<u64> {
        let attendant = self.attendant()?;
        Some(attendant.before(keys, within).await)
    }

    /// Tells that a write was accepted that nobody made through the cache.
    pub(super) fn accepted(&self, key: &Key) {
        if let Some(attendant) = self.attendant() {
            attendant.accepted(key);
        }
    }

    /// Tells that keys were written, or remembers it for who comes later.
    pub(super) async fn after(&self, settled: Vec<Settled>, number: Option<u64>) {
        if settled.is_empty() {
            return;
        }
        let attendant = match &mut *self.0.lock() {
            Attended::By(attendant) => attendant.upgrade(),
            Attended::NotYet(missed) => {
                if let Some(keys) = missed {
                    keys.extend(settled.into_iter().map(|(key, _)| key));
                    if keys.len() > MISSED_MAX {
                        *missed = None;
                    }
                }
                return;
            }
        };
        if let Some(attendant) = attendant {
            attendant.after(settled, number).await;
        }
    }

    fn attendant(&self) -> Option<Arc<dyn Attendant>> {
        match &*self.0.lock() {
            Attended::By(attendant) => attendant.upgrade(),
            Attended::NotYet(_) => None,
        }
    }

    /// Returns which keys were settled before.
    fn attend(&self, attendant: Weak<dyn Attendant>) -> Result<Option<Vec<Key>>> {
        let mut attended = self.0.lock();
        if let Attended::By(other) = &*attended
            && other.strong_count() > 0
        {
            return Err(Error::new(ErrorKind::Config, "another cache writes behind by this name")
                .remedy("give each of them a name of its own"));
        }
        match std::mem::replace(&mut *attended, Attended::By(attendant)) {
            Attended::NotYet(missed) => Ok(missed),
            // What was settled while there was none.
            Attended::By(_) => Ok(None),
        }
    }
}

/// For the caches that write behind.
impl WriteBehind {
    /// Has an attendant told of the writes of a cache from now on. Returns the keys
    /// that were settled before; `None`: too many to tell.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the cache is no target, or has an attendant.
    pub(crate) fn attend(
        &self,
        cache: &str,
        attendant: &Weak<dyn Attendant>,
    ) -> Result<Option<Vec<Key>>> {
        let mut missed = Some(Vec::new());
        for lane in &self.shared().lanes {
            let Some(strand) = lane.strands.get(cache) else {
                return Err(Error::new(ErrorKind::Config, no_such_cache(cache).to_string())
                    .remedy("name the cache among the targets of WriteBehind::open"));
            };
            match (strand.attention.attend(attendant.clone())?, &mut missed) {
                (Some(keys), Some(all)) => all.extend(keys),
                _ => missed = None,
            }
        }
        Ok(missed)
    }

    /// Waits until what the origin has of a key can be told from what waits: nothing of
    /// it is on its way, and the origin has said what it has.
    pub(crate) async fn quiet(&self, cache: &str, key: &Key) -> Result<()> {
        self.until(cache, key, |strand| {
            strand.pending(key).is_none_or(|it| it.certain && !it.applying)
        })
        .await
    }

    /// Has the writes of a key applied now that were accepted before this call.
    pub(crate) async fn apply_now(&self, cache: &str, key: &Key) -> Result<()> {
        let lane = self.shared().lane(key);
        let Some((strand, last)) =
            lane.strands.get(cache).and_then(|strand| Some((strand, strand.pending(key)?.offset)))
        else {
            return Ok(());
        };
        strand.flush(last.0);
        self.until(cache, key, |strand| strand.pending(key).is_none_or(|it| it.first > last)).await
    }

    async fn until(&self, cache: &str, key: &Key, holds: impl Fn(&Strand) -> bool) -> Result<()> {
        let shared = self.shared();
        let strand = shared.lane(key).strands.get(cache).ok_or_else(|| no_such_cache(cache))?;
        loop {
            let mut progress = pin!(strand.progress.notified());
            progress.as_mut().enable();
            if holds(strand) {
                return Ok(());
            }
            if let Some(error) = strand.stopped() {
                return Err(error);
            }
            if shared.is_stopped() {
                return Err(shutting_down());
            }
            progress.await;
        }
    }
}
