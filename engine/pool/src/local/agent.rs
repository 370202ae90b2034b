//! The talk with the agent: one connection, one request at a time, and an agent started when there is none.

use std::{
    ffi::OsStr,
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kickwheel_schemas::runner::{AgentReply, AgentRequest, JobUser, RunnerStart};
use rustix::fs::OFlags;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::UnixStream,
    sync::Mutex,
};

use crate::PoolError;

/// How long an answer may take, the start of an agent included.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a request is repeated on a new connection: an agent may end just when it is called.
const CONNECTIONS: u32 = 3;

/// Longest answer, in bytes.
const REPLY_LIMIT: u64 = 4 * 1024 * 1024;

/// What fits into the address of a Unix socket, with room for its end.
const SOCKET_PATH_LIMIT: usize = 100;

/// The engine's end.
#[derive(Debug)]
pub struct Client {
    folder: PathBuf,
    runner: PathBuf,
    connection: Mutex<Option<BufStream<UnixStream>>>,
}

impl Client {
    /// For the agent in `folder`, which is started with `runner` when it does not answer.
    pub fn new(folder: PathBuf, runner: PathBuf) -> Self {
        Self { folder, runner, connection: Mutex::new(None) }
    }

    /// Asks for a runner of an attempt, whose job is `user`'s if that is not us.
    pub async fn start(
        &self,
        attempt: &str,
        artifacts: &Path,
        cgroup: Option<&Path>,
        user: Option<JobUser>,
    ) -> Result<(), PoolError> {
        let text = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| self.problem(format!("the path {} is not UTF-8", path.display())))
        };
        let start = RunnerStart {
            attempt: attempt.to_owned(),
            runner: text(&self.runner)?,
            artifacts: text(artifacts)?,
            cgroup: cgroup.map(text).transpose()?,
        };
        let request = match user {
            Some(user) => AgentRequest::StartAs { start, user },
            None => AgentRequest::Start(start),
        };
        match self.ask(&request).await? {
            AgentReply::Started { .. } => Ok(()),
            AgentReply::Refused { message } => Err(self.problem(format!("it failed to {message}"))),
            AgentReply::Status { .. } => Err(self.problem("it answered another question".to_owned())),
        }
    }

    async fn ask(&self, request: &AgentRequest) -> Result<AgentReply, PoolError> {
        let mut line = serde_json::to_vec(request).expect("protocol types have string keys only");
        line.push(b'\n');
        let talk = async {
            let mut slot = self.connection.lock().await;
            // Taken out while in use: a talk that is given up half-way must not leave its answer to the next one.
            if let Some(mut open) = slot.take() {
                // A connection to an agent that has died meanwhile fails here; the request is idempotent.
                if let Ok(reply) = exchange(&mut open, &line).await {
                    *slot = Some(open);
                    return Ok(reply);
                }
            }
            let mut problem = None;
            for _ in 0..CONNECTIONS {
                let mut open = match self.connect().await {
                    Ok(open) => open,
                    Err(_) => {
                        self.launch().await?;
                        self.connect().await.map_err(|error| self.problem(error.to_string()))?
                    }
                };
                match exchange(&mut open, &line).await {
                    Ok(reply) => {
                        *slot = Some(open);
                        return Ok(reply);
                    }
                    Err(error) => problem = Some(error),
                }
            }
            let problem = problem.map(|error| error.to_string()).unwrap_or_default();
            Err(self.problem(format!("it hung up {CONNECTIONS} times: {problem}")))
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(reply) => reply,
            Err(_) => Err(self.problem(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn connect(&self) -> io::Result<BufStream<UnixStream>> {
        let path = self.folder.join("agent.sock");
        if path.as_os_str().len() <= SOCKET_PATH_LIMIT {
            return Ok(BufStream::new(UnixStream::connect(path).await?));
        }
        // A socket's address holds 108 bytes; the folder's descriptor gives any path a short name.
        let open = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits() as i32)
            .open(&self.folder)?;
        let short = format!("/proc/self/fd/{}/agent.sock", open.as_raw_fd());
        Ok(BufStream::new(UnixStream::connect(short).await?))
    }

    /// Starts an agent in the background; returns when it answers. Its environment is empty but for `PATH`: whatever
    /// secrets the engine was given stay with the engine.
    async fn launch(&self) -> Result<(), PoolError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let output = tokio::process::Command::new(&self.runner)
            .args([OsStr::new("agent"), OsStr::new("--detach"), OsStr::new("--dir"), self.folder.as_os_str()])
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| self.problem(format!("{} cannot be started: {error}", self.runner.display())))?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.problem(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn problem(&self, problem: String) -> PoolError {
        PoolError::Agent { folder: self.folder.clone(), problem }
    }
}

async fn exchange(open: &mut BufStream<UnixStream>, line: &[u8]) -> io::Result<AgentReply> {
    open.write_all(line).await?;
    open.flush().await?;
    let mut reply = Vec::new();
    open.take(REPLY_LIMIT).read_until(b'\n', &mut reply).await?;
    if !reply.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&reply).map_err(io::Error::other)
}
