use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{
    Capabilities, Change, Clock, Error, ErrorKind, HeardUpTo, Key, Mark, Moment, PutCondition,
    PutOutcome, Result, Store, StoredEntry, Tag, Ttl, Verb, Version,
};

use super::Gate;

/// A shared store in memory that keeps the contract of [`Store`] and breaks it
/// where a test says so. Clones are the same store.
///
/// It stands in where a real store cannot be made to fail at a chosen moment;
/// the real ones are tested against real servers.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    state: Arc<Mutex<State>>,
    clock: Clock,
    capabilities: Capabilities,
    /// Whether the process that this handle belongs to has ended.
    is_over: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Key, Slot>,
    marks: HashMap<(Option<Tag>, Verb), Version>,
    heard: Option<HeardUpTo>,
    faults: VecDeque<StoreFault>,
    calls: u64,
}

#[derive(Clone, Debug)]
enum Slot {
    Held {
        entry: StoredEntry,
        origin_read_at: Moment,
        /// No older put is taken any more.
        floor: Version,
    },
    Removed(Version),
}

/// What goes wrong with one call of a [`FaultyStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreFault {
    /// Nothing.
    None,
    /// The call fails and has no effect.
    Refused,
    /// The call takes effect, and its reply is lost.
    ReplyLost,
    /// The call waits at the gate before it takes effect.
    Held(Gate),
}

impl FaultyStore {
    /// An empty store that tells ages by this clock.
    #[must_use]
    pub fn new(clock: impl Into<Clock>) -> Self {
        Self {
            state: Arc::default(),
            clock: clock.into(),
            capabilities: Capabilities { shared: true, ..Capabilities::default() },
            is_over: Arc::default(),
        }
    }

    /// The same store as another process opens it, with what is there by then.
    #[must_use]
    pub fn opened_again(&self) -> Self {
        Self { is_over: Arc::default(), ..self.clone() }
    }

    /// Ends the process of this handle, as kill -9 does: what has not taken effect
    /// does not any more.
    pub fn end_process(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// The same store as one that no other process uses.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.capabilities.shared = false;
        self.capabilities.durable = true;
        self
    }

    /// The same store as one that follows a bus in step: [`super::FaultyBus::attach`]
    /// has it do so.
    #[must_use]
    pub fn following(mut self) -> Self {
        (self.capabilities.follows_bus, self.capabilities.in_step) = (true, true);
        self
    }

    /// A change that the bus of the same server has.
    pub(super) fn follow(&self, change: &Change, verb: Verb, version: Version) {
        let mut state = self.state();
        let tags = match change {
            Change::Keys(keys) => return state.invalidate(keys, version, verb),
            Change::Tags(tags) => tags.iter().cloned().map(Some).collect(),
            _ => vec![None],
        };
        let mark = |tag| Mark { tag, verb, version };
        state.mark(&tags.into_iter().map(mark).collect::<Vec<_>>());
    }

    /// Another store with the same in it.
    pub(super) fn copied(&self) -> Self {
        let State { slots, marks, heard, .. } = &*self.state();
        let state =
            State { slots: slots.clone(), marks: marks.clone(), heard: *heard, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ..self.clone() }
    }

    /// Has what another store has.
    pub(super) fn become_like(&self, other: &Self) {
        let other = other.copied();
        let mut copy = other.state();
        let mut state = self.state();
        state.slots = std::mem::take(&mut copy.slots);
        state.marks = std::mem::take(&mut copy.marks);
        state.heard = copy.heard;
    }

    /// The same store with a largest value, in bytes.
    #[must_use]
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.capabilities.value_bytes_max = Some(bytes);
        self
    }

    /// Appends faults: each call takes the next one.
    pub fn script(&self, faults: impl IntoIterator<Item = StoreFault>) {
        self.state().faults.extend(faults);
    }

    /// How often it was called; a batch is one call.
    #[must_use]
    pub fn calls_count(&self) -> u64 {
        self.state().calls
    }

    /// How many keys have an entry.
    #[must_use]
    pub fn entries_count(&self) -> usize {
        self.state().slots.values().filter(|slot| matches!(slot, Slot::Held { .. })).count()
    }

    /// Applies the next fault around one call.
    async fn call<T>(&self, effect: impl FnOnce(&mut State, Moment) -> Result<T>) -> Result<T> {
        let fault = {
            let mut state = self.state();
            state.calls += 1;
            state.faults.pop_front().unwrap_or(StoreFault::None)
        };
        let unreachable = |what| Error::new(ErrorKind::Unavailable, what);
        if matches!(fault, StoreFault::Refused) {
            return Err(unreachable("the scripted store is unreachable"));
        }
        if let StoreFault::Held(gate) = &fault {
            gate.pass().await;
        }
        let mut state = self.state();
        if self.is_over.load(Ordering::SeqCst) {
            return Err(unreachable("the process of this store has ended"));
        }
        let answer = effect(&mut state, self.clock.precise_now());
        drop(state);
        match fault {
            StoreFault::ReplyLost => Err(unreachable("the scripted store lost its reply")),
            _ => answer,
        }
    }

    fn put(
        state: &mut State,
        now: Moment,
        (key, entry): &(Key, StoredEntry),
        condition: PutCondition,
    ) -> PutOutcome {
        let origin_read_at = now - entry.age;
        let stands = match state.slots.get(key) {
            None => None,
            Some(Slot::Removed(at)) => (entry.version < *at).then_some(*at),
            Some(Slot::Held { entry: held, origin_read_at: held_from, floor }) => match condition {
                PutCondition::NewerThanHeld => {
                    let is_newer = (entry.version, origin_read_at) > (held.version, *held_from);
                    let stands = held.version.max(*floor);
                    (!is_newer || entry.version < *floor).then_some(stands)
                }
                // A condition that this store does not know is not met.
                _ => Some(held.version),
            },
        };
        if let Some(version) = stands {
            return PutOutcome::Refused(version);
        }
        let floor = Version::ZERO;
        state.slots.insert(key.clone(), Slot::Held { entry: entry.clone(), origin_read_at, floor });
        PutOutcome::Stored
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn invalidate(&mut self, keys: &[Key], at: Version, verb: Verb) {
        for key in keys {
            match (self.slots.get_mut(key), verb) {
                (Some(Slot::Held { entry, floor, .. }), Verb::Expire) if entry.version < at => {
                    entry.fresh_for = Ttl::For(Duration::ZERO);
                    *floor = at.max(*floor);
                }
                (Some(Slot::Held { entry, .. }), _) if entry.version >= at => {}
                (Some(Slot::Removed(earlier)), _) if *earlier > at => {}
                _ => drop(self.slots.insert(key.clone(), Slot::Removed(at))),
            }
        }
    }

    fn mark(&mut self, marks: &[Mark]) {
        for mark in marks {
            let held = self.marks.entry((mark.tag.clone(), mark.verb)).or_default();
            *held = mark.version.max(*held);
        }
    }
}

impl Store for FaultyStore {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        self.call(|state, now| {
            let read = |key| match state.slots.get(key) {
                Some(Slot::Held { entry, origin_read_at, .. }) => {
                    Some(StoredEntry { age: now.since(*origin_read_at), ..entry.clone() })
                }
                Some(Slot::Removed(_)) | None => None,
            };
            Ok(keys.iter().map(read).collect())
        })
        .await
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        let limit = self.capabilities.value_bytes_max.unwrap_or(usize::MAX);
        let length = |entry: &StoredEntry| entry.value.as_option().map_or(0, bytes::Bytes::len);
        if let Some((key, entry)) = entries.iter().find(|(_, entry)| length(entry) > limit) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the value is too long for this store",
            )
            .with("key", key)
            .with("bytes", length(entry))
            .with("bytes_max", limit));
        }
        self.call(|state, now| {
            Ok(entries.iter().map(|entry| Self::put(state, now, entry, condition)).collect())
        })
        .await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.call(|state, _| {
            state.invalidate(keys, at, verb);
            Ok(())
        })
        .await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.call(|state, _| {
            state.mark(marks);
            Ok(())
        })
        .await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.call(|state, _| {
            let mark = |((tag, verb), version): (&(Option<Tag>, Verb), &Version)| Mark {
                tag: tag.clone(),
                verb: *verb,
                version: *version,
            };
            Ok(state.marks.iter().map(mark).collect())
        })
        .await
    }

    async fn newest_version(&self) -> Result<Version> {
        self.call(|state, _| {
            let of_slot = |slot: &Slot| match slot {
                Slot::Held { entry, floor, .. } => entry.version.max(*floor),
                Slot::Removed(at) => *at,
            };
            let slots = state.slots.values().map(of_slot);
            Ok(slots.chain(state.marks.values().copied()).max().unwrap_or_default())
        })
        .await
    }

    async fn note_heard(&self, heard: HeardUpTo) -> Result<()> {
        self.call(|state, _| {
            state.heard = Some(heard);
            Ok(())
        })
        .await
    }

    async fn heard(&self) -> Result<Option<HeardUpTo>> {
        self.call(|state, _| Ok(state.heard)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{block_on, store::entry};

    crate::store_conformance!(conforms, async { FaultyStore::new(Clock::monotonic()) });
    crate::store_conformance!(conforms_with_a_limit, async {
        FaultyStore::new(Clock::monotonic()).value_bytes_max(1000)
    });

    #[test]
    fn a_lost_reply_has_its_effect_and_a_refused_call_has_none() {
        block_on(async {
            let store = FaultyStore::new(Clock::monotonic());
            for (name, fault, present) in
                [("a", StoreFault::ReplyLost, true), ("b", StoreFault::Refused, false)]
            {
                store.script([fault]);
                let put = [(Key::new(name), entry("value", 1))];
                let error = store.put_many(&put, PutCondition::Vacant).await;
                assert_eq!(error.expect_err("the script says so").kind(), ErrorKind::Unavailable);
                let read = store.get(&Key::new(name)).await.expect("the script is at its end");
                assert_eq!(read.is_some(), present, "{name}");
            }
            assert_eq!((store.calls_count(), store.entries_count()), (4, 1));
        });
    }

    #[test]
    fn a_held_put_takes_effect_when_the_gate_opens() {
        block_on(async {
            let store = FaultyStore::new(Clock::monotonic());
            let gate = Gate::new();
            store.script([StoreFault::Held(gate.clone())]);
            let put = tokio::spawn({
                let store = store.clone();
                async move {
                    let entries = [(Key::new("a"), entry("old", 1))];
                    store.put_many(&entries, PutCondition::NewerThanHeld).await
                }
            });
            gate.wait_for_arrivals(1).await;
            let key = [Key::new("a")];
            let removed = store.invalidate_many(&key, Version::new(2), Verb::Remove).await;
            removed.expect("it is reachable");
            gate.open();
            let outcome = put.await.expect("the put ends").expect("it is reachable");
            assert_eq!(outcome, [PutOutcome::Refused(Version::new(2))]);
        });
    }
}
