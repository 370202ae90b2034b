//! Requests and what they become: our own fixtures, the recorded ones where they are at hand, and hostile ones.

mod cloudevents;
mod forges;
mod github;
mod hostile;
mod jira;
mod proofs;
mod recorded;
mod signatures;
mod stores;

use kickwheel_schemas::{CloudEvent, Millis};
use serde_json::Value;

use super::{Headers, Provider, Refusal, Secret, SourceConfig, Verification, translate};

/// 2026-01-02T03:04:15Z.
const NOW: Millis = Millis(1_767_323_055_000);

fn unverified() -> SourceConfig {
    SourceConfig::unverified(NOW)
}

fn with_secret(secret: &str) -> SourceConfig {
    let current = Secret::new(secret.as_bytes());
    SourceConfig { verification: Verification::Secret { current, previous: None, legacy_sha1: false }, ..unverified() }
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().copied().collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

/// The only event.
#[track_caller]
fn one(result: Result<Vec<CloudEvent>, Refusal>) -> CloudEvent {
    let mut events = result.unwrap_or_else(|refusal| panic!("failed to {refusal}"));
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

/// Status, code and whether it is kept.
#[track_caller]
fn refused(result: Result<Vec<CloudEvent>, Refusal>) -> (u16, &'static str, bool) {
    let refusal = result.expect_err("it is refused");
    assert!((400..500).contains(&refusal.status) && !refusal.reason.is_empty(), "{refusal:?}");
    (refusal.status, refusal.code, refusal.quarantine)
}

#[test]
fn providers_are_known_by_name() {
    for provider in Provider::ALL {
        assert_eq!(provider.name().parse::<Provider>(), Ok(provider));
    }
    let said = "svn".parse::<Provider>().expect_err("there is none").to_string();
    assert!(said.starts_with("know the provider \"svn\": there are github, gitlab, gitea"), "{said}");
}

#[test]
fn a_body_over_the_limit_is_not_looked_at() {
    let body = vec![b' '; super::MAX_BODY_BYTES + 1];
    let answer = refused(translate(Provider::Github, &unverified(), &Headers::default(), &body));
    assert_eq!(answer, (413, "body_too_large", false));
}

#[test]
fn headers_come_as_texts_or_lists_of_texts() {
    let from = |text: &str| Headers::from_json(&serde_json::from_str(text).expect("JSON"));
    let read = from(r#"{"X-A": " 1 ", "x-b": ["2", "3"]}"#).expect("headers");
    assert_eq!((read.get("x-a"), read.get("X-B"), read.get("x-c")), (Some("1"), Some("2"), None));
    assert!(read.only("x-b").is_err() && read.only("X-a") == Ok(Some("1")));
    for wrong in ["[]", r#"{"a": 1}"#, r#"{"a": [1]}"#, r#"{"a": null}"#] {
        assert!(from(wrong).is_err(), "{wrong}");
    }
}
