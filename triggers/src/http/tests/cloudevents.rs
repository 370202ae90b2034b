//! CloudEvents over HTTP and Standard Webhooks.

use kickwheel_schemas::CloudEvent;
use serde_json::{Value, json};

use super::{bytes, headers, one, refused, translate, unverified, with_secret};
use crate::http::{
    Headers,
    Provider::{CloudEvents, StandardWebhooks},
    Refusal, SourceConfig,
    cloudevents::handshake::{Granted, handshake},
};

fn structured(media_type: &str, value: &Value) -> Result<Vec<CloudEvent>, Refusal> {
    translate(CloudEvents, &unverified(), &headers(&[("Content-Type", media_type)]), &bytes(value))
}

fn sample() -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.order", "subject": "o1",
        "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json", "tenant": "a", "data": {"n": 1}})
}

const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";

#[test]
fn a_structured_event_comes_through_as_it_is() {
    let event = one(structured(STRUCTURED, &sample()));
    assert_eq!(serde_json::to_value(&event).expect("JSON"), sample());
    let by_shape = translate(CloudEvents, &unverified(), &Headers::default(), &bytes(&sample()));
    assert_eq!(by_shape, Ok(vec![event]));
}

#[test]
fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let batch = "application/cloudevents-batch+json";
    let mut second = sample();
    second["id"] = json!("2");
    let ids = |events: Vec<CloudEvent>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
    assert_eq!(structured(batch, &json!([sample(), second])).map(ids), Ok(vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(structured(batch, &json!([])), Ok(vec![]));
    assert_eq!(translate(CloudEvents, &unverified(), &Headers::default(), b"[]"), Ok(vec![]));
    let refusal = structured(batch, &json!([sample(), {"id": "2"}])).expect_err("the second is none");
    assert!(refusal.reason.starts_with("event 1 of the batch: "), "{}", refusal.reason);
    assert_eq!(refused(structured(batch, &sample())), (400, "event_invalid", true));
    let many: Vec<Value> = (0..1001).map(|_| sample()).collect();
    assert_eq!(refused(structured(batch, &json!(many))), (413, "body_too_large", false));
}

fn binary(pairs: &[(&str, &str)], body: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    let base = [("ce-specversion", "1.0"), ("CE-ID", "1"), ("ce-source", "/shop"), ("ce-type", "com.example.order")];
    translate(CloudEvents, &unverified(), &base.iter().chain(pairs).copied().collect(), body)
}

#[test]
fn a_binary_event_has_its_attributes_in_headers() {
    let event = one(binary(
        &[
            ("content-type", "application/json"),
            ("ce-subject", "caf%C3%A9 %2525"),
            ("ce-tenant", "a"),
            ("traceparent", "00-x"),
        ],
        b"{\"n\": 1}",
    ));
    assert_eq!(event.subject.as_deref(), Some("caf\u{e9} %25"));
    assert_eq!((event.data, event.extensions["tenant"].clone()), (json!({"n": 1}), json!("a")));
    assert_eq!(event.traceparent.as_deref(), Some("00-x"));
    assert_eq!(one(binary(&[("content-type", "text/plain")], b"hello")).data, json!("hello"));
    assert_eq!(one(binary(&[], b"")).data, Value::Null);
    assert_eq!(one(binary(&[], b"{\"n\": 1}")).data, json!({"n": 1}));
    let raw = one(binary(&[("content-type", "application/octet-stream")], b"\xff\x00"));
    assert_eq!((raw.data, raw.extensions["data_base64"].clone()), (Value::Null, json!("/wA=")));
    for (pairs, body) in [
        (vec![("content-type", "application/json")], &b"{"[..]),
        (vec![("ce-id", "2")], b"{}"),
        (vec![("ce-subject", "%ff")], b"{}"),
        (vec![("ce-subject", "a%00b")], b"{}"),
        (vec![("ce-tenant", "%0a")], b"{}"),
        (vec![("ce-data", "x")], b"{}"),
        (vec![("ce-t\u{fc}", "x")], b"{}"),
        (vec![("ce-time", "yesterday")], b"{}"),
    ] {
        let (status, _, kept) = refused(binary(&pairs, body));
        assert!(status == 400 && kept, "{pairs:?}");
    }
    let missing = translate(CloudEvents, &unverified(), &headers(&[("ce-id", "1")]), b"");
    assert_eq!(refused(missing), (400, "event_invalid", true));
}

#[test]
fn data_in_base64_is_unpacked_where_it_is_json() {
    let mut event = sample();
    event.as_object_mut().expect("an object").remove("data");
    event["data_base64"] = json!("eyJuIjogMX0=");
    assert_eq!(one(structured(STRUCTURED, &event)).data, json!({"n": 1}));
    event["datacontenttype"] = json!("image/png");
    assert_eq!(one(structured(STRUCTURED, &event)).extensions["data_base64"], json!("eyJuIjogMX0="));
    event["data"] = json!(1);
    assert_eq!(refused(structured(STRUCTURED, &event)), (400, "event_invalid", true));
}

#[test]
fn what_is_no_event_is_refused_and_kept() {
    let check = |name: &str, value: Value| {
        let mut event = sample();
        event[name] = value;
        assert_eq!(refused(structured(STRUCTURED, &event)), (400, "event_invalid", true), "{name}");
    };
    check("specversion", json!("0.3"));
    check("specversion", Value::Null);
    check("id", json!(5));
    check("id", json!(""));
    check("id", json!("a\u{0}b"));
    check("source", json!("x".repeat(3000)));
    check("subject", json!("x".repeat(3000)));
    check("subject", json!(5));
    check("time", json!("2026-13-01T00:00:00Z"));
    check("nested", json!({"a": 1}));
    check("with space", json!("x"));
    let mut null = sample();
    null["subject"] = Value::Null;
    assert_eq!(one(structured(STRUCTURED, &null)).subject, None, "null is absent");
    let mut large = sample();
    large["data"] = json!("x".repeat(600_000));
    assert_eq!(refused(structured(STRUCTURED, &large)), (413, "event_too_large", false));
}

#[test]
fn our_own_types_cannot_be_sent() {
    let mut event = sample();
    event["type"] = json!("dev.kickwheel.git.branch.updated");
    assert_eq!(refused(structured(STRUCTURED, &event)), (403, "type_reserved", false));
    assert_eq!(refused(structured("application/cloudevents-batch+json", &json!([sample(), event]))).0, 403);
    let standard = json!({"type": "dev.kickwheel.run.finished", "data": {}});
    let answer = translate(StandardWebhooks, &unverified(), &Headers::default(), &bytes(&standard));
    assert_eq!(refused(answer), (403, "type_reserved", false));
}

#[test]
fn other_media_types_are_not_understood() {
    for media_type in [
        "text/plain",
        "application/json",
        "application/cloudevents+avro",
        "application/cloudevents-batch+avro",
        "application/cloudevents+json; charset=utf-16",
    ] {
        assert_eq!(refused(structured(media_type, &sample())), (415, "media_type", false), "{media_type}");
    }
}

#[test]
fn a_sender_of_cloudevents_may_show_a_token() {
    let send = |pairs: &[(&str, &str)]| {
        let all = pairs.iter().copied().chain([("content-type", STRUCTURED)]).collect();
        translate(CloudEvents, &with_secret("s3cret"), &all, &bytes(&sample()))
    };
    one(send(&[("authorization", "bearer s3cret")]));
    assert_eq!(refused(send(&[])), (401, "signature_missing", false));
    assert_eq!(refused(send(&[("authorization", "Basic s3cret")])), (401, "signature_missing", false));
    assert_eq!(refused(send(&[("authorization", "Bearer s3cre")])), (401, "signature_wrong", false));
    let both = [("authorization", "Bearer s3cret"), ("webhook-signature", "v1,AAAA")];
    assert_eq!(refused(send(&both)).0, 401, "a signature that is there is never passed over");
}

#[test]
fn the_handshake_grants_what_was_asked_for_within_the_limit() {
    let ask = |pairs: &[(&str, &str)], limit| handshake(&headers(pairs), limit);
    let origin = ("WebHook-Request-Origin", "eventemitter.example.com");
    let granted = |rate| Ok(Granted { origin: origin.1.to_owned(), rate });
    assert_eq!(ask(&[origin], None), granted(None));
    assert_eq!(ask(&[origin], Some(100)), granted(Some(100)));
    assert_eq!(ask(&[origin, ("webhook-request-rate", "120")], Some(100)), granted(Some(100)));
    assert_eq!(ask(&[origin, ("webhook-request-rate", "60")], Some(100)), granted(Some(60)));
    assert_eq!(ask(&[origin, ("webhook-request-rate", "*")], None), granted(None));
    let answer = ask(&[origin], None).expect("granted").headers();
    assert_eq!(
        answer.map(|(name, value)| format!("{name}: {value}")),
        ["Allow: POST", "WebHook-Allowed-Origin: eventemitter.example.com", "WebHook-Allowed-Rate: *"]
    );
    for pairs in [
        &[][..],
        &[("webhook-request-origin", "")],
        &[("webhook-request-origin", "a\r\nSet-Cookie: x")],
        &[origin, origin],
        &[origin, ("webhook-request-rate", "0")],
        &[origin, ("webhook-request-rate", "many")],
    ] {
        let refusal = ask(pairs, None).expect_err("refused");
        assert_eq!((refusal.status, refusal.code), (400, "handshake_invalid"), "{pairs:?}");
    }
}

#[test]
fn a_standard_webhook_is_an_event_of_its_type() {
    let body = bytes(&json!({"type": "invoice.paid", "timestamp": "2026-01-02T03:04:05Z", "data": {"n": 1}}));
    let send =
        |config: &SourceConfig| one(translate(StandardWebhooks, config, &headers(&[("webhook-id", "msg_1")]), &body));
    let event = send(&unverified());
    assert_eq!(
        (event.id.as_str(), event.ty.as_str(), event.source.as_str()),
        ("msg_1", "invoice.paid", "/hooks/standard-webhooks")
    );
    assert_eq!((event.time.as_deref(), event.data), (Some("2026-01-02T03:04:05Z"), json!({"n": 1})));
    assert_eq!(send(&SourceConfig { source: Some("/pay".into()), ..unverified() }).source, "/pay");
    let unknown = |body: &[u8]| translate(StandardWebhooks, &unverified(), &Headers::default(), body);
    assert_eq!(unknown(b"{\"hello\": 1}"), Ok(vec![]));
    assert_eq!(unknown(b"[1]"), Ok(vec![]));
    assert_eq!(refused(unknown(b"{\"type\": 5}")), (400, "shape_invalid", true));
    assert_eq!(refused(unknown(b"{")), (400, "json_invalid", true));
}
