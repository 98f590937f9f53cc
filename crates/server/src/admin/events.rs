//! Events of other services, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use larder::event_rules::{Event, Touched, Verdict};
use larder_core::{ErrorKind, Tag, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Failure;
use super::extract::{Path, Query};
use crate::events::UNDER_WAY;
use crate::serve::Server;

/// What a request may say besides its data.
#[derive(Deserialize)]
pub(super) struct EventQuery {
    id: Option<String>,
    #[serde(default)]
    preview: bool,
}

/// Acts upon an event, whose data is the body: JSON of up to [`larder::event_rules::EVENT_BYTES_MAX`]. Its id is
/// that of the query, or the header `ce-id` of CloudEvents.
pub(super) async fn accept(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let refuse = |error: &larder_core::Error| Failure::bad_request(error.to_string());
    let body = body.map_err(|rejection| {
        server.events.note_refused();
        Failure::bad_request(rejection.body_text())
    })?;
    let event = Event::from_json(&name, &body).map_err(|error| {
        server.events.note_refused();
        refuse(&error)
    })?;
    let id = query.id.as_deref().or_else(|| headers.get("ce-id").and_then(|id| id.to_str().ok()));
    let event = match id {
        Some(id) => event.id(id),
        None => event,
    };
    if query.preview {
        let touched = server.events.preview(&event).map_err(|error| refuse(&error))?;
        return Ok(Json(
            json!({ "would_touch": touched.iter().map(describe).collect::<Vec<_>>() }),
        ));
    }
    match server.events.accept(&event).await {
        Ok(Verdict::Applied { rules, keys, tags, caches }) => Ok(Json(json!({
            "outcome": if rules == 0 { "ignored" } else { "applied" },
            "rules": rules, "keys": keys, "tags": tags, "caches": caches,
        }))),
        Ok(Verdict::Repeated) => Ok(Json(json!({ "outcome": "repeated" }))),
        Ok(Verdict::UnderWay) => Err(Failure::unavailable(&UNDER_WAY)),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(refuse(&error)),
        Err(error) => Err(Failure::unavailable(&error)),
    }
}

fn describe(touched: &Touched) -> Value {
    json!({
        "keys": touched.keys,
        "tags": touched.tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
        "caches": touched.caches,
        "verb": if touched.verb == Verb::Remove { "remove" } else { "expire" },
        "gradual_seconds": touched.window.as_secs_f64(),
    })
}
