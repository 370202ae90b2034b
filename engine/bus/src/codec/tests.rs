//! Both modes, every reason to refuse, and that no bytes whatsoever make it panic.

use kickwheel_schemas::{CloudEvent, cloudevent::CloudEventError};
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};

use super::*;

fn record(headers: &[(&str, &str)], payload: impl Into<Vec<u8>>) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect();
    Record { partition: 0, offset: 0, timestamp_ms: None, key: None, payload: Some(payload.into()), headers }
}

fn structured(event: &Value) -> Record {
    record(&[("content-type", "application/cloudevents+json")], event.to_string())
}

/// Binary, with what is required and `more` headers.
fn binary(more: &[(&str, &str)], payload: impl Into<Vec<u8>>) -> Record {
    let mut headers = vec![("ce_specversion", "1.0"), ("ce_id", "i"), ("ce_source", "/s"), ("ce_type", "t")];
    headers.extend_from_slice(more);
    record(&headers, payload)
}

/// What is expected of a record: the event, or the reason.
#[track_caller]
fn check(record: Record, expected: Result<CloudEvent, &str>) {
    match (decode(&record), expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected),
        (Err(got), Err(expected)) => {
            assert!(got.to_string().contains(expected), "{:?} should contain {expected:?}", got.to_string());
        }
        (got, expected) => panic!("got {got:?}, expected {expected:?}"),
    }
}

fn event(data: Value) -> CloudEvent {
    CloudEvent { datacontenttype: None, ..CloudEvent::new("/s", "i", "t", data) }
}

fn with_type(media_type: &str, data: Value) -> CloudEvent {
    CloudEvent { datacontenttype: Some(media_type.into()), ..event(data) }
}

#[test]
fn binary_data_follows_its_media_type() {
    check(
        binary(&[("content-type", "application/json")], "{\"a\":1}"),
        Ok(with_type("application/json", json!({"a": 1}))),
    );
    check(
        binary(&[("Content-Type", "application/vnd.x+json; charset=utf-8")], "[1]"),
        Ok(with_type("application/vnd.x+json; charset=utf-8", json!([1]))),
    );
    check(binary(&[("content-type", "text/plain")], "1"), Ok(with_type("text/plain", json!("1"))));
    check(binary(&[("ce_datacontenttype", "text/plain")], "1"), Ok(with_type("text/plain", json!("1"))));
    check(binary(&[], "{\"a\":1}"), Ok(event(json!({"a": 1}))));
    check(binary(&[], "words"), Ok(event(json!("words"))));
    check(binary(&[], ""), Ok(event(Value::Null)));
    let mut bytes = event(Value::Null);
    bytes.extensions.insert("data_base64".into(), json!("/wA="));
    check(binary(&[], vec![0xff, 0]), Ok(bytes));
    check(binary(&[("content-type", "application/json")], "{"), Err("the record's JSON"));
}

#[test]
fn binary_attributes_are_headers_in_any_case() {
    let headers = [
        ("CE_SpecVersion", "1.0"),
        ("Ce_Id", "i"),
        ("ce_SOURCE", "/s"),
        ("ce_type", "t"),
        ("CE_subject", "a b|ü"),
        ("ce_time", "2026-01-02T03:04:05Z"),
        ("ce_traceparent", "00-0-0-01"),
        ("ce_PartitionKey", "k"),
        ("unrelated", "x"),
    ];
    let mut expected = event(Value::Null).with_subject("a b|ü");
    expected.time = Some("2026-01-02T03:04:05Z".into());
    expected.traceparent = Some("00-0-0-01".into());
    expected.extensions.insert("partitionkey".into(), json!("k"));
    check(record(&headers, ""), Ok(expected));
}

#[test]
fn structured_is_the_whole_event() {
    let full = json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "data": {"a": [null]}, "count": 3,
        "gone": null, "subject": null});
    let mut expected = event(json!({"a": [null]}));
    expected.extensions.insert("count".into(), json!(3));
    check(structured(&full), Ok(expected.clone()));
    let other_type = record(&[("CONTENT-TYPE", "Application/CloudEvents; charset=UTF-8")], full.to_string());
    check(other_type, Ok(expected));
    let packed = json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t",
        "datacontenttype": "application/json", "data_base64": "eyJhIjoxfQ=="});
    check(structured(&packed), Ok(with_type("application/json", json!({"a": 1}))));
}

#[test]
fn what_is_no_event_is_refused_with_its_reason() {
    let base = json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t"});
    let with = |name: &str, value: Value| {
        let mut event = base.clone();
        event[name] = value;
        structured(&event)
    };
    check(Record { payload: None, ..structured(&base) }, Err("tombstone"));
    check(record(&[], "{}"), Err("without CloudEvents headers"));
    check(record(&[("content-type", "application/json")], base.to_string()), Err("without CloudEvents headers"));
    check(record(&[("content-type", "application/cloudevents-batch+json")], "[]"), Err("one event per record"));
    check(record(&[("content-type", "application/cloudevents+avro")], "x"), Err("application/cloudevents+avro"));
    check(record(&[("content-type", "application/cloudevents")], ""), Err("JSON"));
    check(record(&[("content-type", "application/cloudevents")], vec![0xff]), Err("JSON"));
    check(
        record(&[("content-type", "application/cloudevents")], format!("{{\"data\":{}", "[".repeat(100_000))),
        Err("recursion"),
    );
    check(with("specversion", json!("0.3")), Err("specversion \"0.3\""));
    check(with("id", json!("")), Err("\"id\""));
    check(with("id", json!(7)), Err("JSON"));
    check(with("source", json!("s".repeat(3000))), Err("longer than 2048"));
    check(with("subject", json!("s".repeat(3000))), Err("\"subject\": it is longer than 2048"));
    check(with("subject", json!("a\u{0}b")), Err("control character"));
    check(with("ext", json!({"a": 1})), Err("a text, a number or a truth value"));
    check(with("e x t", json!(1)), Err("letters and digits"));
    check(with("data_base64", json!("***")), Err("not base64"));
    check(
        structured(
            &json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "data": 1, "data_base64": "AA=="}),
        ),
        Err("not both"),
    );
    check(binary(&[("ce_id", "again")], ""), Err("more than once"));
    check(binary(&[("content-type", "a/b"), ("Content-Type", "a/b")], ""), Err("more than once"));
    check(binary(&[("ce_data", "x")], ""), Err("the record's value"));
    check(binary(&[("ce_", "x")], ""), Err("letters and digits"));
    check(record(&[("ce_id", "i"), ("ce_source", "s"), ("ce_type", "t")], ""), Err("specversion"));
    check(record(&[("ce_specversion", "1.0"), ("ce_source", "s"), ("ce_type", "t")], ""), Err("\"id\""));
    let mut no_value = binary(&[], "");
    no_value.headers.push(("ce_x".into(), None));
    check(no_value, Err("no value"));
    let mut no_text = binary(&[], "");
    no_text.headers.push(("ce_x".into(), Some(vec![0xff])));
    check(no_text, Err("not UTF-8"));
    let many: Vec<String> = (0..=MAX_EXTENSIONS).map(|n| format!("ce_x{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
    check(binary(&many, ""), Err("65 extension attributes"));
    check(binary(&[], vec![b'x'; MAX_EVENT_BYTES + 1]), Err("the limit is 1048576"));
}

#[test]
fn a_missing_version_is_an_empty_one() {
    let none = record(&[("ce_id", "i"), ("ce_source", "s"), ("ce_type", "t")], "");
    assert_eq!(decode(&none), Err(Undecodable::Event(CloudEventError::Version(String::new()))));
}

#[test]
fn a_foreign_text_is_not_repeated_at_length() {
    let long =
        json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "t", "subject": {"x".repeat(100_000): 1}});
    let error = decode(&structured(&long)).unwrap_err().to_string();
    assert!(error.len() < 2000, "{} bytes", error.len());
}

#[test]
fn a_lane_has_one_key() {
    assert_eq!(record_key(&event(Value::Null)), b"/s|");
    let mut keyed = event(Value::Null).with_subject("refs/heads/main");
    keyed.extensions.insert("partitionkey".into(), json!("elsewhere"));
    let encoded = encode(&keyed);
    assert_eq!(encoded.key, b"/s|refs/heads/main");
    assert_eq!(encoded.headers, [("content-type", b"application/cloudevents+json; charset=utf-8".as_slice())]);
}

fn any_header() -> impl Strategy<Value = (String, Option<Vec<u8>>)> {
    let names = prop_oneof![
        Just("content-type".to_owned()),
        "(ce_|CE_)(id|source|type|specversion|subject|time|data|datacontenttype|[a-z]{0,5})",
        any::<String>(),
    ];
    let values = prop_oneof![
        Just(b"application/cloudevents+json".to_vec()),
        Just(b"application/json".to_vec()),
        Just(b"1.0".to_vec()),
        vec(any::<u8>(), 0..40),
    ];
    (names, option::weighted(0.95, values))
}

fn any_payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    let json = "\\{(\"(id|source|type|specversion|data|data_base64|x)\":(1|\"1\\.0\"|\"AA==\"|null|\\{\\}),?){0,7}\\}?";
    option::weighted(0.95, prop_oneof![vec(any::<u8>(), 0..200), json.prop_map(String::into_bytes)])
}

/// A text without control characters, of a length that is allowed.
fn any_text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,20}"
}

proptest! {
    #[test]
    fn no_record_makes_it_panic(headers in vec(any_header(), 0..8), payload in any_payload()) {
        let record = Record { partition: 0, offset: 0, timestamp_ms: None, key: None, payload, headers };
        if let Ok(event) = decode(&record) {
            // What is accepted can be written, and is read as the same.
            let encoded = encode(&event);
            let headers = encoded.headers.iter().map(|(n, v)| ((*n).to_owned(), Some(v.to_vec()))).collect();
            prop_assert_eq!(decode(&Record { headers, payload: Some(encoded.payload), ..record }), Ok(event));
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        (id, source, ty) in (any_text(), any_text(), any_text()),
        subject in option::of(any_text()),
        data in vec(any::<f64>().prop_filter("JSON has no infinity", |n| n.is_finite()), 0..4),
    ) {
        let event = CloudEvent { subject, ..CloudEvent::new(source, id, ty, json!({"numbers": data})) };
        let encoded = encode(&event);
        let headers = encoded.headers.iter().map(|(n, v)| ((*n).to_owned(), Some(v.to_vec()))).collect();
        let record = Record {
            partition: 0, offset: 0, timestamp_ms: None, key: Some(encoded.key), payload: Some(encoded.payload), headers,
        };
        prop_assert_eq!(decode(&record), Ok(event));
    }
}
