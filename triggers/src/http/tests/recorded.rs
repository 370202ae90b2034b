//! Real deliveries and published signatures, kept outside this repository: read where they lie, when they are there.

use std::{fs, path::PathBuf};

use kickwheel_schemas::{CloudEvent, Millis};
use serde_json::Value;

use super::{translate, unverified};
use crate::http::{
    Headers, Provider, Secret, SourceConfig, Verification,
    signature::{KeyForm, STANDARD_HEADERS, StandardHeaders, verify_hub, verify_standard},
};

/// The folder of recorded deliveries: as named by the environment, else beside the clone.
fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("KICKWHEEL_PAYLOADS").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/payloads");
    let found = named.or_else(|| beside.is_dir().then_some(beside));
    if found.is_none() {
        eprintln!(
            "SKIPPED: set KICKWHEEL_PAYLOADS to the folder of recorded deliveries to read what senders really send"
        );
    }
    found
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).expect("JSON")
}

fn headers(case: &Value) -> Headers {
    Headers::from_json(case).expect("headers")
}

/// Every member that is expected is there with that value; others may be there as well.
#[track_caller]
fn contains(actual: &Value, expected: &Value, at: &str) {
    match expected {
        Value::Object(members) => {
            for (name, expected) in members {
                contains(&actual[name], expected, &format!("{at}.{name}"));
            }
        }
        _ => assert_eq!(actual, expected, "{at}"),
    }
}

#[test]
fn the_expected_outcomes_of_recorded_deliveries() {
    let Some(root) = folder() else { return };
    let cases = json(root.join("expected.json"));
    let mut seen = 0;
    for case in cases.as_array().expect("a list") {
        let Some(file) = case["input"]["file"].as_str().filter(|file| file.starts_with("github/")) else { continue };
        let body = fs::read(root.join(file)).expect("a recorded delivery");
        let given = headers(&case["input"]["headers"]);
        for given in [given, Headers::default()] {
            let events = translate(Provider::Github, &unverified(), &given, &body).expect("it is taken");
            let expected = case["events"].as_array().expect("a list");
            assert_eq!(events.len(), expected.len(), "{file}");
            for (event, expected) in events.iter().zip(expected) {
                contains(&serde_json::to_value(event).expect("JSON"), expected, file);
            }
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen} cases of GitHub");
}

/// What each recorded delivery of GitHub is, from its body alone.
#[test]
fn every_recorded_delivery_of_github_is_understood() {
    let Some(root) = folder() else { return };
    let outline = |event: &CloudEvent| {
        let ty = event.ty.strip_prefix("dev.kickwheel.git.").unwrap_or(&event.ty);
        format!("{ty} {} {}", event.subject.as_deref().unwrap_or("-"), event.data["repo"].as_str().unwrap_or("-"))
    };
    let expected = |name: &str| match name {
        "ping" => Some(""),
        "pull_request_synchronize" => Some("pull_request.updated refs/pull/2/head Codertocat/Hello-World"),
        "push_branch_create_no_commits" => Some("branch.created refs/heads/feature-branch bradrydzewski/drone-test-go"),
        "push_branch_delete" => Some("branch.deleted refs/heads/feature-branch bradrydzewski/drone-test-go"),
        "push_force_remove_commits" => Some("branch.updated refs/heads/temp sbansal1999/zulip"),
        "push_forced_1_commit" => Some("branch.updated refs/heads/main 6543/oxiduct"),
        "push_simple" => Some("branch.updated refs/heads/master Codertocat/Hello-World"),
        "push_tag_on_branch_base_ref" => Some("tag.created refs/tags/the-tag-v1 6543/test_ci_tmp"),
        _ => None,
    };
    let mut named = 0;
    for file in fs::read_dir(root.join("github")).expect("recorded deliveries") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("plain names").to_owned();
        let body = fs::read(&path).expect("a recorded delivery");
        let events = translate(Provider::Github, &unverified(), &Headers::default(), &body);
        let events = events.unwrap_or_else(|refusal| panic!("{name}: failed to {refusal}"));
        let outlines: Vec<String> = events.iter().map(outline).collect();
        if let Some(expected) = expected(&name) {
            assert_eq!(outlines.join(", "), expected, "{name}");
            named += 1;
        }
        assert!(events.iter().all(|event| event.source.starts_with("https://github.com/")), "{name}: {events:?}");
    }
    assert_eq!(named, 8, "all that are in the table");
}

#[test]
fn recorded_signatures_verify_and_no_other() {
    let Some(root) = folder() else { return };
    let mut seen = Vec::new();
    for case in json(root.join("signatures.json")).as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        let body = match case["body_file"].as_str() {
            Some(file) => fs::read(root.join(file)).expect("a recorded body"),
            None => case["body"].as_str().expect("a body").as_bytes().to_vec(),
        };
        let secret = Secret::new(case["secret"].as_str().expect("a secret"));
        let given = headers(&case["headers"]);
        let now = Millis(case["now"].as_i64().unwrap_or(0) * 1000);
        let mlflow = StandardHeaders {
            id: "x-mlflow-delivery-id",
            timestamp: "x-mlflow-timestamp",
            signature: "x-mlflow-signature",
        };
        let verify = |secret: &Secret, now: Millis| match name {
            "github doc vector" | "github" | "gitea" | "forgejo" | "gitea without secret" => {
                Some(verify_hub("X-Hub-Signature-256", None, &[secret], &given, &body))
            }
            "jira cloud doc vector" | "bitbucket cloud" | "bitbucket dc" | "jira cloud admin webhook" => {
                Some(verify_hub("X-Hub-Signature", None, &[secret], &given, &body))
            }
            "gitlab signing token (Standard Webhooks)" => {
                Some(verify_standard(STANDARD_HEADERS, KeyForm::Encoded, &[secret], &given, &body, now))
            }
            "mlflow" => Some(verify_standard(mlflow, KeyForm::Raw, &[secret], &given, &body, now)),
            _ => None,
        };
        let Some(verified) = verify(&secret, now) else { continue };
        let accept = case["expect"].as_str().is_none_or(|expect| expect.starts_with("accept"));
        assert_eq!(verified.is_ok(), accept, "{name}: {verified:?}");
        let other = Secret::new("whsec_AAECAwQFBgcICQoLDA0ODw==");
        assert!(verify(&other, now).expect("the same case").is_err(), "{name} with another secret");
        if case["now"].is_i64() {
            assert!(verify(&secret, now.plus(301_000)).expect("the same case").is_err(), "{name} five minutes later");
        }
        if name == "github" {
            let verification = Verification::Secret { current: secret, previous: None, legacy_sha1: false };
            let config = SourceConfig { verification, ..unverified() };
            let events = translate(Provider::Github, &config, &given, &body).expect("it is taken");
            assert_eq!(events[0].id, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
        }
        seen.push(name.to_owned());
    }
    assert!(seen.len() >= 10, "{seen:?}");
}
