//! JSON written straight into a buffer.

use std::borrow::Cow;

/// Appends a JSON string. Bytes that are not UTF-8 become U+FFFD, the one thing
/// JSON cannot carry.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(text) => write_escaped(out, text),
        Err(_) => write_escaped(out, &String::from_utf8_lossy(text)),
    }
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string.
pub(crate) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            control => {
                out.extend_from_slice(b"\\u00");
                write_hexadecimal(out, &[control]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Appends bytes as lower-case hexadecimal digits.
pub(crate) fn write_hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Appends bytes as a JSON string of hexadecimal digits.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    write_hexadecimal(out, bytes);
    out.push(b'"');
}

/// Appends an integer with all its digits.
pub(crate) fn write_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the shortest number that reads back as the same value; JSON has no
/// NaN and no infinities, so they become the strings that Postgres writes.
pub(crate) fn write_float(out: &mut Vec<u8>, number: impl Float) {
    match number.class() {
        Class::Finite => {
            let mut buffer = ryu::Buffer::new();
            out.extend_from_slice(number.format(&mut buffer).as_bytes());
        }
        Class::Nan => out.extend_from_slice(b"\"NaN\""),
        Class::Infinity => out.extend_from_slice(b"\"Infinity\""),
        Class::NegativeInfinity => out.extend_from_slice(b"\"-Infinity\""),
    }
}

/// Appends a text that is JSON already; one that is not becomes a string.
pub(crate) fn write_verbatim(out: &mut Vec<u8>, text: &[u8]) {
    let text = text.trim_ascii();
    if serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok() {
        out.extend_from_slice(text);
    } else {
        write_string(out, text);
    }
}

/// The start of each member: `{"a":`, `,"b":`, …
pub(crate) fn member_prefixes<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Box<[u8]>> {
    let prefix = |(index, name): (usize, &str)| {
        let mut out = vec![if index == 0 { b'{' } else { b',' }];
        write_string(&mut out, name.as_bytes());
        out.push(b':');
        out.into_boxed_slice()
    };
    names.enumerate().map(prefix).collect()
}

/// The text inside a token: without the quotes if it is a string.
pub(crate) fn token_text(token: &[u8]) -> &[u8] {
    match token {
        [b'"', inner @ .., b'"'] => inner,
        _ => token,
    }
}

/// Text as it stands between the quotes of a JSON string.
pub(crate) fn escaped(text: &str) -> Cow<'_, [u8]> {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    write_escaped(&mut out, text);
    Cow::Owned(out)
}

/// The two widths of floating point numbers.
pub(crate) trait Float: Copy {
    fn class(self) -> Class;
    fn format(self, buffer: &mut ryu::Buffer) -> &str;
}

/// Whether JSON has a number for it.
pub(crate) enum Class {
    Finite,
    Nan,
    Infinity,
    NegativeInfinity,
}

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            fn class(self) -> Class {
                if self.is_nan() {
                    Class::Nan
                } else if self.is_finite() {
                    Class::Finite
                } else if self > 0.0 {
                    Class::Infinity
                } else {
                    Class::NegativeInfinity
                }
            }

            fn format(self, buffer: &mut ryu::Buffer) -> &str {
                buffer.format_finite(self)
            }
        }
    };
}

float!(f32);
float!(f64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn what_json_cannot_carry_is_named() {
        assert_eq!(written(|out| write_float(out, f64::NAN)), r#""NaN""#);
        assert_eq!(written(|out| write_float(out, f32::NEG_INFINITY)), r#""-Infinity""#);
        assert_eq!(written(|out| write_string(out, b"a\xFFb")), "\"a\u{FFFD}b\"");
        assert_eq!(written(|out| write_string(out, b"a\0\x1f\"\\")), r#""a\u0000\u001f\"\\""#);
    }

    #[test]
    fn text_that_is_not_json_does_not_break_the_row() {
        assert_eq!(written(|out| write_verbatim(out, br#" {"a": 1} "#)), r#"{"a": 1}"#);
        assert_eq!(written(|out| write_verbatim(out, b"1}, {")), r#""1}, {""#);
        assert_eq!(written(|out| write_verbatim(out, b"")), r#""""#);
    }

    proptest! {
        #[test]
        fn strings_come_back(text in any::<String>()) {
            let json = written(|out| write_string(out, text.as_bytes()));
            prop_assert_eq!(token_text(json.as_bytes()), &*escaped(&text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("it is JSON"), text);
        }

        #[test]
        fn floats_come_back(bits: u64) {
            let number = f64::from_bits(bits);
            let json = written(|out| write_float(out, number));
            if number.is_finite() {
                prop_assert_eq!(json.parse::<f64>().expect("a number").to_bits(), bits);
            } else {
                prop_assert!(json.starts_with('"'));
            }
        }
    }
}
