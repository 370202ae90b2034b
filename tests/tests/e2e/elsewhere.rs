//! A repository on another machine: behind TLS and a password, under the egress policy, found by polling.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kickwheel_tests::{
    harness::{Engine, Setup, on_each_database},
    repo::Repo,
    wait::until,
};
use serde_json::{Value, json};

use crate::git_server::{Authority, Server, Setup as ServerSetup};

const WHEEL: &str = r#"
version: 1
name: wheel
on: {git.push: {repo: wheel}}
steps:
  turn: {run: 'cat data.txt >> {ledger}'}
"#;

const PASSWORD: &str = "s3cret";

/// Keeps a secret from a file, with a line end as an editor leaves it.
fn keep_secret(engine: &Engine, name: &str, value: &str) {
    let file = engine.folder().join(name);
    fs::write(&file, format!("{value}\n")).expect("a file can be written");
    let kept = engine.cli(&["secrets", "set", name, "--from-file", &file.to_string_lossy()]);
    assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));
}

fn setup(engine_options: &[&str], authority: &Path) -> Setup {
    let mut arguments: Vec<String> = ["--poll-grace", "0s", "--egress-authority"].map(str::to_owned).to_vec();
    arguments.push(authority.to_string_lossy().into_owned());
    arguments.extend(engine_options.iter().map(|o| (*o).to_owned()));
    Setup { arguments, ..Setup::default() }
}

fn bind(engine: &Engine, url: &str, more: &Value) -> (u16, Value) {
    let mut add = json!({"url": url, "name": "wheel", "poll_ms": 1000});
    add.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = engine.api().try_post("repos", &add).expect("it answers");
    (answer.status, answer.body)
}

#[track_caller]
fn refused((status, body): (u16, Value), part: &str) {
    assert_eq!((status, &body["code"]), (400, &json!("repo_refused")), "{body}");
    assert!(body["detail"].as_str().is_some_and(|d| d.contains(part)), "{body}, expected {part}");
}

#[test]
fn a_repository_behind_tls_and_a_password_is_polled_run_and_told_the_result() {
    on_each_database(|database| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let repo = Repo::make(&folder.path().join("git"), "wheel");
        let authority = Authority::new();
        let pem = folder.path().join("authority.pem");
        fs::write(&pem, authority.pem()).expect("a file can be written");
        let header = format!("Basic {}", BASE64.encode(format!("ada:{PASSWORD}")));
        let served = ServerSetup::default().tls(&authority).authorization(&header);
        let server = Server::start(&folder.path().join("git"), served);
        let url = server.url("127.0.0.1", "wheel.git");

        let closed = Engine::with(database, setup(&[], &pem));
        refused(bind(&closed, &url, &json!({})), "add 127.0.0.1 to egress.allow");
        assert_eq!(server.asked(), [], "nothing was sent");
        drop(closed);

        let mut engine = Engine::with(database, setup(&["--egress-allow", "127.0.0.1"], &pem));
        keep_secret(&engine, "forge", PASSWORD);
        keep_secret(&engine, "old", "not the password");
        let first = repo.push(&[(".kickwheel/wheel.yaml", &engine.fill(WHEEL)), ("data.txt", "one\n")]);
        refused(bind(&engine, &url, &json!({"username": "ada"})), "--secret");
        refused(bind(&engine, &url, &json!({"secret": "nowhere"})), "there is none of that name");
        refused(bind(&engine, &url, &json!({"secret": "old", "username": "ada"})), "password");
        let (status, bound) = bind(&engine, &url, &json!({"secret": "forge", "username": "ada"}));
        assert_eq!((status, &bound["hook"], &bound["secret"]), (201, &json!(false), &json!("forge")), "{bound}");

        let second = repo.push(&[("data.txt", "two\n")]);
        engine.pushed(&second).wait_for("succeeded");
        assert_eq!(engine.ledger_lines(), ["two"]);
        let note = until("the commit has a note", || repo.note(&second));
        assert!(note.contains("wheel") && note.contains("succeeded"), "{note}");
        assert_eq!(engine.runs().len(), 1, "nothing for {first}, which was there before");

        drop(server);
        until("the outage is said", || {
            let repos = engine.api().get("repos");
            let repo = &repos["items"][0];
            (repo["state"] == "unreachable" && !repo["reason"].is_null()).then_some(())
        });
        assert!(!engine.log().contains(PASSWORD), "no secret is logged");
    });
}
