//! Containers on this machine: one per attempt, with the runner as its first process.
//!
//! ```text
//!   pool ──make, start──▶ Docker Engine ──▶ container: runner ──▶ user's program
//!     │                                        │ attempts/<name>  (mounted; claim, heartbeat, log, result, outputs)
//!     └──spec, credential, sealed secrets──────┘
//! ```
//!
//! The attempt's folder is the truth, as on the local pool, and the protocol is the same one, the credential's file
//! included: a file that the winner of the claim removes also serves an engine that was killed between any two steps,
//! which a container's standard input would not. The engine's word counts only for what the folder cannot tell: whether a
//! container still has processes, and whether the kernel killed it for want of memory.
//!
//! - A container that is gone or ended without a result is *lost*, the platform's failure. So is every container when
//!   Docker itself is restarted, unless it was set up with `live-restore`.
//! - An engine that does not answer is no news about its containers ([`PoolError::Unavailable`]); a result is found
//!   without asking it.
//! - Containers are found by name and labelled with their data folder; the engine that comes back adopts them. They are
//!   removed by [`DockerPool::sweep`] and [`DockerPool::remove`], never by themselves.
//!
//! Podman's socket passes the same tests, but Podman 4.3 does not say that a container ended for want of memory: where the
//! kernel ends the runner together with its job, that attempt is lost there.
//!
//! Deliberately absent: registries' passwords, limits of disk space, and containers on other machines.
//!
//! Where to look next: `container` for what a container is made of, `places` for what lies where and whom it belongs to,
//! `stage` and `import` for inputs and outputs, `engine` for the talk with Docker, `outcome` for how an end is judged.

mod container;
mod engine;
mod import;
mod outcome;
mod places;
mod stage;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use kickwheel_artifacts::{Artifacts, Put, beneath};
use kickwheel_schemas::{
    AttemptKey, Millis,
    runner::{CancelRequest, Claim, JobSpec, RunnerExit, Signed as _, credential, file, mac},
    sealed::Secrets,
};

use self::{
    container::{ATTEMPT_LABEL, DATA_LABEL, Parts},
    engine::{Engine, Refusal},
    places::{Places, Plan, User},
};
use crate::{
    Capacity, Changes, LogStream, Observed, OpenError, Pool, PoolError, Request, StartError, blocking, delivery,
    environment, log,
    watch::{self, Watched as _},
};

/// Processes and threads that one container may have, unless the administrator says otherwise.
pub const PIDS_LIMIT: i64 = 1024;

/// Bytes of outputs that are taken from one attempt, unless the administrator says otherwise.
pub const OUTPUT_LIMIT_BYTES: u64 = 256 << 30;

/// The user of containers whose engine is root: nobody.
const NOBODY: User = User { uid: 65534, gid: 65534 };

/// Between two tries to listen to an engine that went away.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// How the docker pool is set up.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// The pool's folder, `pool/docker` of the data folder; made if it is absent. Docker must see it at the same path.
    pub folder: PathBuf,
    /// Root folder of the artifact store.
    pub artifacts: PathBuf,
    /// The runner binary, static: it is all that is put into an image.
    pub runner: PathBuf,
    /// The engine's socket, `unix:///…`; Podman's works too.
    pub address: String,
    /// What live attempts together may ask for.
    pub capacity: Capacity,
    /// The data folder's key, from which every attempt's credential is derived.
    pub key: Vec<u8>,
    /// The administrator's name for this pool's machines; changing it invalidates cached results of tasks without image.
    pub environment: String,
    /// The engine's network for jobs that ask for one.
    pub network: String,
    /// Processes and threads in one container.
    pub pids_limit: i64,
    /// Bytes of outputs that are taken from one attempt.
    pub output_limit_bytes: u64,
    /// Folders of this machine that every container sees: a cache of models, data that is too large to move.
    pub mounts: Vec<SharedFolder>,
}

/// A folder of this machine in every container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFolder {
    /// Where it is.
    pub source: PathBuf,
    /// Where containers see it.
    pub target: String,
    /// Whether they may write to it, as far as its permissions allow their user.
    pub writable: bool,
}

impl DockerConfig {
    /// This machine's whole capacity, Docker's usual socket and network, the usual limits.
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
            address: "unix:///var/run/docker.sock".to_owned(),
            capacity: Capacity::of_this_machine(),
            key,
            environment: "docker".to_owned(),
            network: "bridge".to_owned(),
            pids_limit: PIDS_LIMIT,
            output_limit_bytes: OUTPUT_LIMIT_BYTES,
            mounts: Vec::new(),
        }
    }
}

/// Containers of this machine's Docker. Cheap to clone. One process at a time opens a folder; the data folder's lock sees
/// to it.
#[derive(Clone, Debug)]
pub struct DockerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: DockerConfig,
    /// Names this data folder in labels and in containers' names.
    data: String,
    user: User,
    places: Places,
    artifacts: Artifacts,
    engine: Engine,
    watch: Arc<watch::Watch>,
    /// Set right after the rest, which they refer to: who looks, and who listens to the engine.
    tasks: OnceLock<[watch::Task; 2]>,
    /// Held from the look at the occupied capacity to the attempt's appearance among the live ones.
    admission: tokio::sync::Mutex<()>,
    /// One per attempt that is being started or concluded: neither is done twice at the same time.
    turns: Mutex<HashMap<AttemptKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl DockerPool {
    /// Opens the folder and begins to watch the attempts in it that have not ended. The engine need not answer yet.
    pub async fn open(config: DockerConfig) -> Result<Self, OpenError> {
        if !config.runner.is_file() {
            return Err(OpenError::NoRunner(config.runner));
        }
        if !config.address.starts_with("unix:///") {
            return Err(OpenError::Address(config.address));
        }
        std::fs::create_dir_all(&config.folder).map_err(PoolError::io(&config.folder))?;
        let folder = config.folder.canonicalize().map_err(PoolError::io(&config.folder))?;
        let places = Places::open(&folder)?;
        let artifacts = Artifacts::local(&config.artifacts).map_err(PoolError::from)?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let user = if uid.is_root() { NOBODY } else { User { uid: uid.as_raw(), gid: gid.as_raw() } };
        let data = mac(&config.key, format!("docker:{}", folder.display()).as_bytes())[..16].to_owned();
        let inner = Arc::new(Inner {
            engine: Engine::new(config.address.clone()),
            config,
            data,
            user,
            places,
            artifacts,
            watch: Arc::new(watch::Watch::new()?),
            tasks: OnceLock::new(),
            admission: tokio::sync::Mutex::new(()),
            turns: Mutex::default(),
        });
        for key in inner.places.all()? {
            if inner.places.ended_for(&key).is_none() {
                inner.watch.add(&key, inner.places.plan(&key).request, &inner.places.attempt(&key))?;
            }
        }
        inner.tasks.get_or_init(|| [watch::begin(&inner), listen(&inner)]);
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
        let fresh = match inner.observe(key).await? {
            Observed::Running { .. } | Observed::Ended(_) | Observed::Lost { .. } => return Ok(()),
            Observed::Pending => false,
            Observed::Unknown => {
                inner.create(key, spec, request, secrets).await?;
                true
            }
        };
        inner.watch.add(key, request.clone(), &inner.places.attempt(key))?;
        match inner.launch(key).await {
            Ok(()) => Ok(()),
            Err(Refusal::Later(error)) => Err(error.into()),
            Err(Refusal::Final(problem)) if fresh => {
                // No container ever ran, so there never was an attempt.
                inner.engine.remove(&inner.container_name(key)).await?;
                inner.places.remove(key)?;
                inner.watch.forget(key);
                Err(StartError::Unplaceable(format!("the container engine refuses its container: {problem}")))
            }
            Err(Refusal::Final(problem)) => {
                Ok(inner.lose(key, format!("its container was refused: {problem}")).await?)
            }
        }
    }

    /// What the label `dev.kickwheel.data` says on this pool's containers.
    pub fn data_label(&self) -> &str {
        &self.inner.data
    }

    /// See [`crate::Pool::resolve_image`].
    pub async fn resolve_image(&self, image: &str) -> Result<String, StartError> {
        self.inner.engine.image(image).await
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
        let documents = inner.places.kept_documents();
        let _: Put = documents.put(&key.file_name(), &request).await?;
        let request = documents.get::<CancelRequest>(&key.file_name()).await?.unwrap_or(request);
        if inner.places.has(key, file::CANCEL) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&request).expect("protocol types have string keys only");
        if let Err(error) = beneath::put(&inner.places.attempt(key), file::CANCEL, &bytes) {
            // Its runner cannot be told; the container is stopped when the grace is over.
            tracing::warn!(attempt = %key, %error, "failed to tell a runner of a cancel request");
        }
        // Only spares the runner's next look. A container that was not started yet has nobody to tell.
        inner.engine.kill(&inner.container_name(key), "SIGTERM").await
    }

    /// See [`crate::Pool::changes`].
    pub fn changes(&self) -> Changes {
        self.inner.watch.subscribe()
    }

    /// See [`crate::Pool::read_log`].
    pub async fn read_log(&self, key: &AttemptKey, offset: u64, follow: bool) -> Result<LogStream, PoolError> {
        let path = self.inner.places.attempt(key).join(file::LOG);
        Ok(log::read(Pool::Docker(self.clone()), key.clone(), path, offset, follow))
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
        self.inner.engine.remove(&self.inner.container_name(key)).await?;
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        blocking(move || inner.places.remove(&key)).await
    }

    /// Removes containers whose attempts ended longer than `older_than` ago, and those whose attempts were removed.
    pub async fn sweep(&self, older_than: Duration) -> Result<usize, PoolError> {
        let inner = &self.inner;
        let mut removed = 0;
        for found in inner.engine.list((DATA_LABEL, &inner.data), ATTEMPT_LABEL).await? {
            let Ok(key) = AttemptKey::from_file_name(&found.label) else { continue };
            let turn = inner.turn(&key);
            let _turn = turn.lock().await;
            let over = !inner.places.exists(&key) || inner.places.ended_for(&key).is_some_and(|age| age >= older_than);
            if over {
                inner.engine.remove(&found.id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl watch::Watched for Inner {
    // The engine's events tell of ends at once; this is for what they missed.
    const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

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
        if self.places.has(key, file::CLAIM) {
            return Ok(());
        }
        match self.launch(key).await {
            Ok(()) => Ok(()),
            Err(Refusal::Later(error)) => Err(error),
            Err(Refusal::Final(problem)) => self.lose(key, format!("its container was refused: {problem}")).await,
        }
    }
}

impl Inner {
    fn credential(&self, key: &AttemptKey) -> String {
        credential(&self.config.key, &key.to_string())
    }

    fn container_name(&self, key: &AttemptKey) -> String {
        format!("kickwheel-{}-{}", self.data, key.file_name())
    }

    /// Whoever holds it is the only one to start or conclude the attempt.
    fn turn(&self, key: &AttemptKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody else holds is of no use.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// Writes everything that makes the attempt exist, if it fits and its image can be had.
    async fn create(
        &self,
        key: &AttemptKey,
        spec: &JobSpec,
        request: &Request,
        secrets: &Secrets,
    ) -> Result<(), StartError> {
        let Some(image) = &request.image else {
            return Err(StartError::Unplaceable(
                "it names no image and the docker pool starts containers only; add `image`".to_owned(),
            ));
        };
        delivery::check(spec, secrets)?;
        self.fits_at_all(request)?;
        // Fetching an image takes its time; others are admitted meanwhile.
        let image = self.engine.image(image).await?;
        let _admission = self.admission.lock().await;
        if self.places.exists(key) {
            return Ok(());
        }
        watch::admit(self, request, self.config.capacity).await?;
        let plan = Plan { request: request.clone(), image };
        self.places.prepare(key, spec, &plan).await?;
        stage::stage(&self.artifacts, spec, &self.places.inputs(key)).await?;
        let (folder, credential) = (self.places.attempt(key), self.credential(key));
        delivery::write_private(&folder.join(file::CREDENTIAL), credential.as_bytes())?;
        delivery::write(&folder, key, &credential, secrets)?;
        self.places.hand_over(key, self.user)?;
        // With the specification the attempt exists.
        let _: Put = self.places.kept_documents().put(&key.file_name(), spec).await.map_err(PoolError::from)?;
        self.watch.add(key, request.clone(), &folder)?;
        Ok(())
    }

    /// Makes and starts the container, unless that was done.
    async fn launch(&self, key: &AttemptKey) -> Result<(), Refusal> {
        let turn = self.turn(key);
        let _turn = turn.lock().await;
        let spec = self.places.kept_documents().get::<JobSpec>(&key.file_name()).await.map_err(PoolError::from)?;
        let Some(spec) = spec else { return Ok(()) };
        let plan = self.places.plan(key);
        let body = container::specify(&Parts {
            config: &self.config,
            data: &self.data,
            key,
            spec: &spec,
            request: &plan.request,
            image: &plan.image,
            user: &format!("{}:{}", self.user.uid, self.user.gid),
            attempt: &self.places.attempt(key),
            inputs: &self.places.inputs(key),
        })
        .map_err(Refusal::Final)?;
        self.engine.launch(&self.container_name(key), body).await
    }

    fn fits_at_all(&self, request: &Request) -> Result<(), StartError> {
        match Capacity::default().plus(request).excess_over(self.config.capacity) {
            None => Ok(()),
            Some(excess) => Err(StartError::Unplaceable(format!(
                "it asks for {excess} that the docker pool has in all; ask for less or raise the pool's capacity"
            ))),
        }
    }

    /// The attempt will never have a result. Kept, so that it stays so whatever becomes of the container.
    async fn lose(&self, key: &AttemptKey, reason: String) -> Result<(), PoolError> {
        let note = RunnerExit { pid: 0, message: reason, at: Millis::now() };
        let _: Put = self.places.kept_documents().put(&key.file_name(), &note).await?;
        self.watch.forget(key);
        Ok(())
    }

    /// Its runner's claim, if there is an authentic one.
    fn claim(&self, key: &AttemptKey) -> Option<Claim> {
        self.places.untrusted::<Claim>(key).filter(|claim| claim.is_authentic(&self.credential(key)))
    }
}

/// Listens to the engine's events for ends of containers, again and again; whatever happened while nobody listened is
/// looked for after each new beginning.
fn listen(inner: &Arc<Inner>) -> watch::Task {
    let pool = Arc::downgrade(inner);
    watch::Task::of(tokio::spawn(async move {
        loop {
            // A connection of its own, so that listening does not keep the pool alive.
            let Some((engine, data)) =
                pool.upgrade().map(|inner| (Engine::new(inner.config.address.clone()), inner.data.clone()))
            else {
                return;
            };
            if let Ok(events) = engine.ends((DATA_LABEL, &data)).await {
                let mut events = std::pin::pin!(events);
                let Some(inner) = pool.upgrade() else { return };
                for key in inner.watch.live() {
                    watch::look_again(&*inner, &key).await;
                }
                drop(inner);
                while let Some(Ok(event)) = events.next().await {
                    let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                    let key = attributes.get(ATTEMPT_LABEL).map(|name| AttemptKey::from_file_name(name));
                    let Some(inner) = pool.upgrade() else { return };
                    if let Some(Ok(key)) = key {
                        watch::look_again(&*inner, &key).await;
                    }
                }
            }
            tokio::time::sleep(RECONNECT_INTERVAL).await;
        }
    }))
}
