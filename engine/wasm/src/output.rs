//! Holds a call against the plugin's manifest: its arguments before, its return after.
//!
//! The workflow checker has already looked at names and literals; values that expressions gave are only known here. What
//! an effect means is not looked at: the runtime reads the rows it names.

use std::collections::BTreeMap;

use kickwheel_schemas::plugin::{PluginManifest, PluginReturn};
use serde_json::Value;

use crate::{CallFailure, Limits};

/// Most characters of a guest's text that are quoted in a message.
const QUOTE: usize = 80;

/// Whether the arguments fit the manifest.
pub(crate) fn check_arguments(manifest: &PluginManifest, with: &BTreeMap<String, Value>) -> Result<(), CallFailure> {
    for (name, field) in &manifest.inputs {
        let message = match with.get(name) {
            None if field.required => {
                format!("`with.{name}` is missing; it is {}", described(&field.ty, &field.description))
            }
            Some(value) if !field.accepts(value) => {
                format!("`with.{name}` is {}, but must be {}", shown(value), described(&field.ty, &field.description))
            }
            None | Some(_) => continue,
        };
        return Err(CallFailure::BadInput { message });
    }
    match with.keys().find(|name| !manifest.inputs.contains_key(*name)) {
        Some(name) => {
            let known = listed(manifest.inputs.keys());
            Err(CallFailure::BadInput { message: format!("`with.{name}` is unknown; it takes {known}") })
        }
        None => Ok(()),
    }
}

/// The guest's text as a return that the manifest declares.
pub(crate) fn read(manifest: &PluginManifest, text: &str, limits: &Limits) -> Result<PluginReturn, CallFailure> {
    let bad = |message| Err(CallFailure::BadOutput { message });
    if text.len() > limits.output_bytes {
        return bad(format!(
            "it returned {} bytes, but may return {}; keep large results in artifacts and return their digests",
            text.len(),
            limits.output_bytes
        ));
    }
    let ret: PluginReturn = match serde_json::from_str(text) {
        Ok(ret) => ret,
        Err(error) => {
            let start = quoted(text);
            return bad(format!("it returned {start}, which is not {{outputs, metrics, effects}} as JSON: {error}"));
        }
    };
    for (name, value) in &ret.outputs {
        match manifest.outputs.get(name) {
            None => {
                let known = listed(manifest.outputs.keys());
                return bad(format!("it returned the output {name:?}, but its plugin.json declares only {known}"));
            }
            Some(field) if !field.accepts(value) => {
                return bad(format!(
                    "it returned {} as the output {name:?}, which is declared as {}",
                    shown(value),
                    field.ty
                ));
            }
            Some(_) => {}
        }
    }
    Ok(ret)
}

fn described(ty: &str, description: &str) -> String {
    let article = if ty.starts_with('a') { "an" } else { "a" };
    if description.is_empty() { format!("{article} {ty}") } else { format!("{article} {ty}: {description}") }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => format!("the boolean {value}"),
        Value::Number(_) => format!("the number {value}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) => format!("a map of {}", map.len()),
    }
}

/// The start of a guest's text, safe to show in a terminal.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(QUOTE).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}
