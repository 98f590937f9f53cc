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
/// to 128, then four size classes to each doubling, as in jemalloc.
#[must_use]
pub const fn allocation_size(size: usize) -> usize {
    match size {
        0 => 0,
        1..=128 => size.next_multiple_of(16),
        _ => {
            // A power of two, so that a mask does what else took a division.
            let step = size.next_power_of_two() / 8;
            (size + step - 1) & !(step - 1)
        }
    }
}

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
        // One control byte for each slot, and slots for 8/7 of the capacity.
        let slots = self.capacity() * 8 / 7;
        allocation_size(slots * (size_of::<(K, V)>() + 1))
            + self.iter().map(|(key, value)| key.heap_size() + value.heap_size()).sum::<usize>()
    }
}

impl<K: HeapSize, V: HeapSize> HeapSize for BTreeMap<K, V> {
    fn heap_size(&self) -> usize {
        // Nodes are on average three quarters full.
        self.len() * size_of::<(K, V)>() * 4 / 3
            + self.iter().map(|(key, value)| key.heap_size() + value.heap_size()).sum::<usize>()
    }
}

impl HeapSize for serde_json::Value {
    fn heap_size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.heap_size(),
            Self::Array(values) => values.heap_size(),
            Self::Object(map) => map
                .iter()
                .map(|(name, value)| {
                    2 * size_of::<usize>()
                        + size_of::<(String, Self)>()
                        + name.heap_size()
                        + value.heap_size()
                })
                .sum(),
        }
    }
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
    }
}
