use std::fmt::Write as _;

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// JSON text that is the same for equal values: members sorted by the UTF-16
/// code units of their names, no white space, whole numbers without a fraction,
/// as RFC 8785 asks. Integers beyond 2^53 keep their digits instead of being
/// rounded, so distinct identifiers stay distinct.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

/// The first 128 bits of the SHA-256 of the canonical JSON, as 32 hexadecimal
/// digits: a key part for a filter or a list of arguments (K1).
#[must_use]
pub fn json_hash(value: &Value) -> String {
    let digest = Sha256::digest(canonical_json(value).as_bytes());
    let mut text = String::with_capacity(32);
    for byte in &digest[..16] {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => write_number(text, number),
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, value);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, &Value::String(name.clone()));
                text.push(':');
                write_value(text, value);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

/// −2^63 to below 2^64: the integers that JSON text is read as, so that a whole
/// double among them is written as one.
const WHOLE: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;

fn write_number(text: &mut String, number: &Number) {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && WHOLE.contains(&float) => {
            let _ = write!(text, "{}", float as i128);
        }
        _ => {
            let _ = write!(text, "{number}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_sorted_at_every_depth() {
        let value = json!({"b": [{"y": 1, "x": null}], "a": "ü\n", "€": -0.0, "c": 1e2});
        assert_eq!(canonical_json(&value), r#"{"a":"ü\n","b":[{"x":null,"y":1}],"c":100,"€":0}"#);
    }

    #[test]
    fn large_integers_keep_their_digits() {
        assert_eq!(canonical_json(&json!(9_007_199_254_740_993_u64)), "9007199254740993");
        assert_ne!(
            json_hash(&json!(9_007_199_254_740_993_u64)),
            json_hash(&json!(9_007_199_254_740_992_u64))
        );
    }

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        let hash = |text: &str| json_hash(&serde_json::from_str(text).expect("JSON"));
        for (one, other) in [
            ("1e19", "10000000000000000000"),
            ("-9.223372036854775808e18", "-9223372036854775808"),
            ("1e25", "10000000000000000000000000"),
            ("5e0", "5"),
        ] {
            assert_eq!(hash(one), hash(other), "{one} {other}");
        }
        assert_ne!(hash("18446744073709551615"), hash("18446744073709551616"));
    }

    #[test]
    fn the_hash_is_the_published_digest() {
        // SHA-256 of the two bytes `{}`.
        assert_eq!(json_hash(&json!({})), "44136fa355b3678a1146ad16f7e8649e");
    }
}
