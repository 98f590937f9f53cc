//! Inline commands: a line of words with quotes, as typed into a terminal.

use std::ops::Range;

/// A quote does not close, or text follows a closing quote without a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unbalanced;

/// Splits a line into words: appends their bytes to `words` with the quoting
/// taken off, and their places in it to `ranges`.
///
/// Double quotes know `\n \r \t \b \a \xHH` and `\` before any other byte;
/// single quotes know `\'` only.
pub(crate) fn split_line(
    line: &[u8],
    words: &mut Vec<u8>,
    ranges: &mut Vec<Range<usize>>,
) -> Result<(), Unbalanced> {
    // Redis keeps the line as a C string, which ends at the first NUL.
    let end = line.iter().position(|&byte| byte == 0).unwrap_or(line.len());
    let mut rest = &line[..end];
    while let Some(word) = rest.iter().position(|&byte| !is_space(byte)) {
        let start = words.len();
        rest = take_word(&rest[word..], words)?;
        ranges.push(start..words.len());
    }
    Ok(())
}

/// Takes one word off the line and returns what follows it.
fn take_word<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match *rest {
            [] => return Ok(rest),
            [byte, ..] if is_space(byte) => return Ok(&rest[1..]),
            [b'"', ..] => return take_double_quoted(&rest[1..], words),
            [b'\'', ..] => return take_single_quoted(&rest[1..], words),
            [byte, ..] => {
                words.push(byte);
                rest = &rest[1..];
            }
        }
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let taken = match *rest {
            [] => return Err(Unbalanced),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                words.push(hex(high) << 4 | hex(low));
                4
            }
            [b'\\', escaped, ..] => {
                words.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                2
            }
            [b'"', ..] => return end_of_quotes(&rest[1..]),
            [byte, ..] => {
                words.push(byte);
                1
            }
        };
        rest = &rest[taken..];
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match *rest {
            [] => return Err(Unbalanced),
            [b'\\', b'\'', ..] => {
                words.push(b'\'');
                rest = &rest[2..];
            }
            [b'\'', ..] => return end_of_quotes(&rest[1..]),
            [byte, ..] => {
                words.push(byte);
                rest = &rest[1..];
            }
        }
    }
}

/// A closing quote must end the word.
fn end_of_quotes(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match *rest {
        [] => Ok(rest),
        [byte, ..] if is_space(byte) => Ok(rest),
        _ => Err(Unbalanced),
    }
}

/// `isspace` of C, which unlike [`u8::is_ascii_whitespace`] knows the vertical
/// tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, Unbalanced> {
        let (mut words, mut ranges) = (Vec::new(), Vec::new());
        split_line(line.as_bytes(), &mut words, &mut ranges)?;
        Ok(ranges.into_iter().map(|range| words[range].escape_ascii().to_string()).collect())
    }

    #[test]
    fn words_and_quotes() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(words(line).expect("the quotes are balanced"), expected, "{line}");
        };
        check("", &[]);
        check("  a\t b ", &["a", "b"]);
        check(r#"set "a b" 'c d'"#, &["set", "a b", "c d"]);
        check(r#""\x41\n\q\\" ''"#, &[r"A\nq\\", ""]);
        check(r"'it\'s \n'", &[r"it\'s \\n"]);
        check(r#"k="v w""#, &["k=v w"]);
    }

    #[test]
    fn quotes_must_close_and_end_the_word() {
        for line in [r#""a"#, "'a", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(words(line), Err(Unbalanced), "{line}");
        }
    }
}
