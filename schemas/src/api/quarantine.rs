//! What is held for somebody to look at: input that could not become an event, and events that could not be decided.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One held thing, as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineView {
    /// What the other commands take.
    pub id: String,
    /// `held`, `replayed` or `dropped`.
    pub state: String,
    /// `input` that never became an event, or `event`.
    pub what: HeldKind,
    /// The project; empty where that could not be told.
    pub project: String,
    /// Where it came from: `http:<trigger>`, `kafka:<topic>/<partition>@<offset>`, or the event's source.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
    /// How long its body is, in bytes.
    pub size: u64,
    /// When it was received.
    pub received_at: String,
    /// The event that it became, or why it was dropped.
    pub note: Option<String>,
}

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldKind {
    /// It never became an event.
    Input,
    /// It is an event, but could not be decided.
    Event,
}

/// One held thing in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineDetail {
    /// As listed.
    #[serde(flatten)]
    pub view: QuarantineView,
    /// Headers that came with it, without credentials.
    pub headers: BTreeMap<String, String>,
    /// Its body, if that is text.
    pub text: Option<String>,
    /// Its body in hex, if it is not.
    pub hex: Option<String>,
}

/// Makes a new event of something that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditHeld {
    /// The body as it should have been, its bytes in base64. Of an event: the whole event as JSON.
    pub body_base64: String,
}

/// Gives something up that is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DropHeld {
    /// For those who look later.
    #[serde(default)]
    pub reason: String,
}

/// What became of something that was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// Which.
    pub id: String,
    /// `replayed` or `dropped`.
    pub state: String,
    /// What names the events that it became: the key of a replayed event, the `id` of a new one.
    pub events: Vec<String>,
}
