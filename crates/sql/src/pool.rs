use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::DatabaseOptions;

/// What a pool holds and has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// The most connections it opens.
    pub max: usize,
    /// Connections in use now.
    pub in_use: usize,
    /// Connections open and idle now.
    pub idle: usize,
    /// Loads waiting for a connection now.
    pub waiting: usize,
    /// Connections opened so far.
    pub opened: u64,
    /// Connections thrown away because a statement on them failed, ran out of
    /// time or was cancelled.
    pub discarded: u64,
    /// Loads refused because no connection became free in time.
    pub timed_out: u64,
}

/// Opens connections for a [`Pool`].
pub(crate) trait Connector: Send + Sync + 'static {
    type Connection: Send + 'static;

    /// Opens one connection, ready for statements. The pool limits the time.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Says good-bye to the server and closes the connection.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

/// Connections to one server.
///
/// A connection goes back to the pool only when the statement on it ended: a
/// load that is dropped in the middle drops its connection too, so the pool
/// never hands out one with half an answer in its pipe. A failure to connect is
/// reported at once and as it is, instead of as a timeout of the pool.
pub(crate) struct Pool<C: Connector>(Arc<Shared<C>>);

struct Shared<C: Connector> {
    connector: C,
    label: String,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Idle<C::Connection>>>,
    is_closed: AtomicBool,
    max: usize,
    connect_timeout: Duration,
    acquire_timeout: Duration,
    idle_timeout: Duration,
    waiting: AtomicUsize,
    opened: AtomicU64,
    discarded: AtomicU64,
    timed_out: AtomicU64,
}

struct Idle<C> {
    connection: C,
    since: Instant,
}

/// A connection taken from a pool. Dropping it closes it; [`Lease::release`]
/// gives it back.
pub(crate) struct Lease<C: Connector> {
    connection: Option<C::Connection>,
    shared: Arc<Shared<C>>,
    idle_for: Option<Duration>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connector> Pool<C> {
    /// An empty pool; it opens connections when they are asked for.
    pub(crate) fn new(
        connector: C,
        label: String,
        max_connections: u32,
        options: &DatabaseOptions,
    ) -> Self {
        let max =
            usize::try_from(max_connections).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let pool = Self(Arc::new(Shared {
            connector,
            label,
            permits: Arc::new(Semaphore::new(max)),
            idle: Mutex::new(VecDeque::new()),
            is_closed: AtomicBool::new(false),
            max,
            connect_timeout: options.connect_timeout,
            acquire_timeout: options.acquire_timeout,
            idle_timeout: options.idle_timeout,
            waiting: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        }));
        pool.spawn_reaper();
        pool
    }

    pub(crate) fn label(&self) -> &str {
        &self.0.label
    }

    /// A connection: an idle one, else a new one.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue or closes the
    /// connection being opened.
    pub(crate) async fn acquire(&self) -> Result<Lease<C>> {
        let shared = &self.0;
        let permit = self.permit().await?;
        // The newest is used first, so that those above the need grow old and
        // are closed.
        let idle = shared.idle().pop_back();
        let idle_for = idle.as_ref().map(|idle| idle.since.elapsed());
        let connection = match idle {
            Some(idle) => idle.connection,
            None => self.open().await?,
        };
        Ok(Lease {
            connection: Some(connection),
            shared: Arc::clone(shared),
            idle_for,
            _permit: permit,
        })
    }

    /// Closes the idle connections and refuses new loads; connections in use are
    /// closed when they come back.
    pub(crate) async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle());
        close_all::<C>(idle).await;
    }

    pub(crate) fn statistics(&self) -> PoolStatistics {
        let shared = &self.0;
        PoolStatistics {
            max: shared.max,
            in_use: shared.max.saturating_sub(shared.permits.available_permits()),
            idle: shared.idle().len(),
            waiting: shared.waiting.load(Ordering::Relaxed),
            opened: shared.opened.load(Ordering::Relaxed),
            discarded: shared.discarded.load(Ordering::Relaxed),
            timed_out: shared.timed_out.load(Ordering::Relaxed),
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let shared = &self.0;
        let permits = Arc::clone(&shared.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::start(&shared.waiting);
        match tokio::time::timeout(shared.acquire_timeout, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::new(ErrorKind::ShuttingDown, "the database was closed")
                .with("database", &shared.label)),
            Err(_) => {
                shared.timed_out.fetch_add(1, Ordering::Relaxed);
                // The database is not to blame: it was not asked.
                Err(Error::new(ErrorKind::Overloaded, "no database connection became free")
                    .with("database", &shared.label)
                    .with("pool_size", shared.max)
                    .with("waited", format!("{:?}", shared.acquire_timeout))
                    .remedy("raise pool_size, or see which statements are slow"))
            }
        }
    }

    async fn open(&self) -> Result<C::Connection> {
        let shared = &self.0;
        let connecting = shared.connector.connect();
        let connection = match tokio::time::timeout(shared.connect_timeout, connecting).await {
            Ok(connection) => connection?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "the database does not answer")
                    .with("database", &shared.label)
                    .with("connect_timeout", format!("{:?}", shared.connect_timeout))
                    .remedy("see that it runs and can be reached, or raise connect_timeout"));
            }
        };
        shared.opened.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// Closes connections that were idle for too long, for as long as the pool
    /// lives.
    fn spawn_reaper(&self) {
        let weak = Arc::downgrade(&self.0);
        let pause = (self.0.idle_timeout / 2).max(Duration::from_millis(10));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(shared) = weak.upgrade() else { return };
                if shared.is_closed.load(Ordering::Acquire) {
                    return;
                }
                let old = shared.take_old();
                drop(shared);
                close_all::<C>(old).await;
            }
        });
    }
}

impl<C: Connector> Shared<C> {
    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle<C::Connection>>> {
        // Nothing panics while it holds the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_old(&self) -> VecDeque<Idle<C::Connection>> {
        let mut idle = self.idle();
        // The front was given back first.
        let fresh = idle.iter().position(|idle| idle.since.elapsed() < self.idle_timeout);
        let old = fresh.unwrap_or(idle.len());
        let kept = idle.split_off(old);
        std::mem::replace(&mut idle, kept)
    }
}

impl<C: Connector> Lease<C> {
    /// Whether it had been idle in the pool: then the server may have closed it
    /// long ago, and a failure of it says nothing about the server now.
    pub(crate) const fn is_reused(&self) -> bool {
        self.idle_for.is_some()
    }

    /// How long it had been idle in the pool; nothing for a new one.
    pub(crate) fn idle_for(&self) -> Duration {
        self.idle_for.unwrap_or_default()
    }

    /// The connector and the connection that it opened.
    pub(crate) fn parts(&mut self) -> (&C, &mut C::Connection) {
        let connection = self.connection.as_mut();
        (
            &self.shared.connector,
            connection.expect("a lease holds its connection until it is given back"),
        )
    }

    /// Gives the connection back. Only for one whose statement ended.
    pub(crate) fn release(mut self) {
        if let Some(connection) = self.connection.take()
            && !self.shared.is_closed.load(Ordering::Acquire)
        {
            self.shared.idle().push_back(Idle { connection, since: Instant::now() });
        }
    }
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            self.shared.discarded.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a waiting load, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn start(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn close_all<C: Connector>(idle: VecDeque<Idle<C::Connection>>) {
    /// Saying good-bye to a server that hangs is not worth more.
    const FAREWELL_MAX: Duration = Duration::from_secs(1);
    for Idle { connection, .. } in idle {
        let _ = tokio::time::timeout(FAREWELL_MAX, C::close(connection)).await;
    }
}
