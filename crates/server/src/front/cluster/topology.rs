//! Keeps what is known of the cluster up to date: who owns which slots, and that
//! every server that may change keys is listened to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_core::Result;

use super::super::Front;
use super::super::nodes::Node;
use super::super::tracking;
use super::super::wire::{Upstream, Wire};
use super::map::{self, Primary};
use super::pulse::{self, Info};
use crate::resp::Protocol;

/// How often is asked though nobody is in doubt.
const EVERY: Duration = Duration::from_secs(1);

/// However much doubt there is, nobody is asked sooner again.
const PAUSE: Duration = Duration::from_millis(50);

/// A server that does not answer for so long is passed over.
const PATIENCE: Duration = Duration::from_millis(500);

/// What one server says of the cluster.
pub(crate) struct Told {
    primaries: Vec<Primary>,
    info: Info,
    /// The host that was asked, for those that it names without one.
    host: String,
}

impl Told {
    /// How many slots have an owner.
    pub(crate) fn slots_count(&self) -> usize {
        self.primaries.iter().flat_map(|primary| &primary.slots).map(|it| it.clone().count()).sum()
    }

    /// Whether the server that was asked serves its slots.
    pub(crate) fn is_ok(&self) -> bool {
        self.info.is_ok
    }
}

/// Keeps asking, for ever.
pub(crate) async fn run(front: &Arc<Front>) {
    let mut asker = Asker { kept: None, turn: 0 };
    loop {
        match asker.ask(front).await {
            Some(told) => apply(front, &told),
            None => tracing::debug!("no server of the cluster tells who owns what"),
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = front.cluster.wanted() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Asks one server who owns what: two round trips.
///
/// # Errors
/// If it does not answer, or refuses.
pub(crate) async fn ask(upstream: &Upstream, wire: &mut Wire) -> Result<Told> {
    let info = upstream.ask_in_time(wire, "CLUSTER INFO", &pulse::QUESTION).await?;
    let shards = upstream.ask_in_time(wire, "CLUSTER SHARDS", &map::QUESTION).await?;
    let garbled = || upstream.unavailable(&"it does not tell who owns which slots");
    Ok(Told {
        primaries: map::read(&shards, upstream.options().is_tls).ok_or_else(garbled)?,
        info: Info::read(&info).ok_or_else(garbled)?,
        host: upstream.options().host.clone(),
    })
}

/// Asks one server after the other until one is content.
struct Asker {
    kept: Option<(Arc<Upstream>, Wire)>,
    turn: usize,
}

impl Asker {
    async fn ask(&mut self, front: &Front) -> Option<Told> {
        let mut best: Option<Told> = None;
        let mut candidates = self.candidates(front);
        while let Some(candidate) = candidates.pop_front() {
            let Some(told) = self.ask_one(candidate).await else { continue };
            // Whoever lags behind must not bring old owners back.
            if told.info.epoch < front.cluster.epoch() {
                self.kept = None;
                continue;
            }
            if told.info.is_ok {
                return Some(told);
            }
            self.kept = None;
            if best.as_ref().is_none_or(|best| best.info.epoch < told.info.epoch) {
                best = Some(told);
            }
        }
        best
    }

    /// The one asked last, then all others, each time from another one on.
    fn candidates(&mut self, front: &Front) -> VecDeque<Candidate> {
        let mut all: VecDeque<Candidate> = front
            .nodes
            .all()
            .into_iter()
            .filter(|node| !node.is_retired())
            .map(Candidate::Node)
            .chain(front.seeds.iter().map(|seed| Candidate::Seed(Arc::clone(seed))))
            .collect();
        self.turn += 1;
        let turn = self.turn % all.len().max(1);
        all.rotate_left(turn);
        if self.kept.is_some() {
            all.push_front(Candidate::Kept);
        }
        all
    }

    async fn ask_one(&mut self, candidate: Candidate) -> Option<Told> {
        let asked = tokio::time::timeout(PATIENCE, async {
            let (upstream, mut wire) = match candidate {
                Candidate::Kept => self.kept.take()?,
                Candidate::Node(node) => {
                    let upstream = Arc::clone(&node.upstream);
                    let wire = upstream.connect(Protocol::Resp2).await.ok()?;
                    (upstream, wire)
                }
                Candidate::Seed(upstream) => {
                    let wire = upstream.connect(Protocol::Resp2).await.ok()?;
                    (upstream, wire)
                }
            };
            let told = ask(&upstream, &mut wire).await;
            let told = told.inspect_err(|error| tracing::debug!(%error, "it is passed over"));
            self.kept = Some((upstream, wire));
            told.inspect_err(|_| self.kept = None).ok()
        });
        asked.await.ok()?
    }
}

enum Candidate {
    Kept,
    Node(Arc<Node>),
    Seed(Arc<Upstream>),
}

/// Takes in who owns what, and listens to whoever may change keys.
fn apply(front: &Arc<Front>, told: &Told) {
    let mut listed = Vec::new();
    let mut watched = Vec::new();
    let like = &front.login;
    for primary in &told.primaries {
        if primary.port == 0 || (primary.slots.is_empty() && !primary.is_online) {
            continue;
        }
        let host = if primary.host.is_empty() { &told.host } else { &primary.host };
        match front.nodes.find_or_add(like, host, primary.port) {
            Ok(node) => {
                watched.push(node.place);
                listed.push((node, &primary.slots));
            }
            Err(error) => tracing::warn!("a server of the cluster cannot be used: {error}"),
        }
    }
    if listed.iter().all(|(_, slots)| slots.is_empty()) {
        return;
    }
    watched.sort_unstable();
    // First who is listened to: what is not there must not hold without them.
    front.memory.validity.watch(watched);
    for (node, slots) in &listed {
        let slots = slots.iter().cloned().flatten();
        if front.memory.validity.assign(slots, node.place) {
            front.counters.moved_slots.fetch_add(1, Ordering::Relaxed);
            tracing::info!(address = node.upstream.label(), "slots have a new owner");
        }
        if node.begin_tracking() {
            tokio::spawn(track(Arc::clone(front), Arc::clone(node)));
        }
    }
    front.cluster.raise(told.info.epoch);
    for node in front.nodes.all() {
        if !listed.iter().any(|(listed, _)| Arc::ptr_eq(listed, &node)) {
            retire(front, &node);
        }
        // The proof that was refused for want of this is asked for again.
        node.pulse.notify_one();
    }
}

/// Listens to a server until it retires.
pub(crate) async fn track(front: Arc<Front>, node: Arc<Node>) {
    tracking::run(&front, &node).await;
}

/// A server that is no primary any more is asked nothing.
pub(crate) fn retire(front: &Front, node: &Arc<Node>) {
    if front.memory.validity.owns(node.place) {
        // Nobody has taken over what it had: whoever asks is told by others.
        return;
    }
    tracing::info!(address = node.upstream.label(), "a server is no primary any more");
    node.retired.cancel();
    if node.begin_tracking() {
        front.nodes.remove(node);
    }
}
