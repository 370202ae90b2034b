//! Triggers of senders beside GitHub, at the door: what is configured, shown secrets, and a question that is answered.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};

use crate::house::{House, PATIENCE};

async fn event(house: &House, taken: &Value) -> Value {
    let key = taken["ids"][0].as_str().unwrap_or_else(|| panic!("{taken}"));
    house.get(&format!("/api/v1/events/{key}")).await.1["event"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn event_grid_is_answered_once_it_shows_the_secret_and_then_tells_of_a_dataset() {
    let house = House::build().await;
    house.secret("grid", "sesame").await;
    let made = house.trigger("az", json!({"kind": "azure", "dataset": "churn/raw", "secrets": ["grid"]})).await;
    assert!(made["steps"].to_string().contains("Web Hook"), "{made}");

    let question = json!([{"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6"}}])
    .to_string();
    House::refused(house.send("az", &[], &question).await, 401, "signature_missing");
    House::refused(house.send("az?secret=guess", &[], &question).await, 401, "signature_wrong");
    let (status, answer) = house.send("az?secret=sesame", &[], &question).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"validationResponse": "512d38b6"})));
    let options = Request::builder()
        .method(Method::OPTIONS)
        .uri("/hooks/az")
        .header(header::HOST, "kick.tunnel.example")
        .header("WebHook-Request-Origin", "eventgrid.azure.net");
    let (status, _) = house.answer(options.body(Body::empty()).expect("a request")).await;
    assert_eq!(status, StatusCode::OK, "the handshake of the other schema");

    let blob = json!([{"id": "b1", "eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-01-02T03:04:05Z",
        "subject": "/blobServices/default/containers/raw/blobs/a b.csv",
        "data": {"api": "PutBlob", "contentLength": 3, "url": "https://acme.blob.core.windows.net/raw/a%20b.csv"}}])
    .to_string();
    let (status, taken) = house.send("az?secret=sesame", &[], &blob).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{taken}");
    let event = event(&house, &taken).await;
    assert_eq!((&event["subject"], &event["data"]["key"]), (&json!("churn/raw"), &json!("a b.csv")), "{event}");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jira_site_is_what_is_configured_and_what_it_did_for_us_is_not_told() {
    let house = House::build().await;
    house.secret("jira", "sesame").await;
    let config = json!({"kind": "jira", "site": "https://acme.atlassian.net", "account": "me", "secrets": ["jira"]});
    house.trigger("issues", config).await;
    let issue = |actor: &str| {
        json!({"webhookEvent": "jira:issue_updated", "user": {"accountId": actor},
            "issue": {"id": "7", "key": "ML-7", "self": "https://evil.example/rest/api/2/issue/7"},
            "changelog": {"id": "1", "items": [{"field": "status", "fieldId": "status", "toString": "Ready"}]}})
        .to_string()
    };
    let shown = [("x-webhook-secret", "sesame"), ("x-atlassian-webhook-identifier", "W")];
    let (status, taken) = house.send("issues", &shown, &issue("ada")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{taken}");
    let told = event(&house, &taken).await;
    assert_eq!(told["type"], "dev.kickwheel.jira.issue.transitioned");
    assert_eq!((&told["source"], &told["id"]), (&json!("https://acme.atlassian.net"), &json!("W")), "{told}");
    let (status, nothing) = house.send("issues", &shown, &issue("me")).await;
    assert_eq!((status, nothing), (StatusCode::OK, json!({"ids": []})));

    // What is kept has no secret in it, wherever it was shown.
    let broken = r#"{"webhookEvent": "comment_created",}"#;
    House::refused(house.send("issues?secret=sesame", &[], broken).await, 400, "json_invalid");
    let (_, kept) = house.get("/api/v1/quarantine").await;
    let id = kept["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{kept}"));
    let (_, shown) = house.get(&format!("/api/v1/quarantine/{id}")).await;
    assert!(!shown.to_string().contains("sesame"), "{shown}");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_of_a_forge_needs_a_bound_repository() {
    let house = House::build().await;
    let add = json!({"name": "x", "config": {"kind": "forgejo", "repo": "nothing", "unsigned": true}});
    House::refused(house.post("/api/v1/triggers", &add).await, 404, "repo_not_found");
    let add = json!({"name": "x", "config": {"kind": "generic", "unsigned": true}});
    let (status, _) = house.post("/api/v1/triggers", &add).await;
    assert!(status.is_client_error(), "there are no mappings yet");
    house.engine.shutdown(PATIENCE).await;
}
