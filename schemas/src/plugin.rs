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

/// What a plugin's `run` returns when it succeeds. An unknown member is refused: it is a spelling mistake, or asks for
/// something that this engine would silently not do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// For an absent input of type `reference`: how it is formed from the other arguments, for example
    /// `model:{name}@{stage|production}`. `{x}` is the text of argument `x`; `{x|y}` is `y` when `x` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derive: Option<String>,
    /// Whether `with` must give it. Of no meaning for outputs.
    #[serde(default)]
    pub required: bool,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
}

impl PluginManifest {
    /// The references that `with` leaves out and that are formed from its other arguments: input name to reference text.
    ///
    /// They are resolved exactly like written ones. An input is left out of the answer when it is given, or when its
    /// template needs an argument that is absent and has no default.
    pub fn derived_references(&self, with: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
        let absent = self.inputs.iter().filter(|(name, _)| !with.contains_key(*name));
        absent.filter_map(|(name, field)| Some((name.clone(), fill(field.derive.as_deref()?, with)?))).collect()
    }
}

impl PluginField {
    /// Whether a value may stand for this field. A `reference` is taken both as it is written (a text) and resolved (a
    /// map). An unknown type accepts nothing, so that a misspelt manifest is noticed at the first call.
    pub fn accepts(&self, value: &Value) -> bool {
        match self.ty.as_str() {
            "any" => true,
            "string" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "list" => value.is_array(),
            "map" => value.is_object(),
            "reference" => value.is_string() || value.is_object(),
            _ => false,
        }
    }
}

/// Replaces `{name}` and `{name|default}`; none when a name without a default is absent or the braces do not match.
fn fill(template: &str, with: &BTreeMap<String, Value>) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (hole, tail) = after.split_once('}')?;
        let (name, default) = match hole.split_once('|') {
            Some((name, default)) => (name, Some(default)),
            None => (hole, None),
        };
        filled.push_str(before);
        match with.get(name) {
            Some(Value::String(text)) => filled.push_str(text),
            Some(Value::Null) | None => filled.push_str(default?),
            Some(other) => filled.push_str(&other.to_string()),
        }
        rest = tail;
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(derive: &str) -> PluginManifest {
        serde_json::from_value(json!({
            "name": "promote", "version": "1.0.0", "description": "Promotes.", "outputs": {},
            "inputs": {
                "name": { "type": "string", "required": true },
                "stage": { "type": "string" },
                "current": { "type": "reference", "derive": derive },
            },
        }))
        .expect("the manifest above is complete")
    }

    fn check(derive: &str, with: Value, expected: Option<&str>) {
        let with = serde_json::from_value(with).expect("the arguments are a map");
        let derived = manifest(derive).derived_references(&with);
        let expected = expected.map(|text| ("current".to_owned(), text.to_owned()));
        assert_eq!(derived, expected.into_iter().collect(), "{derive} with {with:?}");
    }

    #[test]
    fn an_absent_reference_is_formed_from_other_arguments() {
        let template = "model:{name}@{stage|production}";
        check(template, json!({ "name": "churn" }), Some("model:churn@production"));
        check(template, json!({ "name": "churn", "stage": "canary" }), Some("model:churn@canary"));
        check(template, json!({ "name": "churn", "stage": null }), Some("model:churn@production"));
        check("dataset:{name}", json!({ "name": 7 }), Some("dataset:7"));
    }

    #[test]
    fn a_given_reference_is_not_derived() {
        check("model:{name}", json!({ "name": "churn", "current": "model:other@production" }), None);
    }

    #[test]
    fn a_missing_argument_without_default_derives_nothing() {
        check("model:{name}@{stage|production}", json!({ "stage": "production" }), None);
        check("model:{name", json!({ "name": "churn" }), None);
    }

    #[test]
    fn a_field_accepts_only_values_of_its_type() {
        let values = [json!("a"), json!(1.5), json!(true), json!([1]), json!({ "a": 1 }), json!(null)];
        let accepted = |ty: &str| {
            let field = PluginField { ty: ty.to_owned(), derive: None, required: false, description: String::new() };
            values.iter().map(|value| field.accepts(value)).collect::<Vec<_>>()
        };
        assert_eq!(accepted("any"), [true; 6]);
        assert_eq!(accepted("string"), [true, false, false, false, false, false]);
        assert_eq!(accepted("number"), [false, true, false, false, false, false]);
        assert_eq!(accepted("boolean"), [false, false, true, false, false, false]);
        assert_eq!(accepted("list"), [false, false, false, true, false, false]);
        assert_eq!(accepted("map"), [false, false, false, false, true, false]);
        assert_eq!(accepted("reference"), [true, false, false, false, true, false]);
        assert_eq!(accepted("numbr"), [false; 6]);
    }
}
