//! Whether the process is alive, and whether it can do its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::join_all;
use larder::BreakerState;
use larder_core::Clock;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::serve::{OpenOrigin, Server};

/// How long a database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process is alive if it can say so.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// What was found when the databases were last asked whether they are there.
/// Whoever asks meanwhile gets the same answer, so that nobody can make the
/// server ask all the time.
#[derive(Debug, Default)]
pub struct Checks(Mutex<Option<(Instant, Vec<OriginHealth>)>>);

impl Checks {
    async fn of(&self, origins: &[OpenOrigin]) -> Vec<OriginHealth> {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = last.as_ref()
            && at.elapsed() < HOLDS
        {
            return found.clone();
        }
        let found = join_all(origins.iter().map(look_at)).await;
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

/// How long the answer of a database is believed.
const HOLDS: Duration = Duration::from_secs(1);

/// Ready if it is not draining and every database answers.
pub(super) async fn ready(State(server): State<Arc<Server>>) -> (StatusCode, Json<Value>) {
    let is_draining = server.is_draining();
    let origins = server.checks.of(&server.connected.origins).await;
    let is_ready = !is_draining && origins.iter().all(|origin| origin.error.is_none());
    let mut reasons = Vec::new();
    if is_draining {
        reasons.push("the server is stopping".to_owned());
    }
    for origin in &origins {
        if let Some(error) = &origin.error {
            reasons.push(format!("the database `{}` does not answer: {error}", origin.name));
        }
    }
    let states: serde_json::Map<_, _> = origins
        .into_iter()
        .map(|origin| {
            let state = json!({
                "reachable": origin.error.is_none(),
                "breaker": origin.breaker,
            });
            (origin.name, state)
        })
        .collect();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if is_ready { "ready" } else { "not ready" };
    (status, Json(json!({ "status": word, "reasons": reasons, "origins": states })))
}

#[derive(Clone, Debug)]
struct OriginHealth {
    name: String,
    error: Option<String>,
    breaker: &'static str,
}

async fn look_at(origin: &OpenOrigin) -> OriginHealth {
    let error = match tokio::time::timeout(PATIENCE, origin.database.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {PATIENCE:?}")),
    };
    let breaker = breaker_name(origin.guard.breaker_state(&Clock::monotonic()));
    OriginHealth { name: origin.name.clone(), error, breaker }
}

/// The state of a breaker as metrics and pages name it.
pub(super) fn breaker_name(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}
