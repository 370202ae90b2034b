//! Content keys: what a task's result depends on, part by part.
//!
//! Two tasks with equal parts do the same work, so one's result serves the other. The parts are kept, so that `cache why`
//! can say which one differed. Not part of the key: time-outs, resources, retries, and where a source file came from.

use std::collections::BTreeMap;

use kickwheel_core::{
    event::{JobProgram, Work},
    plan::Step,
};
use kickwheel_schemas::{ArtifactRef, Digest};
use serde_json::Value;

/// Raised when the meaning of a part changes, so that old results are not taken for new ones.
const KEY_VERSION: &str = "1";

/// The parts of a key, by name.
pub type Parts = BTreeMap<String, String>;

/// The parts for a job. `environment` is the digest of its image, else the environment that the pool declares; `source` is the
/// narrowed source tree.
pub fn parts(
    step: &Step,
    work: &Work,
    matrix: &BTreeMap<String, Value>,
    environment: &str,
    source: Option<&ArtifactRef>,
) -> Parts {
    let mut parts = Parts::from([("version".to_owned(), KEY_VERSION.to_owned())]);
    let Work::Job { program, image, env, files, resources: _ } = work else { return parts };
    match program {
        JobProgram::Script { script } => parts.insert("script".to_owned(), script.clone()),
        JobProgram::Argv { argv } => parts.insert("command".to_owned(), json(argv)),
    };
    match image {
        Some(_) => parts.insert("image".to_owned(), environment.to_owned()),
        None => parts.insert("environment".to_owned(), environment.to_owned()),
    };
    if let Some(source) = source {
        parts.insert("source".to_owned(), source.digest.to_string());
    }
    for (name, value) in env {
        parts.insert(format!("env.{name}"), value.clone());
    }
    for (path, artifact) in files {
        parts.insert(format!("files.{path}"), artifact.digest.to_string());
    }
    for (axis, value) in matrix {
        parts.insert(format!("matrix.{axis}"), json(value));
    }
    for (name, declaration) in &step.outputs {
        parts.insert(format!("outputs.{name}"), json(declaration));
    }
    parts
}

/// The key: digest of the parts in their order.
pub fn key(parts: &Parts) -> String {
    Digest::of(json(parts).as_bytes()).to_string()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("these values have string keys only")
}
