//! Which steps run now: needs, conditions, phases, and the end of the run.

use std::collections::BTreeSet;

use super::{draft::Draft, expand, scope::StepScope};
use crate::{
    event::{Event, Failure, FailureKind, RunOutcome},
    expr::ExprError,
    plan::{Phase, StepIndex},
    planted::planted,
    state::StepState,
};

/// Decides everything that follows from `candidates` having become ready, perhaps: the one scheduling routine, called
/// after every change that can end a step. It ends when everything left waits for something outside.
pub(super) fn advance(draft: &mut Draft<'_>, mut candidates: BTreeSet<StepIndex>) {
    loop {
        while let Some(step) = candidates.pop_first() {
            if is_ready(draft, step) {
                begin(draft, step);
                if draft.step(step).is_terminal() {
                    candidates.extend(dependants(draft, step));
                }
            }
        }
        match enter_next_phase(draft) {
            Some(phase) => candidates = draft.steps_of(phase).collect(),
            None => return,
        }
    }
}

/// Closes a step whose last task has ended, and decides what follows from that.
pub(super) fn finish_step(draft: &mut Draft<'_>, step: StepIndex) {
    close(draft, step);
    let dependants = dependants(draft, step);
    advance(draft, dependants);
}

pub(super) fn close(draft: &mut Draft<'_>, step: StepIndex) {
    let succeeded = draft.step(step).tasks().iter().all(|task| task.status.is_success());
    draft.record(Event::StepFinished { step, succeeded, at: draft.at });
}

/// The steps that name this one in their needs.
fn dependants(draft: &Draft<'_>, step: StepIndex) -> BTreeSet<StepIndex> {
    // A plan is in an order in which needs come first.
    let later = draft.plan.steps.iter().enumerate().skip(step + 1);
    later.filter(|(_, other)| other.needs.contains(&step)).map(|(index, _)| index).collect()
}

fn is_ready(draft: &Draft<'_>, step: StepIndex) -> bool {
    let declared = &draft.plan.steps[step];
    draft.phase() == Some(declared.phase)
        && matches!(draft.step(step), StepState::Waiting)
        && declared.needs.iter().all(|&need| draft.step(need).is_terminal())
}

/// Decides a step whose needs have all ended.
fn begin(draft: &mut Draft<'_>, step: StepIndex) {
    let at = draft.at;
    if let Some(reason) = obstacle(draft, step) {
        return draft.record(Event::StepSkipped { step, reason, at });
    }
    let mut scope = StepScope::of(draft, step);
    match refusal(draft, step, &mut scope) {
        Err(error) => draft.record(Event::StepFailed { step, failure: expression_failure(&error), at }),
        Ok(Some(reason)) => draft.record(Event::StepSkipped { step, reason, at }),
        Ok(None) => match expand::tasks(draft, step, scope) {
            Err(failure) => draft.record(Event::StepFailed { step, failure, at }),
            Ok(tasks) => {
                let empty = tasks.is_empty();
                draft.record(Event::StepExpanded { step, tasks, at });
                if empty {
                    close(draft, step);
                }
            }
        },
    }
}

/// Why it cannot run, whatever its condition says.
fn obstacle(draft: &Draft<'_>, step: StepIndex) -> Option<String> {
    let declared = &draft.plan.steps[step];
    if draft.is_stopping(declared.phase) {
        return Some(CANCELLED.to_owned());
    }
    match &declared.condition {
        Some(condition) if condition.handles_failure => None,
        Some(_) | None => unmet_need(draft, step),
    }
}

/// Evaluates `if:`. When it is false, that is why the step does not run.
fn refusal(draft: &Draft<'_>, step: StepIndex, scope: &mut StepScope) -> Result<Option<String>, ExprError> {
    let Some(condition) = &draft.plan.steps[step].condition else { return Ok(None) };
    scope.bindings.allow_failure_functions(failed_before(draft, step));
    let holds = condition.expr.evaluate_bool_in(&scope.bindings)?;
    Ok((!holds).then(|| format!("its condition is false: {}", condition.expr.source())))
}

/// Why a step did not run after a cancel.
pub(super) const CANCELLED: &str = "the run was cancelled";

fn unmet_need(draft: &Draft<'_>, step: StepIndex) -> Option<String> {
    draft.plan.steps[step].needs.iter().find_map(|&need| {
        let name = &draft.plan.steps[need].name;
        let state = draft.step(need);
        match state {
            StepState::Failed { .. } if state.is_cancelled() => {
                Some(format!("`{name}`, which it needs, was cancelled"))
            }
            StepState::Failed { .. } => Some(format!("`{name}`, which it needs, failed")),
            StepState::Skipped { .. } if planted(4) => None,
            StepState::Skipped { .. } => Some(format!("`{name}`, which it needs, was skipped")),
            StepState::Succeeded { .. } | StepState::Waiting | StepState::Active { .. } => None,
        }
    })
}

/// What `failed()` gives: a step that a cancel has stopped has not failed.
fn failed_before(draft: &Draft<'_>, step: StepIndex) -> bool {
    let needs = &draft.plan.steps[step].needs;
    if needs.is_empty() {
        return draft.failed_steps(&[Phase::Main, Phase::OnFailure, Phase::Finally]).next().is_some();
    }
    needs.iter().any(|&need| draft.step(need).has_failed())
}

/// When the current phase is over: enters the next one and names it, or finishes the run.
fn enter_next_phase(draft: &mut Draft<'_>) -> Option<Phase> {
    let current = draft.phase()?;
    if draft.steps_of(current).any(|step| !draft.step(step).is_terminal()) {
        return None;
    }
    let at = draft.at;
    let next = match current {
        Phase::Main if wants_on_failure(draft) => Some(Phase::OnFailure),
        Phase::Main | Phase::OnFailure => has_steps(draft, Phase::Finally).then_some(Phase::Finally),
        Phase::Finally => None,
    };
    match next {
        Some(phase) => draft.record(Event::PhaseEntered { phase, at }),
        None => draft.record(Event::RunFinished { outcome: outcome(draft), at }),
    }
    next
}

fn wants_on_failure(draft: &Draft<'_>) -> bool {
    let failed = draft.failed_steps(&[Phase::Main]).next().is_some();
    failed && (!draft.is_cancelled() || planted(7)) && has_steps(draft, Phase::OnFailure)
}

fn has_steps(draft: &Draft<'_>, phase: Phase) -> bool {
    draft.steps_of(phase).next().is_some()
}

fn outcome(draft: &Draft<'_>) -> RunOutcome {
    if draft.is_cancelled() {
        RunOutcome::Cancelled
    } else if draft.failed_steps(&[Phase::Main, Phase::OnFailure, Phase::Finally]).next().is_some() {
        RunOutcome::Failed
    } else {
        RunOutcome::Succeeded
    }
}

/// An expression without a value, as the failure of a step.
pub(super) fn expression_failure(error: &ExprError) -> Failure {
    Failure { kind: FailureKind::Expression, message: error.to_string() }
}
