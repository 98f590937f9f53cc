use std::sync::Arc;

use larder_core::Result;

use super::load::Source;
use super::read::{Patience, Request};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Boarded, Flight, Terms};
use crate::hit::{Freshness, Held, Hit, StaleReason, Tier};

/// A key of a batch that memory could not answer.
struct Awaited<K, V> {
    index: usize,
    flight: Arc<Flight<K, V>>,
    began: bool,
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Answers many keys: what memory has at once, the rest with one call of the
    /// origin for each `batch_limit` keys. Each key keeps its single flight: one
    /// that is being loaded is joined, not loaded again.
    pub(crate) async fn load_many(self: &Arc<Self>, keys: &[K]) -> Vec<Result<Hit<K, V>>> {
        let mut answers: Vec<Option<Result<Hit<K, V>>>> =
            keys.iter().map(|key| self.look(key).map(Ok)).collect();
        if answers.iter().any(Option::is_none) {
            let awaited = self.board_all(keys, &mut answers);
            let patience = self.patience(&Request::default());
            self.collect(keys, awaited, patience, &mut answers).await;
        }
        // Every key was answered from memory, boarded a flight or got an error.
        answers.into_iter().map(|answer| answer.expect("each key has an answer")).collect()
    }

    fn board_all(
        self: &Arc<Self>,
        keys: &[K],
        answers: &mut [Option<Result<Hit<K, V>>>],
    ) -> Vec<Awaited<K, V>> {
        // Foreign code, so before the first flight is in the table.
        let limit = self.origin.as_ref().map_or(1, |origin| origin.batch_limit()).max(1);
        let mut awaited = Vec::new();
        let mut begun = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            if answers[index].is_some() {
                continue;
            }
            if let Err(error) = self.refuse_when_closing() {
                answers[index] = Some(self.degrade(key, StaleReason::OriginFailed, error));
                continue;
            }
            let (flight, began) = match self.board(key, &Terms::default()) {
                Boarded::Landed(resident) => {
                    self.telemetry.hit(|| key.clone());
                    let now = self.clock.now();
                    let hit =
                        Hit::new(Held::Resident(resident), Freshness::Fresh, Tier::Memory, now);
                    answers[index] = Some(Ok(hit));
                    continue;
                }
                Boarded::Joined(flight) => (flight, false),
                Boarded::Began(flight) => {
                    begun.push(Arc::clone(&flight));
                    (flight, true)
                }
            };
            awaited.push(Awaited { index, flight, began });
        }
        self.depart_batched(begun, limit);
        awaited
    }

    /// Sends off flights in as few calls of the origin as it allows.
    fn depart_batched(self: &Arc<Self>, flights: Vec<Arc<Flight<K, V>>>, limit: usize) {
        let mut flights = flights.into_iter().peekable();
        while flights.peek().is_some() {
            self.depart(flights.by_ref().take(limit).collect(), Source::Origin);
        }
    }

    async fn collect(
        self: &Arc<Self>,
        keys: &[K],
        awaited: Vec<Awaited<K, V>>,
        patience: Patience,
        answers: &mut [Option<Result<Hit<K, V>>>],
    ) {
        for Awaited { index, flight, began } in awaited {
            let answer = if began {
                self.await_own(&flight, patience).await
            } else if let Some(answer) = self.join(&flight, patience).await {
                answer
            } else {
                let request = Request { deadline: Some(patience.hard), ..Request::default() };
                self.load(&keys[index], request, Source::Origin).await
            };
            answers[index] = Some(answer);
        }
    }
}
