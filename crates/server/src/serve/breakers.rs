//! Says in the log when an origin is left alone because it keeps failing, and
//! when it is asked again.
//!
//! The breakers are looked at, not listened to: a subscription to the events of
//! a cache would cost each of its hits a lock.

use std::time::Duration;

use larder::BreakerState;
use larder_core::Clock;

use super::connect::OpenOrigin;

/// How often the breakers are looked at. One that opens and closes in between
/// is not noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a database may take to say what is wrong with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches the breakers of these origins for ever.
pub(super) async fn watch(origins: Vec<OpenOrigin>) {
    let clock = Clock::monotonic();
    let mut watched: Vec<_> = origins.into_iter().map(|origin| (origin, false)).collect();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for (origin, was_open) in &mut watched {
            // Half open is not yet closed: one load is tried, or will be.
            let is_open = origin.guard.breaker_state(&clock) != BreakerState::Closed;
            if is_open != std::mem::replace(was_open, is_open) {
                tell(origin, is_open).await;
            }
        }
    }
}

async fn tell(origin: &OpenOrigin, is_open: bool) {
    let name = &origin.name;
    if !is_open {
        tracing::info!("the breaker of the origin `{name}` closed: its database answers again");
        return;
    }
    let found = match tokio::time::timeout(PATIENCE, origin.database.ping()).await {
        Ok(Ok(())) => "it answers a ping".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer to a ping within {PATIENCE:?}"),
    };
    tracing::warn!(
        "the breaker of the origin `{name}` opened, because loads from its database failed: it is \
         left alone for a while, and readers get what may stand in for an answer ({found})"
    );
}
