//! `SET` with its options, and its relatives.

use super::super::super::Reply;
use super::super::generic::{SYNTAX_ERROR, TimeForm, expiry_argument, has_room};
use super::value;
use crate::keyspace::{Expiry, Form, Locked, WallTime};

/// What the options of `SET` or `GETEX` ask for.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    condition: Option<Condition>,
    returns_old: bool,
    lifetime: Option<Lifetime<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    IfNone,
    IfThere,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime<'a> {
    Keep,
    Persist,
    Until { form: TimeForm, time: &'a [u8] },
}

pub(super) fn set(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let (key, value) = (arguments[1], arguments[2]);
    if arguments.len() == 3 {
        locked.set(key, value, Expiry::Never, Form::Written);
        reply.ok();
        return;
    }
    match parse_set_options(&arguments[3..]) {
        Some(options) => set_with(locked, key, value, options, reply),
        None => reply.error(SYNTAX_ERROR),
    }
}

pub(super) fn set_if_none(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if has_room(locked, reply) {
        let is_free = !locked.contains(arguments[1]);
        if is_free {
            locked.set(arguments[1], arguments[2], Expiry::Never, Form::Written);
        }
        reply.integer(i64::from(is_free));
    }
}

pub(super) fn set_for_seconds(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    set_for(locked, arguments, TimeForm::SECONDS, "setex", reply);
}

pub(super) fn set_for_milliseconds(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    reply: &mut Reply,
) {
    set_for(locked, arguments, TimeForm::MILLISECONDS, "psetex", reply);
}

pub(super) fn get_and_expire(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    let key = arguments[1];
    let Some(lifetime) = parse_getex_options(&arguments[2..]) else {
        reply.error(SYNTAX_ERROR);
        return;
    };
    if !locked.contains(key) {
        value(locked, key, reply);
        return;
    }
    let expiry = match lifetime {
        Some(Lifetime::Until { form, time }) => {
            match lifetime_end(locked, form, time, "getex", reply) {
                Some(end) => Some(Some(end)),
                None => return,
            }
        }
        // A key that does not expire is not changed, for those who watch it.
        Some(Lifetime::Persist) => locked.expiry(key).flatten().map(|_| None),
        Some(Lifetime::Keep) | None => None,
    };
    value(locked, key, reply);
    if let Some(expiry) = expiry {
        locked.set_expiry(key, expiry);
    }
}

fn set_for(
    locked: &mut Locked<'_>,
    arguments: &[&[u8]],
    form: TimeForm,
    command_name: &str,
    reply: &mut Reply,
) {
    if !has_room(locked, reply) {
        return;
    }
    if let Some(end) = lifetime_end(locked, form, arguments[2], command_name, reply) {
        locked.set(arguments[1], arguments[3], Expiry::At(end), Form::Written);
        reply.ok();
    }
}

fn set_with(
    locked: &mut Locked<'_>,
    key: &[u8],
    new: &[u8],
    options: Options<'_>,
    reply: &mut Reply,
) {
    let expiry = match options.lifetime {
        Some(Lifetime::Until { form, time }) => {
            match lifetime_end(locked, form, time, "set", reply) {
                Some(end) => Expiry::At(end),
                None => return,
            }
        }
        Some(Lifetime::Keep) => Expiry::Keep,
        Some(Lifetime::Persist) | None => Expiry::Never,
    };
    let is_there = if options.returns_old {
        value(locked, key, reply)
    } else {
        options.condition.is_some() && locked.contains(key)
    };
    let is_refused = match options.condition {
        None => false,
        Some(Condition::IfNone) => is_there,
        Some(Condition::IfThere) => !is_there,
    };
    if !is_refused {
        locked.set(key, new, expiry, Form::Written);
    }
    match (options.returns_old, is_refused) {
        (true, _) => {}
        (false, true) => reply.null(),
        (false, false) => reply.ok(),
    }
}

/// The end of a lifetime that is given as a positive number.
fn lifetime_end(
    locked: &Locked<'_>,
    form: TimeForm,
    time: &[u8],
    command_name: &str,
    reply: &mut Reply,
) -> Option<WallTime> {
    expiry_argument(locked, form, time, 1, command_name, reply)
}

fn parse_set_options<'a>(arguments: &[&'a [u8]]) -> Option<Options<'a>> {
    let mut options = Options::default();
    let mut rest = arguments;
    while let [option, after @ ..] = rest {
        rest = after;
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        if is("nx") && options.condition != Some(Condition::IfThere) {
            options.condition = Some(Condition::IfNone);
        } else if is("xx") && options.condition != Some(Condition::IfNone) {
            options.condition = Some(Condition::IfThere);
        } else if is("get") {
            options.returns_old = true;
        } else if is("keepttl") {
            options.lifetime = agree(options.lifetime, Lifetime::Keep)?;
        } else {
            let (lifetime, after) = parse_until(option, rest)?;
            options.lifetime = agree(options.lifetime, lifetime)?;
            rest = after;
        }
    }
    Some(options)
}

fn parse_getex_options<'a>(arguments: &[&'a [u8]]) -> Option<Option<Lifetime<'a>>> {
    let mut lifetime = None;
    let mut rest = arguments;
    while let [option, after @ ..] = rest {
        rest = after;
        if option.eq_ignore_ascii_case(b"persist") {
            lifetime = agree(lifetime, Lifetime::Persist)?;
        } else {
            let (until, after) = parse_until(option, rest)?;
            lifetime = agree(lifetime, until)?;
            rest = after;
        }
    }
    Some(lifetime)
}

/// `EX`, `PX`, `EXAT` or `PXAT` with the argument behind it.
fn parse_until<'a, 'b>(
    option: &[u8],
    rest: &'b [&'a [u8]],
) -> Option<(Lifetime<'a>, &'b [&'a [u8]])> {
    let form = match &*option.to_ascii_lowercase() {
        b"ex" => TimeForm::SECONDS,
        b"px" => TimeForm::MILLISECONDS,
        b"exat" => TimeForm::UNIX_SECONDS,
        b"pxat" => TimeForm::UNIX_MILLISECONDS,
        _ => return None,
    };
    let (time, after) = rest.split_first()?;
    Some((Lifetime::Until { form, time }, after))
}

/// The later of two options about the lifetime, if they are of one kind: Redis
/// takes the same one twice, and refuses two that differ.
fn agree<'a>(earlier: Option<Lifetime<'a>>, later: Lifetime<'a>) -> Option<Option<Lifetime<'a>>> {
    let is_agreed = match (earlier, later) {
        (None, _) => true,
        (Some(Lifetime::Until { form, .. }), Lifetime::Until { form: later_form, .. }) => {
            form == later_form
        }
        (Some(earlier), later) => earlier == later,
    };
    is_agreed.then_some(Some(later))
}
