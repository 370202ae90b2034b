//! `metrics-gate`: says whether a candidate's metric is better than that of a baseline, usually the model in production.
//!
//! It promotes nothing, and it does not fail when the candidate is worse: that is the output `better`, for an `if:`. It
//! does fail when it cannot compare, because a gate that opens silently is none.

use std::collections::BTreeMap;

use kickwheel_plugin::{Goal, Resolved, Return, listed, metrics_of};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Arguments {
    candidate: Value,
    baseline: Resolved,
    metric: String,
    #[serde(default)]
    goal: Goal,
    #[serde(default)]
    min_improvement: f64,
    #[serde(default)]
    when_missing: WhenMissing,
}

/// What a baseline without the metric means.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhenMissing {
    #[default]
    Fail,
    Pass,
}

fn run(with: Arguments) -> Result<Return, String> {
    let metric = &with.metric;
    if with.min_improvement < 0.0 {
        return Err(format!("`min_improvement` is {}, but must not be negative", with.min_improvement));
    }
    let candidate = find(&metrics_of(&with.candidate), metric, "the candidate")?;
    let (name, version, metrics) = match &with.baseline {
        Resolved::None { reference } => {
            return Ok(verdict(
                true,
                candidate,
                format!("there is no {reference} yet to compare {metric} {candidate} with"),
            ));
        }
        Resolved::Dataset { reference, .. } => {
            return Err(format!("`baseline` is {reference}, a dataset, which has no metrics; give a model"));
        }
        Resolved::Model { name, version, metrics, .. } => (name, version, metrics),
    };
    let baseline = match find(metrics, metric, &format!("version {version} of the model {name}")) {
        Ok(baseline) => baseline,
        Err(missing) => match with.when_missing {
            WhenMissing::Fail => return Err(format!("{missing}, or set `when_missing: pass`")),
            WhenMissing::Pass => {
                return Ok(verdict(true, candidate, format!("{missing}: passed, as `when_missing` says")));
            }
        },
    };
    let improvement = with.goal.improvement(candidate, baseline);
    // A candidate that is merely as good is not better, whatever the least improvement is.
    let better = improvement > 0.0 && improvement >= with.min_improvement;
    let reason = reason(&with, candidate, baseline, improvement, &format!("{name} version {version}"));
    Ok(verdict(better, candidate, reason).output("baseline", baseline))
}

fn find(metrics: &BTreeMap<String, f64>, metric: &str, whose: &str) -> Result<f64, String> {
    metrics.get(metric).copied().ok_or_else(|| {
        let seen = listed(metrics.keys());
        format!("{whose} has no number for the metric {metric:?} (it has: {seen}); name another metric")
    })
}

fn verdict(better: bool, candidate: f64, reason: String) -> Return {
    kickwheel_plugin::info(&reason);
    Return::default().output("better", better).output("candidate", candidate).output("reason", reason)
}

fn reason(with: &Arguments, candidate: f64, baseline: f64, improvement: f64, whose: &str) -> String {
    let metric = &with.metric;
    let (up, down) = match with.goal {
        Goal::Minimize => ("lower", "higher"),
        Goal::Maximize => ("higher", "lower"),
    };
    let compared = if improvement > 0.0 {
        format!("{} {up} than the {baseline} of {whose}", short(improvement))
    } else if improvement < 0.0 {
        format!("{} {down} than the {baseline} of {whose}", short(-improvement))
    } else {
        format!("the same as that of {whose}")
    };
    let asked = if improvement > 0.0 && improvement < with.min_improvement {
        format!("; at least {} is asked for", with.min_improvement)
    } else {
        String::new()
    };
    format!("{metric} {candidate} is {compared}{asked}")
}

/// A difference without the digits that subtraction makes up.
fn short(difference: f64) -> String {
    let scale = 10f64.powi(9 - difference.log10().ceil().clamp(-290.0, 290.0) as i32);
    let rounded = (difference * scale).round() / scale;
    if rounded.is_finite() { rounded.to_string() } else { difference.to_string() }
}

kickwheel_plugin::plugin!(run);
