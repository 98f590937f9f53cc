//! The door for administrators: metrics, health and caches over HTTP.

mod access;
mod answer;
mod caches;
mod events;
mod extract;
mod health;
mod journal;
mod listener;
mod metrics;
mod site;

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use larder::Dependencies;
use serde_json::json;

pub use access::Access;
pub use health::Checks;
pub use listener::Listener;
pub use metrics::reference as metrics_reference;

use crate::build_info;
use crate::explanation::{Subject, explain};
use crate::serve::Server;
use answer::Failure;
use extract::Path;

/// Every page of the administration.
fn router(server: Arc<Server>, access: Access) -> Router {
    let access = Arc::new(access);
    let guarded = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .route("/caches", get(caches::list))
        .route("/caches/{name}", get(caches::show).delete(caches::clear))
        .route("/caches/{name}/keys/{key}", get(caches::show_key).delete(caches::remove_key))
        .route("/caches/{name}/keys/{key}/expire", axum::routing::post(caches::expire_key))
        .route("/explain/{key}", get(explain_key))
        .route("/journal", get(journal::show))
        .route("/journal/apply", axum::routing::post(journal::apply))
        .route("/dead-letters", get(journal::list))
        .route("/dead-letters/{id}", get(journal::show_letter).delete(journal::drop_letter))
        .route("/dead-letters/{id}/replay", axum::routing::post(journal::replay))
        .route("/events/{name}", axum::routing::post(events::accept))
        .layer(middleware::from_fn_with_state(Arc::clone(&access), access::require))
        .layer(middleware::from_fn_with_state(access, site::require_own));
    Router::new()
        // Whoever watches over the process has no password.
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .fallback(|| async { Failure::not_found("there is no such page; GET / lists them") })
        .method_not_allowed_fallback(|| async { Failure::method_not_allowed() })
        .with_state(server)
}

async fn index(State(server): State<Arc<Server>>) -> Json<serde_json::Value> {
    Json(json!({
        "name": "larder",
        "version": build_info::VERSION,
        "uptime_seconds": server.started_at.elapsed().as_secs(),
        "redis": server.redis_address.to_string(),
        "pages": {
            "/metrics": "counters for Prometheus",
            "/healthz": "whether the process is alive",
            "/readyz": "whether it can answer from its databases",
            "/caches": "every cache with its policy and statistics",
            "/caches/{name}": "one cache; DELETE empties it",
            "/caches/{name}/keys/{key}": "one key, with ?value=true its value; DELETE removes it",
            "/caches/{name}/keys/{key}/expire": "POST makes it stale",
            "/events/{name}": "POST tells of an event, with ?id= to be told once, ?preview=true to see what it touches",
            "/journal": "the writes that wait for their database",
            "/journal/apply": "POST gives the database all that waits, for up to ?wait_seconds=",
            "/dead-letters": "writes that the database refused, with ?after= and ?limit=",
            "/dead-letters/{id}": "one of them, with what was to be written; DELETE drops it",
            "/dead-letters/{id}/replay": "POST writes it again, or the body in its place",
            "/explain/{key}": "which cache a key belongs to, and why it is treated so",
        },
    }))
}

async fn metrics_page(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let accept: Vec<_> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = metrics::Format::accepted(&accept.join(","));
    let text = metrics::text(&server, format).map_err(|error| Failure::internal(&error))?;
    let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
    Ok((headers, text).into_response())
}

async fn explain_key(
    State(server): State<Arc<Server>>,
    Path(key): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let settings = server.settings.load_full();
    let served = server.registry.served();
    let subjects: Vec<_> = served.iter().map(|it| Subject::served(it, &settings)).collect();
    let graph = server.dependencies.as_ref().map(Dependencies::graph);
    let explanation = explain(&settings, &subjects, graph, &key);
    let mut value = serde_json::to_value(explanation).map_err(|error| Failure::internal(&error))?;
    let entry = server.registry.find(key.as_bytes()).and_then(|it| caches::entry(it, &key));
    value["entry"] = entry.unwrap_or_default();
    Ok(Json(value))
}
