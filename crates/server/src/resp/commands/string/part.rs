//! Parts of values.

use super::super::super::Reply;
use super::super::generic::{has_room, integer_argument};
use crate::keyspace::{Expiry, Form, Locked};

/// The longest value, as in Redis.
const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

pub(super) fn length(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let length = locked.read(arguments[1], <[u8]>::len);
    reply.integer(length.unwrap_or(0) as i64);
}

pub(super) fn append(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let (key, suffix) = (arguments[1], arguments[2]);
    match locked.peek(key, <[u8]>::len) {
        None => {
            locked.set(key, suffix, Expiry::Never, Form::Written);
            reply.integer(suffix.len() as i64);
        }
        Some(length) if fits(length, suffix, reply) => {
            let length = locked.append(key, suffix);
            reply.integer(length.unwrap_or(0) as i64);
        }
        Some(_) => {}
    }
}

pub(super) fn set_range(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let (key, patch) = (arguments[1], arguments[3]);
    let Some(offset) = integer_argument(arguments[2], reply) else { return };
    let Ok(offset) = usize::try_from(offset) else {
        reply.error("ERR offset is out of range");
        return;
    };
    let length = locked.peek(key, <[u8]>::len);
    if patch.is_empty() {
        reply.integer(length.unwrap_or(0) as i64);
        return;
    }
    if !fits(offset, patch, reply) {
        return;
    }
    if length.is_none() {
        locked.set(key, b"", Expiry::Never, Form::Edited);
    }
    let length = locked.overwrite(key, offset, patch);
    reply.integer(length.unwrap_or(0) as i64);
}

pub(super) fn get_range(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let Some(start) = integer_argument(arguments[2], reply) else { return };
    let Some(end) = integer_argument(arguments[3], reply) else { return };
    let found = locked.read(arguments[1], |value| reply.bulk(range(value, start, end)));
    if found.is_none() {
        reply.bulk(b"");
    }
}

/// The part from `start` to `end`, both included, negative ones counted from
/// the end.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let length = value.len() as i64;
    let from_start = |offset: i64| if offset < 0 { (length + offset).max(0) } else { offset };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { b"" } else { &value[start as usize..=end as usize] }
}

/// Whether a value of this length may have this behind it.
fn fits(length: usize, suffix: &[u8], reply: &mut Reply) -> bool {
    let fits = length.saturating_add(suffix.len()) <= VALUE_BYTES_MAX;
    if !fits {
        reply.error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn offsets_count_from_both_ends_and_stop_at_them() {
        let cases: [(i64, i64, &[u8]); 9] = [
            (0, -1, b"hello"),
            (1, 2, b"el"),
            (-3, -2, b"ll"),
            (-2, -3, b""),
            (3, 1, b""),
            (-100, 100, b"hello"),
            (5, 9, b""),
            (i64::MIN, i64::MAX, b"hello"),
            (0, i64::MIN, b"h"),
        ];
        for (start, end, part) in cases {
            assert_eq!(range(b"hello", start, end), part, "{start} to {end}");
        }
        assert_eq!(range(b"", 0, 0), b"");
    }
}
