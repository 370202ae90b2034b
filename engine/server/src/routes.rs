//! The table of routes, and what every handler holds.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    middleware::{from_fn, from_fn_with_state},
    routing::{delete, get, post},
};
use kickwheel_runtime::Engine;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{assets, bus, events, front, registry, runs, state},
    guard::{self, Hosts},
    listen::ServerConfig,
    refusal::Refusal,
};

/// Bytes of an event's or a workflow file's request. Larger data belongs into an artifact that the event names.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Bytes of any other request.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// What every handler holds: the engine and how this server was set up. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Inside>);

struct Inside {
    engine: Engine,
    config: ServerConfig,
    hosts: Hosts,
    ending: CancellationToken,
}

impl Door {
    /// `ending` is cancelled when the server is told to stop.
    pub fn new(engine: Engine, config: ServerConfig, hosts: Hosts, ending: CancellationToken) -> Self {
        Self(Arc::new(Inside { engine, config, hosts, ending }))
    }

    /// As served on `address`; for tests that need no socket.
    pub fn at(engine: Engine, config: ServerConfig, address: SocketAddr) -> Self {
        Self::new(engine, config, Hosts::of(address), CancellationToken::new())
    }

    /// The engine behind the door.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Names under which this server may be addressed.
    pub fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// What opens it.
    pub fn token(&self) -> &str {
        &self.0.config.token
    }

    /// This program, for the hook of a repository.
    pub fn binary(&self) -> &Path {
        &self.0.config.binary
    }

    /// Says that a hook has written to the spool.
    pub fn nudge(&self) {
        self.0.config.hook_nudge.notify_one();
    }

    /// Ready when the server is told to stop: long polls and streams end then.
    pub fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }
}

/// The whole server as a service: what [`crate::serve`] serves, and tests call directly.
pub fn router(door: Door) -> Router {
    let locked = Router::new()
        .nest("/api/v1", api())
        .route("/metrics", get(state::metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(door.clone(), guard::lock));
    let open = Router::new()
        .route("/", get(front::welcome))
        .route("/health", get(state::bare_health))
        .route("/runs/{id}", get(front::run))
        .method_not_allowed_fallback(wrong_method);
    open.fallback_service(locked.with_state(door.clone()))
        .layer(from_fn_with_state(door.clone(), guard::fence))
        .layer(from_fn(traced))
        .with_state(door)
}

fn api() -> Router<Door> {
    Router::new()
        .route("/projects", get(registry::projects))
        .route("/repos", get(registry::repos).post(registry::add_repo))
        .route("/repos/{name}", delete(registry::remove_repo))
        .route(
            "/workflows",
            get(registry::workflows).post(registry::apply).layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES)),
        )
        .route("/workflows/{name}", get(registry::workflow))
        .route("/workflows/{name}/pause", post(registry::pause))
        .route("/workflows/{name}/resume", post(registry::resume))
        .route("/workflows/{name}/runs", post(registry::start))
        .route("/runs", get(runs::list))
        .route("/runs/{id}", get(runs::get))
        .route("/runs/{id}/watch", get(runs::watch))
        .route("/runs/{id}/tasks", get(runs::tasks))
        .route("/runs/{id}/journal", get(runs::journal))
        .route("/runs/{id}/cancel", post(runs::cancel))
        .route("/runs/{id}/retry", post(runs::retry))
        .route("/runs/{id}/logs", get(runs::logs))
        .route("/events", get(events::list).post(events::accept).layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES)))
        .route("/events/{key}", get(events::get))
        .route("/hooks/git", post(events::git_hook))
        .route("/explain", get(events::explain))
        .route("/models", get(assets::models))
        .route("/models/{name}", get(assets::model))
        .route("/datasets", get(assets::datasets).post(assets::add_dataset))
        .route("/datasets/{name}", get(assets::dataset).delete(assets::remove_dataset))
        .route("/artifacts/{digest}", get(assets::artifact))
        .route("/bus", get(bus::get))
        .route("/bus/reset", post(bus::reset))
        .route("/cache/why", get(runs::cache_why))
        .route("/health", get(state::health))
        .route("/doctor", get(state::doctor))
        .route("/metrics", get(state::metrics))
}

async fn traced(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    response
}

async fn unknown_route(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "route_not_found",
        format!(
            "there is no route {:?}; the API is below /api/v1, and names with `/` in them are percent-encoded",
            uri.path()
        ),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not possible on {:?}; the `Allow` header says what is", uri.path()),
    )
}
