//! `model-promote`: registers a trained model and points a stage at it.
//!
//! It changes nothing itself: it returns the effect, with the version that it saw at the stage. If the stage points at
//! another one when the result is accepted, the engine resolves `current` again and repeats the call. It does not ask
//! whether the model is any good; that is `metrics-gate`.

use std::collections::BTreeMap;

use kickwheel_plugin::{Effect, Resolved, Return, metrics_of};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Arguments {
    model: Value,
    name: String,
    #[serde(default = "production")]
    stage: String,
    #[serde(default)]
    metrics: Option<Value>,
    #[serde(default)]
    current: Option<Resolved>,
}

fn production() -> String {
    "production".to_owned()
}

fn run(with: Arguments) -> Result<Return, String> {
    let Arguments { model, name, stage, metrics, current } = with;
    if name.is_empty() || stage.is_empty() {
        return Err(format!("the name {name:?} and the stage {stage:?} must not be empty"));
    }
    if !model.get("digest").is_some_and(Value::is_string) {
        return Err("`model` is no artifact: it has no `digest`; give an output declared with a `path`, for example \
                    ${{ steps.choose.outputs.best.outputs.model }}"
            .to_owned());
    }
    let wanted = format!("model:{name}@{stage}");
    let (reference, version) = match current {
        // Without it the stage would be moved blindly, over whatever someone else put there meanwhile.
        None => return Err(format!("`current` is missing; give it the reference {wanted}")),
        Some(Resolved::None { reference }) => (reference, None),
        Some(Resolved::Model { reference, version, .. }) => (reference, Some(version)),
        Some(Resolved::Dataset { reference, .. }) => (reference, None),
    };
    if reference != wanted {
        return Err(format!(
            "`current` is {reference}, but the stage to be moved is {wanted}; leave it out or give that"
        ));
    }
    let metrics: BTreeMap<String, f64> = metrics.as_ref().map(metrics_of).unwrap_or_default();
    let replaces = version.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    kickwheel_plugin::info(&format!("asks to point {wanted} at the new version, in place of {replaces}"));
    let mut ret = Return::default().output("name", name.clone()).output("stage", stage.clone());
    if let Some(version) = version {
        ret = ret.output("replaces", version);
    }
    let effect =
        Effect::RegisterModel { name, artifact: model, metrics, stage: Some(stage), expected_version: version };
    Ok(ret.effect(effect))
}

kickwheel_plugin::plugin!(run);
