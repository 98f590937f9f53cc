use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::flags::number;
use super::{Complaint, ComplaintKind, Reply, ReplyFlags};

/// How much of an error line is kept.
const COMPLAINT_BYTES_MAX: usize = 200;

/// What a server may announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest line, its end not counted.
    pub line_bytes_max: usize,
    /// The longest value.
    pub value_bytes_max: usize,
}

impl Default for Limits {
    /// Lines of 8 KiB, and values of 1 MiB as servers have them by default.
    fn default() -> Self {
        Self { line_bytes_max: 8 << 10, value_bytes_max: 1 << 20 }
    }
}

/// The server speaks something else than the meta protocol. Nothing that
/// follows on the connection can be trusted to be the answer to anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A line does not end.
    LineTooLong,
    /// A value is announced that is longer than the server may keep.
    ValueTooLong(usize),
    /// A line begins with no known code, or its numbers are none.
    UnknownLine,
    /// A value does not end where it was announced to.
    ValueUnterminated,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong => f.write_str("a line does not end"),
            Self::ValueTooLong(bytes) => write!(f, "a value of {bytes} bytes is announced"),
            Self::UnknownLine => f.write_str("a line that is no reply"),
            Self::ValueUnterminated => f.write_str("a value is longer than announced"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Makes replies of bytes, however they are cut into reads.
///
/// It remembers how far it has looked, so that a long value that arrives in
/// many pieces is looked at once.
#[derive(Clone, Default, Debug)]
pub struct Parser {
    /// No line ends before this place.
    scanned: usize,
    /// A value whose line has been read.
    value: Option<(usize, ReplyFlags)>,
}

impl Parser {
    /// Takes one reply from the front of what has arrived, or says with `None`
    /// that it is not all there yet. Values are copied: what is kept of a reply
    /// does not keep the buffer.
    ///
    /// # Errors
    /// [`ProtocolError`] if this is no reply. The stream is of no use then.
    pub fn parse(
        &mut self,
        input: &mut BytesMut,
        limits: Limits,
    ) -> Result<Option<Reply>, ProtocolError> {
        if self.value.is_none() {
            let Some(line) = self.take_line(input, limits.line_bytes_max)? else {
                return Ok(None);
            };
            match parse_line(&line).ok_or(ProtocolError::UnknownLine)? {
                Line::Reply(reply) => return Ok(Some(reply)),
                Line::ValueFollows(bytes, _) if bytes > limits.value_bytes_max => {
                    return Err(ProtocolError::ValueTooLong(bytes));
                }
                Line::ValueFollows(bytes, flags) => self.value = Some((bytes, flags)),
            }
        }
        self.take_value(input)
    }

    /// How many bytes are certain to follow: room to make for them at once.
    #[must_use]
    pub fn expected_bytes(&self) -> usize {
        self.value.map_or(0, |(bytes, _)| bytes + 2)
    }

    fn take_line(
        &mut self,
        input: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, ProtocolError> {
        let unscanned = input.get(self.scanned..).unwrap_or_default();
        match unscanned.iter().position(|byte| *byte == b'\n') {
            Some(at) if self.scanned + at <= bytes_max + 1 => {
                let mut line = input.split_to(self.scanned + at + 1);
                self.scanned = 0;
                let is_whole = line.ends_with(b"\r\n");
                line.truncate(line.len() - if is_whole { 2 } else { 1 });
                Ok(Some(line.freeze()))
            }
            None if input.len() <= bytes_max + 1 => {
                self.scanned = input.len();
                Ok(None)
            }
            _ => Err(ProtocolError::LineTooLong),
        }
    }

    fn take_value(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ProtocolError> {
        let Some((bytes, flags)) = self.value else { return Ok(None) };
        if input.len() < bytes + 2 {
            return Ok(None);
        }
        if input[bytes..bytes + 2] != *b"\r\n" {
            return Err(ProtocolError::ValueUnterminated);
        }
        let value = Bytes::copy_from_slice(&input[..bytes]);
        input.advance(bytes + 2);
        self.value = None;
        Ok(Some(Reply::Value(value, flags)))
    }
}

enum Line {
    Reply(Reply),
    ValueFollows(usize, ReplyFlags),
}

fn parse_line(line: &Bytes) -> Option<Line> {
    let (code, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (&line[..at], line.slice(at + 1..)),
        None => (&line[..], Bytes::new()),
    };
    let mut tokens = rest.split(|byte| *byte == b' ').filter(|token| !token.is_empty());
    let reply = match code {
        b"HD" => Reply::Done(ReplyFlags::parse(tokens)?),
        b"NS" => Reply::NotStored(ReplyFlags::parse(tokens)?),
        b"EX" => Reply::Exists(ReplyFlags::parse(tokens)?),
        b"NF" => Reply::NotFound(ReplyFlags::parse(tokens)?),
        b"VA" => {
            let bytes = number(tokens.next()?)?;
            return Some(Line::ValueFollows(bytes, ReplyFlags::parse(tokens)?));
        }
        b"EN" => Reply::Missing,
        b"MN" => Reply::Noop,
        b"ME" => Reply::Debug(Bytes::copy_from_slice(&rest)),
        b"STAT" => {
            let name = text(tokens.next()?);
            let value: Vec<String> = tokens.map(text).collect();
            Reply::Stat(name, value.join(" "))
        }
        b"END" => Reply::End,
        b"STORED" => Reply::Stored,
        b"VERSION" => Reply::Version(text(&rest)),
        b"ERROR" => complaint(ComplaintKind::UnknownCommand, &rest),
        b"CLIENT_ERROR" => complaint(ComplaintKind::Client, &rest),
        b"SERVER_ERROR" => complaint(ComplaintKind::Server, &rest),
        _ => return None,
    };
    Some(Line::Reply(reply))
}

fn complaint(kind: ComplaintKind, text: &[u8]) -> Reply {
    let cut = &text[..text.len().min(COMPLAINT_BYTES_MAX)];
    Reply::Complaint(Complaint { kind, text: cut.escape_ascii().to_string() })
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Everything that the stream holds, given to the parser piece by piece.
    fn parse_all(pieces: &[&[u8]], limits: Limits) -> (Vec<Reply>, Option<ProtocolError>) {
        let (mut parser, mut input, mut replies) = (Parser::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match parser.parse(&mut input, limits) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(error) => return (replies, Some(error)),
                }
            }
        }
        (replies, None)
    }

    fn parse(stream: &[u8]) -> (Vec<Reply>, Option<ProtocolError>) {
        parse_all(&[stream], Limits::default())
    }

    const STREAM: &[u8] = b"VA 2 c7 t-1 f3 O12 W\r\nhi\r\nHD O1 c9 t59 Z X\r\nEN\r\nVA 0\r\n\r\n\
        NS O2\r\nEX c0\r\nNF\r\nMN\r\nME foo exp=-1 la=1\r\nSTAT a b c\r\nEND\r\nSTORED\r\n\
        VERSION 1.6.18\r\nERROR\r\nCLIENT_ERROR bad\x01\r\nSERVER_ERROR out of memory\r\n";

    #[test]
    fn every_reply_is_understood() {
        let (replies, error) = parse(STREAM);
        assert_eq!(error, None);
        let flags = ReplyFlags::default();
        let complaint =
            |kind, text: &str| Reply::Complaint(Complaint { kind, text: text.to_owned() });
        let expected = [
            Reply::Value(
                Bytes::from_static(b"hi"),
                ReplyFlags {
                    cas: Some(7),
                    client_flags: Some(3),
                    opaque: Some(12),
                    is_won: true,
                    ..flags
                },
            ),
            Reply::Done(ReplyFlags {
                opaque: Some(1),
                cas: Some(9),
                ttl_secs: Some(59),
                is_taken: true,
                is_stale: true,
                ..flags
            }),
            Reply::Missing,
            Reply::Value(Bytes::new(), flags),
            Reply::NotStored(ReplyFlags { opaque: Some(2), ..flags }),
            Reply::Exists(ReplyFlags { cas: Some(0), ..flags }),
            Reply::NotFound(flags),
            Reply::Noop,
            Reply::Debug(Bytes::from_static(b"foo exp=-1 la=1")),
            Reply::Stat("a".into(), "b c".into()),
            Reply::End,
            Reply::Stored,
            Reply::Version("1.6.18".into()),
            complaint(ComplaintKind::UnknownCommand, ""),
            complaint(ComplaintKind::Client, "bad\\x01"),
            complaint(ComplaintKind::Server, "out of memory"),
        ];
        assert_eq!(replies, expected);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_what_was_whole_and_waits_for_the_rest() {
        let (whole, _) = parse(STREAM);
        for cut in 0..STREAM.len() {
            let (before, after) = STREAM.split_at(cut);
            let (replies, error) = parse(before);
            assert_eq!(error, None, "cut at {cut}");
            assert_eq!(replies, whole[..replies.len()], "cut at {cut}");
            assert_eq!(parse_all(&[before, after], Limits::default()), (whole.clone(), None));
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for (stream, expected) in [
            ("HELLO\r\n", ProtocolError::UnknownLine),
            ("\r\n", ProtocolError::UnknownLine),
            ("VA\r\n", ProtocolError::UnknownLine),
            ("VA -1\r\n", ProtocolError::UnknownLine),
            ("VA +1\r\n", ProtocolError::UnknownLine),
            ("VA 99999999999999999999999\r\n", ProtocolError::UnknownLine),
            ("VA 1048577\r\n", ProtocolError::ValueTooLong(1_048_577)),
            ("VA 2\r\nhi!\r\n", ProtocolError::ValueUnterminated),
            ("HD O-3\r\n", ProtocolError::UnknownLine),
            ("HD c18446744073709551616\r\n", ProtocolError::UnknownLine),
        ] {
            assert_eq!(parse(stream.as_bytes()), (vec![], Some(expected)), "{stream:?}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_given_up_with_or_without_its_end() {
        let limits = Limits { line_bytes_max: 4, value_bytes_max: 9 };
        assert_eq!(parse_all(&[b"EN\r\n"], limits), (vec![Reply::Missing], None));
        assert_eq!(parse_all(&[b"HD W\r\n"], limits).1, None);
        assert_eq!(parse_all(&[b"HD WW\r"], limits).1, Some(ProtocolError::LineTooLong));
        assert_eq!(parse_all(&[b"HD WW\r\n"], limits).1, Some(ProtocolError::LineTooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_alike_however_they_are_cut(
            stream in vec(prop_oneof![
                Just(b"VA 3 c1 O2\r\nabc\r\n".to_vec()),
                Just(b"HD O7 t-1\r\n".to_vec()),
                Just(b"EN\r\n".to_vec()),
                vec(any::<u8>(), 0..9),
                Just(b"VA 70000 f1\r\n".to_vec()),
            ], 0..9),
            cut in 0..80_usize,
        ) {
            let stream = stream.concat();
            let cut = cut.min(stream.len());
            let limits = Limits { line_bytes_max: 64, value_bytes_max: 1 << 16 };
            let whole = parse_all(&[&stream], limits);
            prop_assert_eq!(&parse_all(&[&stream[..cut], &stream[cut..]], limits), &whole);
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(parse_all(&single, limits), whole);
        }
    }
}
