//! Finds where replies of Redis end, without reading what they say.
//!
//! Replies nest, but the scanner only counts how many values are still owed: no
//! input makes it recurse or reserve memory.

use crate::keyspace::parse_integer;

/// The longest line that a reply may have: a status, an error or a length.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The most values in one reply, however they nest.
const VALUES_MAX: u64 = 1 << 40;

/// Where in a reply the scanner is. It begins between two replies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Values that the reply still lacks; 0 between two replies.
    missing: u64,
    /// Bytes of a string that are still to come, its line break included.
    string: u64,
    /// The first byte of the reply, which says what it is.
    head: u8,
}

/// How far one look came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scanned {
    /// The reply ends after so many bytes.
    Whole(usize),
    /// So many bytes belong to the reply, and more will come.
    Part(usize),
}

/// What came is no reply. The connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Garbled;

impl Scanner {
    /// Scans on in what follows the bytes scanned before.
    pub(crate) fn scan(&mut self, input: &[u8]) -> Result<Scanned, Garbled> {
        let mut at = 0;
        loop {
            if self.string > 0 {
                let there = (input.len() - at) as u64;
                let taken = there.min(self.string);
                self.string -= taken;
                at += taken as usize;
                if self.string > 0 {
                    return Ok(Scanned::Part(at));
                }
                if self.missing == 0 {
                    return Ok(Scanned::Whole(at));
                }
            }
            let Some(line) = line_at(&input[at..])? else { return Ok(Scanned::Part(at)) };
            self.read_line(line)?;
            at += line.len() + 2;
            if self.missing == 0 && self.string == 0 {
                return Ok(Scanned::Whole(at));
            }
        }
    }

    /// What the reply begins with that was scanned last, or is being scanned.
    pub(crate) fn head(&self) -> u8 {
        self.head
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Garbled> {
        let (&kind, rest) = line.split_first().ok_or(Garbled)?;
        if self.missing == 0 {
            self.missing = 1;
            self.head = kind;
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => self.missing -= 1,
            b'$' | b'=' | b'!' => {
                self.missing -= 1;
                match parse_integer(rest).ok_or(Garbled)? {
                    -1 => {}
                    length => self.string = u64::try_from(length).map_err(|_| Garbled)? + 2,
                }
            }
            b'*' | b'~' | b'>' => self.open(rest, 1, true)?,
            b'%' => self.open(rest, 2, true)?,
            // What is said about a value comes before it.
            b'|' => self.open(rest, 2, false)?,
            _ => return Err(Garbled),
        }
        Ok(())
    }

    /// Values inside: so many for each of the count.
    fn open(&mut self, count: &[u8], each: u64, is_value: bool) -> Result<(), Garbled> {
        let count = match parse_integer(count).ok_or(Garbled)? {
            -1 => 0,
            count => u64::try_from(count).map_err(|_| Garbled)?,
        };
        let inside = count.checked_mul(each).filter(|inside| *inside <= VALUES_MAX);
        self.missing += inside.ok_or(Garbled)?;
        self.missing -= u64::from(is_value);
        if self.missing > VALUES_MAX { Err(Garbled) } else { Ok(()) }
    }
}

/// The line that the input begins with, without its break.
fn line_at(input: &[u8]) -> Result<Option<&[u8]>, Garbled> {
    match input.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\r') {
        Some(end) => match input.get(end + 1) {
            Some(b'\n') => Ok(Some(&input[..end])),
            Some(_) => Err(Garbled),
            None => Ok(None),
        },
        None if input.len() >= LINE_BYTES_MAX => Err(Garbled),
        None => Ok(None),
    }
}

/// The string that a whole reply is: `Some(None)` if it says that there is none,
/// `None` if it is something else. The second part is what follows it.
pub(crate) fn string(reply: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let line = line_at(reply).ok()??;
    let rest = &reply[line.len() + 2..];
    match *line {
        [b'_'] => Some((None, rest)),
        [b'$', ref length @ ..] => match parse_integer(length)? {
            -1 => Some((None, rest)),
            length => {
                let length = usize::try_from(length).ok()?;
                let end = length.checked_add(2)?;
                Some((Some(rest.get(..length)?), rest.get(end..)?))
            }
        },
        _ => None,
    }
}

/// How many elements the array has that a reply begins with, and what follows.
pub(crate) fn array(reply: &[u8]) -> Option<(usize, &[u8])> {
    let line = line_at(reply).ok()??;
    let [b'*' | b'>' | b'~', count @ ..] = line else { return None };
    let count = usize::try_from(parse_integer(count)?).ok()?;
    Some((count, &reply[line.len() + 2..]))
}

/// The elements of the array that a whole reply is.
pub(crate) fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = array(reply)?;
    let mut elements = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        let Ok(Scanned::Whole(length)) = Scanner::default().scan(rest) else { return None };
        let (element, behind) = rest.split_at(length);
        elements.push(element);
        rest = behind;
    }
    rest.is_empty().then_some(elements)
}

/// The text that a whole reply is: a string, or one in RESP3 that says of itself
/// that it is for people.
pub(crate) fn text(reply: &[u8]) -> Option<&[u8]> {
    let line = line_at(reply).ok()??;
    let rest = &reply[line.len() + 2..];
    let [kind @ (b'$' | b'='), length @ ..] = line else { return None };
    let text = rest.get(..usize::try_from(parse_integer(length)?).ok()?)?;
    if *kind == b'=' { text.get(4..) } else { Some(text) }
}

/// The number that a whole reply is.
pub(crate) fn integer(reply: &[u8]) -> Option<i64> {
    let line = line_at(reply).ok()??;
    let [b':', number @ ..] = line else { return None };
    parse_integer(number)
}

/// What must hold for whatever Redis sends: the same ends of replies however the
/// stream is cut, and no panic.
pub(crate) fn check_stream(stream: &[u8]) {
    let pieces = usize::from(stream.first().copied().unwrap_or(0)) % 61 + 2;
    let whole = lengths(stream, stream.len().max(1));
    if let Ok(whole) = &whole {
        assert!(whole.iter().sum::<usize>() <= stream.len(), "replies hold more than was sent");
    }
    assert_eq!(lengths(stream, pieces), whole, "ends depend on how the stream is cut");
    let _ = (string(stream), array(stream), integer(stream), elements(stream), text(stream));
}

/// The lengths of the replies in a stream that arrives in pieces.
fn lengths(stream: &[u8], piece: usize) -> Result<Vec<usize>, Garbled> {
    let mut scanner = Scanner::default();
    let (mut lengths, mut length, mut start) = (Vec::new(), 0, 0);
    for end in (0..stream.len()).step_by(piece).map(|at| (at + piece).min(stream.len())) {
        while start < end {
            match scanner.scan(&stream[start..end])? {
                Scanned::Whole(count) => {
                    lengths.push(length + count);
                    (length, start) = (0, start + count);
                }
                Scanned::Part(0) => break,
                Scanned::Part(count) => (length, start) = (length + count, start + count),
            }
        }
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPLIES: [&[u8]; 15] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":5\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
        b"%1\r\n+a\r\n~1\r\n_\r\n",
        b"|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        b"=7\r\ntxt:abc\r\n",
        b",1.5\r\n",
        b"%0\r\n",
    ];

    #[test]
    fn ends_are_found_however_the_stream_is_cut() {
        let stream = REPLIES.concat();
        let expected: Vec<_> = REPLIES.iter().map(|reply| reply.len()).collect();
        for piece in 1..=stream.len() {
            assert_eq!(lengths(&stream, piece), Ok(expected.clone()), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for input in [
            &b"x\r\n"[..],
            b"\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"*?\r\n",
            b"*9999999999999999\r\n",
            b"+a\rb\r\n",
        ] {
            assert_eq!(lengths(input, input.len()), Err(Garbled), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn parts_are_read() {
        assert_eq!(string(b"$1\r\na\r\nrest"), Some((Some(&b"a"[..]), &b"rest"[..])));
        assert_eq!(string(b"_\r\n"), Some((None, &b""[..])));
        assert_eq!(string(b"$5\r\na\r\n"), None);
        assert_eq!(string(b"-ERR\r\n"), None);
        assert_eq!(array(b"*2\r\n:1\r\n"), Some((2, &b":1\r\n"[..])));
        assert_eq!(array(b"*-1\r\n"), None);
        assert_eq!(integer(b":-2\r\n"), Some(-2));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_run_on(
            input in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"$*%>|_+-:\r\n0129".to_vec())],
                0..200,
            ),
        ) {
            check_stream(&input);
        }
    }
}
