//! The engine as others see it.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use kickwheel_schemas::{
    CloudEvent, Millis, RunId,
    api::{
        AddDataset, AddRepo, ApplyWorkflow, AssetView, CacheWhy, DiagnosticView, EventView, Explanation, Health, Page,
        RepoView, RunDetail, RunPhase, RunSummary, StartRun, WorkflowView,
    },
};

use crate::error::{ApiError, StartError};

/// How an engine is set up. Everything lives below `data`, except a Postgres database.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; made if absent.
    pub data: PathBuf,
    /// `postgres://…`, or none for SQLite in the data folder.
    pub database: Option<String>,
    /// The runner binary.
    pub runner: PathBuf,
    /// Declared capacity of the local pool; none: all cores, all memory.
    pub local_cpu_milli: Option<u64>,
    /// Base of the links to runs, for example `http://127.0.0.1:7070`.
    pub base_url: String,
    /// Lease of shards, for Postgres.
    pub lease: Duration,
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    /// Exact name.
    pub workflow: Option<String>,
    /// Any of these; empty: all.
    pub states: Vec<RunPhase>,
    /// Exact branch.
    pub branch: Option<String>,
    /// Created at or after.
    pub since: Option<Millis>,
    /// Created before.
    pub until: Option<Millis>,
    /// At most this many (1..=1000).
    pub limit: usize,
    /// From [`Page::next`].
    pub cursor: Option<String>,
}

/// A run by its id or a unique prefix of it.
pub type RunSelector = str;

/// Which log to read.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// The run's id or a unique prefix of it.
    pub run: String,
    /// Step's name.
    pub step: String,
    /// Task of the step.
    pub index: u32,
    /// Attempt; none: the current or last one.
    pub attempt: Option<u32>,
    /// Goes on until the task has ended.
    pub follow: bool,
}

/// The engine. Cheap to clone; the last clone does not stop it, [`Engine::shutdown`] does.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Opens everything, takes the shards, recovers open runs and begins to work.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        todo!()
    }
    /// Takes nothing new, lets what is being persisted finish, releases leases. Jobs go on running. Returns when done or
    /// at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        todo!()
    }
    /// The project that everything belongs to when none is named.
    pub fn default_project(&self) -> &str {
        "default"
    }
    /// The configuration in force.
    pub fn config(&self) -> &Config {
        todo!()
    }

    // ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────
    /// Accepts an event durably; returns its key in the store. A repeated one returns the first one's key.
    pub async fn accept(&self, project: &str, channel: &str, event: CloudEvent) -> Result<String, ApiError> {
        todo!()
    }
    /// Newest first.
    pub async fn events(&self, limit: usize, cursor: Option<String>) -> Result<Page<EventView>, ApiError> {
        todo!()
    }
    /// By key or unique prefix.
    pub async fn event(&self, key: &str) -> Result<EventView, ApiError> {
        todo!()
    }
    /// Recomputes what an event meant, for one workflow or for all. `event` is an event key, or a run id (its cause), or
    /// `latest`.
    pub async fn explain(&self, event: &str, workflow: Option<&str>) -> Result<Explanation, ApiError> {
        todo!()
    }

    // ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────
    /// Newest first.
    pub async fn runs(&self, query: RunQuery) -> Result<Page<RunSummary>, ApiError> {
        todo!()
    }
    /// One run in full.
    pub async fn run(&self, run: &RunSelector) -> Result<RunDetail, ApiError> {
        todo!()
    }
    /// The journal of a run as it is stored, oldest first.
    pub async fn journal(&self, run: &RunSelector) -> Result<Vec<serde_json::Value>, ApiError> {
        todo!()
    }
    /// Starts a workflow by hand: a `manual` event; returns the run once it is durable.
    pub async fn start_run(&self, workflow: &str, start: StartRun) -> Result<RunSummary, ApiError> {
        todo!()
    }
    /// One-shot: a workflow file that is in no registry, on an uncommitted working tree.
    pub async fn start_adhoc(
        &self,
        file: &str,
        yaml: &str,
        worktree: Option<PathBuf>,
        start: StartRun,
    ) -> Result<RunSummary, AdhocError> {
        todo!()
    }
    /// Asks for the end of a run; durable when it returns.
    pub async fn cancel_run(&self, run: &RunSelector, by: &str, reason: &str) -> Result<RunSummary, ApiError> {
        todo!()
    }
    /// A new run for the same event and source with the next generation; unchanged tasks come from the cache.
    pub async fn retry_run(&self, run: &RunSelector, by: &str) -> Result<RunSummary, ApiError> {
        todo!()
    }
    /// Waits until the run's journal has grown beyond `seen_seq` or the time is over; returns the run and its sequence.
    pub async fn watch_run(
        &self,
        run: &RunSelector,
        seen_seq: u64,
        wait: Duration,
    ) -> Result<(u64, RunDetail), ApiError> {
        todo!()
    }
    /// A task's log.
    pub async fn logs(
        &self,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, ApiError> {
        todo!()
    }
    /// `task` is `run/step[index]`.
    pub async fn cache_why(&self, task: &str) -> Result<CacheWhy, ApiError> {
        todo!()
    }

    // ── workflows and repositories ──────────────────────────────────────────────────────────────────────────────────
    /// The registry as it is, broken files included.
    pub async fn workflows(&self) -> Result<Page<WorkflowView>, ApiError> {
        todo!()
    }
    /// Puts a file into the registry; a file with mistakes is refused with all of them.
    pub async fn apply_workflow(&self, apply: ApplyWorkflow) -> Result<WorkflowView, AdhocError> {
        todo!()
    }
    /// Paused: events start nothing and their decision says so.
    pub async fn set_paused(&self, workflow: &str, paused: bool) -> Result<WorkflowView, ApiError> {
        todo!()
    }
    /// All bound repositories.
    pub async fn repos(&self) -> Result<Page<RepoView>, ApiError> {
        todo!()
    }
    /// Binds a repository, reads its workflows, and installs the hook of a local one. `hook_script` makes the script.
    pub async fn add_repo(&self, add: AddRepo, hook_script: Option<String>) -> Result<RepoView, ApiError> {
        todo!()
    }
    /// Unbinds it and removes the hook.
    pub async fn remove_repo(&self, name: &str) -> Result<(), ApiError> {
        todo!()
    }

    // ── models, datasets, artifacts ─────────────────────────────────────────────────────────────────────────────────
    /// All models, or all datasets.
    pub async fn assets(&self, kind: AssetKind) -> Result<Page<AssetView>, ApiError> {
        todo!()
    }
    /// One by name.
    pub async fn asset(&self, kind: AssetKind, name: &str) -> Result<AssetView, ApiError> {
        todo!()
    }
    /// Watches a folder or file.
    pub async fn add_dataset(&self, add: AddDataset) -> Result<AssetView, ApiError> {
        todo!()
    }
    /// Stops watching; versions stay.
    pub async fn remove_dataset(&self, name: &str) -> Result<(), ApiError> {
        todo!()
    }
    /// The bytes of an artifact of the project.
    pub async fn artifact(
        &self,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, ApiError> {
        todo!()
    }

    // ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────
    /// Quick: from memory, answers also while the database is away.
    pub async fn health(&self) -> Health {
        todo!()
    }
    /// Thorough.
    pub async fn doctor(&self) -> Health {
        todo!()
    }
    /// Prometheus text.
    pub async fn metrics(&self) -> String {
        todo!()
    }
}

/// Models or datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssetKind {
    /// Named, versioned, with stages.
    Model,
    /// Named, versioned.
    Dataset,
}

/// A workflow file was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdhocError {
    /// It has mistakes; all of them.
    #[error("compile the workflow: {} mistakes", .0.len())]
    Diagnostics(Vec<DiagnosticView>),
    /// Anything else.
    #[error(transparent)]
    Api(#[from] ApiError),
}
