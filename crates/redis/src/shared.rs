//! What the store, the bus and the leases of one tier have in common.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Error, ErrorKind, Result, Version};
use redis::Value;

use crate::RedisOptions;
use crate::connector::{Open, text};
use crate::discovery::Discovery;
use crate::failure::{failed, is_other_epoch};
use crate::keys::Names;
use crate::links::{Failure, Links};
use crate::script::{Call, JOIN};
use crate::server_time::ServerTime;
use crate::state::{State, VERSION_MAX};
use crate::wakes::Wakes;

/// One tier.
pub(crate) struct Shared {
    pub(crate) options: RedisOptions,
    pub(crate) names: Names,
    pub(crate) links: Links,
    pub(crate) discovery: Discovery,
    pub(crate) time: ServerTime,
    pub(crate) wakes: Wakes,
    history: Mutex<History>,
    /// Held by who joins a new history.
    joining: tokio::sync::Mutex<()>,
    is_measuring: AtomicBool,
}

/// What this node knows of the shared clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    pub(crate) epoch: Option<u64>,
    /// No older version is put any more.
    pub(crate) floor: Version,
    /// The highest version heard of.
    pub(crate) known: Version,
}

impl Shared {
    pub(crate) fn new(
        options: RedisOptions,
        names: Names,
        links: Links,
        discovery: Discovery,
    ) -> Self {
        Self {
            time: ServerTime::new(options.clock.clone()),
            wakes: Wakes::new(discovery.clone(), names.wakes()),
            options,
            names,
            links,
            discovery,
            history: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            is_measuring: AtomicBool::new(false),
        }
    }

    pub(crate) fn history(&self) -> History {
        *self.lock()
    }

    /// Notes a version that was heard of.
    pub(crate) fn hear(&self, version: Version) {
        let mut history = self.lock();
        history.known = history.known.max(version);
    }

    /// Notes what a script said about the clock.
    pub(crate) fn note(&self, state: &State) {
        let mut history = self.lock();
        history.epoch = state.epoch.or(history.epoch);
        history.floor = history.floor.max(state.floor);
        history.known = history.known.max(state.version);
    }

    /// Joins the history that the server has now, if it is still the one under
    /// `failed` that this node knows. One round trip.
    ///
    /// # Errors
    /// As [`Links::ask`].
    pub(crate) async fn rejoin(&self, failed: Option<u64>) -> Result<()> {
        let _joining = self.joining.lock().await;
        if self.history().epoch != failed {
            return Ok(());
        }
        let call = self.join_call(false);
        let asked = self.time.now();
        let answer = self.links.call(&call).await?;
        self.joined(asked, answer).map(drop)
    }

    /// Joins over this connection. With `lost` the history of that epoch is over
    /// for everybody: the server has lost a part of it. One round trip.
    ///
    /// # Errors
    /// As [`Links::ask`].
    pub(crate) async fn join_over(&self, open: &mut Open, lost: Option<u64>) -> Result<State> {
        let _joining = self.joining.lock().await;
        let call = self.join_call(lost.is_some() && lost == self.history().epoch);
        let asked = self.time.now();
        let answer = call_over(open, &call).await?;
        self.joined(asked, answer)
    }

    /// Measures the server's clock in the background, if that was long ago.
    pub(crate) fn keep_time(self: &Arc<Self>) {
        if !self.time.is_old() || self.is_measuring.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = shared.measure().await {
                tracing::debug!(%error, "the clock of Redis could not be read");
            }
            shared.is_measuring.store(false, Ordering::Release);
        });
    }

    async fn measure(&self) -> Result<()> {
        let asked = self.time.now();
        let answer = self.links.ask(&redis::cmd("TIME"), &self.names.clock()).await?;
        let micros = read_time(&answer).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "Redis does not say what time it is")
        })?;
        self.time.learn(asked, micros, self.time.now());
        Ok(())
    }

    fn join_call(&self, is_lost: bool) -> Call {
        let history = self.history();
        let known = history.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        Call::new(&JOIN, vec![self.names.clock(), self.names.stream()])
            .number(fastrand::u64(1..))
            .argument(known)
            .number(history.known.get().min(VERSION_MAX))
            .argument(if is_lost { "lost" } else { "" })
    }

    fn joined(&self, asked: larder_core::Moment, answer: Value) -> Result<State> {
        let answered = self.time.now();
        let state = State::read(answer)?;
        self.time.learn(asked, state.micros, answered);
        self.note(&state);
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls a script over one connection.
///
/// # Errors
/// As [`Links::call`].
pub(crate) async fn call_over(open: &mut Open, call: &Call) -> Result<Value, Failure> {
    let mut answer = open.connection.send_packed_command(&call.by_digest()).await;
    answer = answer.and_then(Value::extract_error);
    if let Err(error) = &answer
        && error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
    {
        let again = open.connection.send_packed_command(&call.in_full()).await;
        answer = again.and_then(Value::extract_error);
    }
    answer.map_err(|error| Failure {
        is_other_epoch: is_other_epoch(&error),
        error: failed(&error, &open.endpoint.to_string()),
    })
}

/// Refuses versions with which scripts cannot compute.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub(crate) fn check_version(version: Version) -> Result<()> {
    if version.get() <= VERSION_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the version is higher than Redis can count")
        .with("version", version)
        .with("version_max", VERSION_MAX)
        .remedy("take versions from the bus"))
}

/// What `TIME` answers, in microseconds.
pub(crate) fn read_time(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    let [seconds, micros] = parts.as_slice() else { return None };
    let seconds: u64 = text(seconds)?.parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(text(micros)?.parse().ok()?)
}
