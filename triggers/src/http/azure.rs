//! Azure Blob Storage through Event Grid, in its own schema and as CloudEvents, and the questions it asks first.
//!
//! Formats: "Azure Blob Storage as Event Grid source". Its own schema is a list; CloudEvents come alone or in a list. A
//! container and a blob's name are in `subject`. A blob counts as written once it is complete: `CreateFile` makes an empty
//! one that is filled afterwards. Before anything is sent, Event Grid asks whether it may: [`answer`] for its own schema,
//! the handshake of CloudEvents (by OPTIONS) for the other. Both need the proof that every request needs.

use kickwheel_schemas::CloudEvent;
use serde_json::{Value, json};

use super::{
    Headers, Refusal, SourceConfig, body, forge,
    objects::{Change, Happened, MAX_EVENTS},
    shared_secret,
};

/// The event by which Event Grid asks whether it may send.
const VALIDATION: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";
/// The calls after which a blob is complete.
const COMPLETING: [&str; 5] = ["PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"];
/// What `subject` begins with, before the container's name.
const CONTAINERS: &str = "/blobServices/default/containers/";
/// Longest code of a validation.
const MAX_CODE_BYTES: usize = 512;

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    let payload = read(config, headers, bytes)?;
    let mut events = Vec::new();
    for one in each(&payload)? {
        events.extend(change(one)?.map(|change| change.event(config)));
    }
    Ok(events)
}

/// The body of the answer, with the status 200, to a request that asks whether events may be sent; None: it asks nothing.
pub fn answer(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Option<Value>, Refusal> {
    let payload = read(config, headers, bytes)?;
    for one in each(&payload)? {
        if body::shown(one, "eventType") == Some(VALIDATION) {
            let code = body::text(one, "data.validationCode")?;
            if code.len() > MAX_CODE_BYTES {
                return Err(Refusal::shape("data.validationCode", "a short text"));
            }
            return Ok(Some(json!({"validationResponse": code})));
        }
    }
    Ok(None)
}

fn read(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Value, Refusal> {
    shared_secret::verify(config, headers)?;
    body::json(bytes)
}

fn each(payload: &Value) -> Result<Vec<&Value>, Refusal> {
    let wrong = || Refusal::kept("shape_invalid", "the payload must be an event, or a list of events");
    let items = match payload {
        Value::Object(_) => vec![payload],
        Value::Array(items) => items.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(wrong()),
    };
    if items.len() > MAX_EVENTS {
        let reason = format!("{} events are too many, at most {MAX_EVENTS} are taken at once", items.len());
        return Err(Refusal::new(413, "body_too_large", reason));
    }
    if items.iter().all(|item| item.is_object()) { Ok(items) } else { Err(wrong()) }
}

/// What an event of either schema says; None where it is not about a blob that is complete or gone.
fn change(event: &Value) -> Result<Option<Change>, Refusal> {
    let ty = ["eventType", "type"].iter().find_map(|path| body::shown(event, path));
    let happened = match ty {
        Some("Microsoft.Storage.BlobCreated") => {
            let complete = body::maybe_text(event, "data.api")?.is_none_or(|api| COMPLETING.contains(&api));
            if !complete {
                return Ok(None);
            }
            Happened::Created {
                size: body::maybe_count(event, "data.contentLength")?,
                etag: ["data.eTag", "data.etag"].iter().find_map(|path| body::shown(event, path)).map(str::to_owned),
            }
        }
        Some("Microsoft.Storage.BlobDeleted") => Happened::Deleted { marker: false },
        Some(_) => return Ok(None),
        None => return Err(Refusal::shape("eventType", "a text, or `type` in a CloudEvent")),
    };
    let subject = body::text(event, "subject")?;
    let wrong = || Refusal::shape("subject", &format!("`{CONTAINERS}NAME/blobs/NAME`"));
    let (container, key) =
        subject.strip_prefix(CONTAINERS).and_then(|rest| rest.split_once("/blobs/")).ok_or_else(wrong)?;
    if container.is_empty() || key.is_empty() {
        return Err(wrong());
    }
    Ok(Some(Change {
        id: body::text(event, "id")?.to_owned(),
        uri: uri(event, container),
        bucket: container.to_owned(),
        key: key.to_owned(),
        happened,
        sequencer: body::maybe_text(event, "data.sequencer")?.map(str::to_owned),
        time: ["eventTime", "time"].iter().find_map(|path| body::at(event, path)).and_then(forge::moment),
    }))
}

/// The container's URL, from the blob's; else by the account's resource.
fn uri(event: &Value, container: &str) -> String {
    let of_blob = ["data.url", "data.blobUrl"].iter().find_map(|path| body::shown(event, path));
    let host = of_blob.and_then(|url| {
        let url = url::Url::parse(url).ok()?;
        Some(format!("{}://{}", url.scheme(), url.host_str()?))
    });
    match host {
        Some(host) => format!("{host}/{container}"),
        None => {
            let account = ["topic", "source"].iter().find_map(|path| body::shown(event, path)).unwrap_or("/azure");
            format!("{}/{container}", account.trim_end_matches('/'))
        }
    }
}
