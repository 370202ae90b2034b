//! CloudEvents over HTTP: binary, structured and batched, and the handshake before a sender may send.
//!
//! Format: the CloudEvents HTTP protocol binding, JSON format and webhook specification, 1.0.2. A batch is taken as a
//! whole or not at all. Our own types and sources are refused: what a provider's preset or the engine itself
//! says must not be forged. Data that is neither JSON nor text stays base64 under `data_base64`.

mod binary;
pub mod handshake;
mod structured;

use kickwheel_runtime::reserved::refuse_reserved;
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{Headers, Refusal, SourceConfig, body, headers::quoted, signature};
use signature::{KeyForm, STANDARD_HEADERS};

/// Most events of one batch.
pub const MAX_BATCH: usize = 1_000;
/// Attributes beyond those of the specification.
pub const MAX_EXTENSIONS: usize = 64;
/// The longest name of an attribute.
pub const MAX_NAME_BYTES: usize = 64;
/// The member that holds data which is no JSON.
pub(super) const DATA_BASE64: &str = "data_base64";

/// The events of a request.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    let events = match Mode::of(headers)? {
        Mode::Structured => vec![structured::event(body::json(bytes)?)?],
        Mode::Batch => batch(body::json(bytes)?)?,
        Mode::Binary => vec![binary::event(headers, bytes)?],
        Mode::ByShape => match body::json(bytes)? {
            value @ Value::Array(_) => batch(value)?,
            value => vec![structured::event(value)?],
        },
    };
    events.iter().try_for_each(check)?;
    Ok(events)
}

/// Senders of CloudEvents have no signature of their own. Where a secret is configured, a Standard Webhooks signature
/// made with it counts, else the secret itself as a bearer token; who sends a signature is never judged by a token.
fn verify(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    match config.verification.secrets() {
        None => Ok(()),
        Some(secrets) if headers.get(STANDARD_HEADERS.signature).is_some() => {
            signature::verify_standard(STANDARD_HEADERS, KeyForm::Encoded, &secrets, headers, bytes, config.now)
        }
        Some(secrets) => signature::verify_token("Authorization", "Bearer ", &secrets, headers),
    }
}

/// How a request carries its events.
enum Mode {
    Binary,
    Structured,
    Batch,
    /// No header says anything: an object is an event, a list is a batch.
    ByShape,
}

impl Mode {
    fn of(headers: &Headers) -> Result<Self, Refusal> {
        let media_type = headers.media_type();
        let charset_fits = headers.get("content-type").is_none_or(|whole| {
            let parameters = whole.split(';').skip(1).filter_map(|one| one.split_once('='));
            let charset = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
            charset.into_iter().all(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"))
        });
        let refused = |what: &str| {
            let reason = format!(
                "{what} is not understood: send `application/cloudevents+json`, `application/cloudevents-batch+json`, or headers `ce-…`"
            );
            Err(Refusal::new(415, "media_type", reason))
        };
        match media_type.as_deref() {
            Some("application/cloudevents" | "application/cloudevents+json") if charset_fits => Ok(Self::Structured),
            Some("application/cloudevents-batch" | "application/cloudevents-batch+json") if charset_fits => {
                Ok(Self::Batch)
            }
            Some(other) if other.starts_with("application/cloudevents") => refused(&quoted(other)),
            _ if headers.iter().any(|(name, _)| binary::attribute(name).is_some()) => Ok(Self::Binary),
            None => Ok(Self::ByShape),
            Some(other) => refused(&quoted(other)),
        }
    }
}

fn batch(value: Value) -> Result<Vec<CloudEvent>, Refusal> {
    let Value::Array(items) = value else {
        return Err(Refusal::kept("event_invalid", "a batch must be a JSON list of events"));
    };
    if items.len() > MAX_BATCH {
        let reason = format!("the batch has {} events, at most {MAX_BATCH} are taken at once", items.len());
        return Err(Refusal::new(413, "body_too_large", reason));
    }
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(index, item)| {
            structured::event(item).map_err(|refusal| Refusal {
                reason: format!("event {index} of the batch: {}", refusal.reason),
                ..refusal
            })
        })
        .collect()
}

/// What is demanded of every event from outside, beyond what [`super::translate`] demands of all.
fn check(event: &CloudEvent) -> Result<(), Refusal> {
    // What is configured here is known to the engine alone, which asks again when it accepts the event.
    refuse_reserved(event, |_| false).map_err(Refusal::from)?;
    let invalid = |reason: String| Err(Refusal::kept("event_invalid", reason));
    if let Some(time) = &event.time
        && chrono::DateTime::parse_from_rfc3339(time).is_err()
    {
        return invalid("the attribute time is not as in RFC 3339, such as 2026-01-31T12:00:00Z".to_owned());
    }
    if event.extensions.len() > MAX_EXTENSIONS {
        return invalid(format!("it has {} extension attributes, at most {MAX_EXTENSIONS}", event.extensions.len()));
    }
    for (name, value) in &event.extensions {
        if name == DATA_BASE64 {
            continue;
        }
        let known = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !known {
            return invalid(format!("{:?} cannot be the name of an attribute", quoted(name)));
        }
        match value {
            Value::String(text) if text.chars().any(char::is_control) => {
                return invalid(format!("the attribute {name} holds control characters"));
            }
            Value::String(_) | Value::Bool(_) | Value::Number(_) => {}
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return invalid(format!("the attribute {name} must be a text, a number or a truth value"));
            }
        }
    }
    Ok(())
}

/// Whether data of this media type is JSON. Without one it is, as the JSON format has it.
fn is_json(media_type: Option<&str>) -> bool {
    let Some(media_type) = media_type else { return true };
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}
