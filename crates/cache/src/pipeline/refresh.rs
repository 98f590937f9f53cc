//! Refreshes that nobody waits for: ahead of expiry, and behind a stale answer.

use std::sync::Arc;

use larder_core::{LoadCause, Moment};
use larder_memory::Resident;

use super::departure::Departures;
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::flight::{Boarded, Terms};
use crate::hit::{Label, StaleReason};
use crate::policy::Policy;
use crate::telemetry::EventKind;

/// The origin's load budget has no place for a refresh now.
struct NoPlace;

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// An entry that may be due: has it refreshed early, or serves it stale while
    /// it is refreshed. `None`: a load must be waited for.
    #[cold]
    pub(super) fn attend(
        self: &Arc<Self>,
        resident: &Resident<K, V>,
        now: Moment,
        refresh: impl FnOnce(&Resident<K, V>, LoadCause) -> bool,
    ) -> Option<Label> {
        let policy = self.policy.load();
        let fresh_until = resident.fresh_until();
        if now < fresh_until {
            if self.is_due_early(&policy, resident, now, fresh_until) {
                refresh(resident, LoadCause::RefreshAhead);
            }
            return Some(Label::Fresh);
        }
        let is_doubted = self.is_doubted(resident.entry().version);
        if is_doubted || now >= fresh_until + policy.stale_while_revalidate {
            return None;
        }
        if self.memory.suspect_until(resident, now).is_some() {
            return Some(self.stale(resident, now, StaleReason::Suspect));
        }
        if self.was_just_tried(resident, now) {
            self.telemetry.record(EventKind::RefreshSkipped, Some(resident.key()));
            return Some(self.stale(resident, now, StaleReason::OriginFailed));
        }
        let runs = refresh(resident, LoadCause::Revalidation);
        let reason = if runs { StaleReason::Revalidating } else { StaleReason::OriginFailed };
        Some(self.stale(resident, now, reason))
    }

    /// Whether it was computed from something stale so short a time ago that it is not
    /// computed again yet: no more than half of the time goes into trying.
    fn was_just_tried(&self, resident: &Resident<K, V>, now: Moment) -> bool {
        let entry = resident.entry();
        let is_of_stale = entry.fresh_until <= entry.origin_read_at;
        is_of_stale && now < entry.origin_read_at + entry.load_cost.saturating_mul(2)
    }

    fn is_due_early(
        &self,
        policy: &Policy,
        resident: &Resident<K, V>,
        now: Moment,
        fresh_until: Moment,
    ) -> bool {
        if self.origin.is_none() {
            return false;
        }
        let entry = resident.entry();
        let ahead = policy.refresh_ahead.is_some_and(|share| {
            let held = fresh_until.since(entry.origin_read_at);
            now >= entry.origin_read_at + held.mul_f64(share)
        });
        ahead
            || policy.early_refresh_beta.is_some_and(|beta| {
                // −ln of a number in (0, 1].
                let draw = -(1.0 - fastrand::f64()).ln();
                let lead = entry.load_cost.as_secs_f64() * beta * draw;
                lead >= fresh_until.since(now).as_secs_f64()
            })
    }

    /// Starts a refresh by itself. Returns whether a load of the key is under way
    /// or has just landed.
    pub(super) fn refresh(self: &Arc<Self>, resident: &Resident<K, V>, cause: LoadCause) -> bool {
        self.refresh_among(&mut Departures::new(self, 1), resident, cause)
    }

    /// Starts a refresh together with others, unless a load of the key is under
    /// way, or the origin is not asked at present or has no place now. Returns
    /// whether the key is being loaded, or has just been.
    pub(super) fn refresh_among(
        self: &Arc<Self>,
        departures: &mut Departures<'_, K, V>,
        resident: &Resident<K, V>,
        cause: LoadCause,
    ) -> bool {
        let key = resident.key();
        if self.origin.is_none() {
            return false;
        }
        let shut = self.refuse_when_closing().is_err() || self.runtime.check(&self.clock).is_err();
        if shut || self.guard.would_refuse(&self.clock) {
            self.telemetry.record(EventKind::RefreshSkipped, Some(key));
            return false;
        }
        let changed =
            || self.memory.peek(key, self.clock.now()).filter(|now| !now.is_same(resident));
        let begin = || {
            // Only now: a refresh that runs already costs no place.
            if !departures.has_place() {
                return Err(NoPlace);
            }
            // Looked at anew: it may have been invalidated since, and "not modified"
            // must not bring it back.
            let held = self.memory.peek(key, self.clock.now());
            Ok(self.flight(key.clone(), cause, held, Terms::default()))
        };
        match self.flights.board(key, changed, begin) {
            Ok(Boarded::Began(flight)) => {
                self.telemetry.record(EventKind::Refreshed, Some(key));
                departures.board(flight);
                true
            }
            Ok(Boarded::Joined(_) | Boarded::Landed(_)) => true,
            Err(NoPlace) => {
                self.telemetry.record(EventKind::RefreshSkipped, Some(key));
                false
            }
        }
    }
}
