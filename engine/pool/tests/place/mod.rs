//! A place to try a pool in: a temporary data folder, the runner that is built from this tree, and what jobs need.
//!
//! Everything that a test starts ends with it, by process id: whatever names the place's own temporary folder in its
//! arguments or environment.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt as _;
use kickwheel_artifacts::Artifacts;
use kickwheel_pool::{Capacity, LocalConfig, LocalPool, Observed, Pool, Request};
use kickwheel_schemas::{
    AttemptKey, Millis, RunId, TaskKey,
    runner::{JobResult, JobSpec, Network, PROTOCOL, ProcessStat, Program},
    sealed::Secrets,
};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The key of every place's data folder.
pub const KEY: &[u8] = b"the key of a data folder in a test";

/// The kinds of pool that the contract is checked for.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    /// Processes on this machine.
    Local,
}

impl Member {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Local];
}

/// A pool in a folder of its own.
pub struct Place {
    /// The data folder.
    pub folder: tempfile::TempDir,
    /// What is tried.
    pub pool: Pool,
    /// Its store.
    pub artifacts: Artifacts,
}

impl Place {
    /// A pool with room for eight jobs.
    pub async fn new(member: Member) -> Self {
        Self::with(member, |_| {}).await
    }

    /// A pool set up differently.
    pub async fn with(member: Member, change: impl FnOnce(&mut LocalConfig)) -> Self {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let artifacts = Artifacts::local(folder.path().join("artifacts")).expect("a store can be made");
        let Member::Local = member;
        let mut config = config(folder.path());
        change(&mut config);
        let pool = Pool::Local(LocalPool::open(config).await.expect("the pool opens"));
        Self { folder, pool, artifacts }
    }

    /// The same folder, opened again as another engine would.
    pub async fn reopened(&self) -> Pool {
        Pool::Local(LocalPool::open(config(self.folder.path())).await.expect("the pool opens"))
    }

    /// Starts a job and waits for its result.
    pub async fn run(&self, spec: &JobSpec) -> JobResult {
        let key = self.start(spec).await;
        self.result(&key).await
    }

    /// Starts a job that fits.
    pub async fn start(&self, spec: &JobSpec) -> AttemptKey {
        let key = key_of(spec);
        self.pool.start(&key, spec, &small(), &Secrets::new()).await.expect("it starts");
        key
    }

    /// Waits for the result.
    pub async fn result(&self, key: &AttemptKey) -> JobResult {
        match tokio::time::timeout(PATIENCE, self.pool.wait(key)).await.expect("it ends").expect("it can be observed") {
            Observed::Ended(result) => *result,
            other => panic!("{key} has no result but is {other:?}; {}", self.diagnosis(key)),
        }
    }

    /// Waits until the job's user code runs; the runner's process id and the program's.
    pub async fn running(&self, key: &AttemptKey) -> (u32, u32) {
        running(&self.pool, key).await
    }

    /// The whole log so far.
    pub async fn log(&self, key: &AttemptKey) -> Vec<u8> {
        let mut pieces = self.pool.read_log(key, 0, false).await.expect("the log can be read");
        let mut log = Vec::new();
        while let Some(piece) = pieces.next().await {
            log.extend_from_slice(&piece.expect("the log can be read"));
        }
        log
    }

    /// The folder of an attempt.
    pub fn attempt(&self, key: &AttemptKey) -> PathBuf {
        self.folder.path().join("pool/local/attempts").join(key.file_name())
    }

    /// A path beside the pool, for jobs to leave traces in.
    pub fn trace(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Process id of the agent.
    pub fn agent(&self) -> Option<u32> {
        agent_of(self.folder.path())
    }

    fn diagnosis(&self, key: &AttemptKey) -> String {
        let read = |name: &str| fs::read_to_string(self.attempt(key).join(name)).unwrap_or_default();
        format!("log: {:?}, runner.log: {:?}", read("log"), read("runner.log"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(agent) = self.agent() {
            kill(agent);
        }
        // Runners have the folder in their arguments, jobs in their environment.
        let folder = self.folder.path().as_os_str().as_encoded_bytes();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let has = |file: &str| {
                let text = fs::read(process.path().join(file)).unwrap_or_default();
                text.windows(folder.len()).any(|window| window == folder)
            };
            if pid != std::process::id() && (has("cmdline") || has("environ")) {
                kill(pid);
            }
        }
    }
}

/// The local pool's configuration in a data folder. `KICKWHEEL_TEST_CGROUP` names a delegated cgroup, to have memory
/// limits tried by that mechanism.
pub fn config(data: &Path) -> LocalConfig {
    let mut config = LocalConfig::new(data.join("pool/local"), data.join("artifacts"), runner(), KEY.to_vec());
    config.capacity = Capacity { cpu_milli: 8000, memory_bytes: 8 << 30, gpu: 0 };
    config.cgroup = std::env::var_os("KICKWHEEL_TEST_CGROUP").map(PathBuf::from);
    config
}

/// What a small job asks for.
pub fn small() -> Request {
    Request { cpu_milli: 1000, ..Request::default() }
}

/// A job that runs a script, under a key that nobody else has.
pub fn script(text: &str) -> JobSpec {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[..4].copy_from_slice(&std::process::id().to_le_bytes());
    random[4..].copy_from_slice(&count.to_le_bytes()[..6]);
    let task = TaskKey { run: RunId::new(Millis::now(), random), step: "try".to_owned(), index: 0 };
    let key = AttemptKey { task, attempt: 1 };
    JobSpec {
        protocol: PROTOCOL,
        attempt: key.to_string(),
        task: key.task.to_string(),
        program: Program::Script { script: text.to_owned() },
        env: BTreeMap::new(),
        source: None,
        files: BTreeMap::new(),
        output_paths: BTreeMap::new(),
        output_values: Vec::new(),
        timeout_ms: None,
        grace_ms: 5000,
        memory_bytes: None,
        log_limit_bytes: 1 << 20,
        traceparent: None,
        network: Network::None,
        read_only_root: false,
        secrets: BTreeMap::new(),
    }
}

/// The key in a specification.
pub fn key_of(spec: &JobSpec) -> AttemptKey {
    let (task, attempt) = spec.attempt.rsplit_once('#').expect("an attempt has a number");
    let (run, step) = task.split_once('/').expect("a task has a run");
    let step = step.strip_suffix("[0]").expect("tests use the first task");
    let task = TaskKey { run: run.parse().expect("a run id"), step: step.to_owned(), index: 0 };
    AttemptKey { task, attempt: attempt.parse().expect("a number") }
}

/// Waits until user code runs.
pub async fn running(pool: &Pool, key: &AttemptKey) -> (u32, u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pool.observe(key).await.expect("it can be observed") {
            Observed::Running { heartbeat, pid, .. } => return (pid, heartbeat.child_pid),
            Observed::Unknown | Observed::Pending => {}
            other => panic!("{key} does not run but is {other:?}"),
        }
        assert!(Instant::now() < deadline, "{key} never ran");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The agent's process id, from its lock.
pub fn agent_of(data: &Path) -> Option<u32> {
    let pid = fs::read_to_string(data.join("pool/local/agent.lock")).ok()?.trim().parse().ok()?;
    is_alive(pid).then_some(pid)
}

/// Ends a process at once.
pub fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What the kernel says about a process.
pub fn stat(pid: u32) -> Option<ProcessStat> {
    ProcessStat::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// Whether a process can still do something.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.is_alive())
}

/// The number that a job wrote into a file, once it is complete.
pub async fn pid_in(path: &Path) -> u32 {
    until("the job has written a process id", || fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))).await;
    fs::read_to_string(path).expect("it was there").trim().parse().expect("a process id")
}

/// The runner binary: the one that `KICKWHEEL_RUNNER` names, or the one of this tree, built if it is absent or older than
/// its sources.
pub fn runner() -> PathBuf {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("KICKWHEEL_RUNNER") {
                return path.into();
            }
            let itself = std::env::current_exe().expect("a test knows its binary");
            let profile = itself.parent().and_then(Path::parent).expect("tests lie in <target>/<profile>/deps");
            let target = profile.parent().expect("a profile's folder lies in the target folder");
            let runner = profile.join("kickwheel-runner");
            let built = fs::metadata(&runner).and_then(|metadata| metadata.modified()).ok();
            if built.is_none_or(|built| newest_source() > built) {
                let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                build.args(["build", "--quiet", "--package", "kickwheel-runner", "--target-dir"]).arg(target);
                if profile.file_name().is_some_and(|name| name == "release") {
                    build.arg("--release");
                }
                let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
                assert!(status.success(), "the runner is built");
                // Cargo leaves a binary alone when nothing that matters has changed; tell the next test so.
                let now = fs::File::open(&runner).and_then(|file| file.set_modified(SystemTime::now()));
                now.expect("the runner was built");
            }
            runner
        })
        .clone()
}

fn newest_source() -> SystemTime {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in engine");
    let sources = [engine.join("runner/src"), engine.join("artifacts/src"), engine.join("../schemas/src")];
    sources
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("the sources are there").flatten())
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .max()
        .expect("there are sources")
}
