//! Where replies of Redis wait for the client they belong to.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A client is woken for so much, even if its last reply is still to come.
const CHUNK_BYTES: usize = 64 * 1024;

/// With so much unread, nothing more is read from Redis for a while.
const BACKLOG_BYTES: usize = 1 << 20;

/// The replies of one client.
#[derive(Debug)]
pub(crate) struct Mailbox(Mutex<Letters>);

#[derive(Debug)]
struct Letters {
    bytes: Vec<u8>,
    /// Where in the bytes replies end.
    ends: Vec<usize>,
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
        Arc::new(Self(Mutex::new(Letters {
            bytes: Vec::new(),
            ends: Vec::new(),
            wanted: usize::MAX,
            bytes_max,
            is_broken: false,
            is_closed: false,
            is_given_up: false,
            client: None,
            link: None,
        })))
    }

    /// Puts in a reply or a part of one.
    pub(crate) fn put(&self, bytes: &[u8], is_end: bool) {
        let mut letters = self.0.lock();
        if letters.is_closed || letters.is_broken {
            return;
        }
        if letters.bytes.len() + bytes.len() > letters.bytes_max {
            letters.is_broken = true;
        } else {
            letters.bytes.extend_from_slice(bytes);
            if is_end {
                let end = letters.bytes.len();
                letters.ends.push(end);
            }
        }
        letters.wake_client();
    }

    /// Says that the rest of a reply will not come.
    pub(crate) fn tear(&self) {
        let mut letters = self.0.lock();
        letters.is_broken = true;
        letters.wake_client();
    }

    /// Whether the client is behind, so that nothing more is to be read for it.
    /// Whoever asks is woken when it has caught up.
    pub(crate) fn poll_backlog(&self, cx: &mut Context<'_>) -> bool {
        let mut letters = self.0.lock();
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
        self.0.lock().is_given_up = true;
    }

    /// Waits for `wanted` ends of replies, or for a good part of one.
    pub(crate) fn poll_mail(&self, wanted: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut letters = self.0.lock();
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
        let mut letters = self.0.lock();
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
        let mut letters = self.0.lock();
        letters.is_closed = true;
        letters.bytes = Vec::new();
        letters.wake_link();
    }
}

impl Letters {
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
        mailbox.put(b"+O", false);
        mailbox.put(b"K\r\n", true);
        assert!(mailbox.poll_mail(2, &mut context()).is_pending());
        mailbox.put(b":1\r\n", true);
        assert!(mailbox.poll_mail(2, &mut context()).is_ready());
        let taken = mailbox.take(|bytes, ends| {
            assert_eq!((bytes.as_slice(), ends), (&b"+OK\r\n:1\r\n"[..], &[5, 9][..]));
        });
        assert_eq!(taken, Taken::Replies(2));
        assert!(mailbox.poll_mail(1, &mut context()).is_pending());
    }

    #[test]
    fn a_slow_client_holds_up_its_link_and_loses_what_is_too_much() {
        let mailbox = Mailbox::new(BACKLOG_BYTES * 2);
        mailbox.put(&vec![b'x'; BACKLOG_BYTES], false);
        assert!(mailbox.poll_backlog(&mut context()));
        assert!(mailbox.poll_mail(1, &mut context()).is_ready());
        assert_eq!(mailbox.take(|_, _| ()), Taken::Replies(0));
        assert!(!mailbox.poll_backlog(&mut context()));
        mailbox.put(&vec![b'x'; BACKLOG_BYTES * 2 + 1], false);
        assert_eq!(mailbox.take(|_, _| ()), Taken::Broken);
    }
}
