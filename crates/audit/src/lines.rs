//! What is in a file. Every line is one JSON object:
//!
//! | line | |
//! |---|---|
//! | `{"audit":1,"file":7,"marks":[…],"check":"…"}` | the first: the format, the number of the file, and how far each lane was before it |
//! | `{"key":"payment:0199…","record":{…}}` | a record |
//! | `{"batch":{…},"check":"…"}` | behind the records of a batch: where they begin, how many there are, and how far their lane is now |
//!
//! A check is the XXH3, seeded with the number of the file, of everything from the
//! beginning of the head or batch to the check itself. A batch without its whole
//! last line is not there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use larder_core::{JournalOffset, Key, LaneMark};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How far the lanes of journals are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Marks(BTreeMap<(Arc<str>, u16), (u64, u64)>);

impl Marks {
    pub(crate) fn get(&self, journal: &str, lane: u16) -> Option<LaneMark> {
        let journal: Arc<str> = Arc::from(journal);
        let (epoch, applied) = *self.0.get(&(Arc::clone(&journal), lane))?;
        Some(LaneMark { journal, lane, epoch, applied: JournalOffset(applied) })
    }

    pub(crate) fn set(&mut self, mark: &LaneMark) {
        let place = (Arc::clone(&mark.journal), mark.lane);
        self.0.insert(place, (mark.epoch, mark.applied.0));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is found in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contents {
    pub(crate) marks: Marks,
    pub(crate) records: u64,
    /// Where the last whole batch ends. What is behind it was torn.
    pub(crate) whole: u64,
}

#[derive(Serialize, Deserialize)]
struct HeadLine {
    audit: u8,
    file: u64,
    marks: Vec<MarkLine>,
}

#[derive(Serialize, Deserialize)]
struct BatchLine {
    batch: Batch,
}

#[derive(Serialize, Deserialize)]
struct Batch {
    from: u64,
    records: u64,
    #[serde(flatten)]
    mark: MarkLine,
}

#[derive(Serialize, Deserialize)]
struct MarkLine {
    journal: String,
    lane: u16,
    epoch: u64,
    applied: u64,
}

const FORMAT: u8 = 1;

pub(crate) fn head(number: u64, marks: &Marks) -> Vec<u8> {
    let line = |((journal, lane), (epoch, applied)): (&(Arc<str>, u16), &(u64, u64))| MarkLine {
        journal: journal.to_string(),
        lane: *lane,
        epoch: *epoch,
        applied: *applied,
    };
    let marks = marks.0.iter().map(line).collect();
    let mut bytes = Vec::new();
    put(&mut bytes, &HeadLine { audit: FORMAT, file: number, marks });
    seal(&mut bytes, number);
    bytes
}

/// Appends the line of a record, which is one line of JSON itself.
pub(crate) fn put_record(into: &mut Vec<u8>, key: &Key, record: &[u8]) {
    into.extend_from_slice(b"{\"key\":");
    put(into, &String::from_utf8_lossy(key.as_bytes()));
    into.extend_from_slice(b",\"record\":");
    into.extend_from_slice(record);
    into.extend_from_slice(b"}\n");
}

/// Ends a batch of record lines that will stand at `from` in a file.
pub(crate) fn end_batch(
    batch: &mut Vec<u8>,
    number: u64,
    from: u64,
    records: u64,
    mark: &LaneMark,
) {
    let LaneMark { journal, lane, epoch, applied } = mark;
    let mark =
        MarkLine { journal: journal.to_string(), lane: *lane, epoch: *epoch, applied: applied.0 };
    put(batch, &BatchLine { batch: Batch { from, records, mark } });
    seal(batch, number);
}

/// What is in a file of this number.
///
/// # Errors
/// Where it is damaged: the head cannot be read, or something that is whole stands
/// behind something that is not. A crash leaves no such file.
pub(crate) fn read(bytes: &[u8], number: u64) -> Result<Contents, u64> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let head: Option<HeadLine> = checked(first, first, number);
    let head = head.filter(|head| head.audit == FORMAT && head.file == number).ok_or(0_u64)?;
    let mut marks = Marks::default();
    head.marks.iter().for_each(|line| marks.set(&line.mark()));
    let mut contents = Contents { marks, records: 0, whole: first.len() as u64 };
    let mut end = first.len();
    for line in lines {
        end += line.len();
        let Some(batch) = batch_at(&bytes[..end], line, contents.whole, number) else { continue };
        if batch.from > contents.whole {
            return Err(contents.whole);
        }
        contents.marks.set(&batch.mark.mark());
        contents.records += batch.records;
        contents.whole = end as u64;
    }
    Ok(contents)
}

/// The batch that this last line ends, if it is whole and begins at or behind
/// `least`.
fn batch_at(bytes: &[u8], line: &[u8], least: u64, number: u64) -> Option<Batch> {
    if !line.starts_with(b"{\"batch\":") {
        return None;
    }
    let batch = serde_json::from_slice::<BatchLine>(line).ok()?.batch;
    if batch.from < least {
        return None;
    }
    let sealed = bytes.get(usize::try_from(batch.from).ok()?..)?;
    checked::<BatchLine>(sealed, line, number).map(|line| line.batch)
}

/// The last line of what was sealed, if the check is right.
fn checked<T: for<'d> Deserialize<'d>>(sealed: &[u8], line: &[u8], number: u64) -> Option<T> {
    let at = sealed.len().checked_sub(CHECK_BYTES)?;
    let mut expected = Vec::with_capacity(CHECK_BYTES);
    put_check(&mut expected, xxh3_64_with_seed(&sealed[..at], number));
    (sealed[at..] == expected).then(|| serde_json::from_slice(line).ok()).flatten()
}

impl MarkLine {
    fn mark(&self) -> LaneMark {
        let applied = JournalOffset(self.applied);
        LaneMark { journal: Arc::from(&*self.journal), lane: self.lane, epoch: self.epoch, applied }
    }
}

/// Puts the check into the object that ends here.
fn seal(bytes: &mut Vec<u8>, number: u64) {
    let brace = bytes.pop();
    debug_assert_eq!(brace, Some(b'}'));
    let check = xxh3_64_with_seed(bytes, number);
    put_check(bytes, check);
}

fn put_check(into: &mut Vec<u8>, check: u64) {
    writeln!(into, ",\"check\":\"{check:016x}\"}}").expect("memory takes every write");
}

/// `,"check":"`, sixteen digits, `"}` and the line break.
const CHECK_BYTES: usize = 29;

fn put(into: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(into, line).expect("texts and numbers have a JSON");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(applied: u64) -> LaneMark {
        LaneMark { journal: "j/a".into(), lane: 0, epoch: 3, applied: JournalOffset(applied) }
    }

    /// A file of batches with so many records each, and where each batch ends.
    fn file(number: u64, batches: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = head(number, &Marks::default());
        let (mut ends, mut applied) = (vec![bytes.len()], 0);
        for records in batches {
            let mut batch = Vec::new();
            for _ in 0..*records {
                applied += 1;
                put_record(&mut batch, &Key::new(format!("a:{applied}")), b"{\"n\":1}");
            }
            end_batch(&mut batch, number, bytes.len() as u64, *records, &mark(applied));
            bytes.extend(batch);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn a_file_is_read_up_to_its_last_whole_batch(
            batches in prop::collection::vec(0..5_u64, 0..6),
            number: u64,
            cut: prop::sample::Index,
        ) {
            let (bytes, ends) = file(number, &batches);
            let cut = cut.index(bytes.len() + 1);
            let read = read(&bytes[..cut], number);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            if whole == 0 {
                prop_assert_eq!(read, Err(0));
            } else {
                let contents = read.expect("the head is whole");
                prop_assert_eq!(contents.whole, ends[whole - 1] as u64);
                let records: u64 = batches[..whole - 1].iter().sum();
                prop_assert_eq!(contents.records, records);
                let applied = contents.marks.get("j/a", 0).map(|mark| mark.applied.0);
                prop_assert_eq!(applied, (whole > 1).then_some(records));
            }
        }

        #[test]
        fn a_flipped_bit_is_damage_or_ends_the_file(
            batches in prop::collection::vec(1..4_u64, 1..5),
            at: prop::sample::Index,
        ) {
            let (mut bytes, ends) = file(7, &batches);
            let at = at.index(bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            let batch = ends.iter().filter(|end| **end <= at / 8).count();
            let is_last = batch == batches.len();
            match read(&bytes, 7) {
                // Everything behind it is whole.
                Err(from) if batch == 0 => prop_assert_eq!(from, 0),
                Err(from) => prop_assert!(!is_last && from == ends[batch - 1] as u64),
                Ok(contents) => {
                    prop_assert!(is_last);
                    prop_assert_eq!(contents.whole, ends[batch - 1] as u64);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes: Vec<u8>, tail: Vec<u8>) {
            prop_assert_eq!(read(&bytes, 1), Err(0));
            let (mut known, ends) = file(1, &[2]);
            known.extend(&tail);
            prop_assert_eq!(read(&known, 1).map(|read| read.whole), Ok(ends[1] as u64));
        }
    }

    #[test]
    fn a_file_of_another_number_is_not_taken_for_this_one() {
        assert_eq!(read(&file(7, &[2]).0, 8), Err(0));
    }
}
