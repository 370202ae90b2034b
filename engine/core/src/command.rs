//! What the outside world owes a run in a given state.
//!
//! Commands are never stored as such: they follow from the state, so live operation and recovery perform the same ones.
//! Performing one twice is harmless: an attempt is named by its key, and who performs it looks first whether it exists.

use kickwheel_schemas::Millis;

use crate::{
    plan::{Plan, StepIndex},
    state::RunState,
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

/// Everything that is owed, in step and index order.
pub fn outstanding(plan: &Plan, state: &RunState) -> Vec<Command> {
    let _ = (plan, state);
    todo!()
}
