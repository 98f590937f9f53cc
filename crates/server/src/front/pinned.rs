//! A client's own connection to Redis, and what Redis remembers of it: a
//! transaction, watched keys, subscriptions, another database.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Front;
use super::both::{Known, Planned, add, together};
use super::cluster::redirect::{Redirect, learn};
use super::course::{Pin, Touches};
use super::frame::{self, Scanned, Scanner};
use super::nodes::Node;
use super::request::Void;
use super::wire::Wire;
use crate::resp::Protocol;

/// A reply is handed on in one piece up to this length, and else in parts.
const PART_BYTES: usize = 64 * 1024;

/// A connection of one client.
pub(crate) struct Pinned {
    /// The server it leads to.
    pub(crate) node: Arc<Node>,
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
    /// Whether a subscription has begun or ended that is not confirmed yet, as far
    /// as is known.
    is_unconfirmed: bool,
    /// Whether it is not as it was when it was opened, and never will be.
    is_marked: bool,
    /// What `EXEC` will answer, place by place.
    plan: Vec<Planned>,
    plan_bytes: usize,
    plans: bool,
    /// Whether caches answer some of it.
    reads_caches: bool,
    /// In a cluster: the slot of the open transaction, once a key has told it.
    pub(crate) slot: Option<usize>,
    /// In a cluster: what the transaction has queued, until a key has told where it
    /// belongs.
    pub(crate) replay: Vec<Vec<u8>>,
    /// In a cluster: the only command under way, if nothing was done before it
    /// that counts.
    pub(crate) again: Option<Vec<u8>>,
    /// In a cluster: a server has sent that command on.
    pub(crate) moved: Option<(Option<Owed>, Redirect)>,
    /// The most that a reply may have that is put together here.
    reply_bytes_max: usize,
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
    /// What `EXEC` will answer, if this is queued.
    pub(crate) planned: Option<Planned>,
}

/// What the reply tells of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Plain,
    /// Larder's own, in its turn: Redis was not asked.
    Local,
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
    /// The client gets it together with what caches have said.
    Together(Vec<Known>),
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
    pub(crate) fn new(node: Arc<Node>, wire: Wire, reply_bytes_max: usize) -> Self {
        Self {
            node,
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
            is_unconfirmed: false,
            is_marked: false,
            plan: Vec::new(),
            plan_bytes: 0,
            plans: false,
            reads_caches: false,
            slot: None,
            replay: Vec::new(),
            again: None,
            moved: None,
            reply_bytes_max,
        }
    }

    /// Whether what `EXEC` will answer is noted: where there are caches.
    pub(crate) fn planning(mut self, plans: bool) -> Self {
        self.plans = plans;
        self
    }

    /// What was sent did not run, so the connection is as it was.
    pub(crate) fn forget_state(&mut self) {
        self.is_watching = false;
        self.is_fed = false;
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.is_watching
    }

    /// The same client at another server, with nothing under way.
    pub(crate) fn move_to(&mut self, node: Arc<Node>, wire: Wire) {
        self.node = node;
        self.wire = wire;
        self.outgoing.clear();
        self.incoming.clear();
        self.scanned = 0;
        self.scanner = Scanner::default();
        self.is_open = false;
    }

    /// What `EXEC` will answer, if caches have a part in it.
    pub(crate) fn take_plan(&mut self) -> Option<Vec<Planned>> {
        std::mem::take(&mut self.reads_caches).then(|| std::mem::take(&mut self.plan))
    }

    /// Whether caches have a part in the open transaction.
    pub(crate) fn reads_caches(&self) -> bool {
        self.reads_caches
    }

    /// Whether more may be queued that caches have a part in.
    pub(crate) fn has_room_for(&self, planned: &Planned, bytes_max: usize) -> bool {
        self.plan_bytes + planned.bytes() <= bytes_max
    }

    /// Queues what caches answer, wholly or in part. Only Redis' part is sent.
    pub(crate) fn note_planned(&mut self, planned: &Planned) {
        self.reads_caches = true;
        self.plan_bytes += planned.bytes();
    }

    /// Replies without asking Redis, in turn.
    pub(crate) fn answer(&mut self, owed: Owed, reply: &mut Vec<u8>) {
        self.owed.push_back(owed);
        self.answer_locals(reply);
    }

    fn answer_locals(&mut self, reply: &mut Vec<u8>) {
        while let Some(owed) = self.owed.pop_front_if(|owed| owed.kind == Kind::Local) {
            owed.planned.into_iter().for_each(|planned| add(&mut self.plan, planned));
            if let Delivery::Instead(bytes) = owed.delivery {
                reply.extend_from_slice(&bytes);
            }
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

    /// Whether it is not known how many channels the client listens to. It is once
    /// what is sent now is answered.
    pub(crate) fn take_unconfirmed(&mut self) -> bool {
        std::mem::take(&mut self.is_unconfirmed)
    }

    /// Whether Redis refuses all commands but those about channels.
    pub(crate) fn takes_only_channels(&self) -> bool {
        self.wire.protocol == Protocol::Resp2 && self.channels != [0; 2]
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
                if self.queued.is_none() {
                    (self.plan, self.plan_bytes, self.slot) = (Vec::new(), 0, None);
                }
                self.queued.get_or_insert_default();
            }
            Kind::Pin(Pin::Exec) => {
                if let Some((void, is_unknown)) = self.queued.take() {
                    owed.void = void;
                    owed.is_unknown |= is_unknown;
                }
            }
            Kind::Pin(Pin::Discard) => {
                self.queued = None;
                self.reads_caches = false;
            }
            Kind::Pin(Pin::Watch) => self.is_watching = true,
            Kind::Pin(Pin::Monitor | Pin::Tracking) => self.is_fed = true,
            Kind::Pin(Pin::Subscribe) => {
                self.is_fed = true;
                self.is_unconfirmed = true;
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
            if self.plans {
                owed.planned.get_or_insert(Planned::Redis(1));
            }
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
                    if part.len() >= PART_BYTES && self.gathers_first() {
                        if part.len() > self.reply_bytes_max {
                            break Err("it replies more than may be put together");
                        }
                    } else if part.len() >= PART_BYTES {
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

    fn gathers_first(&self) -> bool {
        self.in_parts.is_none()
            && self.owed.front().is_some_and(|owed| matches!(owed.delivery, Delivery::Together(_)))
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
        let redirect = if front.options.is_cluster() { Redirect::read(bytes) } else { None };
        if fate == Fate::Message {
            if let Some(redirect) = redirect {
                self.redirected(front, None, redirect, reply);
                return false;
            }
            let confirmed = confirmed(bytes);
            if let Some((is_sharded, count)) = confirmed {
                self.channels[usize::from(is_sharded)] = count;
            }
            if confirmed.is_some() || bytes.starts_with(b"-") {
                self.again = None;
            }
            reply.extend_from_slice(bytes);
            return false;
        }
        let Some(owed) = self.owed.pop_front() else { return false };
        if let Some(redirect) = redirect {
            return self.redirected(front, Some(owed), redirect, reply);
        }
        self.again = None;
        self.deliver(front, owed, bytes, reply)
    }

    fn deliver(&mut self, front: &Front, owed: Owed, bytes: &[u8], reply: &mut Vec<u8>) -> bool {
        // Before the client learns of it.
        owed.void.apply(&front.memory);
        self.learn(owed.kind, bytes);
        if bytes == b"+QUEUED\r\n" {
            owed.planned.into_iter().for_each(|planned| add(&mut self.plan, planned));
        }
        match owed.delivery {
            Delivery::Give => reply.extend_from_slice(bytes),
            Delivery::Drop => {}
            Delivery::Instead(other) => reply.extend_from_slice(&other),
            Delivery::Together(known) => {
                reply.extend_from_slice(&together(&known, bytes, self.wire.protocol));
            }
        }
        self.answer_locals(reply);
        if self.owed.is_empty() && !self.is_open {
            // A MULTI that was refused queued nothing.
            self.queued = None;
        }
        owed.is_unknown
    }

    /// The server does not own the slot, or not any more. A command that nothing
    /// was done before is sent on; else the client is to begin again.
    fn redirected(
        &mut self,
        front: &Front,
        owed: Option<Owed>,
        redirect: Redirect,
        reply: &mut Vec<u8>,
    ) -> bool {
        if self.again.is_some() && redirect != Redirect::Down {
            self.moved = Some((owed, redirect));
            return false;
        }
        learn(front, &self.node, &redirect);
        let refusal = redirect.refusal();
        match owed {
            Some(owed) => {
                let owed = match owed.delivery {
                    Delivery::Together(_) => Owed { delivery: Delivery::Give, ..owed },
                    _ => owed,
                };
                self.deliver(front, owed, &refusal, reply)
            }
            None => {
                reply.extend_from_slice(&refusal);
                false
            }
        }
    }

    /// Takes up what is to be sent to another server.
    pub(crate) fn take_moved(&mut self) -> Option<(Option<Owed>, Redirect, Vec<u8>)> {
        let (owed, redirect) = self.moved.take()?;
        Some((owed, redirect, self.again.take()?))
    }

    /// A command is under way again.
    pub(crate) fn resent(&mut self, owed: Option<Owed>) {
        self.owed.extend(owed);
    }

    /// What a reply tells of the connection.
    fn learn(&mut self, kind: Kind, reply: &[u8]) {
        let is_ok = !reply.starts_with(b"-");
        match kind {
            Kind::Pin(Pin::Multi) => self.is_open |= is_ok,
            Kind::Pin(Pin::Exec) => {
                // What is wrong with a cluster ends it, too.
                const ENDS: [&[u8]; 5] = [
                    b"-EXECABORT",
                    b"-ERR EXEC without MULTI",
                    b"-TRYAGAIN",
                    b"-CLUSTERDOWN",
                    b"-CROSSSLOT",
                ];
                let is_over = is_ok || ENDS.iter().any(|end| reply.starts_with(end));
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
