//! The talk with the container engine over its Unix socket.
//!
//! Every answer is split by what the caller does next: the engine is away (try again later), it refuses (do not), or it
//! fails by itself. The connection is made when it is first needed, so that an engine of ours starts while Docker is
//! down; the API's version is negotiated then, which Podman's socket speaks too.

use std::{collections::HashMap, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerCreateBody, ContainerStateStatusEnum, EventMessage},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
        KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use futures::{Stream, TryStreamExt as _};
use tokio::sync::RwLock;

use crate::{PoolError, StartError};

/// Seconds that an answer may take. Starting a container on a busy machine takes several.
const PATIENCE_S: u64 = 120;

/// How long fetching an image may take.
const PULL_PATIENCE: Duration = Duration::from_mins(30);

/// Lines of a container's own log that explain why it ended.
const LAST_LINES: &str = "5";

/// Longest such explanation, in bytes.
const LAST_BYTES: usize = 2000;

/// A container engine.
#[derive(Debug)]
pub struct Engine {
    address: String,
    client: RwLock<Option<Docker>>,
}

/// What the engine says about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// There is none of that name.
    Absent,
    /// It was never started.
    Created,
    /// Its processes live, also if they are frozen.
    Running {
        /// Process id of the runner on this machine.
        pid: u32,
    },
    /// It has no processes any more.
    Ended {
        /// The runner's exit code.
        code: i64,
        /// Whether the kernel killed one of its processes for want of memory.
        out_of_memory: bool,
        /// The engine's own words, often empty.
        problem: String,
    },
}

/// A container of ours, as listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// The value of the label that was asked for.
    pub label: String,
}

/// A request that was not fulfilled.
#[derive(Debug)]
pub enum Refusal {
    /// Asking again will not help: what was asked for is impossible here.
    Final(String),
    /// Try again later.
    Later(PoolError),
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Self::Later(error)
    }
}

impl Engine {
    /// At a socket `unix:///…`.
    pub fn new(address: String) -> Self {
        Self { address, client: RwLock::new(None) }
    }

    async fn client(&self) -> Result<Docker, PoolError> {
        if let Some(client) = &*self.client.read().await {
            return Ok(client.clone());
        }
        let connect = async {
            Docker::connect_with_socket(&self.address, PATIENCE_S, API_DEFAULT_VERSION)?.negotiate_version().await
        };
        let client = connect.await.map_err(|error| self.away(&error))?;
        *self.client.write().await = Some(client.clone());
        Ok(client)
    }

    fn away(&self, error: &Error) -> PoolError {
        // The outer error of a refused connection says nothing; what it was caused by does.
        let mut problem = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !problem.contains(&text) {
                problem = format!("{problem}: {text}");
            }
            cause = inner.source();
        }
        PoolError::Unavailable { address: self.address.clone(), problem }
    }

    fn failed(&self, what: &str, error: Error) -> PoolError {
        match error {
            Error::DockerResponseServerError { message, .. } => {
                PoolError::Engine { what: what.to_owned(), problem: message }
            }
            Error::JsonDataError { message, .. } => PoolError::Engine { what: what.to_owned(), problem: message },
            other => self.away(&other),
        }
    }

    /// The id (a digest) of an image, which is fetched if it is not here.
    pub async fn image(&self, image: &str) -> Result<String, StartError> {
        if let Some(id) = self.local_image(image).await? {
            return Ok(id);
        }
        let problem = |problem: String| StartError::Image { image: image.to_owned(), problem };
        if image.starts_with("sha256:") {
            return Err(problem("it is not on this machine, and no registry knows it by this".to_owned()));
        }
        tracing::info!(image, "fetching an image");
        let client = self.client().await?;
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let pull = client.create_image(Some(options), None, None).try_for_each(|_| futures::future::ready(Ok(())));
        match tokio::time::timeout(PULL_PATIENCE, pull).await {
            Ok(Ok(())) => {}
            Ok(Err(Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message })) => {
                return Err(problem(message));
            }
            Ok(Err(error)) => return Err(self.away(&error).into()),
            Err(_) => return Err(problem(format!("it was not fetched within {} min", PULL_PATIENCE.as_secs() / 60))),
        }
        self.local_image(image).await?.ok_or_else(|| problem("it was fetched and is not there".to_owned()))
    }

    async fn local_image(&self, image: &str) -> Result<Option<String>, PoolError> {
        match self.client().await?.inspect_image(image).await {
            Ok(found) => Ok(found.id),
            Err(Error::DockerResponseServerError { status_code: 400 | 404, .. }) => Ok(None),
            Err(error) => Err(self.failed("look for an image", error)),
        }
    }

    /// Makes a container, or leaves the one of that name as it is, and starts it unless it was started before.
    pub async fn launch(&self, name: &str, body: ContainerCreateBody) -> Result<(), Refusal> {
        let client = self.client().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match client.create_container(Some(options), body).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = name, warning, "the container engine warns");
                }
            }
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => match self.container(name).await? {
                Container::Created => {}
                // Starting an ended one would run it again; one that vanished is made by the next try.
                Container::Running { .. } | Container::Ended { .. } | Container::Absent => return Ok(()),
            },
            Err(Error::DockerResponseServerError { status_code: 400 | 404, message }) => {
                return Err(Refusal::Final(message));
            }
            Err(error) => return Err(Refusal::Later(self.failed("make a container", error))),
        }
        match client.start_container(name, None::<StartContainerOptions>).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
            Err(Error::DockerResponseServerError { status_code: 400 | 404, message }) => Err(Refusal::Final(message)),
            Err(error) => Err(Refusal::Later(self.failed("start a container", error))),
        }
    }

    /// The state of a container.
    pub async fn container(&self, name: &str) -> Result<Container, PoolError> {
        use ContainerStateStatusEnum as Status;
        let found = match self.client().await?.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(Container::Absent),
            // Podman's word, which Docker does not have, for a container whose end is just being noted.
            Err(Error::JsonDataError { message, .. }) if message.contains("`stopped`") => {
                return Ok(Container::Running { pid: 0 });
            }
            Err(error) => return Err(self.failed("look at a container", error)),
        };
        let state = found.state.unwrap_or_default();
        Ok(match state.status {
            // The last two are Podman's words for what lies between; the next look sees more.
            Some(Status::CREATED | Status::EMPTY) | None => Container::Created,
            Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
                Container::Running { pid: state.pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0) }
            }
            Some(Status::EXITED | Status::DEAD | Status::REMOVING) => Container::Ended {
                code: state.exit_code.unwrap_or(-1),
                out_of_memory: state.oom_killed.unwrap_or(false),
                problem: state.error.unwrap_or_default(),
            },
        })
    }

    /// What a container itself wrote last: a runner's complaint.
    pub async fn last_words(&self, name: &str) -> Result<String, PoolError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LAST_LINES).build();
        let pieces: Result<Vec<_>, _> = self.client().await?.logs(name, Some(options)).try_collect().await;
        match pieces {
            Ok(pieces) => {
                let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.into_bytes()).take(LAST_BYTES).collect();
                Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
            }
            Err(Error::DockerResponseServerError { .. }) => Ok(String::new()),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Sends a signal to a container's first process, if it runs.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<(), PoolError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.client().await?.kill_container(name, Some(options)).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(self.failed("stop a container", error)),
        }
    }

    /// Removes a container with everything in it; killing it if it still runs.
    pub async fn remove(&self, name: &str) -> Result<(), PoolError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.client().await?.remove_container(name, Some(options)).await {
            // 409: somebody else is removing it.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(self.failed("remove a container", error)),
        }
    }

    /// All containers whose label `data` has the given value, with what their label `label` says.
    pub async fn list(&self, data: (&str, &str), label: &str) -> Result<Vec<Listed>, PoolError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{}={}", data.0, data.1)])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.client().await?.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.failed("list containers", error))?;
        Ok(found
            .into_iter()
            .filter_map(|one| Some(Listed { id: one.id?, label: one.labels?.remove(label)? }))
            .collect())
    }

    /// Ends of containers with the given label from now on, until the engine goes away.
    pub async fn ends(
        &self,
        data: (&str, &str),
    ) -> Result<impl Stream<Item = Result<EventMessage, PoolError>> + use<'_>, PoolError> {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["die".to_owned(), "destroy".to_owned()]),
            ("label".to_owned(), vec![format!("{}={}", data.0, data.1)]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        Ok(self.client().await?.events(Some(options)).map_err(|error| self.away(&error)))
    }
}

/// Without a tag the API would fetch every tag that there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_image_without_a_tag_means_the_latest() {
        for (image, expected) in [
            ("python", "python:latest"),
            ("python:3.12", "python:3.12"),
            ("host:5000/team/python", "host:5000/team/python:latest"),
            ("host:5000/team/python:1", "host:5000/team/python:1"),
            ("python@sha256:abc", "python@sha256:abc"),
        ] {
            assert_eq!(super::with_tag(image), expected);
        }
    }
}
