//! The OpenAPI document, made from the handlers' annotations and the wire types.
//!
//! A copy of it is committed as `schemas/json/openapi.json`, for who reads or generates; a test compares the two, and
//! another one the document with the router.

use axum::Json;
use kickwheel_schemas::api;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::api as handlers;

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Kickwheel",
        description = "Events in, runs out. Every error is a Problem; every listing is a page of items.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        handlers::assets::models,
        handlers::assets::model,
        handlers::assets::datasets,
        handlers::assets::dataset,
        handlers::assets::add_dataset,
        handlers::assets::remove_dataset,
        handlers::assets::artifact,
        handlers::bus::get,
        handlers::bus::reset,
        handlers::events::list,
        handlers::events::get,
        handlers::events::accept,
        handlers::events::git_hook,
        handlers::events::explain,
        handlers::quarantine::list,
        handlers::quarantine::get,
        handlers::quarantine::replay,
        handlers::quarantine::edit,
        handlers::quarantine::drop_held,
        handlers::registry::projects,
        handlers::registry::repos,
        handlers::registry::add_repo,
        handlers::registry::remove_repo,
        handlers::registry::workflows,
        handlers::registry::workflow,
        handlers::registry::apply,
        handlers::registry::pause,
        handlers::registry::resume,
        handlers::registry::start,
        handlers::runs::list,
        handlers::runs::get,
        handlers::runs::tasks,
        handlers::runs::watch,
        handlers::runs::journal,
        handlers::runs::cancel,
        handlers::runs::retry,
        handlers::runs::logs,
        handlers::runs::cache_why,
        handlers::state::bare_health,
        handlers::state::health,
        handlers::state::doctor,
        handlers::state::metrics,
        handlers::tokens::create_token,
        handlers::tokens::tokens,
        handlers::tokens::revoke_token,
        handlers::tokens::secrets,
        handlers::tokens::set_secret,
        handlers::tokens::remove_secret,
        handlers::tokens::rekey,
        handlers::triggers::list,
        handlers::triggers::add,
        handlers::triggers::get,
        handlers::triggers::remove,
        handlers::triggers::pause,
        handlers::triggers::resume,
        crate::hooks::receive,
        crate::hooks::ask,
        crate::hooks::ask_events,
        crate::hooks::events,
        document,
    ),
    components(schemas(api::TriggerConfig, api::PostReceive)),
    modifiers(&Tokens),
    security(("token" = [])),
)]
pub struct Document;

/// How a request says whose it is.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `kickwheel tokens create`, or the data folder's own."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// As it is committed: indented JSON with a line end.
pub fn text() -> String {
    let mut text = Document::openapi().to_pretty_json().expect("the document has string keys only");
    text.push('\n');
    text
}

/// `GET openapi.json`.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "state", responses((status = 200, body = serde_json::Value)))]
pub async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
