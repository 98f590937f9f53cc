//! Seven slots in two cache lines, and the chain of further buckets behind
//! them when more keys than that fall into one.

use super::entry::Entry;

/// Slots in a bucket.
pub(super) const SLOT_COUNT: usize = 7;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Seven entries, each with a byte of its hash to tell them apart without a
/// look at the keys. Aligned to its size, so that the processor fetches both
/// lines at once.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Bucket {
    /// 0 for an empty slot; the eighth is always 0.
    tags: [u8; 8],
    /// `Some` only when every slot of this bucket is taken.
    next: Option<Box<Bucket>>,
    slots: [Option<Entry>; SLOT_COUNT],
}

/// Where in a chain an entry is; good until the chain changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    depth: u32,
    slot: u8,
}

impl Bucket {
    /// The byte of a hash that is kept beside the slot.
    #[inline]
    pub(super) fn tag(hash: u64) -> u8 {
        ((hash >> 40) as u8).max(1)
    }

    #[inline]
    pub(super) fn find(&self, tag: u8, key: &[u8]) -> Option<Place> {
        let mut bucket = self;
        let mut depth = 0;
        loop {
            let mut matches = bucket.tags_like(tag);
            while matches != 0 {
                let slot = (matches.trailing_zeros() / 8) as usize;
                if let Some(Some(entry)) = bucket.slots.get(slot)
                    && entry.key() == key
                {
                    return Some(Place { depth, slot: slot as u8 });
                }
                matches &= matches - 1;
            }
            bucket = bucket.next.as_deref()?;
            depth += 1;
        }
    }

    /// Reads a byte of the bucket.
    #[inline]
    pub(super) fn touch(&self) -> u8 {
        self.tags[0]
    }

    /// The first entry here that has this tag: mostly the one with the hash that
    /// the tag was made of.
    #[inline]
    pub(super) fn likely(&self, tag: u8) -> Option<&Entry> {
        let slot = (self.tags_like(tag).trailing_zeros() / 8) as usize;
        self.slots.get(slot)?.as_ref()
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Entry> {
        let mut bucket = self;
        for _ in 0..place.depth {
            bucket = bucket.next.as_deref()?;
        }
        bucket.slots[usize::from(place.slot)].as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.at_depth(place.depth)?.slots[usize::from(place.slot)].as_mut()
    }

    /// Adds an entry; says whether the chain grew by a bucket for it.
    pub(super) fn insert(&mut self, tag: u8, entry: Entry) -> bool {
        let mut bucket = self;
        let mut grew = false;
        loop {
            if let Some(slot) = bucket.tags[..SLOT_COUNT].iter().position(|tag| *tag == 0) {
                bucket.tags[slot] = tag;
                bucket.slots[slot] = Some(entry);
                return grew;
            }
            grew = bucket.next.is_none();
            bucket = bucket.next.get_or_insert_default();
        }
    }

    /// Takes an entry out and fills its slot from the end of the chain; says
    /// whether the chain lost a bucket by that.
    pub(super) fn remove(&mut self, place: Place) -> Option<(Entry, bool)> {
        let bucket = self.at_depth(place.depth)?;
        let slot = usize::from(place.slot);
        let entry = bucket.slots[slot].take()?;
        bucket.tags[slot] = 0;
        if bucket.next.is_none() && place.depth == 0 {
            return Some((entry, false));
        }
        let (moved, shrank) = self.take_last(place);
        if let Some((tag, moved)) = moved {
            let bucket = self.at_depth(place.depth)?;
            bucket.tags[slot] = tag;
            bucket.slots[slot] = Some(moved);
        }
        Some((entry, shrank))
    }

    /// The entries of the whole chain with their tags, the first bucket first.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (u8, Entry)> {
        let mut bucket = Some(self);
        std::iter::from_fn(move || {
            let Bucket { tags, next, slots } = bucket.take()?;
            bucket = next.map(|next| *next);
            Some(tags.into_iter().zip(slots))
        })
        .flatten()
        .filter_map(|(tag, entry)| Some((tag, entry?)))
    }

    /// The entries of the whole chain with their places.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Place, &Entry)> {
        std::iter::successors(Some(self), |bucket| bucket.next.as_deref()).enumerate().flat_map(
            |(depth, bucket)| {
                bucket.slots.iter().enumerate().filter_map(move |(slot, entry)| {
                    let place = Place { depth: depth as u32, slot: slot as u8 };
                    Some((place, entry.as_ref()?))
                })
            },
        )
    }

    /// How many buckets the chain has behind this one.
    pub(super) fn overflow_count(&self) -> usize {
        std::iter::successors(self.next.as_deref(), |bucket| bucket.next.as_deref()).count()
    }

    /// The `index`-th slot of the chain, counted through its buckets.
    pub(super) fn slot(&self, index: usize) -> Option<Place> {
        let place = Place { depth: (index / SLOT_COUNT) as u32, slot: (index % SLOT_COUNT) as u8 };
        self.get(place).map(|_| place)
    }

    /// Takes the last entry of the chain unless that stands before `hole`, and
    /// drops the last bucket if that leaves it empty.
    fn take_last(&mut self, hole: Place) -> (Option<(u8, Entry)>, bool) {
        let last_depth = self.overflow_count() as u32;
        let Some(last) = self.at_depth(last_depth) else { return (None, false) };
        let moved = last.slots.iter().rposition(Option::is_some).and_then(|slot| {
            if last_depth == hole.depth && slot < usize::from(hole.slot) {
                return None;
            }
            let tag = std::mem::take(&mut last.tags[slot]);
            Some((tag, last.slots[slot].take()?))
        });
        // The hole itself may be the one slot that the last bucket had.
        let is_empty = last.tags == [0; 8] && (moved.is_none() || last_depth != hole.depth);
        if is_empty
            && last_depth > 0
            && let Some(before) = self.at_depth(last_depth - 1)
        {
            before.next = None;
            return (moved, true);
        }
        (moved, false)
    }

    #[inline]
    fn at_depth(&mut self, depth: u32) -> Option<&mut Self> {
        let mut bucket = self;
        for _ in 0..depth {
            bucket = bucket.next.as_deref_mut()?;
        }
        Some(bucket)
    }

    /// A set high bit for each slot whose tag is this one; now and then also
    /// for a slot above such a one.
    #[inline]
    fn tags_like(&self, tag: u8) -> u64 {
        let difference = u64::from_le_bytes(self.tags) ^ (u64::from(tag) * LOW_BITS);
        difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::Form;

    fn entry(key: u16) -> Entry {
        Entry::new(&key.to_le_bytes(), b"", None, Form::Written, 0)
    }

    #[test]
    fn a_bucket_is_two_cache_lines() {
        assert_eq!(size_of::<Bucket>(), 128);
    }

    proptest! {
        #[test]
        fn a_chain_holds_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((any::<bool>(), 0_u16..40), 0..200),
        ) {
            let mut bucket = Bucket::default();
            let mut model = BTreeSet::new();
            let mut overflow = 0;
            for (insert, key) in steps {
                let tag = (key % 5) as u8 + 1;
                match bucket.find(tag, &key.to_le_bytes()) {
                    Some(place) if !insert => {
                        let (removed, shrank) = bucket.remove(place).expect("it was found");
                        prop_assert_eq!(removed.key(), &key.to_le_bytes()[..]);
                        overflow -= usize::from(shrank);
                        model.remove(&key);
                    }
                    None if insert => {
                        overflow += usize::from(bucket.insert(tag, entry(key)));
                        model.insert(key);
                    }
                    found => prop_assert_eq!(found.is_some(), model.contains(&key)),
                }
                prop_assert_eq!(bucket.overflow_count(), overflow);
                prop_assert!(overflow <= model.len().saturating_sub(1) / SLOT_COUNT);
                let held: BTreeSet<u16> = bucket
                    .entries()
                    .map(|(_, entry)| u16::from_le_bytes([entry.key()[0], entry.key()[1]]))
                    .collect();
                prop_assert_eq!(&held, &model);
            }
            prop_assert_eq!(bucket.into_entries().count(), model.len());
        }
    }
}
