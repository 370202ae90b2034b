//! What may follow what: the rules that a journal obeys, written down a second time.
//!
//! Deciding does not call this. It is deliberately another formulation than `decide`'s, so that tests which check every
//! decided event with it compare two opinions.

use super::{Event, RetryCause, RunOutcome, TaskEnd};
use crate::{
    decide::FINALLY_GRACE_MS,
    plan::{MAX_CONFLICTS, MAX_PLATFORM_FAILURES, MAX_TASKS_PER_STEP, Phase, Plan, StepIndex},
    state::{Grace, RunState, RunStatus, StepState, TaskState, TaskStatus},
};

/// Whether a run of this plan in this state may have this event next.
pub fn is_legal(state: &RunState, plan: &Plan, event: &Event) -> bool {
    let phase = match (state.status, event) {
        (RunStatus::New, Event::RunStarted { .. }) => return state.seq == 0,
        (RunStatus::Active { phase }, _) => phase,
        (RunStatus::New | RunStatus::Finished { .. }, _) => return false,
    };
    match event {
        Event::RunStarted { .. } => false,
        Event::PhaseEntered { phase: next, .. } => {
            phase_is_over(state, plan, phase) && next_phase(state, plan, phase) == Some(*next)
        }
        Event::RunFinished { outcome: claimed, .. } => {
            phase_is_over(state, plan, phase) && next_phase(state, plan, phase).is_none() && outcome(state) == *claimed
        }
        Event::CancelRequested { .. } => state.cancel.is_none(),
        Event::ImagePinned { image, digest, .. } => !state.images.contains_key(image) && !digest.is_empty(),
        Event::GraceEnded { at } => {
            phase == Phase::Finally
                && state.cancel.as_ref().is_some_and(
                    |cancel| matches!(cancel.grace, Grace::Since { at: since } if since.plus(FINALLY_GRACE_MS) <= *at),
                )
        }
        Event::StepExpanded { step, tasks, .. } => {
            let one_or_matrix = |plan: &Plan| plan.steps[*step].matrix.is_some() || tasks.len() == 1;
            step_may_begin(state, plan, phase, *step)
                && needs_allow(state, plan, *step)
                && one_or_matrix(plan)
                && tasks.len() <= MAX_TASKS_PER_STEP
        }
        Event::StepFailed { step, .. } => step_may_begin(state, plan, phase, *step) && needs_allow(state, plan, *step),
        Event::StepSkipped { step, .. } => {
            is_waiting(state, plan, phase, *step) && (needs_ended(state, plan, *step) || state.is_stopping(phase))
        }
        Event::StepFinished { step, succeeded, .. } => match state.steps.get(*step) {
            Some(StepState::Active { tasks, .. }) => {
                let all_ended = tasks.iter().all(|task| task.status.is_terminal());
                let all_well = tasks.iter().all(|task| matches!(task.status, TaskStatus::Succeeded { .. }));
                all_ended && all_well == *succeeded
            }
            _ => false,
        },
        Event::TaskStarted { step, index, attempt, .. }
        | Event::TaskFinished { step, index, attempt, .. }
        | Event::TaskRetried { step, index, attempt, .. }
        | Event::TaskDue { step, index, attempt, .. } => match state.steps.get(*step) {
            Some(StepState::Active { tasks, .. }) => tasks
                .get(*index as usize)
                .is_some_and(|task| task.attempt == *attempt && task_may(state, plan, *step, task, event)),
            _ => false,
        },
    }
}

/// `event` is about the current attempt of `task`.
fn task_may(state: &RunState, plan: &Plan, step: StepIndex, task: &TaskState, event: &Event) -> bool {
    let stopping = state.is_stopping(plan.steps[step].phase);
    let executing = matches!(task.status, TaskStatus::Ready { .. } | TaskStatus::Running { .. });
    match event {
        Event::TaskStarted { .. } => matches!(task.status, TaskStatus::Ready { .. }),
        Event::TaskDue { at, .. } => matches!(task.status, TaskStatus::Backoff { until, .. } if until <= *at),
        Event::TaskRetried { cause, not_before, at, .. } => {
            let budget_left = match cause {
                RetryCause::User => task.user_failures < plan.steps[step].retry.max,
                RetryCause::Platform => task.platform_failures < MAX_PLATFORM_FAILURES,
                RetryCause::Conflict => task.conflicts < MAX_CONFLICTS,
            };
            executing && !stopping && budget_left && at <= not_before
        }
        Event::TaskFinished { end, .. } => match end {
            TaskEnd::Succeeded(output) => executing && (state.cancel.is_none() || output.effects.is_empty()),
            TaskEnd::Failed(_) => executing,
            TaskEnd::Cancelled => stopping && !task.status.is_terminal(),
        },
        _ => false,
    }
}

fn is_waiting(state: &RunState, plan: &Plan, phase: Phase, step: StepIndex) -> bool {
    plan.steps.get(step).is_some_and(|declared| declared.phase == phase)
        && matches!(state.steps.get(step), Some(StepState::Waiting))
}

fn step_may_begin(state: &RunState, plan: &Plan, phase: Phase, step: StepIndex) -> bool {
    is_waiting(state, plan, phase, step) && needs_ended(state, plan, step) && !state.is_stopping(phase)
}

fn needs_ended(state: &RunState, plan: &Plan, step: StepIndex) -> bool {
    plan.steps[step].needs.iter().all(|&need| state.steps[need].is_terminal())
}

fn needs_allow(state: &RunState, plan: &Plan, step: StepIndex) -> bool {
    let declared = &plan.steps[step];
    declared.condition.as_ref().is_some_and(|condition| condition.handles_failure)
        || declared.needs.iter().all(|&need| matches!(state.steps[need], StepState::Succeeded { .. }))
}

fn phase_is_over(state: &RunState, plan: &Plan, phase: Phase) -> bool {
    plan.steps.iter().zip(&state.steps).all(|(step, state)| step.phase != phase || state.is_terminal())
}

fn next_phase(state: &RunState, plan: &Plan, phase: Phase) -> Option<Phase> {
    let exists = |phase| plan.steps.iter().any(|step| step.phase == phase);
    let main_failed = plan
        .steps
        .iter()
        .zip(&state.steps)
        .any(|(step, state)| step.phase == Phase::Main && matches!(state, StepState::Failed { .. }));
    let on_failure = phase == Phase::Main && main_failed && state.cancel.is_none() && exists(Phase::OnFailure);
    let finally = phase != Phase::Finally && exists(Phase::Finally);
    on_failure.then_some(Phase::OnFailure).or(finally.then_some(Phase::Finally))
}

fn outcome(state: &RunState) -> RunOutcome {
    match (&state.cancel, state.steps.iter().any(|step| matches!(step, StepState::Failed { .. }))) {
        (Some(_), _) => RunOutcome::Cancelled,
        (None, true) => RunOutcome::Failed,
        (None, false) => RunOutcome::Succeeded,
    }
}
