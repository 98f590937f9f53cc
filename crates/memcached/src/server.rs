//! One server: its connections, whether it lives, and what is known of it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use larder_core::{Error, Result};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::ServerClock;
use crate::connection::{Connection, End, Setup};
use crate::handshake::{self, Introduction};
use crate::pending::Answers;
use crate::protocol::Request;
use crate::tls::Tls;
use crate::{MemcachedOptions, ServerAddress, failure};

/// Silence after which the operating system asks whether the other end is there.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// One server of many.
pub(crate) struct Server {
    pub(crate) address: ServerAddress,
    options: Arc<MemcachedOptions>,
    tls: Option<Tls>,
    slots: Vec<Slot>,
    next_slot: AtomicUsize,
    failures: AtomicU32,
    failures_total: AtomicU64,
    is_dead: AtomicBool,
    /// The largest item; the server's default until it has said.
    item_bytes_max: Arc<AtomicUsize>,
    clock: Mutex<Option<(u64, Arc<ServerClock>)>>,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    session: ArcSwapOption<Session>,
    /// Held while connecting; the last failure, and when it came.
    connecting: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

/// A connection to a server that has introduced itself.
pub(crate) struct Session {
    connection: Connection,
    server: Weak<Server>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) incarnation: u64,
    pub(crate) introduction: Introduction,
}

impl Server {
    pub(crate) fn new(
        address: ServerAddress,
        options: Arc<MemcachedOptions>,
        tls: Option<Tls>,
    ) -> Arc<Self> {
        let slots = (0..options.connections_per_server).map(|_| Slot::default()).collect();
        Arc::new(Self {
            address,
            options,
            tls,
            slots,
            next_slot: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            failures_total: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            item_bytes_max: Arc::new(AtomicUsize::new(1 << 20)),
            clock: Mutex::new(None),
        })
    }

    /// Whether nothing is to be sent to it.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    /// The largest item, its key and the server's bookkeeping included.
    pub(crate) fn item_bytes_max(&self) -> usize {
        self.item_bytes_max.load(Ordering::Relaxed)
    }

    pub(crate) fn failures_total(&self) -> u64 {
        self.failures_total.load(Ordering::Relaxed)
    }

    /// A connection, made if there is none. Who comes while one is being made
    /// shares its success or failure.
    ///
    /// # Cancel safety
    /// A dropped wait gives up its own attempt to connect, and nothing else.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Arc<Session>> {
        if self.is_dead() {
            return Err(failure::dead(&self.address));
        }
        let number = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[number % self.slots.len()];
        if let Some(session) = slot.session.load_full().filter(|held| held.is_open()) {
            return Ok(session);
        }
        let came_at = Instant::now();
        let mut last_failure = slot.connecting.lock().await;
        if let Some(session) = slot.session.load_full().filter(|held| held.is_open()) {
            return Ok(session);
        }
        if let Some((_, error)) = last_failure.as_ref().filter(|(at, _)| *at >= came_at) {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(session) => {
                *last_failure = None;
                slot.session.store(Some(Arc::clone(&session)));
                Ok(session)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                self.note_failure();
                Err(error)
            }
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Arc<Session>> {
        let limit = self.options.connect_timeout;
        let session = timeout(limit, self.connect_patiently()).await.map_err(|_| {
            failure::too_slow(
                &self.address,
                "memcached took no connection in time",
                "connect_timeout",
            )
        })??;
        tokio::spawn(keep_alive(Arc::downgrade(&session), self.options.keep_alive));
        Ok(session)
    }

    async fn connect_patiently(self: &Arc<Self>) -> Result<Arc<Session>> {
        let unreachable = |error| failure::unreachable(&self.address, error);
        let address = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let keep_alive = socket2::TcpKeepalive::new().with_time(TCP_KEEP_ALIVE);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive).map_err(unreachable)?;
        let setup = Setup {
            server: self.address.clone(),
            response_timeout: self.options.response_timeout,
            value_bytes_max: Arc::clone(&self.item_bytes_max),
        };
        // Until then whoever connects counts the failure, and not the connection.
        let is_introduced = Arc::new(AtomicBool::new(false));
        let ended = {
            let (server, is_introduced) = (Arc::downgrade(self), Arc::clone(&is_introduced));
            move |end| {
                if let (End::Failed, true, Some(server)) =
                    (end, is_introduced.load(Ordering::Acquire), server.upgrade())
                {
                    server.note_failure();
                }
            }
        };
        let connection = match &self.tls {
            Some(tls) => Connection::open(tls.encrypt(stream, &self.address).await?, setup, ended),
            None => Connection::open(stream, setup, ended),
        };
        let introduction = handshake::introduce(&connection, &self.address, &self.options).await?;
        self.item_bytes_max.store(introduction.item_bytes_max, Ordering::Relaxed);
        let clock = self.clock_of(&introduction);
        let incarnation = introduction.incarnation;
        let server = Arc::downgrade(self);
        is_introduced.store(true, Ordering::Release);
        Ok(Arc::new(Session { connection, server, clock, incarnation, introduction }))
    }

    /// The one clock of this run of the server.
    fn clock_of(&self, introduction: &Introduction) -> Arc<ServerClock> {
        let answered_at = introduction.answered_at.unwrap_or_else(Instant::now);
        let mut known = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((incarnation, clock)) = known.as_ref()
            && *incarnation == introduction.incarnation
        {
            clock.observe(introduction.time_secs, answered_at);
            return Arc::clone(clock);
        }
        let clock = Arc::new(ServerClock::new(introduction.time_secs, answered_at));
        *known = Some((introduction.incarnation, Arc::clone(&clock)));
        clock
    }

    /// Counts a failure. One too many, and the server is dead until a probe
    /// succeeds.
    fn note_failure(self: &Arc<Self>) {
        self.failures_total.fetch_add(1, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        if failures >= self.options.failures_max && !self.is_dead.swap(true, Ordering::AcqRel) {
            tracing::warn!(server = %self.address, failures, "memcached counts as dead");
            tokio::spawn(probe_until_alive(Arc::downgrade(self), self.options.probe_pauses));
        }
    }

    fn note_success(&self) {
        self.failures.store(0, Ordering::Release);
    }

    /// Takes a connection that a probe made.
    async fn revive(&self, session: Arc<Session>) {
        let slot = &self.slots[0];
        *slot.connecting.lock().await = None;
        slot.session.store(Some(session));
        self.note_success();
        self.is_dead.store(false, Ordering::Release);
        tracing::info!(server = %self.address, "memcached is back");
    }
}

impl Session {
    /// Sends requests in one piece and waits for all answers: one round trip.
    pub(crate) async fn call(&self, requests: &[Request]) -> Result<Answers> {
        let answers = self.connection.call(requests).await?;
        if let Some(server) = self.server.upgrade() {
            server.note_success();
        }
        Ok(answers)
    }

    fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }
}

/// Asks for the time now and then, which also tells a connection that is dead
/// without saying so.
async fn keep_alive(session: Weak<Session>, pause: Duration) {
    loop {
        tokio::time::sleep(jittered(pause)).await;
        let Some(session) = session.upgrade().filter(|session| session.is_open()) else { return };
        let Ok(answers) = session.call(&[Request::statistics()]).await else { return };
        if let Some((time_secs, incarnation)) = handshake::clock_of(&answers.statistics)
            && incarnation == session.incarnation
        {
            session.clock.observe(time_secs, Instant::now());
        }
    }
}

/// Tries to connect with longer and longer pauses between.
async fn probe_until_alive(server: Weak<Server>, (pause, pause_max): (Duration, Duration)) {
    let mut pause = pause;
    loop {
        tokio::time::sleep(jittered(pause)).await;
        let Some(server) = server.upgrade() else { return };
        match server.connect().await {
            Ok(session) => return server.revive(session).await,
            Err(error) => {
                tracing::debug!(server = %server.address, %error, "memcached is still dead");
            }
        }
        pause = (pause * 2).min(pause_max);
    }
}

/// Between half and all of it, so that many nodes do not come at once.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + fastrand::f64() / 2.0)
}
