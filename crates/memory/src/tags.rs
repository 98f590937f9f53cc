use std::collections::HashMap;
use std::hash::BuildHasher;

use larder_core::{Moment, Tag, Tags, Version, allocation_size};
use triomphe::{Arc, ThinArc};

use crate::invalidation::{Marks, Watermarks};
use crate::sync::{AtomicU64, Hashing, Mutex, Ordering, Padded};

/// The watermarks of one tag, shared by the table and by every entry that has
/// the tag.
#[derive(Debug)]
pub(crate) struct TagCell {
    tag: Tag,
    pub(crate) marks: Marks,
}

/// The cells of an entry's tags.
pub(crate) type TagCells = Option<ThinArc<(), Arc<TagCell>>>;

/// The watermarks of all tags that anybody may still ask for.
///
/// A cell outlives the entries that have its tag, because a load in flight may
/// still bring it. When there are too many cells that no entry holds, they are
/// dropped, and the highest of their watermarks becomes the floor: the watermark
/// that a cell made later starts with. An invalidation is never lost. The price
/// is that what was being loaded at that time, and has a tag without a cell, may
/// be dropped although nobody invalidated it.
#[derive(Debug)]
pub(crate) struct TagTable {
    shards: Box<[Padded<Mutex<Shard>>]>,
    hashing: Hashing,
    /// How many cells that no entry holds each shard may keep.
    spare: usize,
    /// Nothing that began before this version is still being loaded.
    oldest_load: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<Tag, Arc<TagCell>, Hashing>,
    floor: Watermarks,
    /// The number of cells at which those that nobody holds are dropped.
    full_at: usize,
}

/// What an entry gets from the table for its tags.
pub(crate) struct Interned {
    pub(crate) cells: TagCells,
    /// The same tags, sharing their names with every other holder.
    pub(crate) tags: Tags,
    /// Bytes on the heap to count for the entry: its handles, and its share of
    /// the cells and names.
    pub(crate) bytes: usize,
}

const SHARDS: usize = 16;

impl TagTable {
    /// A table that keeps about `spare` tags that no entry has.
    pub(crate) fn new(spare: usize) -> Self {
        let spare = (spare / SHARDS).max(4);
        let shard = || Padded(Mutex::new(Shard { full_at: spare, ..Shard::default() }));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hashing: Hashing::default(),
            spare,
            oldest_load: AtomicU64::new(0),
        }
    }

    /// Finds or makes the cells of these tags.
    pub(crate) fn intern(&self, tags: Tags) -> Interned {
        if tags.is_empty() {
            return Interned { cells: None, tags, bytes: 0 };
        }
        let cells: Vec<Arc<TagCell>> = tags
            .iter()
            .map(|tag| self.with_shard(tag, |shard, spare, oldest| shard.cell(tag, spare, oldest)))
            .collect();
        let shared = tags
            .iter()
            .zip(&cells)
            .all(|(tag, cell)| std::ptr::eq(tag.as_str(), cell.tag.as_str()));
        let tags = if shared { tags } else { Tags::new(cells.iter().map(|cell| cell.tag.clone())) };
        let handles = allocation_size(2 * size_of::<usize>() + size_of_val::<[_]>(&cells));
        let names = allocation_size(2 * size_of::<usize>() + size_of_val::<[Tag]>(&tags));
        let shares: usize = cells.iter().map(share_of_holder).sum();
        let bytes = handles + names + shares;
        Interned { cells: Some(ThinArc::from_header_and_iter((), cells.into_iter())), tags, bytes }
    }

    pub(crate) fn remove(&self, tag: &Tag, version: Version) {
        self.with_shard(tag, |shard, spare, oldest| {
            shard.cell(tag, spare, oldest).marks.remove(version);
        });
    }

    pub(crate) fn expire(&self, tag: &Tag, version: Version, at: Moment) {
        self.with_shard(tag, |shard, spare, oldest| {
            shard.cell(tag, spare, oldest).marks.expire(version, at);
        });
    }

    /// The highest watermarks of these tags.
    pub(crate) fn watermarks(&self, tags: &[Tag]) -> Watermarks {
        tags.iter().fold(Watermarks::default(), |highest, tag| {
            highest.max(self.with_shard(tag, |shard, _, _| match shard.cells.get(tag) {
                Some(cell) => cell.marks.read(),
                None => shard.floor,
            }))
        })
    }

    /// Promises that nothing that began before `version` will still be put in.
    pub(crate) fn forget_before(&self, version: Version) {
        self.oldest_load.fetch_max(version.get(), Ordering::AcqRel);
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().cells.len()).sum()
    }

    fn with_shard<T>(&self, tag: &Tag, act: impl FnOnce(&mut Shard, usize, Version) -> T) -> T {
        // The map inside uses the low and the highest bits of its own hash.
        let index = (self.hashing.hash_one(tag) >> 32) as usize % SHARDS;
        let oldest = Version::new(self.oldest_load.load(Ordering::Acquire));
        act(&mut self.shards[index].lock(), self.spare, oldest)
    }
}

impl Shard {
    fn cell(&mut self, tag: &Tag, spare: usize, oldest_load: Version) -> Arc<TagCell> {
        if let Some(cell) = self.cells.get(tag) {
            return cell.clone();
        }
        if self.cells.len() >= self.full_at {
            self.drop_unheld(oldest_load);
            // A quarter more than are held, so that the work is paid for by the
            // cells made in between.
            self.full_at = self.cells.len() + self.cells.len() / 4 + spare;
        }
        let cell = Arc::new(TagCell { tag: tag.clone(), marks: Marks::starting_at(self.floor) });
        self.cells.insert(tag.clone(), cell.clone());
        cell
    }

    /// Drops the cells that only the table holds. New holders come through the
    /// table, whose lock the caller has, so a cell found alone stays alone.
    fn drop_unheld(&mut self, oldest_load: Version) {
        let mut floor = self.floor;
        self.cells.retain(|_, cell| {
            if !Arc::is_unique(cell) {
                return true;
            }
            // A watermark that everything still being loaded is above of has
            // nothing left to invalidate.
            let marks = cell.marks.read();
            if marks.removed > oldest_load || marks.expired > oldest_load {
                floor = floor.max(marks);
            }
            false
        });
        self.floor = floor;
    }
}

/// Bytes of a cell, its name and its place in the table, divided among those who
/// hold it. A quarter more for the cells that nobody holds and that are not yet
/// dropped.
fn share_of_holder(cell: &Arc<TagCell>) -> usize {
    let table_place = (size_of::<(Tag, Arc<TagCell>)>() + 1) * 3 / 2;
    let name = allocation_size(2 * size_of::<usize>() + cell.tag.as_str().len());
    let cell_bytes = allocation_size(size_of::<usize>() + size_of::<TagCell>());
    // One of the counts is the table's.
    let holders = Arc::strong_count(cell).saturating_sub(1).max(1);
    ((table_place + name + cell_bytes) * 5 / 4).div_ceil(holders)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn marks(removed: u64, expired: u64) -> Watermarks {
        Watermarks { removed: Version::new(removed), expired: Version::new(expired) }
    }

    #[test]
    fn watermarks_wait_for_entries_that_come_later() {
        let table = TagTable::new(100);
        table.remove(&Tag::new("a"), Version::new(5));
        table.expire(&Tag::new("b"), Version::new(7), Moment::START);
        assert_eq!(table.watermarks(&Tags::new(["a", "b", "c"])), marks(5, 7));
        let interned = table.intern(Tags::new(["a"]));
        let cells = interned.cells.expect("one tag gives one cell");
        assert!(cells.slice[0].marks.removes(Version::new(4)));
        assert!(!cells.slice[0].marks.removes(Version::new(5)));
    }

    #[test]
    fn the_names_of_equal_tags_are_shared() {
        let table = TagTable::new(100);
        let first = table.intern(Tags::new(["a", "b"]));
        let second = table.intern(Tags::new(["a", "b"]));
        for (one, other) in first.tags.iter().zip(second.tags.iter()) {
            assert!(std::ptr::eq(one.as_str(), other.as_str()));
        }
        assert!(second.bytes < first.bytes, "the second holder pays half of the cells");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_flood_of_tags_is_bounded_and_loses_no_invalidation() {
        let table = TagTable::new(64);
        let held = table.intern(Tags::new(["held"]));
        let floods = 10_000_u64;
        for number in 1..=floods {
            table.remove(&Tag::new(&format!("tag:{number}")), Version::new(number));
        }
        assert!(table.len() < 256, "kept {} cells", table.len());
        for number in 1..=floods {
            let tag = Tags::new([format!("tag:{number}")]);
            assert!(table.watermarks(&tag).removed >= Version::new(number), "lost tag:{number}");
        }
        assert_eq!(table.watermarks(&held.tags), marks(0, 0), "a held tag keeps its own marks");
    }

    #[test]
    fn watermarks_that_nothing_can_meet_are_dropped_without_a_floor() {
        let table = TagTable::new(64);
        table.forget_before(Version::new(1_000_000));
        for number in 1..=10_000 {
            table.remove(&Tag::new(&format!("tag:{number}")), Version::new(number));
        }
        assert!(table.len() < 256, "kept {} cells", table.len());
        assert_eq!(table.watermarks(&Tags::new(["other"])), marks(0, 0));
    }
}
