use std::fmt;
use std::sync::Arc;

use larder_core::{BusEvent, BusMessage, BusPosition, Moment, Result, Subscription, Version};
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::connector::{Open, Pushes};
use crate::continuity::{Place, Verdict};
use crate::failure::failed;
use crate::message::{MessageId, decode, read_push};
use crate::primary_id::PrimaryId;
use crate::script::{Call, POLL};
use crate::shared::{Shared, call_over};
use crate::state::State;

/// How many messages one look brings at most.
const LOOK_MESSAGES_MAX: usize = 128;

/// How many events wait for a subscriber. When it is slower than that, the
/// stream keeps what follows.
const EVENTS_MAX: usize = 512;

/// A subscription to a [`crate::RedisBus`].
///
/// A task of its own holds the connection. Messages are pushed as they are
/// announced, and every heartbeat asks for the number of the last one: one
/// request and one answer prove that none is missing, that the history is still
/// the same one, and that the server is the primary. What a push left out is
/// read from the stream.
///
/// In a cluster [`BusEvent::Reconnected`] comes also when another server has
/// taken over a slot, wherever that was: the entries there may lack what was
/// announced last.
pub struct RedisSubscription {
    shared: Arc<Shared>,
    events: mpsc::Receiver<Heard>,
    task: AbortHandle,
}

/// An event, and when it was asked for.
struct Heard {
    event: BusEvent,
    asked: Moment,
}

impl RedisSubscription {
    /// Connects and looks once. Six round trips.
    pub(crate) async fn open(shared: Arc<Shared>, after: Option<BusPosition>) -> Result<Self> {
        let (mut session, state) = Session::open(&shared).await?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mut follower = Follower {
            shared: Arc::clone(&shared),
            sender,
            place: Place::head(&state),
            heard_from: None,
            changes: None,
        };
        if let Some(BusPosition { epoch, sequence }) = after {
            follower.place = Place { epoch, sequence, nonce: None, version: state.version };
        }
        // What one look finds fits in the channel.
        if let Err(Ended::Failed(error)) = follower.look(&mut session).await {
            return Err(error);
        }
        let task = tokio::spawn(follower.run(session)).abort_handle();
        Ok(Self { shared, events, task })
    }
}

impl Subscription for RedisSubscription {
    async fn next(&mut self) -> Option<BusEvent> {
        let Heard { event, asked } = self.events.recv().await?;
        Some(match event {
            // It may have waited here.
            BusEvent::Current { head, version, .. } => {
                BusEvent::Current { age: self.shared.time.now().since(asked), head, version }
            }
            event => event,
        })
    }
}

impl Drop for RedisSubscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for RedisSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSubscription").field("waiting", &self.events.len()).finish()
    }
}

/// Why a session is over.
enum Ended {
    /// The connection, or what came over it, is of no use.
    Failed(larder_core::Error),
    /// Nobody listens any more.
    Unheard,
}

impl From<larder_core::Error> for Ended {
    fn from(error: larder_core::Error) -> Self {
        Self::Failed(error)
    }
}

/// What a look found.
#[derive(PartialEq, Eq)]
enum Look {
    Current,
    More,
}

/// A connection to the primary that pushes messages.
struct Session {
    open: Open,
    pushes: Pushes,
    /// Before anything was heard over it.
    primary: Option<PrimaryId>,
}

impl Session {
    async fn open(shared: &Shared) -> Result<(Self, State)> {
        let (mut open, pushes) = shared.discovery.open_primary_pushed().await?;
        let subscribed =
            subscribe(&mut open, shared.links.has_slots(), &shared.names.channel()).await;
        subscribed.map_err(|error| failed(&error, &open.endpoint.to_string()))?;
        let primary = PrimaryId::ask(shared, &mut open).await;
        let state = shared.join_over(&mut open, None).await?;
        Ok((Self { open, pushes, primary }, state))
    }
}

/// Subscribes to the bus of a server, or of the slot in a cluster.
pub(crate) async fn subscribe(open: &mut Open, has_slots: bool, channel: &[u8]) -> RedisResult<()> {
    if !has_slots {
        return open.connection.subscribe(channel).await;
    }
    // One channel is confirmed by one answer, as with any command.
    let answer = open.connection.send_packed_command(redis::cmd("SSUBSCRIBE").arg(channel)).await;
    answer.and_then(Value::extract_error).map(drop)
}

/// Follows the stream over one session after another.
struct Follower {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Heard>,
    place: Place,
    /// The server that had everything up to this place, if it says who it is.
    heard_from: Option<PrimaryId>,
    /// The change of the cluster seen last.
    changes: Option<u64>,
}

impl Follower {
    async fn run(mut self, session: Session) {
        let mut backoff = Backoff::default();
        let mut next = Some(session);
        loop {
            let ended = match next.take() {
                Some(mut session) => self.follow(&mut session, &mut backoff).await,
                None => match self.reconnect().await {
                    Ok(session) => {
                        next = Some(session);
                        continue;
                    }
                    Err(ended) => ended,
                },
            };
            match ended {
                Ended::Unheard => return,
                Ended::Failed(error) => tracing::debug!(%error, "the bus is not heard"),
            }
            tokio::select! {
                () = self.sender.closed() => return,
                () = backoff.pause() => {}
            }
        }
    }

    async fn reconnect(&self) -> Result<Session, Ended> {
        let (session, _) = Session::open(&self.shared).await?;
        // What leads to an old primary would read what it has forgotten.
        self.shared.links.keep_only(&session.open.endpoint);
        self.tell(BusEvent::Reconnected, self.shared.time.now()).await?;
        Ok(session)
    }

    /// Follows until the connection or the subscriber is gone.
    async fn follow(&mut self, session: &mut Session, backoff: &mut Backoff) -> Ended {
        loop {
            let due = Instant::now() + self.shared.options.heartbeat;
            loop {
                match self.look(session).await {
                    Ok(Look::More) => {}
                    Ok(Look::Current) => break,
                    Err(ended) => return ended,
                }
            }
            *backoff = Backoff::default();
            if let Err(ended) = self.listen(session, due).await {
                return ended;
            }
        }
    }

    /// Takes what is pushed, until it is time to look or something is missing.
    async fn listen(&mut self, session: &mut Session, due: Instant) -> Result<(), Ended> {
        loop {
            let push = tokio::select! {
                () = self.sender.closed() => return Err(Ended::Unheard),
                () = sleep_until(due) => return Ok(()),
                push = session.pushes.recv() => push,
            };
            let Some(PushInfo { kind, data }) = push else { return Err(ended(session)) };
            let is_next = match (kind, data.as_slice()) {
                (PushKind::Disconnection, _) => return Err(ended(session)),
                (PushKind::Message | PushKind::SMessage, [_, Value::BulkString(payload)]) => {
                    self.hear_push(payload).await?
                }
                _ => true,
            };
            if !is_next {
                return Ok(());
            }
        }
    }

    /// Whether the message was the next one, or is known already.
    async fn hear_push(&mut self, payload: &[u8]) -> Result<bool, Ended> {
        let Some((epoch, id, version, announcement)) = read_push(payload) else { return Ok(false) };
        if epoch == self.place.epoch && id.sequence <= self.place.sequence {
            return Ok(true);
        }
        if !self.place.is_followed_by(epoch, id) {
            return Ok(false);
        }
        self.hear(id, Version::new(version), announcement).await?;
        Ok(true)
    }

    /// Asks where the stream ends, and for what is missing up to there.
    async fn look(&mut self, session: &mut Session) -> Result<Look, Ended> {
        let call = Call::new(&POLL, vec![self.shared.names.clock(), self.shared.names.stream()])
            .number(self.place.sequence)
            .number(LOOK_MESSAGES_MAX)
            .argument(if self.shared.links.has_slots() { "cluster" } else { "" });
        let asked = self.shared.time.now();
        let answer = call_over(&mut session.open, &call).await.map_err(|failure| failure.error)?;
        let state = State::read(answer)?;
        self.shared.time.learn(asked, state.micros, self.shared.time.now());
        if state.epoch == self.shared.history().epoch {
            self.shared.note(&state);
        }
        if let Some(seen) = state.changes
            && self.changes.replace(seen).is_some_and(|before| before != seen)
        {
            // Another server may have taken over some entries, without what the old
            // one had acknowledged.
            self.tell(BusEvent::Reconnected, asked).await?;
        }
        match self.place.judge(&state) {
            Verdict::Current => {
                self.place.nonce = Some(state.last.nonce);
                self.heard_from.clone_from(&session.primary);
            }
            Verdict::Messages(messages) => {
                self.heard_from.clone_from(&session.primary);
                for message in messages {
                    self.hear(message.id, message.version, &message.announcement).await?;
                }
            }
            Verdict::Missed if state.epoch == Some(self.place.epoch) => {
                // Asked after the look: whoever it is now was it then.
                let primary = PrimaryId::ask(&self.shared, &mut session.open).await;
                let is_intact = primary.is_some() && primary == self.heard_from;
                self.lose(&state, asked, is_intact).await?;
                // What comes is heard of whoever was the primary when the session began.
                self.heard_from.clone_from(&session.primary);
            }
            Verdict::Missed => {
                let state = self.shared.join_over(&mut session.open, None).await?;
                self.lose(&state, asked, false).await?;
            }
            Verdict::Shortened => {
                let lost = Some(self.place.epoch);
                let state = self.shared.join_over(&mut session.open, lost).await?;
                self.lose(&state, asked, false).await?;
            }
        }
        if self.place.position() != state.head() {
            return Ok(Look::More);
        }
        let head = self.place.position();
        let current = BusEvent::Current { age: Default::default(), head, version: state.version };
        self.tell(current, asked).await?;
        Ok(Look::Current)
    }

    async fn hear(
        &mut self,
        id: MessageId,
        version: Version,
        announcement: &[u8],
    ) -> Result<(), Ended> {
        self.place.heard(id, version);
        self.shared.hear(version);
        let position = self.place.position();
        let event = match decode(announcement) {
            Some(announcement) => BusEvent::Message(BusMessage { position, version, announcement }),
            // It may have touched anything.
            None => {
                BusEvent::Lost { head: position, version: self.place.version, is_intact: false }
            }
        };
        self.tell(event, self.shared.time.now()).await
    }

    /// Goes on from the end.
    async fn lose(&mut self, state: &State, asked: Moment, is_intact: bool) -> Result<(), Ended> {
        tracing::warn!(
            from = ?self.place.position(), to = ?state.head(), is_intact, "bus messages were lost"
        );
        self.place = Place::head(state);
        let (head, version) = (self.place.position(), state.version);
        let event = BusEvent::Lost { head, version, is_intact };
        self.tell(event, asked).await
    }

    async fn tell(&self, event: BusEvent, asked: Moment) -> Result<(), Ended> {
        self.sender.send(Heard { event, asked }).await.map_err(|_| Ended::Unheard)
    }
}

fn ended(session: &Session) -> Ended {
    let error = larder_core::Error::new(
        larder_core::ErrorKind::Unavailable,
        "the connection to Redis ended",
    );
    Ended::Failed(error.with("server", &session.open.endpoint))
}
