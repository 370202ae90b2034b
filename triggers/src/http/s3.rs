//! Notifications of S3 and of what speaks like it, MinIO above all.
//!
//! Formats: AWS's "Event message structure" (major version 2), EventBridge's "Object Created" and "Object Deleted", and
//! the envelopes of SNS, SQS and Lambda around the first, in any nesting; MinIO's `{EventName, Key, Records}`. Keys are
//! form-encoded everywhere but in EventBridge. What is no notification about an object (a test, a subscription to be
//! confirmed, an envelope around something else) means nothing. `urlDecodedKey` is never looked at: our own decoding counts.

mod envelope;
mod record;

use kickwheel_schemas::CloudEvent;

use super::{
    Headers, Refusal, SourceConfig, body,
    forge::numbered,
    objects::{Change, MAX_EVENTS},
    shared_secret,
};

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    shared_secret::verify(config, headers)?;
    let payload = body::json(bytes)?;
    if !payload.is_object() && !payload.is_array() {
        return Err(Refusal::kept("shape_invalid", "the payload must be a JSON object, or a list of messages"));
    }
    let mut found = Vec::new();
    envelope::open(&payload, &body::digest_id(bytes), 0, &mut found)?;
    if found.len() > MAX_EVENTS {
        let reason = format!("the delivery has {} records, at most {MAX_EVENTS} are taken at once", found.len());
        return Err(Refusal::new(413, "body_too_large", reason));
    }
    let mut events = Vec::new();
    for message in found {
        let count = message.records.len();
        for (index, record) in message.records.into_iter().enumerate() {
            if let Some(change) = record.map(|change| Change { id: numbered(&message.id, index, count), ..change }) {
                events.push(change.event(config));
            }
        }
    }
    Ok(events)
}
