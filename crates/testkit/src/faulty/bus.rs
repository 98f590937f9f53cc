mod followers;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{
    Announcement, Bus, BusEvent, BusMessage, BusPosition, Error, ErrorKind, Published, Result,
    Subscription, Version,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::FaultyStore;
use followers::Replica;

/// How often a quiet bus says that nothing is missing.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// How far above the last version of an epoch the next one begins.
const EPOCH_STEP: u64 = 1000;

/// A bus within one process that keeps the contract of [`Bus`] and breaks what
/// a test says: messages are lost, the last one included, nothing arrives, or
/// history is gone.
///
/// A `FaultyBus` is one node's place at the bus; clones are the same place, and
/// [`FaultyBus::join`] gives another node a place at the same bus. Faults of a
/// place are those of that node's connection.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
/// # runtime.expect("a runtime").block_on(async {
/// use larder_core::{Announcement, Bus, BusEvent, Change, Subscription, Verb, Version};
/// use larder_testkit::faulty::FaultyBus;
///
/// let one = FaultyBus::new();
/// let two = one.join();
/// let mut heard = two.subscribe(None, Version::ZERO).await.expect("it is there");
/// two.lose(1);
/// let change = Announcement {
///     cache: "album".to_owned(),
///     change: Change::All,
///     verb: Verb::Remove,
/// };
/// one.publish(&change, Version::ZERO).await.expect("it is there");
/// assert!(matches!(heard.next().await, Some(BusEvent::Lost { .. })));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct FaultyBus {
    stream: Arc<Shared>,
    link: Arc<Mutex<Link>>,
}

#[derive(Debug)]
struct Shared {
    stream: Mutex<Stream>,
    /// Says that a message came, or a fault came or went.
    changed: watch::Sender<()>,
}

/// What every node sees.
#[derive(Debug)]
struct Stream {
    epoch: u64,
    /// The sequence of the first message that is kept.
    first: u64,
    messages: VecDeque<BusMessage>,
    version: Version,
    is_shut_down: bool,
    /// Which server it is on: another one after each failover.
    primary: u64,
    /// Stores on the same server, each of one cache.
    followers: Vec<(String, FaultyStore)>,
    /// What a replica has, if there is one.
    replica: Option<Box<Replica>>,
}

/// What one node's connection does.
#[derive(Debug, Default)]
struct Link {
    faults: VecDeque<PublishFault>,
    /// How many messages to come do not arrive here.
    to_lose: u64,
    /// The places in the stream of those that did not.
    lost: Vec<BusPosition>,
    is_stalled: bool,
    /// How often the connection was made anew.
    connections: u64,
    /// The highest version that this node's announcements got.
    known: Version,
}

/// What goes wrong with one call of [`Bus::publish`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PublishFault {
    /// Nothing.
    None,
    /// The call fails, and nobody hears of the change.
    Refused,
    /// The change is announced, and the call fails.
    ReplyLost,
}

impl Stream {
    /// The place of the last message.
    fn head(&self) -> BusPosition {
        let sequence = self.first + self.messages.len() as u64 - 1;
        BusPosition { epoch: self.epoch, sequence }
    }

    /// The message behind this place, if there is one.
    fn after(&self, place: BusPosition) -> Option<&BusMessage> {
        let behind = (place.sequence + 1).checked_sub(self.first)?;
        self.messages.get(usize::try_from(behind).ok()?)
    }

    /// Whether every message behind this place is still there.
    fn continues(&self, place: BusPosition) -> bool {
        let is_kept = place.sequence + 1 >= self.first && place.sequence <= self.head().sequence;
        place.epoch == self.epoch && is_kept
    }
}

impl FaultyBus {
    /// A new bus, and the first node's place at it.
    #[must_use]
    pub fn new() -> Self {
        let stream = Stream {
            epoch: 1,
            first: 1,
            messages: VecDeque::new(),
            version: Version::ZERO,
            is_shut_down: false,
            primary: 1,
            followers: Vec::new(),
            replica: None,
        };
        let changed = watch::Sender::new(());
        let stream = Arc::new(Shared { stream: Mutex::new(stream), changed });
        Self { stream, link: Arc::default() }
    }

    /// Another node's place at the same bus.
    #[must_use]
    pub fn join(&self) -> Self {
        Self { stream: Arc::clone(&self.stream), link: Arc::default() }
    }

    /// Appends faults of this node: each call of `publish` takes the next one.
    pub fn script(&self, faults: impl IntoIterator<Item = PublishFault>) {
        self.link().faults.extend(faults);
    }

    /// Loses the next messages on their way to this node. That one is missing is
    /// noticed by the message behind it or, if that was the last one, by the next
    /// heartbeat.
    pub fn lose(&self, count: u64) {
        self.link().to_lose += count;
    }

    /// Nothing reaches this node any more, heartbeats included. It can still
    /// announce.
    pub fn stall(&self) {
        self.link().is_stalled = true;
    }

    /// Everything that was held back by [`FaultyBus::stall`] arrives.
    pub fn resume(&self) {
        self.link().is_stalled = false;
        self.stream.changed.send_replace(());
    }

    /// Makes this node's connection anew.
    pub fn reconnect(&self) {
        self.link().connections += 1;
        self.stream.changed.send_replace(());
    }

    /// Begins the stream anew: history is forgotten, as by a server that restarts
    /// empty. Versions go on above all of before, as a bus that counts from its
    /// server's clock has it: that a publisher knows some of them is not enough.
    pub fn change_epoch(&self) {
        self.stream().begin_epoch(Version::ZERO);
        self.stream.changed.send_replace(());
    }

    /// Forgets every message so far; places remain comparable.
    pub fn trim(&self) {
        let mut stream = self.stream();
        stream.first += stream.messages.len() as u64;
        stream.messages.clear();
    }

    /// Ends every subscription, and refuses everything from now on.
    pub fn shut_down(&self) {
        self.stream().is_shut_down = true;
        self.stream.changed.send_replace(());
    }

    /// How many messages were announced in this epoch.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.stream().head().sequence
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FaultyBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus for FaultyBus {
    type Subscription = FaultySubscription;

    async fn publish(&self, announcement: &Announcement, after: Version) -> Result<Published> {
        let fault = self.link().faults.pop_front().unwrap_or(PublishFault::None);
        let unreachable = |what| Err(Error::new(ErrorKind::Unavailable, what));
        if fault == PublishFault::Refused || self.stream().is_shut_down {
            return unreachable("the scripted bus is unreachable");
        }
        let published = {
            let mut stream = self.stream();
            let version = Version::new(stream.version.max(after).get() + 1);
            stream.version = version;
            let BusPosition { epoch, sequence } = stream.head();
            let position = BusPosition { epoch, sequence: sequence + 1 };
            let announcement = announcement.clone();
            stream.tell_followers(&announcement, version);
            stream.messages.push_back(BusMessage { position, version, announcement });
            Published { version, position }
        };
        self.stream.changed.send_replace(());
        match fault {
            PublishFault::ReplyLost => unreachable("the scripted bus lost its reply"),
            _ => {
                let mut link = self.link();
                link.known = link.known.max(published.version);
                Ok(published)
            }
        }
    }

    async fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> Result<FaultySubscription> {
        let mut stream = self.stream();
        if stream.is_shut_down {
            return Err(Error::new(ErrorKind::ShuttingDown, "the scripted bus was shut down"));
        }
        stream.version = stream.version.max(known);
        Ok(FaultySubscription {
            changes: self.stream.changed.subscribe(),
            bus: self.clone(),
            place: after.unwrap_or_else(|| stream.head()),
            primary: stream.primary,
            known,
            has_gap: false,
            connections: self.link().connections + stream.primary,
            heartbeat_at: Instant::now() + HEARTBEAT,
        })
    }
}

/// A node's ear at a [`FaultyBus`].
#[derive(Debug)]
pub struct FaultySubscription {
    bus: FaultyBus,
    changes: watch::Receiver<()>,
    /// The last message heard, or lost.
    place: BusPosition,
    known: Version,
    /// Whether messages are missing that nobody was told of yet.
    has_gap: bool,
    connections: u64,
    /// The server that the place was heard from last.
    primary: u64,
    heartbeat_at: Instant,
}

impl FaultySubscription {
    /// What there is to say now; an `Err` if nothing is before the heartbeat, or
    /// before something changes.
    fn look(&mut self, is_heartbeat: bool) -> Result<Option<BusEvent>, ()> {
        let bus = self.bus.clone();
        let mut stream = bus.stream();
        let mut link = bus.link();
        if stream.is_shut_down {
            return Ok(None);
        }
        if link.is_stalled {
            return Err(());
        }
        let connections = link.connections + stream.primary;
        if connections > self.connections {
            self.connections = connections;
            return Ok(Some(BusEvent::Reconnected));
        }
        if !stream.continues(self.place) {
            if self.place.epoch == stream.epoch && self.place.sequence > stream.head().sequence {
                // The server lacks what it had: that is another history.
                let known = self.known.max(link.known);
                stream.begin_epoch(known);
            }
            let is_intact = self.place.epoch == stream.epoch && self.primary == stream.primary;
            self.place = stream.head();
            self.primary = stream.primary;
            return Ok(Some(self.lost(&mut stream, &link, is_intact)));
        }
        while let Some(message) = stream.after(self.place).cloned() {
            if link.loses(message.position) {
                self.has_gap = true;
                self.place = message.position;
                continue;
            }
            if self.has_gap {
                return Ok(Some(self.lost(&mut stream, &link, true)));
            }
            self.place = message.position;
            self.primary = stream.primary;
            self.known = self.known.max(message.version);
            return Ok(Some(BusEvent::Message(message)));
        }
        if !is_heartbeat {
            return Err(());
        }
        if self.has_gap {
            return Ok(Some(self.lost(&mut stream, &link, true)));
        }
        self.primary = stream.primary;
        let version = stream.version.max(self.known);
        Ok(Some(BusEvent::Current { age: Duration::ZERO, head: self.place, version }))
    }

    fn lost(&mut self, stream: &mut Stream, link: &Link, is_intact: bool) -> BusEvent {
        self.has_gap = false;
        self.known = self.known.max(link.known);
        // Above all that was known: what was loaded before is told by its version.
        stream.version = stream.version.max(Version::new(self.known.get() + 1));
        self.known = stream.version;
        BusEvent::Lost { head: self.place, version: self.known, is_intact }
    }
}

impl Link {
    /// Whether a message does not arrive here; for every subscription alike.
    fn loses(&mut self, position: BusPosition) -> bool {
        if self.lost.contains(&position) {
            return true;
        }
        let is_lost = self.to_lose > 0;
        if is_lost {
            self.to_lose -= 1;
            self.lost.push(position);
        }
        is_lost
    }
}

impl Subscription for FaultySubscription {
    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            self.changes.mark_unchanged();
            let is_heartbeat = Instant::now() >= self.heartbeat_at;
            if let Ok(event) = self.look(is_heartbeat) {
                if matches!(event, Some(BusEvent::Current { .. } | BusEvent::Lost { .. })) {
                    self.heartbeat_at = Instant::now() + HEARTBEAT;
                }
                return event;
            }
            if is_heartbeat {
                // It stalls, so that there is nothing to say at this one.
                self.heartbeat_at = Instant::now() + HEARTBEAT;
            }
            tokio::select! {
                // The bus holds the other end.
                _ = self.changes.changed() => {}
                () = tokio::time::sleep_until(self.heartbeat_at) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
