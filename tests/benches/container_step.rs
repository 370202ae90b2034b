//! P5: a container step, from the pool's start to its result, beside the bare `docker run`: `./dev bench`.
//!
//! Both run `true` in the same image with the same limits of memory, CPU and processes, the same user, no rights and no
//! network. Ours goes through the docker pool's own interface: the durable documents of an attempt, its container with
//! the runner inside, and the result read back and checked. The floor is the `docker` command without `--rm`, since our
//! pool does not remove a container either while somebody waits; both kinds are removed between the measurements. In each
//! round: bare, ours, bare, one at a time and then four at once. The goal is a median ratio of at most 1.10 alone, and
//! four at once of at least 0.95 of the floor's throughput.
//!
//! ```text
//!   KICKWHEEL_TEST_DOCKER=$(tests/services/docker.sh up) KICKWHEEL_RUNNER=…/kickwheel-runner \
//!     cargo bench --workspace --bench container_step
//! ```
//!
//! Without a container engine it says so and measures nothing. Where to look next: `engine/pool/src/docker.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use kickwheel_pool::{Capacity, DockerConfig, DockerPool, Observed, Request};
use kickwheel_schemas::{
    AttemptKey, Millis, RunId, TaskKey,
    runner::{JobEnd, JobSpec, Network, PROTOCOL, Program},
    sealed::Secrets,
};
use tokio::process::Command;

/// Rounds that count; one more before them warms up.
const ROUNDS: usize = 5;
const AT_ONCE: usize = 4;
/// Containers one after the other, by each of those that are at work at once.
const EACH: usize = 4;
const IMAGE: &str = "kickwheel-test/busybox:1";
const CPU_MILLI: u64 = 500;
const MEMORY_BYTES: u64 = 128 << 20;
/// Marks the floor's containers.
const LABEL: &str = "dev.kickwheel.bench";

/// What is measured beside each other.
#[derive(Clone, Debug)]
struct Place {
    address: String,
    pool: DockerPool,
    /// This process's containers, and nobody else's.
    label: String,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Bare,
    Pool,
}

#[tokio::main]
async fn main() {
    let Ok(address) = std::env::var("KICKWHEEL_TEST_DOCKER") else {
        println!("SKIPPED: KICKWHEEL_TEST_DOCKER names no container engine; tests/services/docker.sh up prints one");
        return;
    };
    let Some(runner) = ["KICKWHEEL_RUNNER", "KICKWHEEL_RUNNER_EMBED"].into_iter().find_map(std::env::var_os) else {
        println!("SKIPPED: KICKWHEEL_RUNNER names no static runner; `./dev bench` sets it");
        return;
    };
    if !make_image(&address).await {
        println!("SKIPPED: the engine at {address} has no image {IMAGE}, and it could not be made");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(address, folder.path(), runner.into()).await;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let one = place.in_turns(1).await;
        let four = place.in_turns(AT_ONCE).await;
        println!(
            "round {round}: alone {:.0} ms, docker run {:.0} ms, ratio {:.3}; {AT_ONCE} at once {:.2}/s, docker run {:.2}/s, \
             ratio {:.3}{}",
            one.1 * 1e3,
            one.0 * 1e3,
            one.1 / one.0,
            1.0 / four.1,
            1.0 / four.0,
            four.0 / four.1,
            if round == 0 { " (warm-up)" } else { "" }
        );
        if round > 0 {
            alone.push(one.1 / one.0);
            together.push(four.0 / four.1);
        }
    }
    println!("P5: a container step alone / docker run = {:.3} (goal <= 1.10)", median(alone));
    println!("P5: {AT_ONCE} at once, steps/s / docker run's = {:.3} (goal >= 0.95)", median(together));
}

/// Whether the image is there, made from this machine's own busybox if need be.
async fn make_image(address: &str) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/docker.sh");
    let mut command = Command::new("bash");
    command.arg(script).args(["image", "busybox"]).env("KICKWHEEL_TEST_DOCKER", address);
    command.status().await.is_ok_and(|status| status.success())
}

impl Place {
    async fn open(address: String, data: &Path, runner: PathBuf) -> Self {
        let key = b"the key of a data folder in a bench".to_vec();
        let mut config = DockerConfig::new(data.join("pool/docker"), data.join("artifacts"), runner, key);
        config.address.clone_from(&address);
        // What is measured is how fast containers come and go, not admission.
        config.capacity = Capacity { cpu_milli: 64_000, memory_bytes: 64 << 30, gpu: 0 };
        let pool = DockerPool::open(config).await.unwrap();
        Self { address, pool, label: format!("{LABEL}={}", std::process::id()) }
    }

    /// Bare, ours, bare: seconds that one container took, of so many at once, bare and ours.
    async fn in_turns(&self, at_once: usize) -> (f64, f64) {
        let before = self.seconds_each(Way::Bare, at_once).await;
        let ours = self.seconds_each(Way::Pool, at_once).await;
        let after = self.seconds_each(Way::Bare, at_once).await;
        (f64::midpoint(before, after), ours)
    }

    async fn seconds_each(&self, way: Way, at_once: usize) -> f64 {
        let began = Instant::now();
        let at_work = (0..at_once).map(|_| {
            let place = self.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    match way {
                        Way::Bare => place.docker_run().await,
                        Way::Pool => place.through_the_pool().await,
                    }
                }
            })
        });
        for one in at_work.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let seconds = began.elapsed().as_secs_f64() / (at_once * EACH) as f64;
        self.clean().await;
        seconds
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(&self.address).stdin(Stdio::null());
        command
    }

    async fn docker_run(&self) {
        let mut command = self.docker();
        command
            .args(["run", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65534:65534"])
            .args(["--workdir=/", "--log-driver=json-file", "--log-opt=max-size=1m", "--log-opt=max-file=1"])
            .arg(format!("--pids-limit={}", kickwheel_pool::docker::PIDS_LIMIT))
            .arg(format!("--memory={MEMORY_BYTES}"))
            .arg(format!("--memory-swap={MEMORY_BYTES}"))
            .arg(format!("--cpus={}", CPU_MILLI as f64 / 1e3))
            .arg(format!("--label={}", self.label))
            .args([IMAGE, "/bin/sh", "-eu", "-c", "true"]);
        let ended = command.output().await.unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    async fn through_the_pool(&self) {
        let task = TaskKey { run: RunId::new(Millis::now(), rand::random()), step: "true".to_owned(), index: 0 };
        let key = AttemptKey { task, attempt: 1 };
        let request =
            Request { cpu_milli: CPU_MILLI, memory_bytes: Some(MEMORY_BYTES), gpu: 0, image: Some(IMAGE.to_owned()) };
        self.pool.start(&key, &spec(&key), &request, &Secrets::new()).await.unwrap();
        let observed = self.pool.wait(&key).await.unwrap();
        assert!(matches!(&observed, Observed::Ended(result) if result.end == JobEnd::Succeeded), "{observed:?}");
    }

    /// Removes all ended containers of both kinds.
    async fn clean(&self) {
        self.pool.sweep(Duration::ZERO).await.unwrap();
        let filter = format!("label={}", self.label);
        let listed = self.docker().args(["ps", "--all", "--quiet", "--filter", &filter]).output().await.unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            let removed = self.docker().arg("rm").args(ids).output().await.unwrap();
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
        }
    }
}

fn spec(key: &AttemptKey) -> JobSpec {
    JobSpec {
        protocol: PROTOCOL,
        attempt: key.to_string(),
        task: key.task.to_string(),
        program: Program::Script { script: "true".to_owned() },
        env: Default::default(),
        source: None,
        files: Default::default(),
        output_paths: Default::default(),
        output_values: Vec::new(),
        timeout_ms: None,
        grace_ms: 1000,
        memory_bytes: Some(MEMORY_BYTES),
        log_limit_bytes: 1 << 20,
        traceparent: None,
        network: Network::None,
        read_only_root: false,
        secrets: Default::default(),
        notes: Vec::new(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
