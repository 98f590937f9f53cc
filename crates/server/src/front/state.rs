//! What is under way for one client in front of Redis, and how replies from
//! memory, from Larder and from Redis come out in its order.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use larder_core::Moment;

use super::Front;
use super::link::Link;
use super::mailbox::{Mailbox, Taken};
use super::nodes::Node;
use super::session::AWAITED_MAX;
use crate::resp::Reply;
use crate::resp::session::Session;

/// As much as this is handed over as it is; less is copied, and the room for it
/// stays where it is needed next.
const SWAPPED_BYTES_MIN: usize = 4096;

/// What the front knows of a client.
pub(crate) struct FrontSession {
    mailbox: Arc<Mailbox>,
    /// Replies that Redis owes, of those asked for since none was.
    awaited: usize,
    /// How many of them have come.
    received: usize,
    /// Replies that did not come from Redis: behind how many of those that do
    /// they stand, and where in `local` they are.
    splices: Vec<(usize, Range<usize>)>,
    spliced: usize,
    local: Vec<u8>,
    /// The keys that were asked for since nothing was awaited. What memory says
    /// of them may be older than what Redis will say.
    asked: Vec<u64>,
    /// When a write of unknown keys was last answered, if memory may not have
    /// been told of it.
    wrote_at: Option<Moment>,
    /// Whether such a write is on its way.
    is_writing: bool,
    /// Whether nothing is read in memory until all that is awaited has come.
    is_barred: bool,
    /// Where it gets a connection of its own.
    pub(crate) pin_to: Option<Arc<Node>>,
    /// Why it cannot have one: the reply to the command that needs it.
    pub(crate) refusal: Option<Vec<u8>>,
    /// Whether `MULTI` was answered, and waits for a key that says where it goes.
    pub(crate) has_held_multi: bool,
    /// How often slots had moved when the client began to wait.
    pub(crate) moves: u64,
    /// The link that has no room for its next command.
    full: Option<Arc<Link>>,
}

impl FrontSession {
    pub(crate) fn new(reply_bytes_max: usize) -> Box<Self> {
        Box::new(Self {
            mailbox: Mailbox::new(reply_bytes_max),
            awaited: 0,
            received: 0,
            splices: Vec::new(),
            spliced: 0,
            local: Vec::new(),
            asked: Vec::new(),
            wrote_at: None,
            is_writing: false,
            is_barred: false,
            pin_to: None,
            refusal: None,
            has_held_multi: false,
            moves: 0,
            full: None,
        })
    }

    /// Whether replies of Redis are awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.awaited > 0
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// A command was sent whose reply comes to the mailbox.
    pub(crate) fn note_sent(&mut self) {
        self.awaited += 1;
    }

    /// The next command waits for room in this link.
    pub(crate) fn wait_for(&mut self, link: &Arc<Link>) {
        self.full = Some(Arc::clone(link));
    }

    /// Keys that were asked for here must not be read in memory before that is
    /// answered.
    pub(crate) fn note_asked(&mut self, hashes: impl Iterator<Item = u64>) {
        self.asked.extend(hashes);
    }

    /// How many of them are noted.
    pub(crate) fn asked_count(&self) -> usize {
        self.asked.len()
    }

    /// Nothing is read in memory until all that is awaited has come.
    pub(crate) fn bar(&mut self) {
        self.is_barred = true;
    }

    /// A write of keys that nobody knows is on its way.
    pub(crate) fn note_unknown_write_sent(&mut self) {
        self.is_writing = true;
    }

    /// How much from memory waits behind what is awaited.
    pub(crate) fn spliced_bytes(&self) -> usize {
        self.local.len()
    }

    /// Whether more may be sent while some is under way: what is asked of one slot
    /// keeps its order only if it goes the same way.
    pub(crate) fn may_send(&mut self, moves: u64) -> bool {
        if !self.awaits() {
            self.moves = moves;
            return true;
        }
        self.moves == moves && !self.mailbox.is_held() && self.awaited < AWAITED_MAX
    }

    /// Notes that the client wrote keys that nobody knows, and got its reply.
    pub(crate) fn note_unknown_write(&mut self, front: &Front) {
        self.wrote_at = Some(front.now());
        front.request_pulse();
    }

    /// Whether memory may be asked for this key: it knows all that this client
    /// has written of it.
    #[inline]
    pub(crate) fn may_look_at(&mut self, front: &Front, key: &[u8], now: Moment) -> bool {
        !self.is_writing
            && !self.is_barred
            && (self.wrote_at.is_none() || self.has_seen(front, key, now))
            && (self.awaited == 0 || !self.asked.contains(&front.memory.hash(key)))
    }

    #[cold]
    fn has_seen(&mut self, front: &Front, key: &[u8], now: Moment) -> bool {
        let Some(wrote_at) = self.wrote_at else { return true };
        let validity = &front.memory.validity;
        if validity.all_have_seen(wrote_at, now) {
            self.wrote_at = None;
            return true;
        }
        validity.has_seen(validity.place(key).node, wrote_at, now)
    }

    /// Puts what was just replied behind the replies that are awaited.
    pub(crate) fn splice(&mut self, start: usize, reply: &mut Reply) {
        if self.awaited == 0 {
            return;
        }
        let at = self.local.len();
        self.local.extend_from_slice(&reply.as_bytes()[start..]);
        reply.buffer_mut().truncate(start);
        if at < self.local.len() {
            self.splices.push((self.awaited, at..self.local.len()));
        }
    }

    /// Everything that was awaited has come.
    pub(crate) fn settle(&mut self, front: &Front) {
        self.awaited = 0;
        self.received = 0;
        self.spliced = 0;
        self.splices.clear();
        self.local.clear();
        self.local.shrink_to(1 << 16);
        self.asked.clear();
        self.is_barred = false;
        if std::mem::take(&mut self.is_writing) {
            self.note_unknown_write(front);
        }
    }

    /// Moves what has come to the reply, in order.
    pub(crate) fn collect(&mut self, reply: &mut Vec<u8>) -> Taken {
        let Self { mailbox, received, splices, spliced, local, .. } = self;
        mailbox.take(|bytes, ends| {
            if splices.len() == *spliced {
                *received += ends.len();
                if reply.is_empty() && bytes.len() >= SWAPPED_BYTES_MIN {
                    std::mem::swap(reply, bytes);
                } else {
                    reply.extend_from_slice(bytes);
                }
                return;
            }
            let mut start = 0;
            for &end in ends {
                reply.extend_from_slice(&bytes[start..end]);
                start = end;
                *received += 1;
                while let Some((behind, place)) = splices.get(*spliced)
                    && behind == received
                {
                    reply.extend_from_slice(&local[place.clone()]);
                    *spliced += 1;
                }
            }
            reply.extend_from_slice(&bytes[start..]);
        })
    }
}

/// Waits for replies that Redis owes this client, and moves what has come to the
/// reply. Returns whether more is to come.
///
/// # Errors
/// If part of a reply was lost: the connection cannot go on.
pub(crate) async fn receive(session: &mut Session, reply: &mut Reply) -> std::io::Result<bool> {
    wait(session).await;
    collect(session, reply)
}

/// Waits until replies have come that Redis owes this client, or until there is
/// room to ask for more.
pub(crate) async fn wait(session: &mut Session) {
    let Some(state) = &mut session.front else { return };
    if state.awaited == 0 {
        if let Some(link) = state.full.take() {
            link.room().await;
        }
        return;
    }
    std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<()> {
        state.mailbox.poll_mail(state.awaited - state.received, cx)
    })
    .await;
}

/// Moves what has come to the reply. Returns whether more is to come.
///
/// # Errors
/// As [`receive`].
pub(crate) fn collect(session: &mut Session, reply: &mut Reply) -> std::io::Result<bool> {
    let (Some(state), Some(worker)) = (&mut session.front, &session.worker.front) else {
        return Ok(false);
    };
    if state.awaited == 0 {
        return Ok(false);
    }
    if state.collect(reply.buffer_mut()) == Taken::Broken {
        return Err(std::io::Error::other("part of a reply of Redis was lost"));
    }
    if state.received < state.awaited {
        return Ok(true);
    }
    state.settle(&worker.front);
    Ok(false)
}

impl Drop for FrontSession {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
