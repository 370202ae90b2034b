//! The end that somebody asks for, and what time brings.
//!
//! A cancel never forgets a task that may be running somewhere: it stays open until its end is reported. Only what is
//! certainly not executed (waiting steps, tasks in backoff) ends at once.

use std::collections::BTreeSet;

use kickwheel_schemas::Millis;

use super::{FINALLY_GRACE_MS, draft::Draft, schedule};
use crate::{
    event::{Event, TaskEnd},
    plan::{Plan, StepIndex},
    state::{Grace, RunState, StepState, TaskStatus},
};

/// Decides a cancel of a run that has not ended. Only the first counts.
pub(super) fn request(plan: &Plan, state: &RunState, at: Millis, by: String, reason: String) -> Vec<Event> {
    if state.cancel.is_some() {
        return Vec::new();
    }
    let Some(mut draft) = Draft::of_running(plan, state, at) else { return Vec::new() };
    draft.record(Event::CancelRequested { by, reason, at });
    stop(&mut draft);
    draft.into_events()
}

/// Decides that time has passed: backoffs that are over, and a grace that is.
pub(super) fn wake(plan: &Plan, state: &RunState, at: Millis) -> Vec<Event> {
    if grace_is_over(state, at) {
        let Some(mut draft) = Draft::of_running(plan, state, at) else { return Vec::new() };
        draft.record(Event::GraceEnded { at });
        stop(&mut draft);
        return draft.into_events();
    }
    let mut due = Vec::new();
    for (step, step_state) in state.steps.iter().enumerate() {
        let StepState::Active { tasks, .. } = step_state else { continue };
        for (index, task) in (0..).zip(tasks) {
            if matches!(task.status, TaskStatus::Backoff { until, .. } if until <= at) {
                due.push(Event::TaskDue { step, index, attempt: task.attempt, at });
            }
        }
    }
    due
}

fn grace_is_over(state: &RunState, at: Millis) -> bool {
    match state.cancel.as_ref().map(|cancel| cancel.grace) {
        Some(Grace::Since { at: since }) => since.plus(FINALLY_GRACE_MS) <= at,
        Some(Grace::NotBegun | Grace::Over) | None => false,
    }
}

/// Ends what is certainly not executed in the current phase, if that is one to be stopped.
fn stop(draft: &mut Draft<'_>) {
    let Some(phase) = draft.phase() else { return };
    if !draft.is_stopping(phase) {
        return;
    }
    let at = draft.at;
    for step in draft.steps_of(phase) {
        match draft.step(step) {
            StepState::Waiting => {
                draft.record(Event::StepSkipped { step, reason: schedule::CANCELLED.to_owned(), at });
            }
            StepState::Active { .. } => end_backoffs(draft, step),
            StepState::Succeeded { .. } | StepState::Failed { .. } | StepState::Skipped { .. } => {}
        }
    }
    schedule::advance(draft, BTreeSet::new());
}

fn end_backoffs(draft: &mut Draft<'_>, step: StepIndex) {
    let waiting: Vec<(u32, u32)> = (0..)
        .zip(draft.step(step).tasks())
        .filter(|(_, task)| matches!(task.status, TaskStatus::Backoff { .. }))
        .map(|(index, task)| (index, task.attempt))
        .collect();
    let at = draft.at;
    for (index, attempt) in waiting {
        draft.record(Event::TaskFinished { step, index, attempt, end: TaskEnd::Cancelled, at });
    }
    if matches!(draft.step(step), StepState::Active { open: 0, .. }) {
        schedule::close(draft, step);
    }
}
