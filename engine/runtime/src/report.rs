//! The result goes back to where the work came from: a Git note on the commit.
//!
//! What is to be told is a row written with the event that ended the run, so it survives any crash; the reporter delivers
//! it, as often as it takes. Telling twice is harmless: a run's section of the note is replaced in place.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use kickwheel_core::{
    event::PinnedSource,
    state::{StepState, TaskStatus},
};
use kickwheel_repos::{NoteError, Subject};
use kickwheel_schemas::{Millis, api::DiagnosticView};
use kickwheel_store::{
    EventKey, Write, fault,
    rows::ReportRow,
    write::{Report, ReportDone, ReportRetry},
};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use crate::{
    driver::{self, Loaded},
    origins,
    shared::{DEFAULT_PROJECT, Shared},
};

/// Reports delivered in one round.
const AT_ONCE: u32 = 32;
/// Between two looks when nobody wakes the reporter.
const SLOW_POLL: Duration = Duration::from_secs(5);
/// First wait after a failure; doubles with each, up to [`RETRY_MAX_MS`].
const RETRY_MS: u64 = 1_000;
/// Longest wait between two tries.
const RETRY_MAX_MS: u64 = 300_000;
/// After so many failures a report is given up, and the log says so.
const MAX_ATTEMPTS: u32 = 50;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum ReportBody {
    /// How a run ended.
    Run {
        /// The bound repository.
        repo: String,
        /// Full hex commit.
        commit: String,
    },
    /// Workflow files with mistakes.
    Broken {
        /// The bound repository.
        repo: String,
        /// Full hex commit.
        commit: String,
        /// All mistakes.
        diagnostics: Vec<DiagnosticView>,
    },
}

/// The report of a run that has just ended, if it came from a commit.
pub fn of_run(loaded: &Loaded, now: Millis) -> Option<Write> {
    let source = told_to(loaded)?;
    let body = ReportBody::Run { repo: source.repo.clone(), commit: source.commit.clone() };
    Some(Write::Report(Report {
        project: DEFAULT_PROJECT.to_owned(),
        run: loaded.row.run,
        due_at: now,
        body: serde_json::to_value(body).expect("reports have string keys only"),
    }))
}

/// Whether the end of a run is told to anybody.
pub fn is_owed(loaded: &Loaded) -> bool {
    told_to(loaded).is_some()
}

/// The commit that is told; none for a run without one in a bound repository.
fn told_to(loaded: &Loaded) -> Option<&PinnedSource> {
    loaded.state.context.as_ref()?.source.as_ref().filter(|source| !source.repo.is_empty())
}

/// Delivers reports until the engine stops.
pub async fn reporter(shared: Arc<Shared>) {
    loop {
        match shared.store.reports_due(Millis::now(), AT_ONCE).await {
            Ok(rows) if !rows.is_empty() => {
                for row in rows {
                    deliver(&shared, row).await;
                }
                continue;
            }
            Ok(_) => {}
            Err(e) => debug!("reports cannot be read: {e}"),
        }
        let due = shared.store.next_report().await.ok().flatten();
        let wait = due.map_or(SLOW_POLL, |at| Duration::from_millis(at.since(Millis::now())).min(SLOW_POLL));
        tokio::select! {
            () = shared.reporter.notified() => {}
            () = tokio::time::sleep(wait.max(Duration::from_millis(20))) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn deliver(shared: &Arc<Shared>, row: ReportRow) {
    let run = row.run;
    fault::point("report.tell.before");
    let told = tell(shared, &row).await;
    fault::point("report.tell.after");
    let write = match told {
        Ok(()) => Write::ReportDone(ReportDone { run, due_at: row.due_at }),
        Err(reason) if row.attempts >= MAX_ATTEMPTS => {
            warn!(%run, "the note is given up after {MAX_ATTEMPTS} tries: {reason}");
            Write::ReportDone(ReportDone { run, due_at: row.due_at })
        }
        Err(reason) => {
            info!(%run, "the note is not written yet: {reason}");
            let wait = (RETRY_MS << row.attempts.min(16)).min(RETRY_MAX_MS);
            Write::ReportRetry(ReportRetry { run, due_at: Millis::now().plus(wait), reason })
        }
    };
    if let Err(e) = shared.store.write(vec![write]).await {
        debug!(%run, "what became of the note is not kept yet: {e}");
        tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn tell(shared: &Arc<Shared>, row: &ReportRow) -> Result<(), String> {
    let body: ReportBody = serde_json::from_value(row.body.clone()).map_err(|e| e.to_string())?;
    let (repo, commit, about, text) = match body {
        ReportBody::Run { repo, commit } => {
            let loaded = driver::peek(shared, row.run).await.map_err(|e| e.to_string())?;
            let Some(loaded) = loaded else { return Ok(()) };
            (repo, commit, Subject::Run(row.run.to_string()), describe_run(&loaded))
        }
        ReportBody::Broken { repo, commit, diagnostics } => {
            // No run came of it: the report is filed under the event that brought the files.
            let event = EventKey(row.run.0);
            (repo, commit, Subject::Event(event.to_string()), describe_broken(event, &diagnostics))
        }
    };
    let Some(bound) = shared.store.repo(DEFAULT_PROJECT, &repo).await.map_err(|e| e.to_string())? else {
        return Ok(());
    };
    let mirror = origins::mirror_of(shared, &bound).await.map_err(|e| e.to_string())?;
    shared.mirrors.add_note(&mirror, &commit, about, &text).await.map_err(|e: NoteError| e.to_string())
}

/// The section of a note that tells how a run ended.
fn describe_run(loaded: &Loaded) -> String {
    let mut out = String::new();
    let progress = driver::progress(loaded);
    let row = &loaded.row;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "workflow: {}", row.workflow);
    let _ = writeln!(out, "state: {}", progress.state.as_str());
    let _ = writeln!(out, "cause: {}", row.cause);
    if let Some(ended) = loaded.state.ended_at {
        let _ = writeln!(out, "took: {:.1} s", ended.since(row.created_at) as f64 / 1000.0);
    }
    for (step, state) in loaded.workflow.plan.steps.iter().zip(&loaded.state.steps) {
        let _ = writeln!(out, "step {}: {}", step.name, describe_step(state));
        for (index, task) in state.tasks().iter().enumerate() {
            match &task.status {
                TaskStatus::Succeeded { output, .. } if !output.metrics.is_empty() => {
                    let metrics: Vec<String> = output.metrics.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    let _ = writeln!(out, "  [{index}] {}", metrics.join(" "));
                }
                TaskStatus::Failed { failure, .. } => _ = writeln!(out, "  [{index}] failed: {}", failure.message),
                TaskStatus::Succeeded { .. }
                | TaskStatus::Ready { .. }
                | TaskStatus::Running { .. }
                | TaskStatus::Backoff { .. }
                | TaskStatus::Cancelled { .. } => {}
            }
        }
    }
    if let Some(context) = &loaded.state.context {
        let _ = writeln!(out, "url: {}", context.url);
    }
    out
}

fn describe_step(state: &StepState) -> String {
    match state {
        StepState::Waiting => "not run".to_owned(),
        StepState::Active { open, tasks } => format!("{open} of {} open", count(tasks.len())),
        StepState::Succeeded { tasks } => format!("succeeded ({})", count(tasks.len())),
        StepState::Failed { failure: Some(failure), .. } => format!("failed: {}", failure.message),
        StepState::Failed { failure: None, tasks } if state.is_cancelled() => {
            format!("cancelled ({})", count(tasks.len()))
        }
        StepState::Failed { failure: None, tasks } => format!("failed ({})", count(tasks.len())),
        StepState::Skipped { reason } => format!("skipped: {reason}"),
    }
}

fn count(tasks: usize) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

/// The section of a note that tells which files are not run. A warning keeps no file from being run.
fn describe_broken(event: EventKey, diagnostics: &[DiagnosticView]) -> String {
    let mut out = String::from("these workflow files have mistakes and are not run:\n");
    for d in diagnostics.iter().filter(|d| d.is_error()) {
        let _ = writeln!(out, "{}:{}:{}: {} [{}]", d.file, d.line, d.column, d.message, d.code);
        if let Some(help) = &d.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
    let _ = writeln!(out, "what the push meant for each workflow: kickwheel explain {event}");
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kickwheel_core::{
        event::{Failure, FailureKind, TaskOutput, TaskSpec, Work},
        state::TaskState,
    };
    use kickwheel_schemas::api::Severity;

    use super::*;

    fn task(status: TaskStatus) -> TaskState {
        let work = Work::Call {
            plugin: "best-of".to_owned(),
            digest: kickwheel_schemas::Digest::of(b"p"),
            with: BTreeMap::new(),
            references: Vec::new(),
        };
        let spec = TaskSpec { matrix: BTreeMap::new(), work };
        TaskState { spec, attempt: 1, user_failures: 0, platform_failures: 0, conflicts: 0, started_at: None, status }
    }

    #[test]
    fn a_step_is_told_as_what_became_of_its_tasks() {
        let at = Millis(0);
        let succeeded = || task(TaskStatus::Succeeded { output: TaskOutput::default(), at });
        let cancelled = || task(TaskStatus::Cancelled { at });
        let failure = Failure { kind: FailureKind::Exit, message: "no".to_owned() };
        let failed = || task(TaskStatus::Failed { failure: failure.clone(), at });
        let ended = |tasks| StepState::Failed { tasks, failure: None };
        let check = |state: StepState, expected: &str| assert_eq!(describe_step(&state), expected);
        check(StepState::Succeeded { tasks: vec![succeeded()] }, "succeeded (1 task)");
        check(StepState::Succeeded { tasks: vec![succeeded(), succeeded()] }, "succeeded (2 tasks)");
        check(ended(vec![cancelled()]), "cancelled (1 task)");
        check(ended(vec![succeeded(), cancelled()]), "cancelled (2 tasks)");
        check(ended(vec![failed(), cancelled()]), "failed (2 tasks)");
        check(ended(vec![failed()]), "failed (1 task)");
        check(StepState::Active { tasks: vec![cancelled()], open: 1 }, "1 of 1 task open");
    }

    #[test]
    fn a_broken_file_is_told_with_its_mistakes_and_where_to_ask() {
        let found = |severity, code: &str| DiagnosticView {
            file: ".kickwheel/w.yaml".to_owned(),
            line: 3,
            column: 1,
            severity,
            code: code.to_owned(),
            message: format!("{code} is found"),
            help: Some("change it".to_owned()),
            excerpt: String::new(),
        };
        let key = EventKey::new(Millis(1), [7; 10]);
        let text =
            describe_broken(key, &[found(Severity::Warning, "unused-input"), found(Severity::Error, "step-kind")]);
        let expected = format!(
            "these workflow files have mistakes and are not run:\n\
             .kickwheel/w.yaml:3:1: step-kind is found [step-kind]\n  help: change it\n\
             what the push meant for each workflow: kickwheel explain {key}\n"
        );
        assert_eq!(text, expected);
    }
}
