//! Structured mode: the value is the whole event, in CloudEvents' JSON format.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{Undecodable, is_json, quoted};

/// The member that carries data which is not JSON.
pub(super) const DATA_BASE64: &str = "data_base64";

/// Reads the value.
pub(super) fn read(payload: &[u8]) -> Result<CloudEvent, Undecodable> {
    let mut event: CloudEvent =
        serde_json::from_slice(payload).map_err(|error| Undecodable::Json(quoted(&error.to_string())))?;
    // In the JSON format an attribute that is null is one that is absent.
    event.extensions.retain(|_, value| !value.is_null());
    let Some(encoded) = event.extensions.get(DATA_BASE64) else { return Ok(event) };
    let wrong = |detail: &str| Undecodable::Attribute { name: DATA_BASE64.into(), detail: detail.into() };
    if !event.data.is_null() {
        return Err(wrong("an event has data or data_base64, not both"));
    }
    let Value::String(encoded) = encoded else { return Err(wrong("it is not a text")) };
    let bytes = STANDARD.decode(encoded).map_err(|_| wrong("it is not base64"))?;
    // Data that says it is JSON is JSON to whoever asks for its fields, however it was packed.
    if event.datacontenttype.as_deref().is_some_and(is_json) {
        event.data = serde_json::from_slice(&bytes).map_err(|error| Undecodable::Json(quoted(&error.to_string())))?;
        event.extensions.remove(DATA_BASE64);
    }
    Ok(event)
}
