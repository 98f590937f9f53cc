use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use larder_core::{
    Action, DeadLetter, Death, DeathCause, Error, ErrorKind, Expected, JournalOffset,
    JournalRecord, Key, Moment, Value, Written,
};

use super::attempt::{self, Refusal};
use super::attendant::Settled;
use super::fold::{Batch, BatchLimits};
use super::lane::Lane;
use super::options::BehindObserver;
use super::retry::pause;
use super::shared::Shared;
use super::statistics::count;
use super::strand::{Phase, Strand};

/// Applies the writes of one cache in one lane, one batch after the other.
pub(super) struct Worker {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    strand: Arc<Strand>,
    /// Keys of which something coalesced was refused: each write goes alone, so
    /// that only the one to blame is buried.
    apart: HashSet<Key>,
    /// How many records the next batch may have, while somebody is to blame for a
    /// refusal and the origin does not say who.
    search: Option<usize>,
    failures: u32,
    /// It ends with the tenure of its lane.
    tenure: u64,
    /// Up to here an origin without marks may have had a write before.
    repeated_through: u64,
    /// The number under which the keys of the last batch were announced.
    announced: Option<u64>,
}

/// There is nothing more to do here.
struct Ends;

type Goes<T = ()> = Result<T, Ends>;

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        lane: Arc<Lane>,
        strand: Arc<Strand>,
        tenure: u64,
    ) -> Self {
        let repeated_through = lane.seen();
        Self {
            shared,
            lane,
            strand,
            apart: HashSet::new(),
            search: None,
            failures: 0,
            tenure,
            repeated_through,
            announced: None,
        }
    }

    /// Works until it is stopped, or another owner has the lane.
    pub(super) async fn run(mut self) {
        let strand = Arc::clone(&self.strand);
        let _alone = strand.working.lock().await;
        if self.strand.stopped().is_some() {
            return;
        }
        self.strand.set_phase(Phase::TakingOver);
        let Err(Ends) = self.work().await;
        if self.strand.stopped().is_none() {
            self.strand.set_phase(Phase::Following);
            self.strand.set_failing(None);
        }
    }

    async fn work(&mut self) -> Goes<std::convert::Infallible> {
        self.settle(true).await?;
        self.strand.set_phase(Phase::Running);
        loop {
            self.wait_until_due().await?;
            let batch = self.plan();
            if !batch.writes.is_empty() {
                self.apply(batch).await?;
            }
        }
    }

    /// Whether there is nothing more to do: all is to stop, or another process has
    /// the lane.
    fn is_over(&self) -> bool {
        self.shared.is_stopped() || !self.lane.tenure.is(self.tenure)
    }

    /// Finds out what the origin has, until it answers.
    async fn settle(&mut self, is_start: bool) -> Goes {
        loop {
            if self.is_over() {
                return Err(Ends);
            }
            match self.try_settle(is_start).await {
                Ok(()) => {
                    self.succeeded();
                    return Ok(());
                }
                Err(Refusal::Fenced(error)) => return Err(self.end(error)),
                Err(Refusal::Later(error) | Refusal::Unknown(error) | Refusal::Never(_, error)) => {
                    self.wait_to_retry(error).await?;
                }
            }
        }
    }

    async fn try_settle(&mut self, is_start: bool) -> Result<(), Refusal> {
        if !self.strand.abilities.marks {
            return Ok(());
        }
        if !is_start {
            // Whatever call is still on its way is of an earlier epoch then.
            let claimed = self.lane.claim_again(&*self.shared.journal).await;
            claimed.map_err(|error| match error.kind() {
                ErrorKind::Conflict => Refusal::Fenced(error),
                _ => Refusal::Later(error),
            })?;
        }
        let epoch = self.lane.epoch();
        let applied = attempt::settle(&self.shared, &self.strand, epoch).await?;
        let last = self.lane.last_claimed.lock().last.0.max(self.lane.seen());
        if applied > last {
            return Err(Refusal::Fenced(older_than_marks(&self.strand, last, applied)));
        }
        self.finish_settled(applied).await
    }

    /// Takes note of what was applied without an answer. A write that could have
    /// come to nothing is a dead letter, unless its row is there.
    async fn finish_settled(&mut self, applied: u64) -> Result<(), Refusal> {
        let records = self.strand.through(applied);
        let mut deaths = Vec::new();
        for (offset, record) in &records {
            let is_done = match (&record.write.action, record.write.expected) {
                (Action::Put(_) | Action::Remove, Expected::Anything) => true,
                (_, Expected::Anything) => {
                    attempt::is_there(&self.shared, &self.strand, &record.write.key).await?
                }
                _ => false,
            };
            if !is_done {
                let reason = "no answer came to the write, and it may have found nothing to change";
                deaths.push(Death::new(JournalOffset(*offset), DeathCause::InDoubt, reason));
            }
        }
        self.bury(&deaths).await.map_err(|Ends| Refusal::Fenced(stopping()))?;
        count(&self.shared.counters.applied, records.len() - deaths.len());
        let (offsets, keys): (Vec<u64>, HashSet<Key>) =
            records.into_iter().map(|(offset, record)| (offset, record.write.key)).unzip();
        self.finish(offsets, keys.into_iter().map(|key| (key, None)).collect()).await;
        Ok(())
    }

    /// Waits until enough waits, or for long enough, or somebody asks.
    async fn wait_until_due(&self) -> Goes {
        let (batch, delay) = (self.shared.options.batch_records, self.shared.options.batch_delay);
        loop {
            if self.is_over() {
                return Err(Ends);
            }
            if !self.lane.tenure.is_certain(self.shared.clock.precise_now()) {
                // Another process may have the lane by now: that is found out first.
                self.strand.wake.notified().await;
                continue;
            }
            match self.strand.due_at(batch, delay) {
                None => self.strand.wake.notified().await,
                Some(at) if at <= self.shared.clock.precise_now() => return Ok(()),
                Some(at) => self.wait(at).await,
            }
        }
    }

    fn plan(&self) -> Batch {
        let options = &self.shared.options;
        let abilities = self.strand.abilities;
        self.strand.next_batch(BatchLimits {
            writes: options.batch_records.min(abilities.batch_limit.max(1)),
            records: self.search.unwrap_or(options.coalesced_records_max),
            bytes: options.batch_bytes_max,
            barrier: None,
            prefix: abilities.marks,
            coalesce: self.search.is_none(),
            apart: &self.apart,
        })
    }

    async fn apply(&mut self, batch: Batch) -> Goes {
        let epoch = self.lane.epoch();
        let marks = self.strand.abilities.marks;
        let mark = marks.then(|| self.strand.mark(epoch, batch.through));
        let keys = || batch.writes.iter().map(|write| &write.key);
        let within = self.shared.options.attempt_timeout;
        self.announced = self.strand.attention.before(keys().cloned().collect(), within).await;
        self.strand.set_applying(keys(), true);
        let answer = attempt::write(&self.shared, &self.strand, &batch, mark.as_ref()).await;
        let goes = match answer {
            Ok(written) => self.applied(&batch, &written).await,
            Err(Refusal::Fenced(error)) => Err(self.end(error)),
            Err(Refusal::Later(error)) => self.wait_to_retry(error).await,
            Err(Refusal::Never(index, error)) => self.refused(&batch, index, &error).await,
            Err(Refusal::Unknown(error)) => {
                count(&self.shared.counters.doubts, 1);
                self.repeated_through = self.repeated_through.max(batch.through);
                if marks { self.settle(false).await } else { self.wait_to_retry(error).await }
            }
        };
        self.strand.set_applying(keys(), false);
        goes
    }

    /// The origin has the batch, except for what found something else than it
    /// expected.
    async fn applied(&mut self, batch: &Batch, written: &[Written<Bytes>]) -> Goes {
        let mut deaths = Vec::new();
        for (index, answer) in written.iter().enumerate().take(batch.writes.len()) {
            let (cause, reason) = match answer {
                Written::Conflict { .. } => {
                    (DeathCause::Conflict, "what was expected is not there")
                }
                Written::Missing => (DeathCause::Missing, "there is no such key to change"),
                _ => {
                    self.tell(|it| it.applied(&self.strand.cache, &batch.writes[index], answer));
                    continue;
                }
            };
            for &offset in &batch.offsets[index] {
                let was_repeated = !self.strand.abilities.marks && offset <= self.repeated_through;
                let cause = if was_repeated { DeathCause::InDoubt } else { cause };
                deaths.push(Death::new(JournalOffset(offset), cause, reason));
            }
        }
        let counters = &self.shared.counters;
        count(&counters.batches, 1);
        count(&counters.written, batch.writes.len());
        count(&counters.coalesced, batch.records_count() - batch.writes.len());
        count(&counters.applied, batch.records_count() - deaths.len());
        self.bury(&deaths).await?;
        let offsets = batch.offsets.iter().flatten().copied().collect();
        self.finish(offsets, settled(batch, written)).await;
        self.succeeded();
        self.apart.clear();
        self.search = self.search.map(|records| records.saturating_mul(2));
        self.search = self.search.filter(|records| *records < self.shared.options.batch_records);
        Ok(())
    }

    /// A write will never be taken. If it is known which, it is buried and the
    /// rest goes on; else it is looked for in smaller batches.
    async fn refused(&mut self, batch: &Batch, index: Option<usize>, error: &Error) -> Goes {
        let index = index.or((batch.writes.len() == 1).then_some(0));
        match index.map(|index| &batch.offsets[index][..]) {
            Some(&[offset]) => {
                let reason = error.to_string();
                let death = Death::new(JournalOffset(offset), DeathCause::Refused, &reason);
                self.bury(&[death]).await?;
                self.trim().await;
            }
            Some(_) => {
                let at = index.unwrap_or(0);
                self.apart.insert(batch.writes[at].key.clone());
            }
            None => self.search = Some((batch.records_count() / 2).max(1)),
        }
        Ok(())
    }

    /// Makes dead letters of records and forgets them here.
    async fn bury(&mut self, deaths: &[Death]) -> Goes {
        if deaths.is_empty() {
            return Ok(());
        }
        loop {
            let epoch = self.lane.epoch();
            match self.shared.journal.bury(self.strand.lane, epoch, deaths).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    // Another task of ours may have claimed the lane meanwhile.
                    if epoch == self.lane.epoch() {
                        return Err(self.end(error));
                    }
                }
                Err(error) => self.wait_to_retry(error).await?,
            }
        }
        count(&self.shared.counters.buried, deaths.len());
        let mut keys = Vec::new();
        for death in deaths {
            let record = self.strand.record(death.offset.0);
            self.shared.released(self.strand.finish([death.offset.0]));
            if let Some(record) = record {
                keys.push((record.write.key.clone(), None));
                self.tell_buried(death, record);
            }
        }
        self.strand.attention.after(keys, self.announced).await;
        Ok(())
    }

    fn tell_buried(&self, death: &Death, record: JournalRecord) {
        tracing::warn!(
            cache = &*self.strand.cache,
            lane = self.strand.lane,
            offset = death.offset.0,
            cause = death.cause.name(),
            reason = &*death.reason,
            "a write behind became a dead letter"
        );
        let letter = || DeadLetter { lane: self.strand.lane, record, death: death.clone() };
        self.tell(|observer| observer.buried(&letter()));
    }

    /// Tells whoever observes, who is foreign code: that it panics stops no lane.
    fn tell(&self, what: impl FnOnce(&dyn BehindObserver)) {
        let Some(observer) = &self.shared.options.observer else { return };
        let _ = catch_unwind(AssertUnwindSafe(|| what(&**observer)));
    }

    /// The origin has these, and the cache is told before the journal forgets it.
    async fn finish(&self, offsets: Vec<u64>, settled: Vec<Settled>) {
        self.shared.released(self.strand.finish(offsets));
        self.strand.attention.after(settled, self.announced).await;
        self.trim().await;
    }

    /// What is not trimmed now is trimmed with the next batch.
    async fn trim(&self) {
        if let Err(error) = self.lane.trim(&*self.shared.journal).await {
            tracing::debug!(%error, lane = self.lane.number, "the journal was not trimmed");
        }
    }

    async fn wait_to_retry(&mut self, error: Error) -> Goes {
        self.failures = self.failures.saturating_add(1);
        count(&self.shared.counters.retries, 1);
        if self.failures == 1 {
            tracing::warn!(
                %error, cache = &*self.strand.cache, lane = self.strand.lane,
                "writes behind wait: their origin fails"
            );
        }
        self.strand.set_failing(Some(error));
        let now = self.shared.clock.precise_now();
        let pause: Duration = pause(&self.shared.options, self.failures);
        let until = now + pause.max(self.shared.budget.take(now));
        while self.shared.clock.precise_now() < until {
            if self.is_over() {
                return Err(Ends);
            }
            self.wait(until).await;
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.strand.set_failing(None);
        }
    }

    /// Waits until then, or until something happens.
    async fn wait(&self, until: Moment) {
        let woken = pin!(self.strand.wake.notified());
        let late = pin!(self.shared.runtime.sleep_until(&self.shared.clock, until));
        select(woken, late).await;
    }

    /// Stops for good, or leaves a lane of a shared journal to its next owner. What
    /// waits stays in the journal.
    fn end(&self, error: Error) -> Ends {
        if self.shared.profile.shared && error.kind() == ErrorKind::Conflict {
            count(&self.shared.counters.fenced, 1);
            tracing::warn!(
                %error, cache = &*self.strand.cache, lane = self.strand.lane,
                "another process has claimed the lane meanwhile: it is left to it"
            );
            self.lane.lose(self.tenure);
            self.shared.fleet.watch.notify_one();
            return Ends;
        }
        if self.is_over() {
            return Ends;
        }
        tracing::error!(
            %error, cache = &*self.strand.cache, lane = self.strand.lane,
            "a lane of writes behind has stopped"
        );
        self.strand.set_phase(Phase::Stopped(error));
        Ends
    }
}

/// What each key of a batch has now, if a single write says so: the order within a
/// transaction is the origin's affair.
fn settled(batch: &Batch, written: &[Written<Bytes>]) -> Vec<Settled> {
    let mut settled: HashMap<&Key, Option<Value<Bytes>>> = HashMap::new();
    for (write, answer) in batch.writes.iter().zip(written) {
        let now = match answer {
            Written::Done { now, .. } => now.clone(),
            _ => None,
        };
        settled.entry(&write.key).and_modify(|now| *now = None).or_insert(now);
    }
    settled.into_iter().map(|(key, now)| (key.clone(), now)).collect()
}

fn stopping() -> Error {
    Error::new(ErrorKind::ShuttingDown, "write-behind is shutting down")
}

fn older_than_marks(strand: &Strand, last: u64, applied: u64) -> Error {
    Error::new(
        ErrorKind::Config,
        "the origin has applied more of this lane than the journal ever had",
    )
    .with("cache", &strand.cache)
    .with("lane", strand.lane)
    .with("last in the journal", last)
    .with("applied at the origin", applied)
    .remedy("this is an old copy of the journal: begin with an empty one")
}
