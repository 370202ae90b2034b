//! What happens next: the only place where a run's future is chosen.
//!
//! Each input is one function that records events in a `Draft` and, where a step has ended, lets `schedule::advance` find
//! everything that follows at once. Nothing here evaluates twice what an event has recorded.
//!
//! Next: `schedule` (needs, conditions, phases), `ending` (retries and budgets), `cancel`, `expand` (steps into
//! tasks), `scope` (what expressions read).

mod cancel;
mod draft;
mod ending;
mod expand;
mod schedule;
mod scope;

use kickwheel_schemas::{Millis, plugin::Effect};

use crate::{
    event::{Event, Failure, RunContext, TaskEnd, TaskOutput},
    plan::{Plan, StepIndex},
    planted::planted,
    state::{RunState, RunStatus, StepState, TaskState, TaskStatus},
};

/// How long the `Finally` phase of a cancelled run may take, in milliseconds, from its beginning or from the cancel,
/// whichever is later.
pub const FINALLY_GRACE_MS: u64 = 5 * 60 * 1000;

/// An attempt that the platform lost is repeated at once; each further one waits this much longer, in milliseconds.
pub const PLATFORM_BACKOFF_STEP_MS: u64 = 1000;

/// The longest such wait, in milliseconds.
pub const PLATFORM_BACKOFF_MAX_MS: u64 = 30_000;

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
    /// A job needs an image, and this is what its name stands for now.
    ImageFound {
        /// As the workflow names it.
        image: String,
        /// Not empty.
        digest: String,
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
    match (state.status, input) {
        (RunStatus::New, Input::Start(context)) => start(plan, state, at, &context),
        (RunStatus::Active { .. }, Input::Started { step, index, attempt }) => {
            match current_attempt(state, step, index, attempt) {
                Some(TaskState { status: TaskStatus::Ready { .. }, .. }) => {
                    vec![Event::TaskStarted { step, index, attempt, at }]
                }
                Some(_) | None => Vec::new(),
            }
        }
        (RunStatus::Active { .. }, Input::Ended { step, index, attempt, ending }) => {
            match current_attempt(state, step, index, attempt) {
                Some(task) => ending::decide(plan, state, at, (step, index), task, ending),
                None => Vec::new(),
            }
        }
        (RunStatus::Active { .. }, Input::ImageFound { image, digest }) => {
            // The first one counts: tasks that look at the same time may see a tag move between them.
            if state.images.contains_key(&image) { Vec::new() } else { vec![Event::ImagePinned { image, digest, at }] }
        }
        (RunStatus::Active { .. }, Input::Wake) => cancel::wake(plan, state, at),
        (RunStatus::Active { .. }, Input::Cancel { by, reason }) => cancel::request(plan, state, at, by, reason),
        (RunStatus::Active { .. }, Input::Start(_))
        | (
            RunStatus::New,
            Input::Started { .. } | Input::Ended { .. } | Input::ImageFound { .. } | Input::Wake | Input::Cancel { .. },
        )
        | (RunStatus::Finished { .. }, _) => Vec::new(),
    }
}

fn start(plan: &Plan, state: &RunState, at: Millis, context: &RunContext) -> Vec<Event> {
    let mut draft = draft::Draft::new(plan, state, context, at);
    draft.record(Event::RunStarted { context: Box::new(context.clone()), at });
    schedule::advance(&mut draft, (0..plan.steps.len()).collect());
    draft.into_events()
}

/// The task, if this is its current attempt and that is being executed as far as we know.
fn current_attempt(state: &RunState, step: StepIndex, index: u32, attempt: u32) -> Option<&TaskState> {
    let StepState::Active { tasks, .. } = state.steps.get(step)? else { return None };
    let task = tasks.get(index as usize)?;
    let executing = match task.status {
        TaskStatus::Ready { .. } | TaskStatus::Running { .. } => true,
        TaskStatus::Backoff { .. }
        | TaskStatus::Succeeded { .. }
        | TaskStatus::Failed { .. }
        | TaskStatus::Cancelled { .. } => false,
    };
    (executing && (task.attempt == attempt || planted(1))).then_some(task)
}

/// The effects to carry out with these events, in order: those of results accepted before any cancel.
pub fn accepted_effects(events: &[Event]) -> Vec<&Effect> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::TaskFinished { end: TaskEnd::Succeeded(output), .. } => Some(&output.effects),
            _ => None,
        })
        .flatten()
        .collect()
}
