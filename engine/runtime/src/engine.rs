//! The engine as others see it: starting, stopping, and what can be asked of it.
//!
//! The questions and commands themselves are in modules by subject: [`events`], [`runs`], [`registry`], [`assets`],
//! [`health`]. [`start`] opens the parts and recovers.

pub mod access;
mod assets;
mod bus;
pub mod cron;
mod events;
mod health;
pub mod polling;
pub mod quarantine;
mod registry;
mod runs;
mod start;
pub mod triggers;

use std::{path::PathBuf, sync::Arc, time::Duration};

use kickwheel_egress::Settings as EgressSettings;
use kickwheel_pool::OtherUser;
use kickwheel_schemas::{
    Millis,
    api::{DiagnosticView, RunPhase},
};
use kickwheel_store::{ReadError, WriteError};

use crate::{
    bus::BusConfig,
    error::{ApiError, StartError},
    secrets::KeySource,
    shared::{DEFAULT_PROJECT, Shared},
};

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
    /// Socket of the Docker Engine that runs containers, `unix:///…`; none: steps with an image cannot run.
    pub docker: Option<String>,
    /// The log that carries events.
    pub bus: BusConfig,
    /// Base of the links to runs, for example `http://127.0.0.1:7070`.
    pub base_url: String,
    /// Whether that base is the same after a restart, because a person gave it. What is told again must not differ from
    /// what was told, so events of runs have no links without.
    pub base_url_lasts: bool,
    /// Lease of shards, for Postgres.
    pub lease: Duration,
    /// Whether chains of pure plugin calls run ahead of their commit.
    pub pure_batching: bool,
    /// Where the key of the secrets comes from.
    pub secrets_key: KeySource,
    /// Whether steps without an image may run as processes of this machine.
    pub host_processes: bool,
    /// The Unix user that such processes run as, and a folder that it reaches; none: the engine's own.
    pub job_user: Option<OtherUser>,
    /// What may be asked of other machines, and how: by mirrors and pollers.
    pub egress: EgressSettings,
    /// How long a poll must have seen a difference before it tells: hooks and webhooks come first.
    pub poll_grace: Duration,
}

/// The usual [`Config::poll_grace`].
pub const POLL_GRACE: Duration = Duration::from_secs(10);

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
    /// From [`kickwheel_schemas::api::Page::next`].
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
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl Engine {
    /// Opens everything, takes the shards, recovers open runs and begins to work.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        start::start(config).await
    }

    /// Takes nothing new, lets what is being persisted finish, releases leases. Jobs go on running. Returns when done or
    /// at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        start::shutdown(&self.shared, deadline).await;
    }

    /// The project that everything belongs to when none is named.
    pub fn default_project(&self) -> &'static str {
        DEFAULT_PROJECT
    }

    /// Loads the plugins before they are needed. Without it each is loaded at its first call.
    pub async fn warm_up(&self) {
        for plugin in self.shared.catalog.0.values() {
            if let Some(Err(e)) = self.shared.plugin(&plugin.digest).await {
                tracing::warn!("plugin {} cannot be loaded: {e}", plugin.manifest.name);
            }
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Ends with the engine; for background work of others.
    pub fn stopped(&self) -> tokio_util::sync::CancellationToken {
        self.shared.stop.clone()
    }

    fn refuse_when_draining(&self) -> Result<(), ApiError> {
        if self.shared.draining.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(ApiError::Unavailable {
                code: "draining",
                detail: "the engine is shutting down; try again when it is back".to_owned(),
            });
        }
        Ok(())
    }
}

/// A read that failed, for a caller.
pub(crate) fn read_failed(e: ReadError) -> ApiError {
    match e {
        ReadError::Unavailable { reason } => paused(&reason),
        ReadError::Corrupt { message } => ApiError::Conflict {
            code: "stored_data",
            detail: format!("what is stored cannot be understood: {message}"),
        },
    }
}

/// A write that failed, for a caller.
pub(crate) fn write_failed(e: WriteError) -> ApiError {
    match e {
        WriteError::Unavailable { reason } => paused(&reason),
        WriteError::Unknown { reason } => ApiError::Unavailable {
            code: "outcome_unknown",
            detail: format!(
                "the database went away while it was asked ({reason}): it may have been done; look before you try again"
            ),
        },
        WriteError::Fenced { .. } => ApiError::Unavailable {
            code: "no_lease",
            detail: "this engine does not own the shard now; try again in a moment".to_owned(),
        },
        WriteError::Conflict { what } => ApiError::Conflict { code: "conflict", detail: what.join("; ") },
        WriteError::Stale { what } => ApiError::Conflict { code: "stale", detail: what },
        WriteError::Invalid { message } => ApiError::Invalid { code: "invalid", detail: message },
    }
}

fn paused(reason: &str) -> ApiError {
    ApiError::Unavailable {
        code: "paused",
        detail: format!("the database takes nothing now ({reason}); nothing was lost, try again in a moment"),
    }
}

pub use kickwheel_store::rows::AssetKind;

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
