//! Reading the log back.

use std::collections::BTreeMap;
use std::io;

use larder_core::{Error, ErrorKind, Result};

use crate::files::Files;
use crate::operation::{Checkpoint, Operation};
use crate::segment::{HEAD_BYTES, Head, find_frame, frame_at};
use crate::state::State;

/// A place where what was acknowledged cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file; empty where something is missing and nobody knows in which.
    pub file: String,
    /// The byte in it.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) state: State,
    /// The last one.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) journal: Option<u64>,
    /// The highest number of any file.
    pub(crate) number_max: u64,
    /// How much of the last segment counts.
    pub(crate) length: u64,
    /// What was written last and never acknowledged.
    pub(crate) torn_bytes: u64,
    pub(crate) damages: Vec<Damage>,
    /// Files that are not part of the log any more.
    pub(crate) stale: Vec<String>,
}

pub(crate) const SEGMENT_ENDING: &str = ".log";
pub(crate) const UNFINISHED_ENDING: &str = ".new";
pub(crate) const DAMAGED_ENDING: &str = ".damaged";

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT_ENDING}")
}

fn segment_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(SEGMENT_ENDING)?, 16).ok()
}

/// Reads every segment that counts, oldest first.
pub(crate) fn read<F: Files>(files: &F) -> Result<Opened> {
    let names = files.names().map_err(|error| unreadable("its directory", error))?;
    let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED_ENDING));
    let mut opened = Opened { stale: unfinished.cloned().collect(), ..Opened::default() };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let Some(&last) = numbers.last() else { return Ok(opened) };
    opened.number_max = last;
    // Older ones than a gap were removed once, and came back with a crash. What
    // is missed of them shows in the offsets.
    let run_start = (1..numbers.len()).rev().find(|at| numbers[at - 1] + 1 != numbers[*at]);
    let mut run = numbers.split_off(run_start.unwrap_or(0));
    let mut heads = BTreeMap::new();
    for &number in &run {
        let name = segment_name(number);
        let bytes = files.read(&name).map_err(|error| unreadable(&name, error))?;
        match Head::decode(&bytes).filter(|head| head.number == number) {
            Some(head) => drop(heads.insert(number, head)),
            None => opened.damaged(number, 0, "its head is damaged"),
        }
    }
    let base = heads.values().map(|head| head.base).max().unwrap_or(0);
    numbers.extend(run.extract_if(.., |number| *number < base));
    opened.stale.extend(numbers.into_iter().map(segment_name));
    for &number in &run {
        let Some(head) = heads.get(&number) else { continue };
        let counts = heads.get(&(number + 1)).map(|next| next.previous_length);
        let is_last = number == last;
        let bytes = files.read(&segment_name(number));
        let bytes = bytes.map_err(|error| unreadable(&segment_name(number), error))?;
        opened.read_segment(head, &bytes, counts, is_last);
    }
    opened.tell_missing();
    Ok(opened)
}

impl Opened {
    fn read_segment(&mut self, head: &Head, bytes: &[u8], counts: Option<u64>, is_last: bool) {
        if *self.journal.get_or_insert(head.journal) != head.journal {
            self.damaged(head.number, 40, "it belongs to another journal");
            return;
        }
        let length = match counts.map(|counts| usize::try_from(counts).unwrap_or(usize::MAX)) {
            Some(counts) if counts > bytes.len() => {
                self.damaged(head.number, bytes.len(), "it was cut off");
                bytes.len()
            }
            Some(counts) => counts,
            None => bytes.len(),
        };
        let mut at = HEAD_BYTES;
        let mut place = 0;
        while at < length {
            if let Some((found, body)) = frame_at(&bytes[..length], at, head.salt) {
                let next = at + crate::segment::FRAME_HEAD_BYTES + body.len();
                match Operation::decode_all(body).filter(|_| found == place) {
                    Some(operations) => self.apply(operations, head.number),
                    None => self.damaged(head.number, at, "a frame is not what was written"),
                }
                (at, place) = (next, found + 1);
                continue;
            }
            // A crash tears only the last frame: nothing is written behind one
            // that is not durable.
            match find_frame(&bytes[..length], at + 1, head.salt) {
                None if is_last && place > 0 => {
                    // Behind what was written last the file has zeros.
                    let last = bytes[at..length].iter().rposition(|byte| *byte != 0);
                    self.torn_bytes = last.map_or(0, |last| last as u64 + 1);
                    break;
                }
                None => {
                    self.damaged(head.number, at, "the rest is damaged");
                    break;
                }
                Some(next) => {
                    self.damaged(head.number, at, "frames are damaged");
                    place = frame_at(&bytes[..length], next, head.salt).map_or(0, |frame| frame.0);
                    at = next;
                }
            }
        }
        self.length = at.min(length) as u64;
        self.state.segments.entry(head.number).or_default().bytes = bytes.len() as u64;
    }

    fn apply(&mut self, operations: Vec<Operation>, segment: u64) {
        for operation in operations {
            if let Operation::Checkpoint(checkpoint) = &operation {
                self.checkpoint = Some(checkpoint.clone());
            }
            self.state.apply(operation, segment);
        }
    }

    fn damaged(&mut self, number: u64, at: usize, what: &str) {
        let (file, what) = (segment_name(number), what.to_owned());
        self.damages.push(Damage { file, at: at as u64, what });
    }

    fn tell_missing(&mut self) {
        let missing = self.state.missing();
        let Some((lane, offset)) = missing.first() else { return };
        let what = format!(
            "{} records are missing, the first of them record {offset} of lane {lane}",
            missing.len()
        );
        self.damages.push(Damage { file: String::new(), at: 0, what });
    }
}

fn unreadable(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the journal cannot be read")
        .with("file", what)
        .caused_by(error)
        .remedy("look at the disk; nothing was changed")
}
