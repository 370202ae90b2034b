//! MLflow's webhooks: what changed in its model registry.
//!
//! Format: MLflow's `mlflow/webhooks`: `{entity, action, timestamp, data}`, signed as Standard Webhooks says but under headers
//! of its own and with the secret's own bytes as the key. Its models are not ours, so its events keep types of their own:
//! `org.mlflow.ENTITY.ACTION`, such as `org.mlflow.model_version.created`, with its `data`.

use kickwheel_schemas::CloudEvent;

use super::{
    Headers, Refusal, SourceConfig, body, forge,
    signature::{self, KeyForm, StandardHeaders},
};

/// `source` of events where none is configured.
pub const SOURCE: &str = "/hooks/mlflow";
/// What the types of the events begin with.
pub const TYPES: &str = "org.mlflow.";
/// MLflow's names for what Standard Webhooks has.
pub const HEADERS: StandardHeaders =
    StandardHeaders { id: "x-mlflow-delivery-id", timestamp: "x-mlflow-timestamp", signature: "x-mlflow-signature" };
/// Longest name of an entity or action.
const MAX_NAME_BYTES: usize = 64;

/// The event of a delivery, if it is one.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    if let Some(secrets) = config.verification.secrets() {
        signature::verify_standard(HEADERS, KeyForm::Raw, &secrets, headers, bytes, config.now)?;
    }
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let Some(entity) = body::maybe_text(&payload, "entity")? else { return Ok(Vec::new()) };
    let action = body::text(&payload, "action")?;
    for (path, name) in [("entity", entity), ("action", action)] {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !plain || name.len() > MAX_NAME_BYTES {
            return Err(Refusal::shape(path, "a word of letters, digits and `_`"));
        }
    }
    let data = body::at(&payload, "data").cloned().unwrap_or_default();
    let id = body::delivery_id(headers, HEADERS.id, bytes);
    let source = config.source.as_deref().unwrap_or(SOURCE);
    let mut event = CloudEvent::new(source, id, format!("{TYPES}{entity}.{action}"), data);
    event.subject = body::shown(&event.data, "name").map(str::to_owned);
    event.time = body::at(&payload, "timestamp").and_then(forge::moment);
    Ok(vec![event])
}
