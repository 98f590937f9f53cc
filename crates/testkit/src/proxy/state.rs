use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::connection::{ConnectionId, Held};
use super::flow::{Flow, TO_SERVER};

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Close,
    Reset,
    HalfOpen,
}

/// What the test and the proxy's thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Says that the test changed something.
    changed: watch::Sender<()>,
    /// Says that a connection came, went or passed bytes.
    passed: watch::Sender<()>,
    seed: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) upstream: SocketAddr,
    pub(super) is_over: bool,
    pub(super) is_refusing: bool,
    pub(super) is_listening: bool,
    /// What connections to come begin with.
    pub(super) future: [Flow; 2],
    pub(super) connections: BTreeMap<ConnectionId, Held>,
    pub(super) accepted: u64,
    pub(super) bytes: [u64; 2],
    pub(super) round_trips: u64,
}

impl State {
    /// How many bytes of a connection have passed.
    pub(super) fn passed(&self, id: ConnectionId) -> [u64; 2] {
        self.connections.get(&id).map_or([0; 2], |held| held.passed)
    }

    /// The faults of a direction of a connection, how many more bytes may pass
    /// there, and whether another connection is to pass first. `None` once it is
    /// ending.
    pub(super) fn faults(&self, id: ConnectionId, place: usize) -> Option<(Flow, usize, bool)> {
        let held = self.connections.get(&id).filter(|held| held.end.is_none())?;
        let flow = held.flows[place].clone();
        let room = flow.cut_at.map_or(u64::MAX, |cut_at| cut_at.saturating_sub(held.passed[place]));
        let is_held = flow.behind.is_some_and(|(other, bytes)| {
            let other = self.connections.get(&other);
            other.is_some_and(|other| other.passed[place] < bytes)
        });
        Some((flow, usize::try_from(room).unwrap_or(usize::MAX), is_held))
    }

    /// Takes note of bytes that go through.
    pub(super) fn pass(&mut self, id: ConnectionId, place: usize, bytes: u64) {
        self.bytes[place] += bytes;
        let Some(held) = self.connections.get_mut(&id) else { return };
        held.passed[place] += bytes;
        let is_new_trip = place == TO_SERVER && held.last_place != Some(TO_SERVER);
        held.last_place = Some(place);
        held.round_trips += u64::from(is_new_trip);
        self.round_trips += u64::from(is_new_trip);
    }
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr, seed: u64) -> Self {
        let state = State {
            upstream,
            is_over: false,
            is_refusing: false,
            is_listening: false,
            future: [Flow::default(), Flow::default()],
            connections: BTreeMap::new(),
            accepted: 0,
            bytes: [0; 2],
            round_trips: 0,
        };
        let (changed, passed) = (watch::Sender::new(()), watch::Sender::new(()));
        Self { state: Mutex::new(state), changed, passed, seed }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and wakes everybody whom it may concern.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn observe(&self) -> watch::Receiver<()> {
        self.passed.subscribe()
    }

    pub(super) fn accept(&self, client: SocketAddr) -> ConnectionId {
        let id = {
            let mut state = self.state();
            state.accepted += 1;
            let id = ConnectionId(state.accepted);
            let flows = state.future.clone();
            state.connections.insert(id, Held::new(client, flows));
            id
        };
        self.tell();
        id
    }

    /// Says that something passed, came or went.
    pub(super) fn tell(&self) {
        self.passed.send_replace(());
    }

    /// Ends a connection, unless it is ending already.
    pub(super) fn end(&self, id: ConnectionId, end: End) {
        self.change(|state| {
            if let Some(held) = state.connections.get_mut(&id) {
                held.end.get_or_insert(end);
            }
        });
    }

    pub(super) fn forget(&self, id: ConnectionId) {
        self.state().connections.remove(&id);
        self.tell();
    }

    /// Draws delays for a direction of a connection: always the same ones.
    pub(super) fn random(&self, id: ConnectionId, place: usize) -> fastrand::Rng {
        let stream = id.0.wrapping_mul(2).wrapping_add(place as u64);
        fastrand::Rng::with_seed(self.seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_drawn_from_the_seed_for_each_direction_of_each_connection() {
        let draw = |seed, id, place| {
            let shared = Shared::new(([127, 0, 0, 1], 1).into(), seed);
            let mut random = shared.random(ConnectionId(id), place);
            [random.u64(..), random.u64(..)]
        };
        assert_eq!(draw(7, 1, 0), draw(7, 1, 0));
        for other in [draw(8, 1, 0), draw(7, 2, 0), draw(7, 1, 1)] {
            assert_ne!(draw(7, 1, 0), other);
        }
    }
}
