//! What was kept: shown, edited, replayed and dropped, once.

use axum::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::house::{House, PATIENCE};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const GOOD: &str = r#"{"specversion":"1.0","id":"e1","source":"/sender","type":"com.example.thing","data":1}"#;
const BROKEN: &str = r#"{"specversion":"1.0","id":"e1",}"#;

async fn held(house: &House, all: bool) -> Vec<Value> {
    let (status, page) = house.get(&format!("/api/v1/quarantine?resolved={all}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["items"].as_array().expect("a list").clone()
}

async fn events(house: &House) -> Vec<Value> {
    let (_, page) = house.get("/api/v1/events").await;
    page["items"].as_array().expect("a list").iter().map(|item| item["event"].clone()).collect()
}

/// Sends what cannot be understood, and gives its id in quarantine.
async fn hold(house: &House, body: &str) -> String {
    let headers = [STRUCTURED, ("authorization", "Bearer sesame"), ("x-request-id", "r1")];
    let refused = house.send("ce", &headers, body).await;
    let problem = House::refused(refused, 400, "json_invalid");
    let newest = held(house, false).await.remove(0);
    let id = newest["id"].as_str().expect("an id").to_owned();
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains(&id)), "{problem}");
    assert_eq!((newest["origin"].as_str(), newest["what"].as_str()), (Some("http:ce"), Some("input")));
    id
}

async fn with_trigger() -> House {
    let house = House::build().await;
    house.secret("s", "sesame").await;
    house.trigger("ce", json!({"kind": "cloudevents", "secrets": ["s"]})).await;
    house
}

fn body(text: &str) -> Value {
    json!({"body_base64": STANDARD.encode(text)})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_shown_without_credentials_and_mended_into_an_event_that_names_it() {
    let house = with_trigger().await;
    let id = hold(&house, BROKEN).await;
    let (_, shown) = house.get(&format!("/api/v1/quarantine/{}", &id[..30])).await;
    assert_eq!(shown["text"], BROKEN);
    assert_eq!(shown["headers"]["x-request-id"], "r1");
    assert!(!shown.to_string().contains("sesame"), "{shown}");

    // As it is, it is still not understood, and stays.
    House::refused(house.post(&format!("/api/v1/quarantine/{id}/replay"), &json!({})).await, 400, "json_invalid");
    assert_eq!(held(&house, false).await.len(), 1);

    let edit = format!("/api/v1/quarantine/{id}/edit");
    let (status, resolved) = house.post(&edit, &body(GOOD)).await;
    assert_eq!((status, &resolved["state"]), (StatusCode::OK, &json!("replayed")), "{resolved}");
    let (_, again) = house.post(&edit, &body(GOOD)).await;
    assert_eq!(again, resolved, "doing it twice changes nothing");
    let stored = events(&house).await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!((stored[0]["id"].as_str(), stored[0]["kickwheelcause"].as_str()), (Some("e1+edit1"), Some(id.as_str())));
    assert_eq!((held(&house, false).await.len(), held(&house, true).await.len()), (0, 1));
    House::refused(house.post(&format!("/api/v1/quarantine/{id}/drop"), &json!({})).await, 409, "quarantine_resolved");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_wrong_about_the_trigger_is_mended_there_and_the_input_replayed_without_its_proof() {
    let house = with_trigger().await;
    // Understood as a Standard Webhooks body it would be fine; as a CloudEvent it is not.
    let headers = [STRUCTURED, ("authorization", "Bearer sesame")];
    let text = r#"{"type": "com.example.thing", "timestamp": "2026-01-31T12:00:00Z", "data": {"n": 1}}"#;
    House::refused(house.send("ce", &headers, text).await, 400, "event_invalid");
    let id = held(&house, false).await[0]["id"].as_str().expect("an id").to_owned();
    house.trigger("ce", json!({"kind": "standard-webhooks", "secrets": ["s"]})).await;
    let replay = format!("/api/v1/quarantine/{id}/replay");
    let (status, resolved) = house.post(&replay, &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{resolved}");
    assert_eq!(house.post(&replay, &json!({})).await.1, resolved);
    let stored = events(&house).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["type"], "com.example.thing");
    assert!(stored[0].get("kickwheelcause").is_none(), "nothing was edited");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_dropped_once_with_its_reason() {
    let house = with_trigger().await;
    let (first, second) = (hold(&house, BROKEN).await, hold(&house, "[").await);
    let ids: Vec<_> = held(&house, false).await.iter().map(|h| h["id"].clone()).collect();
    assert_eq!(ids, [json!(second), json!(first)], "newest first");
    let (_, page) = house.get("/api/v1/quarantine?limit=1").await;
    let next = page["next"].as_str().expect("there is more");
    let (_, rest) = house.get(&format!("/api/v1/quarantine?limit=1&cursor={next}")).await;
    assert_eq!(rest["items"][0]["id"], json!(first));

    let drop = format!("/api/v1/quarantine/{first}/drop");
    for _ in 0..2 {
        let (status, dropped) = house.post(&drop, &json!({"reason": "noise"})).await;
        assert_eq!((status, &dropped["state"]), (StatusCode::OK, &json!("dropped")), "{dropped}");
    }
    let all = held(&house, true).await;
    assert_eq!((all.len(), &all[1]["note"]), (2, &json!("noise")));
    House::refused(house.post(&format!("/api/v1/quarantine/{first}/replay"), &json!({})).await, 400, "json_invalid");
    House::refused(house.get("/api/v1/quarantine/nothing").await, 404, "quarantine_not_found");
    let (_, health) = house.get("/api/v1/doctor").await;
    assert!(health.to_string().contains("1 inputs could not become events"), "{health}");
    assert!(events(&house).await.is_empty());
    house.engine.shutdown(PATIENCE).await;
}
