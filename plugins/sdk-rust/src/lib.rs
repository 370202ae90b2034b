//! Write a Kickwheel plugin in Rust.
//!
//! A plugin is one function from its typed arguments to a [`Return`]; [`plugin!`] exports it. Arguments are what the step's
//! `with` holds, so they are described by a struct that derives `Deserialize`. What went wrong is said with an `Err`: a
//! lower-case fragment that names the value and what to do.
//!
//! ```ignore
//! #[derive(serde::Deserialize)]
//! struct Arguments { metric: String }
//!
//! fn run(with: Arguments) -> Result<Return, String> {
//!     Ok(Return::default().output("seen", with.metric))
//! }
//!
//! kickwheel_plugin::plugin!(run);
//! ```
//!
//! Deliberately absent: time, randomness, files and network. The host answers them with constants or not at all, so that
//! a call is a pure function of its arguments. What is to be changed in the world is returned as an [`Effect`].
//!
//! The shapes are those of `schemas/src/plugin.rs`, written down again here so that a guest stays small; tests of
//! `engine/wasm` hold both against each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

#[doc(hidden)]
pub mod bindings {
    //! Generated from `schemas/wit`.
    wit_bindgen::generate!({
        path: "../../schemas/wit",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "kickwheel_plugin::bindings",
    });
}

/// What a plugin returns when it succeeds.
#[derive(Debug, Default, Serialize)]
pub struct Return {
    outputs: BTreeMap<String, Value>,
    metrics: BTreeMap<String, f64>,
    effects: Vec<Effect>,
}

impl Return {
    /// Sets an output, which `plugin.json` must declare.
    #[must_use]
    pub fn output(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.outputs.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a metric of this task.
    #[must_use]
    pub fn metric(mut self, name: &str, value: f64) -> Self {
        self.metrics.insert(name.to_owned(), value);
        self
    }

    /// Asks for a change, which is made together with the acceptance of this result or not at all.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

/// A change that a plugin asks for.
#[derive(Debug, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Records a new version of a model and points `stage` at it, if the stage still points at `expected_version`.
    RegisterModel {
        /// The model's name.
        name: String,
        /// Its bytes, as an output of another step named them.
        artifact: Value,
        /// Metrics kept with the version.
        metrics: BTreeMap<String, f64>,
        /// The stage to move.
        stage: Option<String>,
        /// What the stage pointed at when the plugin looked; none: at nothing.
        expected_version: Option<u64>,
    },
}

/// What a `reference` argument such as `model:churn@production` resolved to.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resolved {
    /// Nothing bears that name yet.
    None {
        /// As it was written.
        reference: String,
    },
    /// A version of a named model.
    Model {
        /// The model's name.
        name: String,
        /// Counts from 1.
        version: u64,
        /// Metrics recorded with it.
        metrics: BTreeMap<String, f64>,
        /// As it was written.
        reference: String,
    },
    /// A version of a dataset.
    Dataset {
        /// The dataset's name.
        name: String,
        /// Counts from 1.
        version: u64,
        /// As it was written.
        reference: String,
    },
}

/// Which of two numbers is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The smaller one, as for a loss.
    #[default]
    Minimize,
    /// The larger one, as for an accuracy.
    Maximize,
}

impl Goal {
    /// By how much `new` is better than `old`; negative when it is worse.
    pub fn improvement(self, new: f64, old: f64) -> f64 {
        match self {
            Self::Minimize => old - new,
            Self::Maximize => new - old,
        }
    }
}

/// The metrics of a task object (its member `metrics`), or of a plain map of numbers. What is no number is left out: a
/// NaN arrives as null.
pub fn metrics_of(task_or_map: &Value) -> BTreeMap<String, f64> {
    let map = match task_or_map.get("metrics") {
        Some(metrics @ Value::Object(_)) => metrics,
        _ => task_or_map,
    };
    let numbers = map.as_object().into_iter().flatten();
    numbers.filter_map(|(name, value)| Some((name.clone(), value.as_f64().filter(|v| v.is_finite())?))).collect()
}

/// Names for a message: `a, b, c`, or `none`.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Writes a line to the task's log.
pub fn info(message: &str) {
    bindings::kickwheel::plugin::host::log("info", message);
}

/// Answers a call: what [`plugin!`] exports.
#[doc(hidden)]
pub fn answer<A: DeserializeOwned>(call: &str, run: fn(A) -> Result<Return, String>) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Call<A> {
        with: A,
    }
    // A panic ends the guest without a word otherwise.
    std::panic::set_hook(Box::new(|panic| bindings::kickwheel::plugin::host::log("error", &panic.to_string())));
    let call: Call<A> = serde_json::from_str(call).map_err(|error| {
        // The position is one in the call's JSON, which whoever wrote the workflow never sees.
        let error = error.to_string();
        let what = error.split(" at line ").next().unwrap_or(&error);
        format!("read the step's `with`: {what}")
    })?;
    let ret = run(call.with)?;
    serde_json::to_string(&ret).map_err(|error| format!("write the result: {error}"))
}

/// Exports a function `fn(Arguments) -> Result<Return, String>` as this component's `run`.
#[macro_export]
macro_rules! plugin {
    ($run:path) => {
        struct Plugin;
        impl $crate::bindings::Guest for Plugin {
            fn run(call: String) -> Result<String, String> {
                $crate::answer(&call, $run)
            }
        }
        $crate::bindings::export!(Plugin);
    };
}
