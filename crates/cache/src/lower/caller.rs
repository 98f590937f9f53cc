//! Calls of what is beyond this process, each under a breaker and a timeout.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use larder_core::{Clock, ErrorKind, Result};

use crate::origin::{Breaker, BreakerState, BreakerSwitch};
use crate::runtime::Runtime;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Where calls run.
#[derive(Clone, Copy)]
pub(crate) struct Grounds<'e> {
    pub(crate) runtime: &'e Runtime,
    pub(crate) clock: &'e Clock,
}

/// Calls one store, or one that gives leases.
pub(super) struct Caller {
    timeout: Duration,
    breaker: BreakerSwitch,
    failures: AtomicU64,
}

impl Caller {
    pub(super) fn new(timeout: Duration, breaker: Breaker) -> Self {
        Self { timeout, breaker: BreakerSwitch::new(breaker), failures: AtomicU64::new(0) }
    }

    /// Calls that failed or took too long.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn breaker(&self, clock: &Clock) -> BreakerState {
        self.breaker.state(clock.now())
    }

    /// One call, unless the breaker is open. `None` if it failed.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T>>,
        Grounds { runtime, clock }: Grounds<'_>,
    ) -> Option<T> {
        let ticket = self.breaker.enter(clock.now()).ok()?;
        let deadline = clock.precise_now() + self.timeout;
        // It is foreign code: what panics has failed.
        let call = std::pin::pin!(AssertUnwindSafe(call).catch_unwind());
        let sleep = std::pin::pin!(runtime.sleep_until(clock, deadline));
        let answer = match select(call, sleep).await {
            Either::Left((Ok(answer), _)) => answer.map_err(|error| error.kind()),
            Either::Left((Err(_), _)) => Err(ErrorKind::Panicked),
            Either::Right(_) => Err(ErrorKind::Timeout),
        };
        // That a call is refused for good is no sign of death.
        let is_sick = matches!(
            answer,
            Err(ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Panicked)
        );
        self.breaker.settle(ticket, is_sick, clock.now());
        if answer.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer.ok()
    }
}
