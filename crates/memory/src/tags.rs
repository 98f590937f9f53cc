use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::BuildHasher;

use larder_core::{Moment, Tag, Tags, Version, allocation_size};
use triomphe::{Arc, ThinArc};

use crate::invalidation::{Marks, Watermarks};
use crate::sync::{AtomicU32, AtomicU64, Hashing, Mutex, Ordering, Padded};

/// The watermarks of one tag, shared by the table and by every entry that has
/// the tag.
#[derive(Debug)]
pub(crate) struct TagCell {
    tag: Tag,
    pub(crate) marks: Marks,
}

impl TagCell {
    /// What it takes now.
    fn bytes(&self) -> usize {
        cell_bytes(&self.tag) + self.marks.heap_bytes()
    }
}

/// The cells of an entry's tags.
pub(crate) type TagCells = Option<ThinArc<(), Arc<TagCell>>>;

/// The watermarks of all tags that anybody may still ask for.
///
/// A cell outlives the entries that have its tag, because a load in flight may
/// still bring it. When the cells that no entry holds take too many bytes, those
/// go whose invalidation nothing can meet any more, and then those that were
/// invalidated longest ago. The highest watermark of the latter becomes the floor:
/// the watermark that a cell made later starts with. An invalidation is never
/// lost. The price is that a load that began before the floor, and has a tag
/// without a cell, is dropped although nobody invalidated it.
#[derive(Debug)]
pub(crate) struct TagTable {
    shards: Box<[Padded<Mutex<Shard>>]>,
    hashing: Hashing,
    /// Bytes of cells that no entry holds each shard may keep.
    spare_bytes: usize,
    /// Nothing that began before this version is still being loaded.
    oldest_load: AtomicU64,
    tidying: Tidying,
}

/// When the table looks for cells that were left behind.
#[derive(Debug, Default)]
struct Tidying {
    /// Handles to cells that were let go since the last time.
    let_go: AtomicU64,
    /// So many of them are worth looking again.
    worth: AtomicU64,
    /// Shards still to be looked at this time.
    shards_left: AtomicU32,
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<Tag, Arc<TagCell>, Hashing>,
    floor: Watermarks,
    /// What all the cells take.
    bytes: usize,
    /// The bytes at which cells that nobody holds are dropped.
    full_at: usize,
}

/// What bounds a shard.
#[derive(Clone, Copy)]
struct Bounds {
    spare_bytes: usize,
    oldest_load: Version,
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
/// A few cells in each shard, however small the budget.
const LEAST_SPARE_BYTES: usize = 512;
/// Fewer handles than that are not worth a look at all cells.
const WORTH_TIDYING: u64 = 4096;

impl TagTable {
    /// A table that keeps about `spare_bytes` of tags that no entry has.
    pub(crate) fn new(spare_bytes: usize) -> Self {
        let spare_bytes = (spare_bytes / SHARDS).max(LEAST_SPARE_BYTES);
        let shard = || Padded(Mutex::new(Shard { full_at: spare_bytes, ..Shard::default() }));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hashing: Hashing::default(),
            spare_bytes,
            oldest_load: AtomicU64::new(0),
            tidying: Tidying { worth: AtomicU64::new(WORTH_TIDYING), ..Tidying::default() },
        }
    }

    /// Finds or makes the cells of these tags.
    pub(crate) fn intern(&self, tags: Tags) -> Interned {
        if tags.is_empty() {
            return Interned { cells: None, tags, bytes: 0 };
        }
        let cells: Vec<Arc<TagCell>> = tags
            .iter()
            .map(|tag| self.with_shard(tag, |shard, bounds| shard.cell(tag, bounds)))
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

    /// Notes that an entry with these cells has left the tier.
    pub(crate) fn let_go(&self, cells: &TagCells) {
        if let Some(cells) = cells {
            self.tidying.let_go.fetch_add(cells.slice.len() as u64, Ordering::Relaxed);
        }
    }

    /// Says whether an entry holds the tag. One that comes later meets the mark
    /// when it gets the cell.
    pub(crate) fn remove(&self, tag: &Tag, version: Version) -> bool {
        let marks = Watermarks { removed: version, ..Watermarks::default() };
        self.with_shard(tag, |shard, bounds| {
            shard.raise(tag, marks, bounds, |cell| cell.remove(version))
        })
    }

    /// Says whether an entry holds the tag, as [`TagTable::remove`] does.
    pub(crate) fn expire(&self, tag: &Tag, version: Version, at: Moment) -> bool {
        let marks = Watermarks { expired: version, ..Watermarks::default() };
        self.with_shard(tag, |shard, bounds| {
            shard.raise(tag, marks, bounds, |cell| cell.expire(version, at))
        })
    }

    /// The highest watermarks of these tags.
    pub(crate) fn watermarks(&self, tags: &[Tag]) -> Watermarks {
        tags.iter().fold(Watermarks::default(), |highest, tag| {
            highest.max(self.with_shard(tag, |shard, _| match shard.cells.get(tag) {
                Some(cell) => cell.marks.read(),
                None => shard.floor,
            }))
        })
    }

    /// Promises that nothing that began before `version` will still be put in.
    pub(crate) fn forget_before(&self, version: Version) {
        // Mostly nothing has changed, and reading is cheap for everybody.
        if self.oldest_load.load(Ordering::Acquire) < version.get() {
            self.oldest_load.fetch_max(version.get(), Ordering::AcqRel);
        }
    }

    /// Drops cells that departed entries left behind, one shard a call, once that
    /// is worth the look. Says whether there are shards left to look at.
    pub(crate) fn tidy(&self) -> bool {
        let Tidying { let_go, worth, shards_left } = &self.tidying;
        let mut left = shards_left.load(Ordering::Relaxed);
        if left == 0 {
            if !self.tidying.is_worth_it() {
                return false;
            }
            let_go.store(0, Ordering::Relaxed);
            worth.store(WORTH_TIDYING, Ordering::Relaxed);
            left = SHARDS as u32;
        }
        let bounds = self.bounds();
        let mut shard = self.shards[left as usize - 1].lock();
        shard.drop_unheld(bounds);
        // Departures in proportion to the cells pay for the look.
        worth.fetch_add(shard.cells.len() as u64 / 4, Ordering::Relaxed);
        shards_left.store(left - 1, Ordering::Relaxed);
        left > 1
    }

    /// Whether [`TagTable::tidy`] has something to do.
    pub(crate) fn wants_tidying(&self) -> bool {
        self.tidying.shards_left.load(Ordering::Relaxed) > 0 || self.tidying.is_worth_it()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().cells.len()).sum()
    }

    fn with_shard<T>(&self, tag: &Tag, act: impl FnOnce(&mut Shard, Bounds) -> T) -> T {
        // The map inside uses the low and the highest bits of its own hash.
        let index = (self.hashing.hash_one(tag) >> 32) as usize % SHARDS;
        let bounds = self.bounds();
        act(&mut self.shards[index].lock(), bounds)
    }

    fn bounds(&self) -> Bounds {
        let oldest_load = Version::new(self.oldest_load.load(Ordering::Acquire));
        Bounds { spare_bytes: self.spare_bytes, oldest_load }
    }
}

impl Tidying {
    fn is_worth_it(&self) -> bool {
        self.let_go.load(Ordering::Relaxed) >= self.worth.load(Ordering::Relaxed)
    }
}

impl Shard {
    fn cell(&mut self, tag: &Tag, bounds: Bounds) -> Arc<TagCell> {
        if let Some(cell) = self.cells.get(tag) {
            return cell.clone();
        }
        let bytes = cell_bytes(tag);
        if self.bytes + bytes > self.full_at {
            self.drop_unheld(bounds);
        }
        let cell = Arc::new(TagCell { tag: tag.clone(), marks: Marks::starting_at(self.floor) });
        self.cells.insert(tag.clone(), cell.clone());
        self.bytes += bytes;
        cell
    }

    /// Raises the marks of a tag with `act`, or the floor to `marks` if the tag
    /// has no cell and its name is too long to keep one for nobody. Says whether
    /// anybody holds the cell.
    fn raise(
        &mut self,
        tag: &Tag,
        marks: Watermarks,
        bounds: Bounds,
        act: impl FnOnce(&Marks),
    ) -> bool {
        if let Some(cell) = self.cells.get(tag) {
            act(&cell.marks);
            return !Arc::is_unique(cell);
        }
        if cell_bytes(tag) > bounds.spare_bytes / 2 {
            self.floor = self.floor.max(marks);
        } else {
            act(&self.cell(tag, bounds).marks);
        }
        false
    }

    /// Drops cells that only the table holds. New holders come through the table,
    /// whose lock the caller has, so a cell found alone stays alone.
    fn drop_unheld(&mut self, bounds: Bounds) {
        let forgotten = self.newest_to_forget(bounds);
        let mut floor = self.floor;
        let mut held_bytes = 0;
        let mut bytes = 0;
        let mut kept = Vec::with_capacity(self.cells.len());
        for (tag, cell) in self.cells.drain() {
            let is_held = !Arc::is_unique(&cell);
            let newest = newest_to_meet(&cell, self.floor, bounds.oldest_load);
            if !is_held && newest.is_none_or(|newest| newest <= forgotten) {
                if newest.is_some() {
                    floor = floor.max(cell.marks.read());
                }
                continue;
            }
            let cell_bytes = cell.bytes();
            held_bytes += if is_held { cell_bytes } else { 0 };
            bytes += cell_bytes;
            kept.push((tag, cell));
        }
        self.floor = floor;
        self.bytes = bytes;
        // A quarter more than are held, so that the work is paid for by the cells
        // made in between.
        self.full_at = held_bytes + held_bytes / 4 + bounds.spare_bytes;
        // A new map: the old one may be too large, and has graves that would make
        // it larger still.
        let hashing = self.cells.hasher().clone();
        self.cells = HashMap::with_capacity_and_hasher(kept.len() + kept.len() / 4, hashing);
        self.cells.extend(kept);
    }

    /// Of the watermarks of cells that nobody holds, the newest that has to go so
    /// that the rest takes half of the spare bytes.
    fn newest_to_forget(&self, bounds: Bounds) -> Version {
        let mut spare: Vec<(Version, usize)> = self
            .cells
            .values()
            .filter(|cell| Arc::is_unique(cell))
            .filter_map(|cell| {
                let newest = newest_to_meet(cell, self.floor, bounds.oldest_load)?;
                Some((newest, cell.bytes()))
            })
            .collect();
        spare.sort_unstable_by_key(|(newest, _)| Reverse(*newest));
        let mut bytes = 0;
        let first_to_go = spare.into_iter().find(|(_, cell_bytes)| {
            bytes += cell_bytes;
            bytes > bounds.spare_bytes / 2
        });
        first_to_go.map_or(Version::ZERO, |(version, _)| version)
    }
}

/// The newest watermark of the cell that something still being loaded may meet,
/// and would not meet with the floor alone.
fn newest_to_meet(cell: &TagCell, floor: Watermarks, oldest_load: Version) -> Option<Version> {
    let marks = cell.marks.read();
    let to_meet =
        |mark: Version, floor: Version| (mark > floor && mark > oldest_load).then_some(mark);
    to_meet(marks.removed, floor.removed).max(to_meet(marks.expired, floor.expired))
}

/// Bytes of a new cell, its name and its place in the table.
///
/// The map has a power of two places and keeps one in eight of them free, so
/// that just after it grew there are 16/7 for each cell.
fn cell_bytes(tag: &Tag) -> usize {
    let table_place = (size_of::<(Tag, Arc<TagCell>)>() + 1) * 16 / 7;
    let name = allocation_size(2 * size_of::<usize>() + tag.as_str().len());
    let cell = allocation_size(size_of::<usize>() + size_of::<TagCell>());
    table_place + name + cell
}

/// The bytes of a cell that one of its holders counts. A quarter more for the
/// cells that nobody holds and that are not yet dropped.
///
/// Each counts twice its equal part: the one that is about to be replaced holds
/// the cell as well, and takes its own part away with it.
fn share_of_holder(cell: &Arc<TagCell>) -> usize {
    let bytes = cell.bytes() * 5 / 4;
    // One of the counts is the table's.
    let holders = Arc::strong_count(cell).saturating_sub(1);
    if holders <= 2 { bytes } else { (2 * bytes).div_ceil(holders) }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn marks(removed: u64, expired: u64) -> Watermarks {
        Watermarks { removed: Version::new(removed), expired: Version::new(expired) }
    }

    #[test]
    fn watermarks_wait_for_entries_that_come_later() {
        let table = TagTable::new(64 << 10);
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
        let table = TagTable::new(64 << 10);
        let first = table.intern(Tags::new(["a", "b"]));
        let second = table.intern(Tags::new(["a", "b"]));
        for (one, other) in first.tags.iter().zip(second.tags.iter()) {
            assert!(std::ptr::eq(one.as_str(), other.as_str()));
        }
        // The second may be there to replace the first, and is then the only one.
        assert_eq!(second.bytes, first.bytes);
        let third = table.intern(Tags::new(["a", "b"]));
        assert!(third.bytes < first.bytes, "the cells are shared by more and more");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_flood_of_tags_is_bounded_and_loses_no_invalidation() {
        let table = TagTable::new(16 << 10);
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
        let table = TagTable::new(16 << 10);
        table.forget_before(Version::new(1_000_000));
        for number in 1..=10_000 {
            table.remove(&Tag::new(&format!("tag:{number}")), Version::new(number));
        }
        assert!(table.len() < 256, "kept {} cells", table.len());
        assert_eq!(table.watermarks(&Tags::new(["other"])), marks(0, 0));
    }

    #[test]
    fn long_names_that_nobody_holds_are_bounded_by_bytes() {
        let table = TagTable::new(1 << 20);
        let names = (1..=2000_u64).map(|number| {
            // Short enough for a cell of its own, or not.
            let length = if number % 2 == 0 { 20_000 } else { 100_000 };
            (number, format!("{number}:{}", "x".repeat(length)))
        });
        for (number, name) in names {
            table.remove(&Tag::new(&name), Version::new(number));
            let tag = Tags::new([name]);
            assert!(table.watermarks(&tag).removed >= Version::new(number), "lost tag {number}");
        }
        let bytes: usize = table.shards.iter().map(|shard| shard.lock().bytes).sum();
        assert!(bytes <= 1 << 20, "{bytes} bytes of names");
        let named = |shard: &Padded<Mutex<Shard>>| -> usize {
            shard.lock().cells.keys().map(|tag| tag.as_str().len()).sum()
        };
        assert!(table.shards.iter().map(named).sum::<usize>() <= bytes);
    }

    #[test]
    fn a_load_outlives_some_unrelated_invalidations() {
        let table = TagTable::new(1 << 20);
        for number in 1..10_000 {
            table.remove(&Tag::new(&format!("tag:{number}")), Version::new(number));
        }
        // Half of the spare bytes at least hold what came last.
        let floor = table.watermarks(&Tags::new(["mine"])).removed;
        assert!(floor < Version::new(8_000), "what began after {floor:?} is kept");
        table.forget_before(Version::new(10_000));
        for number in 10_000..20_000 {
            table.expire(&Tag::new(&format!("tag:{number}")), Version::new(1), Moment::START);
        }
        assert_eq!(table.watermarks(&Tags::new(["mine"])).expired, Version::ZERO);
    }

    #[test]
    fn cells_left_behind_are_dropped_by_tidying() {
        let table = TagTable::new(64 << 10);
        let tags = (0..20_000).map(|number| Tags::new([format!("tag:{number}")]));
        let held: Vec<Interned> = tags.map(|tags| table.intern(tags)).collect();
        assert!(!table.tidy(), "nobody has left");
        for interned in held {
            table.let_go(&interned.cells);
        }
        assert_eq!(table.len(), 20_000);
        let mut calls = 1;
        while table.tidy() {
            calls += 1;
        }
        assert_eq!((calls, table.len()), (SHARDS, 0));
        assert!(!table.tidy());
        let places: usize = table.shards.iter().map(|shard| shard.lock().cells.capacity()).sum();
        assert!(places < 1000, "{places} places are kept");
    }
}
