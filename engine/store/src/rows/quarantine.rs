//! Input that could not become an event.

use kickwheel_schemas::Millis;
use serde_json::Value;

use crate::{EventKey, write::Resolution};

/// What became of a quarantined input so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// Somebody has to look at it.
    Held,
    /// Somebody did.
    Resolved(Resolution),
}

impl InputState {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Resolved(resolution) => resolution.as_str(),
        }
    }
}

/// A quarantined input without its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSummary {
    /// The key that it would have got as an event.
    pub id: EventKey,
    /// The project; empty where that could not be told.
    pub project: String,
    /// Where it came from: `http:<trigger>` or `kafka:<topic>/<partition>@<offset>`.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
    /// How long it is, in bytes.
    pub size: u64,
    /// When it was received.
    pub received_at: Millis,
    /// What became of it.
    pub state: InputState,
    /// For people: the event that it became, or why it was dropped.
    pub note: Option<String>,
    /// When it was resolved.
    pub resolved_at: Option<Millis>,
}

/// A quarantined input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputRow {
    /// What listings show of it.
    pub summary: InputSummary,
    /// Its headers.
    pub headers: Value,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Which quarantined inputs to list; `None` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputFilter {
    /// The project.
    pub project: Option<String>,
    /// What became of it.
    pub state: Option<InputState>,
    /// Only inputs older than this one: the last of the page before.
    pub before: Option<EventKey>,
    /// At most so many; 0 means [`super::DEFAULT_LIMIT`], and never more than [`super::MAX_LIMIT`].
    pub limit: u32,
}
