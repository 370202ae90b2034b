//! Performing what is outstanding: plugin calls and jobs, each reporting back with a message.
//!
//! Performing an attempt again is harmless. A job is named by its attempt key, so a pool that knows it adopts it; a plugin
//! call has no visible effect until its result is accepted. That is why recovery needs no memory of what was begun.

mod call;
mod content_key;
mod job;
mod source;

use std::sync::Arc;

use kickwheel_core::{
    event::{TaskSpec, Work},
    plan::StepIndex,
};
use kickwheel_schemas::{AttemptKey, TaskKey};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    driver::{Loaded, Message, send},
    shared::Shared,
};

pub use call::{call_now, is_pure, log_file};
pub use source::worktree_artifact;

/// One attempt that is being performed.
pub struct Attempt {
    /// The run as it was when the attempt became outstanding.
    pub loaded: Loaded,
    /// Which step.
    pub step: StepIndex,
    /// Which task of it.
    pub index: u32,
    /// Which attempt.
    pub number: u32,
    /// Cancelled when its end is asked for.
    pub stop: CancellationToken,
}

impl Attempt {
    /// What it does.
    pub fn spec(&self) -> &TaskSpec {
        &self.loaded.state.steps[self.step].tasks()[self.index as usize].spec
    }

    /// `run/step[index]`.
    pub fn task(&self) -> TaskKey {
        TaskKey {
            run: self.loaded.row.run,
            step: self.loaded.workflow.plan.steps[self.step].name.clone(),
            index: self.index,
        }
    }

    /// `run/step[index]#attempt`.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { task: self.task(), attempt: self.number }
    }
}

/// Performs an attempt in the background.
pub fn spawn(shared: &Arc<Shared>, loaded: &Loaded, attempt: (StepIndex, u32, u32), stop: CancellationToken) {
    let (step, index, number) = attempt;
    let attempt = Attempt { loaded: loaded.clone(), step, index, number, stop };
    let span = tracing::info_span!(
        "attempt",
        run = %attempt.loaded.row.run,
        step = attempt.loaded.workflow.plan.steps[step].name,
        index,
        attempt = number
    );
    // Taken here and not in the task, so that the order of the line is the order in which tasks became due.
    let ticket = shared.admission.ticket();
    let shared2 = Arc::clone(shared);
    let perform = async move {
        let run = attempt.loaded.row.run;
        let message = match attempt.spec().work {
            Work::Call { .. } => {
                drop(ticket);
                let Attempt { loaded, step, index, number, stop: _ } = &attempt;
                Some(Message::plain(call_now(&shared2, loaded, *step, *index, *number).await))
            }
            Work::Job { .. } => job::perform(&shared2, &attempt, ticket).await,
        };
        if let Some(message) = message {
            send(&shared2, run, message);
        }
    };
    shared.tasks.spawn(perform.instrument(span));
}
