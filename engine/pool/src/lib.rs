//! Places that run jobs.
//!
//! A [`Pool`] starts an attempt, says what became of it, stops it and reads its log. It decides nothing: who runs when,
//! retries and time between attempts are the engine's business. What it reports is read from the attempt's folder every
//! time, never remembered, so an engine that was killed sees exactly what its successor sees.
//!
//! Deliberately absent: queues (an attempt that does not fit is refused with [`StartError::Full`]), counters (occupied
//! capacity is the sum over live attempts), and any trust in a document whose MAC is wrong.
//!
//! Where to look next: [`local`] for processes of this machine, [`docker`] for containers; the runner that wraps each job is a program of its own,
//! `kickwheel-runner`; their protocol is `kickwheel_schemas::runner`. `tests/contract.rs` says what every pool must do.

pub mod capacity;
mod delivery;
pub mod docker;
pub mod error;
pub mod local;
mod log;
pub mod observed;
pub mod watch;

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use kickwheel_schemas::{AttemptKey, runner::JobSpec, sealed::Secrets};

pub use capacity::{Capacity, Request};
pub use docker::{DockerConfig, DockerPool};
pub use error::{OpenError, PoolError, StartError};
pub use local::{LocalConfig, LocalPool, OtherUser};
pub use observed::Observed;
pub use watch::Changes;

/// A log in pieces, in order, from some offset on.
pub type LogStream = BoxStream<'static, Result<Bytes, PoolError>>;

/// A pool of any kind. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Pool {
    /// Processes on this machine.
    Local(LocalPool),
    /// Containers of a Docker Engine (or Podman) on this machine.
    Docker(DockerPool),
}

impl Pool {
    /// Sees to it that the attempt runs, once. Calling it again while it waits, runs or has ended changes nothing, so it
    /// is also how an attempt is adopted after a restart. `secrets` are the values of those that the specification names;
    /// they are taken when the attempt is new and ignored otherwise.
    pub async fn start(
        &self,
        key: &AttemptKey,
        spec: &JobSpec,
        request: &Request,
        secrets: &Secrets,
    ) -> Result<(), StartError> {
        match self {
            Self::Local(pool) => pool.start(key, spec, request, secrets).await,
            Self::Docker(pool) => pool.start(key, spec, request, secrets).await,
        }
    }

    /// The digest of an image, for content keys and for pinning it; fetched if it is not here. Fails on a pool without
    /// containers.
    pub async fn resolve_image(&self, image: &str) -> Result<String, StartError> {
        match self {
            Self::Local(_) => Err(local::no_images(image)),
            Self::Docker(pool) => pool.resolve_image(image).await,
        }
    }

    /// Frees what attempts that ended longer than `older_than` ago hold besides their documents: containers. How many went.
    pub async fn sweep(&self, older_than: Duration) -> Result<usize, PoolError> {
        match self {
            Self::Local(_) => Ok(0),
            Self::Docker(pool) => pool.sweep(older_than).await,
        }
    }

    /// What is known about an attempt now. A [`Observed::Lost`] attempt has no process left and never gets a result.
    pub async fn observe(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        match self {
            Self::Local(pool) => pool.observe(key).await,
            Self::Docker(pool) => pool.observe(key).await,
        }
    }

    /// Waits until the attempt has ended or is lost. Returns at once with [`Observed::Unknown`] if it was never started.
    pub async fn wait(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        match self {
            Self::Local(pool) => pool.wait(key).await,
            Self::Docker(pool) => pool.wait(key).await,
        }
    }

    /// Asks for the end of an attempt: SIGTERM, and SIGKILL after `grace`. Durable when it returns; the end itself is seen
    /// by [`Pool::observe`]. Nothing happens to an attempt that is unknown or has ended.
    pub async fn cancel(&self, key: &AttemptKey, grace: Duration) -> Result<(), PoolError> {
        match self {
            Self::Local(pool) => pool.cancel(key, grace).await,
            Self::Docker(pool) => pool.cancel(key, grace).await,
        }
    }

    /// Tells from now on which attempts are worth observing again: user code began, or the attempt ended or was lost.
    /// Every caller gets every change; changes of one attempt that were not fetched yet are one.
    pub fn changes(&self) -> Changes {
        match self {
            Self::Local(pool) => pool.changes(),
            Self::Docker(pool) => pool.changes(),
        }
    }

    /// The attempt's log from byte `offset` on; with `follow`, until the attempt has ended. Empty if there is none yet.
    pub async fn read_log(&self, key: &AttemptKey, offset: u64, follow: bool) -> Result<LogStream, PoolError> {
        match self {
            Self::Local(pool) => pool.read_log(key, offset, follow).await,
            Self::Docker(pool) => pool.read_log(key, offset, follow).await,
        }
    }

    /// What all live attempts together may ask for.
    pub fn capacity(&self) -> Capacity {
        match self {
            Self::Local(pool) => pool.capacity(),
            Self::Docker(pool) => pool.capacity(),
        }
    }

    /// What live attempts ask for now.
    pub async fn occupied(&self) -> Result<Capacity, PoolError> {
        match self {
            Self::Local(pool) => pool.occupied().await,
            Self::Docker(pool) => pool.occupied().await,
        }
    }

    /// Names what a job finds here besides its own files, for the content keys of tasks without an image: operating
    /// system, architecture, and the name that the administrator declared.
    pub fn environment(&self) -> String {
        match self {
            Self::Local(pool) => pool.environment(),
            Self::Docker(pool) => pool.environment(),
        }
    }

    /// Removes everything about an attempt that has ended or is lost; refuses a live one.
    pub async fn remove(&self, key: &AttemptKey) -> Result<(), PoolError> {
        match self {
            Self::Local(pool) => pool.remove(key).await,
            Self::Docker(pool) => pool.remove(key).await,
        }
    }
}

/// What [`Pool::environment`] says of a machine like this one.
fn environment(declared: &str) -> String {
    format!("{}/{}/{declared}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Runs blocking work on the runtime's threads for it.
async fn blocking<T: Send + 'static, E: From<PoolError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(PoolError::io("")(std::io::Error::other("shutting down")).into()),
        },
    }
}
