//! The pool of this machine: one process tree per attempt, wrapped by a runner, started by an agent.
//!
//! ```text
//!   engine ──spec.json──▶ attempts/<name>/ ◀──claim, heartbeat, log, result── runner ──▶ user's program
//!      └──"start <name>" over agent.sock──▶ agent ──▶ runner (a session of its own)
//! ```
//!
//! The three programs live and die independently. An engine that comes back finds its attempts in their folders, with the
//! processes that still run; an agent that died is started again by the next request, or within a second
//! while an attempt waits to be claimed.
//!
//! What a lost attempt left behind is killed before the loss is reported, so that its successor never runs beside it. The
//! kernel kills the program itself with its runner; its children are found by the `KICKWHEEL_ATTEMPT` in their
//! environment. Only a process that cleared its environment *and* outlived its parents can escape that.
//!
//! With [`LocalConfig::job_user`] the jobs are another user's, who reaches nothing of all this: each sees a folder outside
//! of the pool's. Then a process is also known by the attempt's own group, which it cannot leave.
//!
//! Where to look next: `agent` for the talk with the agent, `process` for what is asked of `/proc`, `user` for the other
//! user; [`crate::watch`] for how changes are noticed.

mod agent;
mod process;
mod user;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use kickwheel_artifacts::{ArtifactError, Attempts, Put};
use kickwheel_schemas::{
    AttemptKey, Millis,
    runner::{CancelRequest, Claim, Heartbeat, JobResult, JobSpec, RunnerExit, Signed as _, credential, file},
    sealed::{Secrets, memory_folder},
};

pub use self::user::{FIRST_GROUP, OtherUser};
use crate::{
    Capacity, Changes, LogStream, Observed, OpenError, Pool, PoolError, Request, StartError, blocking, delivery,
    environment, log,
    watch::{self, Watched as _},
};

/// The pool's own note about an attempt, beside the protocol's documents: what it asked for.
const REQUEST_FILE: &str = "request.json";

/// How the local pool is set up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The pool's folder, `pool/local` of the data folder; made if it is absent.
    pub folder: PathBuf,
    /// Root folder of the artifact store.
    pub artifacts: PathBuf,
    /// The runner binary.
    pub runner: PathBuf,
    /// What live attempts together may ask for.
    pub capacity: Capacity,
    /// The data folder's key, from which every attempt's credential is derived.
    pub key: Vec<u8>,
    /// The administrator's name for what is installed on this machine; changing it invalidates cached results.
    pub environment: String,
    /// `PATH` of jobs that set none and are not another user's.
    pub path: String,
    /// A delegated cgroup folder (v1 memory controller or v2) for memory limits; without one, resident memory is watched.
    pub cgroup: Option<PathBuf>,
    /// Whose the jobs are, when they are not to be ours.
    pub job_user: Option<OtherUser>,
}

impl LocalConfig {
    /// This machine's whole capacity and this process's `PATH`; no cgroup, no other user.
    pub fn new(
        folder: impl Into<PathBuf>,
        artifacts: impl Into<PathBuf>,
        runner: impl Into<PathBuf>,
        key: Vec<u8>,
    ) -> Self {
        Self {
            folder: folder.into(),
            artifacts: artifacts.into(),
            runner: runner.into(),
            capacity: Capacity::of_this_machine(),
            key,
            environment: "local".to_owned(),
            path: std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
            cgroup: None,
            job_user: None,
        }
    }
}

/// The pool of this machine. Cheap to clone. One process at a time opens a folder; the data folder's lock sees to it.
#[derive(Clone, Debug)]
pub struct LocalPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: LocalConfig,
    user: Option<user::Known>,
    attempts: Attempts,
    agent: agent::Client,
    watch: Arc<watch::Watch>,
    /// Set right after the rest, which it refers to.
    task: OnceLock<watch::Task>,
    /// Held from the look at the occupied capacity to the attempt's appearance among the live ones.
    admission: tokio::sync::Mutex<()>,
}

impl LocalPool {
    /// Opens the folder and begins to watch the attempts in it that have not ended.
    pub async fn open(config: LocalConfig) -> Result<Self, OpenError> {
        if !config.runner.is_file() {
            return Err(OpenError::NoRunner(config.runner));
        }
        fs::create_dir_all(&config.folder).map_err(PoolError::io(&config.folder))?;
        let attempts = Attempts::local(&config.folder).map_err(PoolError::from)?;
        let user = match config.job_user.clone() {
            Some(user) => {
                let runner = config.runner.clone();
                Some(blocking(move || user::Known::open(&user, &runner)).await?)
            }
            None => None,
        };
        let agent = agent::Client::new(config.folder.clone(), config.runner.clone());
        let watch = Arc::new(watch::Watch::new()?);
        let admission = tokio::sync::Mutex::new(());
        let inner = Arc::new(Inner { config, user, attempts, agent, watch, task: OnceLock::new(), admission });
        inner.find_live()?;
        inner.task.get_or_init(|| watch::begin(&inner));
        Ok(Self { inner })
    }

    /// See [`crate::Pool::start`].
    pub async fn start(
        &self,
        key: &AttemptKey,
        spec: &JobSpec,
        request: &Request,
        secrets: &Secrets,
    ) -> Result<(), StartError> {
        let inner = &self.inner;
        if spec.attempt != key.to_string() {
            return Err(StartError::Unplaceable(format!("its specification is that of attempt {}", spec.attempt)));
        }
        let admission = inner.admission.lock().await;
        match inner.observe(key).await? {
            Observed::Running { .. } | Observed::Ended(_) | Observed::Lost { .. } => return Ok(()),
            Observed::Pending => {}
            Observed::Unknown => {
                inner.admit(request).await?;
                inner.admit_group(key)?;
                delivery::check(spec, secrets)?;
                inner.write_attempt(key, request)?;
                delivery::write(&inner.folder(key), key, &inner.credential(key), secrets)?;
                // The specification comes last: with it the attempt exists.
                let mut spec = spec.clone();
                // Our own leads to places that another user may not reach; the runner knows the usual ones.
                if inner.user.is_none() {
                    spec.env.entry("PATH".to_owned()).or_insert_with(|| inner.config.path.clone());
                }
                let _: Put = inner.attempts.put(&key.file_name(), &spec).await.map_err(PoolError::from)?;
            }
        }
        inner.watch.add(key, request.clone(), &inner.folder(key))?;
        drop(admission);
        inner.ask_to_start(key).await?;
        Ok(())
    }

    /// See [`crate::Pool::observe`].
    pub async fn observe(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        self.inner.observe(key).await
    }

    /// See [`crate::Pool::wait`].
    pub async fn wait(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        watch::wait(&*self.inner, key).await
    }

    /// See [`crate::Pool::cancel`].
    pub async fn cancel(&self, key: &AttemptKey, grace: Duration) -> Result<(), PoolError> {
        let inner = &self.inner;
        match inner.observe(key).await? {
            Observed::Unknown | Observed::Ended(_) | Observed::Lost { .. } => return Ok(()),
            Observed::Pending | Observed::Running { .. } => {}
        }
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = CancelRequest { grace_ms, at: Millis::now() };
        // The first request stays: a repeated one must not lengthen the grace.
        let _: Put = inner.attempts.put(&key.file_name(), &request).await?;
        if let Some(claim) = inner.attempts.get::<Claim>(&key.file_name()).await? {
            // Only spares the runner's next look; if it is gone, there is nobody to tell.
            process::terminate(&claim);
        }
        Ok(())
    }

    /// See [`crate::Pool::changes`].
    pub fn changes(&self) -> Changes {
        self.inner.watch.subscribe()
    }

    /// See [`crate::Pool::read_log`].
    pub async fn read_log(&self, key: &AttemptKey, offset: u64, follow: bool) -> Result<LogStream, PoolError> {
        Ok(log::read(Pool::Local(self.clone()), key.clone(), self.inner.folder(key).join(file::LOG), offset, follow))
    }

    /// See [`crate::Pool::capacity`].
    pub fn capacity(&self) -> Capacity {
        self.inner.config.capacity
    }

    /// See [`crate::Pool::occupied`].
    pub async fn occupied(&self) -> Result<Capacity, PoolError> {
        watch::occupied(&*self.inner).await
    }

    /// See [`crate::Pool::environment`].
    pub fn environment(&self) -> String {
        environment(&self.inner.config.environment)
    }

    /// See [`crate::Pool::remove`].
    pub async fn remove(&self, key: &AttemptKey) -> Result<(), PoolError> {
        match self.observe(key).await? {
            Observed::Pending | Observed::Running { .. } => return Err(PoolError::Live(key.to_string())),
            Observed::Unknown | Observed::Ended(_) | Observed::Lost { .. } => {}
        }
        self.inner.discard_secrets(key);
        let own = self.inner.folder(key);
        let seen = user::noted(&own)?.map(|user| user::folder(&user, key));
        // The note that leads to the other folder goes last.
        let folders = seen.into_iter().chain([own]);
        blocking(move || folders.into_iter().try_for_each(|folder| remove(&folder))).await
    }
}

impl watch::Watched for Inner {
    const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

    fn watch(&self) -> &Arc<watch::Watch> {
        &self.watch
    }

    async fn observe(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        let observed = self.look(key).await?;
        if observed.is_final() {
            self.watch.forget(key);
        }
        Ok(observed)
    }

    async fn revive(&self, key: &AttemptKey) -> Result<(), PoolError> {
        if self.folder(key).join(file::CLAIM).exists() { Ok(()) } else { self.ask_to_start(key).await }
    }
}

impl Inner {
    fn folder(&self, key: &AttemptKey) -> PathBuf {
        self.attempts.folder().join(key.file_name())
    }

    fn credential(&self, key: &AttemptKey) -> String {
        credential(&self.config.key, &key.to_string())
    }

    async fn look(&self, key: &AttemptKey) -> Result<Observed, PoolError> {
        let name = key.file_name();
        if !self.folder(key).is_dir() {
            return Ok(Observed::Unknown);
        }
        let credential = self.credential(key);
        if let Some(result) = self.result(key, &credential).await? {
            return Ok(Observed::Ended(Box::new(result)));
        }
        let claim = match understood(self.attempts.get::<Claim>(&name).await)? {
            Document::Understood(claim) if claim.is_authentic(&credential) => claim,
            Document::Understood(_) | Document::Malformed => {
                self.end_leftovers(key, None).await?;
                let reason = "its claim was not made by a runner that was given the attempt's credential".to_owned();
                return Ok(Observed::Lost { reason });
            }
            Document::Absent => {
                if !self.folder(key).join(file::SPEC).exists() {
                    return Ok(Observed::Unknown);
                }
                if self.attempts.get::<RunnerExit>(&name).await?.is_none() {
                    return Ok(Observed::Pending);
                }
                // The runner ended before it claimed. From now on no other may claim: the loss is final.
                let withdrawn = Claim {
                    attempt: key.to_string(),
                    nonce: "withdrawn by the pool".to_owned(),
                    pid: 0,
                    start_ticks: 0,
                    boot: String::new(),
                    at: Millis::now(),
                    mac: String::new(),
                };
                match self.attempts.claim(&name, &withdrawn.clone().signed(&credential)).await? {
                    Put::Stored => withdrawn,
                    // Somebody was faster; the next look sees it.
                    Put::Existed => return Ok(Observed::Pending),
                }
            }
        };
        let heartbeat = match understood(self.attempts.get::<Heartbeat>(&name).await)? {
            Document::Understood(heartbeat) => Some(heartbeat),
            Document::Malformed | Document::Absent => None,
        };
        if process::is_alive(&claim) {
            return Ok(match heartbeat {
                Some(heartbeat) if heartbeat.child_pid != 0 => {
                    Observed::Running { heartbeat, pid: claim.pid, claimed_at: claim.at }
                }
                Some(_) | None => Observed::Pending,
            });
        }
        // It may have written its result between our two looks; now that it is gone, the answer is final.
        if let Some(result) = self.result(key, &credential).await? {
            return Ok(Observed::Ended(Box::new(result)));
        }
        self.end_leftovers(key, heartbeat).await?;
        Ok(Observed::Lost { reason: self.reason_of_loss(key, &claim).await? })
    }

    /// The result, if there is an authentic one. A forged one is as good as none.
    async fn result(&self, key: &AttemptKey, credential: &str) -> Result<Option<JobResult>, PoolError> {
        match understood(self.attempts.get::<JobResult>(&key.file_name()).await)? {
            Document::Understood(result) if result.is_authentic(credential) && result.attempt == key.to_string() => {
                Ok(Some(result))
            }
            Document::Understood(_) | Document::Malformed => {
                tracing::warn!(attempt = %key, "a result that is not signed with the attempt's credential is ignored");
                Ok(None)
            }
            Document::Absent => Ok(None),
        }
    }

    async fn reason_of_loss(&self, key: &AttemptKey, claim: &Claim) -> Result<String, PoolError> {
        if let Some(exit) = self.attempts.get::<RunnerExit>(&key.file_name()).await? {
            return Ok(exit.message);
        }
        if self.folder(key).join(file::RESULT).exists() {
            return Ok("its result is not signed with the attempt's credential".to_owned());
        }
        if process::boot_id() != claim.boot {
            return Ok("the machine was restarted while it ran".to_owned());
        }
        Ok(format!("its runner, process {}, ended without a result", claim.pid))
    }

    async fn end_leftovers(&self, key: &AttemptKey, heartbeat: Option<Heartbeat>) -> Result<(), PoolError> {
        let traces = process::Traces::of(
            &key.to_string(),
            heartbeat,
            self.config.cgroup.as_ref().map(|parent| parent.join(key.file_name())),
            user::noted(&self.folder(key))?.map(|user| user.group),
        );
        blocking(move || process::end_leftovers(&traces)).await?;
        self.discard_secrets(key);
        Ok(())
    }

    /// Removes the secrets that a killed runner left in memory. The agent does it too, if it lives.
    fn discard_secrets(&self, key: &AttemptKey) {
        // There are none, as a rule.
        let _ = fs::remove_dir_all(memory_folder(Path::new(delivery::MEMORY), &self.folder(key)));
    }

    /// Refuses what never fits, and what does not fit now.
    async fn admit(&self, request: &Request) -> Result<(), StartError> {
        if let Some(image) = &request.image {
            return Err(no_images(image));
        }
        if let Some(excess) = Capacity::default().plus(request).excess_over(self.config.capacity) {
            return Err(StartError::Unplaceable(format!(
                "it asks for {excess} that the local pool has in all; ask for less or raise the pool's capacity"
            )));
        }
        watch::admit(self, request, self.config.capacity).await
    }

    /// Refuses an attempt while another lives that happens to have the same group.
    fn admit_group(&self, key: &AttemptKey) -> Result<(), StartError> {
        let Some(user) = &self.user else { return Ok(()) };
        let group = user.of(key).group;
        match self.watch.live().iter().find(|other| *other != key && user.of(other).group == group) {
            Some(other) => Err(StartError::Full(format!("the group {group}, which is that of attempt {other}"))),
            None => Ok(()),
        }
    }

    /// Everything that the runner needs except the specification.
    fn write_attempt(&self, key: &AttemptKey, request: &Request) -> Result<(), PoolError> {
        let folder = self.folder(key);
        fs::create_dir_all(&folder).map_err(PoolError::io(&folder))?;
        let request = serde_json::to_vec(request).expect("a request has string keys only");
        delivery::write_private(&folder.join(REQUEST_FILE), &request)?;
        delivery::write_private(&folder.join(file::CREDENTIAL), self.credential(key).as_bytes())?;
        if let Some(user) = &self.user {
            user::note(&folder, &user.of(key))?;
        }
        Ok(())
    }

    async fn ask_to_start(&self, key: &AttemptKey) -> Result<(), PoolError> {
        let (artifacts, cgroup) = (&self.config.artifacts, self.config.cgroup.as_deref());
        let user = match (user::noted(&self.folder(key))?, &self.user) {
            // Also after a start without that user: the attempt stays whose it was.
            (Some(noted), _) => Some(noted),
            // An earlier engine had no other user, and no runner has begun: the stricter one counts.
            (None, Some(user)) => {
                user::note(&self.folder(key), &user.of(key))?;
                Some(user.of(key))
            }
            (None, None) => None,
        };
        self.agent.start(&key.file_name(), artifacts, cgroup, user).await
    }

    /// Finds attempts that were live when the last engine stopped.
    fn find_live(&self) -> Result<(), PoolError> {
        let all = self.attempts.folder();
        for entry in fs::read_dir(all).map_err(PoolError::io(all))? {
            let folder = entry.map_err(PoolError::io(all))?.path();
            let name = folder.file_name().and_then(|name| name.to_str());
            let Some(Ok(key)) = name.map(AttemptKey::from_file_name) else { continue };
            if folder.join(file::SPEC).exists() && !folder.join(file::RESULT).exists() {
                self.watch.add(&key, read_request(&folder), &folder)?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<(), PoolError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PoolError::io(folder)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn no_images(image: &str) -> StartError {
    StartError::Unplaceable(format!(
        "it asks for the image {image:?} and the local pool starts processes only; leave out `image`"
    ))
}

/// What an attempt asked for. Written before its specification; a torn one after a loss of power belongs to an attempt
/// whose processes are gone too.
fn read_request(folder: &Path) -> Request {
    fs::read(folder.join(REQUEST_FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

enum Document<T> {
    Understood(T),
    Malformed,
    Absent,
}

/// Nonsense where a document should be is an answer, not a failure to read.
fn understood<T>(read: Result<Option<T>, ArtifactError>) -> Result<Document<T>, PoolError> {
    match read {
        Ok(Some(document)) => Ok(Document::Understood(document)),
        Ok(None) => Ok(Document::Absent),
        Err(ArtifactError::Malformed { .. }) => Ok(Document::Malformed),
        Err(error) => Err(error.into()),
    }
}
