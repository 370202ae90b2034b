//! What has changed between two looks at a run, one line each: progress for files, pipes and logs of other programs.

use std::collections::HashMap;

use kickwheel_schemas::{
    Millis,
    api::{RunDetail, RunPhase, StepView, TaskView},
};

use super::{label, matrix, metrics};
use crate::{
    output::{Look, Paint},
    times,
};

/// The lines to print after `before` (none at the first look) now that `run` is known. `now` is used where a change has
/// no time of its own.
pub fn changes(look: Look, before: Option<&RunDetail>, run: &RunDetail, now: Millis) -> Vec<String> {
    let began = times::read(&run.summary.created_at).unwrap_or(now);
    // Nothing happens in a run after its end, however late we look.
    let now = run.summary.ended_at.as_deref().and_then(times::read).map_or(now, |end| end.min(now));
    let line = |at: Millis, text: String| {
        format!("{} {text}", look.paint(Paint::Quiet, &format!("{:>7}", times::brief(at.since(began)))))
    };
    let mut lines = Vec::new();
    if before.is_none() {
        let RunDetail { summary, decision, .. } = run;
        lines.push(line(began, format!("run {} of {}: {}", summary.id, summary.workflow, summary.cause)));
        if !decision.is_empty() && *decision != summary.cause {
            lines.push(line(began, format!("started because {decision}")));
        }
    }
    if let (Some(cancel), None) = (&run.cancel, before.and_then(|b| b.cancel.as_ref())) {
        lines.push(line(now, format!("cancel asked for: {cancel}")));
    }
    let steps: HashMap<&str, &StepView> = before.iter().flat_map(|b| &b.steps).map(|s| (s.name.as_str(), s)).collect();
    // Steps come in plan order, but what happened did so in the order of time.
    let mut timed = Vec::new();
    for step in &run.steps {
        let old = steps.get(step.name.as_str()).copied();
        if let Some(text) = step_change(look, old, step) {
            timed.push((now, text));
        }
        for (at, task) in step.tasks.iter().enumerate() {
            let old = old.and_then(|s| s.tasks.get(at));
            if let Some((when, text)) = task_change(look, old, step, task) {
                timed.push((when.unwrap_or(now), text));
            }
        }
    }
    timed.sort_by_key(|(at, _)| *at);
    lines.extend(timed.into_iter().map(|(at, text)| line(at, text)));
    let ended = run.summary.state.is_terminal() && before.is_none_or(|b| !b.summary.state.is_terminal());
    let waits = before.is_some_and(|b| b.summary.state != run.summary.state) && run.summary.state == RunPhase::Waiting;
    if ended || waits {
        lines.push(line(now, format!("run {}", look.state(run.summary.state.as_str()))));
    }
    lines
}

/// Steps without tasks speak for themselves; otherwise their tasks do.
fn step_change(look: Look, old: Option<&StepView>, step: &StepView) -> Option<String> {
    let ended_without_tasks =
        step.tasks.is_empty() && matches!(step.state.as_str(), "skipped" | "failed" | "succeeded");
    if !ended_without_tasks || old.is_some_and(|o| o.state == step.state) {
        return None;
    }
    let reason = step.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
    Some(format!("{} {}{reason}", step.name, look.state(&step.state)))
}

fn task_change(
    look: Look,
    old: Option<&TaskView>,
    step: &StepView,
    task: &TaskView,
) -> Option<(Option<Millis>, String)> {
    let same = old.is_some_and(|o| o.state == task.state && o.attempt == task.attempt);
    // `ready` is no news: each task is that before it runs. What it waits for is.
    if same && old.is_some_and(|o| o.reason == task.reason || task.state != "ready") {
        return None;
    }
    if task.state == "ready" && task.reason.is_none() {
        return None;
    }
    let time = |text: &Option<String>| text.as_deref().and_then(times::read);
    let (when, about) = match task.state.as_str() {
        "running" => (time(&task.started_at), matrix(task)),
        "succeeded" => match &task.cached_from {
            Some(from) => (time(&task.ended_at), format!("from the cache of {from}")),
            None => (time(&task.ended_at), metrics(task)),
        },
        "failed" | "cancelled" => (time(&task.ended_at), task.reason.clone().unwrap_or_default()),
        _ => (None, task.reason.clone().unwrap_or_default()),
    };
    let mut text = format!("{} {}", label(step, task), look.state(&task.state));
    if task.attempt > 1 {
        text.push_str(&format!(" (attempt {})", task.attempt));
    }
    if !about.is_empty() {
        text.push(' ');
        text.push_str(&about);
    }
    Some((when, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::samples::{RunSample, run};

    const NOW: Millis = Millis(1_700_000_020_000);

    fn lines(before: Option<&RunDetail>, now: &RunDetail) -> String {
        changes(Look::PLAIN, before, now, NOW).join("\n")
    }

    #[test]
    fn the_first_look_tells_everything_so_far_in_the_order_of_time() {
        insta::assert_snapshot!(lines(None, &run(RunSample::Training)));
    }

    #[test]
    fn only_what_is_new_is_told() {
        insta::assert_snapshot!(lines(Some(&run(RunSample::Training)), &run(RunSample::Failed)));
    }

    #[test]
    fn nothing_new_says_nothing() {
        for sample in [RunSample::Queued, RunSample::Training, RunSample::Failed, RunSample::Succeeded] {
            assert_eq!(lines(Some(&run(sample)), &run(sample)), "");
        }
    }
}
