//! What a process has to say to the others, and has said a short time ago.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::{Announcement, Change, Error, ErrorKind, Key, Tag, Verb};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;

/// For how long a change is announced again when the connection is made anew: the
/// server may lack what an earlier one had acknowledged. Longer than it takes to
/// notice that a primary is gone and to put another in its place.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// So many changes are kept at most, said and unsaid. Beyond, one that touches the
/// whole cache stands for the oldest.
const KEPT_MAX: usize = 65_536;

/// So many keys or tags are put into one announcement where several are said again.
const TOGETHER_MAX: usize = 256;

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Outbox {
    said: VecDeque<(Instant, Announcement)>,
    unsaid: VecDeque<Unsaid>,
    /// Taken out to be announced at this moment.
    under_way: usize,
    /// Writes that have ended since then.
    over: Vec<u64>,
    announced: Arc<Notify>,
}

/// A change to be announced.
struct Unsaid {
    announcement: Announcement,
    /// When it was announced first, if it was.
    said: Option<Instant>,
}

impl Outbox {
    /// How many wait to be announced.
    pub(super) fn waiting(&self) -> usize {
        self.unsaid.len() + self.under_way
    }

    /// Says that one more was.
    pub(super) fn announced(&self) -> Arc<Notify> {
        Arc::clone(&self.announced)
    }

    pub(super) fn add(&mut self, announcement: Announcement) {
        self.unsaid.push_back(Unsaid { announcement, said: None });
        if self.unsaid.len() > KEPT_MAX {
            let all = whole_caches(self.unsaid.drain(..).map(|unsaid| unsaid.announcement));
            let unsaid = |announcement| Unsaid { announcement, said: None };
            self.unsaid = all.into_iter().map(unsaid).collect();
        }
    }

    /// A write has ended. That it begins is said to nobody after that: he would wait
    /// for an end that he has heard of.
    pub(super) fn forget_beginning(&mut self, write: u64) {
        self.unsaid.retain(|unsaid| begins(&unsaid.announcement) != Some(write));
        if self.under_way > 0 {
            self.over.push(write);
        }
    }

    /// Whether something that could not be announced is still to be.
    fn is_due(&mut self, unsaid: &Unsaid) -> bool {
        let over = std::mem::take(&mut self.over);
        begins(&unsaid.announcement).is_none_or(|write| !over.contains(&write))
    }

    pub(super) fn note_sent(&mut self, announcement: Announcement) {
        self.note_said(Instant::now(), announcement);
    }

    fn note_said(&mut self, at: Instant, announcement: Announcement) {
        let now = Instant::now();
        while self.said.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT_FOR) {
            self.said.pop_front();
        }
        self.said.push_back((at, announcement));
        if self.said.len() > KEPT_MAX {
            let all = self.said.drain(..).map(|(_, announcement)| announcement);
            self.said = whole_caches(all).into_iter().map(|all| (now, all)).collect();
        }
    }

    /// Has what was said a short time ago said again.
    pub(super) fn again(&mut self) {
        let now = Instant::now();
        let recent = self.said.drain(..).filter(|(at, _)| now.duration_since(*at) <= KEPT_FOR);
        let recent = recent.map(|(at, announcement)| Unsaid { announcement, said: Some(at) });
        self.unsaid = together(recent.chain(self.unsaid.drain(..))).into();
    }

    fn take(&mut self) -> Option<Unsaid> {
        let next = self.unsaid.pop_front()?;
        self.under_way += 1;
        Some(next)
    }

    /// Puts off what is refused until people do something about it behind all others.
    /// What is refused for what it says, for its size perhaps, is said in fewer words,
    /// together with what they stand for as well.
    fn put_off(&mut self, refused: Unsaid, error: &Error) {
        self.under_way -= 1;
        if !self.is_due(&refused) {
            return;
        }
        if error.kind() != ErrorKind::InvalidInput {
            return self.unsaid.push_back(refused);
        }
        let announcement = whole_cache(refused.announcement);
        self.unsaid.retain(|Unsaid { announcement: other, .. }| {
            (&other.cache, other.verb) != (&announcement.cache, announcement.verb)
        });
        self.unsaid.push_back(Unsaid { announcement, said: None });
    }

    fn settle(&mut self, unsaid: Unsaid, is_sent: bool) {
        self.under_way -= 1;
        let is_due = self.is_due(&unsaid);
        if is_sent {
            // What is said again is not kept for longer than what is said once.
            self.note_said(unsaid.said.unwrap_or_else(Instant::now), unsaid.announcement);
            self.announced.notify_waiters();
        } else if is_due {
            self.unsaid.push_front(unsaid);
        }
    }
}

/// Announces what waits, until the fleet is gone.
pub(super) async fn post(fleet: Weak<Shared>, mail: Arc<Notify>) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let Some(shared) = fleet.upgrade() else { return };
        let next = shared.outbox.lock().take();
        let Some(next) = next else {
            drop(shared);
            // A fleet that is gone wakes nobody, so this looks now and then.
            let _ = tokio::time::timeout(LONGEST_PAUSE, mail.notified()).await;
            continue;
        };
        let said = shared.publish(&next.announcement).await;
        match &said {
            Err(error) if !error.is_retryable() => {
                tracing::warn!(%error, cache = next.announcement.cache, "a change is refused");
                shared.outbox.lock().put_off(next, error);
            }
            said => shared.outbox.lock().settle(next, said.is_ok()),
        }
        drop(shared);
        if said.is_ok() {
            pause = SHORTEST_PAUSE;
            continue;
        }
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let _ = tokio::time::timeout(jittered, mail.notified()).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The write that this says will be.
fn begins(announcement: &Announcement) -> Option<u64> {
    match announcement.change {
        Change::Writing { write, .. } => Some(write),
        _ => None,
    }
}

fn whole_cache(announcement: Announcement) -> Announcement {
    Announcement { change: Change::All, ..announcement }
}

/// One announcement for each cache and verb that touches all there is.
fn whole_caches(announcements: impl Iterator<Item = Announcement>) -> Vec<Announcement> {
    let mut whole: Vec<Announcement> = Vec::new();
    for announcement in announcements.map(whole_cache) {
        if !whole.contains(&announcement) {
            whole.push(announcement);
        }
    }
    whole
}

/// The same in as few announcements as hold it.
fn together(unsaid: impl Iterator<Item = Unsaid>) -> Vec<Unsaid> {
    struct Touched {
        keys: Vec<Key>,
        tags: Vec<Tag>,
        is_all: bool,
        said: Option<Instant>,
    }
    let mut touched: BTreeMap<(String, bool), Touched> = BTreeMap::new();
    let mut together = Vec::new();
    for unsaid in unsaid {
        // Each has an end of its own.
        if matches!(unsaid.announcement.change, Change::Gradual { .. }) {
            together.push(unsaid);
            continue;
        }
        let Unsaid { announcement: Announcement { cache, change, verb }, said } = unsaid;
        let none = || Touched { keys: Vec::new(), tags: Vec::new(), is_all: false, said };
        let touched = touched.entry((cache, verb == Verb::Remove)).or_insert_with(none);
        // As if it were the youngest of them; what was never said is younger still.
        touched.said = touched.said.zip(said).map(|(one, other)| one.max(other));
        match change {
            // What was to be written may have been: it is over by now in any case.
            Change::Keys(keys) | Change::Writing { keys, .. } | Change::Written { keys, .. } => {
                touched.keys.extend(keys);
            }
            Change::Tags(tags) => touched.tags.extend(tags),
            _ => touched.is_all = true,
        }
    }
    for ((cache, removes), mut touched) in touched {
        let verb = if removes { Verb::Remove } else { Verb::Expire };
        let announcement = |change| Unsaid {
            announcement: Announcement { cache: cache.clone(), change, verb },
            said: touched.said,
        };
        if touched.is_all {
            together.push(announcement(Change::All));
            continue;
        }
        touched.keys.sort_unstable();
        touched.keys.dedup();
        touched.tags.sort_unstable();
        touched.tags.dedup();
        for keys in touched.keys.chunks(TOGETHER_MAX) {
            together.push(announcement(Change::Keys(keys.to_vec())));
        }
        for tags in touched.tags.chunks(TOGETHER_MAX) {
            together.push(announcement(Change::Tags(tags.to_vec())));
        }
    }
    together
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cache: &str, keys: &[&str], verb: Verb) -> Announcement {
        let change = Change::Keys(keys.iter().map(|key| Key::new(*key)).collect());
        Announcement { cache: cache.to_owned(), change, verb }
    }

    fn unsaid(outbox: &Outbox) -> Vec<Announcement> {
        outbox.unsaid.iter().map(|unsaid| unsaid.announcement.clone()).collect()
    }

    #[tokio::test]
    async fn what_was_said_is_said_again_in_fewer_words_with_what_was_not() {
        let mut outbox = Outbox::default();
        outbox.note_sent(keys("a", &["1", "2"], Verb::Remove));
        outbox.note_sent(keys("a", &["2"], Verb::Expire));
        outbox.add(keys("a", &["2", "3"], Verb::Remove));
        outbox.add(keys("b", &["1"], Verb::Remove));
        outbox.again();
        let again: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        let said = |unsaid: &Unsaid| unsaid.announcement.clone();
        let expected = [
            keys("a", &["2"], Verb::Expire),
            keys("a", &["1", "2", "3"], Verb::Remove),
            keys("b", &["1"], Verb::Remove),
        ];
        assert_eq!(again.iter().map(said).collect::<Vec<_>>(), expected);
        assert_eq!(outbox.waiting(), 3);
        again.into_iter().for_each(|unsaid| outbox.settle(unsaid, true));
        assert_eq!((outbox.waiting(), outbox.said.len()), (0, 3));
    }

    #[tokio::test]
    async fn too_many_touch_the_whole_cache() {
        let mut outbox = Outbox::default();
        for number in 0..=KEPT_MAX {
            outbox.note_sent(keys("a", &[&number.to_string()], Verb::Remove));
            outbox.add(keys("b", &[&number.to_string()], Verb::Expire));
        }
        let all =
            |cache: &str, verb| Announcement { cache: cache.to_owned(), change: Change::All, verb };
        assert_eq!(unsaid(&outbox), [all("b", Verb::Expire)]);
        outbox.again();
        assert_eq!(unsaid(&outbox), [all("a", Verb::Remove), all("b", Verb::Expire)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_long_ago_is_not_said_again() {
        let mut outbox = Outbox::default();
        outbox.note_sent(keys("a", &["1"], Verb::Remove));
        tokio::time::advance(KEPT_FOR / 2).await;
        outbox.note_sent(keys("a", &["2"], Verb::Remove));
        tokio::time::advance(KEPT_FOR / 2 + Duration::from_millis(1)).await;
        outbox.again();
        assert_eq!(unsaid(&outbox), [keys("a", &["2"], Verb::Remove)]);
        // Nor for longer because it is said again.
        let again = outbox.take().expect("it waits");
        outbox.settle(again, true);
        tokio::time::advance(KEPT_FOR / 2).await;
        outbox.again();
        assert!(unsaid(&outbox).is_empty());
    }
}
