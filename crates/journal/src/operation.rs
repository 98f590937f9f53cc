use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use larder_core::{DeathCause, JournalRecord, MachineTime};

/// What a frame of the log says, one or more of them.
///
/// | tag | then |
/// |---|---|
/// | 0 checkpoint | see [`Checkpoint`] |
/// | 1 append | lane, offset, when it was accepted, length, record |
/// | 2 bury | lane, offset, cause, length, reason |
/// | 3 letter | as 1, then cause, length, reason: a dead letter carried over |
/// | 4 trim | lane, through |
/// | 5 forget | lane, offset |
///
/// All numbers are big-endian; lanes and the length of a reason have two bytes,
/// the length of a record four, a cause one, all else eight.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Operation {
    Checkpoint(Checkpoint),
    Append {
        lane: u16,
        offset: u64,
        accepted: u64,
        record: Arc<JournalRecord>,
    },
    Bury {
        lane: u16,
        offset: u64,
        cause: DeathCause,
        reason: Arc<str>,
    },
    Letter {
        lane: u16,
        offset: u64,
        accepted: u64,
        record: Arc<JournalRecord>,
        cause: DeathCause,
        reason: Arc<str>,
    },
    Trim {
        lane: u16,
        through: u64,
    },
    Forget {
        lane: u16,
        offset: u64,
    },
}

/// What a segment begins with: all that would else be known only from those
/// before it, which may be gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Checkpoint {
    /// The name in marks.
    pub(crate) name: String,
    /// How often the journal was opened.
    pub(crate) openings: u64,
    /// How many of the lanes are in use.
    pub(crate) lanes_used: u16,
    /// A moment of the journal's time in microseconds, and what the machine said
    /// then.
    pub(crate) time: u64,
    pub(crate) machine: MachineStamp,
    pub(crate) lanes: Vec<LaneCheckpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LaneCheckpoint {
    pub(crate) trimmed: u64,
    pub(crate) next: u64,
    /// Dead letters.
    pub(crate) dead: Vec<u64>,
    /// Dropped dead letters above what is trimmed.
    pub(crate) gone: Vec<u64>,
}

/// [`MachineTime`] as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct MachineStamp {
    /// Zero if the machine does not say.
    pub(crate) boot: u128,
    pub(crate) since_boot: u64,
    pub(crate) since_1970: u64,
}

impl From<MachineTime> for MachineStamp {
    fn from(time: MachineTime) -> Self {
        let micros =
            |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self {
            boot: time.boot.unwrap_or(0),
            since_boot: micros(time.since_boot),
            since_1970: micros(time.since_1970),
        }
    }
}

impl Operation {
    /// How many bytes [`Operation::encode`] makes of an appended record.
    pub(crate) fn append_bytes(record: &JournalRecord) -> usize {
        1 + 2 + 8 + 8 + 4 + record.encoded_length()
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Checkpoint(checkpoint) => {
                into.put_u8(0);
                checkpoint.encode(into);
            }
            Self::Append { lane, offset, accepted, record } => {
                put_record(into, 1, (*lane, *offset, *accepted), record);
            }
            Self::Bury { lane, offset, cause, reason } => {
                into.put_u8(2);
                into.put_u16(*lane);
                into.put_u64(*offset);
                put_reason(into, *cause, reason);
            }
            Self::Letter { lane, offset, accepted, record, cause, reason } => {
                put_record(into, 3, (*lane, *offset, *accepted), record);
                put_reason(into, *cause, reason);
            }
            Self::Trim { lane, through } => put_place(into, 4, *lane, *through),
            Self::Forget { lane, offset } => put_place(into, 5, *lane, *offset),
        }
    }

    /// Everything in the body of a frame; `None` if it is not what
    /// [`Operation::encode`] makes.
    pub(crate) fn decode_all(mut body: &[u8]) -> Option<Vec<Self>> {
        let mut operations = Vec::new();
        while !body.is_empty() {
            operations.push(Self::decode(&mut body)?);
        }
        Some(operations)
    }

    fn decode(body: &mut &[u8]) -> Option<Self> {
        let tag = body.try_get_u8().ok()?;
        if tag == 0 {
            return Some(Self::Checkpoint(Checkpoint::decode(body)?));
        }
        let lane = body.try_get_u16().ok()?;
        let offset = body.try_get_u64().ok()?;
        Some(match tag {
            1 => {
                let (accepted, record) = take_record(body)?;
                Self::Append { lane, offset, accepted, record }
            }
            2 => {
                let (cause, reason) = take_reason(body)?;
                Self::Bury { lane, offset, cause, reason }
            }
            3 => {
                let (accepted, record) = take_record(body)?;
                let (cause, reason) = take_reason(body)?;
                Self::Letter { lane, offset, accepted, record, cause, reason }
            }
            4 => Self::Trim { lane, through: offset },
            5 => Self::Forget { lane, offset },
            _ => return None,
        })
    }
}

impl Checkpoint {
    fn encode(&self, into: &mut Vec<u8>) {
        put_text(into, &self.name);
        into.put_u64(self.openings);
        into.put_u16(self.lanes_used);
        into.put_u64(self.time);
        into.put_u128(self.machine.boot);
        into.put_u64(self.machine.since_boot);
        into.put_u64(self.machine.since_1970);
        into.put_u16(u16::try_from(self.lanes.len()).unwrap_or(u16::MAX));
        for lane in &self.lanes {
            into.put_u64(lane.trimmed);
            into.put_u64(lane.next);
            for offsets in [&lane.dead, &lane.gone] {
                into.put_u32(u32::try_from(offsets.len()).unwrap_or(u32::MAX));
                offsets.iter().for_each(|offset| into.put_u64(*offset));
            }
        }
    }

    fn decode(body: &mut &[u8]) -> Option<Self> {
        let name = take_text(body)?.to_owned();
        let openings = body.try_get_u64().ok()?;
        let lanes_used = body.try_get_u16().ok()?;
        let time = body.try_get_u64().ok()?;
        let machine = MachineStamp {
            boot: body.try_get_u128().ok()?,
            since_boot: body.try_get_u64().ok()?,
            since_1970: body.try_get_u64().ok()?,
        };
        let mut lanes = Vec::new();
        for _ in 0..body.try_get_u16().ok()? {
            let (trimmed, next) = (body.try_get_u64().ok()?, body.try_get_u64().ok()?);
            let (dead, gone) = (take_offsets(body)?, take_offsets(body)?);
            lanes.push(LaneCheckpoint { trimmed, next, dead, gone });
        }
        Some(Self { name, openings, lanes_used, time, machine, lanes })
    }
}

fn put_place(into: &mut Vec<u8>, tag: u8, lane: u16, offset: u64) {
    into.put_u8(tag);
    into.put_u16(lane);
    into.put_u64(offset);
}

fn put_record(into: &mut Vec<u8>, tag: u8, place: (u16, u64, u64), record: &JournalRecord) {
    let (lane, offset, accepted) = place;
    put_place(into, tag, lane, offset);
    into.put_u64(accepted);
    into.put_u32(u32::try_from(record.encoded_length()).unwrap_or(u32::MAX));
    record.encode(into).expect("its length was checked when it was appended");
}

fn put_reason(into: &mut Vec<u8>, cause: DeathCause, reason: &str) {
    let place = DeathCause::ALL.iter().position(|other| *other == cause).unwrap_or(0);
    into.put_u8(u8::try_from(place).unwrap_or(0));
    put_text(into, reason);
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    into.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    into.put_slice(text.as_bytes());
}

fn take_record(body: &mut &[u8]) -> Option<(u64, Arc<JournalRecord>)> {
    let accepted = body.try_get_u64().ok()?;
    let length = body.try_get_u32().ok()? as usize;
    // Copied, so that one small record does not keep a whole segment in memory.
    let bytes = Bytes::copy_from_slice(take(body, length)?);
    Some((accepted, Arc::new(JournalRecord::decode(&bytes).ok()?)))
}

fn take_reason(body: &mut &[u8]) -> Option<(DeathCause, Arc<str>)> {
    let cause = *DeathCause::ALL.get(usize::from(body.try_get_u8().ok()?))?;
    Some((cause, Arc::from(take_text(body)?)))
}

fn take_text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(body.try_get_u16().ok()?);
    std::str::from_utf8(take(body, length)?).ok()
}

fn take_offsets(body: &mut &[u8]) -> Option<Vec<u64>> {
    let count = body.try_get_u32().ok()? as usize;
    let mut bytes = take(body, count.checked_mul(8)?)?;
    Some(std::iter::from_fn(|| bytes.try_get_u64().ok()).collect())
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{Action, Key, Version, Write};
    use proptest::prelude::*;

    use super::*;

    fn record(value: Vec<u8>) -> Arc<JournalRecord> {
        Arc::new(JournalRecord {
            cache: "order".into(),
            write: Write::new(Key::new("order:1"), Action::Put(value.into())),
            version: Version::new(4),
            age: Duration::from_micros(9),
        })
    }

    fn operations() -> impl Strategy<Value = Operation> {
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        let offsets = || proptest::collection::vec(any::<u64>(), 0..4);
        let lane = (any::<u64>(), any::<u64>(), offsets(), offsets());
        let lane = lane.prop_map(|(trimmed, next, dead, gone)| LaneCheckpoint {
            trimmed,
            next,
            dead,
            gone,
        });
        let cause = proptest::sample::select(DeathCause::ALL.to_vec());
        prop_oneof![
            (any::<u16>(), any::<u64>(), any::<u64>(), value.clone()).prop_map(
                |(lane, offset, accepted, value)| Operation::Append {
                    lane,
                    offset,
                    accepted,
                    record: record(value),
                }
            ),
            (any::<u16>(), any::<u64>(), cause.clone(), ".{0,30}").prop_map(
                |(lane, offset, cause, reason)| Operation::Bury {
                    lane,
                    offset,
                    cause,
                    reason: reason.into(),
                }
            ),
            (any::<u16>(), any::<u64>(), value, cause, ".{0,30}").prop_map(
                |(lane, offset, value, cause, reason)| Operation::Letter {
                    lane,
                    offset,
                    accepted: 3,
                    record: record(value),
                    cause,
                    reason: reason.into(),
                }
            ),
            (any::<u16>(), any::<u64>())
                .prop_map(|(lane, through)| Operation::Trim { lane, through }),
            (any::<u16>(), any::<u64>())
                .prop_map(|(lane, offset)| Operation::Forget { lane, offset }),
            (".{0,9}", any::<u64>(), proptest::collection::vec(lane, 0..3)).prop_map(
                |(name, openings, lanes)| Operation::Checkpoint(Checkpoint {
                    name,
                    openings,
                    lanes_used: 3,
                    time: 17,
                    lanes,
                    machine: MachineStamp { boot: 7, since_boot: 8, since_1970: 9 },
                })
            ),
        ]
    }

    proptest! {
        #[test]
        fn operations_read_back(operations in proptest::collection::vec(operations(), 0..6)) {
            let mut body = Vec::new();
            operations.iter().for_each(|operation| operation.encode(&mut body));
            prop_assert_eq!(Operation::decode_all(&body), Some(operations));
        }

        #[test]
        fn whatever_stands_there_is_read_or_refused(bytes: Vec<u8>, start in operations(), at: usize) {
            let _ = Operation::decode_all(&bytes);
            let mut body = Vec::new();
            start.encode(&mut body);
            body.truncate(at % (body.len() + 1));
            body.extend(bytes);
            let _ = Operation::decode_all(&body);
        }
    }
}
