//! The door for senders: `/hooks/<trigger>` and `/events`.
//!
//! A webhook proves where it comes from by its signature, so none of the guards for people and pages is in its way; in
//! exchange its size, its rate, its time and the number of such requests at once are limited. In this order: the trigger
//! is looked up, the raw bytes are read, verified, and only then parsed, and the trigger's rate is taken from. 202 is
//! answered after every event is durable and names them; what is malformed but proved its origin is kept in quarantine.
//!
//! Whoever proves nothing holds up nobody: a body that trickles in loses its place to the next one, the places of those
//! who are dealt with are taken only once a body is there, and a request without proof takes from no trigger's rate, but
//! from that of its own address.
//!
//! What a delivery means is said by `triggers::http`, which the trigger's kind is given to: nothing is guessed from a
//! request.
//!
//! Look next at [`reading`] for bodies, [`limits`] for rates and counts, and at [`translation`] for what is shared with the replay of what was kept.

pub mod limits;
pub mod reading;
pub mod translation;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_runtime::{ApiError, Trigger, bus::Receipt};
use kickwheel_schemas::api::{DEFAULT_MAX_BYTES, Problem, TriggerConfig, WebhookLimits};
use kickwheel_triggers::http::{Headers, Refusal as Meaning, cloudevents::handshake::handshake};
use serde_json::Value;

use self::{
    limits::Outcome,
    reading::{BODY_TIMEOUT, network},
    translation::{SpeaksFor, Translation},
};
use crate::{extract::Name, guard::Peer, refusal::Refusal, routes::Door};

/// Requests of senders that are dealt with at a time.
pub const MAX_AT_ONCE: usize = 64;
/// How long a request that is there in full waits until it is dealt with.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// Requests of one address to one trigger that may fail to prove anything; a tenth of them may come at once.
const UNPROVED_PER_MINUTE: u32 = 120;
/// What a sender is told to wait when the server has no room for it, in seconds.
const BUSY_RETRY_S: u64 = 1;
/// What a sender is told to wait when the trigger is paused, in seconds.
const PAUSED_RETRY_S: u64 = 60;
/// Bytes of headers that are kept with a body in quarantine.
const MAX_KEPT_HEADER_BYTES: usize = 16 * 1024;
/// Says how a kept request had proved its origin. Senders' own headers of this name are not kept.
pub const PROVED: &str = "kickwheel-proved";
/// The value of [`PROVED`] of what was signed.
pub const BY_SIGNATURE: &str = "signature";
/// Where requests come from that use a token and no trigger.
pub const EVENTS_ORIGIN: &str = "api:/events";

/// `POST /hooks/{trigger}`.
#[utoipa::path(post, path = "/hooks/{name}", tag = "senders", params(("name" = String, Path)), security(()),
    request_body(content = Vec<u8>, description = "What the trigger's kind of sender sends, as it signed it."),
    responses((status = 202, body = Ids), (status = 200, body = Ids), (status = "default", body = Problem)))]
pub async fn receive(State(door): State<Door>, Name(name): Name, request: Request) -> Response {
    let found = match find(&door, &name).await {
        Ok(found) => found,
        Err(no) => {
            // Names that are not known to exist are made up by who asks: they are counted together.
            door.hooks().counts.count("", Outcome::Refused(no.counted));
            return no.response;
        }
    };
    let (outcome, response) = match deliver(&door, &found, request).await {
        Ok((_, Some(answer))) => (Outcome::Nothing, (StatusCode::OK, Json(answer)).into_response()),
        Ok((ids, None)) if ids.is_empty() => (Outcome::Nothing, (StatusCode::OK, Json(Ids { ids })).into_response()),
        Ok((ids, None)) => (Outcome::Accepted, (StatusCode::ACCEPTED, Json(Ids { ids })).into_response()),
        Err(no) => (Outcome::Refused(no.counted), no.response),
    };
    door.hooks().counts.count(&found.trigger.name, outcome);
    response
}

/// The keys of the events that were taken.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Ids {
    /// One per event, in the order of the request: its key, or its own id while it is on its way over the bus. None when
    /// the request meant nothing to us.
    pub ids: Vec<String>,
}

/// A request that was not taken.
struct No {
    /// A stable code.
    counted: &'static str,
    response: Response,
}

impl No {
    fn new(code: &'static str, response: impl IntoResponse) -> Self {
        Self { counted: code, response: response.into_response() }
    }

    fn later(status: StatusCode, code: &'static str, detail: &str, seconds: u64) -> Self {
        Self::new(code, later(status, code, detail, seconds))
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::new("not_durable", refusal)
    }
}

fn later(status: StatusCode, code: &str, detail: &str, seconds: u64) -> Response {
    let mut response = Refusal::new(status, code, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// A trigger that takes requests.
struct Found {
    trigger: Trigger,
    limits: WebhookLimits,
}

async fn find(door: &Door, name: &str) -> Result<Found, No> {
    let missing = || {
        let detail = format!("there is no webhook {name:?} here");
        No::new("trigger_not_found", Refusal::new(StatusCode::NOT_FOUND, "trigger_not_found", detail))
    };
    let trigger = match door.engine().trigger(name).await {
        Ok(trigger) => trigger,
        Err(ApiError::NotFound { .. }) => {
            door.hooks().known.forget(name);
            return Err(missing());
        }
        // While the database is away, what was known of the trigger a moment ago still leads to a bus that is there.
        Err(e @ ApiError::Unavailable { .. }) => match door.hooks().known.trigger(name) {
            Some(trigger) => trigger,
            None => return Err(Refusal::from(e).into()),
        },
        Err(e) => return Err(Refusal::from(e).into()),
    };
    let limits = trigger.config.as_ref().ok().and_then(|config| config.limits().cloned()).ok_or_else(missing)?;
    Ok(Found { trigger, limits })
}

/// The keys of its events, or what is to be answered to a question.
async fn deliver(door: &Door, found: &Found, request: Request) -> Result<(Vec<String>, Option<Value>), No> {
    let Found { trigger, limits } = found;
    let (hooks, name) = (door.hooks(), trigger.name.as_str());
    if trigger.paused {
        let detail = "this trigger is paused; nothing is taken";
        return Err(No::later(StatusCode::SERVICE_UNAVAILABLE, "trigger_paused", detail, PAUSED_RETRY_S));
    }
    let peer = request.extensions().get::<Peer>();
    if limits.unsigned {
        // Without a signature only this keeps a page in somebody's browser from sending.
        door.hosts().check_origin(request.headers(), peer).map_err(|no| No::new("foreign_origin", no))?;
    }
    let sender = network(door.hosts().client(request.headers(), peer));
    let place = hooks.arrivals.begin(name, sender);
    let headers = headers(request.headers()).with_query(request.uri().query());
    let body = request.into_body();
    let length = headers.get("content-length").and_then(|v| v.parse().ok());
    let bytes = reading::read(Some(&place), body, length, limits.max_bytes, BODY_TIMEOUT).await?;
    drop(place);
    let Ok(Ok(_permit)) = tokio::time::timeout(BUSY_PATIENCE, hooks.permits.acquire()).await else {
        let detail = "too many requests at once; try again";
        return Err(No::later(StatusCode::SERVICE_UNAVAILABLE, "busy", detail, BUSY_RETRY_S));
    };
    let translation = translation_of(door, trigger).await?;
    let speaks_for = translation.speaks_for();
    let (headers, bytes, meaning) = mean(translation, headers, bytes).await?;
    if let Err(no) = &meaning
        && no.status == 401
    {
        // Who has no secret takes from no trigger's rate. Nor is anything refused because of it that does prove itself: a
        // stranger may come from the very address of a forge that sends for everybody.
        hooks.strangers.take(&format!("{name} {sender}"), UNPROVED_PER_MINUTE).map_err(|wait| {
            too_many(&format!("more than {UNPROVED_PER_MINUTE} requests per minute from there proved nothing"), wait)
        })?;
        tracing::info!(trigger = name, code = no.code, "refused: {}", no.reason);
    } else {
        let most = limits.rate_per_minute;
        let detail = format!("more than {most} requests per minute, a tenth of them at once; the rest later");
        hooks.rates.take(name, most).map_err(|wait| too_many(&detail, wait))?;
    }
    match meaning {
        Ok((_, Some(answer))) => Ok((Vec::new(), Some(answer))),
        Ok((events, None)) => {
            let ids = accept(door, &format!("webhook:{name}"), speaks_for, events).await?;
            Ok((ids, None))
        }
        Err(no) => {
            let proved = if limits.unsigned { "unsigned" } else { BY_SIGNATURE };
            Err(refused(door, &format!("http:{name}"), proved, no, &headers, bytes).await)
        }
    }
}

fn too_many(detail: &str, wait: Duration) -> No {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    No::later(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail, seconds)
}

/// What the trigger's requests mean; while the database is away, as it was known last.
async fn translation_of(door: &Door, trigger: &Trigger) -> Result<Translation, No> {
    let known = &door.hooks().known;
    match translation::of_trigger(door, trigger, translation::Proof::Wanted).await {
        Ok(translation) => {
            known.keep(trigger, &translation);
            Ok(translation)
        }
        Err(refusal) => {
            let away = refusal.0.status == StatusCode::SERVICE_UNAVAILABLE.as_u16();
            if let Some(translation) = known.translation(&trigger.name).filter(|_| away) {
                return Ok(translation);
            }
            tracing::warn!(trigger = trigger.name, "its requests cannot be judged: {}", refusal.0.detail);
            let detail = "this trigger cannot verify anything now; `kickwheel doctor` says why";
            Err(No::later(StatusCode::SERVICE_UNAVAILABLE, "trigger_unready", detail, PAUSED_RETRY_S))
        }
    }
}

/// Makes the events durable. Each trigger is a channel of its own, since each tells a push by itself: two webhooks of one
/// repository are two reports of one push.
async fn accept(
    door: &Door,
    channel: &str,
    speaks_for: SpeaksFor,
    events: Vec<kickwheel_schemas::CloudEvent>,
) -> Result<Vec<String>, No> {
    let engine = door.engine();
    let mut ids = Vec::with_capacity(events.len());
    if speaks_for == SpeaksFor::Itself {
        // All are asked about first: a batch is taken as a whole or not at all.
        for event in &events {
            engine.refuse_reserved(event).await.map_err(untaken)?;
        }
    }
    // One after the other: events of one request may belong to one lane, whose order is theirs. What was taken before a
    // failure is recognised when the sender tries again.
    for event in events {
        let own_id = event.id.clone();
        let receipt = engine.accept(engine.default_project(), channel, event).await.map_err(untaken)?;
        ids.push(match receipt {
            Receipt::Stored { key, duplicate: _ } => key.to_string(),
            // It gets its key when it is read from the bus; until then its own id is what names it.
            Receipt::OnBus | Receipt::Spooled => own_id,
        });
    }
    Ok(ids)
}

/// The events of a request, or the answer to a question.
type Meant = (Vec<kickwheel_schemas::CloudEvent>, Option<Value>);

fn untaken(e: ApiError) -> No {
    let code = match &e {
        ApiError::Forbidden { code, detail: _ } => *code,
        ApiError::Unavailable { .. } => "not_durable",
        ApiError::Invalid { .. } | ApiError::NotFound { .. } | ApiError::Conflict { .. } => "event_invalid",
    };
    No::new(code, Refusal::from(e))
}

/// Translates away from the threads that answer others: a large body takes a while.
async fn mean(
    translation: Translation,
    headers: Headers,
    bytes: Bytes,
) -> Result<(Headers, Bytes, Result<Meant, Meaning>), No> {
    let translated = tokio::task::spawn_blocking(move || {
        let meaning = translation.translate(&headers, &bytes).and_then(|events| {
            // Who tells something asks nothing.
            let answer = if events.is_empty() { translation.answer(&headers, &bytes)? } else { None };
            Ok((events, answer))
        });
        (headers, bytes, meaning)
    });
    translated.await.map_err(|_| {
        No::later(StatusCode::SERVICE_UNAVAILABLE, "not_durable", "the request could not be judged", BUSY_RETRY_S)
    })
}

/// The answer to what was refused, after it was kept if it is worth it.
async fn refused(door: &Door, origin: &str, proved: &str, no: Meaning, headers: &Headers, bytes: Bytes) -> No {
    let (code, mut refusal) = (no.code, Refusal::from(no.clone()));
    if no.quarantine {
        let kept = door.engine().hold(origin, &no.to_string(), kept(headers, proved), bytes.to_vec()).await;
        match kept {
            Ok(id) => refusal.0.detail.push_str(&format!("; kept in quarantine as {id}")),
            // Answered 400 without having kept it, it would be lost.
            Err(e) => return Refusal::from(e).into(),
        }
    }
    No::new(code, refusal)
}

/// Headers that are kept with a body: none that could be a credential, and one of ours that says how it proved its origin.
fn kept(headers: &Headers, proved: &str) -> BTreeMap<String, String> {
    const SECRET: [&str; 9] =
        ["authorization", "cookie", "token", "secret", "signature", "api-key", "apikey", "password", "kickwheel-"];
    let mut room = MAX_KEPT_HEADER_BYTES;
    let mut kept = BTreeMap::new();
    for (name, value) in headers.iter() {
        let name = name.to_ascii_lowercase();
        let size = name.len() + value.len();
        if size <= room && !SECRET.iter().any(|part| name.contains(part)) {
            room -= size;
            kept.insert(name, value.to_owned());
        }
    }
    kept.insert(PROVED.to_owned(), proved.to_owned());
    kept
}

/// Headers as texts. Bytes that are no UTF-8 cannot be part of what we understand.
fn headers(map: &HeaderMap) -> Headers {
    map.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// `OPTIONS /hooks/{trigger}`: whether a sender of CloudEvents may send, and how much.
#[utoipa::path(options, path = "/hooks/{name}", tag = "senders", params(("name" = String, Path)), security(()),
    responses((status = 200), (status = "default", body = Problem)))]
pub async fn ask(State(door): State<Door>, Name(name): Name, map: HeaderMap) -> Response {
    let Found { trigger, limits } = match find(&door, &name).await {
        Ok(found) => found,
        Err(no) => return no.response,
    };
    if trigger.paused {
        let detail = "this trigger is paused; nothing is taken";
        return later(StatusCode::SERVICE_UNAVAILABLE, "trigger_paused", detail, PAUSED_RETRY_S);
    }
    if !matches!(trigger.config, Ok(TriggerConfig::Cloudevents(_) | TriggerConfig::Azure(_))) {
        let detail = "only triggers of the kinds cloudevents and azure are asked before they are sent to; send by POST";
        let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    granted(&headers(&map), Some(limits.rate_per_minute))
}

/// `OPTIONS /events`: the same for who holds a token.
#[utoipa::path(options, path = "/events", tag = "senders",
    responses((status = 200), (status = "default", body = Problem)))]
pub async fn ask_events(map: HeaderMap) -> Response {
    granted(&headers(&map), None)
}

fn granted(headers: &Headers, rate: Option<u32>) -> Response {
    match handshake(headers, rate) {
        Ok(granted) => {
            let mut response = StatusCode::OK.into_response();
            for (name, value) in granted.headers() {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("the specification's own names");
                response.headers_mut().insert(name, HeaderValue::from_str(&value).expect("checked by the handshake"));
            }
            response
        }
        Err(no) => Refusal::from(no).into_response(),
    }
}

/// `POST /events`: CloudEvents, one or a batch, from who holds a token.
#[utoipa::path(post, path = "/events", tag = "senders",
    request_body(content = Vec<u8>, description = "CloudEvents 1.0 over HTTP: binary, structured, or a batch."),
    responses((status = 202, body = Ids), (status = "default", body = Problem)))]
pub async fn events(State(door): State<Door>, request: Request) -> Response {
    let sent = async {
        let (headers, body) = (headers(request.headers()), request.into_body());
        let length = headers.get("content-length").and_then(|v| v.parse().ok());
        let bytes = reading::read(None, body, length, DEFAULT_MAX_BYTES, BODY_TIMEOUT).await?;
        let (headers, bytes, meaning) = mean(translation::of_events(), headers, bytes).await?;
        match meaning {
            Ok((events, _)) => accept(&door, "http", SpeaksFor::Itself, events).await,
            Err(no) => Err(refused(&door, EVENTS_ORIGIN, "token", no, &headers, bytes).await),
        }
    };
    match sent.await {
        Ok(ids) => (StatusCode::ACCEPTED, Json(Ids { ids })).into_response(),
        Err(no) => no.response,
    }
}

/// Headers of a kept input, for translating it once more.
pub fn headers_of(kept: &BTreeMap<String, String>) -> Headers {
    kept.iter().filter(|(name, _)| *name != PROVED).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_kept_and_nobody_forges_how_it_was_proved() {
        let sent: Headers = [
            ("Authorization", "Bearer a"),
            ("X-Gitlab-Token", "b"),
            ("Cookie", "c"),
            ("X-Hub-Signature-256", "d"),
            ("Kickwheel-Proved", "signature"),
            ("X-GitHub-Event", "push"),
            ("X-Long", &"x".repeat(MAX_KEPT_HEADER_BYTES)),
        ]
        .into_iter()
        .collect();
        let kept = kept(&sent, "unsigned");
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        assert_eq!(names, [PROVED, "x-github-event"]);
        assert_eq!(kept[PROVED], "unsigned");
        assert_eq!(headers_of(&kept).iter().count(), 1);
    }
}
