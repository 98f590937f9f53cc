//! Upkeep in the background: what has expired gives its memory back, and stores that
//! others read are told what they could not be told at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::{CacheKey, CacheValue, Engine};

/// How often expired entries are looked for.
const EVERY: Duration = Duration::from_millis(250);

/// How many entries one turn reclaims before it lets others run.
const BATCH: usize = 4096;

/// Starts the upkeep of a cache. It ends with the cache or its runtime, and does
/// not start without one: then each write reclaims a little.
pub(crate) fn start<K: CacheKey, V: CacheValue>(engine: &Arc<Engine<K, V>>) {
    let (runtime, clock) = (engine.runtime.clone(), engine.clock.clone());
    let engine = Arc::downgrade(engine);
    let sleeper = runtime.clone();
    runtime.spawn_upkeep(async move {
        loop {
            match turn(&engine) {
                Turn::Done => sleeper.sleep_until(&clock, clock.precise_now() + EVERY).await,
                Turn::More => tokio::task::yield_now().await,
                Turn::Gone => return,
            }
        }
    });
}

enum Turn {
    Done,
    More,
    Gone,
}

fn turn<K: CacheKey, V: CacheValue>(engine: &Weak<Engine<K, V>>) -> Turn {
    let Some(engine) = engine.upgrade() else { return Turn::Gone };
    let swept = engine.memory.sweep(engine.clock.now(), BATCH);
    if !swept.more {
        engine.tell_stores_again();
        engine.catch_up_later();
    }
    if swept.more { Turn::More } else { Turn::Done }
}
