//! What somebody has to look at: input that could not become an event, and events that could not be decided.

use kickwheel_schemas::Millis;
use serde_json::Value;

use crate::EventKey;

/// See [`super::Write::PutQuarantine`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutQuarantine {
    /// The key that it would have got as an event.
    pub id: EventKey,
    /// The project; empty where that cannot be told.
    pub project: String,
    /// Where it came from: `http:<trigger>` or `kafka:<topic>/<partition>@<offset>`.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its headers.
    pub headers: Value,
    /// Its bytes.
    pub body: Vec<u8>,
    /// When it was received.
    pub received_at: Millis,
}

/// What people did about a quarantined input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It was sent in again, perhaps edited.
    Replayed,
    /// It is to be forgotten.
    Dropped,
}

impl Resolution {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Dropped => "dropped",
        }
    }
}

/// See [`super::Write::ResolveQuarantine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveQuarantine {
    /// Which.
    pub id: EventKey,
    /// What was done about it.
    pub resolution: Resolution,
    /// For people: the event that it became, or why it was dropped.
    pub note: Option<String>,
    /// When.
    pub at: Millis,
}

/// See [`super::Write::Requeue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requeue {
    /// The event.
    pub key: EventKey,
    /// When; it is due from then on.
    pub at: Millis,
}

/// See [`super::Write::DropEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// The event.
    pub key: EventKey,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Millis,
}
