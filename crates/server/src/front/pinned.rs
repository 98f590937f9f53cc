//! A client's own connection to Redis, and what Redis remembers of it: a
//! transaction, watched keys, subscriptions, another database.

use std::collections::VecDeque;

use super::Front;
use super::course::{Pin, Touches};
use super::frame::{self, Scanned, Scanner};
use super::request::Void;
use super::wire::Wire;
use crate::resp::Protocol;

/// A reply is handed on in one piece up to this length, and else in parts.
const PART_BYTES: usize = 64 * 1024;

/// A connection of one client.
pub(crate) struct Pinned {
    pub(crate) wire: Wire,
    /// What is to be written to it.
    pub(crate) outgoing: Vec<u8>,
    /// What was read from it and is not yet handed on.
    pub(crate) incoming: Vec<u8>,
    scanned: usize,
    scanner: Scanner,
    /// Whose the reply is whose first parts were handed on.
    in_parts: Option<Fate>,
    owed: VecDeque<Owed>,
    /// Whether a transaction is open once all that was sent is done, and what it
    /// may change.
    queued: Option<(Void, bool)>,
    /// Whether one is open by what was answered.
    is_open: bool,
    is_watching: bool,
    is_elsewhere: bool,
    /// Whether Redis sends what nobody asked for, from now on.
    is_fed: bool,
    /// How many channels the client listens to, by what Redis said last: those
    /// of `SUBSCRIBE` and `PSUBSCRIBE`, and those of `SSUBSCRIBE`.
    channels: [i64; 2],
    /// Whether it is not as it was when it was opened, and never will be.
    is_marked: bool,
}

/// A reply that Redis owes.
pub(crate) struct Owed {
    pub(crate) kind: Kind,
    /// What is to be forgotten before it is given.
    pub(crate) void: Void,
    /// Whether keys may be written that nobody knows.
    pub(crate) is_unknown: bool,
    /// Whether the command may block.
    pub(crate) blocks: bool,
    pub(crate) delivery: Delivery,
}

/// What the reply tells of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Plain,
    Pin(Pin),
    /// Of the database that shared connections are in, or of another.
    Select {
        is_home: bool,
    },
}

/// What becomes of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    Give,
    Drop,
    /// The client gets this in its place.
    Instead(Vec<u8>),
}

/// Whose a reply is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Nobody asked for it: a message, an invalidation.
    Message,
    /// It is owed.
    Owed,
}

impl Pinned {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            scanned: 0,
            scanner: Scanner::default(),
            in_parts: None,
            owed: VecDeque::new(),
            queued: None,
            is_open: false,
            is_watching: false,
            is_elsewhere: false,
            is_fed: false,
            channels: [0; 2],
            is_marked: false,
        }
    }

    /// Whether nothing is owed.
    pub(crate) fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.outgoing.is_empty() && self.in_parts.is_none()
    }

    /// How many replies are owed.
    pub(crate) fn owed_count(&self) -> usize {
        self.owed.len()
    }

    /// Whether a transaction is open, as far as was sent.
    pub(crate) fn is_in_multi(&self) -> bool {
        self.queued.is_some()
    }

    /// Whether Redis remembers anything of this connection.
    pub(crate) fn has_state(&self) -> bool {
        self.queued.is_some()
            || self.is_open
            || self.is_watching
            || self.is_elsewhere
            || self.is_fed
    }

    /// Whether Redis may send what nobody asked for.
    pub(crate) fn is_fed(&self) -> bool {
        self.is_fed
    }

    /// Whether the keys of other databases are meant.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Whether the client waits for a command that blocks.
    pub(crate) fn is_blocked(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.blocks)
    }

    /// Notes that Redis is told something of the client that stays.
    pub(crate) fn mark(&mut self) {
        self.is_marked = true;
    }

    /// Whether nobody else may have the connection.
    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// Notes a command that was just appended to `outgoing`.
    pub(crate) fn sent(&mut self, mut owed: Owed, touches: Touches, arguments: &[&[u8]]) {
        match owed.kind {
            Kind::Pin(Pin::Multi) => {
                self.queued.get_or_insert_default();
            }
            Kind::Pin(Pin::Exec) => {
                if let Some((void, is_unknown)) = self.queued.take() {
                    owed.void = void;
                    owed.is_unknown |= is_unknown;
                }
            }
            Kind::Pin(Pin::Discard) => self.queued = None,
            Kind::Pin(Pin::Watch) => self.is_watching = true,
            Kind::Pin(Pin::Monitor | Pin::Tracking) => self.is_fed = true,
            Kind::Pin(Pin::Subscribe) => {
                self.is_fed = true;
                // Confirmations come as messages, however many there are; only
                // what is queued or lacks its channels is answered.
                let names_none = arguments.len() == 1;
                let is_answered = self.queued.is_some() || (names_none && !leaves(arguments[0]));
                if !is_answered {
                    return;
                }
            }
            Kind::Select { is_home: false } => self.is_elsewhere = true,
            _ => {}
        }
        if let Some((void, is_unknown)) = &mut self.queued {
            void.add(touches, arguments);
            *is_unknown |= touches == Touches::Unknown;
            // Sets of keys in a transaction have a limit like everything else.
            if void.bytes() > (1 << 20) {
                *void = Void::Everything;
            }
        }
        self.owed.push_back(owed);
    }

    /// Moves what has come to the client's replies. Returns whether a command
    /// has ended that wrote keys that nobody knows.
    ///
    /// # Errors
    /// If it is not RESP.
    pub(crate) fn hand_on(
        &mut self,
        front: &Front,
        reply: &mut Vec<u8>,
    ) -> Result<bool, &'static str> {
        let incoming = std::mem::take(&mut self.incoming);
        let (mut start, mut is_unknown) = (0, false);
        let result = loop {
            match self.scanner.scan(&incoming[self.scanned..]) {
                Err(_) => break Err("it does not speak RESP"),
                Ok(Scanned::Whole(count)) => {
                    self.scanned += count;
                    let bytes = &incoming[start..self.scanned];
                    start = self.scanned;
                    let fate = self.in_parts.take().unwrap_or_else(|| self.fate(bytes));
                    is_unknown |= self.finish(front, fate, bytes, reply);
                }
                Ok(Scanned::Part(count)) => {
                    self.scanned += count;
                    let part = &incoming[start..self.scanned];
                    if part.len() >= PART_BYTES {
                        let fate = self.in_parts.unwrap_or_else(|| self.fate(part));
                        self.in_parts = Some(fate);
                        if fate == Fate::Message || self.gives_first() {
                            reply.extend_from_slice(part);
                        }
                        start = self.scanned;
                    }
                    break Ok(());
                }
            }
        };
        self.scanned -= start;
        self.incoming = incoming;
        self.incoming.drain(..start);
        result.map(|()| is_unknown)
    }

    /// Gives the error for everything that is owed; `None` if that cannot make
    /// up for what is lost.
    pub(crate) fn fail(mut self, front: &Front, refusal: &[u8], reply: &mut Vec<u8>) -> Option<()> {
        let is_lost = self.has_state() || self.in_parts.is_some();
        for owed in self.owed.drain(..) {
            owed.void.apply(&front.memory);
            if owed.delivery != Delivery::Drop && !is_lost {
                reply.extend_from_slice(refusal);
            }
        }
        (!is_lost).then_some(())
    }

    fn gives_first(&self) -> bool {
        self.owed.front().is_none_or(|owed| owed.delivery == Delivery::Give)
    }

    /// Whose the reply is that begins so.
    fn fate(&self, reply: &[u8]) -> Fate {
        let is_message = match self.wire.protocol {
            Protocol::Resp3 => reply.starts_with(b">"),
            Protocol::Resp2 if !self.is_fed => false,
            // A list may begin with the same words.
            Protocol::Resp2 => {
                confirmed(reply).is_some() || (self.channels != [0; 2] && is_message(reply))
            }
        };
        if is_message || self.owed.is_empty() { Fate::Message } else { Fate::Owed }
    }

    fn finish(&mut self, front: &Front, fate: Fate, bytes: &[u8], reply: &mut Vec<u8>) -> bool {
        if fate == Fate::Message {
            if let Some((is_sharded, count)) = confirmed(bytes) {
                self.channels[usize::from(is_sharded)] = count;
            }
            reply.extend_from_slice(bytes);
            return false;
        }
        let Some(owed) = self.owed.pop_front() else { return false };
        // Before the client learns of it.
        owed.void.apply(&front.memory);
        self.learn(owed.kind, bytes);
        match owed.delivery {
            Delivery::Give => reply.extend_from_slice(bytes),
            Delivery::Drop => {}
            Delivery::Instead(other) => reply.extend_from_slice(&other),
        }
        if self.owed.is_empty() && !self.is_open {
            // A MULTI that was refused queued nothing.
            self.queued = None;
        }
        owed.is_unknown
    }

    /// What a reply tells of the connection.
    fn learn(&mut self, kind: Kind, reply: &[u8]) {
        let is_ok = !reply.starts_with(b"-");
        match kind {
            Kind::Pin(Pin::Multi) => self.is_open |= is_ok,
            Kind::Pin(Pin::Exec) => {
                let is_over = is_ok
                    || reply.starts_with(b"-EXECABORT")
                    || reply.starts_with(b"-ERR EXEC without MULTI");
                if is_over && !reply.starts_with(b"-ERR") {
                    self.is_watching = false;
                }
                self.is_open &= !is_over;
            }
            Kind::Pin(Pin::Discard) if is_ok => (self.is_open, self.is_watching) = (false, false),
            Kind::Pin(Pin::Watch) => self.is_watching |= is_ok,
            Kind::Pin(Pin::Unwatch) if is_ok && !self.is_open => self.is_watching = false,
            // More may have been sent since.
            Kind::Select { is_home: false } => self.is_elsewhere |= is_ok,
            Kind::Select { is_home: true } if is_ok && !self.is_open => self.is_elsewhere = false,
            _ => {}
        }
    }
}

/// Whether this is one of the commands that end subscriptions, all of them if
/// they name none.
fn leaves(name: &[u8]) -> bool {
    name.to_ascii_lowercase().ends_with(b"unsubscribe")
}

/// What a reply says that confirms the begin or the end of a subscription:
/// whether it is one of a shard, and how many there are now.
fn confirmed(reply: &[u8]) -> Option<(bool, i64)> {
    let (3, rest) = frame::array(reply)? else { return None };
    let (name, rest) = frame::string(rest)?;
    let name = name?.strip_suffix(b"subscribe")?;
    let is_sharded = name.starts_with(b"s");
    if !matches!(name, b"" | b"p" | b"s" | b"un" | b"pun" | b"sun") {
        return None;
    }
    let (_, rest) = frame::string(rest)?;
    Some((is_sharded, frame::integer(rest)?))
}

/// Whether this is how a message of a channel begins in RESP2.
fn is_message(reply: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 3] =
        [b"*3\r\n$7\r\nmessage\r\n", b"*4\r\n$8\r\npmessage\r\n", b"*3\r\n$8\r\nsmessage\r\n"];
    BEGINNINGS.iter().any(|beginning| reply.starts_with(beginning))
}
