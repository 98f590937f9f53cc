use std::sync::Arc;

use larder_core::Result;

use super::departure::Departures;
use super::read::{Patience, Request};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Boarded, Flight, Terms};
use crate::hit::{Held, Hit, Label, StaleReason, Tier};

/// How many keys are asked of the stores together.
const STORE_BATCH: usize = 1000;

/// A key of a batch that memory could not answer.
struct Awaited<K, V> {
    index: usize,
    flight: Arc<Flight<K, V>>,
    began: bool,
}

/// One answer for each key asked, where there is one yet.
type Answers<K, V> = Vec<Option<Result<Hit<K, V>>>>;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Answers many keys: what memory has at once, the rest with one call of the
    /// origin for each `batch_limit` keys, and what is due for a refresh with one
    /// call for as many. Each key keeps its single flight: one that is being
    /// loaded is joined, not loaded again.
    pub(crate) async fn load_many(self: &Arc<Self>, keys: &[K]) -> Vec<Result<Hit<K, V>>> {
        // Foreign code, so before the first flight is in the table.
        let of_origin = self.origin_batch_limit();
        let mut answers = self.look_at_all(keys, of_origin);
        // What the stores do not have is split for the origin.
        let of_stores = if self.lower.is_some() { STORE_BATCH } else { 1 };
        let limit = of_origin.max(of_stores);
        if answers.iter().any(Option::is_none) {
            let patience = self.patience(&Request::default());
            // Once, unless what was joined is invalidated meanwhile.
            loop {
                let awaited = self.board_all(keys, limit, &mut answers);
                if awaited.is_empty() {
                    break;
                }
                self.collect(awaited, patience, &mut answers).await;
            }
        }
        // Every key was answered from memory or by a flight, or got an error.
        answers.into_iter().map(|answer| answer.expect("each key has an answer")).collect()
    }

    fn look_at_all(self: &Arc<Self>, keys: &[K], limit: usize) -> Answers<K, V> {
        let mut refreshes = Departures::new(self, limit);
        let look = |key| {
            let refresh = |resident: &_, cause| self.refresh_among(&mut refreshes, resident, cause);
            let now = self.clock.now();
            let (resident, label) = self.look_and(key, now, refresh)?;
            Some(Ok(Hit::new(Held::Resident(resident), label, Tier::Memory, now)))
        };
        keys.iter().map(look).collect()
    }

    fn board_all(
        self: &Arc<Self>,
        keys: &[K],
        limit: usize,
        answers: &mut Answers<K, V>,
    ) -> Vec<Awaited<K, V>> {
        let mut departures = Departures::new(self, limit);
        let mut awaited = Vec::new();
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
                    let hit = Hit::new(Held::Resident(resident), Label::Fresh, Tier::Memory, now);
                    answers[index] = Some(Ok(hit));
                    continue;
                }
                Boarded::Joined(flight) => (flight, false),
                Boarded::Began(flight) => {
                    departures.board(Arc::clone(&flight));
                    (flight, true)
                }
            };
            awaited.push(Awaited { index, flight, began });
        }
        awaited
    }

    /// Waits for every flight. What was joined and then invalidated has no answer
    /// and must be boarded anew.
    async fn collect(
        self: &Arc<Self>,
        awaited: Vec<Awaited<K, V>>,
        patience: Patience,
        answers: &mut Answers<K, V>,
    ) {
        for Awaited { index, flight, began } in awaited {
            answers[index] = if began {
                Some(self.await_own(&flight, patience).await)
            } else {
                self.join(&flight, patience).await
            };
        }
    }
}
