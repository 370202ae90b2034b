//! Whatever is sent, the answer is events, nothing, or a refusal below 500.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{forges, jira, stores, translate, unverified, with_secret};
use crate::http::{Headers, MAX_EVENT_BYTES, Provider, answer};

/// A request: its provider, its headers, its body as JSON.
type Request = (Provider, Vec<(&'static str, &'static str)>, Value);

/// Good requests of every provider, from which bad ones are made.
fn seeds() -> Vec<Request> {
    let commit = "edc6a110dded0f00dc70ef2d210fdaef78f73ab5";
    let other = "c89d07313c450511948ae4deb81e645ce085f430";
    let repository = json!({"id": 1, "full_name": "acme/churn", "clone_url": "https://x/acme/churn.git",
        "default_branch": "main", "pushed_at": 1_767_323_055});
    let push = json!({"ref": "refs/heads/main", "before": commit, "after": other, "forced": false, "base_ref": null,
        "commits": [{"id": other, "message": "m", "author": {"name": "a"}, "added": ["x"], "removed": [], "modified": ["y"]}],
        "repository": repository, "pusher": {"name": "ada"}, "sender": {"login": "ada", "id": 7}});
    let side = |branch: &str, sha: &str| json!({"ref": branch, "sha": sha, "repo": repository});
    let request = json!({"action": "closed", "number": 7, "repository": repository, "sender": {"login": "ada", "id": 7},
        "pull_request": {"title": "t", "user": {"login": "a", "id": 1}, "merged": true, "merge_commit_sha": other,
            "updated_at": "2026-01-02T03:04:05Z", "draft": false, "head": side("x", other), "base": side("main", commit)}});
    let twin = json!({"ref": "x", "ref_type": "branch", "master_branch": "main", "repository": repository});
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "subject": "x",
        "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json", "ext": 1, "data": {"n": [1, 2]}});
    let binary = vec![
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
        ("content-type", "application/json"),
    ];
    let mut seeds = vec![
        (Provider::Github, vec![("X-GitHub-Event", "push")], push.clone()),
        (Provider::Github, vec![], push),
        (Provider::Github, vec![("X-GitHub-Event", "pull_request")], request),
        (Provider::Github, vec![("X-GitHub-Event", "create")], twin.clone()),
        (Provider::Gitea, vec![("X-Gitea-Event", "delete")], twin),
        (Provider::CloudEvents, vec![("content-type", "application/cloudevents+json")], event.clone()),
        (Provider::CloudEvents, vec![("content-type", "application/cloudevents-batch+json")], json!([event, event])),
        (Provider::CloudEvents, binary, json!({"n": 1})),
        (
            Provider::StandardWebhooks,
            vec![("webhook-id", "m")],
            json!({"type": "a.b", "timestamp": "x", "data": {"n": 1}}),
        ),
        (Provider::Jira, vec![("X-Atlassian-Webhook-Identifier", "w")], jira_issue()),
        (Provider::Jira, vec![], jira::comment("comment_updated")),
        (
            Provider::Jira,
            vec![],
            json!({"issue": jira_issue()["issue"], "transition": {"from_status": "a", "to_status": "b"}}),
        ),
        (
            Provider::S3,
            vec![],
            json!({"Records": [stores::record("ObjectCreated:Put", "a%2Fb", Some(1)), stores::record("ObjectRemoved:Delete", "a", None)]}),
        ),
        (
            Provider::S3,
            vec![],
            json!({"Records": [{"messageId": "m", "body": json!({"Records": [stores::record("ObjectCreated:Put", "a", Some(1))]}).to_string()}]}),
        ),
        (
            Provider::S3,
            vec![],
            json!({"id": "e", "detail-type": "Object Created", "source": "aws.s3", "time": "2026-01-02T03:04:05Z",
            "detail": {"bucket": {"name": "raw"}, "object": {"key": "a", "size": 1, "etag": "b", "sequencer": "c"}}}),
        ),
        (
            Provider::Minio,
            vec![],
            json!({"EventName": "s3:ObjectCreated:Put", "Key": "raw/a", "Records": [stores::record("s3:ObjectCreated:Put", "a", None)]}),
        ),
        (Provider::Gcs, vec![], stores::pubsub("OBJECT_FINALIZE", &json!({}))),
        (
            Provider::Gcs,
            vec![],
            json!({"kind": "storage#object", "bucket": "raw", "name": "a", "size": "1", "generation": "2", "updated": "2026-01-02T03:04:05Z"}),
        ),
        (Provider::Azure, vec![], json!([stores::blob("Microsoft.Storage.BlobCreated", "PutBlob")])),
        (
            Provider::Azure,
            vec![],
            json!([{"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c"}}]),
        ),
        (Provider::LakeFs, vec![], stores::lakefs("post-commit")),
        (Provider::LakeFs, vec![], stores::lakefs("post-create-tag")),
        (
            Provider::HuggingFace,
            vec![],
            stores::hub(
                "repo.content",
                &json!([{"ref": "refs/heads/main", "oldSha": "a", "newSha": "b"}, {"ref": "refs/pr/1", "oldSha": null, "newSha": "b"}]),
            ),
        ),
        (
            Provider::Mlflow,
            vec![],
            json!({"entity": "model_version", "action": "created", "timestamp": "2026-01-02T03:04:05Z", "data": {"name": "n"}}),
        ),
        (Provider::Generic, vec![("content-type", "application/json")], json!({"any": [1, {"thing": null}]})),
    ];
    for forge in forges::FORGES {
        seeds.push((forge, vec![], forges::push(forge, commit, other, "refs/heads/main")));
        seeds.push((forge, vec![], forges::pull_request(forge, true)));
    }
    seeds
}

fn jira_issue() -> Value {
    jira::issue(&json!([
        {"field": "status", "fieldtype": "jira", "fieldId": "status", "from": "1", "fromString": "a", "to": "2", "toString": "b"},
        {"field": "labels", "fieldtype": "jira", "fromString": "a b", "toString": "b c"},
        {"field": "Key", "fieldtype": "jira", "fromString": "A-1", "toString": "B-1"},
    ]))
}

/// What a value is replaced by.
fn intruder() -> impl Strategy<Value = Value> {
    let nested = |depth: usize| {
        (0..depth).fold(json!("x"), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
    };
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        ".{0,20}".prop_map(|text| json!(text)),
        Just(json!("\u{0}\u{1f}\r\n")),
        Just(json!("0".repeat(40))),
        Just(json!("x".repeat(700_000))),
        Just(json!("dev.kickwheel.git.branch.updated")),
        (1..120_usize).prop_map(nested),
        Just((0..2100).map(|n| json!({"id": n})).collect::<Value>()),
    ]
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                places(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn check(provider: Provider, headers: &Headers, body: &[u8]) -> Result<(), TestCaseError> {
    for config in [unverified(), with_secret("whsec_AAECAwQFBgcICQoLDA0ODw==")] {
        if let Err(refusal) = answer(provider, &config, headers, body) {
            prop_assert!((400..500).contains(&refusal.status), "{:?}", refusal);
        }
        match translate(provider, &config, headers, body) {
            Ok(events) => {
                for event in events {
                    let size = serde_json::to_vec(&event).expect("an event is JSON").len();
                    prop_assert!(event.check().is_ok() && size <= MAX_EVENT_BYTES, "{:?}", event);
                    let stored = serde_json::to_string(&event).expect("JSON");
                    prop_assert_eq!(serde_json::from_str::<kickwheel_schemas::CloudEvent>(&stored).ok(), Some(event));
                }
            }
            Err(refusal) => {
                prop_assert!((400..500).contains(&refusal.status), "{:?}", refusal);
                prop_assert!(!refusal.reason.is_empty() && refusal.reason.len() < 1000, "{:?}", refusal);
                prop_assert!(refusal.status != 401 || !refusal.quarantine, "what proved nothing is not kept");
            }
        }
    }
    Ok(())
}

fn pick(seed: prop::sample::Index) -> Request {
    let mut seeds = seeds();
    let at = seed.index(seeds.len());
    seeds.swap_remove(at)
}

/// Every place of every good request is replaced by each of these, and left away: what a fuzzer meets by chance only.
#[test]
fn each_place_of_each_request_may_hold_anything() {
    let deep = (0..70).fold(json!("x"), |inner, _| json!([inner]));
    let intruders = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!("\u{0}\r\n"),
        json!("0".repeat(40)),
        json!("refs/heads/x"),
        json!("x".repeat(3_000)),
        json!([]),
        json!([5]),
        json!([[{}]]),
        json!({}),
        json!({"a": {"b": []}}),
        deep,
    ];
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (provider, given, payload) in seeds() {
        let given: Headers = given.into_iter().collect();
        let mut all = Vec::new();
        places(&payload, "", &mut all);
        for at in &all {
            for intruder in intruders.iter().map(Some).chain([None]) {
                let mut hostile = payload.clone();
                match intruder {
                    Some(value) => *hostile.pointer_mut(at).expect("the place is there") = value.clone(),
                    None => remove(&mut hostile, at),
                }
                check(provider, &given, hostile.to_string().as_bytes())
                    .unwrap_or_else(|e| panic!("{provider} {at}: {e}"));
                *counts.entry(provider.name()).or_default() += 1;
            }
        }
        let whole = payload.to_string().into_bytes();
        for length in (0..whole.len()).step_by((whole.len() / 60).max(1)) {
            check(provider, &given, &whole[..length]).unwrap_or_else(|e| panic!("{provider} cut at {length}: {e}"));
            let mut odd = whole.clone();
            odd[length] = 0xff;
            check(provider, &given, &odd).unwrap_or_else(|e| panic!("{provider} no UTF-8 at {length}: {e}"));
            *counts.entry(provider.name()).or_default() += 2;
        }
    }
    assert_eq!(counts.len(), Provider::ALL.len());
    assert!(counts.values().all(|count| *count >= 100), "{counts:?}");
}

fn remove(payload: &mut Value, at: &str) {
    let (parent, name) = at.rsplit_once('/').unwrap_or(("", ""));
    match payload.pointer_mut(parent) {
        Some(Value::Object(members)) => drop(members.remove(name)),
        Some(Value::Array(items)) => {
            if let Some(index) = name.parse::<usize>().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_payload_with_foreign_values_is_answered(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(intruder())), 1..4),
    ) {
        let (provider, headers, mut payload) = pick(seed);
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&payload, "", &mut all);
            let at = &all[place.index(all.len())];
            match value {
                Some(value) => *payload.pointer_mut(at).expect("the place is there") = value,
                None => remove(&mut payload, at),
            }
        }
        check(provider, &headers.into_iter().collect(), payload.to_string().as_bytes())?;
    }

    #[test]
    fn a_damaged_body_is_answered(
        seed in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (provider, headers, payload) = pick(seed);
        let mut body = payload.to_string().into_bytes();
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len() * 2));
        check(provider, &headers.into_iter().collect(), &body)?;
    }

    #[test]
    fn any_headers_with_any_body_are_answered(
        seed in any::<prop::sample::Index>(),
        extra in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "content-type", "x-github-event", "x-github-delivery", "x-hub-signature-256", "ce-id", "ce-type", "ce-time",
                    "ce-subject", "webhook-id", "webhook-timestamp", "webhook-signature", "authorization", "ce-", "c",
                    "x-webhook-secret", "x-gitea-event", "x-gitlab-token", "x-event-key", "x-gitea-signature", "x-hub-signature",
                    "x-request-id", "idempotency-key", "x-atlassian-webhook-identifier", "eventType", "x-mlflow-signature",
                ]),
                prop_oneof!["\\PC{0,40}", Just("v1,AAAA".to_owned()), Just("9999999999999999999".to_owned()), Just("a\r\nb: c".to_owned())],
            ),
            0..6,
        ),
        noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
    ) {
        let (provider, headers, payload) = pick(seed);
        let headers = headers.into_iter().map(|(n, v)| (n, v.to_owned())).chain(extra).collect();
        check(provider, &headers, &noise.unwrap_or_else(|| payload.to_string().into_bytes()))?;
    }
}
