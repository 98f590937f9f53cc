//! Where loads run and how the engine waits, so that a model checker can take
//! the runtime's place.

use std::future::Future;

use larder_core::{Clock, Moment, Result};
#[cfg(not(shuttle))]
use larder_core::{Error, ErrorKind};
#[cfg(not(shuttle))]
use std::sync::Arc;
#[cfg(not(shuttle))]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(not(shuttle))]
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    given: Option<tokio::runtime::Handle>,
    /// Whether the upkeep runs on the runtime given: it ends with the runtime,
    /// which has no other way to say that it has ended.
    upkeep_runs: Arc<AtomicBool>,
}

#[cfg(not(shuttle))]
impl Runtime {
    /// The runtime given, or the one this is called on, if any.
    pub(crate) fn new(given: Option<tokio::runtime::Handle>) -> Self {
        let given = given.or_else(|| tokio::runtime::Handle::try_current().ok());
        Self { given, upkeep_runs: Arc::new(AtomicBool::new(false)) }
    }

    /// Whether a load can run at all.
    pub(crate) fn check(&self, clock: &Clock) -> Result<()> {
        match self.handle() {
            // Its timer was looked at when the cache was built.
            Some(_) if self.upkeep_runs() => Ok(()),
            Some(handle) => check_timer(&handle, clock),
            None if self.given.is_some() => {
                Err(Error::new(ErrorKind::Config, "the tokio runtime of this cache has ended")
                    .remedy("build it on a runtime that outlives it, or call from within another"))
            }
            None => Err(Error::new(ErrorKind::Config, "there is no tokio runtime to load on")
                .remedy("call from within a runtime, or give the builder one with `runtime`")),
        }
    }

    /// Whether the runtime given, if any, has the timer that loads need.
    pub(crate) fn check_timer(&self, clock: &Clock) -> Result<()> {
        self.given.as_ref().map_or(Ok(()), |handle| check_timer(handle, clock))
    }

    /// Runs a task to its end, whatever becomes of whoever started it. Does
    /// nothing where [`Runtime::check`] fails.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handle() {
            handle.spawn(task);
        }
    }

    /// Runs the upkeep of a cache on the runtime given, if any.
    pub(crate) fn spawn_upkeep(&self, upkeep: impl Future<Output = ()> + Send + 'static) {
        let Some(given) = &self.given else { return };
        self.upkeep_runs.store(true, Ordering::Release);
        let ends = UpkeepEnds(Arc::clone(&self.upkeep_runs));
        given.spawn(async move {
            let _ends = ends;
            upkeep.await;
        });
    }

    /// Whether expired entries are reclaimed in the background.
    pub(crate) fn upkeep_runs(&self) -> bool {
        self.upkeep_runs.load(Ordering::Acquire)
    }

    /// Waits until the clock shows `at`.
    pub(crate) async fn sleep_until(&self, clock: &Clock, at: Moment) {
        if let Some(manual) = clock.as_manual() {
            return manual.sleep_until(at).await;
        }
        let wait = at.since(clock.precise_now());
        let Some(handle) = self.handle() else {
            return std::future::pending().await;
        };
        let sleep = {
            let _entered = handle.enter();
            tokio::time::sleep(wait)
        };
        sleep.await;
    }

    /// The runtime given while it lives, else the one this is called on.
    fn handle(&self) -> Option<tokio::runtime::Handle> {
        let given = self.given.as_ref().filter(|_| self.upkeep_runs());
        given.cloned().or_else(|| tokio::runtime::Handle::try_current().ok())
    }
}

/// Dropped with the upkeep's task, also by a runtime that ends.
#[cfg(not(shuttle))]
struct UpkeepEnds(Arc<AtomicBool>);

#[cfg(not(shuttle))]
impl Drop for UpkeepEnds {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A timer cannot be asked for, only used: without one tokio panics.
#[cfg(not(shuttle))]
fn check_timer(handle: &tokio::runtime::Handle, clock: &Clock) -> Result<()> {
    let has_timer = || {
        let _entered = handle.enter();
        std::panic::catch_unwind(|| drop(tokio::time::sleep(std::time::Duration::ZERO))).is_ok()
    };
    if clock.as_manual().is_some() || has_timer() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "the tokio runtime has no timer, so no load can time out")
        .remedy("build the runtime with `enable_time` or `enable_all`"))
}

#[cfg(shuttle)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime;

#[cfg(shuttle)]
impl Runtime {
    pub(crate) fn new(_: Option<tokio::runtime::Handle>) -> Self {
        Self
    }

    pub(crate) fn check(&self, _: &Clock) -> Result<()> {
        Ok(())
    }

    pub(crate) fn check_timer(&self, _: &Clock) -> Result<()> {
        Ok(())
    }

    pub(crate) fn spawn_upkeep(&self, upkeep: impl Future<Output = ()> + Send + 'static) {
        drop(upkeep);
    }

    pub(crate) fn upkeep_runs(&self) -> bool {
        true
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(task));
    }

    pub(crate) async fn sleep_until(&self, clock: &Clock, at: Moment) {
        match clock.as_manual() {
            Some(manual) => manual.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
