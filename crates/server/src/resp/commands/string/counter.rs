//! Values as numbers.

use super::super::super::Reply;
use super::super::generic::{NOT_AN_INTEGER, has_room, integer_argument};
use crate::keyspace::{Expiry, Form, Locked, LongDouble, parse_integer};

pub(super) fn increment(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    add(locked, arguments[1], 1, reply);
}

pub(super) fn decrement(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    add(locked, arguments[1], -1, reply);
}

pub(super) fn increment_by(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if let Some(step) = integer_argument(arguments[2], reply) {
        add(locked, arguments[1], step, reply);
    }
}

pub(super) fn decrement_by(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if let Some(step) = integer_argument(arguments[2], reply) {
        match step.checked_neg() {
            Some(step) => add(locked, arguments[1], step, reply),
            None => reply.error("ERR decrement would overflow"),
        }
    }
}

pub(super) fn increment_by_float(locked: &mut Locked<'_>, arguments: &[&[u8]], reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let key = arguments[1];
    let value = locked.peek(key, LongDouble::parse).unwrap_or(Some(LongDouble::ZERO));
    let step = LongDouble::parse(arguments[2]);
    let (Some(value), Some(step)) = (value, step) else {
        reply.error("ERR value is not a valid float");
        return;
    };
    match value.checked_add(step) {
        Some(sum) => {
            let text = sum.to_text();
            locked.set(key, text.as_bytes(), Expiry::Keep, Form::Text);
            reply.bulk(text.as_bytes());
        }
        None => reply.error("ERR increment would produce NaN or Infinity"),
    }
}

fn add(locked: &mut Locked<'_>, key: &[u8], step: i64, reply: &mut Reply) {
    if !has_room(locked, reply) {
        return;
    }
    let Some(value) = locked.peek(key, parse_integer).unwrap_or(Some(0)) else {
        reply.error(NOT_AN_INTEGER);
        return;
    };
    match value.checked_add(step) {
        Some(sum) => {
            let mut buffer = itoa::Buffer::new();
            locked.set(key, buffer.format(sum).as_bytes(), Expiry::Keep, Form::Written);
            reply.integer(sum);
        }
        None => reply.error("ERR increment or decrement would overflow"),
    }
}
