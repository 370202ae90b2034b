//! A place to try a pool in: a temporary data folder, the runner that is built from this tree, and what jobs need.
//!
//! Everything that a test starts ends with it, by process id: whatever names the place's own temporary folder in its
//! arguments or environment.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
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
use kickwheel_pool::{
    Capacity, DockerConfig, DockerPool, LocalConfig, LocalPool, Observed, OtherUser, Pool, Request,
    docker::SharedFolder,
};
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

/// Whose the jobs of [`Member::OtherUser`] are.
pub const JOB_USER: &str = "nobody";

/// The image of every container in tests.
pub const IMAGE: &str = "kickwheel-test/busybox:1";

/// The kinds of pool that the contract is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Processes on this machine.
    Local,
    /// The same, as [`JOB_USER`].
    OtherUser,
    /// Containers of the engine that `KICKWHEEL_TEST_DOCKER` names.
    Docker,
}

impl Member {
    /// Those that can be tried here. One that is missing is said loudly, and fails with `REQUIRE_ALL=1`.
    pub fn all() -> Vec<Self> {
        let mut members = Self::of_this_machine();
        if docker_address().is_some() {
            members.push(Self::Docker);
        }
        members
    }

    /// Those whose jobs are processes of this machine.
    pub fn of_this_machine() -> Vec<Self> {
        if can_be_others() { vec![Self::Local, Self::OtherUser] } else { vec![Self::Local] }
    }

    /// Its name in a data folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local | Self::OtherUser => "local",
            Self::Docker => "docker",
        }
    }

    /// The inverse of its debug form.
    pub fn parse(name: &str) -> Self {
        match name {
            "Local" => Self::Local,
            "OtherUser" => Self::OtherUser,
            "Docker" => Self::Docker,
            other => panic!("no member is called {other}"),
        }
    }
}

/// Whether this process may run jobs as another user.
pub fn can_be_others() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let root = rustix::process::geteuid().is_root();
        assert!(root || std::env::var("REQUIRE_ALL").is_err(), "jobs of another user need root");
        if !root {
            println!("SKIPPED: the local pool with jobs of another user; it needs root");
        }
        root
    })
}

/// The container engine of tests, with the image of tests in it.
pub fn docker_address() -> Option<String> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS
        .get_or_init(|| {
            let Ok(address) = std::env::var("KICKWHEEL_TEST_DOCKER") else {
                assert!(
                    std::env::var("REQUIRE_ALL").is_err(),
                    "KICKWHEEL_TEST_DOCKER is not set; tests/services/docker.sh up prints it"
                );
                println!("SKIPPED: the docker pool; KICKWHEEL_TEST_DOCKER=$(tests/services/docker.sh up) makes it run");
                return None;
            };
            let made = service(None).args(["image", "busybox"]).env("KICKWHEEL_TEST_DOCKER", &address).status();
            assert!(made.expect("bash is there").success(), "the image of tests can be made");
            Some(address)
        })
        .clone()
}

/// The script that manages container engines for tests; `services` is where it notes what it started.
pub fn service(services: Option<&Path>) -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/docker.sh"));
    if let Some(services) = services {
        command.env("KICKWHEEL_SERVICES", services);
    }
    command
}

/// What tests set up differently, whatever the member.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The runner binary.
    pub runner: PathBuf,
    /// What live attempts together may ask for.
    pub capacity: Capacity,
    /// Folders that jobs see at the same path.
    pub shared: Vec<PathBuf>,
    /// The container engine.
    pub address: String,
}

impl Settings {
    /// Room for eight jobs.
    pub fn of(member: Member, data: &Path) -> Self {
        let capacity = Capacity { cpu_milli: 8000, memory_bytes: 8 << 30, gpu: 0 };
        let address = match member {
            Member::Local | Member::OtherUser => String::new(),
            Member::Docker => docker_address().expect("members that are missing are not tried"),
        };
        Self { runner: runner(member), capacity, shared: vec![data.join("shared")], address }
    }

    /// Opens a pool in a data folder.
    pub async fn open(self, member: Member, data: &Path) -> Pool {
        match member {
            Member::Local => Pool::Local(LocalPool::open(self.local(data)).await.expect("the pool opens")),
            Member::OtherUser => {
                let user = OtherUser { name: JOB_USER.to_owned(), folder: data.join("jobs") };
                let config = LocalConfig { job_user: Some(user), ..self.local(data) };
                Pool::Local(LocalPool::open(config).await.expect("the pool opens"))
            }
            Member::Docker => Pool::Docker(DockerPool::open(self.docker(data)).await.expect("the pool opens")),
        }
    }

    /// `KICKWHEEL_TEST_CGROUP` names a delegated cgroup, to have memory limits tried by that mechanism.
    pub fn local(self, data: &Path) -> LocalConfig {
        let mut config = LocalConfig::new(data.join("pool/local"), data.join("artifacts"), self.runner, KEY.to_vec());
        config.capacity = self.capacity;
        config.cgroup = std::env::var_os("KICKWHEEL_TEST_CGROUP").map(PathBuf::from);
        config
    }

    /// The network of jobs that ask for one is the machine's: an engine started for tests has no bridge.
    pub fn docker(self, data: &Path) -> DockerConfig {
        let mut config = DockerConfig::new(data.join("pool/docker"), data.join("artifacts"), self.runner, KEY.to_vec());
        config.capacity = self.capacity;
        config.address = self.address;
        "host".clone_into(&mut config.network);
        config.mounts = self
            .shared
            .into_iter()
            .map(|source| {
                let target = source.to_str().expect("temporary folders are UTF-8").to_owned();
                SharedFolder { source, target, writable: true }
            })
            .collect();
        config
    }
}

/// A pool in a folder of its own.
pub struct Place {
    /// Its kind.
    pub member: Member,
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
    pub async fn with(member: Member, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let artifacts = Artifacts::local(folder.path().join("artifacts")).expect("a store can be made");
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).expect("it can be made");
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("it is ours");
        if member == Member::OtherUser {
            // What an engine's data folder keeps closed as a whole; here the jobs' folders are in it too.
            let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
            mode(folder.path(), 0o711).expect("it is ours");
            mode(artifacts.root(), 0o700).expect("it is ours");
        }
        let mut settings = Settings::of(member, folder.path());
        change(&mut settings);
        let pool = settings.open(member, folder.path()).await;
        Self { member, folder, pool, artifacts }
    }

    /// The same folder, opened again as another engine would.
    pub async fn reopened(&self) -> Pool {
        Settings::of(self.member, self.folder.path()).open(self.member, self.folder.path()).await
    }

    /// What a small job asks for.
    pub fn small(&self) -> Request {
        small(self.member)
    }

    /// Starts a job and waits for its result.
    pub async fn run(&self, spec: &JobSpec) -> JobResult {
        let key = self.start(spec).await;
        self.result(&key).await
    }

    /// Starts a job that fits.
    pub async fn start(&self, spec: &JobSpec) -> AttemptKey {
        let key = key_of(spec);
        self.pool.start(&key, spec, &self.small(), &Secrets::new()).await.expect("it starts");
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
        self.folder.path().join("pool").join(self.member.name()).join("attempts").join(key.file_name())
    }

    /// A path beside the pool, for jobs to leave traces in; they see it under the same name.
    pub fn trace(&self, name: &str) -> PathBuf {
        self.folder.path().join("shared").join(name)
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
        if let Pool::Docker(pool) = &self.pool {
            let address = docker_address().expect("it was there");
            let docker = |arguments: &[&str]| {
                let output = Command::new("docker").args(["--host", &address]).args(arguments).output();
                output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
            };
            let label = format!("label=dev.kickwheel.data={}", pool.data_label());
            let found = docker(&["ps", "--all", "--quiet", "--filter", &label]);
            let ids: Vec<&str> = found.split_whitespace().collect();
            if !ids.is_empty() {
                docker(&[&["rm", "--force"], ids.as_slice()].concat());
            }
            return;
        }
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

/// What a small job asks for.
pub fn small(member: Member) -> Request {
    let image = match member {
        Member::Local | Member::OtherUser => None,
        Member::Docker => Some(IMAGE.to_owned()),
    };
    Request { cpu_milli: 1000, image, ..Request::default() }
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
        notes: Vec::new(),
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

/// The runner binary of this tree, built if it is absent or older than its sources; or the one that `KICKWHEEL_RUNNER`
/// (for containers `KICKWHEEL_RUNNER_EMBED`, since it has to be static) names.
pub fn runner(member: Member) -> PathBuf {
    static RUNNERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    let (slot, named) = match member {
        Member::Local | Member::OtherUser => (&RUNNERS[0], "KICKWHEEL_RUNNER"),
        Member::Docker => (&RUNNERS[1], "KICKWHEEL_RUNNER_EMBED"),
    };
    slot.get_or_init(|| match std::env::var_os(named) {
        Some(path) => path.into(),
        None => build_runner(member),
    })
    .clone()
}

fn build_runner(member: Member) -> PathBuf {
    let itself = std::env::current_exe().expect("a test knows its binary");
    let profile = itself.parent().and_then(Path::parent).expect("tests lie in <target>/<profile>/deps");
    let target = profile.parent().expect("a profile's folder lies in the target folder");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "kickwheel-runner", "--target-dir"]);
    let runner = match member {
        Member::Local | Member::OtherUser => {
            build.arg(target);
            if profile.file_name().is_some_and(|name| name == "release") {
                build.arg("--release");
            }
            profile.join("kickwheel-runner")
        }
        // As `./dev build` makes it, in the same folder.
        Member::Docker => {
            let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            let folder = target.join("static-runner");
            build.arg(&folder).args(["--release", "--target", &host]);
            build.env("RUSTFLAGS", "-C target-feature=+crt-static");
            folder.join(host).join("release/kickwheel-runner")
        }
    };
    let built = fs::metadata(&runner).and_then(|metadata| metadata.modified()).ok();
    if built.is_none_or(|built| newest_source() > built) {
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be started");
        assert!(status.success(), "the runner is built");
        // Cargo leaves a binary alone when nothing that matters has changed; tell the next test so.
        let now = fs::File::open(&runner).and_then(|file| file.set_modified(SystemTime::now()));
        now.expect("the runner was built");
    }
    runner
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

/// Asks the container engine of tests by its own program; what it prints.
pub fn docker(address: &str, arguments: &[&str]) -> String {
    let output =
        Command::new("docker").args(["--host", address]).args(arguments).output().expect("docker is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
