//! The form of a sealed journal, as the engine's store documents it: zstd over `{"form": 1, "events": [[at, text], …]}`.

use serde_json::{Value, json};

/// The only form that there is.
const FORM: u64 = 1;

/// The events of a sealed journal.
pub fn unpack(body: &[u8]) -> Vec<Value> {
    let text = zstd::decode_all(body).expect("a sealed journal is compressed");
    let sealed: Value = serde_json::from_slice(&text).expect("a sealed journal is JSON");
    assert_eq!(sealed["form"], FORM, "a form that the checker does not know");
    let events = sealed["events"].as_array().expect("a sealed journal has events");
    events
        .iter()
        .map(|event| serde_json::from_str(event[1].as_str().expect("an event is a text")).expect("an event is JSON"))
        .collect()
}

/// The inverse, for tests that plant mistakes.
pub fn pack(events: &[Value]) -> Vec<u8> {
    let events: Vec<Value> = events.iter().map(|event| json!([0, event.to_string()])).collect();
    let text = json!({"form": FORM, "events": events}).to_string();
    zstd::encode_all(text.as_bytes(), 1).expect("compressing in memory does no I/O")
}
