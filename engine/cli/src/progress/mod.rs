//! Following a run to its end: what is shown meanwhile, and what is said at the end.
//!
//! [`Wheel`] is where the run turns: in a server, or in this process. [`changes`] and [`frame`] turn what is known of a run
//! into text and are pure; [`live`] draws a frame in place on a terminal; [`ending`] says how it ended and why.

pub mod changes;
pub mod ending;
pub mod follow;
pub mod frame;
pub mod live;
mod wheel;

#[cfg(test)]
pub mod samples;

pub use follow::follow;
pub use wheel::{Wheel, failure};

use kickwheel_schemas::api::{StepView, TaskView};

/// A task as people name it within its run: `train[2]`, or `train` when the step is a single task.
pub fn label(step: &StepView, task: &TaskView) -> String {
    if step.array { format!("{}[{}]", step.name, task.index) } else { step.name.clone() }
}

/// Whether a task's state is its last.
pub fn has_ended(task: &TaskView) -> bool {
    matches!(task.state.as_str(), "succeeded" | "failed" | "cancelled")
}

/// A number as short as it can be without lying: `0.08`, `12`, `1.2e-7`.
pub fn number(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e9).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The metrics of a task as `name=value`, without the one that reports progress.
pub fn metrics(task: &TaskView) -> String {
    let shown = task.metrics.iter().filter(|(name, _)| name.as_str() != "progress");
    shown.map(|(name, value)| format!("{name}={}", number(*value))).collect::<Vec<_>>().join(" ")
}

/// The matrix values of a task as `name=value`.
pub fn matrix(task: &TaskView) -> String {
    task.matrix.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

/// A JSON value for people: a text without its quotes.
pub fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
