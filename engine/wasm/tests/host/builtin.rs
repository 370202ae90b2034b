//! The shipped plugins over the calls recorded in `plugins/<name>/calls.json`.

use std::{collections::BTreeMap, path::Path};

use kickwheel_schemas::plugin::{Effect, PluginCall, PluginReturn, Resolved};
use kickwheel_wasm::{Builtin, CallFailure, Limits, builtin, builtin_catalog};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::guests::{call_with, host};

/// One call and how it ends: exactly one of `returns` and `fails`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    case: String,
    with: BTreeMap<String, Value>,
    returns: Option<PluginReturn>,
    fails: Option<String>,
}

fn shipped(name: &str) -> &'static Builtin {
    builtin().iter().find(|plugin| plugin.name == name).expect("the plugin ships")
}

async fn check_recorded(name: &str, at_least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name).join("calls.json");
    let text = std::fs::read_to_string(&path).expect("every plugin has recorded calls");
    let recorded: Vec<Recorded> = serde_json::from_str(&text).expect("the recorded calls are well-formed");
    assert!(recorded.len() >= at_least, "{} of {at_least} calls are left", recorded.len());
    let host = host();
    let plugin = host.load(shipped(name).component, shipped(name).manifest()).expect("it is a plugin");
    for Recorded { case, with, returns, fails } in recorded {
        let expected = match (returns, fails) {
            (Some(ret), None) => Ok(ret),
            (None, Some(message)) => Err(CallFailure::Plugin { message }),
            _ => panic!("{case}: either `returns` or `fails`"),
        };
        let call = PluginCall { with, task: "0190/choose[0]".to_owned() };
        let report = host.call(&plugin, &call, &Limits::default()).await;
        assert_eq!(report.result, expected, "{name}: {case}");
    }
}

#[tokio::test]
async fn best_of_answers_as_recorded() {
    check_recorded("best-of", 12).await;
}

#[tokio::test]
async fn metrics_gate_answers_as_recorded() {
    check_recorded("metrics-gate", 14).await;
}

#[tokio::test]
async fn model_promote_answers_as_recorded() {
    check_recorded("model-promote", 9).await;
}

#[tokio::test]
async fn model_promote_expects_the_version_that_the_reference_resolved_to() {
    let host = host();
    let plugin =
        host.load(shipped("model-promote").component, shipped("model-promote").manifest()).expect("it is a plugin");
    let artifact = json!({ "digest": format!("sha256:{}", "ef".repeat(32)), "size": 3 });
    let mut call = call_with(json!({ "model": artifact, "name": "churn" }));
    // What the engine does before a call: form the reference, resolve it, put it in its place.
    let derived = plugin.manifest().derived_references(&call.with);
    assert_eq!(derived, BTreeMap::from([("current".to_owned(), "model:churn@production".to_owned())]));
    let resolved = Resolved::Model {
        name: "churn".to_owned(),
        version: 11,
        digest: plugin.digest().clone(),
        metrics: BTreeMap::new(),
        reference: derived["current"].clone(),
    };
    call.with.insert("current".to_owned(), serde_json::to_value(resolved).expect("it is JSON"));
    let report = host.call(&plugin, &call, &Limits::default()).await;
    let effects = report.result.expect("it promotes").effects;
    let [Effect::RegisterModel { expected_version, stage, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((*expected_version, stage.as_deref()), (Some(11), Some("production")));
}

#[test]
fn every_shipped_plugin_is_in_the_catalog_under_its_own_name() {
    let catalog = builtin_catalog();
    assert_eq!(catalog.keys().collect::<Vec<_>>(), ["best-of", "metrics-gate", "model-promote"]);
    for plugin in builtin() {
        let (digest, manifest) = &catalog[plugin.name];
        assert_eq!(manifest.name, plugin.name);
        assert_eq!(*digest, plugin.digest());
        for (name, field) in manifest.inputs.iter().chain(&manifest.outputs) {
            let known = ["any", "string", "number", "boolean", "list", "map", "reference"];
            assert!(known.contains(&field.ty.as_str()), "{}: {name} is of type {}", plugin.name, field.ty);
            assert!(!field.description.is_empty(), "{}: {name} is not described", plugin.name);
        }
    }
}

#[test]
fn shipped_components_are_small_and_name_no_folder_of_a_machine() {
    for plugin in builtin() {
        assert!(plugin.component.len() < 256 << 10, "{} has {} bytes", plugin.name, plugin.component.len());
        for folder in ["/home/", "/root/", "/tmp/", env!("CARGO_MANIFEST_DIR")] {
            let found = plugin.component.windows(folder.len()).any(|bytes| bytes == folder.as_bytes());
            assert!(!found, "{} holds the text {folder}", plugin.name);
        }
    }
}
