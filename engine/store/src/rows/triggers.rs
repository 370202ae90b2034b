//! Triggers and where they stand.

use kickwheel_schemas::Millis;
use serde_json::Value;

/// A configured trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerRow {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// `git`, `cron`, `kafka`, `http`, …
    pub kind: String,
    /// What its kind has to know.
    pub config: Value,
    /// Whether it is paused.
    pub paused: bool,
    /// When it was made.
    pub created_at: Millis,
}

/// Where a trigger stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerStateRow {
    /// The trigger's name.
    pub trigger: String,
    /// From 1; what the next write must expect.
    pub version: u64,
    /// The state.
    pub state: Value,
}
