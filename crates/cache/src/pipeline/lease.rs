//! Loads of what no store has, by one node at a time for each key (R2).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use larder_core::{Error, ErrorKind, Key, LeaseToken};

use super::load::Source;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::Flight;
use crate::lower::{LeaseDesk, Lower};
use crate::origin::Permit;
use crate::telemetry::EndedBy;

/// A lease lasts no longer than this, and no longer than half of the hard timeout:
/// whoever waits for a node that has died still has the other half.
const LONGEST: Duration = Duration::from_secs(30);

/// How long a wait for another node's load lasts before the stores are looked into
/// without having been woken: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Flights that this node may load.
struct Granted<K, V> {
    flights: Vec<Arc<Flight<K, V>>>,
    leases: Vec<(Key, LeaseToken)>,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Loads what this node gets the lease of, and waits for the loads of other
    /// nodes. Costs two round trips more than the load: one for the lease, and one
    /// to see whether whoever had it before has filled the store.
    pub(super) async fn load_leased(
        self: &Arc<Self>,
        lower: &Lower<K, V>,
        desk: &LeaseDesk,
        mut source: Source<V>,
        flights: &[Arc<Flight<K, V>>],
        mut place: Option<Permit>,
    ) {
        let mut rest = flights.to_vec();
        let mut pause = FIRST_PAUSE;
        while let Some(first) = rest.first() {
            let deadline = first.deadline;
            let keys: Vec<Key> = rest.iter().map(|flight| (lower.encode)(&flight.key)).collect();
            let duration = LONGEST.min(self.policy.load().hard_timeout / 2);
            let Some(tokens) = desk.acquire(&keys, duration, self.grounds()).await else {
                // Better twice than not at all.
                return self.load_from(source, &rest, place).await;
            };
            let mut granted = Granted { flights: Vec::new(), leases: Vec::new() };
            let mut others = Vec::new();
            for ((flight, key), token) in rest.into_iter().zip(keys).zip(tokens) {
                match token {
                    Some(token) => {
                        granted.flights.push(flight);
                        granted.leases.push((key, token));
                    }
                    None => others.push((flight, key)),
                }
            }
            let Some((_, held)) = others.first() else {
                return self.load_granted(lower, desk, source, granted, place).await;
            };
            let left = deadline.since(self.clock.precise_now());
            let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0).min(left);
            let woken = desk.released(held, wait);
            if granted.flights.is_empty() {
                // Others may have it meanwhile.
                place = None;
                woken.await;
            } else {
                let next = source.again();
                let load = self.load_granted(lower, desk, source, granted, place.take());
                futures_util::future::join(load, woken).await;
                source = next;
            }
            pause = (pause * 2).min(LAST_PAUSE);
            let waiting: Vec<_> = others.into_iter().map(|(flight, _)| flight).collect();
            rest = self.consult(lower, &waiting).await;
            if self.clock.precise_now() >= deadline {
                return rest.iter().for_each(|flight| self.gave_up(flight));
            }
        }
    }

    async fn load_granted(
        self: &Arc<Self>,
        lower: &Lower<K, V>,
        desk: &LeaseDesk,
        source: Source<V>,
        granted: Granted<K, V>,
        place: Option<Permit>,
    ) {
        let Granted { flights, leases } = granted;
        let load = async {
            let cold = self.consult(lower, &flights).await;
            if !cold.is_empty() {
                self.load_from(source, &cold, place).await;
            }
        };
        // Whoever comes after an invalidation waits for no load that began before it.
        let give_up = async |flight: &Arc<Flight<K, V>>, lease: &(Key, LeaseToken)| {
            flight.fenced().await;
            desk.release(std::slice::from_ref(lease), self.grounds()).await;
        };
        let given_up =
            join_all(flights.iter().zip(&leases).map(|(flight, lease)| give_up(flight, lease)));
        if let Either::Right((_, load)) = select(pin!(load), pin!(given_up)).await {
            return load.await;
        }
        desk.release(&leases, self.grounds()).await;
    }

    fn gave_up(&self, flight: &Arc<Flight<K, V>>) {
        let hard_timeout = self.policy.load().hard_timeout;
        let error = Error::new(ErrorKind::Timeout, "another node's load did not come in time")
            .with("hard timeout", format_args!("{hard_timeout:?}"))
            .remedy("raise the hard timeout above what the origin takes");
        self.land_failed(flight, EndedBy::Timeout, error);
    }
}
