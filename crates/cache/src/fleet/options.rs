use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};

/// How a process takes part in a fleet.
#[derive(Clone, Debug)]
#[must_use]
pub struct FleetOptions {
    pub(super) staleness_bound: Duration,
    pub(super) timeout: Duration,
}

impl FleetOptions {
    /// For how long memory is trusted after the last sign of life of the bus. By
    /// so much may an answer from memory be behind what another node invalidated
    /// (C4). Default 5 s; at least 1 s, which is a few heartbeats.
    pub fn staleness_bound(mut self, bound: Duration) -> Self {
        self.staleness_bound = bound;
        self
    }

    /// How long announcing a change may take before it is left to the background
    /// and the caller gets an error. Default 1 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what| Err(Error::new(ErrorKind::Config, what));
        if self.staleness_bound < Duration::from_secs(1) {
            return wrong("a staleness bound this short is over between two heartbeats")
                .map_err(|error| error.remedy("give `staleness_bound` at least a second"));
        }
        if self.timeout.is_zero() {
            return wrong("a timeout of zero lets no change be announced")
                .map_err(|error| error.remedy("give `timeout` some hundred milliseconds"));
        }
        Ok(())
    }
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self { staleness_bound: Duration::from_secs(5), timeout: Duration::from_secs(1) }
    }
}
