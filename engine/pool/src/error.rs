//! Why a pool cannot do what it is asked. One enum per operation, split by what the caller does next.

use std::{io, path::PathBuf};

use kickwheel_artifacts::ArtifactError;

/// An attempt that was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Try again when a live attempt has ended.
    #[error("start the job now: with it, live jobs would use {0}")]
    Full(String),
    /// It can never run here; do not try again.
    #[error("place the job: {0}")]
    Unplaceable(String),
    /// The image is not here and cannot be fetched: whoever wrote the workflow has to look.
    #[error(
        "get the image {image:?}: {problem}; check its name, or make it known to the pool's engine (`docker pull`, `docker load`)"
    )]
    Image {
        /// As it was asked for.
        image: String,
        /// What the engine or the registry says.
        problem: String,
    },
    /// Try again later: the agent or the container engine cannot be reached, or the disk is full.
    #[error("start the job: {0}")]
    Failed(#[from] PoolError),
}

/// An operation that should be tried again later.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A document of the attempt could not be read or written.
    #[error(transparent)]
    Documents(#[from] ArtifactError),
    /// The file system refused.
    #[error("access {path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent could not be started or does not answer.
    #[error("talk to the agent in {folder:?}: {problem}; its own log is agent.log there")]
    Agent {
        /// The pool's folder.
        folder: PathBuf,
        /// What happened.
        problem: String,
    },
    /// The container engine does not answer. Containers may well run on.
    #[error("reach the container engine at {address}: {problem}; is it running?")]
    Unavailable {
        /// Its socket.
        address: String,
        /// What happened.
        problem: String,
    },
    /// The container engine answers with an error of its own.
    #[error("have the container engine {what}: it says {problem:?}")]
    Engine {
        /// What it was asked to do.
        what: String,
        /// Its words.
        problem: String,
    },
    /// Processes of a lost attempt survive SIGKILL, hanging in the kernel. Until they end it is not reported as lost.
    #[error("end what attempt {attempt} left behind: processes {pids:?} hang in the kernel; is a network disk away?")]
    Leftovers {
        /// The attempt.
        attempt: String,
        /// What is left.
        pids: Vec<u32>,
    },
    /// A live attempt cannot be removed.
    #[error("remove attempt {0}: it is still running; cancel it first")]
    Live(String),
}

/// A pool that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or its watch cannot be had.
    #[error("open the pool: {0}")]
    Failed(#[from] PoolError),
    /// The address is no socket of this machine.
    #[error("use {0:?} as the address of a container engine: it has the form unix:///path/of/the.sock")]
    Address(String),
    /// The runner binary is missing.
    #[error("find the runner at {0:?}; it is installed beside the `kickwheel` binary")]
    NoRunner(PathBuf),
    /// Jobs cannot be that user's.
    #[error("run jobs as user {name:?}: {problem}")]
    JobUser {
        /// As it was given.
        name: String,
        /// What is missing.
        problem: String,
    },
}

impl PoolError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
