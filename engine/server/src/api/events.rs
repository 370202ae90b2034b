//! Events: sending one, reading them, what each meant, and the nudge of a repository's hook.

use axum::{Json, extract::State, http::StatusCode};
use kickwheel_runtime::bus::Receipt;
use kickwheel_schemas::{
    CloudEvent,
    api::{Accepted, EventView, Explanation, Page, Problem},
};
use serde::Deserialize;

use super::{Answer, Paging, json, limit};
use crate::{
    extract::{Body, Name, Params},
    refusal::Refusal,
    routes::Door,
};

/// The channel of events that come in through this API.
const CHANNEL: &str = "http";

/// `GET events`.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(Paging),
    responses((status = 200, body = Page<EventView>), (status = "default", body = Problem)))]
pub async fn list(State(door): State<Door>, Params(page): Params<Paging>) -> Answer<Json<Page<EventView>>> {
    json(door.engine().events(limit(page.limit)?, page.cursor).await)
}

/// `GET events/{key}`.
#[utoipa::path(get, path = "/api/v1/events/{key}", tag = "events", params(("key" = String, Path)),
    responses((status = 200, body = EventView), (status = "default", body = Problem)))]
pub async fn get(State(door): State<Door>, Name(key): Name) -> Answer<Json<EventView>> {
    json(door.engine().event(&key).await)
}

/// `POST events`: 202 once the event is durable, never before.
#[utoipa::path(post, path = "/api/v1/events", tag = "events", request_body = CloudEvent,
    responses((status = 202, body = Accepted), (status = "default", body = Problem)))]
pub async fn accept(State(door): State<Door>, Body(event): Body<CloudEvent>) -> Answer<(StatusCode, Json<Accepted>)> {
    event.check().map_err(|e| Refusal::invalid("event_invalid", format!("cannot {e}")))?;
    let engine = door.engine();
    let own_id = event.id.clone();
    let (id, duplicate) = match engine.accept_foreign(CHANNEL, event).await? {
        Receipt::Stored { key, duplicate } => (key.to_string(), duplicate),
        // It gets its key when it is read from the bus; until then its own id is what names it.
        Receipt::OnBus | Receipt::Spooled => (own_id, false),
    };
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, duplicate })))
}

/// `POST hooks/git`: a hook has written to the spool. The spool is the record and is also read without this; the nudge
/// only saves waiting for the next look.
#[utoipa::path(post, path = "/api/v1/hooks/git", tag = "events",
    responses((status = 202), (status = "default", body = Problem)))]
pub async fn git_hook(State(door): State<Door>) -> StatusCode {
    door.nudge();
    StatusCode::ACCEPTED
}

/// Which event, and for which workflow.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Question {
    event: Option<String>,
    workflow: Option<String>,
}

/// `GET explain`.
#[utoipa::path(get, path = "/api/v1/explain", tag = "events", params(Question),
    responses((status = 200, body = Explanation), (status = "default", body = Problem)))]
pub async fn explain(State(door): State<Door>, Params(question): Params<Question>) -> Answer<Json<Explanation>> {
    let event = question.event.as_deref().unwrap_or("latest");
    json(door.engine().explain(event, question.workflow.as_deref()).await)
}
