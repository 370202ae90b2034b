//! The table of routes, who may use each, and what every handler holds.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    middleware::{from_fn, from_fn_with_state},
    routing::{delete, get, options, post, put},
};
use kickwheel_runtime::Engine;
use kickwheel_schemas::api::Role::{Admin, Operator, Viewer};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{self, KnownTokens, needs, needs_everywhere},
    api::{assets, bus, events, front, quarantine, registry, runs, state, tokens, triggers},
    guard::{self, Hosts},
    hooks::{self, limits::Hooks},
    listen::ServerConfig,
    openapi,
    refusal::Refusal,
    tls::Tls,
};

/// Bytes of an event's, a workflow file's or a secret's request. Larger data belongs into an artifact that the event
/// names.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Bytes of any other request.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of a request that carries the body of another one: the largest that a webhook may have, in base64.
pub const MAX_EDIT_BYTES: usize = 36 * 1024 * 1024;

/// What every handler holds: the engine and how this server was set up. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Inside>);

struct Inside {
    engine: Engine,
    config: ServerConfig,
    hosts: Hosts,
    known_tokens: KnownTokens,
    hooks: Hooks,
    tls: Option<Arc<Tls>>,
    must_come_through_proxy: bool,
    ending: CancellationToken,
}

impl Door {
    /// For a listener on `address`. `ending` is cancelled when the server is told to stop.
    pub fn new(
        engine: Engine,
        config: ServerConfig,
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
        ending: CancellationToken,
    ) -> Self {
        let hosts = Hosts::of(address).named(config.hosts.clone()).behind(config.proxies.clone());
        let must_come_through_proxy = tls.is_none() && !address.ip().is_loopback();
        Self(Arc::new(Inside {
            engine,
            config,
            hosts,
            known_tokens: KnownTokens::default(),
            hooks: Hooks::default(),
            tls,
            must_come_through_proxy,
            ending,
        }))
    }

    /// As served on `address`; for tests that need no socket.
    pub fn at(engine: Engine, config: ServerConfig, address: SocketAddr) -> Self {
        Self::new(engine, config, address, None, CancellationToken::new())
    }

    /// The engine behind the door.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Names under which this server may be addressed.
    pub fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// The data folder's token, which opens everything.
    pub fn token(&self) -> &str {
        &self.0.config.token
    }

    /// API tokens that were found a moment ago.
    pub fn known_tokens(&self) -> &KnownTokens {
        &self.0.known_tokens
    }

    /// The state of the senders' door.
    pub fn hooks(&self) -> &Hooks {
        &self.0.hooks
    }

    /// The certificate in force, if this server speaks TLS itself.
    pub fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_deref()
    }

    /// Others can reach it, and it speaks no TLS itself.
    pub fn must_come_through_proxy(&self) -> bool {
        self.0.must_come_through_proxy
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
    // What senders may use lies beside the guards for people and pages; it has its own.
    let senders = Router::new()
        .route("/hooks/{name}", post(hooks::receive).options(hooks::ask))
        .method_not_allowed_fallback(wrong_method);
    senders
        .fallback_service(fenced(&door))
        .layer(from_fn_with_state(door.clone(), guard::wrap))
        .layer(from_fn(traced))
        .with_state(door)
}

fn fenced(door: &Door) -> Router {
    let locked = Router::new()
        .nest("/api/v1", api())
        .route("/events", needs(Operator, post(hooks::events)).merge(needs(Operator, options(hooks::ask_events))))
        .route("/metrics", needs_everywhere(Viewer, get(state::metrics)))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(door.clone(), access::lock));
    let open = Router::new()
        .route("/", get(front::welcome))
        .route("/health", get(state::bare_health))
        .route("/runs/{id}", get(front::run))
        .method_not_allowed_fallback(wrong_method);
    open.fallback_service(locked.with_state(door.clone()))
        .layer(from_fn_with_state(door.clone(), guard::fence))
        .with_state(door.clone())
}

fn api() -> Router<Door> {
    let document = || DefaultBodyLimit::max(MAX_DOCUMENT_BYTES);
    Router::new()
        .route("/projects", needs(Viewer, get(registry::projects)))
        .route("/repos", needs(Viewer, get(registry::repos)).merge(needs(Admin, post(registry::add_repo))))
        .route("/repos/{name}", needs(Admin, delete(registry::remove_repo)))
        .route(
            "/workflows",
            needs(Viewer, get(registry::workflows)).merge(needs(Admin, post(registry::apply).layer(document()))),
        )
        .route("/workflows/{name}", needs(Viewer, get(registry::workflow)))
        .route("/workflows/{name}/pause", needs(Operator, post(registry::pause)))
        .route("/workflows/{name}/resume", needs(Operator, post(registry::resume)))
        .route("/workflows/{name}/runs", needs(Operator, post(registry::start)))
        .route("/runs", needs(Viewer, get(runs::list)))
        .route("/runs/{id}", needs(Viewer, get(runs::get)))
        .route("/runs/{id}/watch", needs(Viewer, get(runs::watch)))
        .route("/runs/{id}/tasks", needs(Viewer, get(runs::tasks)))
        .route("/runs/{id}/journal", needs(Viewer, get(runs::journal)))
        .route("/runs/{id}/cancel", needs(Operator, post(runs::cancel)))
        .route("/runs/{id}/retry", needs(Operator, post(runs::retry)))
        .route("/runs/{id}/logs", needs(Viewer, get(runs::logs)))
        .route(
            "/events",
            needs(Viewer, get(events::list)).merge(needs(Operator, post(events::accept).layer(document()))),
        )
        .route("/events/{key}", needs(Viewer, get(events::get)))
        .route("/quarantine", needs(Viewer, get(quarantine::list)))
        .route("/quarantine/{id}", needs(Viewer, get(quarantine::get)))
        .route("/quarantine/{id}/replay", needs(Operator, post(quarantine::replay)))
        .route(
            "/quarantine/{id}/edit",
            needs(Operator, post(quarantine::edit).layer(DefaultBodyLimit::max(MAX_EDIT_BYTES))),
        )
        .route("/quarantine/{id}/drop", needs(Operator, post(quarantine::drop_held)))
        .route("/triggers", needs(Viewer, get(triggers::list)).merge(needs(Admin, post(triggers::add))))
        .route("/triggers/{name}", needs(Viewer, get(triggers::get)).merge(needs(Admin, delete(triggers::remove))))
        .route("/triggers/{name}/pause", needs(Admin, post(triggers::pause)))
        .route("/triggers/{name}/resume", needs(Admin, post(triggers::resume)))
        .route(
            "/tokens",
            needs_everywhere(Admin, get(tokens::tokens)).merge(needs_everywhere(Admin, post(tokens::create_token))),
        )
        .route("/tokens/{name}", needs_everywhere(Admin, delete(tokens::revoke_token)))
        .route("/secrets", needs(Admin, get(tokens::secrets)))
        .route(
            "/secrets/{name}",
            needs(Admin, put(tokens::set_secret).layer(document())).merge(needs(Admin, delete(tokens::remove_secret))),
        )
        .route("/rekey", needs_everywhere(Admin, post(tokens::rekey)))
        .route("/hooks/git", needs(Operator, post(events::git_hook)))
        .route("/explain", needs(Viewer, get(events::explain)))
        .route("/models", needs(Viewer, get(assets::models)))
        .route("/models/{name}", needs(Viewer, get(assets::model)))
        .route("/datasets", needs(Viewer, get(assets::datasets)).merge(needs(Admin, post(assets::add_dataset))))
        .route(
            "/datasets/{name}",
            needs(Viewer, get(assets::dataset)).merge(needs(Admin, delete(assets::remove_dataset))),
        )
        .route("/artifacts/{digest}", needs(Viewer, get(assets::artifact)))
        .route("/bus", needs_everywhere(Viewer, get(bus::get)))
        .route("/bus/reset", needs_everywhere(Admin, post(bus::reset)))
        .route("/cache/why", needs(Viewer, get(runs::cache_why)))
        .route("/health", needs(Viewer, get(state::health)))
        .route("/doctor", needs_everywhere(Viewer, get(state::doctor)))
        .route("/metrics", needs_everywhere(Viewer, get(state::metrics)))
        .route("/openapi.json", needs(Viewer, get(openapi::document)))
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
