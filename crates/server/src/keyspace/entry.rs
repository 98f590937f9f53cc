//! One key with its value, in one allocation.
//!
//! ```text
//! byte 0     flags: whether there is an expiry, how wide the key length is,
//!            how the value came about
//! bytes 1-3  when or how often the entry was used
//! 1 or 4     length of the key
//! 0 or 8     expiry
//! …          key, then value
//! ```
//! Everything is read and written through slices: the layout costs no
//! `unsafe`, and a slot of the table is a plain box.

use super::WallTime;

const HAS_EXPIRY: u8 = 1;
const LONG_KEY: u8 = 2;
const FORM_SHIFT: u32 = 2;
const FORM_MASK: u8 = 0b1100;
const ACCESS_AT: usize = 1;
const KEY_LENGTH_AT: usize = 4;
const EXPIRY_BYTES: usize = 8;
const CACHE_LINE_BYTES: usize = 64;
/// Beyond so many lines in a row the processor fetches ahead by itself.
const TOUCHED_LINES_MAX: usize = 8;
/// Stands for "does not expire" in an entry that has room for an expiry. No
/// entry expires then: it would have been deleted at once.
const NO_EXPIRY: i64 = i64::MIN;

/// How a value came about, which is all that is left to know of what Redis
/// calls its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Written whole; a number where the text is one.
    Written,
    /// The result of `INCRBYFLOAT`: text even where it looks like a number.
    Text,
    /// Changed in place, by `APPEND` or `SETRANGE`.
    Edited,
    /// A copy, by `COPY`, of what was written whole: not shared even where
    /// Redis shares the original.
    Copied,
}

/// A key, its value, its expiry and its use.
#[derive(Debug)]
pub(super) struct Entry(Box<[u8]>);

impl Entry {
    /// Keys are shorter than 4 GiB: the door takes no argument over 512 MiB.
    pub(super) fn new(
        key: &[u8],
        value: &[u8],
        expiry: Option<WallTime>,
        form: Form,
        access: u32,
    ) -> Self {
        let is_long = key.len() > usize::from(u8::MAX);
        let mut flags = (form as u8) << FORM_SHIFT;
        flags |= if expiry.is_some() { HAS_EXPIRY } else { 0 };
        flags |= if is_long { LONG_KEY } else { 0 };
        let mut bytes = Vec::with_capacity(key_start(flags) + key.len() + value.len());
        bytes.push(flags);
        bytes.extend_from_slice(&access.to_le_bytes()[..3]);
        if is_long {
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        } else {
            bytes.push(key.len() as u8);
        }
        if let Some(expiry) = expiry {
            bytes.extend_from_slice(&expiry.unix_millis().to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        let start = key_start(self.flags());
        &self.0[start..start + self.key_length()]
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    #[inline]
    pub(super) fn expiry(&self) -> Option<WallTime> {
        if self.flags() & HAS_EXPIRY == 0 {
            return None;
        }
        let start = key_start(self.flags()) - EXPIRY_BYTES;
        let millis = i64::from_le_bytes(array(&self.0[start..start + EXPIRY_BYTES]));
        (millis != NO_EXPIRY).then_some(WallTime::from_unix_millis(millis))
    }

    pub(super) fn form(&self) -> Form {
        match (self.flags() & FORM_MASK) >> FORM_SHIFT {
            0 => Form::Written,
            1 => Form::Text,
            2 => Form::Edited,
            _ => Form::Copied,
        }
    }

    /// The 24 bits about the entry's use.
    #[inline]
    pub(super) fn access(&self) -> u32 {
        u32::from_le_bytes([self.0[1], self.0[2], self.0[3], 0])
    }

    #[inline]
    pub(super) fn set_access(&mut self, access: u32) {
        self.0[ACCESS_AT..KEY_LENGTH_AT].copy_from_slice(&access.to_le_bytes()[..3]);
    }

    /// Reads a byte of each of the first cache lines.
    #[inline]
    pub(super) fn touch(&self) -> u8 {
        let lines = self.0.iter().step_by(CACHE_LINE_BYTES).take(TOUCHED_LINES_MAX);
        lines.fold(0, |sum, byte| sum ^ byte)
    }

    /// How long the allocation is.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the allocator hands out for the entry.
    #[inline]
    pub(super) fn allocated(&self) -> usize {
        larder_core::allocation_size(self.0.len())
    }

    /// Moves no bytes unless the entry had no room for an expiry.
    pub(super) fn set_expiry(&mut self, expiry: Option<WallTime>) {
        if self.flags() & HAS_EXPIRY == 0 {
            if expiry.is_some() {
                *self = Self::new(self.key(), self.value(), expiry, self.form(), self.access());
            }
            return;
        }
        let millis = expiry.map_or(NO_EXPIRY, WallTime::unix_millis);
        let start = key_start(self.flags()) - EXPIRY_BYTES;
        self.0[start..start + EXPIRY_BYTES].copy_from_slice(&millis.to_le_bytes());
    }

    /// Replaces the value, in the same allocation if the new one is as large.
    pub(super) fn replace(&mut self, value: &[u8], expiry: Option<WallTime>, form: Form) {
        let start = self.value_start();
        let length = start + value.len();
        let has_room_for_expiry = self.flags() & HAS_EXPIRY != 0;
        let fits =
            length == self.0.len() || larder_core::allocation_size(length) == self.allocated();
        if !fits || has_room_for_expiry != expiry.is_some() {
            *self = Self::new(self.key(), value, expiry, form, self.access());
            return;
        }
        if length == self.0.len() {
            self.0[start..].copy_from_slice(value);
        } else {
            self.edit(|bytes| {
                bytes.truncate(start);
                bytes.reserve_exact(value.len());
                bytes.extend_from_slice(value);
            });
        }
        self.set_form(form);
        if has_room_for_expiry {
            self.set_expiry(expiry);
        }
    }

    /// Adds to the value. The allocator's size classes make a series of
    /// appends linear: most of them fit the allocation at hand.
    pub(super) fn append(&mut self, suffix: &[u8]) {
        self.edit(|bytes| {
            bytes.reserve_exact(suffix.len());
            bytes.extend_from_slice(suffix);
        });
        self.set_form(Form::Edited);
    }

    /// Overwrites the value from `offset`, with zero bytes in between if it was
    /// shorter.
    pub(super) fn overwrite(&mut self, offset: usize, patch: &[u8]) {
        let start = self.value_start() + offset;
        let end = start + patch.len();
        if end > self.0.len() {
            self.edit(|bytes| {
                bytes.reserve_exact(end - bytes.len());
                bytes.resize(end, 0);
            });
        }
        self.0[start..end].copy_from_slice(patch);
        self.set_form(Form::Edited);
    }

    fn edit(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::mem::take(&mut self.0).into_vec();
        change(&mut bytes);
        self.0 = bytes.into_boxed_slice();
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.0[0]
    }

    fn set_form(&mut self, form: Form) {
        self.0[0] = self.0[0] & !FORM_MASK | (form as u8) << FORM_SHIFT;
    }

    #[inline]
    fn key_length(&self) -> usize {
        if self.flags() & LONG_KEY == 0 {
            usize::from(self.0[KEY_LENGTH_AT])
        } else {
            u32::from_le_bytes(array(&self.0[KEY_LENGTH_AT..KEY_LENGTH_AT + 4])) as usize
        }
    }

    #[inline]
    fn value_start(&self) -> usize {
        key_start(self.flags()) + self.key_length()
    }
}

/// Where the key starts in an entry with these flags.
#[inline]
fn key_start(flags: u8) -> usize {
    let length_bytes = if flags & LONG_KEY == 0 { 1 } else { 4 };
    let expiry_bytes = if flags & HAS_EXPIRY == 0 { 0 } else { EXPIRY_BYTES };
    KEY_LENGTH_AT + length_bytes + expiry_bytes
}

/// The slice as an array of its length, which every caller has cut to size.
#[inline]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expiries() -> impl Strategy<Value = Option<WallTime>> {
        proptest::option::of((0_i64..i64::MAX).prop_map(WallTime::from_unix_millis))
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_what_was_put_in(
            key in proptest::collection::vec(any::<u8>(), 0..600),
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
            times in proptest::collection::vec(expiries(), 6),
            access in 0_u32..1 << 24,
        ) {
            let mut entry = Entry::new(&key, b"first", None, Form::Text, access);
            for (value, expiry) in values.iter().zip(&times) {
                entry.replace(value, *expiry, Form::Written);
                prop_assert_eq!(entry.value(), &value[..]);
                prop_assert_eq!(entry.expiry(), *expiry);
                prop_assert_eq!(entry.form(), Form::Written);
                entry.set_expiry(times[0]);
                prop_assert_eq!(entry.expiry(), times[0]);
                prop_assert_eq!(entry.key(), &key[..]);
                prop_assert_eq!(entry.access(), access);
                prop_assert_eq!(entry.value(), &value[..]);
            }
        }

        #[test]
        fn edits_are_those_of_a_vector(
            first in proptest::collection::vec(any::<u8>(), 0..40),
            edits in proptest::collection::vec(
                (0_usize..80, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut entry = Entry::new(b"key", &first, None, Form::Written, 7);
            let mut model = first;
            for (offset, bytes) in edits {
                if offset % 2 == 0 {
                    entry.append(&bytes);
                    model.extend_from_slice(&bytes);
                } else {
                    entry.overwrite(offset, &bytes);
                    model.resize(model.len().max(offset + bytes.len()), 0);
                    model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
                prop_assert_eq!(entry.value(), &model[..]);
                prop_assert_eq!(entry.key(), b"key");
                prop_assert_eq!(entry.form(), Form::Edited);
            }
        }
    }

    #[test]
    fn a_short_entry_carries_five_bytes_besides_key_and_value() {
        let entry = Entry::new(&[b'k'; 16], &[b'v'; 100], None, Form::Written, 0);
        assert_eq!(entry.allocated(), 128);
        assert_eq!(size_of::<Option<Entry>>(), 16);
    }
}
