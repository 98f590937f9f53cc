use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use larder_core::Moment;

/// The ids of events that are or have been acted upon: so many, and for so long.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Whether each is done.
    ids: HashMap<String, bool>,
    order: VecDeque<(Moment, String)>,
    most: usize,
    kept_for: Duration,
}

/// What an id stands for that comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    /// It was not known, and is under way now.
    First,
    UnderWay,
    Done,
}

impl Remembered {
    pub(super) fn new(most: usize, kept_for: Duration) -> Self {
        Self { ids: HashMap::new(), order: VecDeque::new(), most, kept_for }
    }

    /// Notes an id as under way, unless it is known.
    pub(super) fn begin(&mut self, id: &str, now: Moment) -> Begun {
        self.forget_old(now);
        match self.ids.get(id) {
            Some(true) => return Begun::Done,
            Some(false) => return Begun::UnderWay,
            None => {}
        }
        self.ids.insert(id.to_owned(), false);
        self.order.push_back((now, id.to_owned()));
        if self.order.len() > self.most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        Begun::First
    }

    /// What an id stands for is done.
    pub(super) fn end(&mut self, id: &str) {
        if let Some(is_done) = self.ids.get_mut(id) {
            *is_done = true;
        }
    }

    /// Forgets an id, unless what it stands for is done.
    pub(super) fn give_back(&mut self, id: &str) {
        if self.ids.get(id) == Some(&false) {
            self.ids.remove(id);
            self.order.retain(|(_, known)| known != id);
        }
    }

    fn forget_old(&mut self, now: Moment) {
        while let Some((at, _)) = self.order.front() {
            if now.since(*at) < self.kept_for {
                return;
            }
            if let Some((_, id)) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_for_a_time_and_up_to_a_number() {
        let minute = Duration::from_secs(60);
        let start = Moment::from_nanos(0) + minute;
        let mut known = Remembered::new(3, minute);
        assert_eq!(known.begin("a", start), Begun::First);
        assert_eq!(known.begin("a", start + minute / 4), Begun::UnderWay);
        known.end("a");
        assert_eq!(known.begin("a", start + minute / 2), Begun::Done);
        assert_eq!(known.begin("a", start + minute), Begun::First, "its time is over");
        for id in ["b", "c", "d"] {
            assert_eq!(known.begin(id, start + minute), Begun::First);
        }
        assert_eq!(known.begin("b", start + minute), Begun::UnderWay);
        assert_eq!(known.begin("a", start + minute), Begun::First, "there were too many others");
        known.give_back("a");
        assert_eq!(known.begin("a", start + minute), Begun::First);
        known.end("a");
        known.give_back("a");
        assert_eq!(known.begin("a", start + minute), Begun::Done, "what is done is not given back");
        assert_eq!((known.ids.len(), known.order.len()), (3, 3));
    }
}
