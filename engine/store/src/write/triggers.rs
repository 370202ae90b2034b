//! Triggers and where they stand.

use kickwheel_schemas::Millis;
use serde_json::Value;

/// See [`super::Write::PutTrigger`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutTrigger {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// `git`, `cron`, `kafka`, `http`, …
    pub kind: String,
    /// What its kind has to know; never a secret itself.
    pub config: Value,
    /// When. A trigger that was there keeps the time at which it was made.
    pub at: Millis,
}

/// See [`super::Write::SetTriggerPaused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTriggerPaused {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Whether it is paused from now on.
    pub paused: bool,
}

/// See [`super::Write::PutTriggerState`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutTriggerState {
    /// The project.
    pub project: String,
    /// The trigger's name, or any other that only this cursor has.
    pub trigger: String,
    /// The version that the caller saw; 0: there was none.
    pub expected_version: u64,
    /// The new state, whose version is the next.
    pub state: Value,
}
