use std::hash::Hash;

use larder_core::Moment;

use crate::resident::Resident;
use crate::tier::MemoryTier;

/// Where a listing of a tier's entries goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    shard: u32,
    place: u32,
}

impl Cursor {
    /// The beginning.
    pub const START: Self = Self { shard: 0, place: 0 };

    /// As a number, to hand to a client.
    #[must_use]
    pub const fn to_number(self) -> u64 {
        (self.shard as u64) << 32 | self.place as u64
    }

    /// From a number that [`Cursor::to_number`] gave. Any other number is a
    /// place too: the listing goes on from there or is at its end.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self { shard: (number >> 32) as u32, place: number as u32 }
    }
}

/// A part of a listing.
#[derive(Debug)]
#[non_exhaustive]
pub struct Page<K, V> {
    /// Servable entries, in no particular order. May be none before the end.
    pub residents: Vec<Resident<K, V>>,
    /// Where to go on, or `None` at the end.
    pub next: Option<Cursor>,
}

impl<K, V> MemoryTier<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The next entries of a listing, at most `most`. Looks at no more than that
    /// many places, and records no access.
    ///
    /// An entry that is held from the beginning of the listing to its end is
    /// listed exactly once. One that is put in or leaves meanwhile may be listed.
    #[must_use]
    pub fn list(&self, cursor: Cursor, most: usize, now: Moment) -> Page<K, V> {
        let mut nodes = Vec::new();
        let (mut shard, mut place, mut left) = (cursor.shard as usize, cursor.place, most);
        while left > 0 && shard < self.roster.shards() {
            match self.roster.scan(shard, place, &mut left, &mut nodes) {
                Some(further) => place = further,
                None => (shard, place) = (shard + 1, 0),
            }
        }
        nodes.retain(|handle| self.death(handle, Some(now)).is_none());
        let next = (shard < self.roster.shards()).then_some(Cursor { shard: shard as u32, place });
        Page { residents: nodes.into_iter().map(Resident).collect(), next }
    }
}
