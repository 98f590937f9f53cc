//! Flights on their way to the origin.

use std::sync::Arc;

use larder_core::{Error, ErrorKind};

use super::load::Source;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::Flight;
use crate::origin::Permit;
use crate::telemetry::EndedBy;

/// The flights of one load. Dropped however it ends, departed or not, it lands
/// whatever has not landed: no reader waits for a load that is gone.
pub(super) struct Crew<K: CacheKey, V: CacheValue> {
    pub(super) engine: Arc<Engine<K, V>>,
    pub(super) flights: Vec<Arc<Flight<K, V>>>,
}

impl<K: CacheKey, V: CacheValue> Crew<K, V> {
    pub(super) fn new(engine: &Arc<Engine<K, V>>) -> Self {
        engine.flights.task_begins();
        Self { engine: Arc::clone(engine), flights: Vec::with_capacity(1) }
    }

    pub(super) fn board(&mut self, flight: Arc<Flight<K, V>>) {
        self.flights.push(flight);
    }
}

impl<K: CacheKey, V: CacheValue> Drop for Crew<K, V> {
    fn drop(&mut self) {
        for flight in self.flights.iter().filter(|flight| !flight.has_landed()) {
            let (end, error) = if std::thread::panicking() {
                let message = "the load's task ended without an answer";
                (EndedBy::Panic, Error::new(ErrorKind::Panicked, message))
            } else {
                let message = "the tokio runtime ended before the load did";
                (EndedBy::Loader, Error::new(ErrorKind::ShuttingDown, message))
            };
            self.engine.land_failed(flight, end, error);
        }
        self.engine.flights.task_ends();
    }
}

/// The flights that one call begins, sent off in as few loads as the origin's
/// batch limit allows. The last ones depart when it is dropped.
pub(super) struct Departures<'e, K: CacheKey, V: CacheValue> {
    engine: &'e Arc<Engine<K, V>>,
    limit: usize,
    crew: Option<Crew<K, V>>,
    place: Option<Permit>,
}

impl<'e, K: CacheKey, V: CacheValue> Departures<'e, K, V> {
    /// Departures of at most this many flights each.
    pub(super) fn new(engine: &'e Arc<Engine<K, V>>, limit: usize) -> Self {
        Self { engine, limit: limit.max(1), crew: None, place: None }
    }

    /// Whether a flight that boards next has a place under the load budget
    /// without waiting for one. Takes it unless the load that gathers has one.
    pub(super) fn has_place(&mut self) -> bool {
        if self.place.is_none() {
            self.place = self.engine.guard.try_permit(&self.engine.clock);
        }
        self.place.is_some()
    }

    pub(super) fn board(&mut self, flight: Arc<Flight<K, V>>) {
        let crew = self.crew.get_or_insert_with(|| Crew::new(self.engine));
        crew.board(flight);
        if crew.flights.len() == self.limit {
            self.send_off();
        }
    }

    fn send_off(&mut self) {
        if let Some(crew) = self.crew.take() {
            self.engine.depart(crew, Source::Origin, self.place.take());
        }
    }
}

impl<K: CacheKey, V: CacheValue> Drop for Departures<'_, K, V> {
    fn drop(&mut self) {
        self.send_off();
    }
}
