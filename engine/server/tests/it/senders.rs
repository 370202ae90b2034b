//! Webhooks and `/events`: signatures, limits, and what becomes of what is not understood.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::house::{House, PATIENCE, TOKEN, authorized};

const EVENT: &str = r#"{"specversion":"1.0","id":"e1","source":"/sender","type":"com.example.thing","data":{"n":1}}"#;
const STRUCTURED: &str = "application/cloudevents+json";

impl House {
    pub async fn trigger(&self, name: &str, config: Value) -> Value {
        let (status, made) = self.post("/api/v1/triggers", &json!({"name": name, "config": config})).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made
    }

    /// As a sender somewhere else sends: under a name of its own for us, and without our token.
    pub async fn send(&self, trigger: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
        let builder = Request::builder()
            .method(Method::POST)
            .uri(format!("/hooks/{trigger}"))
            .header(header::HOST, "kick.tunnel.example");
        let builder = headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value));
        self.answer(builder.body(Body::from(body.to_owned())).expect("a request")).await
    }

    async fn stored(&self) -> usize {
        let (_, page) = self.get("/api/v1/events").await;
        page["items"].as_array().map_or(0, Vec::len)
    }

    async fn counted(&self, trigger: &str) -> Value {
        self.get(&format!("/api/v1/triggers/{trigger}")).await.1["requests"].clone()
    }
}

/// `kickwheel-tests` has no place for it, and GitHub's own form is the one that must be right.
pub fn hub_signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    format!("sha256={}", hex::encode(mac.chain_update(body).finalize().into_bytes()))
}

/// A bare repository with one commit, bound as `churn`.
pub async fn bind_repo(house: &House) -> String {
    let path = house.folder.path().join("churn.git");
    let run = |args: &[&str]| {
        let output = std::process::Command::new("git")
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let text = path.to_str().expect("UTF-8");
    run(&["init", "-q", "--bare", "-b", "main", text]);
    let (status, bound) = house.post("/api/v1/repos", &json!({"url": text, "name": "churn"})).await;
    assert_eq!(status, StatusCode::CREATED, "{bound}");
    bound["url"].as_str().expect("a URL").to_owned()
}

pub fn push() -> String {
    json!({
        "ref": "refs/heads/main",
        "before": "1111111111111111111111111111111111111111",
        "after": "2222222222222222222222222222222222222222",
        "created": false, "deleted": false, "forced": false,
        "commits": [], "head_commit": null,
        "repository": {"full_name": "team/churn", "default_branch": "main", "html_url": "https://evil.example/x",
            "clone_url": "https://evil.example/x.git"},
        "pusher": {"name": "ann"}, "sender": {"login": "ann"}
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_push_is_an_event_of_the_configured_repository_and_any_other_is_refused_by_reason() {
    let house = House::build().await;
    let url = bind_repo(&house).await;
    house.secret("new", "sesame\n").await;
    house.secret("old", "open").await;
    let made = house.trigger("gh", json!({"kind": "github", "repo": "churn", "secrets": ["new", "old"]})).await;
    assert_eq!(made["url"], "http://127.0.0.1:7070/hooks/gh");
    assert!(made["steps"].to_string().contains("Payload URL"), "{made}");

    let body = push();
    let send = |signature: Option<String>, delivery: &'static str, body: String| {
        let house = &house;
        async move {
            let mut headers = vec![
                ("x-github-event", "push".to_owned()),
                ("x-github-delivery", delivery.to_owned()),
                ("content-type", "application/json".to_owned()),
            ];
            headers.extend(signature.map(|s| ("x-hub-signature-256", s)));
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            house.send("gh", &headers, &body).await
        }
    };
    House::refused(send(None, "d0", body.clone()).await, 401, "signature_missing");
    House::refused(send(Some("sha256=00".to_owned()), "d0", body.clone()).await, 401, "signature_malformed");
    House::refused(send(Some(hub_signature("guess", &body)), "d0", body.clone()).await, 401, "signature_wrong");
    House::refused(send(Some(hub_signature("sesame", "other")), "d0", body.clone()).await, 401, "signature_wrong");
    assert_eq!(house.stored().await, 0);

    // Both secrets are valid while one takes the other's place.
    let (status, taken) = send(Some(hub_signature("sesame", &body)), "d1", body.clone()).await;
    assert_eq!((status, taken["ids"].as_array().map(Vec::len)), (StatusCode::ACCEPTED, Some(1)), "{taken}");
    let (status, _) = send(Some(hub_signature("open", &body)), "d2", body.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (_, event) = house.get(&format!("/api/v1/events/{}", taken["ids"][0].as_str().expect("a key"))).await;
    assert_eq!(event["event"]["source"], json!(url), "never what the payload says: {event}");
    assert_eq!(event["event"]["id"], "d1");

    // The same delivery again is the same event.
    let (_, again) = send(Some(hub_signature("sesame", &body)), "d1", body.clone()).await;
    assert_eq!(again, taken);
    // With the old secret taken away, only the new one opens.
    house.trigger("gh", json!({"kind": "github", "repo": "churn", "secrets": ["new"]})).await;
    House::refused(send(Some(hub_signature("open", &body)), "d3", body.clone()).await, 401, "signature_wrong");

    let counts = house.counted("gh").await;
    assert_eq!(counts, json!({"accepted": 3, "signature_malformed": 1, "signature_missing": 1, "signature_wrong": 3}));
    let (_, metrics) = house.get("/metrics").await;
    let line = "kickwheel_webhook_requests_total{trigger=\"gh\",outcome=\"signature_wrong\"} 3";
    assert!(metrics.as_str().is_some_and(|m| m.contains(line)), "{metrics}");
    let (_, health) = house.get("/api/v1/doctor").await;
    assert!(health.to_string().contains("3 signature_wrong"), "{health}");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_trigger_are_kept() {
    let house = House::build().await;
    house.trigger("small", json!({"kind": "cloudevents", "unsigned": true, "max_bytes": 200})).await;
    let headers = [("content-type", STRUCTURED)];
    let large = EVENT.replace("\"n\":1", &format!("\"n\":\"{}\"", "x".repeat(200)));
    House::refused(house.send("small", &headers, &large).await, 413, "body_too_large");
    assert_eq!(house.send("small", &headers, EVENT).await.0, StatusCode::ACCEPTED);

    house.trigger("slow", json!({"kind": "cloudevents", "unsigned": true, "rate_per_minute": 1})).await;
    assert_eq!(house.send("slow", &headers, EVENT).await.0, StatusCode::ACCEPTED);
    let builder = Request::builder().method(Method::POST).uri("/hooks/slow").header(header::HOST, "any.example");
    let request = builder.header(header::CONTENT_TYPE, STRUCTURED).body(Body::from(EVENT)).expect("a request");
    let response = house.raw(request).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = response.headers()[header::RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");

    // Who has no secret does not use up a sender's rate.
    house.secret("s", "sesame").await;
    house.trigger("signed", json!({"kind": "cloudevents", "secrets": ["s"], "rate_per_minute": 1})).await;
    for _ in 0..5 {
        let wrong = [("content-type", STRUCTURED), ("authorization", "Bearer guess")];
        House::refused(house.send("signed", &wrong, EVENT).await, 401, "signature_wrong");
    }
    let right = [("content-type", STRUCTURED), ("authorization", "Bearer sesame")];
    assert_eq!(house.send("signed", &right, EVENT).await.0, StatusCode::ACCEPTED);
    House::refused(house.send("signed", &right, EVENT).await, 429, "too_many_requests");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_absent_paused_or_no_webhook_takes_nothing() {
    let house = House::build().await;
    let headers = [("content-type", STRUCTURED)];
    House::refused(house.send("nothing", &headers, EVENT).await, 404, "trigger_not_found");
    house.trigger("tick", json!({"kind": "cron", "schedule": "@daily"})).await;
    House::refused(house.send("tick", &headers, EVENT).await, 404, "trigger_not_found");
    house.trigger("ce", json!({"kind": "cloudevents", "unsigned": true})).await;
    house.post("/api/v1/triggers/ce/pause", &json!({})).await;
    House::refused(house.send("ce", &headers, EVENT).await, 503, "trigger_paused");
    house.post("/api/v1/triggers/ce/resume", &json!({})).await;
    assert_eq!(house.send("ce", &headers, EVENT).await.0, StatusCode::ACCEPTED);
    // A page in a browser on this machine is no sender.
    let page = [("content-type", STRUCTURED), ("origin", "http://evil.example")];
    House::refused(house.send("ce", &page, EVENT).await, 403, "foreign_origin");
    let remove = authorized(Method::DELETE, "/api/v1/triggers/ce").body(Body::empty()).expect("a request");
    assert_eq!(house.answer(remove).await.0, StatusCode::NO_CONTENT);
    House::refused(house.send("ce", &headers, EVENT).await, 404, "trigger_not_found");

    for (config, status, code) in [
        (json!({"kind": "cloudevents"}), 400, "trigger_invalid"),
        (json!({"kind": "cloudevents", "secrets": ["absent"]}), 404, "secret_not_found"),
        (json!({"kind": "github", "repo": "absent", "unsigned": true}), 404, "repo_not_found"),
        (json!({"kind": "cron", "schedule": "61 * * * *"}), 400, "trigger_invalid"),
        (json!({"kind": "cron", "schedule": "@daily", "timezone": "Europe/Berlim"}), 400, "trigger_invalid"),
        (json!({"kind": "pigeon"}), 400, "body_invalid"),
    ] {
        House::refused(house.post("/api/v1/triggers", &json!({"name": "a", "config": config})).await, status, code);
    }
    let bad = json!({"name": "a/b", "config": {"kind": "cloudevents", "unsigned": true}});
    House::refused(house.post("/api/v1/triggers", &bad).await, 400, "bad_name");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_are_asked_for_and_taken_in_all_three_modes() {
    let house = House::build().await;
    house.trigger("ce", json!({"kind": "cloudevents", "unsigned": true, "rate_per_minute": 600})).await;
    let ask = Request::builder()
        .method(Method::OPTIONS)
        .uri("/hooks/ce")
        .header(header::HOST, "any.example")
        .header("webhook-request-origin", "sender.example")
        .header("webhook-request-rate", "1000")
        .body(Body::empty())
        .expect("a request");
    let granted = house.raw(ask).await;
    assert_eq!(granted.status(), StatusCode::OK);
    assert_eq!(granted.headers()["webhook-allowed-origin"], "sender.example");
    assert_eq!(granted.headers()["webhook-allowed-rate"], "600");
    let ask = |token: &str| {
        let asked = Request::builder()
            .method(Method::OPTIONS)
            .uri("/events")
            .header(header::HOST, crate::house::HOST)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header("webhook-request-origin", "sender.example");
        asked.body(Body::empty()).expect("a request")
    };
    assert_eq!(house.raw(ask("nobody's")).await.status(), StatusCode::UNAUTHORIZED);
    let granted = house.raw(ask(crate::house::TOKEN)).await;
    assert_eq!(granted.status(), StatusCode::OK);
    assert_eq!(granted.headers()["webhook-allowed-origin"], "sender.example");

    let ids = |answer: &Value| answer["ids"].as_array().map(Vec::len);
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "b1"),
        ("ce-source", "/sender"),
        ("ce-type", "com.example.thing"),
        ("content-type", "application/json"),
    ];
    let (status, answer) = house.send("ce", &binary, r#"{"n": 1}"#).await;
    assert_eq!((status, ids(&answer)), (StatusCode::ACCEPTED, Some(1)), "{answer}");
    let (status, answer) = house.send("ce", &[("content-type", STRUCTURED)], EVENT).await;
    assert_eq!((status, ids(&answer)), (StatusCode::ACCEPTED, Some(1)), "{answer}");
    let batch = format!("[{EVENT},{}]", EVENT.replace("e1", "e2"));
    let (status, answer) = house.send("ce", &[("content-type", "application/cloudevents-batch+json")], &batch).await;
    assert_eq!((status, ids(&answer)), (StatusCode::ACCEPTED, Some(2)), "{answer}");
    assert_eq!(house.stored().await, 3, "e1 came twice and is one event");
    // Types of our own are made by presets, not by whoever sends.
    let forged = EVENT.replace("com.example.thing", "dev.kickwheel.git.branch.updated");
    House::refused(house.send("ce", &[("content-type", STRUCTURED)], &forged).await, 403, "type_reserved");
    // Nor are sources: whoever could name a tick before it is due would have it dropped as seen before.
    for ours in ["/cron/nightly", "/kickwheel/default", "/manual/default", "/hooks/billing"] {
        let claimed = EVENT.replace("/sender", ours);
        House::refused(house.send("ce", &[("content-type", STRUCTURED)], &claimed).await, 403, "source_reserved");
    }
    assert_eq!(house.stored().await, 3);
    House::refused(house.send("ce", &[("content-type", "text/plain")], EVENT).await, 415, "media_type");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_outside_speaks_for_a_bound_repository_by_any_door() {
    let house = House::build().await;
    let url = bind_repo(&house).await;
    house.trigger("ce", json!({"kind": "cloudevents", "unsigned": true, "rate_per_minute": 600})).await;
    let claimed = EVENT.replace("/sender", &url);
    let headers = [("content-type", STRUCTURED)];
    House::refused(house.send("ce", &headers, &claimed).await, 403, "source_reserved");
    // A batch is taken as a whole or not at all.
    let batch = format!("[{EVENT},{claimed}]");
    let many = [("content-type", "application/cloudevents-batch+json")];
    House::refused(house.send("ce", &many, &batch).await, 403, "source_reserved");
    let sent = authorized(Method::POST, "/events").header(header::CONTENT_TYPE, STRUCTURED);
    let sent = sent.body(Body::from(claimed.clone())).expect("a request");
    House::refused(house.answer(sent).await, 403, "source_reserved");
    // Not even an admin: what is pushed is told by the repository's own triggers.
    let mut event: Value = serde_json::from_str(&claimed).expect("JSON");
    House::refused(house.post("/api/v1/events", &event).await, 403, "source_reserved");
    event["type"] = json!("dev.kickwheel.git.branch.updated");
    House::refused(house.post("/api/v1/events", &event).await, 403, "type_reserved");
    assert_eq!(house.stored().await, 0);
    assert_eq!(house.counted("ce").await, json!({"source_reserved": 2}));
    // Once it is bound no more, the name is anybody's.
    let remove = authorized(Method::DELETE, "/api/v1/repos/churn").body(Body::empty()).expect("a request");
    assert_eq!(house.answer(remove).await.0, StatusCode::NO_CONTENT);
    assert_eq!(house.send("ce", &headers, &claimed).await.0, StatusCode::ACCEPTED);
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stranger_keeps_nobody_out() {
    let house = House::build().await;
    house.secret("s", "sesame").await;
    house.trigger("ce", json!({"kind": "cloudevents", "secrets": ["s"]})).await;
    // More bodies that never end than there are places for one address.
    let slow = || {
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>("{") });
        let body = Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()));
        let request = Request::builder().method(Method::POST).uri("/hooks/ce").header(header::HOST, "any.example");
        tower::ServiceExt::oneshot(house.router.clone(), request.body(body).expect("a request"))
    };
    let mut strangers: Vec<_> = (0..100).map(|_| tokio::spawn(slow())).collect();
    let right = [("content-type", STRUCTURED), ("authorization", "Bearer sesame")];
    assert_eq!(house.send("ce", &right, EVENT).await.0, StatusCode::ACCEPTED);
    // Those who were there longest gave their places up, and were told so.
    let first = strangers.remove(0).await.expect("it does not panic").expect("the router never fails");
    assert_eq!(first.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(house.send("ce", &right, &EVENT.replace("e1", "e2")).await.0, StatusCode::ACCEPTED);
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_is_slowed_down_and_nobody_else() {
    let house = House::build().await;
    house.secret("s", "sesame").await;
    house.trigger("ce", json!({"kind": "cloudevents", "secrets": ["s"], "rate_per_minute": 600})).await;
    let wrong = [("content-type", STRUCTURED), ("authorization", "Bearer guess")];
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(house.send("ce", &wrong, EVENT).await.0.as_u16());
    }
    assert!(answers.starts_with(&[401; 12]) && answers.contains(&429), "{answers:?}");
    let right = [("content-type", STRUCTURED), ("authorization", "Bearer sesame")];
    assert_eq!(house.send("ce", &right, EVENT).await.0, StatusCode::ACCEPTED);
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_made_up_are_counted_together() {
    let house = House::build().await;
    for name in ["nothing", "a%22%7D%201%0A", "b%5C"] {
        House::refused(house.send(name, &[], EVENT).await, 404, "trigger_not_found");
    }
    let (_, metrics) = house.get("/metrics").await;
    let lines: Vec<&str> = metrics.as_str().expect("text").lines().filter(|l| l.contains("webhook_requests")).collect();
    let counted = "kickwheel_webhook_requests_total{trigger=\"\",outcome=\"trigger_not_found\"} 3";
    assert_eq!(lines.last(), Some(&counted), "{lines:?}");
    assert_eq!(lines.len(), 3, "a help, a type and one counter: {lines:?}");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_route_wants_a_token_and_takes_batches() {
    let house = House::build().await;
    let send = |token: Option<String>, body: String| {
        let builder = crate::house::request(Method::POST, "/events").header(header::CONTENT_TYPE, STRUCTURED);
        let builder = token.into_iter().fold(builder, |b, t| b.header(header::AUTHORIZATION, format!("Bearer {t}")));
        house.answer(builder.body(Body::from(body)).expect("a request"))
    };
    House::refused(send(None, EVENT.to_owned()).await, 401, "unauthorized");
    let viewer = house.token("viewer").await;
    House::refused(send(Some(viewer), EVENT.to_owned()).await, 403, "role_missing");
    let operator = house.token("operator").await;
    let (status, answer) = send(Some(operator), EVENT.to_owned()).await;
    assert_eq!((status, answer["ids"].as_array().map(Vec::len)), (StatusCode::ACCEPTED, Some(1)), "{answer}");
    let kept = House::refused(send(Some(TOKEN.to_owned()), "{".to_owned()).await, 400, "json_invalid");
    assert!(kept["detail"].as_str().is_some_and(|d| d.contains("quarantine")), "{kept}");
    house.engine.shutdown(PATIENCE).await;
}
