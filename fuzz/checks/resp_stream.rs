//! What must hold for whatever a client sends.

use larder_server::resp::parser::{Limits, Parser, ProtocolError};

/// What a stream of bytes comes to: its commands and how it ends.
type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Parses a stream whole, byte by byte and in pieces of which its own first
/// byte gives the length: the commands must be the same, lie within what was
/// sent, and take no more memory than that.
pub(crate) fn check_stream(stream: &[u8]) {
    let pieces = usize::from(stream.first().copied().unwrap_or(0)) % 61 + 2;
    for is_trusted in [true, false] {
        let limits = Limits { bulk_bytes_max: 1 << 20, command_bytes_max: 1 << 22, is_trusted };
        let whole = parse(stream.chunks(stream.len().max(1)), limits);
        let bytes: usize = whole.0.iter().flatten().map(Vec::len).sum();
        assert!(bytes <= stream.len(), "the commands hold more than was sent");
        assert_eq!(parse(stream.chunks(pieces), limits), whole);
        if stream.len() <= 4096 {
            assert_eq!(parse(stream.chunks(1), limits), whole);
        }
    }
}

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: Limits) -> Outcome {
    let mut parser = Parser::default();
    let mut input: Vec<u8> = Vec::new();
    let mut commands = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let length = match parser.parse(rest, limits) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            };
            assert!((1..=rest.len()).contains(&length), "a command ends behind its start");
            let mut arguments = Vec::new();
            parser.arguments(rest, &mut arguments);
            commands.push(arguments.into_iter().map(<[u8]>::to_vec).collect());
            used += length;
        }
        input.drain(..used);
    }
    (commands, None)
}
