//! Effects on named models and datasets, and the cache.

use std::collections::BTreeMap;

use kickwheel_schemas::{ArtifactRef, Millis, TaskKey};
use serde_json::Value;

use super::Write;
use crate::rows::AssetKind;

/// See [`super::Write::RegisterModel`].
#[derive(Clone, Debug, PartialEq)]
pub struct RegisterModel {
    /// The project.
    pub project: String,
    /// The model's name.
    pub name: String,
    /// Its bytes.
    pub artifact: ArtifactRef,
    /// Metrics kept with the version.
    pub metrics: BTreeMap<String, f64>,
    /// The task that made it: `run/step[index]`. A task registers a model once; again gives the same version.
    pub task: Option<String>,
    /// The stage to point at the new version.
    pub stage: Option<String>,
    /// Where the stage must point now (none: nowhere), else `Conflict`. Ignored without a stage.
    pub expected_version: Option<u64>,
    /// When.
    pub at: Millis,
}

/// See [`super::Write::PublishDataset`].
#[derive(Clone, Debug, PartialEq)]
pub struct PublishDataset {
    /// The project.
    pub project: String,
    /// The dataset's name.
    pub name: String,
    /// The manifest, or one file.
    pub artifact: ArtifactRef,
    /// The task that made it; none when it came from a trigger. A task publishes a dataset once.
    pub task: Option<String>,
    /// What the newest version must be (inner none: there must be none), else `Conflict`. None: whatever it is.
    pub expected_previous: Option<Option<u64>>,
    /// When.
    pub at: Millis,
}

/// See [`super::Write::Announce`].
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// Model or dataset.
    pub kind: AssetKind,
    /// Its name.
    pub name: String,
    /// The task that made the version.
    pub task: String,
    /// What makes the event durable: [`super::Write::Accept`] or [`super::Write::Spool`]. Its data gets `version`, and
    /// for a dataset `previous`.
    pub event: Write,
}

/// See [`super::Write::CachePut`].
#[derive(Clone, Debug, PartialEq)]
pub struct CachePut {
    /// The project.
    pub project: String,
    /// Who may read it: `trusted`, later also scopes of untrusted runs.
    pub scope: String,
    /// The content key.
    pub key: String,
    /// The task that made it.
    pub task: TaskKey,
    /// Its output.
    pub output: Value,
    /// When.
    pub at: Millis,
}

/// See [`super::Write::CacheReplace`].
#[derive(Clone, Debug, PartialEq)]
pub struct CacheReplace {
    /// What is to be remembered.
    pub put: CachePut,
    /// The task whose output is to go, as [`crate::rows::CacheRow::task`] names it.
    pub expected_task: String,
}

/// See [`super::Write::CacheRecord`].
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRecord {
    /// The project.
    pub project: String,
    /// The workflow's name.
    pub workflow: String,
    /// The task.
    pub task: TaskKey,
    /// The content key; none when the cache is off.
    pub key: Option<String>,
    /// What the key was made of, part by part.
    pub parts: Value,
    /// What the cache said.
    pub result: CacheResult,
    /// When.
    pub at: Millis,
}

/// What the cache said about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// The result of an earlier task was taken.
    Hit,
    /// Nothing is stored under the key.
    Miss,
    /// The step does not use the cache.
    Off,
}

impl CacheResult {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Off => "off",
        }
    }
}
