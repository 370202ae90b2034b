//! What happens next: the only place where a run's future is chosen.

use kickwheel_schemas::{Millis, plugin::Effect};

use crate::{
    event::{Event, Failure, RunContext, TaskOutput},
    plan::{Plan, StepIndex},
    state::RunState,
};

/// What can happen to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An event (or a person) started it. Only for a new run.
    Start(Box<RunContext>),
    /// User code of an attempt has begun.
    Started {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
    },
    /// An attempt ended.
    Ended {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
        /// How.
        ending: Ending,
    },
    /// The time of an earlier [`crate::Command::WakeAt`] has come.
    Wake,
    /// Somebody asks for the end.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// How an attempt ended, as seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With a result. `changed` names what the world had changed since a plugin looked, read in the accepting
    /// transaction; when it is not empty, no effect is carried out and the call is repeated.
    Succeeded {
        /// What it produced; `effects` are those asked for.
        output: TaskOutput,
        /// For people: what each conflicting effect met.
        changed: Vec<String>,
    },
    /// The user's code or the plugin failed.
    Failed(Failure),
    /// The platform lost it; the user pays nothing.
    Lost {
        /// How.
        message: String,
    },
    /// It was stopped, or had not begun, when the engine asked for its end.
    Cancelled,
}

/// Decides one input. Superseded attempts, repeated inputs and inputs for a finished run decide nothing.
pub fn decide(plan: &Plan, state: &RunState, at: Millis, input: Input) -> Vec<Event> {
    let _ = (plan, state, at, input);
    todo!()
}

/// The effects to carry out with these events, in order: those of results accepted before any cancel.
pub fn accepted_effects(events: &[Event]) -> Vec<&Effect> {
    let _ = events;
    todo!()
}
