//! Whatever is sent, the answer is events, nothing, or a refusal below 500.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{translate, unverified, with_secret};
use crate::http::{Headers, MAX_EVENT_BYTES, Provider};

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
    vec![
        (Provider::Github, vec![("X-GitHub-Event", "push")], push.clone()),
        (Provider::Github, vec![], push),
        (Provider::Github, vec![("X-GitHub-Event", "pull_request")], request),
        (Provider::Github, vec![("X-GitHub-Event", "create")], twin),
        (Provider::CloudEvents, vec![("content-type", "application/cloudevents+json")], event.clone()),
        (Provider::CloudEvents, vec![("content-type", "application/cloudevents-batch+json")], json!([event, event])),
        (Provider::CloudEvents, binary, json!({"n": 1})),
        (
            Provider::StandardWebhooks,
            vec![("webhook-id", "m")],
            json!({"type": "a.b", "timestamp": "x", "data": {"n": 1}}),
        ),
    ]
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_payload_with_foreign_values_is_answered(
        seed in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(intruder())), 1..4),
    ) {
        let (provider, headers, mut payload) = seeds().swap_remove(seed);
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&payload, "", &mut all);
            let at = &all[place.index(all.len())];
            match value {
                Some(value) => *payload.pointer_mut(at).expect("the place is there") = value,
                None => {
                    let (parent, name) = at.rsplit_once('/').unwrap_or(("", ""));
                    if let Some(Value::Object(members)) = payload.pointer_mut(parent) {
                        members.remove(name);
                    }
                }
            }
        }
        check(provider, &headers.into_iter().collect(), payload.to_string().as_bytes())?;
    }

    #[test]
    fn a_damaged_body_is_answered(
        seed in 0..8_usize,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (provider, headers, payload) = seeds().swap_remove(seed);
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
        seed in 0..8_usize,
        extra in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "content-type", "x-github-event", "x-github-delivery", "x-hub-signature-256", "ce-id", "ce-type", "ce-time",
                    "ce-subject", "webhook-id", "webhook-timestamp", "webhook-signature", "authorization", "ce-", "c",
                ]),
                prop_oneof!["\\PC{0,40}", Just("v1,AAAA".to_owned()), Just("9999999999999999999".to_owned()), Just("a\r\nb: c".to_owned())],
            ),
            0..6,
        ),
        noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
    ) {
        let (provider, headers, payload) = seeds().swap_remove(seed);
        let headers = headers.into_iter().map(|(n, v)| (n, v.to_owned())).chain(extra).collect();
        check(provider, &headers, &noise.unwrap_or_else(|| payload.to_string().into_bytes()))?;
    }
}
