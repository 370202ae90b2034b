//! The binary itself, as a shell sees it: exit codes, what goes to stdout and to stderr, and what is left on the disk.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use kickwheel_schemas::api::PostReceive;
use serde_json::Value;
use tempfile::TempDir;

/// No condition here may take longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary in an environment of its own.
fn kickwheel(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kickwheel"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", data)
        .env("KICKWHEEL_DATA", data)
        // An executable file is all that `serve` wants to see; what runs jobs is asked for by `runner` below.
        .env("KICKWHEEL_RUNNER", env!("CARGO_BIN_EXE_kickwheel"));
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    kickwheel(data, args).stdin(Stdio::null()).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

const GOOD: &str = "version: 1\nname: good\non: {manual: {}}\nsteps:\n  a:\n    run: echo hello\n";
const BROKEN: &str = "version: 1\nname: broken\non: {manual: {}}\nsteps:\n  a:\n    run: echo hello\n    tiemout: 5m\n";

#[test]
fn validate_says_ok_for_a_good_file_and_shows_the_place_in_a_broken_one() {
    let data = folder();
    let (good, broken) = (data.path().join("good.yaml"), data.path().join("broken.yaml"));
    fs::write(&good, GOOD).expect("written");
    fs::write(&broken, BROKEN).expect("written");
    let (good, broken) = (good.to_str().expect("UTF-8"), broken.to_str().expect("UTF-8"));

    let output = run(data.path(), &["validate", good]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("{good}: ok\n"));

    let output = run(data.path(), &["validate", good, broken]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("tiemout: 5m") && text.contains("`timeout`") && text.contains(":7:5"), "{text}");
    assert!(!text.contains('\x1b'), "no colours in a pipe");

    let output = run(data.path(), &["validate", broken, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let list: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!((&list["items"][0]["line"], &list["items"][0]["column"]), (&7.into(), &5.into()), "{list}");
    assert_eq!(list["items"][0]["severity"], "error", "{list}");

    assert_eq!(run(data.path(), &["validate", "no-such-file.yaml"]).status.code(), Some(2));
    assert_eq!(run(data.path(), &["validate"]).status.code(), Some(2));
}

#[test]
fn without_a_server_the_error_says_where_it_looked_and_what_to_do() {
    let data = folder();
    let output = run(data.path(), &["runs", "ls"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    assert!(text.contains(&data.path().display().to_string()) && text.contains("kickwheel serve"), "{text}");

    let output = run(data.path(), &["runs", "ls", "--json"]);
    let problem: Value = serde_json::from_str(&stderr(&output)).expect("JSON");
    assert_eq!((&problem["code"], &problem["exit"]), (&"no_server".into(), &4.into()));
}

#[test]
fn the_long_help_documents_the_exit_codes() {
    let text = stdout(&run(folder().path(), &["--help"]));
    assert!(text.contains("Exit codes:") && text.contains("130"), "{text}");
}

/// What Git would do after a push of two refs.
fn push(data: &Path, lines: &[u8]) -> Output {
    let mut hook = kickwheel(data, &["hook", "post-receive", "--repo=churn"])
        .env("GIT_PUSH_OPTION_COUNT", "1")
        .env("GIT_PUSH_OPTION_0", "fast")
        .env("USER", "ann")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    hook.stdin.take().expect("piped").write_all(lines).expect("it reads");
    hook.wait_with_output().expect("it ends")
}

#[test]
fn a_push_is_recorded_while_no_engine_runs() {
    let data = folder();
    let output = push(data.path(), b"a b refs/heads/main\nc d refs/heads/\xff\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "kickwheel: 2 refs recorded; the engine is down and will pick it up\n");
    let files: Vec<_> =
        fs::read_dir(data.path().join("spool/git")).expect("made").map(|f| f.expect("readable").path()).collect();
    let [file] = files.as_slice() else { panic!("one file, not {files:?}") };
    let record: PostReceive = serde_json::from_slice(&fs::read(file).expect("readable")).expect("JSON");
    assert_eq!((record.repo.as_str(), record.actor.as_deref()), ("churn", Some("ann")));
    assert_eq!(record.push_options, ["fast"]);
    assert_eq!(hex::decode(&record.lines_hex[1]).expect("hex"), b"c d refs/heads/\xff");
}

#[test]
fn a_push_never_fails_even_if_it_cannot_be_recorded() {
    let data = folder();
    fs::write(data.path().join("spool"), "a file is in the way").expect("written");
    let output = push(data.path(), b"a b refs/heads/main\n");
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("NOT recorded"), "{}", stderr(&output));
}

/// A server on a free port; killed if the test does not end it.
struct Server {
    child: Child,
    facts: Value,
}

impl Server {
    fn start(data: &Path, runner: Option<&Path>) -> Self {
        Self::listening(data, &["--listen", "127.0.0.1:0"], runner)
    }

    fn listening(data: &Path, options: &[&str], runner: Option<&Path>) -> Self {
        let mut command = kickwheel(data, &[&["serve", "--json", "--log", "error"], options].concat());
        if let Some(runner) = runner {
            command.env("KICKWHEEL_RUNNER", runner);
        }
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it is");
        let facts = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, facts }
    }

    fn stop(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_is_found_by_its_data_folder_and_drains_on_sigterm() {
    let data = folder();
    let server = Server::start(data.path(), None);
    let url = server.facts["url"].as_str().expect("a URL").to_owned();
    assert_eq!(server.facts["pid"], server.child.id());
    assert_eq!(fs::read_to_string(data.path().join("endpoint")).expect("written").trim(), url);

    let output = run(data.path(), &["health", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let health: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(health["state"], "ok");
    let output = run(data.path(), &["runs", "ls", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).expect("JSON")["items"], Value::Array(vec![]));
    assert_eq!(run(data.path(), &["events", "get", "nothing"]).status.code(), Some(3));

    // The same server by its URL, with a token that it does not take.
    let wrong = data.path().join("wrong");
    fs::write(&wrong, "no such token").expect("written");
    let wrong = wrong.to_str().expect("UTF-8");
    let output = run(data.path(), &["runs", "ls", "--server", &url, "--token-file", wrong]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("--token-file"), "{}", stderr(&output));

    // A second server on the same folder is refused, and leaves the first one alone.
    let second = run(data.path(), &["serve", "--listen", "127.0.0.1:0", "--log", "error"]);
    assert_eq!(second.status.code(), Some(5));
    assert!(stderr(&second).contains("another kickwheel"), "{}", stderr(&second));
    assert_eq!(run(data.path(), &["health"]).status.code(), Some(0));

    let output = push(data.path(), b"a b refs/heads/main\n");
    assert_eq!(stderr(&output), "kickwheel: 1 ref recorded\n");

    assert_eq!(server.stop(), Some(0));
    assert!(!data.path().join("endpoint").exists());
}

#[test]
fn serve_listens_where_others_reach_it_only_when_all_is_set_up_for_that() {
    let data = folder();
    let refused = |options: &[&str], reason: &str| {
        let serve = ["serve", "--listen", "0.0.0.0:0", "--log", "error"];
        let output = run(data.path(), &[&serve, options].concat());
        assert_eq!(output.status.code(), Some(5), "{options:?}");
        assert!(stderr(&output).contains(reason), "{options:?}: {}", stderr(&output));
    };
    refused(&[], "--tls-cert");
    refused(&["--host-processes", "off"], "--tls-cert");
    let proxy = ["--trusted-proxy", "10.0.0.0/24"];
    refused(&proxy, "--host-processes off");
    refused(&[&proxy[..], &["--host-processes", "off"]].concat(), "kickwheel tokens create");
    refused(&["--tls-cert", "absent.pem", "--tls-key", "absent.pem"], "absent.pem");
    assert!(!data.path().join("endpoint").exists());

    let server = Server::start(data.path(), None);
    assert_eq!(run(data.path(), &["tokens", "create", "ops", "--role", "admin"]).status.code(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let options = ["--listen", "0.0.0.0:0", "--trusted-proxy", "10.0.0.0/24", "--host-processes", "off"];
    let server = Server::listening(data.path(), &options, None);
    let url = server.facts["url"].as_str().expect("a URL");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(run(data.path(), &["health"]).status.code(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// The runner beside the binary under test, or a loud reason why there is none.
fn runner() -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_kickwheel")).with_file_name("kickwheel-runner");
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("REQUIRE_ALL").is_none_or(|v| v != "1"),
        "kickwheel-runner is not beside the binary: build the whole workspace"
    );
    eprintln!("SKIPPED: kickwheel-runner is not built; `cargo build -p kickwheel-runner` makes it");
    None
}

#[test]
fn run_executes_an_uncommitted_tree_shows_progress_and_tells_the_result() {
    let Some(runner) = runner() else { return };
    let data = folder();
    let project = folder();
    let file = project.path().join("count.yaml");
    fs::write(project.path().join("words.txt"), "one\ntwo\n").expect("written");
    fs::write(
        &file,
        "version: 1\nname: count\non: {manual: {}}\ninputs: {code: {type: integer, default: 0}}\nsteps:\n  count:\n    \
         env: {CODE: \"${{ inputs.code }}\"}\n    run: |\n      wc -l < \"$KICKWHEEL_SOURCE/words.txt\"\n      exit \"$CODE\"\n",
    )
    .expect("written");
    let file = file.to_str().expect("UTF-8");

    let execute = |args: &[&str]| {
        let args: Vec<&str> = ["run", file].into_iter().chain(args.iter().copied()).collect();
        let output = kickwheel(data.path(), &args).env("KICKWHEEL_RUNNER", &runner).output().expect("it starts");
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, text, errors) = execute(&[]);
    assert_eq!(code, Some(0), "{text}\n{errors}");
    assert!(text.contains("count succeeded") && text.contains("run succeeded"), "{text}");

    let (code, text, errors) = execute(&["--input", "code=3"]);
    assert_eq!(code, Some(1), "{text}\n{errors}");
    assert!(text.contains("│ 2") && text.contains('3') && text.contains("kickwheel logs"), "{text}");

    let (code, text, _) = execute(&["--input", "code=many"]);
    assert_ne!(code, Some(0), "{text}");
    let (code, text, _) = execute(&["--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["state"], "succeeded");
}
