//! How a run ended, and why it failed: the reason, the last lines of the log, and the command that shows more.

use kickwheel_schemas::{
    Millis,
    api::{RunDetail, RunPhase, StepView, TaskView},
};

use super::{Wheel, label, metrics, plain};
use crate::{
    output::{Look, Paint, short},
    times,
};

/// Log lines shown of a failed task.
const TAIL_LINES: usize = 15;
/// Failed tasks whose log is shown; the others are only named.
const MAX_SHOWN: usize = 3;
/// Outputs and metrics shown of a single task, in characters; a table of results is what `runs get` is for.
const MAX_RESULT_CHARS: usize = 160;

/// A task that failed, with the end of its log.
pub struct Failed {
    /// As people name it.
    pub label: String,
    /// Why.
    pub reason: String,
    /// Empty when it has none, or when it could not be read.
    pub log: Vec<String>,
}

/// Reads the logs of the tasks that failed.
pub async fn failed(wheel: &Wheel, run: &RunDetail) -> Vec<Failed> {
    let mut all = Vec::new();
    for (step, task) in failed_tasks(run) {
        let log = if all.len() < MAX_SHOWN && task.attempt > 0 {
            // The run's outcome must be told even if a log cannot be read.
            wheel.log_tail(&run.summary.id, &step.name, task.index, TAIL_LINES).await.unwrap_or_default()
        } else {
            Vec::new()
        };
        let reason = task.reason.clone().unwrap_or_else(|| "no reason is known".to_owned());
        all.push(Failed { label: label(step, task), reason, log });
    }
    all
}

fn failed_tasks(run: &RunDetail) -> impl Iterator<Item = (&StepView, &TaskView)> {
    run.steps.iter().flat_map(|s| s.tasks.iter().map(move |t| (s, t))).filter(|(_, t)| t.state == "failed")
}

/// The last words about a run. `more` makes the command that shows a task's whole log.
pub fn ending(look: Look, run: &RunDetail, failed: &[Failed], more: impl Fn(&str) -> String) -> String {
    let summary = &run.summary;
    let began = times::read(&summary.created_at).unwrap_or(Millis(0));
    let took = summary.ended_at.as_deref().and_then(times::read).map(|end| times::brief(end.since(began)));
    let mut lines = vec![format!(
        "run {} of {} {}{}",
        short(&summary.id),
        look.paint(Paint::Strong, &summary.workflow),
        look.state(summary.state.as_str()),
        took.map(|t| format!(" in {t}")).unwrap_or_default()
    )];
    match summary.state {
        RunPhase::Succeeded => lines.extend(results(look, run)),
        RunPhase::Cancelled => lines.extend(run.cancel.iter().map(|who| format!("  {who}"))),
        RunPhase::Failed | RunPhase::Queued | RunPhase::Running | RunPhase::Waiting => {}
    }
    let early = run.steps.iter().filter(|s| s.state == "failed" && s.tasks.is_empty());
    for step in early {
        let reason = step.reason.as_deref().unwrap_or("no reason is known");
        lines.push(format!("  {} {}: {reason}", look.paint(Paint::Bad, "✗"), step.name));
    }
    for task in failed {
        lines.push(format!("  {} {}: {}", look.paint(Paint::Bad, "✗"), task.label, task.reason));
        lines.extend(task.log.iter().map(|line| format!("    {} {line}", look.paint(Paint::Quiet, "│"))));
        if !task.log.is_empty() {
            lines.push(format!("    {}", look.paint(Paint::Quiet, &format!("more: {}", more(&task.label)))));
        }
    }
    lines.join("\n")
}

/// What the tasks that nobody fans out gave: their outputs and metrics.
fn results(look: Look, run: &RunDetail) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &run.steps {
        for task in &step.tasks {
            let outputs = task.outputs.iter().filter(|(_, v)| !v.is_object() && !v.is_array());
            let mut words: Vec<String> = outputs.map(|(name, value)| format!("{name}={}", plain(value))).collect();
            words.extend(Some(metrics(task)).filter(|m| !m.is_empty()));
            if words.is_empty() {
                continue;
            }
            let text: String = words.join(" ").chars().take(MAX_RESULT_CHARS).collect();
            lines.push(format!("  {} {}", label(step, task), look.paint(Paint::Quiet, &text)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::samples::{RunSample, run};

    fn say(sample: RunSample, failed: &[Failed]) -> String {
        ending(Look::PLAIN, &run(sample), failed, |label| format!("kickwheel logs RUN '{label}'"))
    }

    #[test]
    fn a_success_shows_what_came_out() {
        insta::assert_snapshot!(say(RunSample::Succeeded, &[]));
    }

    #[test]
    fn a_failure_shows_why_and_how_to_see_more() {
        let failed = [Failed {
            label: "train[1]".to_owned(),
            reason: "exit code 1".to_owned(),
            log: vec!["Traceback (most recent call last):".to_owned(), "ValueError: no data".to_owned()],
        }];
        insta::assert_snapshot!(say(RunSample::Failed, &failed));
    }

    #[test]
    fn only_failed_tasks_are_asked_for_their_log() {
        let failed = run(RunSample::Failed);
        let tasks: Vec<String> = failed_tasks(&failed).map(|(s, t)| label(s, t)).collect();
        assert_eq!(tasks, ["train[1]"]);
    }
}
