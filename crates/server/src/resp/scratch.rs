//! The buffers a connection works with while it has work, lent by its thread.
//!
//! A connection without unread input and unwritten replies holds no buffer, so
//! ten thousand idle connections cost no more than their sockets and tasks, and
//! the few buffers in use stay in the processor's cache.

use std::cell::RefCell;

use super::parser::Parser;
use super::{Protocol, Reply};

/// Room for one read. A connection that fills it gets more.
const READ_BYTES_MIN: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// A buffer that grew beyond this is not kept for the next connection.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// How many sets of buffers a thread keeps. More are needed only while
/// connections wait for loads or for the rest of a command.
const KEPT_MAX: usize = 8;

/// The buffers of one connection at work.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What has been read and is not yet dropped.
    pub(crate) input: Vec<u8>,
    /// How much of the input has been answered.
    pub(crate) used: usize,
    /// Reads commands from the input behind `used`.
    pub(crate) parser: Parser,
    /// Room for the arguments of one command. Empty between commands.
    pub(crate) arguments: Vec<&'static [u8]>,
    /// Replies not yet written.
    pub(crate) reply: Reply,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a connection holds its buffers by one pointer")]
    static KEPT: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    /// Borrows buffers from this thread.
    pub(crate) fn take(protocol: Protocol) -> Box<Self> {
        let mut scratch = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
        scratch.reply.set_protocol(protocol);
        scratch
    }

    /// Gives buffers back that hold nothing any more.
    pub(crate) fn give(mut self: Box<Self>) {
        debug_assert!(self.is_empty(), "only empty buffers are given back");
        self.input.clear();
        self.used = 0;
        self.shrink();
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(self);
            }
        });
    }

    /// Whether nothing is unread and nothing unwritten.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == self.input.len() && self.reply.as_bytes().is_empty()
    }

    /// Drops the input that was answered and makes room for one read. The room
    /// grows with what has arrived, not with what was announced.
    pub(crate) fn make_room(&mut self) {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        let held = self.input.len();
        let wanted = self.parser.missing_bytes(held).min(held);
        let room = wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        if self.input.capacity() - held < room {
            self.input.reserve(room);
        }
    }

    /// Gives back memory that only unusually large commands or replies needed.
    fn shrink(&mut self) {
        if self.input.capacity() > KEPT_BYTES_MAX {
            self.input = Vec::new();
        }
        let reply = self.reply.buffer_mut();
        if reply.capacity() > KEPT_BYTES_MAX {
            *reply = Vec::new();
        }
        self.parser.shrink();
    }
}

/// The same vector, emptied, for slices of another lifetime. Keeps the
/// allocation: the standard library collects a vector's own iterator in place.
#[inline]
pub(crate) fn recycle<'b>(mut slices: Vec<&[u8]>) -> Vec<&'b [u8]> {
    slices.clear();
    slices.into_iter().map(|_| -> &'b [u8] { &[] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycling_keeps_the_allocation() {
        let mut slices: Vec<&[u8]> = Vec::with_capacity(16);
        slices.push(b"a");
        let place = slices.as_ptr().addr();
        let recycled = recycle(slices);
        assert!(recycled.is_empty());
        assert_eq!((recycled.as_ptr().addr(), recycled.capacity()), (place, 16));
    }

    #[test]
    fn an_announced_length_makes_no_room_before_its_bytes_arrive() {
        let mut scratch = Scratch::take(Protocol::Resp2);
        scratch.input.extend_from_slice(b"*1\r\n$500000000\r\nabc");
        let limits = crate::resp::parser::Limits {
            bulk_bytes_max: 1 << 30,
            command_bytes_max: 1 << 30,
            is_trusted: true,
        };
        assert_eq!(scratch.parser.parse(&scratch.input, limits), Ok(None));
        scratch.make_room();
        assert!(scratch.input.capacity() <= 4 * READ_BYTES_MIN);
    }
}
