//! Writes replies in RESP2 or RESP3, whichever the client asked for.

use std::num::NonZeroUsize;

/// The head of a string and the line break behind it.
const LENGTH_BYTES_MAX: usize = 32;

/// Which protocol a client speaks; RESP2 until it says `HELLO 3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// The protocol of Redis 2 to 5.
    #[default]
    Resp2,
    /// The protocol of Redis 6 and later.
    Resp3,
}

/// The replies of one batch, appended one after the other and written to the
/// socket at once.
#[derive(Debug, Default)]
pub struct Reply {
    buffer: Vec<u8>,
    protocol: Protocol,
    /// How large the buffer may become; beyond it, strings are left out.
    bytes_max: Option<NonZeroUsize>,
    is_over_limit: bool,
}

impl Reply {
    /// An empty batch in this protocol.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, ..Self::default() }
    }

    /// Sets how many bytes may wait. A batch that would exceed it is cut short
    /// and [`Reply::is_over_limit`] from then on: the connection must end.
    pub fn set_limit(&mut self, bytes_max: usize) {
        self.bytes_max = NonZeroUsize::new(bytes_max);
        self.is_over_limit = false;
    }

    /// Whether replies were left out because more would wait than may.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.is_over_limit
    }

    /// The protocol written.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Switches the protocol for what follows.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// The bytes not yet written to the socket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The buffer, for whoever writes and drains it.
    pub fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.buffer.extend_from_slice(b"+OK\r\n");
    }

    /// A status, such as `+PONG`. The text holds no line break.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error. The text starts with its code in capitals, such as `ERR` or
    /// `WRONGTYPE`; line breaks become spaces.
    pub fn error(&mut self, text: &str) {
        self.buffer.push(b'-');
        self.buffer.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// A whole number.
    pub fn integer(&mut self, number: i64) {
        self.length(b':', number);
    }

    /// A string of bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        let bytes_max = self.bytes_max.map_or(usize::MAX, NonZeroUsize::get);
        if bytes.len() > bytes_max.saturating_sub(self.buffer.len()) {
            self.is_over_limit = true;
            return;
        }
        self.buffer.reserve(bytes.len() + LENGTH_BYTES_MAX);
        self.length(b'$', bytes.len() as i64);
        self.buffer.extend_from_slice(bytes);
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// The head of what is said about the next reply; `count` pairs of replies
    /// follow. Only for clients that asked for it in RESP3: RESP2 has no such
    /// thing.
    pub fn attribute(&mut self, count: usize) {
        debug_assert_eq!(self.protocol, Protocol::Resp3, "RESP2 has no attributes");
        self.length(b'|', count as i64);
    }

    /// That there is no value.
    pub fn null(&mut self) {
        self.buffer.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// That there is no array, such as `EXEC` of a transaction that a watched
    /// key aborted.
    pub fn null_array(&mut self) {
        self.buffer.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; `count` replies follow.
    pub fn array(&mut self, count: usize) {
        self.length(b'*', count as i64);
    }

    /// The head of a map; `count` pairs of replies follow. An array of twice as
    /// many in RESP2.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', count as i64 * 2),
            Protocol::Resp3 => self.length(b'%', count as i64),
        }
    }

    /// The head of a set; `count` replies follow. An array in RESP2.
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', count as i64),
            Protocol::Resp3 => self.length(b'~', count as i64),
        }
    }

    /// A text for people, such as `INFO`'s. A string of bytes in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.length(b'=', text.len() as i64 + 4);
                self.buffer.extend_from_slice(b"txt:");
                self.buffer.extend_from_slice(text.as_bytes());
                self.buffer.extend_from_slice(b"\r\n");
            }
        }
    }

    #[inline]
    fn length(&mut self, kind: u8, number: i64) {
        self.line(kind, itoa::Buffer::new().format(number).as_bytes());
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.buffer.push(kind);
        self.buffer.extend_from_slice(text);
        self.buffer.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Reply)) -> String {
        let mut reply = Reply::new(protocol);
        write(&mut reply);
        String::from_utf8(reply.as_bytes().to_vec()).expect("the tests write text")
    }

    #[test]
    fn nulls_and_maps_differ_between_the_protocols() {
        let write = |reply: &mut Reply| {
            reply.map(1);
            reply.bulk(b"k");
            reply.null();
        };
        assert_eq!(written(Protocol::Resp2, write), "*2\r\n$1\r\nk\r\n$-1\r\n");
        assert_eq!(written(Protocol::Resp3, write), "%1\r\n$1\r\nk\r\n_\r\n");
    }

    #[test]
    fn a_batch_beyond_the_limit_is_cut_short_and_says_so() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.set_limit(20);
        reply.bulk(b"0123456789");
        assert!(!reply.is_over_limit());
        reply.bulk(b"0123456789");
        assert!(reply.is_over_limit());
        assert_eq!(reply.as_bytes(), b"$10\r\n0123456789\r\n");
    }

    #[test]
    fn an_error_cannot_break_the_stream() {
        assert_eq!(
            written(Protocol::Resp2, |reply| reply.error("ERR a\r\n+OK")),
            "-ERR a  +OK\r\n"
        );
    }
}
