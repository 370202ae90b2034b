//! Any sender of JSON: the payload as it is, in one event.
//!
//! A mapping that makes other events of it belongs to a trigger's configuration, which has none yet; so a trigger of this
//! kind cannot be added, and trying a payload gives one event of the type [`TYPE`]. A Standard Webhooks signature, one in
//! `X-Hub-Signature-256`, or a shown secret proves the sender: who signs is judged by the signature alone.

use kickwheel_schemas::CloudEvent;

use super::{
    Headers, Refusal, SourceConfig, body,
    headers::quoted,
    shared_secret,
    signature::{self, KeyForm, STANDARD_HEADERS},
};

/// Type of the events.
pub const TYPE: &str = "webhook.received";
/// `source` of events where none is configured.
pub const SOURCE: &str = "/hooks/generic";
/// Where senders put the id of a delivery.
const IDS: [&str; 3] = [STANDARD_HEADERS.id, "idempotency-key", "x-delivery-id"];
/// The signature that many senders took over from GitHub.
const HUB: &str = "X-Hub-Signature-256";

/// The event of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    if let Some(media_type) = headers.media_type()
        && media_type != "application/json"
        && media_type != "text/json"
        && !media_type.ends_with("+json")
    {
        let reason = format!("{} is not understood: send `application/json`", quoted(&media_type));
        return Err(Refusal::new(415, "media_type", reason));
    }
    let payload = body::json(bytes)?;
    let id = IDS.iter().find_map(|name| headers.get(name).filter(|id| !id.is_empty()));
    let id = id.map_or_else(|| body::digest_id(bytes), str::to_owned);
    Ok(vec![CloudEvent::new(config.source.as_deref().unwrap_or(SOURCE), id, TYPE, payload)])
}

fn verify(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    if headers.get(STANDARD_HEADERS.signature).is_some() {
        return signature::verify_standard(STANDARD_HEADERS, KeyForm::Encoded, &secrets, headers, bytes, config.now);
    }
    if headers.get(HUB).is_some() {
        return signature::verify_hub(HUB, None, &secrets, headers, bytes);
    }
    shared_secret::verify(config, headers)
}
