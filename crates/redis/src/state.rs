//! What scripts answer about the shared clock.

use larder_core::{BusPosition, Error, ErrorKind, Result, Version};
use redis::Value;

use crate::connector::text;
use crate::message::MessageId;

/// The highest version: scripts compute with numbers that are exact up to here,
/// less some room to count on.
pub(crate) const VERSION_MAX: u64 = (1 << 53) - (1 << 32);

/// The shared clock at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// `None`: there is no clock. Somebody emptied the server.
    pub(crate) epoch: Option<u64>,
    /// No change has a higher version.
    pub(crate) version: Version,
    /// No older version is put any more.
    pub(crate) floor: Version,
    /// The last message.
    pub(crate) last: MessageId,
    /// The server's time.
    pub(crate) micros: u64,
    /// Messages, from the one asked for on.
    pub(crate) messages: Vec<Message>,
    /// The number of the last change of who serves what in a cluster.
    pub(crate) changes: Option<u64>,
}

/// A message as it stands in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) version: Version,
    pub(crate) announcement: Vec<u8>,
}

impl State {
    /// Where the stream ends.
    pub(crate) fn head(&self) -> BusPosition {
        let epoch = self.epoch.unwrap_or_default();
        BusPosition { epoch, sequence: self.last.sequence }
    }

    /// Reads what `join.lua` and `poll.lua` answer.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if it is something else: other programs write keys of
    /// these names.
    pub(crate) fn read(answer: Value) -> Result<Self> {
        Self::try_read(answer).ok_or_else(|| {
            Error::new(ErrorKind::Decode, "the shared clock in Redis is not one of Larder")
                .remedy("give this fleet a prefix of its own")
        })
    }

    fn try_read(answer: Value) -> Option<Self> {
        let Value::Array(mut parts) = answer else { return None };
        let (mut messages, mut changes) = (Value::Array(Vec::new()), None);
        if parts.len() == 9 {
            changes = text(&parts.pop()?)?.parse().ok();
            messages = parts.pop()?;
        }
        let [epoch, version, floor, sequence, last, seconds, micros] = parts.as_slice() else {
            return None;
        };
        let epoch = text(epoch)?;
        let last = MessageId::parse(&text(last)?)?;
        let Value::Array(messages) = messages else { return None };
        (last.sequence == number(sequence)?).then_some(())?;
        Some(Self {
            epoch: if epoch.is_empty() { None } else { Some(epoch.parse().ok()?) },
            version: Version::new(number(version)?),
            floor: Version::new(number(floor)?),
            last,
            micros: number(seconds)?.checked_mul(1_000_000)?.checked_add(number(micros)?)?,
            messages: messages.into_iter().map(read_message).collect::<Option<_>>()?,
            changes,
        })
    }
}

/// A number that a script wrote as text, or did not.
pub(crate) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

fn read_message(value: Value) -> Option<Message> {
    let Value::Array(parts) = value else { return None };
    let [id, Value::Array(fields)] = parts.as_slice() else { return None };
    let [_, version, _, Value::BulkString(announcement)] = fields.as_slice() else { return None };
    Some(Message {
        id: MessageId::parse(&text(id)?)?,
        version: Version::new(number(version)?),
        announcement: announcement.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn an_answer_is_read() {
        let fields = [bulk("version"), bulk("9"), bulk("announcement"), bulk("x")];
        let message = Value::Array(vec![bulk("3-7"), Value::Array(fields.to_vec())]);
        let mut parts: Vec<Value> = ["5", "9", "0", "3", "3-7", "2", "10"].map(bulk).to_vec();
        let state = State::read(Value::Array(parts.clone())).expect("a state");
        assert_eq!((state.epoch, state.micros), (Some(5), 2_000_010));
        assert_eq!(state.head(), BusPosition { epoch: 5, sequence: 3 });
        parts.extend([Value::Array(vec![message]), bulk("")]);
        let state = State::read(Value::Array(parts.clone())).expect("a state");
        assert_eq!((state.messages[0].version, state.changes), (Version::new(9), None));
        parts[8] = bulk("6");
        parts[0] = bulk("");
        let state = State::read(Value::Array(parts.clone())).expect("a state");
        assert_eq!((state.epoch, state.changes), (None, Some(6)));
    }

    #[test]
    fn what_others_wrote_is_refused() {
        for wrong in [
            Value::Nil,
            Value::Array(vec![bulk("5")]),
            Value::Array(["5", "x", "0", "3", "3-7", "2", "10"].map(bulk).to_vec()),
            Value::Array(["5", "9", "0", "4", "3-7", "2", "10"].map(bulk).to_vec()),
            Value::Array(["5", "9", "0", "3", "37", "2", "10"].map(bulk).to_vec()),
        ] {
            assert_eq!(State::read(wrong).expect_err("it is none").kind(), ErrorKind::Decode);
        }
    }
}
