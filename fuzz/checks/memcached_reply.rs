//! What must hold for whatever a memcached sends.

use bytes::BytesMut;
use larder_memcached::protocol::{Limits, Parser, ProtocolError, Reply};

/// What a stream of bytes comes to: its replies and how it ends.
type Outcome = (Vec<Reply>, Option<ProtocolError>);

/// Parses a stream whole, byte by byte and in pieces of which its own first
/// byte gives the length: the replies must be the same, and lie within what
/// was sent.
pub(crate) fn check_stream(stream: &[u8]) {
    let pieces = usize::from(stream.first().copied().unwrap_or(0)) % 61 + 2;
    let limits = Limits { line_bytes_max: 512, value_bytes_max: 1 << 16 };
    let whole = parse(stream.chunks(stream.len().max(1)), limits);
    let bytes: usize = whole.0.iter().map(value_length).sum();
    assert!(bytes <= stream.len(), "the values hold more than was sent");
    assert_eq!(parse(stream.chunks(pieces), limits), whole);
    if stream.len() <= 4096 {
        assert_eq!(parse(stream.chunks(1), limits), whole);
    }
}

fn value_length(reply: &Reply) -> usize {
    match reply {
        Reply::Value(value, _) | Reply::Debug(value) => value.len(),
        _ => 0,
    }
}

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: Limits) -> Outcome {
    let mut parser = Parser::default();
    let mut input = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match parser.parse(&mut input, limits) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
            assert!(input.len() < before, "a reply of no bytes");
            assert!(parser.expected_bytes() <= limits.value_bytes_max + 2);
        }
    }
    (replies, None)
}
