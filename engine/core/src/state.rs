//! The state of a run: the fold of its journal, and nothing else.
//!
//! Everything here is derived from events by [`crate::event::apply`]; nobody else writes it. It serialises for snapshots,
//! which are disposable.

use std::collections::BTreeMap;

use kickwheel_schemas::Millis;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Failure, RunContext, RunOutcome, TaskOutput, TaskSpec},
    plan::Phase,
};

/// A run after some prefix of its journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Events applied so far: the sequence number of the next one.
    pub seq: u64,
    /// Where the run stands.
    pub status: RunStatus,
    /// None before `RunStarted`.
    pub context: Option<Box<RunContext>>,
    /// As long as the plan's steps.
    pub steps: Vec<StepState>,
    /// Set once by `CancelRequested`.
    pub cancel: Option<Cancel>,
    /// What the names of images stand for in this run, as far as jobs have needed them.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// When the run was decided.
    pub created_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// No event yet.
    New,
    /// Executing the steps of a phase.
    Active {
        /// Which.
        phase: Phase,
    },
    /// Terminal: no further event is ever decided.
    Finished {
        /// How it ended.
        outcome: RunOutcome,
    },
}

/// A request to end the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who.
    pub by: String,
    /// Why, when given.
    pub reason: String,
    /// When.
    pub at: Millis,
    /// How much longer the `Finally` phase may take.
    #[serde(default)]
    pub grace: Grace,
}

/// What a cancelled run leaves to its `Finally` phase. It begins with that phase, or with the cancel if that comes later,
/// so that slow stops of main tasks take nothing away from cleaning up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grace", rename_all = "snake_case")]
pub enum Grace {
    /// Tasks of earlier phases are still to end.
    #[default]
    NotBegun,
    /// The phase is running.
    Since {
        /// Since when.
        at: Millis,
    },
    /// Its tasks are being stopped as well.
    Over,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StepState {
    /// Its needs have not all ended, or its phase has not come.
    Waiting,
    /// It has tasks, of which `open` have not ended.
    Active {
        /// In index order.
        tasks: Vec<TaskState>,
        /// How many are not terminal.
        open: u32,
    },
    /// All tasks ended well.
    Succeeded {
        /// In index order.
        tasks: Vec<TaskState>,
    },
    /// A task failed or was cancelled, or an expression could not be evaluated (then there are no tasks). Whether it
    /// failed or was only stopped follows from the tasks, see [`StepState::is_cancelled`]: a member of its own would be
    /// one that older binaries cannot read in a snapshot.
    Failed {
        /// In index order.
        tasks: Vec<TaskState>,
        /// Set when the step failed before it had tasks.
        failure: Option<Failure>,
    },
    /// It did not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// What it does.
    pub spec: TaskSpec,
    /// The current or last attempt; 1 from the start.
    pub attempt: u32,
    /// Attempts that spent the user's budget.
    pub user_failures: u32,
    /// Attempts that the platform lost.
    pub platform_failures: u32,
    /// Calls that met a changed world.
    pub conflicts: u32,
    /// When user code of the newest attempt that got so far began.
    #[serde(default)]
    pub started_at: Option<Millis>,
    /// Where it stands.
    pub status: TaskStatus,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TaskStatus {
    /// To be executed; a pool may be running it already, no start has been reported.
    Ready {
        /// Since when.
        since: Millis,
    },
    /// User code is known to run.
    Running {
        /// Since when.
        since: Millis,
    },
    /// The next attempt waits for its time.
    Backoff {
        /// Until when.
        until: Millis,
        /// Why the last attempt ended.
        failure: Failure,
    },
    /// Ended well.
    Succeeded {
        /// What it produced.
        output: TaskOutput,
        /// When.
        at: Millis,
    },
    /// Ended badly.
    Failed {
        /// Why.
        failure: Failure,
        /// When.
        at: Millis,
    },
    /// Stopped, or never started.
    Cancelled {
        /// When.
        at: Millis,
    },
}

impl Cancel {
    /// Whether it stops tasks of this phase: `Finally` is spared until its grace is over.
    pub fn stops(&self, phase: Phase) -> bool {
        match phase {
            Phase::Main | Phase::OnFailure => true,
            Phase::Finally => self.grace == Grace::Over,
        }
    }
}

impl TaskStatus {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        match self {
            Self::Succeeded { .. } => true,
            Self::Ready { .. }
            | Self::Running { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => false,
        }
    }

    /// Whether nothing can happen to the task any more.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Ready { .. } | Self::Running { .. } | Self::Backoff { .. } => false,
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled { .. } => true,
        }
    }
}

impl StepState {
    /// Whether nothing can happen to the step any more.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Waiting | Self::Active { .. } => false,
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Skipped { .. } => true,
        }
    }

    /// Whether something went wrong in it: a task failed, or its expressions did.
    pub fn has_failed(&self) -> bool {
        match self {
            Self::Failed { .. } => !self.is_cancelled(),
            Self::Waiting | Self::Active { .. } | Self::Succeeded { .. } | Self::Skipped { .. } => false,
        }
    }

    /// Whether it ended only because the run was cancelled: tasks were stopped, and none failed.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Failed { tasks, failure: None } => {
                let any = |is: fn(&TaskStatus) -> bool| tasks.iter().any(|task| is(&task.status));
                any(|status| matches!(status, TaskStatus::Cancelled { .. }))
                    && !any(|status| matches!(status, TaskStatus::Failed { .. }))
            }
            Self::Failed { failure: Some(_), .. }
            | Self::Waiting
            | Self::Active { .. }
            | Self::Succeeded { .. }
            | Self::Skipped { .. } => false,
        }
    }

    /// Its tasks, none if it has not been expanded.
    pub fn tasks(&self) -> &[TaskState] {
        match self {
            Self::Waiting | Self::Skipped { .. } => &[],
            Self::Active { tasks, .. } | Self::Succeeded { tasks } | Self::Failed { tasks, .. } => tasks,
        }
    }
}

impl RunState {
    /// A run without events, for a plan of `steps` steps.
    pub fn new(steps: usize) -> Self {
        Self {
            seq: 0,
            status: RunStatus::New,
            context: None,
            steps: vec![StepState::Waiting; steps],
            cancel: None,
            images: BTreeMap::new(),
            created_at: Millis(0),
            ended_at: None,
        }
    }

    /// Whether tasks of this phase are to be stopped rather than executed.
    pub fn is_stopping(&self, phase: Phase) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.stops(phase))
    }

    /// Whether the run has ended.
    pub fn is_finished(&self) -> bool {
        matches!(self.status, RunStatus::Finished { .. })
    }
}
