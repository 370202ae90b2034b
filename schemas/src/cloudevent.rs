//! CloudEvents 1.0, the form in which every event reaches the engine.
//!
//! Only the structured JSON form is defined here; bindings (HTTP, Kafka) belong to whoever speaks that protocol. Source
//! of the format: the CNCF CloudEvents specification 1.0.2, section "Context Attributes".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An event. `source` + `id` is its identity; it is immutable once accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// Stable across redeliveries by the same sender.
    pub id: String,
    /// The origin as configured: a repository URL, a dataset's URI, `/manual/<project>`.
    pub source: String,
    /// For example `dev.kickwheel.git.branch.updated`.
    #[serde(rename = "type")]
    pub ty: String,
    /// What orders: the full ref of a branch, a dataset's name. With `source` it names the lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// RFC 3339; when it happened at the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Media type of `data`; ours are all JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// W3C trace context, handed on to every job that this event causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The normalised payload; see [`crate::payload`].
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Extension attributes that we do not interpret.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, Value>,
}

impl CloudEvent {
    /// An event with the required attributes and a JSON payload.
    pub fn new(source: impl Into<String>, id: impl Into<String>, ty: impl Into<String>, data: Value) -> Self {
        Self {
            specversion: "1.0".into(),
            id: id.into(),
            source: source.into(),
            ty: ty.into(),
            subject: None,
            time: None,
            datacontenttype: Some("application/json".into()),
            traceparent: None,
            data,
            extensions: BTreeMap::new(),
        }
    }

    /// The same event, about `subject`.
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// What the specification demands and a lane needs: non-empty `id`, `source`, `type`, and version 1.0.
    pub fn check(&self) -> Result<(), CloudEventError> {
        if self.specversion != "1.0" {
            return Err(CloudEventError::Version(self.specversion.clone()));
        }
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.ty)] {
            if value.is_empty() {
                return Err(CloudEventError::Missing(name));
            }
            if value.len() > MAX_ATTRIBUTE_BYTES {
                return Err(CloudEventError::TooLong(name));
            }
        }
        Ok(())
    }
}

/// The longest `id`, `source` or `type` that is accepted, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 2048;

/// Why a record is not an acceptable CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudEventError {
    /// Another version of the specification.
    #[error("accept specversion {0:?}: only \"1.0\" is known")]
    Version(String),
    /// A required attribute is empty.
    #[error("accept an event without {0:?}: the attribute is required")]
    Missing(&'static str),
    /// An attribute is longer than [`MAX_ATTRIBUTE_BYTES`].
    #[error("accept an event whose {0:?} is longer than {MAX_ATTRIBUTE_BYTES} bytes")]
    TooLong(&'static str),
}
