//! Lanes of a journal that several processes share: who applies which.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use larder_core::{
    Error, ErrorKind, JournalCensus, JournalOffset, JournalSharing, LaneClaim, LaneHolder, Moment,
    Result,
};
use tokio::sync::{Notify, watch};

use super::lane::Lane;
use super::shared::{Shared, Targets};
use super::strand::Phase;
use super::worker::Worker;
use super::{check_caches, shutting_down};
use crate::sync::atomic::AtomicUsize;

/// How many renewals a lease has: one that is late or lost does no harm.
const RENEWALS: u32 = 4;

/// How soon a journal that cannot be reached is tried again.
const UNHEARD: Duration = Duration::from_millis(500);

/// The shortest time between two looks at a journal that changes all the time.
const GATHERED: Duration = Duration::from_millis(5);

/// What the tasks of a shared journal have in common.
pub(super) struct Fleet {
    /// Wakes who looks after claims.
    pub(super) watch: Notify,
    /// Wakes who reads what others appended.
    pub(super) follow: Notify,
    /// Processes that share the journal, as of the last census.
    nodes: AtomicUsize,
    /// Whether this process has given up its claims and left.
    has_left: watch::Sender<bool>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            watch: Notify::new(),
            follow: Notify::new(),
            nodes: AtomicUsize::new(1),
            has_left: watch::Sender::new(false),
        }
    }
}

impl Fleet {
    pub(super) fn nodes(&self) -> usize {
        self.nodes.load(Relaxed)
    }

    /// Waits until this process has left.
    pub(super) async fn left(&self) {
        // The sender is in this very place.
        let _ = self.has_left.subscribe().wait_for(|left| *left).await;
    }
}

/// Starts to watch over the lanes.
pub(super) fn start(shared: &Arc<Shared>, targets: Targets) {
    let runtime = &shared.runtime;
    runtime.spawn(hear(Arc::clone(shared)));
    runtime.spawn(follow(Arc::clone(shared)));
    runtime.spawn(Watch { shared: Arc::clone(shared), targets: Arc::new(targets) }.run());
}

/// Asks for all that waits here to be applied now, by whoever applies it.
pub(super) async fn hurry(shared: &Shared, waits: impl Iterator<Item = (u16, u64)>) {
    let Some(sharing) = shared.journal.sharing() else { return };
    let asked = waits.map(|(lane, to)| sharing.hurry(lane, JournalOffset(to)));
    for error in join_all(asked).await.into_iter().filter_map(Result::err) {
        // It is applied nevertheless, in its own time.
        tracing::debug!(%error, "nobody is told to hurry");
    }
}

/// Waits for news, over and over.
async fn hear(shared: Arc<Shared>) {
    let Some(sharing) = shared.journal.sharing() else { return };
    while !shared.is_stopped() {
        let stopped = pin!(shared.fleet.left());
        let news = pin!(sharing.news());
        match select(news, stopped).await {
            Either::Left((Ok(()), _)) => {
                shared.fleet.watch.notify_one();
                pause(&shared, GATHERED).await;
            }
            Either::Left((Err(error), _)) => {
                tracing::debug!(%error, "the journal is not heard of");
                pause(&shared, UNHEARD).await;
            }
            Either::Right(_) => return,
        }
    }
}

/// Reads what others appended, as far as there is room.
async fn follow(shared: Arc<Shared>) {
    loop {
        shared.fleet.follow.notified().await;
        if shared.is_stopped() {
            return;
        }
        for lane in &shared.lanes {
            if lane.heard() <= lane.seen() {
                continue;
            }
            if let Err(error) = shared.note(lane, JournalOffset(lane.heard())).await {
                tracing::debug!(%error, lane = lane.number, "what others appended is not read");
            }
        }
    }
}

async fn pause(shared: &Shared, duration: Duration) {
    let until = shared.clock.precise_now() + duration;
    shared.runtime.sleep_until(&shared.clock, until).await;
}

/// Renews claims, takes lanes that nobody has, and hands over those of which this
/// process has too many.
struct Watch {
    shared: Arc<Shared>,
    targets: Arc<Targets>,
}

impl Watch {
    async fn run(self) {
        let shared = &self.shared;
        let Some(sharing) = shared.journal.sharing() else { return };
        while !shared.is_stopped() {
            // From before the question: the lease may have begun at once.
            let asked = shared.clock.precise_now();
            let claims = self.claims();
            let mut every = sharing.lease() / RENEWALS;
            match sharing.renew(&claims).await {
                Ok(census) => self.look(sharing, &census, asked).await,
                Err(error) => {
                    tracing::debug!(%error, "claims of lanes are not renewed");
                    every = every.min(UNHEARD);
                    if error.kind() == ErrorKind::Conflict {
                        self.stop_all(&error);
                    }
                }
            }
            let next = asked + every.mul_f64(0.75 + 0.25 * fastrand::f64());
            let late = pin!(shared.runtime.sleep_until(&shared.clock, next));
            select(pin!(shared.fleet.watch.notified()), late).await;
        }
        self.leave(sharing).await;
    }

    /// The lanes that this process applies, and their epochs.
    fn claims(&self) -> Vec<(u16, u64)> {
        let held = self.shared.lanes.iter().filter(|lane| lane.tenure.number() > 0);
        held.map(|lane| (lane.number, lane.epoch())).collect()
    }

    async fn look(&self, sharing: &dyn JournalSharing, census: &JournalCensus, asked: Moment) {
        let shared = &self.shared;
        let nodes = census.nodes.max(1);
        shared.fleet.nodes.store(nodes, Relaxed);
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for (lane, now) in shared.lanes.iter().zip(&census.lanes) {
            lane.hear(now.last);
            let tenure = lane.tenure.number();
            match now.holder {
                LaneHolder::Here if tenure > 0 => {
                    let was_certain = lane.tenure.is_certain(shared.clock.precise_now());
                    lane.tenure.renew(asked + sharing.lease());
                    if !was_certain {
                        lane.wake();
                    }
                    held.push(lane);
                    lane.hurry(now.hurry_to);
                }
                _ if lane.lose(tenure) => {
                    tracing::info!(lane = lane.number, "another process has the lane now");
                }
                LaneHolder::Nobody | LaneHolder::Here if !lane.tenure.is_leaving() => {
                    free.push(lane);
                }
                _ => {}
            }
            if lane.tenure.number() == 0 {
                lane.forget_through(shared, now.trimmed);
            }
        }
        if shared.lanes.iter().any(|lane| lane.heard() > lane.seen()) {
            shared.fleet.follow.notify_one();
        }
        // So many that all processes together have all.
        let share = shared.lanes.len().div_ceil(nodes);
        let surplus = held.len().saturating_sub(share);
        for lane in held.iter().rev().take(surplus) {
            self.hand_over(lane);
        }
        // Others look for lanes at the same time: not all from the same end.
        if !free.is_empty() {
            let start = fastrand::usize(..free.len());
            free.rotate_left(start);
        }
        for lane in free.into_iter().take(share.saturating_sub(held.len())) {
            self.take_over(sharing, lane).await;
        }
    }

    /// Claims a lane, and starts to apply it if nobody was faster.
    async fn take_over(&self, sharing: &dyn JournalSharing, lane: &Arc<Lane>) {
        let shared = &self.shared;
        let asked = shared.clock.precise_now();
        let claim = match shared.journal.claim(lane.number).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::debug!(%error, lane = lane.number, "the lane is not taken");
                return;
            }
        };
        lane.claimed(claim);
        lane.tenure.begin(claim.epoch, Some(asked + sharing.lease()));
        let (shared, lane) = (Arc::clone(shared), Arc::clone(lane));
        let targets = Arc::clone(&self.targets);
        self.shared.runtime.spawn(async move {
            let begun = begin(&shared, &lane, &targets, claim).await;
            let Err(error) = begun else { return };
            tracing::warn!(%error, lane = lane.number, "the lane is given up again");
            // Its claim ends by itself, or is made once more.
            lane.lose(claim.epoch);
        });
    }

    /// Ends the tasks of a lane, and then tells that it is free.
    fn hand_over(&self, lane: &Arc<Lane>) {
        // Its own task may have ended it just now: then there is nothing to hand over.
        if !lane.lose(lane.tenure.number()) {
            return;
        }
        lane.tenure.set_leaving(true);
        let (shared, lane) = (Arc::clone(&self.shared), Arc::clone(lane));
        self.shared.runtime.spawn(async move {
            lane.ended().await;
            if let Some(sharing) = shared.journal.sharing()
                && let Err(error) = sharing.release(&[(lane.number, lane.epoch())]).await
            {
                tracing::debug!(%error, lane = lane.number, "the lane is free when its lease ends");
            }
            lane.tenure.set_leaving(false);
        });
    }

    /// The journal is another one by now.
    fn stop_all(&self, error: &Error) {
        for lane in &self.shared.lanes {
            lane.lose(lane.tenure.number());
            for strand in lane.strands.values() {
                strand.set_phase(Phase::Stopped(error.clone()));
            }
        }
    }

    async fn leave(&self, sharing: &dyn JournalSharing) {
        for lane in &self.shared.lanes {
            lane.ended().await;
        }
        if let Err(error) = sharing.leave().await {
            tracing::debug!(%error, "the lanes of this process are free when their leases end");
        }
        self.shared.fleet.has_left.send_replace(true);
    }
}

/// Makes what is known of a lane what the journal has, and starts its tasks.
async fn begin(
    shared: &Arc<Shared>,
    lane: &Arc<Lane>,
    targets: &Targets,
    claim: LaneClaim,
) -> Result<()> {
    let sharing = shared.journal.sharing().ok_or_else(shutting_down)?;
    if shared.options.bury_unknown_caches {
        check_caches(&*shared.journal, lane.number, claim, targets, true).await?;
    }
    lane.catch_up(shared, sharing, claim).await?;
    tracing::debug!(lane = lane.number, epoch = claim.epoch, "this process applies the lane now");
    for strand in lane.strands.values() {
        let worker = Worker::new(shared.clone(), lane.clone(), strand.clone(), claim.epoch);
        shared.runtime.spawn(worker.run());
    }
    Ok(())
}

impl Lane {
    /// Ends a tenure, and has its tasks end. Says whether it went on before.
    pub(super) fn lose(&self, tenure: u64) -> bool {
        let has_ended = self.tenure.end(tenure);
        if has_ended {
            self.wake();
        }
        has_ended
    }

    fn wake(&self) {
        for strand in self.strands.values() {
            strand.wake.notify_one();
        }
    }

    /// Waits until no task applies anything of it.
    async fn ended(&self) {
        for strand in self.strands.values() {
            drop(strand.working.lock().await);
        }
    }

    /// Has everything up to here applied now.
    fn hurry(&self, to: JournalOffset) {
        if self.hurried.fetch_max(to.0, AcqRel) < to.0 {
            for strand in self.strands.values() {
                strand.flush(to.0);
            }
        }
    }

    /// Notes up to where there are records.
    fn hear(&self, last: JournalOffset) {
        self.heard.fetch_max(last.0, AcqRel);
    }

    /// Up to where there are records, as of the last census.
    fn heard(&self) -> u64 {
        self.heard.load(Acquire)
    }
}
