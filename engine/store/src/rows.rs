//! What can be read: rows as plain structs, and the filters of listings.
//!
//! Where to look next: the submodules, for what concerns triggers, access, the bus and quarantine.

mod access;
mod bus;
mod quarantine;
mod triggers;

use std::collections::BTreeMap;

use kickwheel_schemas::{ArtifactRef, CloudEvent, Digest, Millis, RunId, api::RunPhase};
use serde_json::Value;

pub use access::{SealedSecretRow, SecretRow, TokenRow};
pub use bus::{BusModeRow, PartitionRow, RelayRow, SpoolDepth, SpoolRow};
pub use quarantine::{InputFilter, InputRow, InputState, InputSummary};
pub use triggers::{TriggerRow, TriggerStateRow};

use crate::{
    EventKey,
    write::{CacheResult, DecisionRow},
};

/// A run without its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// The run's id.
    pub run: RunId,
    /// The shard it belongs to.
    pub shard: u32,
    /// The project.
    pub project: String,
    /// The workflow's name.
    pub workflow: String,
    /// Names the compiled plan.
    pub plan_digest: Digest,
    /// Names the workflow file's content.
    pub source_digest: Digest,
    /// The causing event's `source`.
    pub event_source: String,
    /// The causing event's `id`.
    pub event_id: String,
    /// Our key of the causing event.
    pub event_key: EventKey,
    /// 0 at first, higher for replays and retries.
    pub generation: u32,
    /// Branch, when a push caused it.
    pub branch: Option<String>,
    /// Commit, when it has a source.
    pub commit: Option<String>,
    /// What caused it, in one line.
    pub cause: String,
    /// Why it was started.
    pub decision: String,
    /// When it was decided.
    pub created_at: Millis,
    /// Where it stands.
    pub state: RunPhase,
    /// Outstanding commands.
    pub open: u32,
    /// The earliest timer.
    pub wake_at: Option<Millis>,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// Events in its journal: the sequence number of the next one.
    pub next_seq: u64,
    /// Whether the journal is sealed.
    pub sealed: bool,
}

/// Which runs to list; `None` and empty mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// The project.
    pub project: Option<String>,
    /// The workflow's name.
    pub workflow: Option<String>,
    /// Any of these states.
    pub states: Vec<RunPhase>,
    /// The branch.
    pub branch: Option<String>,
    /// Created at or after.
    pub since: Option<Millis>,
    /// Created before.
    pub until: Option<Millis>,
    /// Only runs older than this one: the last of the page before.
    pub before: Option<RunId>,
    /// At most so many; 0 means [`DEFAULT_LIMIT`], and never more than [`MAX_LIMIT`].
    pub limit: u32,
}

/// How many rows a listing gives when it is not told.
pub const DEFAULT_LIMIT: u32 = 50;
/// How many rows a listing gives at most.
pub const MAX_LIMIT: u32 = 1_000;

/// One event of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// From 0, without gaps.
    pub seq: u64,
    /// When it was appended.
    pub at: Millis,
    /// The serialised event.
    pub event: String,
}

/// A snapshot of a run's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Events folded into it.
    pub seq: u64,
    /// The serialised state.
    pub body: Vec<u8>,
}

/// An input that waits for its run.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxRow {
    /// The run's shard.
    pub shard: u32,
    /// The run.
    pub run: RunId,
    /// Unique within the run.
    pub input_id: String,
    /// The input.
    pub body: Value,
    /// When it was left.
    pub at: Millis,
}

/// What became of an event so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventState {
    /// It waits for its turn, or is parked.
    Undecided,
    /// It is decided.
    Decided,
    /// Somebody has to look at it.
    Quarantined,
    /// Somebody looked at it and gave it up.
    Dropped,
}

impl EventState {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Decided => "decided",
            Self::Quarantined => "quarantined",
            Self::Dropped => "dropped",
        }
    }
}

/// An accepted event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Our key.
    pub key: EventKey,
    /// The project.
    pub project: String,
    /// The event.
    pub event: CloudEvent,
    /// When it was received.
    pub received_at: Millis,
    /// How it came.
    pub channel: String,
    /// Its place in its lane, from 1.
    pub position: u64,
    /// What became of it.
    pub state: EventState,
    /// Why it is parked, quarantined or dropped.
    pub reason: Option<String>,
    /// What was learnt from outside; null until it is decided.
    pub enrichment: Value,
    /// The registry's revision that it was decided by.
    pub registry_revision: Option<i64>,
    /// When it was decided, quarantined or dropped.
    pub decided_at: Option<Millis>,
}

/// Which events to list; `None` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The project.
    pub project: Option<String>,
    /// The event type.
    pub ty: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// What became of it.
    pub state: Option<EventState>,
    /// Received at or after.
    pub since: Option<Millis>,
    /// Only events older than this one: the last of the page before.
    pub before: Option<EventKey>,
    /// At most so many; 0 means [`DEFAULT_LIMIT`], and never more than [`MAX_LIMIT`].
    pub limit: u32,
}

/// Which events to go through again, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventRange {
    /// The project.
    pub project: String,
    /// Received at or after; none: from the first on.
    pub since: Option<Millis>,
    /// Received before; none: up to the last.
    pub until: Option<Millis>,
    /// Any of these types; empty: all.
    pub types: Vec<String>,
    /// Only events newer than this one: the last of the page before.
    pub after: Option<EventKey>,
    /// At most so many; 0 means [`DEFAULT_LIMIT`], and never more than [`MAX_LIMIT`].
    pub limit: u32,
}

/// A decision as it is stored.
pub type StoredDecision = DecisionRow;

/// A recorded move of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionRow {
    /// From 1 within the ref.
    pub transition: u64,
    /// Commit before; none when the ref was created.
    pub before: Option<String>,
    /// Commit after; none when the ref was deleted.
    pub after: Option<String>,
    /// Channels that reported it, in order.
    pub channels: Vec<String>,
    /// The event that reported it first.
    pub event: EventKey,
    /// False when it came late and left the head alone.
    pub moved_head: bool,
    /// When it was recorded.
    pub at: Millis,
}

/// Where a ref stood after the last recorded move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefHead {
    /// None: the ref was deleted.
    pub commit: Option<String>,
    /// Number of the newest transition of the ref.
    pub transition: u64,
}

/// A compiled workflow version.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// The project.
    pub project: String,
    /// Names the compiled plan.
    pub plan_digest: Digest,
    /// Names the file's content.
    pub source_digest: Digest,
    /// The workflow's name.
    pub name: String,
    /// The file.
    pub yaml: String,
    /// The compiled plan.
    pub compiled: Value,
    /// When it was first seen.
    pub at: Millis,
}

/// A revision of a project's registry.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryRow {
    /// From 1, without gaps.
    pub revision: i64,
    /// The whole registry.
    pub body: Value,
    /// When.
    pub at: Millis,
}

/// A bound repository.
pub type RepoRow = crate::write::PutRepo;
/// A watched dataset.
pub type WatchRow = crate::write::PutWatch;

/// Which of the two named kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

impl AssetKind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }
}

/// A named model or dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct AssetRow {
    /// The project.
    pub project: String,
    /// Model or dataset.
    pub kind: AssetKind,
    /// Its name.
    pub name: String,
    /// Newest first.
    pub versions: Vec<AssetVersionRow>,
    /// Stage to version.
    pub stages: BTreeMap<String, u64>,
}

/// A version of a model or dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct AssetVersionRow {
    /// Counts from 1.
    pub version: u64,
    /// Its bytes.
    pub artifact: ArtifactRef,
    /// Metrics recorded with it.
    pub metrics: BTreeMap<String, f64>,
    /// The task that made it.
    pub task: Option<String>,
    /// When.
    pub at: Millis,
}

/// A result kept under a content key.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRow {
    /// The task that made it: `run/step[index]`.
    pub task: String,
    /// Its output.
    pub output: Value,
    /// When.
    pub at: Millis,
}

/// How a task's content key was made up.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRecordRow {
    /// `run/step[index]`.
    pub task: String,
    /// The content key; none when the cache is off.
    pub key: Option<String>,
    /// What the key was made of.
    pub parts: Value,
    /// What the cache said.
    pub result: CacheResult,
    /// When.
    pub at: Millis,
}

/// A report that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    /// The project.
    pub project: String,
    /// The run.
    pub run: RunId,
    /// When to try.
    pub due_at: Millis,
    /// What is to be reported where.
    pub body: Value,
    /// Failed tries so far.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Option<String>,
}

/// Numbers for metrics: only what is live is counted, so that counting costs what is live and not what ever was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs that have not ended, by state.
    pub live_runs: BTreeMap<String, u64>,
    /// Events that wait to be decided.
    pub undecided: u64,
    /// Events that somebody has to look at.
    pub quarantined: u64,
    /// Inputs that wait for their runs.
    pub inbox: u64,
    /// Inputs that could not become events and that somebody has to look at.
    pub held: u64,
}
