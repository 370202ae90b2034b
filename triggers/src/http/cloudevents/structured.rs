//! An event as one JSON object.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::CloudEvent;
use serde_json::{Map, Value};

use super::{super::body, DATA_BASE64, Refusal, is_json};

pub(super) fn event(value: Value) -> Result<CloudEvent, Refusal> {
    let invalid = |reason: String| Refusal::kept("event_invalid", reason);
    let Value::Object(mut members) = value else { return Err(invalid("an event must be a JSON object".to_owned())) };
    // An attribute that is null is one that is absent.
    members.retain(|_, value| !value.is_null());
    let required = ["specversion", "id", "source", "type"];
    for name in required.into_iter().chain(["subject", "time", "datacontenttype", "traceparent"]) {
        match members.get(name) {
            Some(Value::String(_)) => {}
            Some(_) => return Err(invalid(format!("the attribute {name} must be a text"))),
            None if required.contains(&name) => return Err(invalid(format!("the attribute {name} is missing"))),
            None => {}
        }
    }
    unpack(&mut members)?;
    serde_json::from_value(Value::Object(members)).map_err(|_| invalid("it is no CloudEvent".to_owned()))
}

/// Data in base64 that says it is JSON is JSON to whoever asks for its fields, however it was packed.
fn unpack(members: &mut Map<String, Value>) -> Result<(), Refusal> {
    let Some(encoded) = members.get(DATA_BASE64) else { return Ok(()) };
    let invalid = |reason: &str| Refusal::kept("event_invalid", format!("`{DATA_BASE64}`: {reason}"));
    if members.contains_key("data") {
        return Err(invalid("an event has this or `data`, not both"));
    }
    let bytes =
        encoded.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| invalid("it is not base64"))?;
    let media_type = members.get("datacontenttype").and_then(Value::as_str);
    if media_type.is_some() && is_json(media_type) {
        members.insert("data".to_owned(), body::json(&bytes)?);
        members.remove(DATA_BASE64);
    }
    Ok(())
}
