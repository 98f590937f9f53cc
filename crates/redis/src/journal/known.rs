//! What this process knows of a journal.

use larder_core::JournalUsage;

/// Terms of a journal that was made anew begin here: they are times in
/// microseconds. Others are counted from 1.
const ANEW_FROM: u64 = 1 << 40;

#[derive(Clone, Default, Debug)]
pub(super) struct Known {
    /// Which history this is; 0 before the first answer.
    pub(super) term: u64,
    pub(super) lanes: Vec<KnownLane>,
    pub(super) records: usize,
    pub(super) dead_letters: usize,
    pub(super) bytes: u64,
    /// Acknowledged records of which Redis has nothing any more.
    pub(super) lost: u64,
    /// How often a history ended.
    pub(super) histories_ended: u64,
    /// Whether the journal is another one by now.
    pub(super) is_other: bool,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct KnownLane {
    /// The last place that a record was seen at, or given.
    pub(super) last: u64,
    /// The last place that was heard of, whether or not there is a record.
    pub(super) highest: u64,
    pub(super) trimmed: u64,
    /// All up to here that was not trimmed is counted as lost.
    lost_through: u64,
    pub(super) epoch: u64,
}

/// What a new term means.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    /// Another server goes on, which may lack the end. Where this process last saw
    /// a record of each lane.
    Elsewhere(Vec<u64>),
    /// Somebody made it anew: all is gone. How many records waited, as far as this
    /// process knew.
    Anew(u64),
}

impl Known {
    pub(super) fn new(lanes: u16) -> Self {
        Self { lanes: vec![KnownLane::default(); usize::from(lanes)], ..Self::default() }
    }

    /// Takes note of a term. Says what it means if it is a new one.
    pub(super) fn enter(&mut self, term: u64) -> Option<Turn> {
        let before = self.term;
        self.term = before.max(term);
        if before == 0 || before >= term {
            return None;
        }
        self.histories_ended += 1;
        if term >= ANEW_FROM && term - before >= ANEW_FROM {
            return Some(Turn::Anew(self.count_gone()));
        }
        Some(Turn::Elsewhere(self.lanes.iter().map(|lane| lane.last).collect()))
    }

    /// Notes that everything is gone. Returns how many records waited.
    pub(super) fn count_gone(&mut self) -> u64 {
        let waited =
            |lane: &KnownLane| lane.last.saturating_sub(lane.trimmed.max(lane.lost_through));
        let gone: u64 = self.lanes.iter().map(waited).sum();
        self.lost += gone;
        for lane in &mut self.lanes {
            lane.lost_through = lane.last;
        }
        gone
    }

    pub(super) fn lane(&mut self, lane: u16) -> Option<&mut KnownLane> {
        self.lanes.get_mut(usize::from(lane))
    }

    /// Notes a record.
    pub(super) fn saw(&mut self, lane: u16, offset: u64) {
        if let Some(lane) = self.lane(lane) {
            lane.last = lane.last.max(offset);
            lane.highest = lane.highest.max(offset);
        }
    }

    pub(super) fn usage(&self, bytes_max: u64) -> JournalUsage {
        JournalUsage {
            records: self.records,
            dead_letters: self.dead_letters,
            bytes: self.bytes,
            bytes_max,
            stored_bytes: self.bytes,
            writable: !self.is_other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let mut known = Known::new(2);
        assert!(known.enter(3).is_none(), "nothing was known before");
        known.saw(0, 7);
        known.saw(1, 2);
        known.lanes[0].trimmed = 5;
        known
    }

    #[test]
    fn another_server_may_lack_the_end() {
        let mut known = known();
        assert!(known.enter(3).is_none());
        let Some(Turn::Elsewhere(lasts)) = known.enter(4) else { panic!("a new term") };
        assert_eq!(lasts, [7, 2]);
        assert!(known.enter(3).is_none(), "an answer that was on its way");
    }

    #[test]
    fn of_a_journal_that_was_made_anew_all_that_waited_is_lost() {
        let mut known = known();
        let made_at = 1_700_000_000_000_000;
        let Some(Turn::Anew(lost)) = known.enter(made_at) else { panic!("it is made anew") };
        assert_eq!((lost, known.lost), (4, 4));
        let Some(Turn::Elsewhere(_)) = known.enter(made_at + 1) else { panic!("a failover") };
        let Some(Turn::Anew(0)) = known.enter(2 * made_at) else { panic!("anew again") };
    }
}
