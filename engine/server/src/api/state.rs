//! How the engine is: health, doctor, and metrics.
//!
//! Health answers 200 also while the engine is paused, with the state in the body: a supervisor that restarts what is not
//! 200 would only make a full disk or an absent database worse.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use kickwheel_schemas::api::Health;

use crate::{guard::is_authorized, routes::Door};

/// `GET /health`: the one thing to be had without the token, and then without the checks, which name folders and hosts.
pub async fn bare_health(State(door): State<Door>, headers: HeaderMap) -> Json<Health> {
    let mut health = door.engine().health().await;
    if !is_authorized(&headers, door.token()) {
        health.checks.clear();
    }
    Json(health)
}

/// `GET /api/v1/health`.
pub async fn health(State(door): State<Door>) -> Json<Health> {
    Json(door.engine().health().await)
}

/// `GET doctor`.
pub async fn doctor(State(door): State<Door>) -> Json<Health> {
    Json(door.engine().doctor().await)
}

/// `GET metrics`, in the text format of Prometheus.
pub async fn metrics(State(door): State<Door>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], door.engine().metrics().await)
}
