use std::hash::Hash;

use larder_core::Moment;

use crate::roster::BATCH;
use crate::statistics::Swept;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::tier::MemoryTier;

/// Where the background work stands.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    /// The shard whose timers come first next time.
    first_shard: AtomicU32,
    lap: Mutex<Lap>,
}

/// A walk over all entries that looks for invalidated ones. One begins after a
/// removal by tag or a clear, and goes on a bounded way with each sweep.
#[derive(Debug, Default)]
struct Lap {
    /// Removals up to this count have left nothing behind.
    done: u64,
    /// The count of removals when the lap in progress began.
    goal: Option<u64>,
    shard: usize,
    place: u32,
    /// One ended, and no sweep since has said that there is no more to do: the
    /// next one waits for that, so that there is no more than one between two
    /// pauses of whoever sweeps.
    rests: bool,
}

impl<K, V> MemoryTier<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Gives back the memory of entries whose time is up, found by timer, and of
    /// entries that were cleared or whose tag was removed, found by a walk over
    /// all that goes on a little with each call. Also that of tags whose entries
    /// have left.
    ///
    /// Looks at no more than `most` entries of each kind. Calls at the same time
    /// share the work. To be called again as long as there is [`Swept::more`], and
    /// then after a pause: between two pauses it walks over all entries no more
    /// than once, however many tags are removed meanwhile.
    pub fn sweep(&self, now: Moment, most: usize) -> Swept {
        let mut swept = Swept::default();
        self.settle_graduals(now);
        self.sweep_due(now, most, &mut swept);
        self.sweep_invalidated(now, most, &mut swept);
        swept.more |= self.tags().tidy();
        swept
    }

    /// When a sweep may next have something to do: not before this moment, if
    /// nothing is put in or invalidated meanwhile. [`Moment::NEVER`] if nothing
    /// held ever expires.
    #[must_use]
    pub fn next_sweep(&self, now: Moment) -> Moment {
        let walking =
            self.sweeper.lap.try_lock().is_none_or(|lap| {
                lap.goal.is_some() || lap.done != self.invalidations().removals()
            });
        if walking || self.tags().wants_tidying() {
            now
        } else {
            self.roster.next_moment().min(self.graduals_end()).max(now)
        }
    }

    fn sweep_due(&self, now: Moment, most: usize, swept: &mut Swept) {
        let shards = self.roster.shards();
        let first = self.sweeper.first_shard.fetch_add(1, Ordering::Relaxed) as usize;
        let mut visits = most;
        for shard in (0..shards).map(|offset| (first + offset) % shards) {
            loop {
                if visits == 0 {
                    swept.more = true;
                    return;
                }
                let mut due = Vec::with_capacity(BATCH);
                self.roster.take_due(shard, now, &mut visits, &mut due);
                for handle in &due {
                    let cause = crate::RemovalCause::Expired;
                    swept.expired += usize::from(self.discard(handle, cause, Some(now)));
                }
                if due.len() < BATCH && visits > 0 {
                    break;
                }
            }
        }
    }

    fn sweep_invalidated(&self, now: Moment, most: usize, swept: &mut Swept) {
        let removals = self.invalidations().removals();
        // Whoever holds the lock does the work.
        let Some(mut lap) = self.sweeper.lap.try_lock() else { return };
        if lap.goal.is_none() {
            if lap.rests || lap.done == removals {
                lap.rests &= swept.more;
                return;
            }
            *lap = Lap { done: lap.done, goal: Some(removals), ..Lap::default() };
        }
        let mut left = most;
        let mut dead = Vec::new();
        while lap.shard < self.roster.shards() {
            if left == 0 {
                swept.more = true;
                break;
            }
            let mut nodes = Vec::with_capacity(BATCH);
            match self.roster.scan(lap.shard, lap.place, &mut left, &mut nodes) {
                Some(place) => lap.place = place,
                None => (lap.shard, lap.place) = (lap.shard + 1, 0),
            }
            dead.extend(nodes.into_iter().filter_map(|handle| {
                let cause = self.death(&handle, Some(now))?;
                Some((handle, cause))
            }));
        }
        if lap.shard >= self.roster.shards()
            && let Some(goal) = lap.goal.take()
        {
            // What was removed since the lap began takes another one, but later.
            lap.done = goal;
            lap.rests = swept.more;
        }
        // A listener may sweep.
        drop(lap);
        for (handle, cause) in dead {
            swept.invalidated += usize::from(self.discard(&handle, cause, Some(now)));
        }
    }
}
