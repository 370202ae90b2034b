//! What the outside world owes a run in a given state.
//!
//! Commands are never stored as such: they follow from the state, so live operation and recovery perform the same ones.
//! Performing one twice is harmless: an attempt is named by its key, and who performs it looks first whether it exists.

use kickwheel_schemas::Millis;

use crate::{
    decide::FINALLY_GRACE_MS,
    plan::{Phase, Plan, StepIndex},
    planted::planted,
    state::{Grace, RunState, RunStatus, StepState, TaskStatus},
};

/// Something to be performed outside, whose result comes back as an [`crate::Input`].
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Execute this attempt (or adopt it, if it runs already) and report how it ends. What it does is in the task's
    /// `spec` in the state.
    Execute {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
    },
    /// Stop this attempt and report it as [`crate::decide::Ending::Cancelled`], or as what it really came to.
    Stop {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
    },
    /// Send [`crate::Input::Wake`] at this time. At most one per run: the earliest.
    WakeAt(Millis),
}

/// Everything that is owed, in step and index order, the alarm last.
pub fn outstanding(plan: &Plan, state: &RunState) -> Vec<Command> {
    let mut commands = Vec::new();
    let RunStatus::Active { phase: current } = state.status else { return commands };
    let mut wake_at = grace_end(state, current);
    for (step, (declared, step_state)) in plan.steps.iter().zip(&state.steps).enumerate() {
        let StepState::Active { tasks, .. } = step_state else { continue };
        let stopping = state.is_stopping(declared.phase);
        for (index, task) in (0..).zip(tasks) {
            let attempt = task.attempt;
            match &task.status {
                TaskStatus::Running { .. } if planted(8) => {}
                TaskStatus::Ready { .. } | TaskStatus::Running { .. } if stopping => {
                    commands.push(Command::Stop { step, index, attempt });
                }
                TaskStatus::Ready { .. } | TaskStatus::Running { .. } => {
                    commands.push(Command::Execute { step, index, attempt });
                }
                TaskStatus::Backoff { until, .. } => {
                    if !planted(9) {
                        wake_at = Some(wake_at.map_or(*until, |earlier| earlier.min(*until)));
                    }
                }
                TaskStatus::Succeeded { .. } | TaskStatus::Failed { .. } | TaskStatus::Cancelled { .. } => {}
            }
        }
    }
    commands.extend(wake_at.map(Command::WakeAt));
    commands
}

/// When the `Finally` phase of a cancelled run has had its time.
fn grace_end(state: &RunState, current: Phase) -> Option<Millis> {
    match (current, state.cancel.as_ref()?.grace) {
        (Phase::Finally, Grace::Since { at }) => Some(at.plus(FINALLY_GRACE_MS)),
        (Phase::Main | Phase::OnFailure | Phase::Finally, Grace::NotBegun | Grace::Since { .. } | Grace::Over) => None,
    }
}
