//! The journal: facts, and how they fold into a state.
//!
//! An event says what was decided, with every evaluated expression in it, so that folding never evaluates anything and a
//! newer binary never decides the past again. How they fold is in `event/fold.rs`; what may follow what, for tests, in
//! `event/legal.rs`.

mod fold;
mod legal;

use std::collections::BTreeMap;

pub use fold::apply;
pub(crate) use fold::{fold_head, fold_step};
use kickwheel_schemas::{ArtifactRef, Digest, Millis, plugin::Effect};
pub use legal::is_legal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{MatrixValues, Phase, Resources, StepIndex};

/// A fact about one run. Closed; an event of an unknown kind stops its shard and is never skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first event of every run.
    RunStarted {
        /// What expressions may read.
        context: Box<RunContext>,
        /// When it was decided.
        at: Millis,
    },
    /// A phase was entered: `Main` comes with the start and is not journaled.
    PhaseEntered {
        /// `OnFailure` or `Finally`.
        phase: Phase,
        /// When.
        at: Millis,
    },
    /// A step's tasks came into being and are to be executed. An empty list is an array step with nothing to do.
    StepExpanded {
        /// Which step.
        step: StepIndex,
        /// In index order from 0.
        tasks: Vec<TaskSpec>,
        /// When.
        at: Millis,
    },
    /// A step will not run.
    StepSkipped {
        /// Which step.
        step: StepIndex,
        /// Why, for people.
        reason: String,
        /// When.
        at: Millis,
    },
    /// A step failed before it had tasks: an expression could not be evaluated.
    StepFailed {
        /// Which step.
        step: StepIndex,
        /// Why.
        failure: Failure,
        /// When.
        at: Millis,
    },
    /// User code of an attempt has begun.
    TaskStarted {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
        /// When.
        at: Millis,
    },
    /// An attempt ended and its task with it.
    TaskFinished {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// Which attempt.
        attempt: u32,
        /// What became of it.
        end: TaskEnd,
        /// When.
        at: Millis,
    },
    /// An attempt ended and another follows.
    TaskRetried {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// The attempt that ended.
        attempt: u32,
        /// Whose budget it spends.
        cause: RetryCause,
        /// Why.
        failure: Failure,
        /// The next attempt starts no earlier.
        not_before: Millis,
        /// When.
        at: Millis,
    },
    /// The wait before a further attempt is over; it is to be executed now.
    TaskDue {
        /// Which step.
        step: StepIndex,
        /// Which task of it.
        index: u32,
        /// The attempt that waited.
        attempt: u32,
        /// When.
        at: Millis,
    },
    /// All tasks of a step have ended.
    StepFinished {
        /// Which step.
        step: StepIndex,
        /// Succeeded only if every task did.
        succeeded: bool,
        /// When.
        at: Millis,
    },
    /// Somebody asked for the end. Running tasks are stopped; nothing that is accepted later is published.
    CancelRequested {
        /// Who, as far as known.
        by: String,
        /// Why, when given.
        reason: String,
        /// When.
        at: Millis,
    },
    /// A cancelled run's `Finally` phase took longer than [`crate::decide::FINALLY_GRACE_MS`]; its tasks are stopped too.
    GraceEnded {
        /// When.
        at: Millis,
    },
    /// What an image's name stands for in this run, from its first job on: a tag may move, the run's images do not.
    ImagePinned {
        /// As the workflow names it.
        image: String,
        /// What it stood for.
        digest: String,
        /// When.
        at: Millis,
    },
    /// The last event of every run.
    RunFinished {
        /// How.
        outcome: RunOutcome,
        /// When.
        at: Millis,
    },
}

impl Event {
    /// The step that it is about; none for facts about the whole run.
    pub fn step(&self) -> Option<StepIndex> {
        match self {
            Self::StepExpanded { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::StepFailed { step, .. }
            | Self::TaskStarted { step, .. }
            | Self::TaskFinished { step, .. }
            | Self::TaskRetried { step, .. }
            | Self::TaskDue { step, .. }
            | Self::StepFinished { step, .. } => Some(*step),
            Self::RunStarted { .. }
            | Self::PhaseEntered { .. }
            | Self::CancelRequested { .. }
            | Self::GraceEnded { .. }
            | Self::ImagePinned { .. }
            | Self::RunFinished { .. } => None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// No step failed.
    Succeeded,
    /// A step failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Whose budget a further attempt spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryCause {
    /// The user's code failed: spends `retry.max`.
    User,
    /// The attempt was lost: spends [`crate::plan::MAX_PLATFORM_FAILURES`].
    Platform,
    /// What a plugin saw had changed: spends [`crate::plan::MAX_CONFLICTS`].
    Conflict,
}

/// What expressions of a run may read, fixed when the run is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunContext {
    /// The run's id as text.
    pub run: String,
    /// The project's name.
    pub project: String,
    /// The CloudEvent that caused the run, as JSON: `event` in expressions.
    pub event: Value,
    /// Every declared input has a value.
    pub inputs: BTreeMap<String, Value>,
    /// For each of [`crate::Plan::datasets`]: the pinned version, or none when the dataset has no version yet.
    pub datasets: BTreeMap<String, Option<PinnedDataset>>,
    /// The pinned source tree.
    pub source: Option<PinnedSource>,
    /// Where a person can look at the run.
    pub url: String,
    /// The ref whose rights the run has.
    #[serde(default, skip_serializing_if = "RunRef::is_unrecorded")]
    pub reference: RunRef,
}

/// The ref whose protected secrets a run may see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunRef {
    /// Nothing was said when the run was decided: it is about no ref, or older than this record. It then runs what its
    /// repository's default branch holds.
    #[default]
    Unrecorded,
    /// It runs a commit of which the mirror did not confirm that it lies on the ref that the event named.
    Nothing,
    /// In full. The mirror confirmed that the run's commit lies there.
    Confirmed(String),
}

impl RunRef {
    fn is_unrecorded(&self) -> bool {
        *self == Self::Unrecorded
    }
}

/// A dataset version pinned by a run: `datasets["name"]` in expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedDataset {
    /// The dataset's name.
    pub name: String,
    /// Counts from 1.
    pub version: u64,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Sum of the files' lengths in bytes.
    pub size: u64,
    /// Each file as an artifact: `.digest`, `.size`, `.path`.
    pub files: Vec<ArtifactRef>,
}

/// The source tree pinned by a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedSource {
    /// The repository's name in its project; empty for an uploaded working tree.
    pub repo: String,
    /// Full hex commit; empty for an uploaded working tree.
    pub commit: String,
    /// Full hex tree, or the digest of an uploaded working tree.
    pub tree: String,
}

/// What one task is to do: every expression evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The values of the matrix axes; empty for a single task.
    pub matrix: MatrixValues,
    /// What is executed.
    pub work: Work,
}

/// The executable part of a [`TaskSpec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// A job on a pool.
    Job {
        /// Script or argv.
        program: JobProgram,
        /// In a container, when given.
        image: Option<String>,
        /// Evaluated environment.
        env: BTreeMap<String, String>,
        /// Evaluated files.
        files: BTreeMap<String, ArtifactRef>,
        /// What it asks for.
        resources: Resources,
    },
    /// A call of a plugin.
    Call {
        /// As in `uses:`.
        plugin: String,
        /// The component.
        digest: Digest,
        /// Evaluated arguments; references are still texts and are resolved before the call.
        with: BTreeMap<String, Value>,
        /// Which of `with` are references.
        references: Vec<String>,
    },
}

/// What a job starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobProgram {
    /// A script for `/bin/sh -eu`.
    Script {
        /// Its text.
        script: String,
    },
    /// A program and its arguments.
    Argv {
        /// Not empty.
        argv: Vec<String>,
    },
}

/// How a task ended. The tag must not be called like a field of what it tags: a failure has a `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum TaskEnd {
    /// Its outputs are accepted.
    Succeeded(TaskOutput),
    /// It failed for good.
    Failed(Failure),
    /// It was stopped, or never started, because the run was cancelled.
    Cancelled,
}

/// What a successful task produced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// Declared outputs: plain values, and artifact objects for paths.
    pub outputs: BTreeMap<String, Value>,
    /// The last value of each metric.
    pub metrics: BTreeMap<String, f64>,
    /// Effects that were carried out with the acceptance.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// When the result was taken from the cache: the task (`run/step[index]`) that made it.
    #[serde(default)]
    pub cached_from: Option<String>,
}

impl TaskOutput {
    /// Nothing at all.
    pub const fn none() -> Self {
        Self { outputs: BTreeMap::new(), metrics: BTreeMap::new(), effects: Vec::new(), cached_from: None }
    }
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// A lower-case fragment for people, with the value that was wrong and what to do.
    pub message: String,
}

/// The taxonomy of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program ended with a code other than 0.
    Exit,
    /// A signal ended it.
    Signal,
    /// The step's time-out passed.
    TimedOut,
    /// It used more memory than it asked for.
    OutOfMemory,
    /// A declared output is missing or malformed.
    BadOutput,
    /// An expression could not be evaluated.
    Expression,
    /// A plugin reported an error, trapped, or hit a limit.
    Plugin,
    /// An effect kept meeting a changed world.
    Conflict,
    /// The platform lost the attempt.
    Platform,
    /// No pool can ever run it as it is asked for.
    Unplaceable,
}

impl FailureKind {
    /// Whether the same attempt could end otherwise when repeated with the user's budget.
    pub fn spends_retry(self) -> bool {
        match self {
            Self::Exit | Self::Signal | Self::TimedOut | Self::OutOfMemory | Self::BadOutput | Self::Plugin => true,
            Self::Expression | Self::Conflict | Self::Platform | Self::Unplaceable => false,
        }
    }
}
