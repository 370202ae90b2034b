//! What a WASM plugin receives and returns.
//!
//! The WIT world (`schemas/wit`) passes JSON texts; these are their shapes. A plugin changes nothing itself: it returns
//! [`Effect`]s, which the engine carries out in the transaction that accepts the result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ArtifactRef, Digest};

/// The argument of a plugin's `run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginCall {
    /// The step's `with`, evaluated. A reference such as `model:churn@production` has become a [`Resolved`] object.
    pub with: BTreeMap<String, Value>,
    /// `run/step[index]`.
    pub task: String,
}

/// What a reference resolved to. Absent is a value, not an error: the first model has no predecessor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resolved {
    /// Nothing bears that name (yet).
    None {
        /// The reference as it was written.
        reference: String,
    },
    /// A version of a named model.
    Model {
        /// The model's name.
        name: String,
        /// Counts from 1.
        version: u64,
        /// Digest of its bytes.
        digest: Digest,
        /// Metrics recorded with the version.
        metrics: BTreeMap<String, f64>,
        /// The reference as it was written.
        reference: String,
    },
    /// A version of a dataset.
    Dataset {
        /// The dataset's name.
        name: String,
        /// Counts from 1.
        version: u64,
        /// Digest of the manifest.
        digest: Digest,
        /// The reference as it was written.
        reference: String,
    },
}

/// What a plugin's `run` returns when it succeeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PluginReturn {
    /// Only outputs that the plugin's manifest declares are kept.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// Numbers worth showing and comparing.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// What is to be changed, carried out with the acceptance of this result or not at all.
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// A change that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Records a new version of a model and, if `stage` is given, points the stage at it.
    RegisterModel {
        /// The model's name.
        name: String,
        /// Its bytes.
        artifact: ArtifactRef,
        /// Metrics kept with the version.
        metrics: BTreeMap<String, f64>,
        /// The stage to move, for example `production`.
        stage: Option<String>,
        /// Compare-and-set: the version that the stage pointed at when the plugin looked (null: at none). Ignored
        /// without a stage.
        expected_version: Option<u64>,
    },
}

/// `plugin.json` beside a component: what the workflow checker needs to know without running it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginManifest {
    /// The name used in `uses:`.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// One sentence for people.
    pub description: String,
    /// Keys of `with`.
    pub inputs: BTreeMap<String, PluginField>,
    /// Keys of `outputs`.
    pub outputs: BTreeMap<String, PluginField>,
}

/// One input or output of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginField {
    /// `any`, `string`, `number`, `boolean`, `list`, `map`, or `reference` (a text such as `model:NAME@STAGE` is resolved).
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether `with` must give it. Of no meaning for outputs.
    #[serde(default)]
    pub required: bool,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
}
