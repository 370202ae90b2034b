//! Standard Webhooks: any sender that signs as <https://www.standardwebhooks.com> says.
//!
//! The specification fixes the signature and recommends the body `{"type", "timestamp", "data"}`. Such a body is an event
//! of that type with that data; a body without a `type` means nothing to us. A trigger without a configured source has
//! [`SOURCE`].

use kickwheel_runtime::reserved::refuse_reserved_type;
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body,
    signature::{self, KeyForm, STANDARD_HEADERS},
};

/// `source` of events where none is configured.
pub const SOURCE: &str = "/hooks/standard-webhooks";

/// The event of a delivery, if it is one.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    if let Some(secrets) = config.verification.secrets() {
        signature::verify_standard(STANDARD_HEADERS, KeyForm::Encoded, &secrets, headers, bytes, config.now)?;
    }
    let mut payload = body::json(bytes)?;
    let Some(ty) = body::maybe_text(&payload, "type")?.map(str::to_owned) else { return Ok(Vec::new()) };
    refuse_reserved_type(&ty)?;
    let time = body::shown(&payload, "timestamp").filter(|text| chrono::DateTime::parse_from_rfc3339(text).is_ok());
    let time = time.map(str::to_owned);
    let data = payload.get_mut("data").map(Value::take).unwrap_or_default();
    let source = config.source.as_deref().unwrap_or(SOURCE);
    let mut event = CloudEvent::new(source, body::delivery_id(headers, STANDARD_HEADERS.id, bytes), ty, data);
    event.time = time;
    Ok(vec![event])
}
