use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::ServerProcess;

/// A place for a server that is there or not: what a test can do to its process,
/// also while others use the server.
#[derive(Default)]
pub(crate) struct ProcessSlot(Mutex<Option<ServerProcess>>);

impl ProcessSlot {
    /// Starts a server in the empty place, as [`ServerProcess::try_start`] does.
    pub(crate) fn try_start(
        &self,
        command: &mut Command,
        log: &Path,
        is_ready: impl Fn() -> bool,
    ) -> Result<(), String> {
        let process = ServerProcess::try_start(command, log, is_ready)?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Calls `start`, which is to fill the place, if it is empty or its server has
    /// ended.
    ///
    /// # Panics
    /// If that fails, with what it says.
    pub(crate) fn revive(&self, start: impl FnOnce() -> Result<(), String>) {
        if !self.is_running()
            && let Err(error) = start()
        {
            panic!("the server does not start again {error}");
        }
    }

    /// # Panics
    /// If there is none.
    pub(crate) fn id(&self) -> u32 {
        self.process().as_ref().expect("the server runs").id()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(ServerProcess::is_running)
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.process().as_mut().is_some_and(|process| process.is_running() && !process.is_paused())
    }

    pub(crate) fn pause(&self) {
        self.process().as_ref().inspect(|process| process.pause());
    }

    pub(crate) fn resume(&self) {
        self.process().as_ref().inspect(|process| process.resume());
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        drop(self.process().take());
    }

    /// SIGTERM, and SIGKILL if that does not end it.
    pub(crate) fn stop(&self) {
        if let Some(process) = self.process().take() {
            process.stop(Signal::TERM);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<ServerProcess>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
