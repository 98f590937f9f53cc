//! Finds commands in what a client sent, without copying their arguments.
//!
//! A command is an array of bulk strings or an inline line. Nothing nests, so
//! no input can make the parser recurse; and nothing is reserved for a length
//! that was only declared, so no input can make it allocate more than a small
//! multiple of what has arrived.

use std::fmt;
use std::ops::Range;

use super::inline::{Unbalanced, split_line};
use crate::keyspace::parse_integer;

/// The longest line: an inline command, or the head of an array or of a bulk
/// string. 64 KiB, as Redis has it.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The most arguments of one command, its name included.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;

/// What a client that has not yet authenticated may send.
const STRANGER_ARGUMENTS_MAX: usize = 10;
const STRANGER_BULK_BYTES_MAX: usize = 16 * 1024;

/// Room for the arguments of one command is kept for the next one up to this
/// many.
const RANGES_KEPT: usize = 1024;

/// Takes commands off a stream of bytes, however it is cut into reads.
#[derive(Debug, Default)]
pub struct Parser {
    /// The arguments found so far: places in the input, or in `line` for an
    /// inline command.
    ranges: Vec<Range<usize>>,
    /// The arguments of an inline command with the quoting taken off.
    line: Vec<u8>,
    is_inline: bool,
    /// How many arguments are still to come.
    missing: usize,
    /// The length of the argument that is under way, once it is known.
    bulk: Option<usize>,
    /// Where to go on in the input.
    position: usize,
}

/// What a client may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest argument.
    pub bulk_bytes_max: usize,
    /// The longest command, as it is sent.
    pub command_bytes_max: usize,
    /// Whether the client has authenticated, or need not. What others may send
    /// is little: ten arguments of 16 KiB.
    pub is_trusted: bool,
}

/// Why what a client sent is not a command. The connection cannot go on: where
/// the next command starts is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The number of arguments is not a number or is too large.
    MultibulkLength,
    /// The length of an argument is not a number or is too large.
    BulkLength,
    /// An argument does not start with `$`.
    ExpectedBulk(u8),
    /// An inline command without an end.
    InlineTooBig,
    /// The number of arguments without an end.
    MultibulkCountTooBig,
    /// The length of an argument without an end.
    BulkCountTooBig,
    /// An inline command with a quote that does not close.
    UnbalancedQuotes,
    /// More bytes than a command may have.
    CommandTooBig,
    /// Too many arguments from a client that has not authenticated.
    UnauthenticatedMultibulk,
    /// Too long an argument from a client that has not authenticated.
    UnauthenticatedBulk,
}

impl Parser {
    /// Reads on in `input` and returns how many bytes of it the next command
    /// takes, or `None` if it is not complete. A complete command may have no
    /// arguments at all: an empty line or an empty array.
    ///
    /// As long as the answer is `None`, the next call must get the same bytes
    /// again with more behind them; what was found in them is not searched
    /// twice. After a command, the next call gets what follows it.
    ///
    /// # Errors
    /// When the bytes are no command or break a limit.
    #[inline]
    pub fn parse(&mut self, input: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        let found = self.find_command(input, limits)?;
        if found.unwrap_or(input.len()) > limits.command_bytes_max {
            return Err(ProtocolError::CommandTooBig);
        }
        Ok(found)
    }

    /// The arguments of the command that [`Parser::parse`] has just found at the
    /// start of this input.
    #[inline]
    pub fn arguments<'a>(&'a self, input: &'a [u8], arguments: &mut Vec<&'a [u8]>) {
        let source = if self.is_inline { self.line.as_slice() } else { input };
        arguments.extend(self.ranges.iter().map(|range| &source[range.clone()]));
    }

    /// The only argument behind the name, if the command just found is an array
    /// of two strings of which the first is `name`, in whatever case.
    #[inline]
    pub(crate) fn only_argument<'a>(&self, input: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        match self.ranges.as_slice() {
            [first, second]
                if !self.is_inline && input[first.clone()].eq_ignore_ascii_case(name) =>
            {
                Some(&input[second.clone()])
            }
            _ => None,
        }
    }

    /// Whether the command just found was sent as a line.
    pub(crate) fn is_inline(&self) -> bool {
        self.is_inline
    }

    /// Forgets a command that is under way: the next call of [`Parser::parse`]
    /// gets the start of a command.
    pub(crate) fn restart(&mut self) {
        self.missing = 0;
        self.position = 0;
        self.bulk = None;
    }

    /// How many bytes the argument under way still lacks, as far as that is
    /// known: a hint for the size of the next read.
    #[must_use]
    pub fn missing_bytes(&self, input_bytes: usize) -> usize {
        self.bulk.map_or(0, |length| (self.position + length + 2).saturating_sub(input_bytes))
    }

    /// Gives back memory that only an unusually large command needed.
    pub fn shrink(&mut self) {
        self.ranges.shrink_to(RANGES_KEPT);
        self.line.shrink_to(0);
    }

    #[inline]
    fn find_command(
        &mut self,
        input: &[u8],
        limits: Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        if self.missing == 0 {
            self.ranges.clear();
            self.is_inline = false;
            match input.first() {
                None => return Ok(None),
                Some(b'*') => {
                    if !self.parse_count(input, limits)? {
                        return Ok(None);
                    }
                }
                Some(_) => return self.parse_inline(input),
            }
        }
        while self.missing > 0 {
            let Some(length) = self.bulk_length(input, limits)? else { return Ok(None) };
            if input.len() - self.position < length + 2 {
                return Ok(None);
            }
            self.ranges.push(self.position..self.position + length);
            self.position += length + 2;
            self.bulk = None;
            self.missing -= 1;
        }
        Ok(Some(std::mem::take(&mut self.position)))
    }

    /// Reads the `*count` that starts a command.
    fn parse_count(&mut self, input: &[u8], limits: Limits) -> Result<bool, ProtocolError> {
        let Some(line) = line_at(input, 1) else {
            return if input.len() > LINE_BYTES_MAX {
                Err(ProtocolError::MultibulkCountTooBig)
            } else {
                Ok(false)
            };
        };
        let count = parse_integer(&input[line.clone()])
            .filter(|&count| count <= ARGUMENTS_MAX as i64)
            .ok_or(ProtocolError::MultibulkLength)?;
        if count > STRANGER_ARGUMENTS_MAX as i64 && !limits.is_trusted {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        self.position = line.end + 2;
        self.missing = count.max(0) as usize;
        Ok(true)
    }

    /// The length of the argument under way, reading its `$length` if need be.
    #[inline]
    fn bulk_length(
        &mut self,
        input: &[u8],
        limits: Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        if let Some(length) = self.bulk {
            return Ok(Some(length));
        }
        match input.get(self.position) {
            Some(b'$') => {}
            // Redis looks for the end of the line before it looks at its start.
            Some(&other) if line_at(input, self.position).is_some() => {
                return Err(ProtocolError::ExpectedBulk(other));
            }
            _ => return self.incomplete_bulk_head(input),
        }
        let Some(line) = line_at(input, self.position + 1) else {
            return self.incomplete_bulk_head(input);
        };
        let length = parse_integer(&input[line.clone()])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|&length| length <= limits.bulk_bytes_max)
            .ok_or(ProtocolError::BulkLength)?;
        if length > STRANGER_BULK_BYTES_MAX && !limits.is_trusted {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        self.position = line.end + 2;
        self.bulk = Some(length);
        Ok(self.bulk)
    }

    fn incomplete_bulk_head(&self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if input.len() - self.position > LINE_BYTES_MAX {
            Err(ProtocolError::BulkCountTooBig)
        } else {
            Ok(None)
        }
    }

    fn parse_inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return if input.len() > LINE_BYTES_MAX {
                Err(ProtocolError::InlineTooBig)
            } else {
                Ok(None)
            };
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        if line.len() > LINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        self.is_inline = true;
        self.line.clear();
        split_line(line, &mut self.line, &mut self.ranges)
            .map_err(|Unbalanced| ProtocolError::UnbalancedQuotes)?;
        Ok(Some(end + 1))
    }
}

/// The text before the next `\r` at or after `start`, if the byte behind it has
/// arrived too.
#[inline]
fn line_at(input: &[u8], start: usize) -> Option<Range<usize>> {
    let length = input.get(start..)?.iter().position(|&byte| byte == b'\r')?;
    let end = start + length;
    (end + 1 < input.len()).then_some(start..end)
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::BulkLength => "invalid bulk length",
            Self::ExpectedBulk(byte) => {
                return write!(f, "Protocol error: expected '$', got '{}'", char::from(byte));
            }
            Self::InlineTooBig => "too big inline request",
            Self::MultibulkCountTooBig => "too big mbulk count string",
            Self::BulkCountTooBig => "too big bulk count string",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::CommandTooBig => "command larger than the query buffer may be",
            Self::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            Self::UnauthenticatedBulk => "unauthenticated bulk length",
        };
        write!(f, "Protocol error: {text}")
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { bulk_bytes_max: 1 << 20, command_bytes_max: 1 << 22, is_trusted: true };

    /// Feeds the pieces one after the other and returns the commands found.
    fn parse_pieces(
        pieces: &[&[u8]],
        limits: Limits,
    ) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut parser = Parser::default();
        let mut input = Vec::new();
        let mut commands = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let used = match parser.parse(&input, limits) {
                    Ok(None) => break,
                    Ok(Some(used)) => used,
                    Err(error) => return (commands, Some(error)),
                };
                let mut arguments = Vec::new();
                parser.arguments(&input, &mut arguments);
                if !arguments.is_empty() {
                    commands.push(arguments.into_iter().map(<[u8]>::to_vec).collect());
                }
                input.drain(..used);
            }
        }
        (commands, None)
    }

    fn error_of(input: &[u8]) -> ProtocolError {
        parse_pieces(&[input], LIMITS).1.expect("the input breaks the protocol")
    }

    #[test]
    fn pipelined_and_inline_commands_are_found_in_order() {
        let input =
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\nPING \"a b\"\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n";
        let (commands, error) = parse_pieces(&[input], LIMITS);
        assert_eq!(error, None);
        assert_eq!(
            commands,
            [
                vec![b"GET".to_vec(), b"k".to_vec()],
                vec![b"PING".to_vec(), b"a b".to_vec()],
                vec![Vec::new()]
            ]
        );
    }

    #[test]
    fn errors_are_those_of_redis() {
        for (input, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*9223372036854775808\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$1048577\r\n", "invalid bulk length"),
            (b"*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n:5\r\n", "expected '$', got ':'"),
            (b"SET \"a\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(error_of(input).to_string(), format!("Protocol error: {text}"));
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_once_it_is_too_long() {
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        let with = |head: &[u8]| [head, &long].concat();
        assert_eq!(error_of(&long), ProtocolError::InlineTooBig);
        assert_eq!(error_of(&with(b"*")), ProtocolError::MultibulkCountTooBig);
        assert_eq!(error_of(&with(b"*1\r\n$")), ProtocolError::BulkCountTooBig);
    }

    #[test]
    fn a_command_has_a_largest_size_whether_it_is_complete_or_not() {
        let limits = Limits { command_bytes_max: 30, ..LIMITS };
        let error = |pieces: &[&[u8]]| parse_pieces(pieces, limits).1;
        let fits = b"*2\r\n$3\r\nGET\r\n$7\r\n1234567\r\n";
        assert_eq!(fits.len(), 26);
        assert_eq!(error(&[fits, fits]), None);
        let large = b"*2\r\n$3\r\nGET\r\n$12\r\n123456789012\r\n";
        assert_eq!(error(&[large]), Some(ProtocolError::CommandTooBig));
        assert_eq!(error(&[&large[..31]]), Some(ProtocolError::CommandTooBig));
        assert_eq!(error(&[&large[..30]]), None);
    }

    #[test]
    fn strangers_may_send_little() {
        let strangers = Limits { is_trusted: false, ..LIMITS };
        let error = |input: &[u8]| parse_pieces(&[input], strangers).1;
        assert_eq!(error(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
        assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
        assert_eq!(error(b"*10\r\n$16384\r\n"), None);
    }

    #[test]
    fn a_declared_length_reserves_nothing() {
        let mut parser = Parser::default();
        let limits = Limits { bulk_bytes_max: usize::MAX >> 2, ..LIMITS };
        let input = b"*1048576\r\n$536870912\r\nx";
        assert_eq!(parser.parse(input, limits), Ok(None));
        assert!(parser.ranges.capacity() <= 4);
        assert_eq!(parser.missing_bytes(input.len()), 536_870_912 + 1);
    }

    /// An argument, an inline word or plain noise.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let command = vec(vec(any::<u8>(), 0..20), 0..6).prop_map(|arguments| {
            let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
            for argument in arguments {
                bytes.extend(format!("${}\r\n", argument.len()).bytes());
                bytes.extend(argument);
                bytes.extend(b"\r\n");
            }
            bytes
        });
        let inline = "[a-z'\" \\\\x0-9]{0,12}\r?\n".prop_map(String::into_bytes);
        let noise = vec(prop_oneof![any::<u8>(), Just(b'*'), Just(b'$'), Just(b'\r')], 0..8);
        vec(prop_oneof![8 => command, 2 => inline, 1 => noise], 0..8)
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_commands_are_the_same(
            stream in stream(),
            cuts in vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = parse_pieces(&[&stream], LIMITS);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> =
                places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&parse_pieces(&pieces, LIMITS), &whole);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse_pieces(&bytes, LIMITS), &whole);
        }
    }
}
