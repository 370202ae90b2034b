//! The compiled form of a workflow: what the engine executes, stores with every run, and never compiles again for it.
//!
//! A [`Plan`] comes from `kickwheel-spec`, which has checked everything that can be checked: names resolve, the graph has
//! no cycle, expressions parse. The journal refers to steps by [`StepIndex`], so a stored plan is never edited.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kickwheel_schemas::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    expr::{Expr, Template},
    filter::EventFilter,
};

/// Version of the serialised form. A binary reads its own and older ones.
pub const PLAN_FORMAT: u32 = 1;

/// Most tasks that one array step may expand to.
pub const MAX_TASKS_PER_STEP: usize = 10_000;

/// In `files:`, a text that begins so names a dataset of which the pinned version is meant.
pub const DATASET_PREFIX: &str = "dataset:";

/// Most times a plugin call is repeated because what it saw had changed.
pub const MAX_CONFLICTS: u32 = 3;

/// Most times an attempt is repeated because the platform lost it.
pub const MAX_PLATFORM_FAILURES: u32 = 10;

/// A workflow as compiled from one file: what starts it, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Unique in its project.
    pub name: String,
    /// What starts it; any one filter suffices.
    pub on: Vec<EventFilter>,
    /// What it does.
    pub plan: Plan,
}

/// Index into [`Plan::steps`].
pub type StepIndex = usize;

/// What a run executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`] of the binary that compiled it.
    pub format: u32,
    /// The workflow's name.
    pub workflow: String,
    /// Declared inputs.
    pub inputs: IndexMap<String, InputDecl>,
    /// Names of datasets whose version is pinned when the run is decided, because `files` or an expression names them.
    pub datasets: Vec<String>,
    /// In an order in which every step comes after its needs: first `Main`, then `OnFailure`, then `Finally`.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Digest of the serialised plan: equal plans behave equally.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a plan has string keys only"))
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<(StepIndex, &Step)> {
        self.steps.iter().enumerate().find(|(_, s)| s.name == name)
    }
}

/// A declared input of the workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputDecl {
    /// What values it takes.
    pub ty: InputType,
    /// Taken when nobody gives a value; without one the input is required.
    pub default: Option<Value>,
    /// For numbers.
    pub minimum: Option<f64>,
    /// For numbers.
    pub maximum: Option<f64>,
    /// The only values allowed, when not empty.
    pub choices: Vec<Value>,
}

/// The type of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// true or false.
    Boolean,
    /// A list of anything.
    List,
}

/// When in a run a step may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The workflow's `steps`.
    Main,
    /// After a main step failed. Not after a cancel.
    OnFailure,
    /// Always, at the very end; with a limited grace after a cancel.
    Finally,
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the workflow; letters, digits, `-` and `_`.
    pub name: String,
    /// When it may run.
    pub phase: Phase,
    /// Explicit and inferred needs, all of the same phase, all before this step.
    pub needs: Vec<StepIndex>,
    /// `if:`.
    pub condition: Option<Condition>,
    /// Makes it an array step.
    pub matrix: Option<Matrix>,
    /// What it does.
    pub action: Action,
    /// Environment of a job; each must evaluate to a text, number or boolean.
    pub env: IndexMap<String, Template>,
    /// Paths in the work folder, and what is laid there: each evaluates to an artifact object, to a text `dataset:NAME`
    /// which means the pinned version, or to a list of these, which become files of a folder, `0000-NAME` and so on.
    pub files: IndexMap<String, Template>,
    /// What later steps may read.
    pub outputs: IndexMap<String, OutputDecl>,
    /// How failures are repeated.
    pub retry: Retry,
    /// From the start of user code, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether a task with an unchanged content key is taken from the cache.
    pub cache: bool,
    /// Globs that narrow the source tree that the step sees; empty: the whole tree without `.kickwheel/`.
    pub source: Vec<String>,
    /// What it asks of a pool.
    pub resources: Resources,
    /// Files that hold secrets, in a folder in memory, and the name of the secret that each holds.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub secrets: IndexMap<String, String>,
    /// What its container may do.
    #[serde(default, skip_serializing_if = "ContainerLimits::is_default")]
    pub container: ContainerLimits,
}

/// What a container may do beyond the least. Plans without it mean the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLimits {
    /// Whether it reaches other machines.
    pub network: bool,
    /// Whether nothing but its work folder can be written.
    pub read_only: bool,
}

impl ContainerLimits {
    // serde hands over a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `if:`, ANDed with "all needs succeeded" unless it speaks about failure itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Must give a boolean.
    pub expr: Expr,
    /// It calls `always()` or `failed()`, so it is evaluated whatever became of the needs.
    pub handles_failure: bool,
}

/// The axes of an array step; its tasks are their product, the last axis varying fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// Axis name to its values: a template that gives a list.
    pub axes: IndexMap<String, Template>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// `run:`, a script for `/bin/sh -eu`.
    Script {
        /// Never contains an expression.
        script: String,
        /// In a container, when given.
        image: Option<String>,
    },
    /// `image:` + `command:`.
    Container {
        /// The image.
        image: String,
        /// `argv`, each evaluating to a text.
        command: Vec<Template>,
    },
    /// `uses:` + `with:`.
    Plugin {
        /// As in `uses:`.
        name: String,
        /// Digest of the component, resolved when the file was compiled.
        digest: Digest,
        /// Arguments. Those that the plugin declares as `reference` are resolved before the call.
        with: IndexMap<String, Template>,
        /// Names of the arguments declared as `reference`.
        references: Vec<String>,
        /// Declared outputs of the plugin.
        outputs: Vec<String>,
    },
}

/// A declared output of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OutputDecl {
    /// A file or folder of the work folder, stored as an artifact.
    Path {
        /// Relative to the work folder.
        path: String,
        /// Publishes it as a new version of this dataset when the result is accepted.
        dataset: Option<String>,
    },
    /// A value written to `$KICKWHEEL_OUTPUT`.
    Value,
}

/// How the user's failures are repeated; the platform's have a budget of their own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Further attempts after the first.
    pub max: u32,
    /// Before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// Each later wait is this many times the one before.
    pub factor: f64,
    /// Longest wait, in milliseconds.
    pub max_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max: 0, initial_ms: 10_000, factor: 2.0, max_ms: 300_000 }
    }
}

impl Retry {
    /// The wait before the attempt that follows `failures` failures (at least 1), in milliseconds.
    pub fn wait_ms(&self, failures: u32) -> u64 {
        let factor = self.factor.max(1.0).powi(i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX));
        let wait = self.initial_ms as f64 * factor;
        if wait.is_finite() { (wait as u64).min(self.max_ms) } else { self.max_ms }
    }
}

/// What a job asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes; also the job's limit. None: no limit, counts as nothing.
    pub memory_bytes: Option<u64>,
    /// Whole GPUs.
    pub gpu: u32,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu_milli: 1000, memory_bytes: None, gpu: 0 }
    }
}

/// Values of one task's matrix axes.
pub type MatrixValues = BTreeMap<String, Value>;
