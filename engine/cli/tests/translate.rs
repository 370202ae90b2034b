//! `triggers translate`, as a shell sees it: JSON lines and 0, or the reason with its HTTP status and 1.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn translate(folder: &Path, provider: &str, headers: Option<&Value>, body: &[u8], more: &[&str]) -> Output {
    let (head, file) = (folder.join("headers.json"), folder.join("body"));
    fs::write(&file, body).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kickwheel"));
    // Neither a server nor a data folder is there, and none is made.
    command.env_clear().env("HOME", folder.join("home")).stdin(Stdio::null());
    command.args(["triggers", "translate", "--provider", provider, "--body"]).arg(&file);
    if let Some(headers) = headers {
        fs::write(&head, headers.to_string()).expect("written");
        command.arg("--headers").arg(&head);
    }
    let output = command.args(more).output().expect("the binary starts");
    assert!(!folder.join("home").exists(), "nothing is left behind");
    output
}

/// Exit code, lines on stdout, text on stderr.
fn seen(output: &Output) -> (Option<i32>, Vec<Value>, String) {
    let stdout = String::from_utf8(output.stdout.clone()).expect("text");
    let lines = stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr.clone()).expect("text"))
}

fn push() -> Vec<u8> {
    json!({
        "ref": "refs/heads/main", "before": "1".repeat(40), "after": "0".repeat(40), "commits": [],
        "repository": {"full_name": "acme/churn", "clone_url": "https://github.com/acme/churn.git"},
        "pusher": {"name": "ada"},
    })
    .to_string()
    .into_bytes()
}

#[test]
fn an_understood_request_prints_its_events() {
    let folder = tempfile::tempdir().expect("a folder");
    for headers in [None, Some(json!({})), Some(json!({"X-GitHub-Event": "push"}))] {
        let (code, lines, stderr) = seen(&translate(folder.path(), "github", headers.as_ref(), &push(), &[]));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let [event] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(event["type"], "dev.kickwheel.git.branch.deleted");
        assert_eq!(event["data"]["changed_paths"], json!([]));
    }
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b"});
    let batch = json!([event, event]).to_string();
    let (code, lines, _) = seen(&translate(folder.path(), "cloudevents", None, batch.as_bytes(), &[]));
    assert_eq!((code, lines.len()), (Some(0), 2));
}

#[test]
fn a_delivery_without_meaning_prints_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let ping = json!({"X-GitHub-Event": "ping"});
    let (code, lines, stderr) = seen(&translate(folder.path(), "github", Some(&ping), b"{\"zen\": \"x\"}", &[]));
    assert_eq!((code, lines, stderr.as_str()), (Some(0), vec![], ""));
}

#[test]
fn a_refused_request_tells_the_status_and_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |provider: &str, headers: Option<Value>, body: &[u8], more: &[&str], expected: &[&str]| {
        let (code, lines, stderr) = seen(&translate(folder.path(), provider, headers.as_ref(), body, more));
        assert_eq!((code, lines), (Some(1), vec![]), "{stderr}");
        assert!(expected.iter().all(|text| stderr.contains(text)), "{stderr}");
    };
    check("github", None, &push(), &["--secret", "s"], &["HTTP 401", "signature_missing"]);
    let wrong = json!({"X-Hub-Signature-256": format!("sha256={}", "0".repeat(64))});
    check("github", Some(wrong), &push(), &["--secret", "s"], &["HTTP 401", "signature_wrong"]);
    check("github", None, b"{", &[], &["HTTP 400", "json_invalid"]);
    check("cloudevents", Some(json!({"content-type": "text/plain"})), b"x", &[], &["HTTP 415", "media_type"]);
    check("github", None, &push(), &["--secret", "s", "--json"], &["\"code\":\"signature_missing\""]);
}

#[test]
fn every_provider_is_tried_and_each_of_its_events_is_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let change = |name: &str| json!({"ref": {"id": name}, "fromHash": "1".repeat(40), "toHash": "2".repeat(40)});
    let two = json!({
        "eventKey": "repo:refs_changed", "repository": {"slug": "churn", "project": {"key": "ACME"}},
        "changes": [change("refs/heads/a"), change("refs/tags/b")],
    });
    let headers = json!({"X-Request-Id": "R"});
    let printed = translate(folder.path(), "bitbucket-dc", Some(&headers), two.to_string().as_bytes(), &[]);
    let (code, lines, _) = seen(&printed);
    let ids: Vec<&Value> = lines.iter().map(|event| &event["id"]).collect();
    assert_eq!((code, ids), (Some(0), vec![&json!("R#0"), &json!("R#1")]));
    for provider in [
        "github",
        "gitlab",
        "gitea",
        "forgejo",
        "gogs",
        "bitbucket-cloud",
        "bitbucket-dc",
        "s3",
        "minio",
        "gcs",
        "lakefs",
        "huggingface",
        "mlflow",
        "standard-webhooks",
    ] {
        let (code, lines, stderr) = seen(&translate(folder.path(), provider, None, b"{}", &[]));
        assert_eq!((code, lines, stderr.as_str()), (Some(0), vec![], ""), "{provider}: it means nothing");
        let (code, _, stderr) = seen(&translate(folder.path(), provider, None, b"{}", &["--secret", "s"]));
        assert_eq!(code, Some(1), "{provider}");
        assert!(stderr.contains("HTTP 401") && stderr.contains("signature_missing"), "{provider}: {stderr}");
    }
    for provider in ["jira", "azure"] {
        let (code, _, stderr) = seen(&translate(folder.path(), provider, None, b"{}", &[]));
        assert!(code == Some(1) && stderr.contains("HTTP 400") && stderr.contains("shape_invalid"), "{stderr}");
    }
    let (code, lines, _) = seen(&translate(folder.path(), "generic", None, b"{\"a\": 1}", &[]));
    assert_eq!((code, lines.len()), (Some(0), 1));
}

#[test]
fn a_secret_may_be_in_the_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |query: &str| {
        let more = ["--secret", "s", "--query", query];
        seen(&translate(folder.path(), "lakefs", None, b"{}", &more)).0
    };
    assert_eq!((with("secret=s"), with("secret=t")), (Some(0), Some(1)));
}

#[test]
fn a_wrong_command_line_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    for (provider, headers) in [("svn", None), ("GitHub", None), ("github", Some(json!([])))] {
        let (code, lines, stderr) = seen(&translate(folder.path(), provider, headers.as_ref(), b"{}", &[]));
        assert_eq!((code, lines), (Some(2), vec![]), "{stderr}");
    }
}
