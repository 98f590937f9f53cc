use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Key, Tag, Tags};

/// How many bytes a value owns on the heap, so that a memory budget can count
/// it. What `size_of` already says is not included.
///
/// Shared data (`Arc`, `Bytes`) is counted in full by each owner: a budget that
/// over-counts holds, one that under-counts does not.
pub trait HeapSize {
    /// Bytes owned on the heap, as the allocator rounds them.
    fn heap_size(&self) -> usize;
}

/// What the allocator hands out for a request of `size` bytes: multiples of 16
/// to 128, then four size classes to each doubling, as in jemalloc. A size that
/// no allocator has to give is `usize::MAX`.
#[must_use]
pub const fn allocation_size(size: usize) -> usize {
    match size {
        0 => 0,
        1..=128 => size.next_multiple_of(16),
        LARGEST_POWER_OF_TWO.. => usize::MAX,
        _ => {
            // A power of two, so that a mask does what else took a division.
            let step = size.next_power_of_two() / 8;
            (size + step - 1) & !(step - 1)
        }
    }
}

const LARGEST_POWER_OF_TWO: usize = 1 << (usize::BITS - 1);

/// Types that own nothing on the heap.
macro_rules! owns_nothing {
    ($($t:ty),* $(,)?) => { $(impl HeapSize for $t {
        #[inline]
        fn heap_size(&self) -> usize { 0 }
    })* };
}

owns_nothing!(
    (),
    bool,
    char,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    Duration,
    &'static str,
    &'static [u8],
);

/// Two reference counts in front of what an `Arc` shares.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

impl HeapSize for String {
    fn heap_size(&self) -> usize {
        allocation_size(self.capacity())
    }
}

impl HeapSize for Box<str> {
    fn heap_size(&self) -> usize {
        allocation_size(self.len())
    }
}

impl HeapSize for Arc<str> {
    fn heap_size(&self) -> usize {
        allocation_size(ARC_COUNTS + self.len())
    }
}

/// Counts the bytes that it shows. A slice keeps all of the buffer alive that it
/// was cut from, and cannot tell how large that is: whoever caches small slices
/// of large buffers copies them first (`Bytes::copy_from_slice`).
impl HeapSize for Bytes {
    fn heap_size(&self) -> usize {
        allocation_size(self.len())
    }
}

impl HeapSize for Key {
    fn heap_size(&self) -> usize {
        allocation_size(ARC_COUNTS + self.as_bytes().len())
    }
}

impl HeapSize for Tags {
    fn heap_size(&self) -> usize {
        if self.is_empty() { 0 } else { allocation_size(ARC_COUNTS + size_of_val::<[Tag]>(self)) }
    }
}

impl<T: HeapSize> HeapSize for Vec<T> {
    fn heap_size(&self) -> usize {
        allocation_size(self.capacity() * size_of::<T>()) + items(self)
    }
}

impl<T: HeapSize> HeapSize for Box<[T]> {
    fn heap_size(&self) -> usize {
        allocation_size(size_of_val::<[T]>(self)) + items(self)
    }
}

impl<T: HeapSize> HeapSize for Arc<[T]> {
    fn heap_size(&self) -> usize {
        allocation_size(ARC_COUNTS + size_of_val::<[T]>(self)) + items(self)
    }
}

impl<T: HeapSize> HeapSize for Box<T> {
    fn heap_size(&self) -> usize {
        allocation_size(size_of::<T>()) + (**self).heap_size()
    }
}

impl<T: HeapSize> HeapSize for Arc<T> {
    fn heap_size(&self) -> usize {
        allocation_size(ARC_COUNTS + size_of::<T>()) + (**self).heap_size()
    }
}

impl<T: HeapSize> HeapSize for Option<T> {
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, T::heap_size)
    }
}

impl<A: HeapSize, B: HeapSize> HeapSize for (A, B) {
    fn heap_size(&self) -> usize {
        self.0.heap_size() + self.1.heap_size()
    }
}

impl<A: HeapSize, B: HeapSize, C: HeapSize> HeapSize for (A, B, C) {
    fn heap_size(&self) -> usize {
        self.0.heap_size() + self.1.heap_size() + self.2.heap_size()
    }
}

impl<T, const N: usize> HeapSize for [T; N]
where
    T: HeapSize,
{
    fn heap_size(&self) -> usize {
        items(self)
    }
}

impl<K: HeapSize, V: HeapSize, S> HeapSize for HashMap<K, V, S> {
    fn heap_size(&self) -> usize {
        hash_table(self.capacity(), size_of::<(K, V)>())
            + self.iter().map(|(key, value)| key.heap_size() + value.heap_size()).sum::<usize>()
    }
}

/// Counts the nodes of a map whose keys came in order, which leaves them little
/// more than half full. One that was collected as a whole has fewer.
impl<K: HeapSize, V: HeapSize> HeapSize for BTreeMap<K, V> {
    fn heap_size(&self) -> usize {
        b_tree(self.len(), size_of::<K>(), size_of::<V>(), align_of::<(K, V)>())
            + self.iter().map(|(key, value)| key.heap_size() + value.heap_size()).sum::<usize>()
    }
}

/// Counts an object as one that got its members one by one, as a parser does.
impl HeapSize for serde_json::Value {
    fn heap_size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.heap_size(),
            Self::Array(values) => values.heap_size(),
            Self::Object(map) => {
                let members = map.iter().map(|(name, value)| name.heap_size() + value.heap_size());
                index_map(map.len(), size_of::<(String, Self)>()) + members.sum::<usize>()
            }
        }
    }
}

/// The table of a `HashMap` with room for `capacity` items, as hashbrown lays it
/// out: a power of two of slots, of which one in eight stays free, a control byte
/// for each, and a group of control bytes more.
fn hash_table(capacity: usize, item_bytes: usize) -> usize {
    const GROUP: usize = 16;
    let slots = match capacity {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        _ => (capacity * 8 / 7).next_power_of_two(),
    };
    allocation_size((slots * item_bytes).next_multiple_of(GROUP) + slots + GROUP)
}

/// The nodes of a `BTreeMap` of the standard library: eleven places each, and
/// twelve pointers in those that have nodes below.
fn b_tree(len: usize, key_bytes: usize, value_bytes: usize, align: usize) -> usize {
    const PLACES: usize = 11;
    /// Places of a full node that stay with it when it is split at its end, and
    /// the one between it and the next.
    const FILLED: usize = 6 + 1;
    if len == 0 {
        return 0;
    }
    let pointer = size_of::<usize>();
    let header = (pointer + 2 * size_of::<u16>()).next_multiple_of(align.max(pointer));
    let leaf = (header + PLACES * (key_bytes + value_bytes)).next_multiple_of(align.max(pointer));
    let leaves = ((len + 2) / FILLED).max(1);
    let (mut level, mut inner) = (leaves, 0);
    while level > 1 {
        level = level.div_ceil(FILLED);
        inner += level;
    }
    leaves * allocation_size(leaf) + inner * allocation_size(leaf + (PLACES + 1) * pointer)
}

/// The two parts of the `IndexMap` that a JSON object is: a table of indices, and
/// a list with room for as many members as the table, each with its hash.
fn index_map(len: usize, pair_bytes: usize) -> usize {
    let capacity = match len {
        0 => return 0,
        1..=3 => 3,
        4..=7 => 7,
        _ => (len * 8).div_ceil(7).next_power_of_two() / 8 * 7,
    };
    allocation_size(capacity * (size_of::<u64>() + pair_bytes))
        + hash_table(capacity, size_of::<usize>())
}

fn items<T: HeapSize>(items: &[T]) -> usize {
    items.iter().map(T::heap_size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_round_as_jemalloc_does() {
        let classes = [
            (0, 0),
            (1, 16),
            (16, 16),
            (17, 32),
            (112, 112),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (512, 512),
            (513, 640),
            (4096, 4096),
            (4097, 5120),
            (LARGEST_POWER_OF_TWO - 1, LARGEST_POWER_OF_TWO),
            (LARGEST_POWER_OF_TWO, usize::MAX),
            (usize::MAX, usize::MAX),
        ];
        for (asked, given) in classes {
            assert_eq!(allocation_size(asked), given, "for a request of {asked} bytes");
        }
    }

    #[test]
    fn nested_types_count_what_they_own() {
        assert_eq!(7_u64.heap_size(), 0);
        assert_eq!("x".repeat(100).heap_size(), 112);
        assert_eq!(vec![String::new(), "x".repeat(10)].heap_size(), 48 + 16);
        assert_eq!(Some(Arc::<str>::from("abc")).heap_size(), 32);
        assert_eq!(HashMap::<u8, u8>::new().heap_size(), 0);
        assert_eq!(BTreeMap::<u8, u8>::new().heap_size(), 0);
        assert_eq!(serde_json::json!({}).heap_size(), 0);
    }
}
