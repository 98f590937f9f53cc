//! A connection that is opened when it is first needed, and anew when it ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{Error, Result};

/// For how long after a failed attempt none is made: the servers' time to come
/// back, and the callers' to be told at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A place for a connection, which many use at a time.
pub(crate) struct Reopening<C> {
    live: Mutex<Option<Live<C>>>,
    /// Held by who opens it; the last failure and when it was.
    opening: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

/// A connection that was open when it was asked for.
#[derive(Clone)]
pub(crate) struct Live<C> {
    pub(crate) open: C,
    /// Tells the connections of one place apart.
    number: u64,
}

impl<C: Clone> Reopening<C> {
    /// An empty place.
    pub(crate) fn new() -> Self {
        Self { live: Mutex::new(None), opening: tokio::sync::Mutex::new(None) }
    }

    /// The connection, which `opened` makes if there is none. Of many who need it one
    /// opens it.
    ///
    /// # Errors
    /// If it cannot be opened, or could not a moment ago, why.
    pub(crate) async fn get(&self, opened: impl Future<Output = Result<C>>) -> Result<Live<C>> {
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        let mut failure = self.opening.lock().await;
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        if let Some((error, at)) = &*failure
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match opened.await {
            Ok(open) => {
                let live = Live { open, number: fastrand::u64(..) };
                *self.live() = Some(live.clone());
                *failure = None;
                Ok(live)
            }
            Err(error) => {
                *failure = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    /// Forgets a connection that has ended, unless another one has taken its place.
    pub(crate) fn close(&self, ended: &Live<C>) {
        self.close_if(|live| live.number == ended.number);
    }

    /// Forgets a connection that is not as it should be.
    pub(crate) fn close_unless(&self, is_right: impl FnOnce(&C) -> bool) {
        self.close_if(|live| !is_right(&live.open));
    }

    fn close_if(&self, is_to_go: impl FnOnce(&Live<C>) -> bool) {
        let mut live = self.live();
        if live.as_ref().is_some_and(is_to_go) {
            *live = None;
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live<C>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
