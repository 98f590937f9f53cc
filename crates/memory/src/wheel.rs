use larder_core::Moment;

/// Places in a slab, and those of them that have a deadline hung into a
/// hierarchical timing wheel.
///
/// Insert, remove and reschedule take constant time; an item is moved at most
/// once for each level before it is due. Each level has 64 buckets and each
/// bucket of a level spans all of the level below, so seven levels over ticks of
/// 2^24 ns (17 ms) reach past the end of the timeline. Lists are linked by
/// index: a place costs its item and eight bytes.
///
/// The wheel does not store deadlines. It asks for them when it visits an item,
/// so one that moved later in the meantime is put back instead of reported.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    places: Vec<Place<T>>,
    /// Head of the list of vacant places.
    vacant: u32,
    len: usize,
    /// The first place in each bucket, level by level, and at the end of those
    /// that were due when they were put in.
    heads: Box<[u32; BUCKETS]>,
    /// For each level one bit for each bucket that is not empty.
    occupied: [u64; LEVELS],
    /// The tick up to which buckets have been visited.
    elapsed: u64,
}

#[derive(Debug)]
struct Place<T> {
    item: Option<T>,
    /// The place before in its bucket; the bucket's number with [`IS_BUCKET`]
    /// set if there is none; [`NONE`] outside every bucket.
    previous: u32,
    /// The place after in its bucket or in the list of vacant places.
    next: u32,
}

const TICK_BITS: u32 = 24;
const LEVEL_BITS: u32 = 6;
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(LEVEL_BITS) as usize;
const PER_LEVEL: usize = 1 << LEVEL_BITS;
const OVERDUE: usize = LEVELS * PER_LEVEL;
const BUCKETS: usize = OVERDUE + 1;
const NONE: u32 = u32::MAX;
const IS_BUCKET: u32 = 1 << 31;
/// A slab that has been larger than this gives its memory back when it is empty.
const KEPT_WHEN_EMPTY: usize = 1024;

impl<T> Wheel<T> {
    /// Bytes each place takes, without the slack of a growing vector.
    pub(crate) const PLACE_BYTES: usize = size_of::<Place<T>>();
    /// Bytes an empty wheel takes.
    pub(crate) const EMPTY_BYTES: usize = size_of::<Self>() + size_of::<[u32; BUCKETS]>();

    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            vacant: NONE,
            len: 0,
            heads: Box::new([NONE; BUCKETS]),
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }

    /// How many places there are, vacant ones included: indices are below.
    pub(crate) fn places(&self) -> u32 {
        // `insert` keeps the number of places below IS_BUCKET.
        self.places.len() as u32
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.item.as_ref()
    }

    /// Takes an item in and returns its place, or gives it back if all two
    /// thousand million places are taken.
    pub(crate) fn insert(&mut self, item: T, deadline: Moment) -> Result<u32, T> {
        let index = if self.vacant == NONE {
            let index = self.places.len() as u32;
            if index >= IS_BUCKET - 1 {
                return Err(item);
            }
            self.places.push(Place { item: Some(item), previous: NONE, next: NONE });
            index
        } else {
            let index = self.vacant;
            let place = &mut self.places[index as usize];
            self.vacant = place.next;
            *place = Place { item: Some(item), previous: NONE, next: NONE };
            index
        };
        self.len += 1;
        self.schedule(index, deadline);
        Ok(index)
    }

    /// Takes the item at this place out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let item = self.places.get_mut(index as usize)?.item.take()?;
        self.unlink(index);
        self.places[index as usize].next = self.vacant;
        self.vacant = index;
        self.len -= 1;
        if self.len == 0 && self.places.len() > KEPT_WHEN_EMPTY {
            self.places = Vec::new();
            self.vacant = NONE;
        }
        Some(item)
    }

    /// The place of an item whose deadline has passed. It keeps its place but
    /// hangs in no bucket: whoever takes it removes or reschedules it.
    ///
    /// Visits at most `visits` items and counts them off.
    pub(crate) fn next_due(
        &mut self,
        now: Moment,
        visits: &mut usize,
        deadline: impl Fn(&T) -> Moment,
    ) -> Option<u32> {
        let target = now.as_nanos() >> TICK_BITS;
        loop {
            let (bucket, tick) = self.earliest()?;
            if tick > target {
                self.elapsed = self.elapsed.max(target);
                return None;
            }
            if *visits == 0 {
                return None;
            }
            *visits -= 1;
            self.elapsed = self.elapsed.max(tick);
            let index = self.heads[bucket];
            self.unlink(index);
            let item = self.places[index as usize].item.as_ref()?;
            let deadline = deadline(item);
            if deadline <= now {
                return Some(index);
            }
            self.schedule(index, deadline);
        }
    }

    /// Tells the time. Without a timer there is nothing to visit on the way, so
    /// that later ones are put in where they belong at once.
    pub(crate) fn catch_up(&mut self, now: Moment) {
        if self.heads[OVERDUE] == NONE && self.occupied == [0; LEVELS] {
            self.elapsed = self.elapsed.max(now.as_nanos() >> TICK_BITS);
        }
    }

    /// No deadline is before this moment; [`Moment::NEVER`] without deadlines.
    pub(crate) fn next_moment(&self) -> Moment {
        match self.earliest() {
            Some((_, tick)) => Moment::from_nanos(tick.saturating_mul(1 << TICK_BITS)),
            None => Moment::NEVER,
        }
    }

    /// Hangs the item at this place, which is in no bucket, into the bucket of
    /// its deadline.
    fn schedule(&mut self, index: u32, deadline: Moment) {
        if deadline.is_never() {
            return;
        }
        // Rounded up: when the bucket's tick has come, the deadline has passed.
        let tick = deadline.as_nanos().div_ceil(1 << TICK_BITS);
        let bucket = self.bucket_of(tick);
        let head = self.heads[bucket];
        let place = &mut self.places[index as usize];
        place.previous = IS_BUCKET | bucket as u32;
        place.next = head;
        if head != NONE {
            self.places[head as usize].previous = index;
        }
        self.heads[bucket] = index;
        if bucket < OVERDUE {
            self.occupied[bucket / PER_LEVEL] |= 1 << (bucket % PER_LEVEL);
        }
    }

    /// The level is that of the highest digit (in base 64) in which the tick
    /// differs from the elapsed one, the bucket is the tick's digit there.
    fn bucket_of(&self, tick: u64) -> usize {
        if tick <= self.elapsed {
            return OVERDUE;
        }
        let highest_bit = u64::BITS - 1 - (tick ^ self.elapsed).leading_zeros();
        let level = highest_bit / LEVEL_BITS;
        level as usize * PER_LEVEL + digit(tick, level)
    }

    /// Takes the place out of its bucket, if it is in one.
    fn unlink(&mut self, index: u32) {
        let Place { previous, next, .. } = self.places[index as usize];
        if previous == NONE {
            return;
        }
        if next != NONE {
            self.places[next as usize].previous = previous;
        }
        if previous & IS_BUCKET == 0 {
            self.places[previous as usize].next = next;
        } else {
            let bucket = (previous & !IS_BUCKET) as usize;
            self.heads[bucket] = next;
            if next == NONE && bucket < OVERDUE {
                self.occupied[bucket / PER_LEVEL] &= !(1 << (bucket % PER_LEVEL));
            }
        }
        let place = &mut self.places[index as usize];
        place.previous = NONE;
        place.next = NONE;
    }

    /// The bucket that comes first and the tick at which it comes.
    ///
    /// A bucket of a higher level that has come but is not yet emptied goes
    /// before the lower levels, otherwise time could pass it by.
    fn earliest(&self) -> Option<(usize, u64)> {
        if self.heads[OVERDUE] != NONE {
            return Some((OVERDUE, self.elapsed));
        }
        let mut earliest: Option<(usize, u64)> = None;
        for (level, occupied) in self.occupied.iter().enumerate() {
            let bits = level as u32 * LEVEL_BITS;
            // Buckets before the current one are empty: what is put in differs
            // from the elapsed tick by a larger digit here.
            let ahead = *occupied >> digit(self.elapsed, level as u32);
            if ahead == 0 {
                continue;
            }
            let slot = digit(self.elapsed, level as u32) + ahead.trailing_zeros() as usize;
            let tick = with_digit(self.elapsed, bits, slot as u64);
            if earliest.is_none_or(|(_, earlier)| tick <= earlier) {
                earliest = Some((level * PER_LEVEL + slot, tick));
            }
        }
        earliest
    }
}

/// The digit of the tick at this level, in base 64.
fn digit(tick: u64, level: u32) -> usize {
    (tick >> (level * LEVEL_BITS)) as usize % PER_LEVEL
}

/// The first tick that has this digit at `bits` and the digits of `tick` above.
fn with_digit(tick: u64, bits: u32, digit: u64) -> u64 {
    // No tick reaches the top bits, so the shift above the last level is in range.
    let above = (tick >> (bits + LEVEL_BITS)) << (bits + LEVEL_BITS);
    above | (digit << bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_BITS;

    /// Everything that is due, in order of place, each taken out.
    fn take_due(wheel: &mut Wheel<Moment>, now: Moment) -> Vec<u32> {
        let mut visits = usize::MAX;
        let mut due = Vec::new();
        while let Some(index) = wheel.next_due(now, &mut visits, |deadline| *deadline) {
            due.push(index);
            assert!(wheel.remove(index).is_some());
        }
        due.sort_unstable();
        due
    }

    #[test]
    fn an_item_is_due_after_its_deadline_and_never_before() {
        for nanos in [0, 1, TICK - 1, TICK, 64 * TICK, 64 * TICK + 1, 1 << 50, (1 << 62) + 5] {
            let mut wheel = Wheel::new();
            let deadline = Moment::from_nanos(nanos);
            assert_eq!(wheel.insert(deadline, deadline), Ok(0));
            assert!(wheel.next_moment() <= deadline + std::time::Duration::from_nanos(TICK));
            let before = Moment::from_nanos(nanos.saturating_sub(1));
            if nanos > 0 {
                assert!(take_due(&mut wheel, before).is_empty(), "{nanos} came early");
            }
            let after = Moment::from_nanos(nanos.saturating_add(TICK));
            assert_eq!(take_due(&mut wheel, after), [0], "{nanos} did not come");
            assert!(wheel.next_moment().is_never());
        }
    }

    #[test]
    fn a_bound_on_visits_loses_nothing() {
        let mut wheel = Wheel::new();
        for number in 0..1000_u64 {
            let deadline = Moment::from_nanos(number * 37 * TICK);
            wheel.insert(deadline, deadline).expect("there are places");
        }
        let now = Moment::from_nanos(40_000 * TICK);
        let mut due = 0;
        let mut calls = 0;
        while wheel.len > 0 {
            let mut visits = 10;
            while let Some(index) = wheel.next_due(now, &mut visits, |deadline| *deadline) {
                wheel.remove(index);
                due += 1;
            }
            calls += 1;
            assert!(calls < 1000, "no progress with {} left", wheel.len);
        }
        assert_eq!(due, 1000);
    }

    #[test]
    fn an_item_whose_deadline_moved_is_put_back() {
        let mut wheel = Wheel::new();
        let (early, late) = (Moment::from_nanos(TICK), Moment::from_nanos(100 * TICK));
        wheel.insert((), early).expect("there are places");
        let mut visits = 10;
        assert_eq!(wheel.next_due(Moment::from_nanos(2 * TICK), &mut visits, |()| late), None);
        assert!(wheel.next_moment() > early);
        assert_eq!(wheel.next_due(late, &mut visits, |()| late), Some(0));
    }

    #[test]
    fn a_large_slab_is_given_back_when_it_is_empty() {
        let mut wheel = Wheel::new();
        let places = 2 * KEPT_WHEN_EMPTY as u32;
        for _ in 0..places {
            wheel.insert((), Moment::NEVER).expect("there are places");
        }
        for place in 0..places {
            wheel.remove(place);
        }
        assert_eq!(wheel.places(), 0);
        assert_eq!(wheel.insert((), Moment::START), Ok(0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Spans of every order of magnitude, so that every level is used.
        let span = || (0_u32..44).prop_flat_map(|bits| 0..=(1_u64 << (bits + 18)));
        prop_oneof![
            4 => span().prop_map(Step::Insert),
            1 => (0_usize..64).prop_map(Step::Remove),
            2 => span().prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// The wheel against a list that is searched from end to end.
        #[test]
        fn the_wheel_finds_what_a_list_finds(steps in prop::collection::vec(step(), 1..120)) {
            let mut wheel = Wheel::new();
            let mut list: Vec<(u32, Moment)> = Vec::new();
            let mut now = 0_u64;
            for step in steps {
                match step {
                    Step::Insert(span) => {
                        let deadline = Moment::from_nanos(now.saturating_add(span));
                        let index = wheel.insert(deadline, deadline).expect("there are places");
                        prop_assert!(list.iter().all(|(other, _)| *other != index));
                        list.push((index, deadline));
                    }
                    Step::Remove(which) if !list.is_empty() => {
                        let (index, deadline) = list.swap_remove(which % list.len());
                        prop_assert_eq!(wheel.remove(index), Some(deadline));
                    }
                    Step::Remove(_) => {}
                    Step::Advance(span) => {
                        // To a whole tick: deadlines are rounded up to those.
                        now = now.saturating_add(span) >> TICK_BITS << TICK_BITS;
                        let mut due: Vec<u32> = list
                            .extract_if(.., |(_, deadline)| deadline.as_nanos() <= now)
                            .map(|(index, _)| index)
                            .collect();
                        due.sort_unstable();
                        prop_assert_eq!(take_due(&mut wheel, Moment::from_nanos(now)), due);
                        let next = list.iter().map(|(_, deadline)| *deadline).min();
                        let tick = std::time::Duration::from_nanos(TICK);
                        let latest = next.unwrap_or(Moment::NEVER) + tick;
                        prop_assert!(wheel.next_moment() <= latest);
                    }
                }
                prop_assert_eq!(wheel.len, list.len());
            }
        }
    }
}
