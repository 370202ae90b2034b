//! Records to CloudEvents and back; pure.
//!
//! Read are both modes of the CloudEvents binding for Kafka 1.0.2: *structured*, where the value is the whole event as
//! JSON, and *binary*, where attributes are headers `ce_…` and the value is the data. A `content-type` that begins with
//! `application/cloudevents` tells them apart. Written is structured. The binding has no batches.
//!
//! What is no acceptable event is refused with its reason and never guessed at: such a record belongs into quarantine,
//! where a person can look. The binding would let the attribute `partitionkey` choose the key; our topics are ordered
//! by lane instead, so there the key is always `source|subject`, and the attribute is kept as it came.

mod binary;
mod structured;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use kickwheel_schemas::{
    CloudEvent,
    cloudevent::{CloudEventError, MAX_ATTRIBUTE_BYTES},
};
use serde_json::Value;

use crate::Record;

/// The largest event that is read or written, in bytes of its structured form or of its data.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Attributes beyond those of the specification.
pub const MAX_EXTENSIONS: usize = 64;
/// The longest name of an extension attribute, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// What is quoted of a parser's message, which may repeat the text that it met.
const MAX_DETAIL_CHARS: usize = 200;
/// Media type of what is written.
const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
/// Name of the header for it.
const CONTENT_TYPE: &str = "content-type";

/// Why a record is no acceptable CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The record has no value at all: it asks for the deletion of a key, and says nothing about an event.
    #[error("decode a tombstone: the record has a key and no value, which is no event")]
    Tombstone,
    /// Larger than [`MAX_EVENT_BYTES`].
    #[error(
        "decode a record of {bytes} bytes: the limit is {MAX_EVENT_BYTES}; put large data elsewhere and refer to it"
    )]
    TooLarge {
        /// Bytes of key, value and headers.
        bytes: usize,
    },
    /// Neither mode: it has no CloudEvents media type and no `ce_` headers.
    #[error("decode a record without CloudEvents headers: a trigger with a mapping can read it")]
    NotCloudEvent,
    /// Batches exist over HTTP only.
    #[error("decode a batch: Kafka carries one event per record")]
    Batch,
    /// A structured event in another format than JSON.
    #[error("decode an event in the format {0:?}: only application/cloudevents+json is known")]
    Format(String),
    /// The value is not the JSON that its media type promises.
    #[error("decode the record's JSON: {0}")]
    Json(String),
    /// A header that is meant for us has a value or a repetition that cannot be understood.
    #[error("decode the header {name:?}: {detail}")]
    Header {
        /// Its name, in lower case.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// An attribute breaks the specification or a limit.
    #[error("decode the attribute {name:?}: {detail}")]
    Attribute {
        /// Its name.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// More than [`MAX_EXTENSIONS`].
    #[error("decode an event with {0} extension attributes: the limit is {MAX_EXTENSIONS}")]
    TooManyExtensions(usize),
    /// The event as a whole is not acceptable.
    #[error(transparent)]
    Event(#[from] CloudEventError),
}

/// An event as a record, ready for [`crate::Kafka::produce`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// See [`record_key`].
    pub key: Vec<u8>,
    /// The event as JSON.
    pub payload: Vec<u8>,
    /// The media type.
    pub headers: [(&'static str, &'static [u8]); 1],
}

/// The key of an event's record: `source|subject`, with nothing behind the bar where there is no subject. Events of one
/// lane have one key, hence one partition and one order.
pub fn record_key(event: &CloudEvent) -> Vec<u8> {
    format!("{}|{}", event.source, event.subject.as_deref().unwrap_or_default()).into_bytes()
}

/// Writes an event in structured mode.
pub fn encode(event: &CloudEvent) -> Encoded {
    let payload =
        serde_json::to_vec(event).expect("an event has no maps with keys other than strings, and no foreign types");
    Encoded { key: record_key(event), payload, headers: [(CONTENT_TYPE, STRUCTURED.as_bytes())] }
}

/// Reads an event in either mode. Names of headers are compared without regard to case.
pub fn decode(record: &Record) -> Result<CloudEvent, Undecodable> {
    let Some(payload) = &record.payload else { return Err(Undecodable::Tombstone) };
    let bytes = record.size();
    if payload.len() > MAX_EVENT_BYTES || bytes > crate::MAX_RECORD_BYTES {
        return Err(Undecodable::TooLarge { bytes });
    }
    let content_type = header(record, CONTENT_TYPE)?;
    let essence = content_type.map(essence).unwrap_or_default();
    let event = if essence.starts_with("application/cloudevents-batch") {
        return Err(Undecodable::Batch);
    } else if essence == "application/cloudevents" || essence == "application/cloudevents+json" {
        structured::read(payload)?
    } else if essence.starts_with("application/cloudevents") {
        return Err(Undecodable::Format(quoted(&essence)));
    } else {
        binary::read(record, payload, content_type)?
    };
    check(&event)?;
    Ok(event)
}

/// A media type without its parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether data of this media type is JSON.
fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// The value of a header that may occur once. Twice is refused: which of them its sender means is anybody's guess.
fn header<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, Undecodable> {
    let mut found = record.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    let Some((_, value)) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Undecodable::Header { name: name.into(), detail: "it occurs more than once".into() });
    }
    text(name, value.as_deref()).map(Some)
}

/// A header's value as text.
fn text<'a>(name: &str, value: Option<&'a [u8]>) -> Result<&'a str, Undecodable> {
    let wrong = |detail: &str| Undecodable::Header { name: quoted(name), detail: detail.into() };
    std::str::from_utf8(value.ok_or_else(|| wrong("it has no value"))?).map_err(|_| wrong("it is not UTF-8"))
}

/// What the specification and our limits demand of attributes, whatever the mode.
fn check(event: &CloudEvent) -> Result<(), Undecodable> {
    event.check()?;
    let optional = [
        ("subject", &event.subject),
        ("time", &event.time),
        ("datacontenttype", &event.datacontenttype),
        ("traceparent", &event.traceparent),
    ];
    for (name, value) in [("id", &event.id), ("source", &event.source), ("type", &event.ty)] {
        check_text(name, value)?;
    }
    for (name, value) in optional {
        if let Some(value) = value {
            check_text(name, value)?;
        }
    }
    if event.extensions.len() > MAX_EXTENSIONS {
        return Err(Undecodable::TooManyExtensions(event.extensions.len()));
    }
    for (name, value) in &event.extensions {
        check_extension(name, value)?;
    }
    Ok(())
}

fn check_extension(name: &str, value: &Value) -> Result<(), Undecodable> {
    let wrong = |detail: &str| Err(Undecodable::Attribute { name: quoted(name), detail: detail.into() });
    if name == structured::DATA_BASE64 {
        // Not an attribute, but data: only the size of the whole limits it.
        return Ok(());
    }
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(known) {
        return wrong("a name has up to 64 letters and digits");
    }
    match value {
        Value::String(text) => check_text(name, text),
        Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::Null | Value::Array(_) | Value::Object(_) => wrong("an attribute is a text, a number or a truth value"),
    }
}

/// The specification forbids control characters; a database refuses some of them, and a log is confused by others.
fn check_text(name: &str, value: &str) -> Result<(), Undecodable> {
    let wrong = |detail: String| Err(Undecodable::Attribute { name: quoted(name), detail });
    if value.len() > MAX_ATTRIBUTE_BYTES {
        return wrong(format!("it is longer than {MAX_ATTRIBUTE_BYTES} bytes"));
    }
    if value.chars().any(char::is_control) {
        return wrong("it contains a control character".into());
    }
    Ok(())
}

/// As much of a foreign text as an error may repeat.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_DETAIL_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
