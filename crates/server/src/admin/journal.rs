//! The pages about writes that wait, and about those that the database refused.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use larder::{BehindLane, LetterId};
use larder_core::{Action, DeadLetter, Error, ErrorKind, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Failure;
use super::extract::{Path, Query};
use crate::serve::Server;
use crate::serve::journal::{Journal, acknowledgement};

type Answer = Result<Json<Value>, Failure>;

/// Letters on one page, unless the request says otherwise.
const PAGE: usize = 100;
/// The most on one page.
const PAGE_MAX: usize = 1000;

/// What waits, and what was done.
pub(super) async fn show(State(server): State<Arc<Server>>) -> Answer {
    let journal = journal(&server)?;
    let it = journal.behind.statistics();
    let disk = journal.disk_statistics();
    Ok(Json(json!({
        "directory": journal.directory,
        "acknowledged": acknowledgement(journal.behind.profile().survives),
        "lag_seconds": it.oldest_age.as_secs_f64(),
        "depth_records": it.depth_records,
        "depth_bytes": it.depth_bytes,
        "dead_letters": it.journal.dead_letters,
        "accepted": it.accepted,
        "refused_full": it.refused_full,
        "applied": it.applied,
        "coalesced": it.coalesced,
        "written": it.written,
        "batches": it.batches,
        "retries": it.retries,
        "doubts": it.doubts,
        "buried": it.buried,
        "writable": it.journal.writable,
        "bytes": it.journal.bytes,
        "bytes_max": it.journal.bytes_max,
        "syncs": disk.commits,
        "disk_failures": disk.failures,
        "lanes": it.lanes.iter().map(lane).collect::<Vec<_>>(),
    })))
}

fn lane(lane: &BehindLane) -> Value {
    json!({
        "cache": lane.cache,
        "lane": lane.lane,
        "records": lane.records,
        "lag_seconds": lane.oldest_age.as_secs_f64(),
        "failing": lane.failing.as_ref().map(ToString::to_string),
        "stopped": lane.stopped.as_ref().map(ToString::to_string),
    })
}

/// How long a request waits.
#[derive(Deserialize)]
pub(super) struct ApplyQuery {
    wait_seconds: Option<f64>,
}

/// Gives the databases all that waits, now.
pub(super) async fn apply(
    State(server): State<Arc<Server>>,
    Query(query): Query<ApplyQuery>,
) -> Answer {
    let journal = journal(&server)?;
    let wait = query.wait_seconds.unwrap_or(30.0).clamp(0.0, 600.0);
    match tokio::time::timeout(Duration::from_secs_f64(wait), journal.behind.flush()).await {
        Ok(Ok(())) => Ok(Json(json!({ "applied": true }))),
        Ok(Err(error)) => Err(Failure::unavailable(&error)),
        Err(_) => Err(Failure::unavailable(&"not all is applied yet: it goes on")),
    }
}

/// Which letters a request asks for.
#[derive(Deserialize)]
pub(super) struct LettersQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// Dead letters, oldest first in each lane, without what was to be written.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Query(query): Query<LettersQuery>,
) -> Answer {
    let behind = &journal(&server)?.behind;
    let after = query.after.as_deref().map(id).transpose()?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let letters = behind.dead_letters(after, limit).await.map_err(|error| refusal(&error))?;
    let count = behind.statistics().journal.dead_letters;
    let letters: Vec<_> = letters.iter().map(describe).collect();
    Ok(Json(json!({ "dead_letters": letters, "count": count })))
}

/// One letter, with what was to be written.
pub(super) async fn show_letter(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Answer {
    let letter = letter(&server, &name).await?;
    let mut shown = describe(&letter);
    shown["write"] = match &letter.record.write.action {
        Action::Put(row) | Action::Patch(row) => serde_json::from_slice(row)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(row).into_owned())),
        Action::Add { field, by } => json!({ "field": &**field, "by": by.to_string() }),
        _ => Value::Null,
    };
    Ok(Json(shown))
}

/// Writes a letter again, or the body in its place: a row for a put, members for a patch.
pub(super) async fn replay(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    let letter = letter(&server, &name).await?;
    let instead = match (body.is_empty(), &letter.record.write.action) {
        (true, _) => None,
        (false, Action::Put(_)) => Some(Action::Put(body)),
        (false, Action::Patch(_)) => Some(Action::Patch(body)),
        (false, _) => {
            let error = "only a put or a patch can be replayed with other contents";
            return Err(Failure::bad_request(error.to_owned()));
        }
    };
    let write = |action| Write::new(letter.record.write.key.clone(), action);
    let behind = &journal(&server)?.behind;
    let replayed = behind.replay(id(&name)?, letter.record.version, instead.map(write)).await;
    match replayed.map_err(|error| refusal(&error))? {
        Some(_) => Ok(Json(json!({ "replayed": name }))),
        None => Err(no_such_letter(&name)),
    }
}

/// Drops a letter for good.
pub(super) async fn drop_letter(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Answer {
    let dropped = journal(&server)?.behind.drop_letters(&[id(&name)?]).await;
    match dropped.map_err(|error| refusal(&error))? {
        0 => Err(no_such_letter(&name)),
        _ => Ok(Json(json!({ "dropped": name }))),
    }
}

async fn letter(server: &Server, name: &str) -> Result<DeadLetter, Failure> {
    let letter = journal(server)?.behind.dead_letter(id(name)?).await;
    letter.map_err(|error| refusal(&error))?.ok_or_else(|| no_such_letter(name))
}

fn describe(letter: &DeadLetter) -> Value {
    let write = &letter.record.write;
    json!({
        "id": LetterId::from(letter).to_string(),
        "cache": &*letter.record.cache,
        "key": String::from_utf8_lossy(write.key.as_bytes()),
        "action": match write.action {
            Action::Put(_) => "put",
            Action::Remove => "remove",
            Action::Patch(_) => "patch",
            Action::Add { .. } => "add",
            _ => "unknown",
        },
        "cause": letter.death.cause.name(),
        "reason": &*letter.death.reason,
        "age_seconds": letter.record.age.as_secs_f64(),
    })
}

fn journal(server: &Server) -> Result<&Journal, Failure> {
    server.journal.as_ref().ok_or_else(|| {
        Failure::not_found("no cache writes behind: say write.mode = \"behind\" in a [caches.NAME]")
    })
}

fn id(name: &str) -> Result<LetterId, Failure> {
    name.parse().map_err(|error: Error| Failure::bad_request(error.to_string()))
}

fn no_such_letter(name: &str) -> Failure {
    Failure::not_found(format!("there is no dead letter {name}; GET /dead-letters lists them"))
}

fn refusal(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => Failure::bad_request(error.to_string()),
        _ => Failure::unavailable(error),
    }
}
