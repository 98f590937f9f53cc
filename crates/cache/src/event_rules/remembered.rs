use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// The ids of events that have been acted upon: so many, and for so long.
#[derive(Debug)]
pub(super) struct Remembered {
    ids: HashSet<String>,
    order: VecDeque<(Instant, String)>,
    most: usize,
    kept_for: Duration,
}

impl Remembered {
    pub(super) fn new(most: usize, kept_for: Duration) -> Self {
        Self { ids: HashSet::new(), order: VecDeque::new(), most, kept_for }
    }

    /// Notes an id. `false` if it is known already.
    pub(super) fn note(&mut self, id: &str, now: Instant) -> bool {
        self.forget_old(now);
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back((now, id.to_owned()));
        if self.order.len() > self.most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    /// Forgets one: what it stood for did not come about.
    pub(super) fn forget(&mut self, id: &str) {
        if self.ids.remove(id) {
            self.order.retain(|(_, known)| known != id);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, _)) = self.order.front() {
            if now.duration_since(*at) < self.kept_for {
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
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut known = Remembered::new(3, minute);
        assert!(known.note("a", start));
        assert!(!known.note("a", start + minute / 2));
        assert!(known.note("a", start + minute), "its time is over");
        for id in ["b", "c", "d"] {
            assert!(known.note(id, start + minute));
        }
        assert!(!known.note("b", start + minute));
        assert!(known.note("a", start + minute), "there were too many others");
        known.forget("a");
        assert!(known.note("a", start + minute));
        assert_eq!((known.ids.len(), known.order.len()), (3, 3));
    }
}
