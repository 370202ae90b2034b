//! An event whose attributes are headers `ce-…` and whose data is the body.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{super::body, DATA_BASE64, Headers, Refusal, is_json, quoted};

/// The attribute that a header is, in lower case.
pub(super) fn attribute(header: &str) -> Option<String> {
    let begin = header.get(..3)?;
    begin.eq_ignore_ascii_case("ce-").then(|| header[3..].to_ascii_lowercase())
}

pub(super) fn event(headers: &Headers, bytes: &[u8]) -> Result<CloudEvent, Refusal> {
    let invalid = |reason: String| Refusal::kept("event_invalid", reason);
    let mut attributes = BTreeMap::new();
    for (header, value) in headers.iter() {
        let Some(name) = attribute(header) else { continue };
        if name == "data" || name == DATA_BASE64 {
            return Err(invalid("the data is the body, not a header".to_owned()));
        }
        let value = decode(value).ok_or_else(|| invalid(format!("the header ce-{} is not UTF-8", quoted(&name))))?;
        if attributes.insert(name.clone(), value).is_some() {
            return Err(invalid(format!("the header ce-{} occurs more than once", quoted(&name))));
        }
    }
    let mut take = |name: &str| attributes.remove(name);
    let mut required = |name: &str| take(name).ok_or_else(|| invalid(format!("the header ce-{name} is missing")));
    let (specversion, id) = (required("specversion")?, required("id")?);
    let (source, ty) = (required("source")?, required("type")?);
    let [subject, time, traceparent, named] =
        ["subject", "time", "traceparent", "datacontenttype"].map(|name| attributes.remove(name));
    // The binding has a header of its own for it; some senders write an attribute none the less.
    let datacontenttype = headers.get("content-type").filter(|value| !value.is_empty()).map(str::to_owned).or(named);
    let traceparent = traceparent.or_else(|| headers.get("traceparent").map(str::to_owned));
    let mut extensions: BTreeMap<String, Value> =
        attributes.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let data = if bytes.is_empty() {
        Value::Null
    } else if datacontenttype.is_some() && is_json(datacontenttype.as_deref()) {
        body::json(bytes)?
    } else if let (None, Ok(value)) = (&datacontenttype, body::json(bytes)) {
        value
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        Value::String(text.to_owned())
    } else {
        extensions.insert(DATA_BASE64.to_owned(), Value::String(STANDARD.encode(bytes)));
        Value::Null
    };
    Ok(CloudEvent { specversion, id, source, ty, subject, time, datacontenttype, traceparent, data, extensions })
}

/// A header's value: quotes around it taken off, then percent-decoded exactly once. None if that is not UTF-8.
fn decode(value: &str) -> Option<String> {
    let value = value.trim();
    let unquoted = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => {
            let mut text = String::with_capacity(inner.len());
            let mut characters = inner.chars();
            while let Some(c) = characters.next() {
                text.push(if c == '\\' { characters.next().unwrap_or('\\') } else { c });
            }
            text
        }
        None => value.to_owned(),
    };
    let bytes = unquoted.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
        if bytes[at] == b'%'
            && let (Some(high), Some(low)) = (digit(1), digit(2))
        {
            decoded.push((high << 4 | low) as u8);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_exactly_once() {
        for (value, expected) in [
            ("plain", Some("plain")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro \u{20ac} \u{1f600}")),
            ("100%25", Some("100%")),
            ("%2525", Some("%25")),
            ("%e4%b8%ad", Some("\u{4e2d}")),
            ("50% off %zz %4", Some("50% off %zz %4")),
            ("\"a \\\"b\\\" %20\"", Some("a \"b\"  ")),
            ("\"", Some("\"")),
            ("%ff", None),
        ] {
            assert_eq!(decode(value).as_deref(), expected, "{value}");
        }
    }
}
