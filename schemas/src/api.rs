//! Bodies of the HTTP API, `/api/v1`. The CLI and every other client use only these.
//!
//! Every listing is a [`Page`]: `{"items": [{"id", "state", …}]}`. Times are RFC 3339 in UTC. Errors are [`Problem`].
//! Bodies about triggers, tokens and secrets, and the quarantine are in modules of their own.

mod access;
mod bus;
mod quarantine;
mod triggers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use access::{CreateToken, CreatedToken, Rekey, Rekeyed, Role, SecretView, SetSecret, TokenView};
pub use bus::{BusView, PartitionView, ResetBus};
pub use quarantine::{DropHeld, EditHeld, HeldKind, QuarantineDetail, QuarantineView, Resolved};
pub use triggers::{
    AddTrigger, CronTriggerConfig, DEFAULT_MAX_BYTES, DEFAULT_RATE_PER_MINUTE, DatasetTrigger, ForgeTrigger,
    JiraTrigger, KafkaStart, KafkaTrigger, LARGEST_MAX_BYTES, LARGEST_RATE_PER_MINUTE, MAX_SIGNING_SECRETS,
    MissedTicks, TriggerConfig, TriggerConfigError, TriggerKind, TriggerSubject, TriggerView, WebhookLimits,
};

use crate::{ArtifactRef, CloudEvent};

/// A listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// In the order that the endpoint documents; newest first where nothing is said.
    pub items: Vec<T>,
    /// Give it as `cursor` to get what follows; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An error, in the spirit of RFC 9457.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable code, explained in `docs/errors.md`, for example `run_not_found`.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// The mistakes of a workflow file, when that is what was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticView>,
}

/// A project. There is one, `default`, until projects can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectView {
    /// Its name.
    pub id: String,
    /// `active`.
    pub state: String,
}

/// Answer to an event that was accepted durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The event's key in our store; for an event that was sent before, the first one's.
    pub id: String,
    /// It was sent before, with the same `source` and `id`: nothing new was recorded. Where Kafka carries events, that is
    /// found out only when it is read from there.
    #[serde(default)]
    pub duplicate: bool,
}

/// Answer of `runs/{id}/watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Watched {
    /// Length of the run's journal: give it as `seq` to wait for what comes next.
    pub seq: u64,
    /// The run as of `seq`.
    pub run: RunDetail,
}

/// Where a run stands, for people and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Decided, not begun.
    Queued,
    /// A task is executed or about to be.
    Running,
    /// Only timers or the outside world can move it.
    Waiting,
    /// Ended well.
    Succeeded,
    /// A step failed.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl RunPhase {
    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A row of the list of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// The run's id.
    pub id: String,
    /// Where it stands.
    pub state: RunPhase,
    /// The workflow's name.
    pub workflow: String,
    /// Digest of the workflow file's content.
    pub workflow_version: String,
    /// The project.
    pub project: String,
    /// Branch, when a push caused it.
    pub branch: Option<String>,
    /// Commit, when it has a source.
    pub commit: Option<String>,
    /// What caused it, in one line.
    pub cause: String,
    /// The causing event's `source`.
    pub event_source: String,
    /// The causing event's `id`.
    pub event_id: String,
    /// How often this event was made to start this workflow: 0 at first, higher for replays and retries.
    pub generation: u32,
    /// When it was decided.
    pub created_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// One run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// As in the list.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its inputs.
    pub inputs: BTreeMap<String, Value>,
    /// Why it was started: the decision's words.
    pub decision: String,
    /// Set when its end was asked for: who and why.
    pub cancel: Option<String>,
    /// What the names of images stand for in this run, as far as jobs have needed them.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// In plan order.
    pub steps: Vec<StepView>,
    /// From the receipt of the event to the start of the first task's user code, in milliseconds.
    pub first_task_ms: Option<u64>,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// `main`, `on_failure` or `finally`.
    pub phase: String,
    /// `waiting`, `running`, `succeeded`, `failed`, `skipped`.
    pub state: String,
    /// Names of the steps it needs.
    pub needs: Vec<String>,
    /// Why it was skipped or failed before it had tasks.
    pub reason: Option<String>,
    /// Whether it is an array step.
    pub array: bool,
    /// In index order.
    pub tasks: Vec<TaskView>,
}

/// A task of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// `run/step[index]`.
    pub id: String,
    /// Its index.
    pub index: u32,
    /// `ready`, `running`, `backoff`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// The current or last attempt.
    pub attempt: u32,
    /// Its matrix values.
    pub matrix: BTreeMap<String, Value>,
    /// Declared outputs.
    pub outputs: BTreeMap<String, Value>,
    /// The last value of each metric.
    pub metrics: BTreeMap<String, f64>,
    /// Fraction done in 0..=1, when the job reports one.
    pub progress: Option<f64>,
    /// What it waits for, or why it failed.
    pub reason: Option<String>,
    /// The task whose cached result was taken.
    pub cached_from: Option<String>,
    /// Process id on the local pool while it runs.
    pub pid: Option<u32>,
    /// When user code began.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// Starts a workflow by hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StartRun {
    /// Values of inputs.
    #[serde(default)]
    pub inputs: BTreeMap<String, Value>,
    /// Chosen by the client so that a repeated request starts nothing twice; made up when absent.
    #[serde(default)]
    pub event_id: Option<String>,
}

/// Asks for the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CancelRun {
    /// For people.
    #[serde(default)]
    pub reason: String,
}

/// A workflow of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowView {
    /// Its name; for a broken file, its path.
    pub id: String,
    /// `active`, `paused` or `broken`.
    pub state: String,
    /// The project.
    pub project: String,
    /// Digest of the file's content.
    pub version: String,
    /// Repository and path it comes from, or `applied`.
    pub origin: String,
    /// Commit it comes from.
    pub commit: Option<String>,
    /// Mistakes of a broken file, and warnings of any.
    pub diagnostics: Vec<DiagnosticView>,
    /// Its inputs: name to a JSON description.
    pub inputs: BTreeMap<String, Value>,
}

/// Whether a workflow with a diagnostic can be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot: a mistake.
    #[default]
    Error,
    /// It can, but something in it has no effect.
    Warning,
}

/// A mistake in a workflow file, or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiagnosticView {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// How bad it is; what was stored before there were severities is taken for a mistake.
    #[serde(default)]
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The source line.
    pub excerpt: String,
}

impl DiagnosticView {
    /// Whether it keeps the workflow from being run.
    pub fn is_error(&self) -> bool {
        match self.severity {
            Severity::Error => true,
            Severity::Warning => false,
        }
    }
}

/// Puts a workflow file into the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyWorkflow {
    /// For messages.
    pub file: String,
    /// The document.
    pub yaml: String,
}

/// A bound repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RepoView {
    /// The name that filters use.
    pub id: String,
    /// `active`, or `unreachable` when the last fetch failed.
    pub state: String,
    /// The project.
    pub project: String,
    /// URL or path.
    pub url: String,
    /// The default branch.
    pub default_branch: Option<String>,
    /// Whether our post-receive hook is installed there.
    pub hook: bool,
    /// How often its branches and tags are looked at, in milliseconds; none: never.
    #[serde(default)]
    pub poll_ms: Option<u64>,
    /// Name of the secret that its server is shown.
    #[serde(default)]
    pub secret: Option<String>,
    /// What went wrong last.
    pub reason: Option<String>,
}

/// Binds a repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AddRepo {
    /// URL or absolute path.
    pub url: String,
    /// The name that filters use.
    pub name: String,
    /// Name of the secret that its server asks for: a password or token behind https, a private key behind ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whom to log in as behind https; none: any, beside a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Lines of a `known_hosts` file: the servers behind ssh that are the right ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// The key that the server behind ssh shows first is the right one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_new_host_key: bool,
    /// How often its branches and tags are looked at, in milliseconds; 0: never; none: as often as its kind has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_ms: Option<u64>,
}

/// An event with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// The event's key in our store: what `events get` and `explain` take.
    pub id: String,
    /// `undecided`, `decided` or `quarantined`.
    pub state: String,
    /// The event.
    pub event: CloudEvent,
    /// When it was received.
    pub received_at: String,
    /// Why it waits or was quarantined.
    pub reason: Option<String>,
    /// Ids of the runs that it started.
    pub runs: Vec<String>,
}

/// What one event meant for one workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// The workflow's name.
    pub workflow: String,
    /// `started`, `filtered`, `duplicate`, `paused`, `broken`.
    pub decision: String,
    /// The clause that decided: for filtered, the first that failed.
    pub clause: Option<String>,
    /// What the filter wants.
    pub wanted: Option<String>,
    /// What the event has.
    pub seen: Option<String>,
    /// One sentence for people.
    pub reason: String,
    /// The run that was started.
    pub run: Option<String>,
}

/// Answer of `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The event.
    pub event: EventView,
    /// The true changed paths, lossily as text, when it is a push and they are known.
    pub changed_paths: Option<Vec<String>>,
    /// Why they are unknown.
    pub changed_paths_unknown: Option<String>,
    /// One per workflow of the registry as it was when the event was decided.
    pub decisions: Vec<DecisionView>,
}

/// A named model or dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AssetView {
    /// Its name.
    pub id: String,
    /// `active`; for a dataset that is watched, `watched`, or `unreadable` while it cannot be looked at and so gets no new
    /// versions.
    pub state: String,
    /// The project.
    pub project: String,
    /// Newest first.
    pub versions: Vec<AssetVersionView>,
    /// Stage to version; models only.
    pub stages: BTreeMap<String, u64>,
    /// The watched folder or file; datasets only.
    pub path: Option<String>,
    /// Why it cannot be looked at, or what in it is left out; datasets only.
    #[serde(default)]
    pub reason: Option<String>,
}

/// One version of a model or dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AssetVersionView {
    /// Counts from 1.
    pub version: u64,
    /// Its bytes.
    pub artifact: ArtifactRef,
    /// Metrics recorded with it.
    pub metrics: BTreeMap<String, f64>,
    /// The task that made it; absent when it came from a trigger.
    pub task: Option<String>,
    /// When.
    pub created_at: String,
}

/// Watches a folder or file as a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AddDataset {
    /// The dataset's name.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// It must have been unchanged this long before a version is published, in milliseconds.
    pub settle_ms: u64,
}

/// Why a task was or was not taken from the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CacheWhy {
    /// `run/step[index]`.
    pub task: String,
    /// `hit`, `miss` or `off`.
    pub result: String,
    /// The content key.
    pub key: Option<String>,
    /// The task that made the result, for a hit; for a miss the nearest earlier task that was compared.
    pub compared_with: Option<String>,
    /// For a miss: the parts of the key that differ.
    pub differs: Vec<CacheDifference>,
    /// One sentence for people.
    pub reason: String,
}

/// One part of a cache key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CacheDifference {
    /// The part: `script`, `source`, `files.NAME`, `env.NAME`, …
    pub part: String,
    /// Before.
    pub before: String,
    /// Now.
    pub now: String,
}

/// Answer of `/health` and, with more checks, of `doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, `paused` or `draining`.
    pub state: String,
    /// The binary's version.
    pub version: String,
    /// Each check.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was checked.
    pub id: String,
    /// `ok`, `warning` or `failed`.
    pub state: String,
    /// What is the case.
    pub message: String,
    /// What to do, unless it is ok.
    pub help: Option<String>,
}

/// A push as the post-receive hook saw it: one file of the hook's spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PostReceive {
    /// Random id of this invocation, so that a file that is read twice is one delivery.
    pub delivery: String,
    /// The name of the bound repository.
    pub repo: String,
    /// `<old> <new> <ref>` lines, verbatim; refs may be any bytes, so hex.
    pub lines_hex: Vec<String>,
    /// `GIT_PUSH_OPTION_*`.
    pub push_options: Vec<String>,
    /// Who pushed, when the environment says so.
    pub actor: Option<String>,
    /// From the environment, when the pusher is traced.
    pub traceparent: Option<String>,
    /// When, RFC 3339.
    pub time: String,
}
