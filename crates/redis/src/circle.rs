//! Connections to servers of one role, each made anew when it ended.

use std::sync::atomic::{AtomicUsize, Ordering};

use larder_core::Result;
use redis::{Cmd, Value};

use crate::address::Endpoint;
use crate::connector::Open;
use crate::discovery::Discovery;
use crate::failure::{ends_connection, may_be_repeated};
use crate::links::Trouble;
use crate::reopening::{Live, Reopening};

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
    place: Reopening<Open>,
}

impl Circle {
    pub(crate) fn new(discovery: &Discovery, role: Role, count: usize) -> Self {
        let link = || Link { discovery: discovery.clone(), role, place: Reopening::new() };
        Self { links: (0..count).map(|_| link()).collect(), next: AtomicUsize::new(0) }
    }

    /// Opens the first connection.
    ///
    /// # Errors
    /// If no server can be used, why.
    pub(crate) async fn open(&self) -> Result<()> {
        self.links[0].live().await.map(drop)
    }

    /// Closes connections to other servers.
    pub(crate) fn keep_only(&self, server: &Endpoint) {
        for link in &self.links {
            link.place.close_unless(|open| open.endpoint == *server);
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
        let mut live = self.live().await.map_err(Trouble::Closed)?;
        let answer = live.open.connection.send_packed_command(command).await;
        answer.and_then(Value::extract_error).map_err(|error| {
            if ends_connection(&error) {
                self.place.close(&live);
            }
            Trouble::Driver(error, live.open.endpoint.to_string())
        })
    }

    /// The connection, opened if there is none.
    async fn live(&self) -> Result<Live<Open>> {
        self.place.get(self.open()).await
    }

    async fn open(&self) -> Result<Open> {
        let opened = match self.role {
            Role::Primary => self.discovery.open_primary().await,
            Role::Replica => self.discovery.open_replica().await,
        };
        match &opened {
            Ok(open) => {
                tracing::debug!(server = %open.endpoint, role = ?self.role, "connected to Redis");
            }
            Err(error) => tracing::debug!(%error, role = ?self.role, "no connection to Redis"),
        }
        opened
    }
}
