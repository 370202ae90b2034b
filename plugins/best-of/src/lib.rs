//! `best-of`: picks the task of a step with the best value of a metric.
//!
//! It does not compare with anything outside the run; that is `metrics-gate`.

use std::collections::BTreeSet;

use kickwheel_plugin::{Goal, Return, listed, metrics_of};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Arguments {
    candidates: Vec<Value>,
    metric: String,
    #[serde(default)]
    goal: Goal,
}

struct Candidate<'a> {
    index: u64,
    value: f64,
    task: &'a Value,
}

/// A task that did not succeed has no outputs, so it is no candidate even if it reported the metric.
fn succeeded(task: &Value) -> bool {
    task.get("state").is_none_or(|state| state == "succeeded")
}

fn run(with: Arguments) -> Result<Return, String> {
    let usable = with.candidates.iter().zip(0..).filter(|(task, _)| succeeded(task)).filter_map(|(task, place)| {
        let value = *metrics_of(task).get(&with.metric)?;
        let index = task.get("index").and_then(Value::as_u64).unwrap_or(place);
        Some(Candidate { index, value, task })
    });
    let better = |new: &Candidate, old: &Candidate| {
        let improvement = with.goal.improvement(new.value, old.value);
        improvement > 0.0 || (improvement == 0.0 && new.index < old.index)
    };
    let best = usable.reduce(|old, new| if better(&new, &old) { new } else { old });
    let best = best.ok_or_else(|| nothing_usable(&with))?;
    Ok(Return::default()
        .output("best", best.task.clone())
        .output("index", best.index)
        .output("value", best.value)
        .metric(&with.metric, best.value))
}

fn nothing_usable(with: &Arguments) -> String {
    let count = with.candidates.len();
    let metric = &with.metric;
    if count == 0 {
        return format!("there are no candidates to choose by {metric:?} from; give `candidates` the tasks of a step");
    }
    let succeeded: Vec<&Value> = with.candidates.iter().filter(|task| succeeded(task)).collect();
    let seen: BTreeSet<String> = succeeded.iter().flat_map(|task| metrics_of(task).into_keys()).collect();
    let done = succeeded.len();
    let seen = listed(&seen);
    format!(
        "none of {count} candidates ({done} succeeded) has a number for the metric {metric:?}; metrics seen: {seen}. write \
         it to $KICKWHEEL_METRICS or name another"
    )
}

kickwheel_plugin::plugin!(run);
