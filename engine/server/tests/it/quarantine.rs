//! What was kept: shown, edited, replayed and dropped, once.

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
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

/// As the bearer of another token than the owner's.
async fn post_as(house: &House, token: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = crate::house::request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    house.answer(request.body(Body::from(body.to_string())).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forge_signed_is_edited_by_an_admin_only() {
    let house = House::build().await;
    crate::senders::bind_repo(&house).await;
    house.secret("s", "sesame").await;
    house.trigger("gh", json!({"kind": "github", "repo": "churn", "secrets": ["s"]})).await;
    let broken = "{\"ref\": \"refs/heads/side\"}";
    let signature = crate::senders::hub_signature("sesame", broken);
    let headers =
        [("x-github-event", "push"), ("x-github-delivery", "d1"), ("x-hub-signature-256", signature.as_str())];
    assert_eq!(house.send("gh", &headers, broken).await.0, StatusCode::BAD_REQUEST);
    let id = held(&house, false).await[0]["id"].as_str().expect("an id").to_owned();
    let operator = house.token("operator").await;
    let (replay, edit) = (format!("/api/v1/quarantine/{id}/replay"), format!("/api/v1/quarantine/{id}/edit"));
    let forged = body(&crate::senders::push());
    // It was signed, so an operator may replay it as it is: it is still not understood. But not put words into it.
    House::refused(post_as(&house, &operator, &replay, &json!({})).await, 400, "shape_invalid");
    House::refused(post_as(&house, &operator, &edit, &forged).await, 403, "quarantine_unproved");
    assert!(events(&house).await.is_empty());
    let (status, resolved) = house.post(&edit, &forged).await;
    assert_eq!(status, StatusCode::OK, "{resolved}");
    assert_eq!(events(&house).await[0]["kickwheelcause"], json!(id));
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_signed_is_no_proof_for_a_trigger_that_has_a_secret_by_now() {
    let house = House::build().await;
    house.trigger("ce", json!({"kind": "cloudevents", "unsigned": true})).await;
    let text = r#"{"type": "com.example.thing", "data": {"n": 1}}"#;
    House::refused(house.send("ce", &[STRUCTURED], text).await, 400, "event_invalid");
    let id = held(&house, false).await[0]["id"].as_str().expect("an id").to_owned();
    house.secret("s", "sesame").await;
    house.trigger("ce", json!({"kind": "standard-webhooks", "secrets": ["s"]})).await;
    let (operator, replay) = (house.token("operator").await, format!("/api/v1/quarantine/{id}/replay"));
    House::refused(post_as(&house, &operator, &replay, &json!({})).await, 403, "quarantine_unproved");
    assert!(events(&house).await.is_empty());
    // As long as nothing is demanded, nothing is missing.
    house.trigger("ce", json!({"kind": "standard-webhooks", "unsigned": true})).await;
    let (status, resolved) = post_as(&house, &operator, &replay, &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{resolved}");
    assert_eq!(events(&house).await.len(), 1);
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_in_quarantine_is_edited_by_an_admin_only_and_never_into_another_name() {
    let house = House::build().await;
    let url = crate::senders::bind_repo(&house).await;
    house.secret("s", "sesame").await;
    house.trigger("gh", json!({"kind": "github", "repo": "churn", "secrets": ["s"]})).await;
    // The repository has no such commit, so the push can never be decided.
    let push = crate::senders::push();
    let signature = crate::senders::hub_signature("sesame", &push);
    let headers =
        [("x-github-event", "push"), ("x-github-delivery", "d1"), ("x-hub-signature-256", signature.as_str())];
    assert_eq!(house.send("gh", &headers, &push).await.0, StatusCode::ACCEPTED);
    let patience = tokio::time::Instant::now() + PATIENCE;
    let held = loop {
        if let Some(held) = held(&house, false).await.into_iter().next() {
            break held;
        }
        assert!(tokio::time::Instant::now() < patience, "it is never held");
        tokio::task::yield_now().await;
    };
    let edit = format!("/api/v1/quarantine/{}/edit", held["id"].as_str().expect("an id"));
    let (_, shown) = house.get(&format!("/api/v1/quarantine/{}", held["id"].as_str().expect("an id"))).await;
    let event: Value = serde_json::from_str(shown["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(event["source"], json!(url));
    let operator = house.token("operator").await;
    House::refused(post_as(&house, &operator, &edit, &body(&event.to_string())).await, 403, "quarantine_unproved");
    let mut other = event.clone();
    other["source"] = json!("/cron/nightly");
    House::refused(house.post(&edit, &body(&other.to_string())).await, 403, "type_reserved");
    let mut other = event.clone();
    other["type"] = json!("dev.kickwheel.cron.tick");
    House::refused(house.post(&edit, &body(&other.to_string())).await, 403, "type_reserved");
    let (status, resolved) = house.post(&edit, &body(&event.to_string())).await;
    assert_eq!((status, &resolved["events"]), (StatusCode::OK, &json!(["d1+edit1"])), "{resolved}");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_to_be_sent_keeps_what_led_to_it() {
    let house = House::build().await;
    let operator = house.token("operator").await;
    let event = |id: &str, chain: Option<&str>| {
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": "/kickwheel/default", "type": "dev.kickwheel.run.finished",
            "data": {"workflow": "rim"},
        });
        if let Some(chain) = chain {
            event["kickwheelchain"] = json!(chain);
        }
        event.to_string()
    };
    // Kafka never took them, so they were set aside as the spool had them.
    let hold = async |id: &str| {
        let body = event(id, Some("hub,rim")).into_bytes();
        house.engine.hold("spool:chain", "too large", std::collections::BTreeMap::new(), body).await.expect("kept")
    };
    let (first, second) = (hold("r1:finished").await, hold("r2:finished").await);
    let replay = format!("/api/v1/quarantine/{first}/replay");
    assert_eq!(post_as(&house, &operator, &replay, &json!({})).await.0, StatusCode::OK);
    // Who writes it anew may not take away what keeps it from going round for ever.
    let (edit, anew) = (format!("/api/v1/quarantine/{second}/edit"), body(&event("r2:finished", None)));
    House::refused(post_as(&house, &operator, &edit, &anew).await, 403, "quarantine_unproved");
    assert_eq!(house.post(&edit, &anew).await.0, StatusCode::OK);
    let stored = events(&house).await;
    let told: Vec<_> = stored.iter().map(|e| (e["id"].as_str(), e["kickwheelchain"].as_str())).collect();
    let chain = Some("hub,rim");
    assert_eq!(told, [(Some("r2:finished+edit1"), chain), (Some("r1:finished"), chain)]);
    house.engine.shutdown(PATIENCE).await;
}
