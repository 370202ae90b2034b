//! One notification about one object.

use serde_json::Value;

use super::super::{
    Refusal, body, forge,
    objects::{Change, Happened},
};

/// The major version of AWS's structure that is read.
const MAJOR: &str = "2";

/// What an event's name says.
enum Kind {
    Created,
    Deleted { marker: bool },
    Other,
}

impl Kind {
    /// AWS writes `ObjectCreated:Put`, MinIO `s3:ObjectCreated:Put`.
    fn of(name: &str) -> Self {
        let name = name.strip_prefix("s3:").unwrap_or(name);
        match name.split_once(':') {
            // MinIO says so of an object that is as it was, and of one that was not there in the first place.
            Some(
                ("ObjectCreated", "PutTagging" | "DeleteTagging" | "PutRetention" | "PutLegalHold")
                | ("ObjectRemoved", "NoOP"),
            ) => Self::Other,
            Some(("ObjectCreated", _)) => Self::Created,
            Some(("ObjectRemoved" | "LifecycleExpiration", "DeleteMarkerCreated")) => Self::Deleted { marker: true },
            Some(("ObjectRemoved" | "LifecycleExpiration", _)) => Self::Deleted { marker: false },
            Some(_) | None => Self::Other,
        }
    }
}

/// A member of `Records`; None where it says nothing about an object's bytes.
pub(super) fn notification(record: &Value) -> Result<Option<Change>, Refusal> {
    if !record.is_object() {
        return Err(Refusal::shape("Records", "a list of objects"));
    }
    if body::at(record, "s3").is_none() && body::at(record, "eventName").is_none() {
        return Ok(None);
    }
    if let Some(version) = body::maybe_text(record, "eventVersion")?
        && version.split('.').next() != Some(MAJOR)
    {
        return Err(Refusal::shape("Records.eventVersion", "2.x, the structure that is understood"));
    }
    let kind = Kind::of(body::text(record, "eventName")?);
    let minio = body::shown(record, "eventSource").is_some_and(|source| source.starts_with("minio"));
    let happened = match kind {
        Kind::Other => return Ok(None),
        Kind::Deleted { marker } => Happened::Deleted { marker },
        Kind::Created => Happened::Created {
            // MinIO leaves the size of an empty object away.
            size: body::maybe_count(record, "s3.object.size")?.or(minio.then_some(0)),
            etag: body::maybe_text(record, "s3.object.eTag")?.map(str::to_owned),
        },
    };
    let bucket = body::text(record, "s3.bucket.name")?;
    Ok(Some(Change {
        id: String::new(),
        uri: format!("s3://{bucket}"),
        bucket: bucket.to_owned(),
        key: decoded(body::text(record, "s3.object.key")?)?,
        happened,
        sequencer: body::maybe_text(record, "s3.object.sequencer")?.map(str::to_owned),
        time: body::at(record, "eventTime").and_then(forge::moment),
    }))
}

/// An event of EventBridge, whose keys are as they are.
pub(super) fn event_bridge(payload: &Value) -> Result<Option<Change>, Refusal> {
    let happened = match body::text(payload, "detail-type")? {
        "Object Created" => Happened::Created {
            size: body::maybe_count(payload, "detail.object.size")?,
            etag: body::maybe_text(payload, "detail.object.etag")?.map(str::to_owned),
        },
        "Object Deleted" => {
            Happened::Deleted { marker: body::shown(payload, "detail.deletion-type") == Some("Delete Marker Created") }
        }
        _ => return Ok(None),
    };
    if body::shown(payload, "source").is_some_and(|source| source != "aws.s3") {
        return Ok(None);
    }
    let bucket = body::text(payload, "detail.bucket.name")?;
    Ok(Some(Change {
        id: String::new(),
        uri: format!("s3://{bucket}"),
        bucket: bucket.to_owned(),
        key: body::text(payload, "detail.object.key")?.to_owned(),
        happened,
        sequencer: body::maybe_text(payload, "detail.object.sequencer")?.map(str::to_owned),
        time: body::at(payload, "time").and_then(forge::moment),
    }))
}

/// A form-encoded key: `+` is a blank, and `%XX` a byte, once.
fn decoded(key: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(key.len());
    let raw = key.as_bytes();
    let mut at = 0;
    while at < raw.len() {
        let digit = |offset: usize| char::from(*raw.get(at + offset)?).to_digit(16);
        if raw[at] == b'%'
            && let (Some(high), Some(low)) = (digit(1), digit(2))
        {
            bytes.push((high << 4 | low) as u8);
            at += 3;
            continue;
        }
        bytes.push(if raw[at] == b'+' { b' ' } else { raw[at] });
        at += 1;
    }
    String::from_utf8(bytes).map_err(|_| Refusal::shape("Records.s3.object.key", "UTF-8 once it is decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_form_decoded_exactly_once() {
        for (key, expected) in [
            ("a/b", "a/b"),
            ("a%2Fb", "a/b"),
            ("red+rose%2B%281%29.jpg", "red rose+(1).jpg"),
            ("%2520", "%20"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%E6%A8%A1", "\u{6a21}"),
        ] {
            assert_eq!(decoded(key).expect(key), expected);
        }
        assert!(decoded("%FF").is_err());
    }
}
