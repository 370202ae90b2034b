//! Containers outlive the engine and are adopted; a Docker Engine that goes takes them with it, and that is nobody's fault.
//! What a container is told in secret is in no description and in no log. And everything at once: Kafka, Postgres, Docker.

use std::{collections::BTreeSet, path::Path, process::Command};

use kickwheel_tests::{
    checker::{Expected, Known},
    cluster::no_server,
    harness::{Database, Engine, Setup, on_each_database, skip},
    kafka::{Topics, no_broker, service},
    wait::until,
};

use crate::{
    kills::kill_all,
    wheel::{Scenario, check_with_containers},
};

/// Names the Docker Engine.
const DOCKER: &str = "KICKWHEEL_TEST_DOCKER";

/// The first attempt waits to be let go. It says who it is in an output, since a container sees no folder of the test.
const LONG: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    image: kickwheel-test/busybox:1
    run: |
      echo "began $KICKWHEEL_ATTEMPT"
      echo "$KICKWHEEL_ATTEMPT" >> ran
      touch /tmp/begun
      case "$KICKWHEEL_ATTEMPT" in
        *#1) while [ ! -e /tmp/gate ]; do sleep 0.1; done ;;
      esac
    outputs: {ran: {path: ran}}
"#;

fn no_docker() -> Option<String> {
    std::env::var(DOCKER)
        .is_err()
        .then(|| format!("{DOCKER} names no Docker Engine; tests/services/docker.sh up starts one"))
}

fn docker(address: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new("docker").args(["--host", address]).args(arguments).output().map_err(|e| e.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// An engine that runs images in containers.
fn engine(database: Database, address: &str) -> Engine {
    let arguments = vec!["--docker".to_owned(), address.to_owned()];
    Engine::with(database, Setup { arguments, ..Setup::default() })
}

/// The ids of the containers of the one task, also of those that have ended.
fn containers(engine: &Engine, address: &str) -> Vec<String> {
    let label = format!("label=dev.kickwheel.task={}/long[0]", engine.run_id());
    let list = docker(address, &["ps", "--all", "--quiet", "--no-trunc", "--filter", &label]).unwrap_or_default();
    list.lines().map(str::to_owned).collect()
}

/// The one container, once its program has begun.
fn begun(engine: &Engine, address: &str) -> String {
    until("the container's program has begun", || {
        let [id] = <[String; 1]>::try_from(containers(engine, address)).ok()?;
        docker(address, &["exec", &id, "test", "-e", "/tmp/begun"]).ok().map(|_| id)
    })
}

fn log(engine: &Engine) -> String {
    let answer = engine.api().try_get(&format!("runs/{}/logs?step=long", engine.run_id())).expect("it answers");
    answer.body.as_str().unwrap_or_default().to_owned()
}

/// The one event that was sent has its one run, each container ran its program once, each success is recorded once.
fn nothing_is_wrong(engine: &Engine) {
    let expected = Expected::from([(Known::Id("submit-1".to_owned()), BTreeSet::from(["wheel".to_owned()]))]);
    assert_eq!(check_with_containers(engine, &expected), []);
}

#[test]
fn a_container_is_adopted_after_a_kill_of_the_engine() {
    if let Some(reason) = no_docker() {
        return skip(&reason);
    }
    let address = std::env::var(DOCKER).expect("looked above");
    let folder = tempfile::tempdir().expect("a folder can be made");
    service("docker.sh", folder.path(), &["image", "busybox"]);
    on_each_database(|database| {
        let mut engine = engine(database, &address);
        engine.submit(LONG);
        let before = begun(&engine, &address);
        for _ in 0..2 {
            engine.kill9().restart();
            until("the job is followed again", || (engine.task("long", 0)["state"] == "running").then_some(()));
        }
        assert_eq!(containers(&engine, &address), std::slice::from_ref(&before), "the same container, and no other");
        docker(&address, &["exec", &before, "touch", "/tmp/gate"]).expect("the gate can be opened");
        engine.wait_for("succeeded");
        assert_eq!(engine.task("long", 0)["attempt"], 1);
        assert_eq!(log(&engine).matches("began ").count(), 1, "user code ran once: {}", log(&engine));
        nothing_is_wrong(&engine);
    });
}

#[test]
fn kafka_postgres_and_docker_together_survive_kills_of_the_engine() {
    if let Some(reason) = no_docker().or_else(no_broker).or_else(no_server) {
        return skip(&reason);
    }
    let address = std::env::var(DOCKER).expect("looked above");
    let folder = tempfile::tempdir().expect("a folder can be made");
    service("docker.sh", folder.path(), &["image", "busybox"]);
    let topics = Topics::fresh();
    let setup = Setup { arguments: vec!["--docker".to_owned(), address], ..Setup::default() };
    let engine = Engine::with(Database::Postgres, setup.with_kafka(&topics));
    let mut scenario = Scenario::begin_contained(engine);
    // Where an event comes in, where a container is started, while it runs, and where its result is taken.
    kill_all(
        &mut scenario,
        &[
            "bus.offset.after:1",
            "job.start.before:2",
            "job.start.after:2",
            "driver.act.before:6",
            "job.conclude.before:2",
        ],
    );
}

/// A Docker Engine of a test's own.
struct OwnDocker<'a> {
    address: String,
    folder: &'a Path,
}

impl<'a> OwnDocker<'a> {
    fn start(folder: &'a Path) -> Self {
        let address = service("docker.sh", folder, &["up", "--own"]);
        let docker = Self { address, folder };
        service("docker.sh", folder, &["image", "busybox"]);
        docker
    }
}

impl Drop for OwnDocker<'_> {
    fn drop(&mut self) {
        service("docker.sh", self.folder, &["down"]);
    }
}

#[test]
fn a_docker_engine_that_is_started_again_costs_nobody_a_retry() {
    if let Some(reason) = no_docker() {
        return skip(&reason);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let own = OwnDocker::start(folder.path());
    let mut engine = engine(Database::Sqlite, &own.address);
    engine.submit(LONG);
    begun(&engine, &own.address);
    service("docker.sh", folder.path(), &["restart"]);
    // The workflow allows no retry: a failure of the user's would have ended the run.
    engine.wait_for("succeeded");
    let task = engine.task("long", 0);
    assert_eq!(task["attempt"], 2, "{task:#}");
    nothing_is_wrong(&engine);
}

#[test]
fn a_secret_reaches_the_container_and_neither_its_description_nor_the_log() {
    const VALUE: &str = "correct-horse-battery-staple";
    const YAML: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    image: kickwheel-test/busybox:1
    secrets: {token: registry-token}
    run: |
      echo "began $KICKWHEEL_ATTEMPT"
      echo "it is: $(cat "$KICKWHEEL_SECRETS/token")"
      head -c 9 "$KICKWHEEL_SECRETS/token"; sleep 0.3; tail -c +10 "$KICKWHEEL_SECRETS/token"; echo
      [ "$(wc -c < "$KICKWHEEL_SECRETS/token")" -eq 28 ]
"#;
    if let Some(reason) = no_docker() {
        return skip(&reason);
    }
    let address = std::env::var(DOCKER).expect("looked above");
    let folder = tempfile::tempdir().expect("a folder can be made");
    service("docker.sh", folder.path(), &["image", "busybox"]);
    on_each_database(|database| {
        let mut engine = engine(database, &address);
        let file = engine.folder().join("value");
        std::fs::write(&file, VALUE).expect("a file can be written");
        let set = engine.cli(&["secrets", "set", "registry-token", "--from-file", &file.to_string_lossy()]);
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        engine.submit(YAML).wait_for("succeeded");
        let said = log(&engine);
        assert!(said.contains("it is: ") && !said.contains("horse") && !said.contains("staple"), "{said}");
        let [container] = <[String; 1]>::try_from(containers(&engine, &address)).expect("there is one container");
        let described = docker(&address, &["inspect", &container]).expect("it can be inspected");
        assert!(!described.contains("horse"), "{described}");
        assert!(!engine.log().contains("horse"));
        nothing_is_wrong(&engine);
    });
}
