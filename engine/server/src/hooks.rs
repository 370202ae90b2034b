//! The door for senders: `/hooks/<trigger>` and `/events`.
//!
//! A webhook proves where it comes from by its signature, so none of the guards for people and pages is in its way; in
//! exchange its size, its rate, its time and the number of such requests at once are limited. In this order: the trigger
//! is looked up, its rate is taken from, the raw bytes are read, verified, and only then parsed. 202 is answered after
//! every event is durable and names them; what is malformed but proved its origin is kept in quarantine.
//!
//! What a delivery means is said by `triggers::http`, which the trigger's kind is given to: nothing is guessed from a
//! request. Who has no secret cannot use up a sender's rate: a refused signature gives it back.
//!
//! Look next at [`limits`] for rates and counts, and at [`translation`] for what is shared with the replay of what was kept.

pub mod limits;
pub mod translation;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use kickwheel_runtime::{Trigger, bus::Receipt};
use kickwheel_schemas::api::{DEFAULT_MAX_BYTES, Problem, TriggerConfig, TriggerKind, WebhookLimits};
use kickwheel_triggers::http::{Headers, Refusal as Meaning, cloudevents::handshake::handshake};
use serde_json::Value;

use self::{limits::Outcome, translation::Translation};
use crate::{extract::Name, guard::Peer, refusal::Refusal, routes::Door};

/// Requests of senders that are dealt with at a time.
pub const MAX_AT_ONCE: usize = 64;
/// Time for a request's body to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// What a sender is told to wait when the server has no room for it, in seconds.
const BUSY_RETRY_S: u64 = 1;
/// What a sender is told to wait when the trigger is paused, in seconds.
const PAUSED_RETRY_S: u64 = 60;
/// Bytes of headers that are kept with a body in quarantine.
const MAX_KEPT_HEADER_BYTES: usize = 16 * 1024;
/// Says how a kept request had proved its origin. Senders' own headers of this name are not kept.
pub const PROVED: &str = "kickwheel-proved";
/// Where requests come from that use a token and no trigger.
pub const EVENTS_ORIGIN: &str = "api:/events";

/// `POST /hooks/{trigger}`.
#[utoipa::path(post, path = "/hooks/{name}", tag = "senders", params(("name" = String, Path)), security(()),
    request_body(content = Vec<u8>, description = "What the trigger's kind of sender sends, as it signed it."),
    responses((status = 202, body = Ids), (status = 200, body = Ids), (status = "default", body = Problem)))]
pub async fn receive(State(door): State<Door>, Name(name): Name, request: Request) -> Response {
    let Ok(_permit) = door.hooks().permits.try_acquire() else {
        door.hooks().counts.count(&name, Outcome::Refused("busy"));
        return later(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests at once; try again", BUSY_RETRY_S);
    };
    let (outcome, response) = match deliver(&door, &name, request).await {
        Ok((_, Some(answer))) => (Outcome::Nothing, (StatusCode::OK, Json(answer)).into_response()),
        Ok((ids, None)) if ids.is_empty() => (Outcome::Nothing, (StatusCode::OK, Json(Ids { ids })).into_response()),
        Ok((ids, None)) => (Outcome::Accepted, (StatusCode::ACCEPTED, Json(Ids { ids })).into_response()),
        Err(no) => (Outcome::Refused(no.counted), no.response),
    };
    // Names that do not exist are made up by who asks: they are counted together.
    let known = !matches!(outcome, Outcome::Refused("trigger_not_found"));
    door.hooks().counts.count(if known { &name } else { "" }, outcome);
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

async fn find(door: &Door, name: &str) -> Result<(Trigger, WebhookLimits), No> {
    let missing = || {
        let detail = format!("there is no webhook {name:?} here");
        No::new("trigger_not_found", Refusal::new(StatusCode::NOT_FOUND, "trigger_not_found", detail))
    };
    let trigger = match door.engine().trigger(name).await {
        Ok(trigger) => trigger,
        Err(kickwheel_runtime::ApiError::NotFound { .. }) => return Err(missing()),
        Err(e) => return Err(Refusal::from(e).into()),
    };
    let limits = trigger.config.as_ref().ok().and_then(|config| config.limits().cloned()).ok_or_else(missing)?;
    if trigger.paused {
        let detail = "this trigger is paused; nothing is taken";
        return Err(No::later(StatusCode::SERVICE_UNAVAILABLE, "trigger_paused", detail, PAUSED_RETRY_S));
    }
    Ok((trigger, limits))
}

/// The keys of its events, or what is to be answered to a question.
async fn deliver(door: &Door, name: &str, request: Request) -> Result<(Vec<String>, Option<Value>), No> {
    let (trigger, limits) = find(door, name).await?;
    if limits.unsigned {
        // Without a signature only this keeps a page in somebody's browser from sending.
        let peer = request.extensions().get::<Peer>();
        door.hosts().check_origin(request.headers(), peer).map_err(|no| No::new("foreign_origin", no))?;
    }
    let rates = &door.hooks().rates;
    rates.take(name, limits.rate_per_minute).map_err(|wait| {
        let detail = format!("more than {} requests per minute; the rest later", limits.rate_per_minute);
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        No::later(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", &detail, seconds)
    })?;
    let headers = headers(request.headers()).with_query(request.uri().query());
    let body = request.into_body();
    let length = headers.get("content-length").and_then(|v| v.parse().ok());
    let bytes = read(body, length, limits.max_bytes).await?;
    let translation = translation::of_trigger(door, &trigger, translation::Proof::Wanted).await.map_err(|refusal| {
        tracing::warn!(trigger = name, "its requests cannot be judged: {}", refusal.0.detail);
        let detail = "this trigger cannot verify anything now; `kickwheel doctor` says why";
        No::later(StatusCode::SERVICE_UNAVAILABLE, "trigger_unready", detail, PAUSED_RETRY_S)
    })?;
    let (headers, bytes, meaning) = mean(translation, headers, bytes).await?;
    let events = match meaning {
        Ok((events, None)) => events,
        Ok((_, Some(answer))) => return Ok((Vec::new(), Some(answer))),
        Err(no) => {
            if no.status == 401 {
                rates.give_back(name, limits.rate_per_minute);
                tracing::info!(trigger = name, code = no.code, "refused: {}", no.reason);
            }
            let proved = if limits.unsigned { "unsigned" } else { "signature" };
            return Err(refused(door, &format!("http:{name}"), proved, no, &headers, bytes).await);
        }
    };
    accept(door, channel(&trigger), events).await.map(|ids| (ids, None))
}

/// How the events came: what is pushed is told by several channels, and each has a name of its own.
fn channel(trigger: &Trigger) -> &'static str {
    match trigger.config.as_ref().map(TriggerConfig::kind) {
        Ok(TriggerKind::Cloudevents | TriggerKind::Kafka | TriggerKind::Cron) | Err(_) => "http",
        Ok(_) => "webhook",
    }
}

async fn accept(door: &Door, channel: &str, events: Vec<kickwheel_schemas::CloudEvent>) -> Result<Vec<String>, No> {
    let engine = door.engine();
    let mut ids = Vec::with_capacity(events.len());
    // One after the other: events of one request may belong to one lane, whose order is theirs. What was taken before a
    // failure is recognised when the sender tries again.
    for event in events {
        let own_id = event.id.clone();
        let receipt = engine.accept(engine.default_project(), channel, event).await.map_err(|e| {
            let refusal = Refusal::from(e);
            let code = if refusal.0.status == 503 { "not_durable" } else { "event_invalid" };
            No::new(code, refusal)
        })?;
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

/// The raw bytes, within their limits of size and time.
async fn read(body: Body, length: Option<u64>, max_bytes: u64) -> Result<Bytes, No> {
    let too_large = || {
        let detail = format!("the body is larger than {max_bytes} bytes, this trigger's limit");
        No::new("body_too_large", Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
    };
    if length.is_some_and(|n| n > max_bytes) {
        return Err(too_large());
    }
    let reading = async {
        let mut bytes = Vec::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| {
                No::new("body_unreadable", Refusal::invalid("body_unreadable", "the body ended before its end"))
            })?;
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    if let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, reading).await {
        return read;
    }
    let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
    Err(No::new("body_slow", Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_slow", detail)))
}

/// `OPTIONS /hooks/{trigger}`: whether a sender of CloudEvents may send, and how much.
#[utoipa::path(options, path = "/hooks/{name}", tag = "senders", params(("name" = String, Path)), security(()),
    responses((status = 200), (status = "default", body = Problem)))]
pub async fn ask(State(door): State<Door>, Name(name): Name, map: HeaderMap) -> Response {
    let (trigger, limits) = match find(&door, &name).await {
        Ok(found) => found,
        Err(no) => return no.response,
    };
    if !matches!(trigger.config, Ok(TriggerConfig::Cloudevents(_) | TriggerConfig::Azure(_))) {
        let detail = "only triggers of the kinds cloudevents and azure are asked before they are sent to; send by POST";
        let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    granted(&headers(&map), Some(limits.rate_per_minute))
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
        let bytes = read(body, length, DEFAULT_MAX_BYTES).await?;
        let (headers, bytes, meaning) = mean(translation::of_events(), headers, bytes).await?;
        match meaning {
            Ok((events, _)) => accept(&door, "http", events).await,
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

    #[tokio::test]
    async fn a_body_is_cut_off_at_its_limit_whatever_it_announces() {
        let read = |text: &'static str, length, limit| async move {
            read(Body::from(text), length, limit).await.map_err(|no| (no.counted, no.response.status().as_u16()))
        };
        assert_eq!(read("12345", Some(5), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read("12345", None, 4).await, Err(("body_too_large", 413)));
        assert_eq!(read("12345", Some(1), 4).await, Err(("body_too_large", 413)));
        assert_eq!(read("", Some(6), 5).await, Err(("body_too_large", 413)));
    }
}
