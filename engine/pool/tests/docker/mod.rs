//! What only a pool of containers promises: walls around the job, and an engine of containers that may fail on its own.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use crate::place::*;
use futures::StreamExt as _;
use kickwheel_pool::{Capacity, DockerPool, Observed, Pool, PoolError, Request, StartError};
use kickwheel_schemas::{
    AttemptKey,
    runner::{JobEnd, JobSpec, Network, credential},
    sealed::Secrets,
};

/// A place with the docker pool, or none where there is no container engine, which was said.
async fn place() -> Option<Place> {
    docker_address()?;
    Some(Place::new(Member::Docker).await)
}

fn container(place: &Place, key: &AttemptKey) -> String {
    let Pool::Docker(pool) = &place.pool else { panic!("it is one") };
    format!("kickwheel-{}-{}", pool.data_label(), key.file_name())
}

fn ask(arguments: &[&str]) -> String {
    docker(&docker_address().expect("it was there"), arguments)
}

async fn log_of(place: &Place, spec: &JobSpec) -> String {
    let result = place.run(spec).await;
    let log = String::from_utf8(place.log(&key_of(spec)).await).expect("it is text");
    assert_eq!(result.end, JobEnd::Succeeded, "{log}");
    log
}

#[tokio::test]
async fn a_container_has_its_limits_no_rights_and_no_network() {
    let Some(place) = place().await else { return };
    let mut spec = script(
        r#"
        id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\t'
        ls /sys/class/net; echo net
        cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null || true
        cat pids.max pids/pids.max 2>/dev/null || true; cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null || true
        touch /anywhere 2>/dev/null && echo "root can be written to" || echo "root cannot be written to"
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted || echo not mounted
        cat /proc/1/environ >/dev/null 2>&1 && echo the runner can be read || echo the runner is closed
        kill -9 1 || true; kill -STOP 1 || true; echo still here
        "#,
    );
    spec.memory_bytes = Some(100 << 20);
    spec.read_only_root = true;
    let log = log_of(&place, &spec).await;
    let own = if rustix::process::geteuid().is_root() { 65534 } else { rustix::process::geteuid().as_raw() };
    assert!(log.starts_with(&format!("{own}\n")), "{log}");
    for expected in [
        "CapEff:0000000000000000",
        "CapBnd:0000000000000000",
        "NoNewPrivs:1",
        "lo\nnet",
        "104857600",
        "1024",
        "100000",
        "root cannot be written to",
        "not mounted",
        "the runner is closed",
        "still here",
    ] {
        assert!(log.contains(expected), "{expected:?} is missing: {log}");
    }
    // Where it is not asked for, the root is the container's own and can be written to by who may.
    spec = script("ls /sys/class/net | wc -l");
    spec.network = Network::Outbound;
    let log = log_of(&place, &spec).await;
    assert!(log.trim().parse::<u32>().expect("a number") > 1, "{log}");
}

#[tokio::test]
async fn a_container_with_too_many_processes_cannot_start_more() {
    let Some(place) = place().await else { return };
    let mut config = Settings::of(Member::Docker, place.folder.path()).docker(place.folder.path());
    config.pids_limit = 20;
    let pool = Pool::Docker(DockerPool::open(config).await.expect("the pool opens"));
    let spec = script("for i in $(seq 60); do sleep 5 & done; echo never");
    pool.start(&key_of(&spec), &spec, &small(Member::Docker), &Secrets::new()).await.expect("it starts");
    let Ok(Observed::Ended(result)) = pool.wait(&key_of(&spec)).await else { panic!("it has a result") };
    assert!(matches!(result.end, JobEnd::Exited { .. }), "{result:?}");
    assert!(!String::from_utf8_lossy(&place.log(&key_of(&spec)).await).contains("never"));
}

#[tokio::test]
async fn a_container_sees_the_inputs_of_its_attempt_and_no_others() {
    let Some(place) = place().await else { return };
    let mine = place.artifacts.put_bytes("mine").await.expect("it is stored");
    let other = place.artifacts.put_bytes("somebody else's").await.expect("it is stored");
    let mut spec = script(&format!(
        "find /kickwheel/inputs -type f | wc -l; find / -name {} 2>/dev/null | wc -l
        touch /kickwheel/inputs/x 2>/dev/null || echo read-only; cat in",
        other.digest.hex()
    ));
    spec.files = BTreeMap::from([("in".to_owned(), mine.clone())]);
    assert_eq!(log_of(&place, &spec).await, "1\n0\nread-only\nmine");
    assert_eq!(place.artifacts.get_bytes(&mine.digest, 100).await.expect("it is whole"), "mine");
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_the_users_failure_and_says_so() {
    let Some(place) = place().await else { return };
    let spec = script("true");
    for image in
        ["localhost:1/no/such:image", "sha256:0000000000000000000000000000000000000000000000000000000000000000"]
    {
        let request = Request { image: Some(image.to_owned()), ..place.small() };
        let refused = place.pool.start(&key_of(&spec), &spec, &request, &Secrets::new()).await;
        assert!(matches!(&refused, Err(StartError::Image { image: named, .. }) if named == image), "{refused:?}");
        assert_eq!(place.pool.observe(&key_of(&spec)).await.expect("it can be asked"), Observed::Unknown);
    }
    let digest = place.pool.resolve_image(IMAGE).await.expect("it is here");
    assert!(digest.starts_with("sha256:"), "{digest}");
    // A digest is an image as good as a name.
    let request = Request { image: Some(digest), ..place.small() };
    place.pool.start(&key_of(&spec), &spec, &request, &Secrets::new()).await.expect("it starts");
    assert_eq!(place.result(&key_of(&spec)).await.end, JobEnd::Succeeded);
}

#[tokio::test]
async fn what_is_secret_is_in_no_specification_of_a_container() {
    let Some(place) = place().await else { return };
    let mut spec = script("sleep 60");
    spec.secrets = BTreeMap::from([("token".to_owned(), "name-of-a-secret".to_owned())]);
    let key = key_of(&spec);
    let secrets = [("token", "value-of-a-secret")].into_iter().collect();
    place.pool.start(&key, &spec, &place.small(), &secrets).await.expect("it starts");
    place.running(&key).await;
    let seen = ask(&["inspect", &container(&place, &key)]);
    assert!(seen.contains(&key.file_name()));
    for hidden in ["value-of-a-secret", &credential(KEY, &key.to_string()), &hex(b"value-of-a-secret")] {
        assert!(!seen.contains(hidden), "{seen}");
    }
    place.pool.cancel(&key, Duration::ZERO).await.expect("it can be asked");
    place.result(&key).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_runner_that_is_killed_for_want_of_memory_leaves_an_outcome_all_the_same() {
    let Some(place) = place().await else { return };
    // Files in memory belong to no process: whoever the kernel kills, it is not enough.
    let mut spec = script("trap '' TERM; while :; do head -c 60000000 /dev/zero >> /dev/shm/full || true; done");
    spec.memory_bytes = Some(32 << 20);
    let result = place.run(&spec).await;
    assert!(matches!(result.end, JobEnd::OutOfMemory { .. }), "{result:?}");
    println!("noticed by {:?}", result.end);
    // What was synthesised is kept: another engine sees the same without the container.
    ask(&["rm", "--force", &container(&place, &key_of(&spec))]);
    let Ok(Observed::Ended(again)) = place.reopened().await.observe(&key_of(&spec)).await else {
        panic!("it has ended")
    };
    assert_eq!(*again, result);
}

#[tokio::test]
async fn a_container_that_somebody_killed_or_removed_is_lost() {
    let Some(place) = place().await else { return };
    for (arguments, expected) in [(&["kill"][..], "it was killed"), (&["rm", "--force"], "removed its container")] {
        let key = place.start(&script("sleep 60")).await;
        place.running(&key).await;
        ask(&[arguments, &[container(&place, &key).as_str()]].concat());
        let Ok(Observed::Lost { reason }) = place.pool.wait(&key).await else { panic!("it is lost") };
        assert!(reason.contains(expected), "{reason}");
        // For good, and without asking anybody.
        assert!(matches!(place.reopened().await.observe(&key).await, Ok(Observed::Lost { .. })));
    }
}

#[tokio::test]
async fn links_in_a_jobs_folder_lead_nowhere() {
    let Some(place) = place().await else { return };
    // The outputs' store is led out of the folder, to a place that exists on both sides.
    let outside = place.trace("outside");
    let mut spec =
        script(&format!("mkdir {0}; echo x > out/model; rm -rf ../store; ln -s {0} ../store", outside.display()));
    spec.output_paths = BTreeMap::from([("model".to_owned(), "out/model".to_owned())]);
    let result = place.run(&spec).await;
    assert!(matches!(&result.end, JobEnd::BadOutput { message } if message.contains("`model`")), "{result:?}");
    assert!(outside.join("blobs").exists(), "the runner stored it where the link led");
    assert!(result.artifacts.is_empty());

    let target = place.trace("target");
    fs::write(&target, "somebody else's").expect("it can be written");
    let spec = script(&format!(
        "for name in log heartbeat.json cancel.json; do rm -f ../$name; ln -s {} ../$name; done; sleep 60",
        target.display()
    ));
    let key = place.start(&spec).await;
    let log = place.attempt(&key).join("cancel.json");
    until("the links are there", || log.is_symlink()).await;
    let mut pieces = place.pool.read_log(&key, 0, false).await.expect("it can be asked");
    assert!(!matches!(pieces.next().await, Some(Ok(_))), "the log is somebody else's file");
    place.pool.cancel(&key, Duration::ZERO).await.expect("it can be asked");
    assert_eq!(place.result(&key).await.end, JobEnd::Cancelled);
    assert_eq!(fs::read_to_string(&target).expect("it is there"), "somebody else's");
}

#[tokio::test]
async fn outputs_over_the_pools_limit_or_changed_afterwards_are_not_taken() {
    let Some(place) = place().await else { return };
    let mut config = Settings::of(Member::Docker, place.folder.path()).docker(place.folder.path());
    config.output_limit_bytes = 1000;
    let pool = Pool::Docker(DockerPool::open(config).await.expect("the pool opens"));
    for (bytes, fits) in [(1000, true), (1001, false)] {
        let mut spec = script(&format!("head -c {bytes} /dev/zero > out/zero"));
        spec.output_paths = BTreeMap::from([("zero".to_owned(), "out/zero".to_owned())]);
        pool.start(&key_of(&spec), &spec, &small(Member::Docker), &Secrets::new()).await.expect("it starts");
        let Ok(Observed::Ended(result)) = pool.wait(&key_of(&spec)).await else { panic!("it has a result") };
        assert_eq!(result.end == JobEnd::Succeeded, fits, "{result:?}");
        assert_eq!(matches!(result.end, JobEnd::BadOutput { .. }), !fits, "{result:?}");
    }
}

#[tokio::test]
async fn a_runner_that_does_not_obey_is_killed_with_its_container() {
    let Some(place) = place().await else { return };
    let key = place.start(&script("sleep 60")).await;
    let (runner, _) = place.running(&key).await;
    let runner = rustix::process::Pid::from_raw(runner as i32).expect("a process id");
    rustix::process::kill_process(runner, rustix::process::Signal::STOP).expect("it runs");
    let asked = Instant::now();
    place.pool.cancel(&key, Duration::from_millis(100)).await.expect("it can be asked");
    assert_eq!(place.result(&key).await.end, JobEnd::Cancelled);
    assert!(asked.elapsed() > Duration::from_secs(10), "the runner had its chance");
}

#[tokio::test]
async fn containers_go_when_they_are_swept_and_outcomes_stay() {
    let Some(place) = place().await else { return };
    let (ended, live) = (place.start(&script("echo said")).await, place.start(&script("sleep 60")).await);
    let result = place.result(&ended).await;
    place.running(&live).await;
    let listed = || ask(&["ps", "--all", "--format", "{{.Names}}"]);
    assert_eq!(place.pool.sweep(Duration::from_secs(3600)).await.expect("it can be asked"), 0);
    assert!(listed().contains(&container(&place, &ended)), "it is kept for a while");
    assert_eq!(place.pool.sweep(Duration::ZERO).await.expect("it can be asked"), 1);
    assert!(!listed().contains(&container(&place, &ended)) && listed().contains(&container(&place, &live)));
    assert_eq!(place.result(&ended).await, result);
    assert_eq!(place.log(&ended).await, b"said\n");
    // A container whose attempt nobody knows any more goes too, whatever it does.
    fs::remove_dir_all(place.folder.path().join("pool/docker/kept").join(live.file_name())).expect("it is there");
    assert_eq!(place.pool.sweep(Duration::from_secs(3600)).await.expect("it can be asked"), 1);
    assert!(!listed().contains(&container(&place, &live)));
}

#[tokio::test]
async fn a_container_that_vanished_before_its_claim_is_made_again() {
    let Some(place) = place().await else { return };
    let spec = script("echo ran");
    let key = key_of(&spec);
    // The runner is held up: what is mounted as one waits.
    let waiting = place.trace("runner");
    let text = format!(
        "#!/bin/sh\necho $$ > {0}.pid\nwhile [ ! -e {0}.go ]; do sleep 0.01; done\nexec /{1} \"$@\"\n",
        waiting.display(),
        runner(Member::Docker).display()
    );
    fs::write(&waiting, text).expect("it can be written");
    fs::set_permissions(&waiting, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let mut settings = Settings::of(Member::Docker, place.folder.path());
    settings.runner = waiting.clone();
    settings.shared.push(runner(Member::Docker).parent().expect("it lies in a folder").to_owned());
    let pool = settings.open(Member::Docker, place.folder.path()).await;
    pool.start(&key, &spec, &place.small(), &Secrets::new()).await.expect("it starts");
    let sign = |end: &str| waiting.with_extension(end);
    until("the runner waits", || sign("pid").exists()).await;
    ask(&["rm", "--force", &container(&place, &key)]);
    fs::write(sign("go"), "").expect("it can be written");
    let Ok(Observed::Ended(result)) = pool.wait(&key).await else { panic!("it has a result") };
    assert_eq!(result.end, JobEnd::Succeeded);
    assert_eq!(place.log(&key).await, b"ran\n");
}

#[tokio::test]
async fn a_container_engine_that_goes_away_and_comes_back() {
    if docker_address().is_none() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can start a container engine of its own");
        return;
    }
    let own = OwnEngine::start();
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    fs::create_dir_all(folder.path().join("shared")).expect("it can be made");
    fs::set_permissions(folder.path().join("shared"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("it is ours");
    let capacity = Capacity { cpu_milli: 8000, memory_bytes: 8 << 30, gpu: 0 };
    let settings = || {
        let (runner, shared) = (runner(Member::Docker), vec![folder.path().join("shared")]);
        Settings { runner, capacity, shared, address: own.address.clone() }
    };
    let pool = settings().open(Member::Docker, folder.path()).await;
    let go = folder.path().join("shared/go");
    let ends = script(&format!("while [ ! -e {} ]; do sleep 0.01; done; echo done", go.display()));
    let stays = script("trap '' TERM; while :; do sleep 0.05; done");
    for spec in [&ends, &stays] {
        pool.start(&key_of(spec), spec, &small(Member::Docker), &Secrets::new()).await.expect("it starts");
        running(&pool, &key_of(spec)).await;
    }

    own.kill();
    let away = pool.observe(&key_of(&stays)).await;
    assert!(matches!(away, Err(PoolError::Unavailable { .. })), "no news is no loss: {away:?}");
    let refused = script("true");
    let refused = pool.start(&key_of(&refused), &refused, &small(Member::Docker), &Secrets::new()).await;
    assert!(matches!(refused, Err(StartError::Failed(PoolError::Unavailable { .. }))), "{refused:?}");
    // Containers run on without their engine, and what they leave is found without it.
    fs::write(&go, "").expect("it can be written");
    let deadline = Instant::now() + PATIENCE;
    let result = loop {
        match pool.observe(&key_of(&ends)).await {
            Ok(Observed::Ended(result)) => break result,
            Err(PoolError::Unavailable { .. }) => assert!(Instant::now() < deadline, "it never ended"),
            other => panic!("it ends, but is {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(result.end, JobEnd::Succeeded);

    // A new engine ends what its predecessor left: the platform's loss.
    let mut changes = pool.changes();
    own.restart();
    let told = tokio::time::timeout(PATIENCE, async { while changes.next().await != key_of(&stays) {} }).await;
    told.expect("the loss is told");
    assert!(matches!(pool.observe(&key_of(&stays)).await, Ok(Observed::Lost { .. })));
    let next = script("true");
    pool.start(&key_of(&next), &next, &small(Member::Docker), &Secrets::new()).await.expect("it starts");
    assert!(matches!(pool.wait(&key_of(&next)).await, Ok(Observed::Ended(_))), "the pool works on");
}

/// A dockerd that a test may treat badly.
struct OwnEngine {
    services: tempfile::TempDir,
    address: String,
}

impl OwnEngine {
    fn start() -> Self {
        let services = tempfile::tempdir().expect("temporary folders can be made");
        let output = service(Some(services.path())).args(["up", "--own"]).output().expect("bash is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let own = Self { services, address };
        own.ask(&["image", "busybox"]);
        own
    }

    fn ask(&self, arguments: &[&str]) {
        let status = service(Some(self.services.path())).args(arguments).status().expect("bash is there");
        assert!(status.success(), "{arguments:?}");
    }

    fn kill(&self) {
        let folder = self.address.trim_start_matches("unix://").trim_end_matches("/socket");
        let pid = fs::read_to_string(format!("{folder}/pid")).expect("it runs").trim().parse().expect("a process id");
        kill(pid);
    }

    fn restart(&self) {
        self.ask(&["restart", "--kill"]);
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        // Best effort: a test that failed should say why, not that its engine did not end.
        let _ = service(Some(self.services.path())).arg("down").status();
    }
}
