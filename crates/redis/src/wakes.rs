//! Who waits for a lease, and the connection that tells them it was given back.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::Result;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::discovery::Discovery;
use crate::failure::failed;

/// The wake-ups of one tier. The connection is opened when somebody first waits.
pub(crate) struct Wakes {
    discovery: Discovery,
    channel: Vec<u8>,
    waiting: Arc<Waiting>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<Vec<u8>, Arc<Notify>>>);

impl Wakes {
    pub(crate) fn new(discovery: Discovery, channel: Vec<u8>) -> Self {
        Self { discovery, channel, waiting: Arc::default(), task: Mutex::default() }
    }

    /// Starts listening, if nobody does.
    pub(crate) fn listen(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (discovery, channel) = (self.discovery.clone(), self.channel.clone());
        let waiting = Arc::clone(&self.waiting);
        let listening = tokio::spawn(async move {
            let mut backoff = Backoff::default();
            loop {
                match listen(&discovery, &channel, &waiting).await {
                    Ok(()) => backoff = Backoff::default(),
                    Err(error) => tracing::debug!(%error, "wake-ups of leases are not heard"),
                }
                backoff.pause().await;
            }
        });
        *task = Some(listening.abort_handle());
    }

    /// Waits for a wake-up of this lease, at most this long.
    pub(crate) async fn wait(&self, lease: Vec<u8>, at_most: Duration) {
        self.listen();
        let place = Place::take(&self.waiting, lease);
        let mut woken = pin!(place.notify.notified());
        woken.as_mut().enable();
        // Elapsed is an answer like the other.
        let _ = tokio::time::timeout(at_most, woken).await;
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// A place among those who wait; left when it is dropped.
struct Place<'a> {
    waiting: &'a Waiting,
    lease: Vec<u8>,
    notify: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a Waiting, lease: Vec<u8>) -> Self {
        let notify = Arc::clone(waiting.lock().entry(lease.clone()).or_default());
        Self { waiting, lease, notify }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        // The table's and this one: nobody else waits.
        if Arc::strong_count(&self.notify) == 2 {
            waiting.remove(&self.lease);
        }
    }
}

impl Waiting {
    fn wake(&self, lease: &[u8]) {
        if let Some(notify) = self.lock().get(lease) {
            notify.notify_waiters();
        }
    }

    fn wake_all(&self) {
        for notify in self.lock().values() {
            notify.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens until the connection ends.
async fn listen(discovery: &Discovery, channel: &[u8], waiting: &Waiting) -> Result<()> {
    let (mut open, mut pushes) = discovery.open_primary_pushed().await?;
    let subscribed = open.connection.subscribe(channel).await;
    subscribed.map_err(|error| failed(&error, &open.endpoint.to_string()))?;
    // What was told before this was not heard.
    waiting.wake_all();
    while let Some(PushInfo { kind, data }) = pushes.recv().await {
        match (kind, data.as_slice()) {
            (PushKind::Message, [_, Value::BulkString(lease)]) => waiting.wake(lease),
            (PushKind::Disconnection, _) => break,
            _ => {}
        }
    }
    Ok(())
}
