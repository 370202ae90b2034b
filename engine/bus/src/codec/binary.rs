//! Binary mode: attributes are headers `ce_…`, the value is the data, and `content-type` is its media type.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{Undecodable, is_json, quoted, structured::DATA_BASE64, text};
use crate::Record;

/// What the name of an attribute's header begins with.
const PREFIX: &str = "ce_";

/// Reads headers and value. `content_type` is the header of that name.
pub(super) fn read(record: &Record, payload: &[u8], content_type: Option<&str>) -> Result<CloudEvent, Undecodable> {
    let mut attributes = attributes(record)?;
    if attributes.is_empty() {
        return Err(Undecodable::NotCloudEvent);
    }
    let mut take = |name: &str| attributes.remove(name);
    let [id, source, ty, specversion] =
        ["id", "source", "type", "specversion"].map(|name| take(name).unwrap_or_default());
    let [subject, time, traceparent] = ["subject", "time", "traceparent"].map(&mut take);
    // The binding has a header of its own for it; some senders write an attribute none the less.
    let attribute = take("datacontenttype");
    let datacontenttype = content_type.map(str::to_owned).or(attribute);
    let mut extensions: BTreeMap<String, Value> =
        attributes.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let data = match data(payload, datacontenttype.as_deref())? {
        Data::Value(value) => value,
        Data::Bytes => {
            extensions.insert(DATA_BASE64.into(), Value::String(STANDARD.encode(payload)));
            Value::Null
        }
    };
    Ok(CloudEvent { specversion, id, source, ty, subject, time, datacontenttype, traceparent, data, extensions })
}

/// All attributes, by their name in lower case.
fn attributes(record: &Record) -> Result<BTreeMap<String, String>, Undecodable> {
    let mut found = BTreeMap::new();
    for (header, value) in &record.headers {
        let header = header.to_ascii_lowercase();
        let Some(name) = header.strip_prefix(PREFIX) else { continue };
        let wrong = |detail: &str| Undecodable::Header { name: quoted(&header), detail: detail.into() };
        if name == "data" || name == DATA_BASE64 {
            return Err(wrong("data is the record's value, not a header"));
        }
        let value = text(&header, value.as_deref())?.to_owned();
        if found.insert(name.to_owned(), value).is_some() {
            return Err(wrong("it occurs more than once"));
        }
    }
    Ok(found)
}

/// Data as the event holds it.
enum Data {
    Value(Value),
    /// Neither JSON nor text.
    Bytes,
}

/// JSON where the media type says so; where it says nothing, JSON if it is; else text; else bytes.
fn data(payload: &[u8], media_type: Option<&str>) -> Result<Data, Undecodable> {
    if payload.is_empty() {
        return Ok(Data::Value(Value::Null));
    }
    let parsed = || serde_json::from_slice::<Value>(payload);
    match media_type {
        Some(media_type) if is_json(media_type) => {
            return parsed().map(Data::Value).map_err(|error| Undecodable::Json(quoted(&error.to_string())));
        }
        None => {
            if let Ok(value) = parsed() {
                return Ok(Data::Value(value));
            }
        }
        Some(_) => {}
    }
    Ok(std::str::from_utf8(payload).map_or(Data::Bytes, |text| Data::Value(Value::String(text.into()))))
}
