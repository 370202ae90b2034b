//! The local pool's agent: starts a runner when the engine asks, and notes a runner that ended without a result.
//!
//! It exists so that runners are not the engine's children: they live on when the engine is killed, and on a machine with
//! systemd the agent is a unit of its own, outside the engine's. It keeps nothing that matters: a new agent knows nothing
//! of its predecessor's runners and need not, since attempts are found in their folders and a runner that is started a
//! second time loses the claim. It never sends a signal to anybody.
//!
//! One agent serves a pool's folder; `agent.lock` says which. It listens on `agent.sock` there, JSON lines both ways
//! (`AgentRequest`, `AgentReply`), to its own user only. It ends when it waits for no runner and its folder is gone or, in the
//! background, nobody has been connected for a while.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::UnixStream as BlockingStream,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kickwheel_artifacts::Attempts;
use kickwheel_schemas::{
    AttemptKey, Millis,
    runner::{AgentReply, AgentRequest, Claim, JobUser, PROTOCOL, RunnerExit, RunnerStart, file},
    sealed::memory_folder,
};
use rustix::fs::{FlockOperation, OFlags};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::{
    options::{Agent as Options, AgentMode},
    secrets,
};

/// Longest request, in bytes.
const REQUEST_LIMIT: u64 = 64 * 1024;

/// How long `--detach` waits for the agent to answer.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it answers.
const START_INTERVAL: Duration = Duration::from_millis(2);

/// Between two looks whether the folder is still there.
const FOLDER_INTERVAL: Duration = Duration::from_secs(2);

/// An agent in the background that nobody talks to and that waits for no runner ends after so many of these looks, a
/// minute. The next engine starts another.
const IDLE_LOOKS: u32 = 30;

/// What fits into the address of a Unix socket, with room for its end.
const SOCKET_PATH_LIMIT: usize = 100;

#[derive(Clone)]
struct Agent {
    attempts: Attempts,
    /// Process ids of the runners that this agent waits for.
    running: Arc<Mutex<BTreeMap<String, u32>>>,
    /// One clone per open connection, besides the agent's own.
    connected: Arc<()>,
}

/// Starts an agent in the background, unless one serves the folder already, and returns when it answers.
pub fn detach(options: &Options) -> Result<(), String> {
    let folder = prepare(&options.folder)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join("agent.log"))
        .map_err(|error| format!("open agent.log: {error}"))?;
    let itself = std::env::current_exe().map_err(|error| format!("find its own binary: {error}"))?;
    let both = log.try_clone().map_err(|error| format!("open agent.log: {error}"))?;
    // The child puts itself into a session of its own; this process, its parent, ends, so nobody waits for it.
    Command::new(itself)
        .args(["agent", "--detached", "--dir"])
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(both)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .map_err(|error| format!("start the agent: {error}"))?;
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let (path, _open) = socket_path(&folder)?;
        match BlockingStream::connect(&path) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(format!("reach the agent: {error}; see agent.log")),
            Err(_) => std::thread::sleep(START_INTERVAL),
        }
    }
}

/// Serves the folder until it is gone. Returns at once if another agent does already.
pub async fn serve(options: Options) -> Result<(), String> {
    if options.mode == AgentMode::Detached {
        rustix::process::setsid().map_err(|error| format!("begin a session: {error}"))?;
    }
    let folder = prepare(&options.folder)?;
    let Some(_lock) = lock(&folder)? else { return Ok(()) };
    let agent = Agent {
        attempts: Attempts::local(&folder).map_err(|error| error.to_string())?,
        running: Arc::new(Mutex::new(BTreeMap::new())),
        connected: Arc::new(()),
    };
    let (path, _open) = socket_path(&folder)?;
    // It is a dead agent's: we hold the lock.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("remove {}: {error}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(|error| format!("listen on {}: {error}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .map_err(|error| format!("protect {}: {error}", path.display()))?;
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let socket = folder.join("agent.sock");
    let own = identity(&socket);
    let mut idle_looks = 0;
    let mut look = tokio::time::interval(FOLDER_INTERVAL);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Accepting fails for want of descriptors; the next round tries again, the caller too.
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(agent.clone().converse(stream));
                } else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            _ = look.tick() => {
                let busy = !agent.running().is_empty();
                let connected = Arc::strong_count(&agent.connected) > 1;
                idle_looks = if busy || connected { 0 } else { idle_looks + 1 };
                let forgotten = options.mode == AgentMode::Detached && idle_looks >= IDLE_LOOKS;
                if !busy && (forgotten || identity(&socket) != own) {
                    return Ok(());
                }
            }
        }
    }
}

/// Makes the folder, for its user only.
fn prepare(folder: &Path) -> Result<PathBuf, String> {
    let problem = |error: std::io::Error| format!("open the pool's folder {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(problem)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(problem)?;
    folder.canonicalize().map_err(problem)
}

/// The lock that makes this process the folder's agent, or none if there is one. It ends with the process, however that
/// happens. The file holds the agent's process id, for people.
fn lock(folder: &Path) -> Result<Option<File>, String> {
    let path = folder.join("agent.lock");
    let problem = |error: std::io::Error| format!("lock {}: {error}", path.display());
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(problem)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(problem(error.into())),
    }
    file.set_len(0).map_err(problem)?;
    writeln!(file, "{}", std::process::id()).map_err(problem)?;
    Ok(Some(file))
}

/// A path of the socket that is short enough for a socket's address, and what has to stay open while it is used.
fn socket_path(folder: &Path) -> Result<(PathBuf, Option<File>), String> {
    let path = folder.join("agent.sock");
    if path.as_os_str().len() <= SOCKET_PATH_LIMIT {
        return Ok((path, None));
    }
    let open = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits() as i32)
        .open(folder)
        .map_err(|error| format!("open {}: {error}", folder.display()))?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/agent.sock", open.as_raw_fd())), Some(open)))
}

impl Agent {
    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u32>> {
        // Nothing panics while it is held; a poisoned map is still a map.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(self, mut stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            return;
        }
        let (reading, mut writing) = stream.split();
        let mut reading = BufReader::new(reading);
        loop {
            let mut line = Vec::new();
            match (&mut reading).take(REQUEST_LIMIT).read_until(b'\n', &mut line).await {
                Ok(1..) if line.ends_with(b"\n") => {}
                Ok(_) | Err(_) => return,
            }
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => self.answer(request),
                Err(error) => AgentReply::Refused { message: format!("understand the request: {error}") },
            };
            let mut text = serde_json::to_vec(&reply).expect("protocol types have string keys only");
            text.push(b'\n');
            if writing.write_all(&text).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: AgentRequest) -> AgentReply {
        match request {
            AgentRequest::Status => AgentReply::Status {
                protocol: PROTOCOL,
                pid: std::process::id(),
                running: self.running().keys().cloned().collect(),
            },
            AgentRequest::Start(start) => self.reply(&start, None),
            AgentRequest::StartAs { start, user } => self.reply(&start, Some(&user)),
        }
    }

    fn reply(&self, start: &RunnerStart, user: Option<&JobUser>) -> AgentReply {
        match self.start(start, user) {
            Ok(pid) => AgentReply::Started { pid },
            Err(message) => AgentReply::Refused { message },
        }
    }

    fn start(&self, start: &RunnerStart, user: Option<&JobUser>) -> Result<u32, String> {
        let RunnerStart { attempt, runner, artifacts, cgroup } = start;
        AttemptKey::from_file_name(attempt).map_err(|error| error.to_string())?;
        let mut running = self.running();
        if let Some(pid) = running.get(attempt) {
            return Ok(*pid);
        }
        let folder = self.attempts.folder().join(attempt);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(folder.join("runner.log"))
            .map_err(|error| format!("open the attempt's folder {}: {error}", folder.display()))?;
        let mut command = tokio::process::Command::new(runner);
        command.arg("run").arg("--attempt-dir").arg(&folder).args(["--artifacts", artifacts.as_str()]);
        if let Some(cgroup) = cgroup {
            command.args(["--cgroup", cgroup]);
        }
        if let Some(user) = user {
            let user = serde_json::to_string(user).expect("protocol types have string keys only");
            command.args(["--job-user", &user]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/")
            .spawn()
            .map_err(|error| format!("start {runner}: {error}"))?;
        let pid = child.id().ok_or("start the runner: it has no process id")?;
        running.insert(attempt.clone(), pid);
        drop(running);
        let (agent, attempt) = (self.clone(), attempt.clone());
        tokio::spawn(async move {
            let status = child.wait().await;
            if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
                agent.discard_secrets(&attempt, pid).await;
            }
            agent.running().remove(&attempt);
            let message = match status {
                // A result was written, or another runner has the claim.
                Ok(status) if status.success() => return,
                Ok(status) => format!("the runner ended with {status}"),
                Err(error) => format!("the runner could not be waited for: {error}"),
            };
            agent.note_exit(&attempt, pid, message).await;
        });
        Ok(pid)
    }

    /// Removes what a killed runner left in memory. Only one that had the claim laid anything out.
    async fn discard_secrets(&self, attempt: &str, pid: u32) {
        if let Ok(Some(claim)) = self.attempts.get::<Claim>(attempt).await
            && claim.pid == pid
        {
            secrets::discard(&memory_folder(Path::new(secrets::MEMORY), &self.attempts.folder().join(attempt)));
        }
    }

    /// Tells the pool at once what it would find out later. The runner's own explanation, if it left one, stays.
    async fn note_exit(&self, attempt: &str, pid: u32, message: String) {
        let folder = self.attempts.folder().join(attempt);
        // Nobody asks about a removed attempt, and writing would bring its folder back.
        if !folder.is_dir() || folder.join(file::RESULT).exists() || folder.join(file::EXIT).exists() {
            return;
        }
        let said = fs::read_to_string(folder.join("runner.log")).unwrap_or_default();
        let message = match said.lines().last() {
            Some(line) => format!("{message}: {line}"),
            None => message,
        };
        // A full disk; the pool finds out by itself, only later.
        let _ = self.attempts.put(attempt, &RunnerExit { pid, message, at: Millis::now() }).await;
    }
}
