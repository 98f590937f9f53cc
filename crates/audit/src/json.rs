use bytes::Bytes;
use larder_core::{Error, ErrorKind, Result};
use serde::de::IgnoredAny;

/// The object as one line: what is white space between members in JSON is a
/// blank. A text has no line break in it, because JSON does not allow that.
pub(crate) fn line(record: &Bytes) -> Result<Bytes> {
    let is_object = record.trim_ascii_start().first() == Some(&b'{');
    let checked = serde_json::from_slice::<IgnoredAny>(record);
    if !is_object || checked.is_err() || std::str::from_utf8(record).is_err() {
        return Err(Error::new(ErrorKind::InvalidInput, "a record is not a JSON object")
            .with("bytes", record.len())
            .remedy("write an object, such as {\"who\":\"ann\"}"));
    }
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !record.iter().any(is_break) {
        return Ok(record.clone());
    }
    let blank = |byte: &u8| if is_break(byte) { b' ' } else { *byte };
    Ok(record.iter().map(blank).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_and_says_the_same() {
        let spread: Bytes = "{\n  \"text\": \"a\\nb\",\r\n\"n\":[1,\n2]}".into();
        let flat = line(&spread).expect("an object");
        assert!(!flat.contains(&b'\n') && !flat.contains(&b'\r'));
        let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
        assert_eq!(read(&flat), read(&spread));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "1", "{", "{} {}", "{\"a\":1}\n{\"b\":2}", "{\"a\":\"\n\"}"] {
            assert!(line(&Bytes::from(bad)).is_err(), "{bad:?}");
        }
        assert!(line(&Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
    }
}
