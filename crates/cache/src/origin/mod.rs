//! What stands between the engine and an origin: the breaker that stops asking
//! a sick one, and the budget that keeps a healthy one from being overrun.

mod breaker;
mod budget;
mod rate;

use std::sync::Arc;

use larder_core::{Clock, Error, ErrorKind, Result};

pub(crate) use breaker::BreakerSwitch;
use breaker::Ticket;
pub use breaker::{Breaker, BreakerState};
use budget::Budgeted;
pub use budget::LoadBudget;
pub(crate) use budget::Permit;

/// Guards one origin. Caches of the same origin share one guard, so that they
/// share its breaker (R4) and its load budget (R7).
///
/// ```
/// use std::time::Duration;
/// use larder::{Breaker, LoadBudget, OriginGuard};
///
/// let guard = OriginGuard::new(
///     "orders",
///     Breaker::default().open_for(Duration::from_secs(30)),
///     LoadBudget::concurrent(64),
/// );
/// # let _ = guard;
/// ```
#[derive(Clone, Debug)]
pub struct OriginGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    breaker: BreakerSwitch,
    budget: Budgeted,
}

impl OriginGuard {
    /// A guard for the origin of this name.
    #[must_use]
    pub fn new(name: &str, breaker: Breaker, budget: LoadBudget) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            breaker: BreakerSwitch::new(breaker),
            budget: Budgeted::new(budget),
        }))
    }

    /// The name of the origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the origin is asked at present.
    #[must_use]
    pub fn breaker_state(&self, clock: &Clock) -> BreakerState {
        self.0.breaker.state(clock.now())
    }

    /// How many loads run now. Those that wait in line do not.
    #[must_use]
    pub fn loads_running(&self) -> usize {
        self.0.budget.running()
    }

    /// Refuses limits under which no load could ever run.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.budget.check().map_err(|error| error.with("origin", self.name()))
    }

    /// Asks the breaker. The ticket is to be settled with the load's result.
    pub(crate) fn enter(&self, clock: &Clock) -> Result<Ticket> {
        self.0.breaker.enter(clock.now()).map_err(|retry_in| self.refused(retry_in))
    }

    /// The refusal of a breaker that is open now.
    pub(crate) fn refuse_while_open(&self, clock: &Clock) -> Result<()> {
        let retry_in = self.0.breaker.open_for(clock.now());
        retry_in.map_or(Ok(()), |retry_in| Err(self.refused(retry_in)))
    }

    /// Whether the breaker would refuse a load now: it is open, or half-open with
    /// its one load on the way.
    pub(crate) fn would_refuse(&self, clock: &Clock) -> bool {
        self.0.breaker.would_refuse(clock.now())
    }

    fn refused(&self, retry_in: std::time::Duration) -> Error {
        Error::new(ErrorKind::BreakerOpen, "the origin is not asked: its circuit breaker is open")
            .with("origin", self.name())
            .with("next try in", format_args!("{retry_in:?}"))
    }

    /// Settles a ticket. That the origin refuses something for good is a sign of
    /// health; that it cannot answer is none. A load that waited in a line of
    /// ours, such as that of a connection pool, has not found out.
    pub(crate) fn settle<T>(&self, ticket: Ticket, result: &Result<T>, clock: &Clock) {
        let kind = result.as_ref().map_err(Error::kind).err();
        if kind == Some(ErrorKind::Overloaded) {
            return;
        }
        let sick =
            matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Panicked));
        self.0.breaker.settle(ticket, sick, clock.now());
    }

    /// Waits for a place under the load budget.
    pub(crate) async fn permit(&self, runtime: &crate::runtime::Runtime, clock: &Clock) -> Permit {
        self.0.budget.permit(runtime, clock).await
    }

    /// A place under the load budget if one is free now.
    pub(crate) fn try_permit(&self, clock: &Clock) -> Option<Permit> {
        self.0.budget.try_permit(clock)
    }
}
