//! What is held for somebody to look at: list, show, edit, replay, drop.
//!
//! Here meet the engine, which holds it, and the translation of deliveries: what was kept because it could not be
//! understood is translated once more, by its trigger as it is now. Its origin is not proved a second time: it was before
//! it was kept, and the proof has expired by now.

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_runtime::{ApiError, Held, HeldInput};
use kickwheel_schemas::{
    CloudEvent,
    api::{DropHeld, EditHeld, Page, Problem, QuarantineDetail, QuarantineView, Resolved},
};
use serde::Deserialize;

use super::{Answer, json, limit};
use crate::{
    extract::{Body, Name, Params},
    hooks::{EVENTS_ORIGIN, PROVED, headers_of, translation},
    refusal::Refusal,
    routes::Door,
};

/// What to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Which {
    limit: Option<usize>,
    cursor: Option<String>,
    /// Also what somebody has dealt with.
    #[serde(default)]
    resolved: bool,
}

/// `GET quarantine`.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "quarantine", params(Which),
    responses((status = 200, body = Page<QuarantineView>), (status = "default", body = Problem)))]
pub async fn list(State(door): State<Door>, Params(which): Params<Which>) -> Answer<Json<Page<QuarantineView>>> {
    json(door.engine().quarantined(limit(which.limit)?, which.cursor, which.resolved).await)
}

/// `GET quarantine/{id}`.
#[utoipa::path(get, path = "/api/v1/quarantine/{id}", tag = "quarantine", params(("id" = String, Path)),
    responses((status = 200, body = QuarantineDetail), (status = "default", body = Problem)))]
pub async fn get(State(door): State<Door>, Name(id): Name) -> Answer<Json<QuarantineDetail>> {
    json(door.engine().quarantined_detail(&id).await)
}

/// `POST quarantine/{id}/replay`: as it is.
#[utoipa::path(post, path = "/api/v1/quarantine/{id}/replay", tag = "quarantine", params(("id" = String, Path)),
    responses((status = 200, body = Resolved), (status = "default", body = Problem)))]
pub async fn replay(State(door): State<Door>, Name(id): Name) -> Answer<Json<Resolved>> {
    match door.engine().held(&id).await? {
        Held::Event(row) => json(door.engine().requeue(&row).await),
        Held::Input(input) => {
            let events = meaning(&door, &input, None).await?;
            json(door.engine().resolve_input(&input, events, false).await)
        }
    }
}

/// `POST quarantine/{id}/edit`: with another body, as a new event that names its cause.
#[utoipa::path(post, path = "/api/v1/quarantine/{id}/edit", tag = "quarantine", params(("id" = String, Path)),
    request_body = EditHeld, responses((status = 200, body = Resolved), (status = "default", body = Problem)))]
pub async fn edit(State(door): State<Door>, Name(id): Name, Body(edit): Body<EditHeld>) -> Answer<Json<Resolved>> {
    let bytes = STANDARD
        .decode(&edit.body_base64)
        .map_err(|e| Refusal::invalid("body_invalid", format!("the new body is no base64: {e}")))?;
    match door.engine().held(&id).await? {
        Held::Event(row) => {
            let event: CloudEvent = serde_json::from_slice(&bytes)
                .map_err(|e| Refusal::invalid("event_invalid", format!("the new body is no CloudEvent: {e}")))?;
            json(door.engine().edit_event(&row, event).await)
        }
        Held::Input(input) => {
            let events = meaning(&door, &input, Some(&bytes)).await?;
            json(door.engine().resolve_input(&input, events, true).await)
        }
    }
}

/// `POST quarantine/{id}/drop`.
#[utoipa::path(post, path = "/api/v1/quarantine/{id}/drop", tag = "quarantine", params(("id" = String, Path)),
    request_body = DropHeld, responses((status = 200, body = Resolved), (status = "default", body = Problem)))]
pub async fn drop_held(State(door): State<Door>, Name(id): Name, Body(held): Body<DropHeld>) -> Answer<Json<Resolved>> {
    json(door.engine().drop_held(&id, &held.reason).await)
}

/// The events in a kept input, with another body if one is given.
async fn meaning(door: &Door, input: &HeldInput, body: Option<&[u8]>) -> Answer<Vec<CloudEvent>> {
    let translation = if let Some(name) = input.origin.strip_prefix("http:") {
        let trigger = door.engine().trigger(name).await?;
        let proof =
            if input.headers.contains_key(PROVED) { translation::Proof::Given } else { translation::Proof::Wanted };
        translation::of_trigger(door, &trigger, proof).await?
    } else if input.origin == EVENTS_ORIGIN {
        translation::of_events()
    } else if ["kafka:", "spool:"].iter().any(|way| input.origin.starts_with(way)) {
        return Ok(vec![door.engine().record_event(input, body)?]);
    } else {
        return Err(Refusal::from(ApiError::Conflict {
            code: "quarantine_origin",
            detail: format!("nothing here knows how to read what came from {}", input.origin),
        }));
    };
    let events = translation.translate(&headers_of(&input.headers), body.unwrap_or(&input.body))?;
    if events.is_empty() {
        return Err(Refusal::invalid("event_invalid", "it means nothing to us; `drop` forgets it"));
    }
    Ok(events)
}
