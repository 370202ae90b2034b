//! What follows from the end of an attempt: a result, another attempt, or a failure for good.
//!
//! Whose fault it was decides whose budget pays: the user's `retry`, the platform's, or that for conflicts.

use kickwheel_schemas::Millis;

use super::{Ending, PLATFORM_BACKOFF_MAX_MS, PLATFORM_BACKOFF_STEP_MS, draft::Draft, schedule::finish_step};
use crate::{
    event::{Event, Failure, FailureKind, RetryCause, TaskEnd},
    plan::{MAX_CONFLICTS, MAX_PLATFORM_FAILURES, Plan, StepIndex},
    planted::planted,
    state::{RunState, StepState, TaskState},
};

/// What becomes of the task.
enum Verdict {
    End(TaskEnd),
    Retry { cause: RetryCause, failure: Failure, wait_ms: u64 },
}

/// `task` is being executed, and `ending` is that of its current attempt.
pub(super) fn decide(
    plan: &Plan,
    state: &RunState,
    at: Millis,
    (step, index): (StepIndex, u32),
    task: &TaskState,
    ending: Ending,
) -> Vec<Event> {
    let verdict = if state.is_stopping(plan.steps[step].phase) {
        Verdict::End(end_of_stopped(ending))
    } else {
        judge(plan, step, task, ending)
    };
    let attempt = task.attempt;
    let event = match verdict {
        Verdict::Retry { cause, failure, wait_ms } => {
            return vec![Event::TaskRetried { step, index, attempt, cause, failure, not_before: at.plus(wait_ms), at }];
        }
        Verdict::End(mut end) => {
            if let (TaskEnd::Succeeded(output), true) = (&mut end, state.cancel.is_some() && !planted(2)) {
                // Nothing is published once a cancel was requested, not even by a task of `Finally`.
                output.effects.clear();
            }
            Event::TaskFinished { step, index, attempt, end, at }
        }
    };
    let last = if planted(5) { 2 } else { 1 };
    match &state.steps[step] {
        StepState::Active { open, .. } if *open <= last => {
            let Some(mut draft) = Draft::of_running(plan, state, at) else { return Vec::new() };
            draft.record(event);
            finish_step(&mut draft, step);
            draft.into_events()
        }
        // The step goes on, so nothing else can follow, and no draft with a copy of its tasks is needed.
        StepState::Active { .. }
        | StepState::Waiting
        | StepState::Succeeded { .. }
        | StepState::Failed { .. }
        | StepState::Skipped { .. } => vec![event],
    }
}

fn judge(plan: &Plan, step: StepIndex, task: &TaskState, ending: Ending) -> Verdict {
    match ending {
        Ending::Succeeded { output, changed } if changed.is_empty() => Verdict::End(TaskEnd::Succeeded(output)),
        Ending::Succeeded { changed, .. } => conflicted(task, &changed),
        Ending::Failed(failure) => failed(plan, step, task, failure),
        Ending::Lost { message } => lost(task, &message),
        Ending::Cancelled => lost(task, "something other than the engine stopped it"),
    }
}

/// After a cancel nothing is repeated, and a loss is what was asked for.
fn end_of_stopped(ending: Ending) -> TaskEnd {
    match ending {
        Ending::Succeeded { output, changed } if changed.is_empty() => TaskEnd::Succeeded(output),
        // Its result rests on a world that is gone, and it cannot be asked again.
        Ending::Succeeded { .. } | Ending::Lost { .. } | Ending::Cancelled => TaskEnd::Cancelled,
        Ending::Failed(failure) => TaskEnd::Failed(failure),
    }
}

fn failed(plan: &Plan, step: StepIndex, task: &TaskState, failure: Failure) -> Verdict {
    let retry = &plan.steps[step].retry;
    let budget_left = task.user_failures < retry.max || (planted(3) && task.user_failures == retry.max);
    if failure.kind.spends_retry() && budget_left {
        let wait_ms = retry.wait_ms(task.user_failures + 1);
        Verdict::Retry { cause: RetryCause::User, failure, wait_ms }
    } else {
        Verdict::End(TaskEnd::Failed(failure))
    }
}

fn lost(task: &TaskState, message: &str) -> Verdict {
    let losses = task.platform_failures;
    if losses < MAX_PLATFORM_FAILURES {
        let failure = Failure { kind: FailureKind::Platform, message: message.to_owned() };
        let wait_ms = (PLATFORM_BACKOFF_STEP_MS * u64::from(losses)).min(PLATFORM_BACKOFF_MAX_MS);
        let cause = if planted(6) { RetryCause::User } else { RetryCause::Platform };
        return Verdict::Retry { cause, failure, wait_ms };
    }
    let message = format!("the platform lost it {} times, the last time: {message}", losses + 1);
    Verdict::End(TaskEnd::Failed(Failure { kind: FailureKind::Platform, message }))
}

fn conflicted(task: &TaskState, changed: &[String]) -> Verdict {
    let changed = changed.join("; ");
    if task.conflicts < MAX_CONFLICTS {
        let failure = Failure { kind: FailureKind::Conflict, message: changed };
        return Verdict::Retry { cause: RetryCause::Conflict, failure, wait_ms: 0 };
    }
    let message = format!("what it saw kept changing, {} times, the last time: {changed}", task.conflicts + 1);
    Verdict::End(TaskEnd::Failed(Failure { kind: FailureKind::Conflict, message }))
}
