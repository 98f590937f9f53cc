//! How long to wait before a server is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(1000);

/// Doubles with every failure up to a second, and differs between nodes, so that
/// a fleet does not come back in one instant.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// Waits, between half of what is due and all of it.
    pub(crate) async fn pause(&mut self) {
        let due = self.0;
        self.0 = (due * 2).min(LONGEST);
        tokio::time::sleep(due.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}
