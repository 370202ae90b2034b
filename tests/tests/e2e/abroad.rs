//! A server that others can reach: over an address of this machine that is not loopback, with TLS, a token, and jobs that
//! cannot read the engine's keys.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use kickwheel_tests::{
    harness::{Database, Engine, skip},
    wait::SOON,
};
use serde_json::Value;

const JOB_USER: &str = "nobody";

/// Where the token of a caller from elsewhere lies, in the test's folder.
const TOKEN: &str = "caller.token";

/// An address of this machine by which others could reach it; none if it has nothing but loopback.
fn own_address() -> Option<IpAddr> {
    // Nothing is sent: the kernel only looks for a way to there, and from where.
    let towards = |to: &str, any: &str| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let listed = || {
        let output = Command::new("hostname").arg("-I").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_whitespace().find_map(|word| word.parse().ok().filter(IpAddr::is_ipv4))
    };
    let usable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
    towards("203.0.113.1", "0.0.0.0").filter(usable).or_else(|| listed().filter(usable))
}

/// An engine that listens on `address` with TLS and these options, and has a token for callers.
fn engine_at(address: IpAddr, options: &[&str]) -> Engine {
    let mut engine = Engine::start(Database::Sqlite);
    let made = engine.cli_json(&["tokens", "create", "caller", "--role", "operator"]);
    let place = engine.folder().to_owned();
    fs::write(place.join(TOKEN), made["token"].as_str().expect("it is shown once")).expect("it can be written");
    let pair = rcgen::generate_simple_self_signed(vec![address.to_string()]).expect("a certificate");
    fs::write(place.join("cert.pem"), pair.cert.pem()).expect("it can be written");
    fs::write(place.join("key.pem"), pair.signing_key.serialize_pem()).expect("it can be written");
    assert_eq!(engine.terminate(SOON).code(), Some(0), "{}", engine.log());
    let file = |name: &str| place.join(name).to_str().expect("temporary folders are UTF-8").to_owned();
    let tls = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")];
    engine.move_to(&format!("{address}:0"), &[&tls, options].concat()).restart();
    assert!(engine.api().url.starts_with(&format!("https://{address}:")), "{}", engine.api().url);
    engine
}

/// What a caller from elsewhere gets, who has the server's URL, its certificate and a token, but not the data folder.
fn call(engine: &Engine, arguments: &[&str]) -> Output {
    let place = engine.folder();
    Command::new(kickwheel_tests::harness::binary())
        .args(arguments)
        .args(["--server", &engine.api().url, "--json"])
        .arg("--ca-file")
        .arg(place.join("cert.pem"))
        .arg("--token-file")
        .arg(place.join(TOKEN))
        .env("HOME", place)
        .env_remove("XDG_DATA_HOME")
        .output()
        .expect("the binary can be started")
}

fn told(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Applies a workflow as the owner, starts it as the caller, and returns the run's log.
fn run(engine: &Engine, name: &str, yaml: &str, state: &str) -> String {
    let file = engine.folder().join(format!("{name}.yaml"));
    fs::write(&file, yaml).expect("it can be written");
    let certificate = engine.folder().join("cert.pem");
    let certificate = certificate.to_str().expect("UTF-8");
    let file = file.to_str().expect("UTF-8");
    let applied = engine.cli(&["workflows", "apply", file, "--ca-file", certificate]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let ended = told(&call(engine, &["workflows", "start", name, "--watch"]));
    assert_eq!(ended["state"], state, "{ended:#}");
    let id = ended["id"].as_str().expect("a run has an id");
    let log = call(engine, &["logs", id]);
    String::from_utf8_lossy(&log.stdout).into_owned()
}

#[test]
fn jobs_of_another_user_run_for_callers_from_elsewhere_and_read_nothing_of_the_engine() {
    let Some(address) = own_address() else { return skip("this machine has no address but loopback") };
    if !rustix::process::geteuid().is_root() {
        return skip("jobs of another user need root");
    }
    let jobs = tempfile::Builder::new().prefix("kickwheel-test-jobs-").tempdir().expect("a folder can be made");
    fs::set_permissions(jobs.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let folder = jobs.path().to_str().expect("temporary folders are UTF-8");
    let engine = engine_at(address, &["--job-user", JOB_USER, "--job-folder", folder]);
    // The way to the data folder is open; only its own door is shut.
    fs::set_permissions(engine.folder(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let data = engine.data().display();
    let closed: Vec<String> = ["token", "key", "kickwheel.db", "lock", "endpoint", "artifacts", "pool/local"]
        .iter()
        .map(|name| format!("{data}/{name}"))
        .collect();
    assert!(closed.iter().all(|path| Path::new(path).exists()), "{closed:?}");
    let yaml = format!(
        r#"
version: 1
name: look
on: {{manual: {{}}}}
steps:
  look:
    run: |
      id -un
      for path in {closed} {data} /proc/{engine}/environ; do
        if ls "$path/" || cat "$path"; then echo "read $path"; fi > /dev/null 2>&1
        ! head -c 1 "$path" 2>/dev/null || echo "read $path"
      done
      env | grep -i -e token -e secret || echo nothing of ours
      echo '{{"seen": true}}' >> "$KICKWHEEL_OUTPUT"
      echo kept > kept.txt
    outputs: {{seen: {{value: true}}, kept: {{path: kept.txt}}}}
"#,
        closed = closed.join(" "),
        engine = engine.pid(),
    );
    let log = run(&engine, "look", &yaml, "succeeded");
    for expected in [JOB_USER, "nothing of ours"] {
        assert!(log.contains(expected), "{expected:?} is missing: {log}");
    }
    assert!(!log.contains("read /"), "{log}");
}

#[test]
fn without_host_processes_callers_from_elsewhere_are_served_and_no_process_is_started() {
    let Some(address) = own_address() else { return skip("this machine has no address but loopback") };
    let engine = engine_at(address, &["--host-processes", "off"]);
    let yaml = "version: 1\nname: bare\non: {manual: {}}\nsteps: {turn: {run: 'touch {ledger}'}}\n";
    run(&engine, "bare", &engine.fill(yaml), "failed");
    assert!(engine.ledger_lines().is_empty() && !engine.ledger().exists());
    // A plugin is no process.
    let gentle = r#"
version: 1
name: gentle
on: {manual: {}}
steps:
  gate:
    uses: metrics-gate
    with: {candidate: {metrics: {loss: 0.1}}, baseline: "model:none@production", metric: loss}
"#;
    run(&engine, "gentle", gentle, "succeeded");
    // Without the token, or by an unprotected word, nothing is answered.
    let place = engine.folder();
    fs::write(place.join(TOKEN), "kw_guess").expect("it can be written");
    assert_eq!(call(&engine, &["runs", "ls"]).status.code(), Some(4));
    let plain = kickwheel_tests::api::Api { url: engine.api().url.replace("https", "http"), ..engine.api().clone() };
    assert!(plain.try_get("runs").is_err());
}

#[test]
fn host_processes_of_the_engines_own_user_are_refused_elsewhere() {
    let Some(address) = own_address() else { return skip("this machine has no address but loopback") };
    let mut engine = Engine::prepare(Database::Sqlite, kickwheel_tests::harness::Setup::default());
    engine.move_to(&format!("{address}:0"), &["--trusted-proxy", "127.0.0.1"]);
    assert_eq!(engine.try_restart(None).expect_err("it is refused").code(), Some(5));
    for expected in ["--job-user", "--host-processes off"] {
        assert!(engine.log().contains(expected), "{}", engine.log());
    }
}
