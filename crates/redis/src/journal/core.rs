//! Calls of a journal's scripts, and what their answers say beside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{Error, ErrorKind, JournalProfile, Result};
use redis::Value;

use super::entry::foreign;
use super::keys::JournalKeys;
use super::known::{Known, Turn};
use super::link::Link;
use super::options::RedisJournalOptions;
use crate::connector::text;
use crate::script::{Call, JOURNAL_LOST, JOURNAL_RESTORE, Script};
use crate::shared::Shared;
use crate::state::number;

/// What a record takes beside its own bytes: its id, its field, its node.
pub(super) const RECORD_OVERHEAD: usize = 64;

pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) keys: JournalKeys,
    pub(super) options: RedisJournalOptions,
    pub(super) profile: JournalProfile,
    /// This process, among those that share the journal.
    pub(super) node: String,
    known: Mutex<Known>,
    /// Held by who makes the journal anew.
    restoring: tokio::sync::Mutex<()>,
}

/// What a script said.
#[derive(Debug)]
pub(super) enum Said {
    /// It did it. What else there is.
    Done(Vec<Value>),
    /// Another one has claimed the lane, with this epoch.
    Replaced(u64),
    /// The lane ends here.
    Range(u64),
    /// Another one holds the lane for as long.
    Held(Duration),
    /// There is no room.
    Full,
    /// A later call was made before.
    Late,
    Gone,
    Other(String),
}

impl Core {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Link,
        keys: JournalKeys,
        options: RedisJournalOptions,
        profile: JournalProfile,
    ) -> Self {
        let known = Mutex::new(Known::new(options.lanes));
        let node = format!("{:016x}", fastrand::u64(..));
        let restoring = tokio::sync::Mutex::default();
        Self { shared, link, keys, options, profile, node, known, restoring }
    }

    /// A call of a script of this journal: its head is the first key and its name
    /// the first argument.
    pub(super) fn script(&self, script: &'static Script, keys: Vec<Vec<u8>>) -> Call {
        let keys = std::iter::once(self.keys.head()).chain(keys).collect();
        Call::new(script, keys).argument(self.profile.name.as_bytes())
    }

    /// Calls a script, which may happen twice. One round trip.
    ///
    /// # Errors
    /// Those of the connection, and [`ErrorKind::Conflict`] if the journal is
    /// another one by now.
    pub(super) async fn call(self: &Arc<Self>, call: &Call) -> Result<Said> {
        let said = self.hear(self.link.call(call).await?)?;
        if !matches!(said, Said::Gone) {
            return self.refuse_other(said);
        }
        self.restore().await?;
        let said = self.hear(self.link.call(call).await?)?;
        self.refuse_other(said)
    }

    /// The rest of a script that can only succeed.
    ///
    /// # Errors
    /// As [`Core::call`].
    pub(super) async fn call_done(self: &Arc<Self>, call: &Call) -> Result<Vec<Value>> {
        match self.call(call).await? {
            Said::Done(rest) => Ok(rest),
            _ => Err(foreign()),
        }
    }

    /// Reads an answer and takes note of what it says.
    pub(super) fn hear(self: &Arc<Self>, answer: Value) -> Result<Said> {
        let Value::Array(mut parts) = answer else { return Err(foreign()) };
        let first = parts.first().and_then(text).ok_or_else(foreign)?;
        let second = || parts.get(1).and_then(number).ok_or_else(foreign);
        Ok(match first.as_str() {
            "done" => {
                let numbers: Option<Vec<u64>> = parts.iter().skip(1).take(4).map(number).collect();
                let [term, records, letters, bytes] =
                    numbers.ok_or_else(foreign)?.try_into().map_err(|_| foreign())?;
                let turn = {
                    let mut known = self.known();
                    known.records = usize::try_from(records).unwrap_or(usize::MAX);
                    known.dead_letters = usize::try_from(letters).unwrap_or(usize::MAX);
                    known.bytes = bytes;
                    known.enter(term)
                };
                if let Some(turn) = turn {
                    self.turned(turn);
                }
                Said::Done(parts.split_off(5))
            }
            "replaced" => Said::Replaced(second()?),
            "range" => Said::Range(second()?),
            "held" => Said::Held(Duration::from_micros(second()?)),
            "full" => Said::Full,
            "late" => Said::Late,
            "gone" => Said::Gone,
            "other" => Said::Other(parts.get(1).and_then(text).unwrap_or_default()),
            _ => return Err(foreign()),
        })
    }

    /// # Errors
    /// [`ErrorKind::Conflict`] if the journal is another one by now.
    pub(super) fn refuse_other(&self, said: Said) -> Result<Said> {
        let Said::Other(name) = said else { return Ok(said) };
        let was_known = std::mem::replace(&mut self.known().is_other, true);
        if !was_known {
            let lost = self.known().count_gone();
            tracing::error!(
                journal = &*self.profile.name,
                now = name,
                lost,
                "Redis came back without the journal, and another process has begun a new one: \
                 what waited is lost"
            );
        }
        Err(Error::new(ErrorKind::Conflict, "the journal was lost, and another one begun")
            .with("journal", &self.profile.name)
            .with("now", name)
            .remedy("restart this process: it goes on with the new one"))
    }

    /// Makes the journal anew after Redis came back without it, under its name and
    /// above every place and epoch that this process knows of.
    pub(super) async fn restore(self: &Arc<Self>) -> Result<()> {
        let term = self.known().term;
        let _alone = self.restoring.lock().await;
        if self.known().term != term {
            return Ok(());
        }
        let lanes = self.options.lanes;
        let keys = std::iter::once(self.keys.news()).chain(self.keys.others(lanes)).collect();
        let mut call = self.script(&JOURNAL_RESTORE, keys).number(lanes);
        for lane in &self.known().lanes {
            call = call.number(lane.highest).number(lane.epoch).number(lane.trimmed);
        }
        let said = self.hear(self.link.call(&call).await?)?;
        match self.refuse_other(said)? {
            Said::Done(_) => Ok(()),
            _ => Err(foreign()),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How old is what was accepted then by the server's clock.
    pub(super) fn age(&self, accepted_micros: u64) -> Duration {
        self.shared.time.age(accepted_micros).unwrap_or(Duration::ZERO)
    }

    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a lane that is not there.
    pub(super) fn check_lane(&self, lane: u16) -> Result<()> {
        if lane < self.options.lanes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the journal has no such lane")
            .with("lane", lane)
            .with("lanes", self.options.lanes))
    }

    /// Tells what a new term means.
    fn turned(self: &Arc<Self>, turn: Turn) {
        match turn {
            Turn::Anew(lost) => tracing::error!(
                journal = &*self.profile.name,
                lost,
                "Redis came back without the journal: it was made anew, and what waited is \
                 applied only as far as the owners of its lanes have it in memory"
            ),
            Turn::Elsewhere(lasts) => {
                tracing::warn!(
                    journal = &*self.profile.name,
                    "another server has the journal, or it was restarted: looking for what it lacks"
                );
                let core = Arc::clone(self);
                tokio::spawn(async move { core.look_for_losses(&lasts).await });
            }
        }
    }

    /// Compares what the server has with what this process saw.
    async fn look_for_losses(self: &Arc<Self>, lasts: &[u64]) {
        for (lane, last) in (0..self.options.lanes).zip(lasts).filter(|(_, last)| **last > 0) {
            let keys = vec![self.keys.stream(lane), self.keys.buried(lane)];
            let call = self.script(&JOURNAL_LOST, keys).number(lane).number(last);
            let found = match self.call_done(&call).await {
                Ok(rest) => rest.first().and_then(number),
                Err(error) => {
                    tracing::warn!(%error, lane, "what the journal lacks is not known");
                    continue;
                }
            };
            let lost = found.map_or(0, |found| last.saturating_sub(found));
            if lost > 0 {
                self.known().lost += lost;
                tracing::error!(
                    journal = &*self.profile.name,
                    lane,
                    lost,
                    "acknowledged writes are missing in Redis: they are applied only as far as \
                     the owner of their lane has them in memory"
                );
            }
        }
    }
}
