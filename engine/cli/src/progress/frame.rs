//! A run as it looks at one moment, for drawing in place: a header, a line per step, and the tasks that run.

use kickwheel_schemas::{
    Millis,
    api::{RunDetail, StepView, TaskView},
};

use super::{has_ended, label, matrix, metrics};
use crate::{
    output::{Look, Paint, short},
    times,
};

/// Cells of a bar.
const BAR_CELLS: usize = 20;
/// Running tasks of an array step that get a line of their own.
const MAX_TASK_LINES: usize = 8;
/// Frames of the wheel.
const TURN: [&str; 4] = ["◐", "◓", "◑", "◒"];

/// The lines of a frame. `beat` turns the wheel; `rows` is how many lines there is room for.
pub fn frame(look: Look, run: &RunDetail, now: Millis, beat: usize, rows: usize) -> Vec<String> {
    let mut lines = vec![header(look, run, now, beat)];
    let width = run.steps.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
    for step in &run.steps {
        lines.push(step_line(look, step, width, beat));
        // A single task is on its step's line already.
        let mut running = step.tasks.iter().filter(|t| step.array && t.state == "running");
        for task in running.by_ref().take(MAX_TASK_LINES) {
            lines.push(task_line(look, step, task));
        }
        let more = running.count();
        if more > 0 {
            lines.push(look.paint(Paint::Quiet, &format!("      and {more} more")));
        }
    }
    if lines.len() > rows {
        let hidden = lines.len() - rows.saturating_sub(1);
        lines.truncate(rows.saturating_sub(1));
        lines.push(look.paint(Paint::Quiet, &format!("  … {hidden} more lines")));
    }
    lines
}

fn header(look: Look, run: &RunDetail, now: Millis, beat: usize) -> String {
    let summary = &run.summary;
    let began = times::read(&summary.created_at).unwrap_or(now);
    let ended = summary.ended_at.as_deref().and_then(times::read).unwrap_or(now);
    let state = summary.state.as_str();
    format!(
        "{} {}  run {}  {}  {}",
        symbol(look, state, beat),
        look.paint(Paint::Strong, &summary.workflow),
        short(&summary.id),
        look.state(state),
        times::brief(ended.since(began)),
    )
}

fn step_line(look: Look, step: &StepView, width: usize, beat: usize) -> String {
    let mut line = format!("  {} {:<width$}", symbol(look, &step.state, beat), step.name);
    let all = step.tasks.len();
    if step.array && all > 0 {
        let ended = step.tasks.iter().filter(|t| has_ended(t)).count();
        let failed = step.tasks.iter().filter(|t| t.state == "failed").count();
        line.push_str(&format!("  {} {ended}/{all}", bar(done(&step.tasks))));
        if failed > 0 {
            line.push_str(&format!("  {}", look.paint(Paint::Bad, &format!("{failed} failed"))));
        }
    } else if let [task] = step.tasks.as_slice() {
        if let Some(progress) = task.progress.filter(|_| task.state == "running") {
            line.push_str(&format!("  {} {:.0}%", bar(progress), progress * 100.0));
        }
        let about = about(task);
        if !about.is_empty() {
            line.push_str(&format!("  {}", look.paint(Paint::Quiet, &about)));
        }
    }
    if let Some(reason) = &step.reason {
        line.push_str(&format!("  {}", look.paint(Paint::Quiet, reason)));
    } else if step.array
        && let Some(waits) = step.tasks.iter().filter(|t| t.state == "ready").find_map(|t| t.reason.as_ref())
    {
        line.push_str(&format!("  {}", look.paint(Paint::Careful, waits)));
    }
    line.truncate(line.trim_end().len());
    line
}

fn task_line(look: Look, step: &StepView, task: &TaskView) -> String {
    let name = label(step, task);
    let progress = task.progress.map(|p| format!("  {} {:.0}%", bar(p), p * 100.0)).unwrap_or_default();
    let words = [matrix(task), metrics(task)].join("  ");
    format!("      {name}{progress}  {}", look.paint(Paint::Quiet, words.trim()))
}

fn about(task: &TaskView) -> String {
    let cached = task.cached_from.as_ref().map(|_| "from the cache".to_owned());
    let words = [cached.unwrap_or_default(), metrics(task), task.reason.clone().unwrap_or_default()];
    words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join("  ")
}

/// Ended tasks count whole, running ones by what they report.
fn done(tasks: &[TaskView]) -> f64 {
    let sum: f64 = tasks.iter().map(|t| if has_ended(t) { 1.0 } else { t.progress.unwrap_or(0.0) }).sum();
    sum / tasks.len() as f64
}

fn bar(fraction: f64) -> String {
    let full = (fraction.clamp(0.0, 1.0) * BAR_CELLS as f64).floor() as usize;
    format!("{}{}", "━".repeat(full), "┄".repeat(BAR_CELLS - full))
}

fn symbol(look: Look, state: &str, beat: usize) -> String {
    let symbol = match state {
        "succeeded" => "✓",
        "failed" => "✗",
        "skipped" | "cancelled" => "-",
        "running" => TURN[beat % TURN.len()],
        _ => "·",
    };
    Paint::of(state).map_or_else(|| symbol.to_owned(), |paint| look.paint(paint, symbol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::samples::{BEGAN, RunSample, run};

    fn draw(sample: RunSample, rows: usize) -> String {
        frame(Look::PLAIN, &run(sample), BEGAN.plus(10_000), 0, rows).join("\n")
    }

    #[test]
    fn a_queued_run_shows_its_steps() {
        insta::assert_snapshot!(draw(RunSample::Queued, 50));
    }

    #[test]
    fn a_running_array_shows_its_bar_its_tasks_and_what_waits() {
        insta::assert_snapshot!(draw(RunSample::Training, 50));
    }

    #[test]
    fn a_failed_run_shows_what_failed_and_what_was_skipped() {
        insta::assert_snapshot!(draw(RunSample::Failed, 50));
    }

    #[test]
    fn a_frame_never_has_more_lines_than_there_is_room_for() {
        for rows in 1..6 {
            assert_eq!(draw(RunSample::Training, rows).lines().count(), rows);
        }
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0.999), "━".repeat(19) + "┄");
        assert_eq!(bar(1.0), "━".repeat(20));
        assert_eq!(bar(f64::NAN), "┄".repeat(20));
    }
}
