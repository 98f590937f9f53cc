//! Commands whose keys may be spread over many slots: each slot gets a command of
//! its own. They do not run at once, and an error of one leaves the others done.

use super::super::memory::Memory;
use super::merge::Making;

/// A command for one slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) slot: usize,
    pub(crate) arguments: Vec<&'a [u8]>,
    /// Which of the keys these are.
    places: Vec<usize>,
}

/// The parts of a command, and how their replies become one. `None` if it has
/// keys of one slot only, or cannot be split.
pub(crate) fn split<'a>(
    memory: &Memory,
    arguments: &[&'a [u8]],
) -> Option<(Making, Vec<Part<'a>>)> {
    let (name, rest) = arguments.split_first()?;
    let width = match name.to_ascii_lowercase().as_slice() {
        b"mget" | b"del" | b"unlink" | b"exists" | b"touch" => 1,
        b"mset" if rest.len() % 2 == 0 => 2,
        _ => return None,
    };
    let first = memory.validity.slot(rest.first()?);
    if rest.iter().step_by(width).all(|key| memory.validity.slot(key) == first) {
        return None;
    }
    let mut parts: Vec<Part<'a>> = Vec::new();
    // By slot, in the order of the first key of each.
    let mut known = std::collections::HashMap::new();
    for (place, group) in rest.chunks(width).enumerate() {
        let slot = memory.validity.slot(group[0]);
        let at = *known.entry(slot).or_insert_with(|| {
            parts.push(Part { slot, arguments: vec![name], places: Vec::new() });
            parts.len() - 1
        });
        parts[at].arguments.extend_from_slice(group);
        parts[at].places.push(place);
    }
    let making = match name.to_ascii_lowercase().as_slice() {
        b"mget" => {
            Making::Places(parts.iter_mut().map(|it| std::mem::take(&mut it.places)).collect())
        }
        b"mset" => Making::First,
        _ => Making::Sum,
    };
    Some((making, parts))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::keyspace::{Keyspace, KeyspaceOptions};

    fn parts(line: &str) -> Option<(Making, Vec<String>)> {
        let keyspace = Arc::new(Keyspace::new(KeyspaceOptions::default()));
        let memory = Memory::new(keyspace, true, 100, &[]);
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let (making, parts) = split(&memory, &words)?;
        let text = |part: &Part<'_>| {
            let words: Vec<_> =
                part.arguments.iter().map(|word| String::from_utf8_lossy(word)).collect();
            words.join(" ")
        };
        Some((making, parts.iter().map(text).collect()))
    }

    #[test]
    fn each_slot_gets_a_part() {
        assert_eq!(
            parts("MGET a b {a}x"),
            Some((
                Making::Places(vec![vec![0, 2], vec![1]]),
                vec!["MGET a {a}x".to_owned(), "MGET b".to_owned()]
            ))
        );
        assert_eq!(
            parts("mset a 1 b 2 a 3"),
            Some((Making::First, vec!["mset a 1 a 3".to_owned(), "mset b 2".to_owned()]))
        );
        let deleted = parts("DEL a b c").expect("these are of three slots");
        assert_eq!((deleted.0, deleted.1.len()), (Making::Sum, 3));
    }

    #[test]
    fn what_is_of_one_slot_or_cannot_be_split_stays_whole() {
        for line in
            ["MGET {a}1 {a}2", "MGET a", "MGET", "MSET a 1 b", "MSETNX a 1 b 2", "RENAME a b"]
        {
            assert_eq!(parts(line), None, "{line}");
        }
    }
}
