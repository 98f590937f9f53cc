//! What records and dead letters are in Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    DeadLetter, Death, DeathCause, Error, ErrorKind, JournalEntry, JournalOffset, JournalRecord,
    Result,
};
use redis::Value;

use crate::connector::text;

/// An entry of a stream: its place, when it was accepted by the server's clock in
/// microseconds, and the record.
pub(super) fn read_entry(value: &Value, age: impl Fn(u64) -> Duration) -> Result<JournalEntry> {
    let parts = || {
        let Value::Array(parts) = value else { return None };
        let [id, Value::Array(fields)] = parts.as_slice() else { return None };
        let id = text(id)?;
        let (offset, accepted) = id.split_once('-')?;
        let [_, Value::BulkString(record)] = fields.as_slice() else { return None };
        Some((offset.parse::<u64>().ok()?, accepted.parse::<u64>().ok()?, record))
    };
    let (offset, accepted, record) = parts().ok_or_else(foreign)?;
    let mut record = read_record(record, offset)?;
    record.age = record.age.saturating_add(age(accepted));
    Ok(JournalEntry { offset: JournalOffset(offset), record })
}

/// A dead letter, as `bury.lua` writes it.
pub(super) fn read_letter(
    lane: u16,
    offset: u64,
    letter: &[u8],
    age: impl Fn(u64) -> Duration,
) -> Result<DeadLetter> {
    let (accepted, rest) = split_number(letter).ok_or_else(foreign)?;
    let (cause, rest) = split_number(rest).ok_or_else(foreign)?;
    let (length, rest) = split_number(rest).ok_or_else(foreign)?;
    let length = usize::try_from(length).map_err(|_| foreign())?;
    let (reason, record) = rest.split_at_checked(length).ok_or_else(foreign)?;
    let cause = usize::try_from(cause).ok().and_then(|cause| DeathCause::ALL.get(cause));
    let cause = *cause.ok_or_else(foreign)?;
    let reason = String::from_utf8_lossy(reason);
    let mut record = read_record(record, offset)?;
    record.age = record.age.saturating_add(age(accepted));
    Ok(DeadLetter { lane, record, death: Death::new(JournalOffset(offset), cause, &reason) })
}

/// The number of a cause.
pub(super) fn cause_number(cause: DeathCause) -> usize {
    DeathCause::ALL.iter().position(|other| *other == cause).unwrap_or(0)
}

/// Another program wrote here.
pub(super) fn foreign() -> Error {
    Error::new(ErrorKind::Decode, "what stands in the journal in Redis is not Larder's")
        .remedy("give the journal a name of its own")
}

fn read_record(bytes: &[u8], offset: u64) -> Result<JournalRecord> {
    JournalRecord::decode(&Bytes::copy_from_slice(bytes))
        .map_err(|error| error.with("offset", offset))
}

fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, &bytes[end + 1..]))
}

/// A record's bytes.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if it is too large.
pub(super) fn encode(record: &JournalRecord, bytes_max: usize) -> Result<Vec<u8>> {
    let length = record.encoded_length();
    if length > bytes_max {
        return Err(Error::new(ErrorKind::InvalidInput, "a write is too large for the journal")
            .with("cache", Arc::clone(&record.cache))
            .with("bytes", length)
            .with("record_bytes_max", bytes_max)
            .remedy("raise record_bytes_max, or write this value through"));
    }
    let mut bytes = Vec::with_capacity(length);
    record.encode(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use larder_core::{Action, Key, Version, Write};
    use proptest::prelude::*;

    use super::*;

    fn record() -> JournalRecord {
        JournalRecord {
            cache: "order".into(),
            write: Write::new(Key::new("order:1"), Action::Put(Bytes::from_static(b"a b 1 2"))),
            version: Version::new(4),
            age: Duration::from_secs(1),
        }
    }

    fn letter(reason: &str) -> Vec<u8> {
        let mut letter = format!("77 1 {} {reason}", reason.len()).into_bytes();
        letter.extend(encode(&record(), 1000).expect("it is short"));
        letter
    }

    #[test]
    fn a_letter_reads_back() {
        let age = |accepted| Duration::from_secs(accepted);
        for reason in ["", "no 1 2 3", "größe"] {
            let read = read_letter(3, 9, &letter(reason), age).expect("a letter");
            assert_eq!((read.lane, read.death.offset), (3, JournalOffset(9)));
            assert_eq!((&*read.death.reason, read.death.cause), (reason, DeathCause::ALL[1]));
            assert_eq!(read.record.write, record().write);
            assert_eq!(read.record.age, Duration::from_secs(78));
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let error = encode(&record(), 10).expect_err("it is larger");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(bytes: Vec<u8>, at: usize) {
            let age = |_| Duration::ZERO;
            let _ = read_letter(0, 1, &bytes, age);
            let mut damaged = letter("why");
            let at = at % damaged.len();
            damaged.truncate(at);
            damaged.extend(&bytes);
            let _ = read_letter(0, 1, &damaged, age);
            let entry = Value::Array(vec![
                Value::BulkString(bytes.clone()),
                Value::Array(vec![Value::BulkString(b"r".to_vec()), Value::BulkString(bytes)]),
            ]);
            prop_assert!(read_entry(&entry, age).is_err());
        }
    }
}
