//! Calls of plugins.
//!
//! References are resolved here, right before the call; what they resolved to is kept in the task's journaled output,
//! and the effects that rest on it are checked again in the accepting transaction.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use kickwheel_core::{
    decide::Ending,
    event::{Failure, FailureKind, TaskOutput, Work},
};
use kickwheel_schemas::{
    AttemptKey,
    plugin::{PluginCall, Resolved},
};
use kickwheel_store::{ReadError, rows::AssetKind};
use kickwheel_wasm::{CallFailure, Limits};
use serde_json::Value;
use tracing::warn;

use crate::shared::{Counters, DEFAULT_PROJECT, Shared};

/// Whether a call reads nothing from the outside, so that it may run ahead of a commit.
pub fn is_pure(shared: &Shared, work: &Work) -> bool {
    let Work::Call { digest, with, references, .. } = work else { return false };
    references.is_empty() && shared.manifest(digest).is_some_and(|m| m.derived_references(with).is_empty())
}

/// Whether a call can begin at once, without compiling the plugin first.
pub fn is_loaded(shared: &Shared, work: &Work) -> bool {
    let Work::Call { digest, .. } = work else { return false };
    shared.plugins.lock().expect("no holder of this lock panics").contains_key(digest)
}

/// Performs a call and says how it ended.
pub async fn call_now(shared: &Arc<Shared>, key: &AttemptKey, work: &Work) -> Ending {
    let Work::Call { plugin: name, digest, with, references } = work else {
        return Ending::Lost { message: "a job was taken for a plugin call".to_owned() };
    };
    let plugin = match shared.plugin(digest).await {
        Some(Ok(plugin)) => plugin,
        Some(Err(e)) => {
            let message = format!("plugin {name} cannot be loaded: {e}");
            return Ending::Failed(Failure { kind: FailureKind::Plugin, message });
        }
        None => {
            return Ending::Failed(Failure {
                kind: FailureKind::Plugin,
                message: format!(
                    "plugin {name} with digest {digest} is not in this binary; use the binary that compiled the workflow, \
                 or run the workflow's present version"
                ),
            });
        }
    };
    let mut with = with.clone();
    let mut wanted: BTreeMap<String, String> = plugin.manifest().derived_references(&with);
    for name in references {
        if let Some(Value::String(text)) = with.get(name) {
            wanted.insert(name.clone(), text.clone());
        }
    }
    for (name, reference) in wanted {
        match resolve(shared, &reference).await {
            Ok(Ok(resolved)) => {
                with.insert(name, serde_json::to_value(resolved).expect("references have string keys only"));
            }
            Ok(Err(message)) => return Ending::Failed(Failure { kind: FailureKind::Plugin, message }),
            Err(e) => return Ending::Lost { message: format!("{reference} could not be resolved: {e}") },
        }
    }
    Counters::count(&shared.counters.plugin_calls);
    let call = PluginCall { with, task: key.task.to_string() };
    let report = shared.wasm.call(&plugin, &call, &Limits::default()).await;
    if !report.logs.is_empty() {
        keep_log(shared, key, &report.logs).await;
    }
    match report.result {
        Ok(returned) => Ending::Succeeded {
            output: TaskOutput {
                outputs: returned.outputs,
                metrics: returned.metrics,
                effects: returned.effects,
                cached_from: None,
            },
            changed: Vec::new(),
        },
        Err(CallFailure::Unavailable { message }) => Ending::Lost { message },
        Err(
            e @ (CallFailure::BadInput { .. }
            | CallFailure::Trap { .. }
            | CallFailure::OutOfFuel { .. }
            | CallFailure::TimedOut { .. }
            | CallFailure::OutOfMemory { .. }
            | CallFailure::BadOutput { .. }
            | CallFailure::Plugin { .. }),
        ) => Ending::Failed(Failure { kind: FailureKind::Plugin, message: format!("{name}: {e}") }),
    }
}

/// Resolves `model:NAME@STAGE`, `model:NAME@vN`, `model:NAME` (the newest), `dataset:NAME` and `dataset:NAME@vN`. The
/// inner error is the user's: a text of no such form.
async fn resolve(shared: &Shared, reference: &str) -> Result<Result<Resolved, String>, ReadError> {
    let none = || Ok(Ok(Resolved::None { reference: reference.to_owned() }));
    let Some((kind, rest)) = reference.split_once(':') else {
        return Ok(Err(format!("{reference:?} is no reference; write model:NAME@STAGE or dataset:NAME")));
    };
    let (name, selector) = match rest.split_once('@') {
        Some((name, selector)) => (name, Some(selector)),
        None => (rest, None),
    };
    let number = selector.and_then(|s| s.strip_prefix('v')).and_then(|n| n.parse::<u64>().ok());
    let kind = match kind {
        "model" => AssetKind::Model,
        "dataset" => AssetKind::Dataset,
        _ => return Ok(Err(format!("{reference:?} is no reference; write model:NAME@STAGE or dataset:NAME"))),
    };
    let found = match (kind, selector, number) {
        (AssetKind::Model, Some(stage), None) => shared.store.stage(DEFAULT_PROJECT, name, stage).await?,
        (AssetKind::Dataset, Some(other), None) => {
            return Ok(Err(format!("{reference:?}: a dataset has no stage {other:?}; write dataset:{name} or @vN")));
        }
        (_, _, number) => shared.store.asset_version(DEFAULT_PROJECT, kind, name, number).await?,
    };
    let Some(version) = found else { return none() };
    let (name, reference, digest) = (name.to_owned(), reference.to_owned(), version.artifact.digest);
    Ok(Ok(match kind {
        AssetKind::Model => {
            Resolved::Model { name, version: version.version, digest, metrics: version.metrics, reference }
        }
        AssetKind::Dataset => Resolved::Dataset { name, version: version.version, digest, reference },
    }))
}

/// Where a plugin's log is kept. It lies there before the result is accepted, and is shown only afterwards.
pub fn log_file(shared: &Shared, key: &AttemptKey) -> PathBuf {
    shared.folder.path("plugin-logs").join(key.task.run.to_string()).join(format!("{}.log", key.file_name()))
}

async fn keep_log(shared: &Shared, key: &AttemptKey, lines: &[kickwheel_wasm::LogLine]) {
    let path = log_file(shared, key);
    let lines: Vec<String> = lines.iter().map(|l| format!("{}: {}\n", level(l), l.message)).collect();
    let text = lines.concat();
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let written = async {
        tokio::fs::create_dir_all(&folder).await?;
        tokio::fs::write(&path, text).await
    };
    if let Err(e) = written.await {
        warn!("keep the plugin's log in {}: {e}", path.display());
    }
}

fn level(line: &kickwheel_wasm::LogLine) -> &'static str {
    use kickwheel_wasm::LogLevel;
    match line.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}
