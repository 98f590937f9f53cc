//! What many commands read from their arguments.

use super::super::super::Reply;
use crate::keyspace::{Locked, OutOfMemory, WallTime, parse_integer};

pub(in super::super) const SYNTAX_ERROR: &str = "ERR syntax error";
pub(in super::super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// How a time is given: its unit, and whether from now on or as Unix time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct TimeForm {
    pub(in super::super) millis_per_unit: i64,
    pub(in super::super) is_absolute: bool,
}

impl TimeForm {
    pub(in super::super) const SECONDS: Self = Self { millis_per_unit: 1000, is_absolute: false };
    pub(in super::super) const MILLISECONDS: Self = Self { millis_per_unit: 1, is_absolute: false };
    pub(in super::super) const UNIX_SECONDS: Self =
        Self { millis_per_unit: 1000, is_absolute: true };
    pub(in super::super) const UNIX_MILLISECONDS: Self =
        Self { millis_per_unit: 1, is_absolute: true };

    /// The Unix time, in milliseconds, from which such times count.
    pub(in super::super) fn origin(self, locked: &Locked<'_>) -> i64 {
        if self.is_absolute { 0 } else { locked.now().unix_millis() }
    }
}

/// Whether a command that writes may go on; replies with the error if not.
pub(in super::super) fn has_room(locked: &Locked<'_>, reply: &mut Reply) -> bool {
    let has_room = locked.make_room().is_ok();
    if !has_room {
        reply.error(OutOfMemory::REPLY);
    }
    has_room
}

/// A whole number; replies with the error if it is none.
pub(in super::super) fn integer_argument(argument: &[u8], reply: &mut Reply) -> Option<i64> {
    let number = parse_integer(argument);
    if number.is_none() {
        reply.error(NOT_AN_INTEGER);
    }
    number
}

/// A time at which a key is to expire, of no less than `least` units; replies
/// with the error if it cannot be that.
pub(in super::super) fn expiry_argument(
    locked: &Locked<'_>,
    form: TimeForm,
    argument: &[u8],
    least: i64,
    command_name: &str,
    reply: &mut Reply,
) -> Option<WallTime> {
    let number = integer_argument(argument, reply)?;
    let time = Some(number)
        .filter(|number| *number >= least)
        .and_then(|number| number.checked_mul(form.millis_per_unit))
        .and_then(|millis| millis.checked_add(form.origin(locked)));
    if time.is_none() {
        reply.error(&format!("ERR invalid expire time in '{command_name}' command"));
    }
    time.map(WallTime::from_unix_millis)
}
