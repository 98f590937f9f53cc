//! Events of others on the same Redis: what is published on a channel, and what stands
//! in a stream.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Error, ErrorKind, Result};
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{PushKind, Value};

use crate::RedisTier;
use crate::backoff::Backoff;
use crate::connector::{Open, Pushes};
use crate::discovery::Discovery;
use crate::failure::failed;

/// One event as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RedisEvent {
    /// Bytes published on a channel.
    Published(Bytes),
    /// An entry of a stream: its id there, and its fields.
    Entry(String, Vec<(String, Bytes)>),
}

/// Hears what is published on a channel. What is published while it is not connected
/// is lost.
pub struct RedisChannel {
    discovery: Discovery,
    channel: String,
    listening: Option<(Open, Pushes)>,
    backoff: Backoff,
    /// Whether the log knows that it cannot be heard.
    is_told: bool,
}

/// Reads a stream as one of a consumer group: each entry goes to one member, and to
/// another one if it is not acknowledged within [`RedisStream::CLAIM_AFTER`].
pub struct RedisStream {
    discovery: Discovery,
    stream: String,
    group: String,
    member: String,
    open: Option<Open>,
    backoff: Backoff,
    /// Whether the log knows that it cannot be read.
    is_told: bool,
    waiting: VecDeque<StreamId>,
}

/// How often what others left behind is looked for, and the server asked in vain.
const POLL: Duration = Duration::from_millis(500);

/// So many entries are read at once.
const BATCH: usize = 100;

impl RedisChannel {
    pub(crate) fn new(tier: &RedisTier, channel: &str) -> Self {
        let discovery = tier.0.discovery.clone();
        let channel = channel.to_owned();
        Self { discovery, channel, listening: None, backoff: Backoff::default(), is_told: false }
    }

    /// The next event. Reconnects by itself, for as long as it takes.
    pub async fn next(&mut self) -> RedisEvent {
        loop {
            if self.listening.is_none() {
                match self.connect().await {
                    Ok(listening) => self.listening = Some(listening),
                    Err(error) => {
                        if !std::mem::replace(&mut self.is_told, true) {
                            tracing::warn!(%error, "the channel of events is not heard");
                        }
                        self.backoff.pause().await;
                        continue;
                    }
                }
                (self.backoff, self.is_told) = (Backoff::default(), false);
            }
            let Some((_, pushes)) = &mut self.listening else { continue };
            match pushes.recv().await {
                Some(push) if push.kind == PushKind::Message => {
                    if let Some(Value::BulkString(bytes)) = push.data.into_iter().nth(1) {
                        return RedisEvent::Published(bytes.into());
                    }
                }
                Some(push) if push.kind != PushKind::Disconnection => {}
                _ => {
                    self.listening = None;
                    self.backoff.pause().await;
                }
            }
        }
    }

    async fn connect(&self) -> Result<(Open, Pushes)> {
        let (mut open, pushes) = self.discovery.open_primary_pushed().await?;
        let subscribed = open.connection.subscribe(&self.channel).await;
        subscribed.map_err(|error| failed(&error, &open.endpoint.to_string()))?;
        Ok((open, pushes))
    }
}

impl RedisStream {
    /// An entry that a member took and did not acknowledge for this long goes to
    /// another one.
    pub const CLAIM_AFTER: Duration = Duration::from_secs(30);

    pub(crate) fn new(tier: &RedisTier, stream: &str, group: &str, member: &str) -> Self {
        Self {
            discovery: tier.0.discovery.clone(),
            stream: stream.to_owned(),
            group: group.to_owned(),
            member: member.to_owned(),
            open: None,
            backoff: Backoff::default(),
            is_told: false,
            waiting: VecDeque::new(),
        }
    }

    /// The next entry. Reconnects by itself, for as long as it takes.
    ///
    /// # Cancel safety
    /// An entry that a dropped call had read comes again after
    /// [`RedisStream::CLAIM_AFTER`].
    pub async fn next(&mut self) -> RedisEvent {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                return event(entry);
            }
            match self.read().await {
                Ok(found) => {
                    (self.backoff, self.is_told) = (Backoff::default(), false);
                    if !found {
                        tokio::time::sleep(POLL).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_told, true) {
                        tracing::warn!(%error, "the stream of events cannot be read");
                    }
                    self.open = None;
                    self.backoff.pause().await;
                }
            }
        }
    }

    /// Says that an entry is done with. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: it comes again.
    pub async fn acknowledge(&mut self, id: &str) -> Result<()> {
        let mut command = redis::cmd("XACK");
        command.arg(&self.stream).arg(&self.group).arg(id);
        self.ask::<Value>(&command).await.map(drop)
    }

    /// Reads what was left behind, or else what is new. Says whether there was any.
    async fn read(&mut self) -> Result<bool> {
        if self.open.is_none() {
            self.open = Some(self.discovery.open_primary().await?);
            self.make_group().await?;
        }
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.group).arg(&self.member);
        claim.arg(Self::CLAIM_AFTER.as_millis() as u64).arg("0-0").arg("COUNT").arg(BATCH);
        let left: StreamAutoClaimReply = self.ask(&claim).await?;
        self.waiting.extend(left.claimed);
        if self.waiting.is_empty() {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg(&self.group).arg(&self.member).arg("COUNT").arg(BATCH);
            read.arg("STREAMS").arg(&self.stream).arg(">");
            let reply: Option<StreamReadReply> = self.ask(&read).await?;
            let keys = reply.into_iter().flat_map(|reply| reply.keys);
            self.waiting.extend(keys.flat_map(|key| key.ids));
        }
        Ok(!self.waiting.is_empty())
    }

    /// From the first entry on: an event that was sent before a server first ran is one
    /// that its caches have not seen.
    async fn make_group(&mut self) -> Result<()> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group).arg("0").arg("MKSTREAM");
        let Some(open) = &mut self.open else { return Ok(()) };
        match create.query_async::<Value>(&mut open.connection).await {
            Err(error) if error.code() != Some("BUSYGROUP") => {
                Err(failed(&error, &open.endpoint.to_string()))
            }
            _ => Ok(()),
        }
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(ErrorKind::Unavailable, "there is no connection to Redis"));
        };
        let answer = command.query_async(&mut open.connection).await;
        answer.map_err(|error| failed(&error, &open.endpoint.to_string()))
    }
}

fn event(entry: StreamId) -> RedisEvent {
    let fields = entry.map.into_iter().filter_map(|(name, value)| match value {
        Value::BulkString(bytes) => Some((name, bytes.into())),
        Value::SimpleString(text) => Some((name, text.into_bytes().into())),
        _ => None,
    });
    RedisEvent::Entry(entry.id, fields.collect())
}

impl RedisTier {
    /// Hears a channel of the same server. In a cluster: of the node that has the
    /// tier's clock, which hears what is published anywhere.
    #[must_use]
    pub fn channel(&self, name: &str) -> RedisChannel {
        RedisChannel::new(self, name)
    }

    /// Reads a stream as a member of a group, which is made if it is not there.
    #[must_use]
    pub fn stream(&self, name: &str, group: &str, member: &str) -> RedisStream {
        RedisStream::new(self, name, group, member)
    }
}

impl fmt::Debug for RedisChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisChannel").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}
