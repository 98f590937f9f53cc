use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    DeadLetter, Error, ErrorKind, JournalOffset, JournalRecord, Key, Result, Version, Write,
};
use tokio::sync::oneshot;

use super::shared::Reservation;
use super::{WriteBehind, shutting_down};

/// Names a dead letter: its lane and its place in it, as in `3-1207`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId {
    /// The lane.
    pub lane: u16,
    /// The place.
    pub offset: JournalOffset,
}

impl From<&DeadLetter> for LetterId {
    fn from(letter: &DeadLetter) -> Self {
        Self { lane: letter.lane, offset: letter.death.offset }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lane, self.offset.0)
    }
}

impl FromStr for LetterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('-');
        let parsed =
            parts.and_then(|(lane, offset)| Some((lane.parse().ok()?, offset.parse().ok()?)));
        let (lane, offset) = parsed.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "not the name of a dead letter")
                .remedy("write the lane and the place, such as 3-1207")
        })?;
        Ok(Self { lane, offset: JournalOffset(offset) })
    }
}

/// Dead letters. They are in the journal, and survive what it survives.
impl WriteBehind {
    /// Up to `most` dead letters behind `after`, by lane, oldest first.
    ///
    /// # Errors
    /// Those of the journal.
    pub async fn dead_letters(
        &self,
        after: Option<LetterId>,
        most: usize,
    ) -> Result<Vec<DeadLetter>> {
        let shared = self.shared();
        let mut letters = Vec::new();
        let first = after.map_or(0, |after| after.lane);
        for lane in first..shared.profile.lanes {
            let left = most - letters.len();
            let after = after.filter(|after| after.lane == lane);
            let after = after.map_or(JournalOffset::START, |after| after.offset);
            letters.extend(shared.journal.dead_letters(lane, after, left).await?);
            if letters.len() >= most {
                break;
            }
        }
        Ok(letters)
    }

    /// One dead letter, with what was to be written.
    ///
    /// # Errors
    /// Those of the journal.
    pub async fn dead_letter(&self, id: LetterId) -> Result<Option<DeadLetter>> {
        if id.lane >= self.shared().profile.lanes {
            return Ok(None);
        }
        let after = JournalOffset(id.offset.0.saturating_sub(1));
        let letters = self.shared().journal.dead_letters(id.lane, after, 1).await?;
        Ok(letters.into_iter().find(|letter| letter.death.offset == id.offset))
    }

    /// Writes a dead letter again, or `instead` of it, as a new write with this
    /// version: it comes after everything that was accepted meanwhile. The letter
    /// is gone in the same step. `None` if there is no such letter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `instead` is of another key; those of
    /// [`WriteBehind::write`].
    ///
    /// # Cancel safety
    /// If it is dropped, the letter may or may not be replayed; if it is, it is written
    /// like any other.
    pub async fn replay(
        &self,
        id: LetterId,
        version: Version,
        instead: Option<Write<Key, Bytes>>,
    ) -> Result<Option<JournalOffset>> {
        let Some(letter) = self.dead_letter(id).await? else { return Ok(None) };
        let write = instead.unwrap_or_else(|| letter.record.write.clone());
        if write.key != letter.record.write.key {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a dead letter is replayed for its own key",
            )
            .with("dead letter", id)
            .remedy("write the other key as any other, and drop the letter"));
        }
        self.check(&letter.record.cache, std::slice::from_ref(&write))?;
        let cache = letter.record.cache;
        let record = JournalRecord { cache, write, version, age: Duration::ZERO };
        self.replay_as(id, record).await
    }

    /// Replays in a task of its own, so that what the journal has is known here,
    /// whether anybody waits for it or not.
    async fn replay_as(
        &self,
        id: LetterId,
        record: JournalRecord,
    ) -> Result<Option<JournalOffset>> {
        let shared = Arc::clone(self.shared());
        let place = Reservation::take(&shared, std::slice::from_ref(&record))?;
        let (reply, answer) = oneshot::channel();
        self.shared().runtime.spawn(async move {
            let replayed = shared.journal.replay(id.lane, id.offset, Some(&record)).await;
            let noted = match replayed {
                Ok(Some(offset)) => {
                    let lane = &shared.lanes[usize::from(id.lane)];
                    let noted = shared.note(lane, offset).await;
                    if let Some(strand) = lane.strands.get(&record.cache) {
                        strand.attention.accepted(&record.write.key);
                    }
                    noted.map(|()| Some(offset))
                }
                unchanged => unchanged,
            };
            drop(place);
            // Whoever does not wait any more does not want to know.
            let _ = reply.send(noted);
        });
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Drops dead letters for good. Returns how many there were of these.
    ///
    /// # Errors
    /// Those of the journal. Lanes before the one that failed are done then.
    pub async fn drop_letters(&self, ids: &[LetterId]) -> Result<usize> {
        let mut dropped = 0;
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        for of_lane in ids.chunk_by(|one, other| one.lane == other.lane) {
            let offsets: Vec<JournalOffset> = of_lane.iter().map(|id| id.offset).collect();
            dropped += self.shared().journal.drop_letters(of_lane[0].lane, &offsets).await?;
        }
        Ok(dropped)
    }
}
