//! Connections to servers of one role, each made anew when it ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{Error, Result};
use redis::{Cmd, Value};

use crate::address::Endpoint;
use crate::connector::Open;
use crate::discovery::Discovery;
use crate::failure::{ends_connection, may_be_repeated};
use crate::links::Trouble;

/// For how long after a failed attempt none is made: the servers' time to come
/// back, and the callers' to be told at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Primary,
    Replica,
}

/// Connections to servers of one role, used in turn.
pub(crate) struct Circle {
    links: Vec<Link>,
    next: AtomicUsize,
}

/// One connection.
struct Link {
    discovery: Discovery,
    role: Role,
    live: Mutex<Option<Live>>,
    /// Held by who opens it; the last failure and when it was.
    opening: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

#[derive(Clone)]
struct Live {
    open: Open,
    /// Tells the connections of one link apart.
    number: u64,
}

impl Circle {
    pub(crate) fn new(discovery: &Discovery, role: Role, count: usize) -> Self {
        let link = || Link {
            discovery: discovery.clone(),
            role,
            live: Mutex::new(None),
            opening: tokio::sync::Mutex::new(None),
        };
        Self { links: (0..count).map(|_| link()).collect(), next: AtomicUsize::new(0) }
    }

    /// Opens the first connection.
    ///
    /// # Errors
    /// If no server can be used, why.
    pub(crate) async fn open(&self) -> Result<()> {
        self.links[0].open().await.map(drop)
    }

    /// Closes connections to other servers.
    pub(crate) fn keep_only(&self, server: &Endpoint) {
        for link in &self.links {
            let mut live = link.live();
            if live.as_ref().is_some_and(|live| live.open.endpoint != *server) {
                *live = None;
            }
        }
    }

    /// Sends over the next connection. What met a connection that had ended goes
    /// out once more over a new one: everything sent from here may happen twice.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let link = &self.links[turn % self.links.len()];
        match link.send(command).await {
            Err(Trouble::Driver(error, _)) if may_be_repeated(&error) => link.send(command).await,
            answer => answer,
        }
    }
}

impl Link {
    async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        let Live { mut open, number } = self.open().await.map_err(Trouble::Closed)?;
        let answer = open.connection.send_packed_command(command).await;
        answer.and_then(Value::extract_error).map_err(|error| {
            if ends_connection(&error) {
                self.close(number);
            }
            Trouble::Driver(error, open.endpoint.to_string())
        })
    }

    /// The connection, opened if there is none. Of many who need it one opens it.
    async fn open(&self) -> Result<Live> {
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
        let opened = match self.role {
            Role::Primary => self.discovery.open_primary().await,
            Role::Replica => self.discovery.open_replica().await,
        };
        match opened {
            Ok(open) => {
                tracing::debug!(server = %open.endpoint, role = ?self.role, "connected to Redis");
                let live = Live { open, number: fastrand::u64(..) };
                *self.live() = Some(live.clone());
                *failure = None;
                Ok(live)
            }
            Err(error) => {
                tracing::debug!(%error, role = ?self.role, "no connection to Redis");
                *failure = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    /// Forgets a connection, unless another one has taken its place.
    fn close(&self, number: u64) {
        let mut live = self.live();
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
