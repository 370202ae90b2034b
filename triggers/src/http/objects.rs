//! What object stores have in common: an object of a bucket that was written or is gone.
//!
//! Deliberately absent: making dataset versions of many objects, which needs memory and time.

use kickwheel_schemas::{
    CloudEvent,
    cloudevent::MAX_ATTRIBUTE_BYTES,
    payload::{self, DatasetObject},
};

use super::{SourceConfig, body};

/// Most events of one delivery. The largest batches of real senders hold ten messages.
pub(super) const MAX_EVENTS: usize = 10_000;

/// One object's change as a store tells it.
pub(super) struct Change {
    /// The delivery's, or the event's own.
    pub id: String,
    /// The bucket as a URI.
    pub uri: String,
    pub bucket: String,
    /// Decoded.
    pub key: String,
    pub happened: Happened,
    pub sequencer: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
}

/// What happened to an object.
pub(super) enum Happened {
    Created { size: Option<u64>, etag: Option<String> },
    Deleted { marker: bool },
}

impl Change {
    /// The event. Its lane is the dataset, or the bucket where the trigger names none.
    pub fn event(self, config: &SourceConfig) -> CloudEvent {
        let (ty, size, etag, delete_marker) = match self.happened {
            Happened::Created { size, etag } => (payload::DATASET_OBJECT_CREATED, size, etag, false),
            Happened::Deleted { marker } => (payload::DATASET_OBJECT_DELETED, None, None, marker),
        };
        let subject = config.dataset.clone().unwrap_or_else(|| self.bucket.clone());
        // Keys may hold what an attribute must not.
        let plain = self.id.len() <= MAX_ATTRIBUTE_BYTES && !self.id.chars().any(char::is_control);
        let id = if plain { self.id } else { body::digest_id(self.id.as_bytes()) };
        let data = DatasetObject {
            dataset: config.dataset.clone(),
            bucket: self.bucket,
            key: self.key,
            size,
            etag,
            sequencer: self.sequencer,
            delete_marker,
        };
        let data = serde_json::to_value(data).expect("the payload has string keys only");
        let source = config.source.clone().unwrap_or(self.uri);
        let mut event = CloudEvent::new(source, id, ty, data).with_subject(subject);
        event.time = self.time;
        event
    }
}
