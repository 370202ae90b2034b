//! What is held for somebody to look at: list, show, edit, replay, drop.
//!
//! Here meet the engine, which holds it, and the translation of deliveries: what was kept because it could not be
//! understood is translated once more, by its trigger as it is now. Its origin is not proved a second time: it was before
//! it was kept, and the proof has expired by now. An edit loses that proof, and so does what proved less than its trigger
//! demands by now: there an admin has to vouch.

use axum::{Extension, Json, extract::State, http::StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_runtime::{ApiError, Bearer, Held, HeldInput};
use kickwheel_schemas::{
    CloudEvent,
    api::{DropHeld, EditHeld, Page, Problem, QuarantineDetail, QuarantineView, Resolved, Role},
    payload::OUR_TYPES,
};
use serde::Deserialize;

use super::{Answer, json, limit};
use crate::{
    extract::{Body, Name, Params},
    hooks::{
        BY_SIGNATURE, EVENTS_ORIGIN, PROVED, headers_of,
        translation::{self, SpeaksFor, Translation},
    },
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
pub async fn replay(
    State(door): State<Door>,
    Extension(by): Extension<Bearer>,
    Name(id): Name,
) -> Answer<Json<Resolved>> {
    match door.engine().held(&id).await? {
        Held::Event(row) => json(door.engine().requeue(&row).await),
        Held::Input(input) => {
            let events = meaning(&door, &by, &input, None).await?;
            json(door.engine().resolve_input(&input, events, false).await)
        }
    }
}

/// `POST quarantine/{id}/edit`: with another body, as a new event that names its cause.
#[utoipa::path(post, path = "/api/v1/quarantine/{id}/edit", tag = "quarantine", params(("id" = String, Path)),
    request_body = EditHeld, responses((status = 200, body = Resolved), (status = "default", body = Problem)))]
pub async fn edit(
    State(door): State<Door>,
    Extension(by): Extension<Bearer>,
    Name(id): Name,
    Body(edit): Body<EditHeld>,
) -> Answer<Json<Resolved>> {
    let bytes = STANDARD
        .decode(&edit.body_base64)
        .map_err(|e| Refusal::invalid("body_invalid", format!("the new body is no base64: {e}")))?;
    match door.engine().held(&id).await? {
        Held::Event(row) => {
            let event: CloudEvent = serde_json::from_slice(&bytes)
                .map_err(|e| Refusal::invalid("event_invalid", format!("the new body is no CloudEvent: {e}")))?;
            if [&row.event.ty, &event.ty].iter().any(|ty| ty.starts_with(OUR_TYPES)) {
                vouched(&by, "what it says is taken for what our own triggers say")?;
            }
            json(door.engine().edit_event(&row, event).await)
        }
        Held::Input(input) => {
            let events = meaning(&door, &by, &input, Some(&bytes)).await?;
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
async fn meaning(door: &Door, by: &Bearer, input: &HeldInput, body: Option<&[u8]>) -> Answer<Vec<CloudEvent>> {
    let engine = door.engine();
    if let Some(name) = input.origin.strip_prefix("http:") {
        let trigger = engine.trigger(name).await?;
        let translation = translation::of_trigger(door, &trigger, translation::Proof::Given).await?;
        let proved = input.headers.get(PROVED).map(String::as_str);
        let is_unsigned = trigger.config.as_ref().ok().and_then(|c| c.limits()).is_some_and(|limits| limits.unsigned);
        if proved != Some(BY_SIGNATURE) && !is_unsigned {
            vouched(by, "it came without the signature that its trigger demands by now")?;
        }
        if body.is_some() && translation.speaks_for() == SpeaksFor::Origin {
            vouched(by, "an edited request is not the one that was signed, and its trigger speaks for its origin")?;
        }
        return translated(door, &translation, input, body).await;
    }
    if input.origin == EVENTS_ORIGIN {
        return translated(door, &translation::of_events(), input, body).await;
    }
    if input.origin.starts_with("kafka:") {
        return Ok(vec![engine.record_event(input, body).await?]);
    }
    if input.origin.starts_with("spool:") {
        let event = engine.spooled_event(input, body)?;
        if body.is_some() {
            vouched(by, "what waited to be sent came from our own triggers")?;
        }
        return Ok(vec![event]);
    }
    Err(Refusal::from(ApiError::Conflict {
        code: "quarantine_origin",
        detail: format!("nothing here knows how to read what came from {}", input.origin),
    }))
}

async fn translated(
    door: &Door,
    translation: &Translation,
    input: &HeldInput,
    body: Option<&[u8]>,
) -> Answer<Vec<CloudEvent>> {
    let events = translation.translate(&headers_of(&input.headers), body.unwrap_or(&input.body))?;
    if events.is_empty() {
        return Err(Refusal::invalid("event_invalid", "it means nothing to us; `drop` forgets it"));
    }
    if translation.speaks_for() == SpeaksFor::Itself {
        for event in &events {
            door.engine().refuse_reserved(event).await?;
        }
    }
    Ok(events)
}

/// Refuses who is no admin: nothing but their word says that this is true.
fn vouched(by: &Bearer, why: &str) -> Answer<()> {
    if by.role >= Role::Admin {
        return Ok(());
    }
    let detail = format!("{why}; an admin has to do this, or `drop` forgets it");
    Err(Refusal::new(StatusCode::FORBIDDEN, "quarantine_unproved", detail))
}
