//! What was said while this process was not there, for stores that were.

use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::{
    BusEvent, BusMessage, BusPosition, DynSubscription, Error, ErrorKind, Result, Version,
};
use tokio::sync::mpsc;

use super::{Fleet, Place, Shared};

/// How many messages wait for whoever tells its store of them.
const WAITING_MAX: usize = 256;

/// Caches ask at about the same time, when a process starts: what they have in
/// common is read once.
const GATHERING: Duration = Duration::from_millis(5);

/// What a replay brings.
pub(crate) enum Replayed {
    /// A change of this cache, or of several.
    Message(Arc<BusMessage>),
    /// History is missing: what is older than this version may have been
    /// invalidated without a word.
    Lost(Version),
    /// Nothing more is missing, and what this ear hears comes next.
    Done(Place),
}

/// A cache that wants to hear what it missed.
pub(super) struct Request {
    /// About which cache; `None`: about all of them.
    cache: Option<String>,
    after: Option<BusPosition>,
    known: Version,
    listener: mpsc::Sender<Replayed>,
}

impl Fleet {
    /// What was said about a cache, or about all, from this place on up to where this
    /// process listens; `None`: nobody knows from where. `known` is the highest version that
    /// its store knows: what is announced from now on is newer. Several caches that
    /// ask together cost one subscription. Ends without [`Replayed::Done`] if the
    /// bus cannot be heard now.
    pub(crate) fn replay(
        &self,
        cache: Option<&str>,
        after: Option<BusPosition>,
        known: Version,
    ) -> mpsc::Receiver<Replayed> {
        let (listener, replayed) = mpsc::channel(WAITING_MAX);
        let request = Request { cache: cache.map(str::to_owned), after, known, listener };
        // Whoever serves it goes with the fleet only; then the listener hears the end.
        let _ = self.0.replays.send(request);
        replayed
    }
}

/// Serves requests until the fleet is gone.
pub(super) async fn serve(fleet: Weak<Shared>, mut requests: mpsc::UnboundedReceiver<Request>) {
    while let Some(request) = requests.recv().await {
        tokio::time::sleep(GATHERING).await;
        let mut waiting = vec![request];
        while let Ok(request) = requests.try_recv() {
            waiting.push(request);
        }
        while let Some(first) = waiting.first() {
            let after = first.after;
            let together = waiting.extract_if(.., |request| request.after == after).collect();
            let Some(shared) = fleet.upgrade() else { return };
            // Who asked hears that it has ended.
            if let Err(error) = shared.replay_to(together, after).await {
                tracing::debug!(%error, "what was missed cannot be heard now");
            }
        }
    }
}

impl Shared {
    async fn replay_to(&self, requests: Vec<Request>, after: Option<BusPosition>) -> Result<()> {
        let unheard = || Error::new(ErrorKind::Unavailable, "the bus is not heard");
        // First: what comes later is heard by the ear.
        let ear = self.place().ok_or_else(unheard)?;
        let known = requests.iter().map(|request| request.known).max().unwrap_or_default();
        let known = known.max(self.heard());
        let mut subscription = self.within(self.bus.subscribe(after, known)).await?;
        let mut lost = after.is_none();
        loop {
            match self.next_of(&mut *subscription).await? {
                BusEvent::Message(message) => {
                    let message = Arc::new(message);
                    for request in &requests {
                        let about = &message.announcement.cache;
                        if request.cache.as_ref().is_none_or(|cache| cache == about) {
                            request.tell(Replayed::Message(Arc::clone(&message))).await;
                        }
                    }
                }
                BusEvent::Lost { .. } => lost = true,
                BusEvent::Current { head, version, .. } => {
                    self.observe(version);
                    for request in &requests {
                        if lost || !ear.is_reached_by(head) {
                            request.tell(Replayed::Lost(version)).await;
                        }
                        request.tell(Replayed::Done(ear)).await;
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn next_of(&self, subscription: &mut dyn DynSubscription) -> Result<BusEvent> {
        let next = tokio::time::timeout(self.options.staleness_bound, subscription.next()).await;
        next.ok()
            .flatten()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the bus fell silent in a replay"))
    }
}

impl Request {
    async fn tell(&self, replayed: Replayed) {
        // Who does not listen any more has given up.
        let _ = self.listener.send(replayed).await;
    }
}
