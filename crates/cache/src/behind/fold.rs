use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use larder_core::{Action, Expected, JournalRecord, Key, Write};

/// What is given to the origin at once.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<Write<Key, Bytes>>,
    /// Which records each of the writes stands for.
    pub(super) offsets: Vec<Vec<u64>>,
    /// The last record.
    pub(super) through: u64,
}

/// What a batch may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits<'a> {
    pub(super) writes: usize,
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// No record behind this one: a flush is a barrier.
    pub(super) barrier: Option<u64>,
    /// Whether it must be all up to its last record, because a mark says "up to
    /// here". Else what does not fit is passed over.
    pub(super) prefix: bool,
    /// Whether anything is coalesced.
    pub(super) coalesce: bool,
    /// Keys of which nothing is coalesced.
    pub(super) apart: &'a HashSet<Key>,
}

impl Batch {
    pub(super) fn records_count(&self) -> usize {
        self.offsets.iter().map(Vec::len).sum()
    }

    /// Takes records of one cache, oldest first, as far as the limits go.
    ///
    /// Adjacent puts of a key are one, and so are adjacent additions to one
    /// member: adjacent among the writes of that key. Nothing is merged over a
    /// removal, an expectation, a patch or another member. The writes of a key
    /// stay in order; those of different keys have none.
    pub(super) fn take<'r>(
        records: impl Iterator<Item = (u64, &'r JournalRecord)>,
        limits: BatchLimits<'_>,
    ) -> Self {
        let mut batch = Self::default();
        let mut last_of: HashMap<&Key, usize> = HashMap::new();
        let mut passed_over: HashSet<&Key> = HashSet::new();
        let (mut count, mut bytes) = (0, 0);
        for (offset, record) in records {
            if count >= limits.records || limits.barrier.is_some_and(|barrier| offset > barrier) {
                break;
            }
            let key = &record.write.key;
            if passed_over.contains(key) {
                continue;
            }
            let may_merge = limits.coalesce && !limits.apart.contains(key);
            let merged = last_of
                .get(key)
                .filter(|_| may_merge)
                .and_then(|&at| merge(&batch.writes[at], &record.write).map(|action| (at, action)));
            if let Some((at, action)) = merged {
                batch.writes[at].action = action;
                batch.offsets[at].push(offset);
            } else {
                bytes += weight(record);
                let is_full = batch.writes.len() >= limits.writes
                    || (bytes > limits.bytes && !batch.writes.is_empty());
                if is_full && limits.prefix {
                    break;
                }
                if is_full {
                    passed_over.insert(key);
                    continue;
                }
                last_of.insert(key, batch.writes.len());
                batch.writes.push(record.write.clone());
                batch.offsets.push(vec![offset]);
            }
            count += 1;
            batch.through = offset;
        }
        batch
    }
}

/// Bytes that a record takes while it waits, and in a batch.
pub(super) fn weight(record: &JournalRecord) -> usize {
    let value = match &record.write.action {
        Action::Put(value) | Action::Patch(value) => value.len(),
        _ => 0,
    };
    record.write.key.as_bytes().len() + value + RECORD_BYTES
}

/// What a record takes beside its key and value, roughly.
const RECORD_BYTES: usize = 128;

/// One action that does what both do, one after the other.
fn merge(first: &Write<Key, Bytes>, second: &Write<Key, Bytes>) -> Option<Action<Bytes>> {
    if first.expected != Expected::Anything || second.expected != Expected::Anything {
        return None;
    }
    match (&first.action, &second.action) {
        (Action::Put(_), Action::Put(value)) => Some(Action::Put(value.clone())),
        (Action::Add { field, by }, Action::Add { field: other, by: more }) if field == other => {
            let by = by.checked_add(*more)?;
            Some(Action::Add { field: field.clone(), by })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use larder_core::{Decimal, Version};
    use proptest::prelude::*;

    use super::*;

    /// A row with two members, or none, and what was said to whoever wrote.
    type Rows = BTreeMap<Key, [i64; 2]>;

    fn act(rows: &mut Rows, write: &Write<Key, Bytes>) -> bool {
        let held = rows.get(&write.key).copied();
        let expected = match write.expected {
            Expected::Absent => held.is_none(),
            Expected::Present => held.is_some(),
            _ => true,
        };
        if !expected {
            return false;
        }
        let number = |bytes: &Bytes| bytes.first().map_or(0, |byte| i64::from(*byte));
        match (&write.action, held) {
            (Action::Put(value), _) => drop(rows.insert(write.key.clone(), [number(value), 0])),
            (Action::Remove, _) => drop(rows.remove(&write.key)),
            (Action::Patch(value), Some([_, second])) => {
                rows.insert(write.key.clone(), [number(value), second]);
            }
            (Action::Add { field, by }, Some(mut row)) => {
                row[usize::from(&**field == "b")] += by.as_i64().expect("whole numbers");
                rows.insert(write.key.clone(), row);
            }
            _ => return false,
        }
        true
    }

    fn records() -> impl Strategy<Value = Vec<JournalRecord>> {
        let action = prop_oneof![
            4 => any::<u8>().prop_map(|byte| Action::Put(vec![byte].into())),
            1 => Just(Action::Remove),
            1 => any::<u8>().prop_map(|byte| Action::Patch(vec![byte].into())),
            4 => (any::<bool>(), -9..9_i64).prop_map(|(second, by)| Action::Add {
                field: if second { "b" } else { "a" }.into(),
                by: Decimal::from(by),
            }),
        ];
        let expected = prop_oneof![
            6 => Just(Expected::Anything),
            1 => Just(Expected::Absent),
            1 => Just(Expected::Present),
        ];
        let record =
            (0..4_u8, action, expected).prop_map(|(key, action, expected)| JournalRecord {
                cache: "row".into(),
                write: Write::new(Key::new([key]), action).expecting(expected),
                version: Version::new(1),
                age: Duration::ZERO,
            });
        proptest::collection::vec(record, 0..40)
    }

    fn batches(records: &[JournalRecord], writes: usize, prefix: bool) -> Vec<Batch> {
        let mut waiting: BTreeMap<u64, &JournalRecord> = (1..).zip(records).collect();
        let mut batches = Vec::new();
        let apart = HashSet::new();
        while !waiting.is_empty() {
            let limits = BatchLimits {
                writes,
                records: 30,
                bytes: 10_000,
                barrier: None,
                prefix,
                coalesce: true,
                apart: &apart,
            };
            let batch = Batch::take(waiting.iter().map(|(at, record)| (*at, *record)), limits);
            assert!(batch.writes.len() <= writes && batch.records_count() > 0);
            for offset in batch.offsets.iter().flatten() {
                assert!(waiting.remove(offset).is_some(), "each record once");
            }
            if prefix {
                assert!(waiting.keys().all(|at| *at > batch.through), "all up to the last");
            }
            batches.push(batch);
        }
        batches
    }

    proptest! {
        #[test]
        fn batches_come_to_what_the_records_come_to(
            records in records(), writes in 1..6_usize, prefix: bool,
        ) {
            let (mut one_by_one, mut coalesced) = (Rows::new(), Rows::new());
            for record in &records {
                act(&mut one_by_one, &record.write);
            }
            for batch in batches(&records, writes, prefix) {
                for write in &batch.writes {
                    act(&mut coalesced, write);
                }
            }
            prop_assert_eq!(one_by_one, coalesced);
        }

        #[test]
        fn nothing_that_is_reported_is_merged_away(records in records(), writes in 1..6_usize) {
            // A write that finds nothing is told of, however writes are merged.
            let mut rows = Rows::new();
            let failed = |rows: &mut Rows, write: &Write<Key, Bytes>| !act(rows, write);
            let expected: Vec<u64> = (1..)
                .zip(&records)
                .filter_map(|(at, record)| failed(&mut rows, &record.write).then_some(at))
                .collect();
            let mut rows = Rows::new();
            let mut found: Vec<u64> = Vec::new();
            for batch in batches(&records, writes, true) {
                for (write, offsets) in batch.writes.iter().zip(&batch.offsets) {
                    if failed(&mut rows, write) {
                        found.extend(offsets);
                    }
                }
            }
            found.sort_unstable();
            prop_assert_eq!(expected, found);
        }
    }

    #[test]
    fn a_hot_key_is_one_write_and_a_sum_is_exact() {
        let add = |by: &str| JournalRecord {
            cache: "row".into(),
            write: Write::new(
                Key::new("k"),
                Action::Add { field: "a".into(), by: by.parse().expect("a number") },
            ),
            version: Version::new(1),
            age: Duration::ZERO,
        };
        let records = [add("0.10"), add("0.20"), add("-0.05")];
        let batches = batches(&records, 5, true);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].writes, [add("0.25").write]);
        assert_eq!(batches[0].offsets, [[1, 2, 3]]);
    }
}
