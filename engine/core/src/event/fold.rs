//! Folding one event into a state.
//!
//! Nothing is evaluated or chosen here, and no constant is consulted: a journal written by an older binary, with other
//! limits, folds into the same state. What may follow what is checked by [`super::is_legal`], which only tests call.

use std::mem;

use kickwheel_schemas::Millis;

use super::{Event, RetryCause, TaskEnd};
use crate::{
    plan::{Phase, Plan},
    planted::planted,
    state::{Cancel, Grace, RunState, RunStatus, StepState, TaskState, TaskStatus},
};

/// Folds one event into the state. Total: it never fails, and an event that does not fit (which a journal of ours cannot
/// hold) changes nothing but the sequence number.
pub fn apply(state: &mut RunState, plan: &Plan, event: &Event) {
    state.seq += 1;
    let fits = match state.status {
        RunStatus::New => matches!(event, Event::RunStarted { .. }),
        RunStatus::Active { .. } => !matches!(event, Event::RunStarted { .. }),
        RunStatus::Finished { .. } => false,
    };
    if !fits {
        return;
    }
    if let Some(index) = event.step() {
        if let Some(step) = state.steps.get_mut(index) {
            fold_step(step, event);
        }
        return;
    }
    fold_head(&mut state.status, &mut state.cancel, event);
    match event {
        Event::RunStarted { context, at } => {
            state.context = Some(context.clone());
            state.created_at = *at;
            state.steps.resize(plan.steps.len(), StepState::Waiting);
        }
        Event::RunFinished { at, .. } => state.ended_at = Some(*at),
        Event::ImagePinned { image, digest, .. } => {
            state.images.entry(image.clone()).or_insert_with(|| digest.clone());
        }
        Event::PhaseEntered { .. }
        | Event::CancelRequested { .. }
        | Event::GraceEnded { .. }
        | Event::StepExpanded { .. }
        | Event::StepSkipped { .. }
        | Event::StepFailed { .. }
        | Event::TaskStarted { .. }
        | Event::TaskFinished { .. }
        | Event::TaskRetried { .. }
        | Event::TaskDue { .. }
        | Event::StepFinished { .. } => {}
    }
}

/// The part of the fold that decisions look at and that belongs to no step: where the run stands, and its cancel.
pub(crate) fn fold_head(status: &mut RunStatus, cancel: &mut Option<Cancel>, event: &Event) {
    match event {
        Event::RunStarted { .. } => *status = RunStatus::Active { phase: Phase::Main },
        Event::PhaseEntered { phase, at } => {
            if matches!(status, RunStatus::Active { phase: current } if *current < *phase) {
                *status = RunStatus::Active { phase: *phase };
                begin_grace(*phase, cancel, *at);
            }
        }
        Event::CancelRequested { by, reason, at } => {
            if let (None, RunStatus::Active { phase }) = (&cancel, &status) {
                *cancel = Some(Cancel { by: by.clone(), reason: reason.clone(), at: *at, grace: Grace::NotBegun });
                begin_grace(*phase, cancel, *at);
            }
        }
        Event::GraceEnded { .. } => {
            if let Some(cancel) = cancel {
                cancel.grace = Grace::Over;
            }
        }
        Event::RunFinished { outcome, .. } => *status = RunStatus::Finished { outcome: *outcome },
        Event::ImagePinned { .. }
        | Event::StepExpanded { .. }
        | Event::StepSkipped { .. }
        | Event::StepFailed { .. }
        | Event::TaskStarted { .. }
        | Event::TaskFinished { .. }
        | Event::TaskRetried { .. }
        | Event::TaskDue { .. }
        | Event::StepFinished { .. } => {}
    }
}

fn begin_grace(phase: Phase, cancel: &mut Option<Cancel>, at: Millis) {
    if let (Phase::Finally, Some(cancel)) = (phase, cancel) {
        cancel.grace = Grace::Since { at };
    }
}

/// The part of the fold that concerns one step.
pub(crate) fn fold_step(state: &mut StepState, event: &Event) {
    match (state, event) {
        (state @ StepState::Waiting, Event::StepExpanded { tasks, at, .. }) => {
            let open = u32::try_from(tasks.len()).expect("expansion is limited far below four thousand million tasks");
            let tasks = tasks
                .iter()
                .map(|spec| TaskState {
                    spec: spec.clone(),
                    attempt: 1,
                    user_failures: 0,
                    platform_failures: 0,
                    conflicts: 0,
                    started_at: None,
                    status: TaskStatus::Ready { since: *at },
                })
                .collect();
            *state = StepState::Active { tasks, open };
        }
        (state @ StepState::Waiting, Event::StepSkipped { reason, .. }) => {
            *state = StepState::Skipped { reason: reason.clone() };
        }
        (state @ StepState::Waiting, Event::StepFailed { failure, .. }) => {
            *state = StepState::Failed { tasks: Vec::new(), failure: Some(failure.clone()) };
        }
        (state @ StepState::Active { .. }, Event::StepFinished { succeeded, .. }) => finish_step(state, *succeeded),
        (
            StepState::Active { tasks, open },
            Event::TaskStarted { index, attempt, .. }
            | Event::TaskFinished { index, attempt, .. }
            | Event::TaskRetried { index, attempt, .. }
            | Event::TaskDue { index, attempt, .. },
        ) => {
            let Some(task) = tasks.get_mut(*index as usize) else { return };
            if task.attempt != *attempt || task.status.is_terminal() {
                return;
            }
            fold_task(task, event);
            if task.status.is_terminal() {
                *open -= 1;
            }
        }
        // The pairs that do not fit.
        (
            StepState::Waiting
            | StepState::Active { .. }
            | StepState::Succeeded { .. }
            | StepState::Failed { .. }
            | StepState::Skipped { .. },
            _,
        ) => {}
    }
}

fn finish_step(state: &mut StepState, succeeded: bool) {
    let StepState::Active { tasks, open: 0 } = state else { return };
    let tasks = mem::take(tasks);
    *state = if succeeded { StepState::Succeeded { tasks } } else { StepState::Failed { tasks, failure: None } };
}

/// `task` is not terminal, and `event` is about its current attempt.
fn fold_task(task: &mut TaskState, event: &Event) {
    match (&task.status, event) {
        (TaskStatus::Ready { .. }, Event::TaskStarted { at, .. }) => {
            task.started_at = Some(*at);
            task.status = TaskStatus::Running { since: *at };
        }
        (TaskStatus::Backoff { .. }, Event::TaskDue { at, .. }) => task.status = TaskStatus::Ready { since: *at },
        (_, Event::TaskFinished { end, at, .. }) => {
            task.status = match end {
                TaskEnd::Succeeded(output) => TaskStatus::Succeeded { output: output.clone(), at: *at },
                TaskEnd::Failed(failure) => TaskStatus::Failed { failure: failure.clone(), at: *at },
                TaskEnd::Cancelled => TaskStatus::Cancelled { at: *at },
            }
        }
        (
            TaskStatus::Ready { .. } | TaskStatus::Running { .. },
            Event::TaskRetried { cause, failure, not_before, at, .. },
        ) => {
            if !planted(10) {
                task.attempt += 1;
            }
            match cause {
                RetryCause::User => task.user_failures += 1,
                RetryCause::Platform => task.platform_failures += 1,
                RetryCause::Conflict => task.conflicts += 1,
            }
            task.status = if not_before <= at {
                TaskStatus::Ready { since: *at }
            } else {
                TaskStatus::Backoff { until: *not_before, failure: failure.clone() }
            };
        }
        // A start that is reported twice, and what the caller has excluded.
        (_, _) => {}
    }
}
