//! The ear of a fleet.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::select;
use larder_core::{BusEvent, BusMessage, BusPosition, DynSubscription, Version};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Member, Place, Progress, Shared};

/// Between two attempts to subscribe.
const PAUSE: Duration = Duration::from_millis(250);

/// A subscription, and whether it has said yet from where it goes on.
pub(super) struct Ear {
    subscription: Box<dyn DynSubscription>,
    is_new: bool,
}

impl Ear {
    pub(super) fn new(subscription: Box<dyn DynSubscription>) -> Self {
        Self { subscription, is_new: true }
    }

    /// Hears how far the changes have come, so that what is loaded from now on is
    /// numbered from there; not at all costs.
    pub(super) async fn begin(mut self, shared: &Shared) -> Self {
        let begun = async {
            while self.is_new && self.next(|event, is_new| shared.heed(event, is_new)).await {}
        };
        let _ = tokio::time::timeout(shared.options.timeout, begun).await;
        self
    }

    /// Hears one event. Returns whether there are more to come.
    async fn next(&mut self, heed: impl FnOnce(BusEvent, bool) -> Heed) -> bool {
        let Some(event) = self.subscription.next().await else { return false };
        match heed(event, self.is_new) {
            Heed::Unbegun => true,
            Heed::Begun => {
                self.is_new = false;
                true
            }
            Heed::Gone => false,
        }
    }
}

/// What became of an event.
enum Heed {
    /// It did not say from where the subscription goes on.
    Unbegun,
    Begun,
    /// Nobody is there any more to hear it.
    Gone,
}

/// Hears until the fleet is gone, also while the bus says nothing.
pub(super) async fn listen(
    fleet: Weak<Shared>,
    ear: Option<Ear>,
    mut presence: watch::Receiver<()>,
) {
    let listening = std::pin::pin!(hear_on(fleet, ear));
    let gone = std::pin::pin!(presence.changed());
    let _ = select(listening, gone).await;
}

async fn hear_on(fleet: Weak<Shared>, mut ear: Option<Ear>) {
    let heed =
        |event, is_new| fleet.upgrade().map_or(Heed::Gone, |shared| shared.heed(event, is_new));
    loop {
        if let Some(mut ear) = ear.take() {
            while ear.next(heed).await {}
        }
        let Some(shared) = fleet.upgrade() else { return };
        let pause = match shared.subscribe().await {
            Ok(subscription) => {
                ear = Some(Ear::new(subscription));
                continue;
            }
            Err(error) if error.is_retryable() => PAUSE,
            Err(error) => {
                tracing::error!(%error, "the bus refuses this node; memory is not trusted");
                PAUSE * 20
            }
        };
        drop(shared);
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
    }
}

impl Shared {
    fn heed(&self, event: BusEvent, is_new: bool) -> Heed {
        // What this process holds when it begins to listen may be older than what it
        // did not hear.
        let begun_at = match &event {
            BusEvent::Current { version, .. } | BusEvent::Lost { version, .. } => Some(*version),
            BusEvent::Message(message) => Some(message.version),
            _ => None,
        };
        if let Some(version) = begun_at.filter(|_| is_new) {
            self.begin_anew(version);
        }
        self.hear(event);
        if begun_at.is_some() { Heed::Begun } else { Heed::Unbegun }
    }

    fn hear(&self, event: BusEvent) {
        match event {
            BusEvent::Message(message) => {
                // Before the caches hear: a put that has looked at the count under a
                // key's lock is found by the cache that takes the lock afterwards.
                self.observe(message.version);
                self.counts.heard.fetch_add(1, Ordering::Relaxed);
                for member in self.members_of(&message.announcement.cache) {
                    tell(&member, &message);
                }
                for listener in self.listeners() {
                    listener.heard(&message);
                }
                self.reach(message.position, message.version);
            }
            BusEvent::Current { age, head, version } => {
                self.observe(version);
                self.reach(head, version);
                *self.current.lock() = Some((Instant::now(), age));
                let Some(remaining) = self.remaining() else { return };
                for member in self.all_members() {
                    member.trust_for(remaining);
                }
            }
            BusEvent::Lost { head, version, is_intact } => {
                self.counts.gaps.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    %version, is_intact, "changes were missed: what is in memory is in doubt"
                );
                self.doubt(version, is_intact);
                self.reach(head, version);
            }
            BusEvent::Reconnected => {
                self.counts.reconnections.fetch_add(1, Ordering::Relaxed);
                self.outbox.lock().again();
                self.mail.notify_one();
            }
            _ => {}
        }
    }

    /// Notes how far has been heard, after the caches have: what is noted of a place
    /// is true of them.
    fn reach(&self, position: BusPosition, version: Version) {
        let ear = self.ears.load(Ordering::Acquire);
        self.proceed(|progress| progress.reach(Place { position, version, ear }));
    }

    fn begin_anew(&self, version: Version) {
        self.observe(version);
        self.proceed(Progress::begin_anew);
        self.ears.fetch_add(1, Ordering::AcqRel);
        for member in self.all_members() {
            member.begin_anew(version);
        }
    }

    fn doubt(&self, version: Version, is_intact: bool) {
        self.observe(version);
        for member in self.all_members() {
            match is_intact {
                true => member.missed_below(version),
                false => member.doubt_below(version),
            }
        }
    }
}

/// Keys are read by foreign code: where it panics nobody can say what was touched.
fn tell(member: &Arc<dyn Member>, message: &BusMessage) {
    let BusMessage { version, announcement, .. } = message;
    let hear = || Arc::clone(member).hear(&announcement.change, announcement.verb, *version);
    if catch_unwind(AssertUnwindSafe(hear)).is_err() {
        tracing::error!(cache = announcement.cache, "a key of a change could not be read");
        member.doubt_below(*version);
    }
}
