//! Where replies of Redis wait for the client they belong to.
//!
//! Each reply has a ticket, a number in the client's order. Several servers answer
//! in an order of their own: what comes early waits until it is its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A client is woken for so much, even if its last reply is still to come.
const CHUNK_BYTES: usize = 64 * 1024;

/// With so much unread, nothing more is read from Redis for a while.
const BACKLOG_BYTES: usize = 1 << 20;

/// The replies of one client.
#[derive(Debug)]
pub(crate) struct Mailbox {
    letters: Mutex<Letters>,
    /// The ticket after the last one that the client took.
    next_ticket: AtomicU64,
    /// One more than the ticket of a command that is tried again after a while; 0
    /// if there is none.
    held: AtomicU64,
}

#[derive(Debug)]
struct Letters {
    bytes: Vec<u8>,
    /// Where in the bytes replies end.
    ends: Vec<usize>,
    /// Whose turn it is.
    turn: u64,
    /// What came before its turn: the bytes, and whether it is complete.
    early: BTreeMap<u64, (Vec<u8>, bool)>,
    early_bytes: usize,
    /// For how many ends the client waits.
    wanted: usize,
    /// The most that may wait here.
    bytes_max: usize,
    /// Whether part of a reply is lost, so that the client cannot go on.
    is_broken: bool,
    is_closed: bool,
    /// Whether the link has waited long enough, until the client catches up.
    is_given_up: bool,
    client: Option<Waker>,
    link: Option<Waker>,
}

/// What was taken out of a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// So many replies have ended.
    Replies(usize),
    /// A reply was cut off.
    Broken,
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let letters = Mutex::new(Letters {
            bytes: Vec::new(),
            ends: Vec::new(),
            turn: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            wanted: usize::MAX,
            bytes_max,
            is_broken: false,
            is_closed: false,
            is_given_up: false,
            client: None,
            link: None,
        });
        Arc::new(Self { letters, next_ticket: AtomicU64::new(0), held: AtomicU64::new(0) })
    }

    /// The ticket of the next command. Replies come out in the order of tickets,
    /// so each one that is taken must be answered.
    pub(crate) fn take_ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the client has asked for nothing since.
    pub(crate) fn is_newest(&self, ticket: u64) -> bool {
        self.next_ticket.load(Ordering::Relaxed) == ticket + 1
    }

    /// The client asks for nothing more until this is answered.
    pub(crate) fn hold(&self, ticket: u64) {
        self.held.store(ticket + 1, Ordering::Relaxed);
    }

    /// Whether the client must not ask for more at present.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) != 0
    }

    /// Puts in a reply or a part of one.
    pub(crate) fn put(&self, ticket: u64, bytes: &[u8], is_end: bool) {
        let mut letters = self.letters.lock();
        if is_end && self.held.load(Ordering::Relaxed) == ticket + 1 {
            self.held.store(0, Ordering::Relaxed);
        }
        if letters.is_closed || letters.is_broken {
            return;
        }
        if letters.bytes.len() + letters.early_bytes + bytes.len() > letters.bytes_max {
            letters.is_broken = true;
        } else if ticket == letters.turn {
            letters.append(bytes, is_end);
        } else {
            letters.early_bytes += bytes.len();
            let (waiting, is_ended) = letters.early.entry(ticket).or_default();
            waiting.extend_from_slice(bytes);
            *is_ended = is_end;
        }
        letters.wake_client();
    }

    /// Says that the rest of a reply will not come.
    pub(crate) fn tear(&self) {
        let mut letters = self.letters.lock();
        letters.is_broken = true;
        letters.wake_client();
    }

    /// Whether the client is behind, so that nothing more is to be read for it.
    /// Whoever asks is woken when it has caught up.
    pub(crate) fn poll_backlog(&self, cx: &mut Context<'_>) -> bool {
        let mut letters = self.letters.lock();
        let is_behind = letters.bytes.len() >= BACKLOG_BYTES
            && !(letters.is_closed || letters.is_broken || letters.is_given_up);
        if is_behind {
            letters.link = Some(cx.waker().clone());
        }
        is_behind
    }

    /// The link waits no more for a client that is behind: what comes for it is
    /// gathered, until it has caught up.
    pub(crate) fn give_up(&self) {
        self.letters.lock().is_given_up = true;
    }

    /// Waits for `wanted` ends of replies, or for a good part of one.
    pub(crate) fn poll_mail(&self, wanted: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut letters = self.letters.lock();
        letters.wanted = wanted;
        letters.is_given_up &= !letters.bytes.is_empty();
        if letters.is_ready() {
            return Poll::Ready(());
        }
        letters.client = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hands over what is there: the bytes, and where replies end in them.
    pub(crate) fn take(&self, read: impl FnOnce(&mut Vec<u8>, &[usize])) -> Taken {
        let mut letters = self.letters.lock();
        if letters.is_broken {
            return Taken::Broken;
        }
        let Letters { bytes, ends, .. } = &mut *letters;
        read(bytes, ends);
        let count = ends.len();
        bytes.clear();
        ends.clear();
        if bytes.capacity() > BACKLOG_BYTES {
            *bytes = Vec::new();
        }
        letters.wake_link();
        Taken::Replies(count)
    }

    /// The client is gone: what still comes is thrown away.
    pub(crate) fn close(&self) {
        let mut letters = self.letters.lock();
        letters.is_closed = true;
        letters.bytes = Vec::new();
        letters.early = BTreeMap::new();
        letters.wake_link();
    }
}

impl Letters {
    /// Adds what it is the turn of, and what has waited for that.
    fn append(&mut self, bytes: &[u8], is_end: bool) {
        self.bytes.extend_from_slice(bytes);
        if !is_end {
            return;
        }
        self.end_turn();
        while let Some((bytes, is_ended)) = self.early.remove(&self.turn) {
            self.early_bytes -= bytes.len();
            self.bytes.extend_from_slice(&bytes);
            if !is_ended {
                return;
            }
            self.end_turn();
        }
    }

    fn end_turn(&mut self) {
        self.ends.push(self.bytes.len());
        self.turn += 1;
    }

    fn is_ready(&self) -> bool {
        self.is_broken || self.ends.len() >= self.wanted || self.bytes.len() >= CHUNK_BYTES
    }

    fn wake_client(&mut self) {
        if self.is_ready()
            && let Some(client) = self.client.take()
        {
            client.wake();
        }
    }

    fn wake_link(&mut self) {
        if let Some(link) = self.link.take() {
            link.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn replies_come_out_as_they_went_in() {
        let mailbox = Mailbox::new(1000);
        mailbox.put(0, b"+O", false);
        mailbox.put(0, b"K\r\n", true);
        assert!(mailbox.poll_mail(2, &mut context()).is_pending());
        mailbox.put(1, b":1\r\n", true);
        assert!(mailbox.poll_mail(2, &mut context()).is_ready());
        let taken = mailbox.take(|bytes, ends| {
            assert_eq!((bytes.as_slice(), ends), (&b"+OK\r\n:1\r\n"[..], &[5, 9][..]));
        });
        assert_eq!(taken, Taken::Replies(2));
        assert!(mailbox.poll_mail(1, &mut context()).is_pending());
    }

    #[test]
    fn what_comes_early_waits_for_its_turn() {
        let mailbox = Mailbox::new(1000);
        mailbox.put(2, b":2\r\n", true);
        mailbox.put(1, b"+on", false);
        assert!(mailbox.poll_mail(1, &mut context()).is_pending());
        mailbox.put(0, b":0\r\n", true);
        assert!(mailbox.poll_mail(2, &mut context()).is_pending());
        mailbox.put(1, b"e\r\n", true);
        assert!(mailbox.poll_mail(3, &mut context()).is_ready());
        mailbox.take(|bytes, ends| {
            assert_eq!((bytes.as_slice(), ends), (&b":0\r\n+one\r\n:2\r\n"[..], &[4, 10, 14][..]));
        });
        mailbox.put(5, &[b'x'; 1001], true);
        assert_eq!(mailbox.take(|_, _| ()), Taken::Broken, "what waits counts, too");
    }

    #[test]
    fn a_client_is_held_until_its_command_is_answered() {
        let mailbox = Mailbox::new(1000);
        let ticket = mailbox.take_ticket();
        assert!(mailbox.is_newest(ticket) && !mailbox.is_held());
        mailbox.hold(ticket);
        mailbox.put(ticket, b"+O", false);
        assert!(mailbox.is_held());
        mailbox.put(ticket, b"K\r\n", true);
        assert!(!mailbox.is_held());
        mailbox.take_ticket();
        assert!(!mailbox.is_newest(ticket));
    }

    #[test]
    fn a_slow_client_holds_up_its_link_and_loses_what_is_too_much() {
        let mailbox = Mailbox::new(BACKLOG_BYTES * 2);
        mailbox.put(0, &vec![b'x'; BACKLOG_BYTES], false);
        assert!(mailbox.poll_backlog(&mut context()));
        assert!(mailbox.poll_mail(1, &mut context()).is_ready());
        assert_eq!(mailbox.take(|_, _| ()), Taken::Replies(0));
        assert!(!mailbox.poll_backlog(&mut context()));
        mailbox.put(0, &vec![b'x'; BACKLOG_BYTES * 2 + 1], false);
        assert_eq!(mailbox.take(|_, _| ()), Taken::Broken);
    }
}
