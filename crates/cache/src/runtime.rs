//! Where loads run and how the engine waits, so that a model checker can take
//! the runtime's place.

use std::future::Future;

use larder_core::{Clock, Moment, Result};
#[cfg(not(shuttle))]
use larder_core::{Error, ErrorKind};

#[cfg(not(shuttle))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime(Option<tokio::runtime::Handle>);

#[cfg(not(shuttle))]
impl Runtime {
    /// The runtime given, or the one this is called on, if any.
    pub(crate) fn new(given: Option<tokio::runtime::Handle>) -> Self {
        Self(given.or_else(|| tokio::runtime::Handle::try_current().ok()))
    }

    /// Whether a load can run at all.
    pub(crate) fn check(&self) -> Result<()> {
        match self.handle() {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Config, "there is no tokio runtime to load on")
                .remedy("call from within a runtime, or give the builder one with `runtime`")),
        }
    }

    /// Runs a task to its end, whatever becomes of whoever started it. Does
    /// nothing where [`Runtime::check`] fails.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handle() {
            handle.spawn(task);
        }
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

    fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.0.clone().or_else(|| tokio::runtime::Handle::try_current().ok())
    }
}

#[cfg(shuttle)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime;

#[cfg(shuttle)]
impl Runtime {
    pub(crate) fn new(_: Option<tokio::runtime::Handle>) -> Self {
        Self
    }

    pub(crate) fn check(&self) -> Result<()> {
        Ok(())
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
