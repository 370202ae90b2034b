//! Performing what is outstanding: plugin calls and jobs, each reporting back with a message.
//!
//! Performing an attempt again is harmless. A job is named by its attempt key, so a pool that knows it adopts it; a plugin
//! call has no visible effect until its result is accepted. That is why recovery needs no memory of what was begun.

mod call;
mod content_key;
mod job;
mod job_spec;
mod source;

use std::sync::Arc;

use kickwheel_core::{
    Input,
    event::{PinnedSource, RunRef, TaskSpec, Work},
    plan::{Step, StepIndex, Workflow},
};
use kickwheel_schemas::{AttemptKey, TaskKey};
use kickwheel_store::rows::RunRow;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    driver::{Loaded, Message, send},
    pools::image_of,
    shared::Shared,
};

pub use call::{call_now, is_loaded, is_pure, log_file};
pub use source::{SourceTree, worktree_artifact};

/// One attempt that is being performed.
pub struct Attempt {
    /// The run's row.
    pub row: Arc<RunRow>,
    /// What the run executes.
    pub workflow: Arc<Workflow>,
    /// The pinned source tree.
    pub source: Option<PinnedSource>,
    /// The ref whose rights the run has.
    pub reference: RunRef,
    /// Of the causing event.
    pub traceparent: Option<String>,
    /// What the task does.
    pub spec: TaskSpec,
    /// Which step.
    pub step: StepIndex,
    /// Which task of it.
    pub index: u32,
    /// Which attempt.
    pub number: u32,
    /// What its image's name stands for, if the run knew when the attempt was begun.
    pub image: Option<String>,
    /// Cancelled when its end is asked for.
    pub stop: CancellationToken,
}

impl Attempt {
    /// The step, as the plan declares it.
    pub fn declared(&self) -> &Step {
        &self.workflow.plan.steps[self.step]
    }

    /// `run/step[index]`.
    pub fn task(&self) -> TaskKey {
        TaskKey { run: self.row.run, step: self.declared().name.clone(), index: self.index }
    }

    /// `run/step[index]#attempt`.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { task: self.task(), attempt: self.number }
    }
}

/// Performs an attempt in the background.
pub fn spawn(shared: &Arc<Shared>, loaded: &Loaded, attempt: (StepIndex, u32, u32), stop: CancellationToken) {
    let (step, index, number) = attempt;
    let context = loaded.state.context.as_ref();
    let spec = loaded.state.steps[step].tasks()[index as usize].spec.clone();
    let attempt = Attempt {
        image: image_of(&spec.work).and_then(|name| loaded.state.images.get(name).cloned()),
        row: Arc::clone(&loaded.row),
        workflow: Arc::clone(&loaded.workflow),
        source: context.and_then(|c| c.source.clone()),
        reference: context.map(|c| c.reference.clone()).unwrap_or_default(),
        traceparent: context.and_then(|c| c.event.get("traceparent")).and_then(Value::as_str).map(str::to_owned),
        spec,
        step,
        index,
        number,
        stop,
    };
    let span = tracing::info_span!(
        "attempt",
        run = %attempt.row.run,
        step = attempt.declared().name,
        index,
        attempt = number
    );
    // Taken here and not in the task, so that the order of the line is the order in which tasks became due.
    let ticket = shared.pools.of(&attempt.spec.work).admission.ticket();
    let shared2 = Arc::clone(shared);
    let perform = async move {
        let run = attempt.row.run;
        let message = match &attempt.spec.work {
            Work::Call { .. } => {
                drop(ticket);
                let ending = call_now(&shared2, &attempt.key(), &attempt.spec.work).await;
                let (step, index, attempt) = (attempt.step, attempt.index, attempt.number);
                Some(Message::plain(Input::Ended { step, index, attempt, ending }))
            }
            Work::Job { .. } => job::perform(&shared2, &attempt, ticket).await,
        };
        if let Some(message) = message {
            send(&shared2, run, message);
        }
    };
    shared.tasks.spawn(perform.instrument(span));
}
