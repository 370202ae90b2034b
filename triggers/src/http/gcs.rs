//! Google Cloud Storage: notifications through Pub/Sub, pushed or pulled, and Eventarc's CloudEvents.
//!
//! Formats: "Pub/Sub notifications for Cloud Storage" (what matters is in the message's attributes; its data is the object's
//! resource) and `google.cloud.storage.object.v1.*`. Names of objects are as they are. Numbers come as numbers or as texts.
//! An event's id is `bucket/object#generation:eventType`, the same whichever way and however often it comes. What was
//! replaced by a newer generation is not gone: that is told as a creation. Google signs with keys of its own, which would
//! have to be fetched; here a secret in the URL or a header proves the sender.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body, forge,
    objects::{Change, Happened, MAX_EVENTS},
    shared_secret,
};

/// The types of Eventarc, before the word that says what happened.
const EVENTARC: &str = "google.cloud.storage.object.v1.";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    shared_secret::verify(config, headers)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    if let Some(messages) = body::at(&payload, "receivedMessages") {
        let messages = messages.as_array().ok_or_else(|| Refusal::shape("receivedMessages", "a list"))?;
        if messages.len() > MAX_EVENTS {
            let reason = format!("{} messages are too many, at most {MAX_EVENTS} are taken at once", messages.len());
            return Err(Refusal::new(413, "body_too_large", reason));
        }
        let changes = messages.iter().map(message);
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        return Ok(changes.into_iter().flatten().map(|change| change.event(config)).collect());
    }
    let change =
        if body::at(&payload, "message").is_some() { message(&payload)? } else { unwrapped(headers, &payload)? };
    Ok(change.map(|change| change.event(config)).into_iter().collect())
}

/// What happened, as Cloud Storage names it in attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EventType {
    Finalize,
    Delete,
    Archive,
}

impl EventType {
    fn of_attribute(name: &str) -> Option<Self> {
        match name {
            "OBJECT_FINALIZE" => Some(Self::Finalize),
            "OBJECT_DELETE" => Some(Self::Delete),
            "OBJECT_ARCHIVE" => Some(Self::Archive),
            _ => None,
        }
    }

    fn of_eventarc(ty: &str) -> Option<Self> {
        match ty.strip_prefix(EVENTARC)? {
            "finalized" => Some(Self::Finalize),
            "deleted" => Some(Self::Delete),
            "archived" => Some(Self::Archive),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Finalize => "OBJECT_FINALIZE",
            Self::Delete => "OBJECT_DELETE",
            Self::Archive => "OBJECT_ARCHIVE",
        }
    }
}

/// A Pub/Sub message.
fn message(envelope: &Value) -> Result<Option<Change>, Refusal> {
    let attribute = |name: &str| body::maybe_text(envelope, &format!("message.attributes.{name}"));
    let Some(ty) = attribute("eventType")? else { return Ok(None) };
    let Some(ty) = EventType::of_attribute(ty) else { return Ok(None) };
    if ty != EventType::Finalize && attribute("overwrittenByGeneration")?.is_some() {
        return Ok(None);
    }
    let missing = |name: &str| Refusal::shape(&format!("message.attributes.{name}"), "a text");
    let bucket = attribute("bucketId")?.ok_or_else(|| missing("bucketId"))?;
    let object = attribute("objectId")?.ok_or_else(|| missing("objectId"))?;
    let generation = body::id(envelope, "message.attributes.objectGeneration");
    let resource = match body::maybe_text(envelope, "message.data")? {
        None => Value::Null,
        // With the payload format NONE there is nothing in it.
        Some(data) => {
            let bytes = STANDARD.decode(data).map_err(|_| Refusal::shape("message.data", "base64"))?;
            if bytes.is_empty() { Value::Null } else { body::json(&bytes)? }
        }
    };
    let time = attribute("eventTime")?.map(|text| Value::String(text.to_owned()));
    let published = ["message.publishTime", "message.publish_time"].iter().find_map(|path| body::at(envelope, path));
    let time = time.as_ref().or(published).and_then(forge::moment);
    change(ty, bucket, object, generation, &resource, time).map(Some)
}

/// The object's resource as the whole body: what happened is said by headers. Without any, it is taken for written.
fn unwrapped(headers: &Headers, payload: &Value) -> Result<Option<Change>, Refusal> {
    // An event in the structured mode has the resource inside.
    let structured = body::shown(payload, "specversion").is_some();
    let resource = if structured { body::at(payload, "data").unwrap_or(&Value::Null) } else { payload };
    let named = if structured { body::shown(payload, "type") } else { headers.get("ce-type") };
    let ty = match (named, headers.get("eventType")) {
        (Some(ty), _) => EventType::of_eventarc(ty),
        (None, Some(ty)) => EventType::of_attribute(ty),
        (None, None) if body::shown(payload, "kind") == Some("storage#object") => Some(EventType::Finalize),
        (None, None) => None,
    };
    let Some(ty) = ty else { return Ok(None) };
    if headers.get("overwrittenByGeneration").is_some_and(|value| !value.is_empty()) && ty != EventType::Finalize {
        return Ok(None);
    }
    let bucket = body::text(resource, "bucket")?;
    let object = body::text(resource, "name")?;
    let time = body::at(payload, "time").and_then(forge::moment);
    let time = time.or_else(|| forge::moment(&Value::String(headers.get("ce-time")?.to_owned())));
    let time = time.or_else(|| body::at(resource, "updated").and_then(forge::moment));
    change(ty, bucket, object, body::id(resource, "generation"), resource, time).map(Some)
}

fn change(
    ty: EventType,
    bucket: &str,
    object: &str,
    generation: Option<String>,
    resource: &Value,
    time: Option<String>,
) -> Result<Change, Refusal> {
    let happened = match ty {
        EventType::Finalize => {
            Happened::Created { size: size(resource)?, etag: body::maybe_text(resource, "etag")?.map(str::to_owned) }
        }
        EventType::Delete => Happened::Deleted { marker: false },
        // The live version became an older one, and can be had again.
        EventType::Archive => Happened::Deleted { marker: true },
    };
    let of_generation = generation.as_deref().unwrap_or_default();
    Ok(Change {
        id: format!("{bucket}/{object}#{of_generation}:{}", ty.name()),
        uri: format!("gs://{bucket}"),
        bucket: bucket.to_owned(),
        key: object.to_owned(),
        happened,
        sequencer: generation,
        time,
    })
}

/// Google's JSON writes 64-bit numbers as texts; some libraries as numbers.
fn size(resource: &Value) -> Result<Option<u64>, Refusal> {
    match body::at(resource, "size") {
        None => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| Refusal::shape("size", "a whole number")),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| Refusal::shape("size", "a whole number")),
    }
}
