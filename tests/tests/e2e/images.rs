//! What an image's name stands for is found once for a run, and written down.

use std::process::Command;

use kickwheel_tests::{
    harness::{Engine, Setup, on_each_database, skip},
    kafka::service,
};

/// Names the Docker Engine.
const DOCKER: &str = "KICKWHEEL_TEST_DOCKER";

/// Two jobs of one image; between them, somebody opens the gate.
const TWO: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  before: {image: IMAGE, run: 'echo "it is $WHO"', cache: true}
  gate:
    needs: [before]
    run: |
      while [ ! -e {folder}/open ]; do sleep 0.02; done
  after: {needs: [gate], image: IMAGE, run: 'echo "it is $WHO"'}
"#;

fn docker(arguments: &[&str]) -> String {
    let address = std::env::var(DOCKER).expect("the test looked");
    let output =
        Command::new("docker").args(["--host", &address]).args(arguments).output().expect("docker is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image that says who it is. Its id.
fn image(who: &str) -> String {
    let container = docker(&["create", "kickwheel-test/busybox:1", "true"]);
    let id = docker(&["commit", "--change", &format!("ENV WHO={who}"), &container]);
    docker(&["rm", &container]);
    id
}

fn log(engine: &Engine, step: &str) -> String {
    let answer = engine.api().try_get(&format!("runs/{}/logs?step={step}", engine.run_id())).expect("it answers");
    answer.body.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_tag_that_moves_while_a_run_is_under_way_changes_nothing_for_that_run() {
    if std::env::var(DOCKER).is_err() {
        return skip(&format!("{DOCKER} names no Docker Engine; tests/services/docker.sh up starts one"));
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    service("docker.sh", folder.path(), &["image", "busybox"]);
    on_each_database(|database| {
        let (first, second) = (image("first"), image("second"));
        let tag = format!("kickwheel-test/moving:{}", hex::encode(rand::random::<[u8; 8]>()));
        docker(&["tag", &first, &tag]);
        let arguments = vec!["--docker".to_owned(), std::env::var(DOCKER).expect("looked above")];
        let mut engine = Engine::with(database, Setup { arguments, ..Setup::default() });
        engine.submit(&TWO.replace("IMAGE", &tag));
        kickwheel_tests::wait::until("the first job has ended", || {
            (engine.task("before", 0)["state"] == "succeeded").then_some(())
        });
        docker(&["tag", &second, &tag]);
        // What the run knows is in its journal, not in a process.
        engine.kill9().restart().open_gate("open").wait_for("succeeded");
        assert_eq!((log(&engine, "before"), log(&engine, "after")), ("it is first\n".into(), "it is first\n".into()));
        assert_eq!(engine.run()["images"], serde_json::json!({&tag: first}));

        // The next run has the new one, and says that this is what differs.
        engine.kick("again").wait_for("succeeded");
        assert_eq!((log(&engine, "before"), log(&engine, "after")), ("it is second\n".into(), "it is second\n".into()));
        assert_eq!(engine.run()["images"], serde_json::json!({&tag: second}));
        let why = engine.cli_json(&["cache", "why", &format!("{}/before[0]", engine.run_id())]);
        assert_eq!(why["differs"], serde_json::json!([{"part": "image", "before": first, "now": second}]), "{why:#}");
        docker(&["rmi", "--force", &tag]);
    });
}

#[test]
fn an_image_that_is_nowhere_is_a_failure_that_names_it() {
    if std::env::var(DOCKER).is_err() {
        return skip(&format!("{DOCKER} names no Docker Engine; tests/services/docker.sh up starts one"));
    }
    on_each_database(|database| {
        let arguments = vec!["--docker".to_owned(), std::env::var(DOCKER).expect("looked above")];
        let mut engine = Engine::with(database, Setup { arguments, ..Setup::default() });
        let absent = format!("sha256:{}", "ab".repeat(32));
        engine.submit(&TWO.replace("IMAGE", &absent)).wait_for("failed");
        let reason = engine.task("before", 0)["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains(&absent) && reason.contains("check its name"), "{reason}");
        assert_eq!(engine.run()["images"], serde_json::json!({}));
    });
}
