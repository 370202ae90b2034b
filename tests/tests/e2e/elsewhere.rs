//! A repository on another machine: behind TLS and a password, or behind ssh and a deploy key, under the egress policy, found
//! by polling.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kickwheel_tests::{
    forge::{Forge, Push},
    harness::{Engine, Setup, on_each_database},
    repo::Repo,
    wait::until,
};
use serde_json::{Value, json};

use crate::{
    git_server::{Authority, Server, Setup as ServerSetup},
    ssh_server::{SshServer, make_key},
};

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

#[test]
fn a_push_waits_while_the_credentials_are_wrong_and_goes_on_once_they_are_right() {
    on_each_database(|database| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let repo = Repo::make(&folder.path().join("git"), "wheel");
        let authority = Authority::new();
        let pem = folder.path().join("authority.pem");
        fs::write(&pem, authority.pem()).expect("a file can be written");
        let header = format!("Basic {}", BASE64.encode(format!("ada:{PASSWORD}")));
        let served = ServerSetup::default().tls(&authority).authorization(&header);
        let server = Server::start(&folder.path().join("git"), served);
        let mut engine = Engine::with(database, setup(&["--egress-allow", "127.0.0.1"], &pem));
        keep_secret(&engine, "forge", PASSWORD);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &engine.fill(WHEEL)), ("data.txt", "one\n")]);
        let access = json!({"secret": "forge", "username": "ada"});
        let (status, bound) = bind(&engine, &server.url("127.0.0.1", "wheel.git"), &access);
        assert_eq!(status, 201, "{bound}");

        keep_secret(&engine, "forge", "changed at the forge");
        let second = repo.push(&[("data.txt", "two\n")]);
        let forge = Forge::set_up(&engine, "told", "wheel");
        let push = Push { reference: "refs/heads/main", before: Some(&first), after: Some(&second) };
        forge.tell(&engine, "d1", push, &json!([])).expect("it answers").good();
        let event = until("the push waits and says why", || {
            let events = engine.api().get("events?limit=10");
            let event = events["items"].as_array()?.iter().find(|e| e["event"]["id"] == "d1")?.clone();
            assert_eq!(event["state"], "undecided", "{event:#}");
            event["reason"].is_string().then_some(event)
        });
        let said = engine.cli(&["explain", event["id"].as_str().expect("a key")]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("password") || said.contains("credentials"), "{said}");
        let doctor = engine.api().get("doctor");
        let check = doctor["checks"].as_array().and_then(|all| all.iter().find(|c| c["id"] == "repository wheel"));
        assert_eq!(check.map(|check| &check["state"]), Some(&json!("warning")), "{doctor:#}");
        assert_eq!(engine.runs().len(), 0);

        keep_secret(&engine, "forge", PASSWORD);
        engine.pushed(&second).wait_for("succeeded");
        assert_eq!(engine.ledger_lines(), ["two"]);
    });
}

#[test]
fn a_repository_behind_ssh_and_a_deploy_key_is_polled_and_run() {
    on_each_database(|database| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let repo = Repo::make(&folder.path().join("git"), "wheel");
        let Some(server) = SshServer::start(&folder.path().join("sshd")) else { return };
        let options = ["--poll-grace", "0s", "--egress-allow", "127.0.0.1"].map(str::to_owned).to_vec();
        let mut engine = Engine::with(database, Setup { arguments: options, ..Setup::default() });
        repo.push(&[(".kickwheel/wheel.yaml", &engine.fill(WHEEL)), ("data.txt", "one\n")]);
        let url = server.url("127.0.0.1", &repo.bare);
        keep_secret(&engine, "deploy", server.key().trim_end());
        let hosts = engine.folder().join("hosts");
        let add = |engine: &Engine| {
            let hosts = hosts.to_string_lossy().into_owned();
            let more = ["--secret", "deploy", "--known-hosts", &hosts, "--poll", "1s"];
            engine.cli(&[&["repos", "add", &url, "--name", "wheel"], &more[..]].concat())
        };
        // A server that does not prove to be the listed one is not asked for anything.
        let other = folder.path().join("other");
        make_key(&other);
        let key = fs::read_to_string(other.with_extension("pub")).expect("it was made");
        let line = server.known_host("127.0.0.1");
        let place = line.split(' ').next().expect("a place");
        fs::write(&hosts, format!("{place} {key}")).expect("a file can be written");
        let said = add(&engine);
        assert!(!said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        fs::write(&hosts, line).expect("a file can be written");
        let said = add(&engine);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

        let second = repo.push(&[("data.txt", "two\n")]);
        engine.pushed(&second).wait_for("succeeded");
        assert_eq!(engine.ledger_lines(), ["two"]);
        let note = until("the commit has a note", || repo.note(&second));
        assert!(note.contains("succeeded"), "{note}");
    });
}
