//! Rows and states as the API shows them. Reads only.

use std::{collections::BTreeMap, sync::Arc};

use kickwheel_core::{
    event::Work,
    plan::{Phase, Step},
    state::{StepState, TaskState, TaskStatus},
};
use kickwheel_pool::Observed;
use kickwheel_schemas::{
    AttemptKey, Millis, TaskKey,
    api::{AssetVersionView, AssetView, EventView, RunDetail, RunSummary, Severity, StepView, TaskView, WorkflowView},
};
use kickwheel_store::{
    ReadError,
    rows::{AssetKind, AssetRow, EventRow, RunRow, WatchRow},
};
use serde_json::{Value, json};

use crate::{
    driver::{Loaded, progress},
    registry::{Entry, EntryOrigin},
    shared::{Shared, WatchTrouble},
};

/// A run in a list.
pub fn summary(row: &RunRow) -> RunSummary {
    RunSummary {
        id: row.run.to_string(),
        state: row.state,
        workflow: row.workflow.clone(),
        workflow_version: row.source_digest.to_string(),
        project: row.project.clone(),
        branch: row.branch.clone(),
        commit: row.commit.clone(),
        cause: row.cause.clone(),
        event_source: row.event_source.clone(),
        event_id: row.event_id.clone(),
        generation: row.generation,
        created_at: row.created_at.to_rfc3339(),
        ended_at: row.ended_at.map(Millis::to_rfc3339),
    }
}

/// A run in memory, as it stands now.
pub fn summary_now(loaded: &Loaded) -> RunSummary {
    let now = progress(loaded);
    summary(&RunRow { state: now.state, ended_at: now.ended_at, ..(*loaded.row).clone() })
}

/// One run in full.
pub async fn detail(shared: &Arc<Shared>, loaded: &Loaded) -> Result<RunDetail, ReadError> {
    let now = progress(loaded);
    let row = RunRow { state: now.state, ended_at: now.ended_at, ..(*loaded.row).clone() };
    let mut steps = Vec::new();
    for (step, state) in loaded.workflow.plan.steps.iter().zip(&loaded.state.steps) {
        steps.push(step_view(shared, loaded, step, state).await);
    }
    let first = loaded.state.steps.iter().flat_map(StepState::tasks).filter_map(|task| task.started_at).min();
    let first_task_ms = match first {
        Some(first) => {
            let received = shared.store.event(row.event_key).await?.map_or(row.created_at, |e| e.received_at);
            Some(first.since(received))
        }
        None => None,
    };
    Ok(RunDetail {
        summary: summary(&row),
        inputs: loaded.state.context.as_ref().map(|c| c.inputs.clone()).unwrap_or_default(),
        decision: row.decision.clone(),
        cancel: loaded.state.cancel.as_ref().map(|c| match c.reason.as_str() {
            "" => format!("by {}", c.by),
            reason => format!("by {}: {reason}", c.by),
        }),
        images: loaded.state.images.clone(),
        steps,
        first_task_ms,
    })
}

async fn step_view(shared: &Arc<Shared>, loaded: &Loaded, step: &Step, state: &StepState) -> StepView {
    let ended = loaded.state.is_finished();
    let (name, reason) = match state {
        StepState::Waiting if ended => ("skipped", Some("its phase was not entered".to_owned())),
        StepState::Waiting => ("waiting", None),
        StepState::Active { .. } => ("running", None),
        StepState::Succeeded { .. } => ("succeeded", None),
        StepState::Failed { .. } if state.is_cancelled() => ("cancelled", None),
        StepState::Failed { failure, .. } => ("failed", failure.as_ref().map(|f| f.message.clone())),
        StepState::Skipped { reason } => ("skipped", Some(reason.clone())),
    };
    let mut tasks = Vec::new();
    for (index, task) in state.tasks().iter().enumerate() {
        tasks.push(task_view(shared, loaded, step, u32::try_from(index).unwrap_or(u32::MAX), task).await);
    }
    StepView {
        name: step.name.clone(),
        phase: match step.phase {
            Phase::Main => "main",
            Phase::OnFailure => "on_failure",
            Phase::Finally => "finally",
        }
        .to_owned(),
        state: name.to_owned(),
        needs: step.needs.iter().map(|n| loaded.workflow.plan.steps[*n].name.clone()).collect(),
        reason,
        array: step.matrix.is_some(),
        tasks,
    }
}

async fn task_view(shared: &Arc<Shared>, loaded: &Loaded, step: &Step, index: u32, task: &TaskState) -> TaskView {
    let key = TaskKey { run: loaded.row.run, step: step.name.clone(), index };
    let mut view = TaskView {
        id: key.to_string(),
        index,
        state: String::new(),
        attempt: task.attempt,
        matrix: task.spec.matrix.clone(),
        outputs: BTreeMap::new(),
        metrics: BTreeMap::new(),
        progress: None,
        reason: None,
        cached_from: None,
        pid: None,
        started_at: task.started_at.map(Millis::to_rfc3339),
        ended_at: None,
    };
    match &task.status {
        TaskStatus::Ready { .. } => {
            "ready".clone_into(&mut view.state);
            view.reason = match task.spec.work {
                Work::Job { image: Some(_), .. } => Some("waits for a place on the docker pool".to_owned()),
                Work::Job { image: None, .. } => Some("waits for a place on the local pool".to_owned()),
                Work::Call { .. } => None,
            };
        }
        TaskStatus::Running { since: _ } => {
            "running".clone_into(&mut view.state);
            live(shared, &task.spec.work, &AttemptKey { task: key, attempt: task.attempt }, &mut view).await;
        }
        TaskStatus::Backoff { until, failure } => {
            "backoff".clone_into(&mut view.state);
            view.reason = Some(format!("tries again at {}: {}", until.to_rfc3339(), failure.message));
        }
        TaskStatus::Succeeded { output, at } => {
            "succeeded".clone_into(&mut view.state);
            view.outputs.clone_from(&output.outputs);
            view.metrics.clone_from(&output.metrics);
            view.cached_from.clone_from(&output.cached_from);
            view.ended_at = Some(at.to_rfc3339());
        }
        TaskStatus::Failed { failure, at } => {
            "failed".clone_into(&mut view.state);
            view.reason = Some(failure.message.clone());
            view.ended_at = Some(at.to_rfc3339());
        }
        TaskStatus::Cancelled { at } => {
            "cancelled".clone_into(&mut view.state);
            view.ended_at = Some(at.to_rfc3339());
        }
    }
    view
}

/// What the pool says about a running task. Only for people: without an answer the view says less.
async fn live(shared: &Arc<Shared>, work: &Work, key: &AttemptKey, view: &mut TaskView) {
    if let Ok(Observed::Running { heartbeat, .. }) = shared.pools.of(work).pool.observe(key).await {
        view.progress = heartbeat.progress;
        view.pid = Some(heartbeat.child_pid);
    }
}

/// An event in a list.
pub fn event(row: &EventRow, runs: Vec<String>) -> EventView {
    EventView {
        id: row.key.to_string(),
        state: row.state.as_str().to_owned(),
        event: row.event.clone(),
        received_at: row.received_at.to_rfc3339(),
        reason: row.reason.clone(),
        runs,
    }
}

/// A workflow file of the registry.
pub fn workflow(entry: &Entry, project: &str, paused: bool, inputs: BTreeMap<String, Value>) -> WorkflowView {
    let state = match (&entry.plan, paused) {
        (None, _) => "broken",
        (Some(_), true) => "paused",
        (Some(_), false) => "active",
    };
    let (origin, commit) = match &entry.origin {
        EntryOrigin::Applied { file } => (format!("applied {file}"), None),
        EntryOrigin::Repo { repo, path, commit, tree: _ } => (format!("{repo}:{path}"), Some(commit.clone())),
    };
    let mut diagnostics = entry.diagnostics.clone();
    if entry.plan.is_some() {
        // Revisions of before there were severities hold none; what did not keep a file from compiling is a warning.
        for found in &mut diagnostics {
            found.severity = Severity::Warning;
        }
    }
    WorkflowView {
        id: entry.name.clone(),
        state: state.to_owned(),
        project: project.to_owned(),
        version: entry.source.to_string(),
        origin,
        commit,
        diagnostics,
        inputs,
    }
}

/// The declared inputs of a workflow, as JSON descriptions.
pub fn inputs(workflow: &kickwheel_core::plan::Workflow) -> BTreeMap<String, Value> {
    let describe = |d: &kickwheel_core::plan::InputDecl| json!({"type": d.ty, "default": d.default, "minimum": d.minimum, "maximum": d.maximum, "choices": d.choices});
    workflow.plan.inputs.iter().map(|(name, d)| (name.clone(), describe(d))).collect()
}

/// A model or dataset; of a watched one, how its latest look went.
pub fn asset(row: &AssetRow, watch: Option<(&WatchRow, Option<WatchTrouble>)>) -> AssetView {
    let versions = row
        .versions
        .iter()
        .map(|v| AssetVersionView {
            version: v.version,
            artifact: v.artifact.clone(),
            metrics: v.metrics.clone(),
            task: v.task.clone(),
            created_at: v.at.to_rfc3339(),
        })
        .collect();
    AssetView {
        id: row.name.clone(),
        state: match (row.kind, &watch) {
            (AssetKind::Dataset, Some((_, Some(WatchTrouble::Stopped(_))))) => "unreadable",
            (AssetKind::Dataset, Some((_, Some(WatchTrouble::Partial(_)) | None))) => "watched",
            (AssetKind::Dataset | AssetKind::Model, _) => "active",
        }
        .to_owned(),
        project: row.project.clone(),
        versions,
        stages: row.stages.clone(),
        path: watch.as_ref().map(|(row, _)| row.path.clone()),
        reason: watch.and_then(|(_, trouble)| trouble).map(|trouble| trouble.reason().to_owned()),
    }
}
