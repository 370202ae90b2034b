//! What the pool adds to a job: start to result of `true` through the pool, beside the same by hand.
//!
//! ```text
//!   KICKWHEEL_RUNNER=…/kickwheel-runner cargo run --release -p kickwheel-pool --example latency
//! ```
//!
//! The floor makes a work folder and a log, runs `/bin/sh` on a script, writes a result and reads it back; the durable
//! floor also synchronises a claim before and the result after, which the protocol promises. Floor and pool are measured
//! alternately; what is printed are medians and the median of the rounds' ratios.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kickwheel_artifacts::Artifacts;
use kickwheel_pool::{LocalConfig, LocalPool, Observed, Request};
use kickwheel_schemas::{
    AttemptKey, Millis, RunId, TaskKey,
    runner::{JobSpec, Network, PROTOCOL, Program},
    sealed::Secrets,
};

const ROUNDS: u32 = 200;

#[tokio::main]
async fn main() {
    let runner = std::env::var_os("KICKWHEEL_RUNNER").expect("KICKWHEEL_RUNNER names the runner binary");
    let folder = tempfile::tempdir_in(".").expect("this folder can be written to");
    let store = Artifacts::local(folder.path().join("artifacts")).expect("a store can be made");
    let data = folder.path().canonicalize().expect("it exists");
    let config = LocalConfig::new(data.join("pool/local"), store.root(), runner, b"key".to_vec());
    let pool = LocalPool::open(config).await.expect("the pool opens");
    // The first one also starts the agent.
    through_the_pool(&pool, 0).await;
    let (mut bare, mut durable, mut pooled) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        bare.push(by_hand(&data, round, false));
        pooled.push(through_the_pool(&pool, round).await);
        durable.push(by_hand(&data, ROUNDS + round, true));
    }
    let ratio = |floor: &[Duration]| {
        median(pooled.iter().zip(floor).map(|(pool, floor)| pool.as_secs_f64() / floor.as_secs_f64()).collect())
    };
    let ms = |times: &[Duration]| median(times.iter().map(|time| time.as_secs_f64() * 1000.0).collect());
    println!("bare floor     {:6.2} ms   pool / floor {:5.2}", ms(&bare), ratio(&bare));
    println!("durable floor  {:6.2} ms   pool / floor {:5.2}", ms(&durable), ratio(&durable));
    println!("through pool   {:6.2} ms", ms(&pooled));
    let at_once = Instant::now();
    let keys: Vec<_> = futures::future::join_all((1..=ROUNDS).map(|round| {
        let pool = pool.clone();
        async move { through_the_pool(&pool, 10_000 + round).await }
    }))
    .await;
    println!("{} at once: {:.2} ms each", keys.len(), at_once.elapsed().as_secs_f64() * 1000.0 / f64::from(ROUNDS));
    let agent = fs::read_to_string(data.join("pool/local/agent.lock")).expect("there is an agent");
    // It would end by itself a little later, its folder being gone.
    if let Some(agent) = agent.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
    }
}

async fn through_the_pool(pool: &LocalPool, round: u32) -> Duration {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&round.to_le_bytes());
    let task = TaskKey { run: RunId::new(Millis::now(), random), step: "true".to_owned(), index: 0 };
    let key = AttemptKey { task, attempt: 1 };
    let spec = JobSpec {
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
        memory_bytes: None,
        log_limit_bytes: 1 << 20,
        traceparent: None,
        network: Network::None,
        read_only_root: false,
        secrets: Default::default(),
        notes: Vec::new(),
    };
    let began = Instant::now();
    pool.start(&key, &spec, &Request::default(), &Secrets::new()).await.expect("it starts");
    let observed = pool.wait(&key).await.expect("it can be observed");
    assert!(matches!(observed, Observed::Ended(_)), "{observed:?}");
    began.elapsed()
}

fn by_hand(data: &Path, round: u32, durable: bool) -> Duration {
    let began = Instant::now();
    let folder = data.join(format!("bare-{round}"));
    let write = |name: &str| {
        let mut file = File::create(folder.join(name)).expect("it can be made");
        file.write_all(&[b'x'; 400]).expect("it can be written");
        if durable {
            file.sync_all().expect("it can be synchronised");
            File::open(&folder).and_then(|folder| folder.sync_all()).expect("it can be synchronised");
        }
    };
    fs::create_dir_all(folder.join("work")).expect("it can be made");
    fs::write(folder.join("script"), "true").expect("it can be written");
    write("claim");
    let log = File::create(folder.join("log")).expect("it can be made");
    let status = Command::new("/bin/sh")
        .arg("-eu")
        .arg(folder.join("script"))
        .current_dir(folder.join("work"))
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("it is open"))
        .stdout(log)
        .status()
        .expect("it starts");
    assert!(status.success());
    write("result");
    fs::read(folder.join("result")).expect("it was written");
    began.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
