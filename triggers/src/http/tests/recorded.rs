//! What senders really sent, in a folder beside this repository: read where it lies, when it is there.

use std::{fs, path::PathBuf};

use kickwheel_schemas::{CloudEvent, Millis};
use serde_json::Value;

use super::{translate, unverified};
use crate::http::{
    Headers, Provider, Refusal, Secret, SourceConfig, Verification,
    signature::{verify_hub, verify_websub},
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

/// Who sends the deliveries of a file.
fn provider(file: &str) -> Provider {
    let name = match file.split_once('/').expect("a folder per sender") {
        ("derived", name) if name.starts_with("s3_") => "s3",
        ("derived", name) if name.starts_with("lakefs_") => "lakefs",
        ("derived", name) if name.starts_with("mlflow_") => "mlflow",
        (folder, _) => folder,
    };
    name.parse().unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn judge(root: &std::path::Path, file: &str, headers: &Headers) -> Result<Vec<CloudEvent>, Refusal> {
    let body = fs::read(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    translate(provider(file), &unverified(), headers, &body)
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
    let cases = cases.as_array().expect("a list");
    for case in cases {
        let input = &case["input"];
        let one = input["file"].as_str().map(|file| vec![file]);
        let files = one.unwrap_or_else(|| {
            input["files"].as_array().expect("files").iter().map(|file| file.as_str().expect("a name")).collect()
        });
        let given = if input["headers"].is_null() { Headers::default() } else { headers(&input["headers"]) };
        for given in [given, Headers::default()] {
            let events: Vec<CloudEvent> = files
                .iter()
                .flat_map(|file| judge(&root, file, &given).unwrap_or_else(|no| panic!("{file}: failed to {no}")))
                .collect();
            let expected = case["events"].as_array().expect("a list");
            assert_eq!(events.len(), expected.len(), "{files:?}: {events:?}");
            for (event, expected) in events.iter().zip(expected) {
                let mut expected = expected.clone();
                let suffix = expected.as_object_mut().expect("an event").remove("id_suffix");
                if let Some(suffix) = suffix {
                    assert!(event.id.ends_with(&format!("#{}", suffix.as_str().expect("a text"))), "{}", event.id);
                }
                contains(&serde_json::to_value(event).expect("JSON"), &expected, files[0]);
            }
        }
    }
    assert!(cases.len() >= 9, "{} cases", cases.len());
}

/// What each recorded delivery is, from its body alone: the types of its events.
const MEANINGS: &[(&str, &str)] = &[
    ("bitbucket-cloud/push.json", "git.branch.updated"),
    ("bitbucket-cloud/push_branch_create.json", "git.branch.created"),
    ("bitbucket-cloud/push_branch_delete.json", "git.branch.deleted"),
    ("bitbucket-cloud/push_recent.json", "git.branch.updated"),
    ("bitbucket-cloud/push_tag_create.json", "git.tag.created"),
    ("bitbucket-cloud/push_tag_delete.json", "git.tag.deleted"),
    ("bitbucket-cloud/push_without_changes.json", ""),
    ("bitbucket-dc/pr_merged.json", "git.pull_request.merged"),
    ("bitbucket-dc/push.json", "git.branch.updated"),
    ("bitbucket-dc/push_branch_create.json", "git.branch.created"),
    ("bitbucket-dc/push_branch_delete.json", "git.branch.deleted"),
    ("bitbucket-dc/push_tag_create.json", "git.tag.created"),
    ("bitbucket-dc/push_tag_delete.json", "git.tag.deleted"),
    ("derived/lakefs_post_merge.json", "dataset.version.published"),
    ("derived/mlflow_model_version_created.json", "org.mlflow.model_version.created"),
    ("derived/s3_eventbridge_object_created_raw_key.json", "dataset.object.created"),
    ("derived/s3_test_event.json", ""),
    ("forgejo/create_tag.json", "org.forgejo.create"),
    ("forgejo/push_branch_new_no_commits.json", "git.branch.created"),
    ("forgejo/push_multi_total_commits.json", "git.branch.updated"),
    ("gcs/StorageObjectData-complex.json", "dataset.object.created"),
    ("gitea/branch_create.json", "com.gitea.create"),
    ("gitea/branch_delete.json", "com.gitea.delete"),
    ("gitea/push_initial_before_zero.json", "git.branch.created"),
    ("gitea/push_old.json", "git.branch.updated"),
    ("gitea/tag_create.json", "com.gitea.create"),
    ("gitea/tag_delete.json", "com.gitea.delete"),
    ("github/ping.json", ""),
    ("github/pull_request_synchronize.json", "git.pull_request.updated"),
    ("github/push_branch_create_no_commits.json", "git.branch.created"),
    ("github/push_branch_delete.json", "git.branch.deleted"),
    ("github/push_force_remove_commits.json", "git.branch.updated"),
    ("github/push_simple.json", "git.branch.updated"),
    ("github/push_tag_on_branch_base_ref.json", "git.tag.created"),
    ("gitlab/branch_create.json", "git.branch.created"),
    ("gitlab/branch_delete.json", "git.branch.deleted"),
    ("gitlab/pull_request_merge.json", "git.pull_request.merged"),
    ("gitlab/system_hook_push.json", "git.branch.updated"),
    ("gitlab/tag_create.json", "git.tag.created"),
    ("gitlab/tag_delete.json", "git.tag.deleted"),
    ("gogs/push.json", "git.branch.updated"),
    ("huggingface/repo_content_pr_ref_created.json", "dataset.ref.created"),
    ("jira/cloud_assigned_empty_changelog.json", "jira.issue.updated"),
    ("jira/cloud_comment_created_with_reduced_issue.json", "jira.comment.created"),
    ("jira/cloud_comment_deleted.json", "jira.comment.deleted"),
    ("jira/cloud_issue_created.json", "jira.issue.created"),
    ("jira/cloud_issue_deleted.json", "jira.issue.deleted"),
    ("jira/cloud_labels_changed.json", "jira.issue.updated"),
    ("jira/cloud_reopened.json", "jira.issue.transitioned"),
    ("jira/cloud_resolution_only_no_status_item.json", "jira.issue.updated"),
    ("jira/dc_comment_created_no_issue.json", "jira.comment.created"),
    ("jira/dc_created_unicode_assignee_null.json", "jira.issue.created"),
    ("jira/dc_issue_commented.json", "jira.comment.created"),
    ("jira/dc_resolved.json", "jira.issue.transitioned"),
    ("jira/dc_status_reopened_to_inprogress.json", "jira.issue.transitioned"),
    ("jira/dc_worklog_deleted.json", "jira.issue.updated"),
    ("jira/workflow_postfunction_trigger_webhook.json", "jira.issue.transitioned"),
    ("lakefs/pre_merge_docs.json", ""),
    ("lakefs/pre_merge_hooks_readme.json", ""),
    ("minio/object_created_put.json", "dataset.object.created"),
    ("s3/object_created_put_slash_encoded.json", "dataset.object.created"),
    ("s3/object_removed_delete.json", "dataset.object.deleted"),
    ("s3/put_urlDecodedKey.json", "dataset.object.created"),
];

#[test]
fn every_recorded_delivery_is_understood_from_its_body_alone() {
    let Some(root) = folder() else { return };
    for (file, expected) in MEANINGS {
        let events = judge(&root, file, &Headers::default()).unwrap_or_else(|no| panic!("{file}: failed to {no}"));
        let types = events.iter().map(|event| event.ty.strip_prefix("dev.kickwheel.").unwrap_or(&event.ty));
        assert_eq!(types.collect::<Vec<_>>().join(", "), *expected, "{file}");
        assert!(events.iter().all(|event| event.subject.is_some()), "{file}: {events:?}");
    }
}

/// Those that are not in the table above are still answered, and none of them with a refusal but the two that are broken.
#[test]
fn no_recorded_delivery_is_refused_but_the_broken_ones() {
    let Some(root) = folder() else { return };
    let mut refused = Vec::new();
    let mut seen = 0;
    for folder in fs::read_dir(&root).expect("recorded deliveries") {
        let folder = folder.expect("an entry").path();
        let name = folder.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        if !folder.is_dir() || ["delta", "dvc", "git", "iceberg"].contains(&name.as_str()) {
            continue;
        }
        for file in fs::read_dir(&folder).expect("a folder") {
            let file = file.expect("an entry").file_name().into_string().expect("plain names");
            let file = format!("{name}/{file}");
            seen += 1;
            match judge(&root, &file, &Headers::default()) {
                Ok(events) => {
                    assert!(events.iter().all(|event| event.check().is_ok() && event.source.len() > 5), "{file}");
                }
                Err(no) => refused.push((file, no.status, no.code, no.quarantine)),
            }
        }
    }
    refused.sort();
    assert_eq!(
        refused,
        [
            ("jira/anomalous_no_webhookEvent.json".to_owned(), 400, "shape_invalid", true),
            ("jira/malformed_trailing_commas_comment_created.json".to_owned(), 400, "json_invalid", true),
        ]
    );
    assert!(seen > 90, "{seen} files");
}

/// Whose signature a vector shows, by its name.
fn signer(name: &str) -> Option<Provider> {
    let known = [
        ("github doc", None),
        ("jira cloud doc", None),
        ("github", Some(Provider::Github)),
        ("gitea", Some(Provider::Gitea)),
        ("forgejo", Some(Provider::Forgejo)),
        ("bitbucket cloud", Some(Provider::BitbucketCloud)),
        ("bitbucket dc", Some(Provider::BitbucketDc)),
        ("jira", Some(Provider::Jira)),
        ("gitlab", Some(Provider::Gitlab)),
        ("hugging face", Some(Provider::HuggingFace)),
        ("mlflow", Some(Provider::Mlflow)),
    ];
    known.iter().find(|(begin, _)| name.starts_with(begin)).unwrap_or_else(|| panic!("{name}: whose is it?")).1
}

#[test]
fn recorded_signatures_verify_and_no_other() {
    let Some(root) = folder() else { return };
    let mut seen = 0;
    for case in json(root.join("signatures.json")).as_array().expect("a list") {
        seen += 1;
        let name = case["name"].as_str().expect("a name");
        let body = match case["body_file"].as_str() {
            Some(file) => fs::read(root.join(file)).expect("a recorded body"),
            None => case["body"].as_str().expect("a body").as_bytes().to_vec(),
        };
        let given = headers(&case["headers"]);
        let now = Millis(case["now"].as_i64().unwrap_or(0) * 1000);
        let verify = |secret: &str, now: Millis| -> Result<(), Refusal> {
            let secret = Secret::new(secret);
            let Some(provider) = signer(name) else {
                // Published vectors, whose bodies are no deliveries.
                return if given.get("X-Hub-Signature-256").is_some() {
                    verify_hub("X-Hub-Signature-256", None, &[&secret], &given, &body)
                } else {
                    verify_websub("X-Hub-Signature", false, &[&secret], &given, &body)
                };
            };
            let verification = Verification::Secret { current: secret, previous: None, legacy_sha1: false };
            let config = SourceConfig { verification, ..SourceConfig::unverified(now) };
            let events = translate(provider, &config, &given, &body)?;
            assert!(!events.is_empty(), "{name}");
            Ok(())
        };
        let secret = case["secret"].as_str().expect("a secret");
        let accept = case["expect"].as_str().is_none_or(|expect| expect.starts_with("accept"));
        let verified = verify(secret, now);
        assert_eq!(verified.is_ok(), accept, "{name}: {verified:?}");
        for other in ["whsec_AAECAwQFBgcICQoLDA0ODw==", "another"] {
            let status = verify(other, now).map_err(|refusal| refusal.status);
            assert_eq!(status, Err(401), "{name} with another secret");
        }
        if case["now"].is_i64() {
            let code = verify(secret, now.plus(301_000)).map_err(|refusal| refusal.code);
            assert_eq!(code, Err("signature_expired"), "{name} five minutes later");
        }
    }
    assert!(seen >= 13, "{seen} vectors");
}
