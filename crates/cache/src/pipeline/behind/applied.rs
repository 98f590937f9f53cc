//! What is told when writes that waited are applied.

use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::{BoxFuture, Change, Error, ErrorKind, Key, Result, Verb};

use super::Behind;
use crate::behind::{Attendant, Settled};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::fleet::Announced;
use crate::flight::Hold;
use crate::pipeline::stores::Fill;
use crate::pipeline::through::Held;
use crate::telemetry::EventKind;

impl<K: CacheKey, V: CacheValue> Attendant for Engine<K, V> {
    fn before(self: Arc<Self>, keys: Vec<Key>, within: Duration) -> BoxFuture<'static, u64> {
        Box::pin(async move { self.before_applied(keys, within).await })
    }

    fn accepted(&self, key: &Key) {
        let Some(behind) = &self.behind else { return };
        if let Some(key) = (behind.decode)(key) {
            // What the stores learn, they learn once it is applied.
            let _ = self.show_settled(behind, &key, None);
        }
    }

    fn after(
        self: Arc<Self>,
        settled: Vec<Settled>,
        number: Option<u64>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.after_applied(settled, number).await })
    }
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Hears of what is applied from now on. What was before is told to the others now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the cache is none of those whose writes wait there.
    pub(crate) fn attend_behind(self: &Arc<Self>) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let attendant: Arc<dyn Attendant> = Arc::clone(self) as _;
        let attendant: Weak<dyn Attendant> = Arc::downgrade(&attendant);
        let missed = behind.writes.attend(&behind.cache, &attendant);
        let missed = missed.map_err(|error| error.with("cache", &self.name))?;
        let engine = Arc::clone(self);
        match missed {
            Some(keys) if keys.is_empty() => {}
            Some(keys) => self.runtime.spawn(async move {
                let settled = keys.into_iter().map(|key| (key, None)).collect();
                engine.after_applied(settled, None).await;
            }),
            None => self.clear_now(),
        }
        Ok(())
    }

    /// Refuses a journal of this process alone beside other nodes, which would write the
    /// same keys in an order of their own.
    pub(crate) fn refuse_other_writers(&self, is_only_writer: bool) -> Result<()> {
        let Some(behind) = self.behind.as_ref().filter(|_| self.seat.is_some()) else {
            return Ok(());
        };
        if behind.writes.profile().shared || is_only_writer {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            "a journal of this process alone, and other nodes that may write the same keys",
        )
        .with("cache", &self.name)
        .remedy(
            "declare `only_writer` if no other node writes them, use a journal that the nodes \
             share, or write through",
        ))
    }

    /// The others keep nothing of these keys from now on, nor do the stores.
    async fn before_applied(&self, keys: Vec<Key>, within: Duration) -> u64 {
        let number = fastrand::u64(..);
        let decoded = self.keys_behind(&keys);
        let (version, is_announced) = match &self.seat {
            None => {
                self.meet_stores().await;
                (self.begin_version(), false)
            }
            Some(seat) => {
                let abilities = self.origin.as_ref().map(|origin| origin.write_abilities());
                let settles = self.write_ends_within(&abilities.unwrap_or_default());
                let change = Change::Writing { keys, write: number, within: within + settles };
                let Announced { version, outcome } =
                    seat.announce(&self.name, change, Verb::Remove).await;
                self.meet_stores().await;
                (version, outcome.is_ok())
            }
        };
        self.invalidate_stores(&decoded, version, Verb::Remove, is_announced).await;
        number
    }

    /// The origin has them, or they are dead letters.
    async fn after_applied(&self, settled: Vec<Settled>, number: Option<u64>) {
        let Some(behind) = &self.behind else { return };
        let keys: Vec<Key> = settled.iter().map(|(key, _)| key.clone()).collect();
        let keys = self.keys_behind(&keys);
        if number.is_none() {
            // Nobody was told before.
            self.meet_stores().await;
            self.invalidate_stores(&keys, self.begin_version(), Verb::Remove, false).await;
        }
        let hold = Hold(number.unwrap_or_else(|| fastrand::u64(..)));
        // At once, so that what is accepted next is made to what the origin has now.
        let fills = self.show_all_settled(behind, &settled);
        // What cannot be announced now is announced later.
        let held = Held { keys: keys.into(), hold };
        let _ = self.end_write(&held, &[]).await;
        if self.seat.is_some() {
            // What was announced took it out of memory, here, too.
            self.show_all_settled(behind, &settled);
        }
        held.keys.iter().for_each(|key| self.telemetry.record(EventKind::Written, Some(key)));
        if !fills.is_empty() {
            self.fill(fills).await;
        }
    }

    fn show_all_settled(&self, behind: &Behind<K, V>, settled: &[Settled]) -> Vec<Fill<K, V>> {
        let show = |(key, now): &Settled| {
            let key = (behind.decode)(key)?;
            self.show_settled(behind, &key, now.as_ref())
        };
        settled.iter().filter_map(show).collect()
    }

    fn keys_behind(&self, keys: &[Key]) -> Vec<K> {
        let behind = self.behind.iter();
        behind.flat_map(|behind| keys.iter().filter_map(behind.decode)).collect()
    }
}
