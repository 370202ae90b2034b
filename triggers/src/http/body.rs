//! Reading bodies: JSON within limits, and fields of it that are there, of the right type, or refused by name.

use kickwheel_schemas::{CloudEvent, Digest, cloudevent::MAX_ATTRIBUTE_BYTES};
use serde_json::Value;

use super::{Headers, MAX_EVENT_BYTES, Refusal};

/// Deepest nesting that is taken. What is stored is read again with a limit of 128, the event's own levels included.
const MAX_DEPTH: usize = 64;

/// Longest reason that repeats what a sender wrote.
const MAX_REASON_CHARS: usize = 300;

/// The body as JSON.
pub(super) fn json(bytes: &[u8]) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        // Never the parser's own words: they may repeat a part of the body.
        let reason = match error.classify() {
            serde_json::error::Category::Eof if bytes.is_empty() => "the body is empty".to_owned(),
            _ => format!("the body is not JSON: see line {}, column {}", error.line(), error.column()),
        };
        Refusal::kept("json_invalid", reason)
    })?;
    check_depth(&value)?;
    Ok(value)
}

pub(super) fn check_depth(value: &Value) -> Result<(), Refusal> {
    if depth_fits(value, MAX_DEPTH) {
        return Ok(());
    }
    Err(Refusal::kept("json_invalid", format!("the body is nested deeper than {MAX_DEPTH} levels")))
}

fn depth_fits(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left > 0 && items.iter().all(|item| depth_fits(item, left - 1)),
        Value::Object(members) => left > 0 && members.values().all(|value| depth_fits(value, left - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// JSON that may come as the field `payload` of a form.
pub(super) fn json_or_form(headers: &Headers, bytes: &[u8]) -> Result<Value, Refusal> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let form = match headers.media_type() {
        Some(media_type) => media_type == FORM,
        None => bytes.starts_with(b"payload="),
    };
    if !form {
        return json(bytes);
    }
    let mut fields = url::form_urlencoded::parse(bytes).filter(|(name, _)| name == "payload").map(|(_, value)| value);
    match (fields.next(), fields.next()) {
        (Some(payload), None) => json(payload.as_bytes()),
        (None, _) => Err(Refusal::kept("shape_invalid", "the form has no field `payload`")),
        (Some(_), Some(_)) => Err(Refusal::kept("shape_invalid", "the form has several fields `payload`")),
    }
}

/// The value at a path such as `repository.owner.login`; null counts as absent.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// A text that must be there and not be empty.
pub(super) fn text<'v>(value: &'v Value, path: &str) -> Result<&'v str, Refusal> {
    let text = at(value, path).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| Refusal::shape(path, "a text"))
}

/// A text that may be absent, null or empty.
pub(super) fn maybe_text<'v>(value: &'v Value, path: &str) -> Result<Option<&'v str>, Refusal> {
    match at(value, path) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Refusal::shape(path, "a text or null")),
    }
}

/// What is for people only: of another type, it counts as absent.
pub(super) fn shown<'v>(value: &'v Value, path: &str) -> Option<&'v str> {
    at(value, path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

pub(super) fn maybe_bool(value: &Value, path: &str) -> Result<Option<bool>, Refusal> {
    match at(value, path) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(Refusal::shape(path, "true or false")),
    }
}

/// A list; absent and null are empty.
pub(super) fn list<'v>(value: &'v Value, path: &str) -> Result<&'v [Value], Refusal> {
    match at(value, path) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Refusal::shape(path, "a list")),
    }
}

/// An id that senders write as a number or as a text.
pub(super) fn id(value: &Value, path: &str) -> Option<String> {
    match at(value, path)? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// A number of things that may be absent.
pub(super) fn maybe_count(value: &Value, path: &str) -> Result<Option<u64>, Refusal> {
    match at(value, path) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| Refusal::shape(path, "a whole number")),
    }
}

/// A payload that must be an object.
pub(super) fn object(payload: &Value) -> Result<(), Refusal> {
    if payload.is_object() { Ok(()) } else { Err(Refusal::kept("shape_invalid", "the payload must be a JSON object")) }
}

/// The id of a delivery: what the header says, else the digest of the body, which is the same for each redelivery.
pub(super) fn delivery_id(headers: &Headers, name: &str, body: &[u8]) -> String {
    match headers.get(name) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => digest_id(body),
    }
}

/// The id of a delivery whose sender gives it none.
pub(super) fn digest_id(body: &[u8]) -> String {
    Digest::of(body).to_string()
}

/// What the engine needs of every event: its attributes, no control characters in them, a bounded size.
pub(super) fn check_event(event: &CloudEvent) -> Result<(), Refusal> {
    // What it says may repeat a sender's text, of any length.
    let short = |error: String| error.chars().take(MAX_REASON_CHARS).collect::<String>();
    event.check().map_err(|error| Refusal::kept("event_invalid", short(format!("failed to {error}"))))?;
    let optional = [
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_deref()),
        ("datacontenttype", event.datacontenttype.as_deref()),
        ("traceparent", event.traceparent.as_deref()),
    ];
    let required = [("id", event.id.as_str()), ("source", &event.source), ("type", &event.ty)];
    for (name, value) in required.into_iter().chain(optional.into_iter().filter_map(|(n, v)| Some((n, v?)))) {
        if value.len() > MAX_ATTRIBUTE_BYTES || value.chars().any(char::is_control) {
            let reason =
                format!("the attribute {name} is longer than {MAX_ATTRIBUTE_BYTES} bytes or holds control characters");
            return Err(Refusal::kept("event_invalid", reason));
        }
    }
    let bytes = serde_json::to_vec(event).expect("an event has string keys only").len();
    if bytes > MAX_EVENT_BYTES {
        let reason = format!("an event has {bytes} bytes, at most {MAX_EVENT_BYTES} are taken: refer to large data");
        return Err(Refusal::new(413, "event_too_large", reason));
    }
    Ok(())
}
