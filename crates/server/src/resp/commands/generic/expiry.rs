//! When keys expire.

use super::super::super::Reply;
use super::{TimeForm, expiry_argument};
use crate::keyspace::{Locked, WallTime};

/// Under which conditions `EXPIRE` does something.
#[derive(Clone, Copy, Default)]
struct Conditions {
    if_none: bool,
    if_there: bool,
    if_later: bool,
    if_earlier: bool,
}

pub(super) fn expire(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    set_expiry(locked, arguments, TimeForm::SECONDS, "expire", reply);
}

pub(super) fn expire_milliseconds(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    set_expiry(locked, arguments, TimeForm::MILLISECONDS, "pexpire", reply);
}

pub(super) fn expire_at(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    set_expiry(locked, arguments, TimeForm::UNIX_SECONDS, "expireat", reply);
}

pub(super) fn expire_at_milliseconds(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    set_expiry(locked, arguments, TimeForm::UNIX_MILLISECONDS, "pexpireat", reply);
}

pub(super) fn persist(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let expires = matches!(locked.expiry(arguments[1]), Some(Some(_)));
    if expires {
        locked.set_expiry(arguments[1], None);
    }
    reply.integer(i64::from(expires));
}

pub(super) fn time_to_live(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    report(locked, arguments, TimeForm::SECONDS, reply);
}

pub(super) fn time_to_live_milliseconds(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    report(locked, arguments, TimeForm::MILLISECONDS, reply);
}

pub(super) fn expire_time(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    report(locked, arguments, TimeForm::UNIX_SECONDS, reply);
}

pub(super) fn expire_time_milliseconds(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    report(locked, arguments, TimeForm::UNIX_MILLISECONDS, reply);
}

fn set_expiry(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    form: TimeForm,
    command_name: &str,
    reply: &mut Reply,
) {
    let Some(conditions) = parse_conditions(&arguments[3..], reply) else { return };
    // A time in the past is one way to remove a key.
    let time = expiry_argument(locked, form, arguments[2], i64::MIN, command_name, reply);
    let Some(time) = time else { return };
    let is_set = match locked.expiry(arguments[1]) {
        Some(current) if conditions.hold(current, time) => {
            locked.set_expiry(arguments[1], Some(time))
        }
        _ => false,
    };
    reply.integer(i64::from(is_set));
}

impl Conditions {
    /// A key that does not expire counts as one that expires last of all.
    fn hold(self, current: Option<WallTime>, next: WallTime) -> bool {
        let is_later = current.is_some_and(|current| next > current);
        let is_earlier = current.is_none_or(|current| next < current);
        (!self.if_none || current.is_none())
            && (!self.if_there || current.is_some())
            && (!self.if_later || is_later)
            && (!self.if_earlier || is_earlier)
    }
}

fn parse_conditions(arguments: &[&[u8]], reply: &mut Reply) -> Option<Conditions> {
    let mut conditions = Conditions::default();
    for option in arguments {
        match &*option.to_ascii_lowercase() {
            b"nx" => conditions.if_none = true,
            b"xx" => conditions.if_there = true,
            b"gt" => conditions.if_later = true,
            b"lt" => conditions.if_earlier = true,
            _ => {
                let option = String::from_utf8_lossy(option);
                reply.error(&format!("ERR Unsupported option {option}"));
                return None;
            }
        }
    }
    let Conditions { if_none, if_there, if_later, if_earlier } = conditions;
    if if_none && (if_there || if_later || if_earlier) {
        reply.error("ERR NX and XX, GT or LT options at the same time are not compatible");
        return None;
    }
    if if_later && if_earlier {
        reply.error("ERR GT and LT options at the same time are not compatible");
        return None;
    }
    Some(conditions)
}

fn report(locked: &mut Locked<'_>, arguments: &[&[u8]], form: TimeForm, reply: &mut Reply) {
    let time = match locked.expiry(arguments[1]) {
        None => -2,
        Some(None) => -1,
        Some(Some(expiry)) => {
            let millis = expiry.unix_millis().saturating_sub(form.origin(locked)).max(0);
            // Rounded to the nearest. Unsigned, the largest time does not overflow.
            let unit = form.millis_per_unit.unsigned_abs();
            ((millis.unsigned_abs() + unit / 2) / unit).cast_signed()
        }
    };
    reply.integer(time);
}
