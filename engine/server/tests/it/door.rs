//! Who is let in, what a mistake looks like, and the API's main roads.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use kickwheel_server::{Exposure, bind, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, oneshot},
};

use crate::house::{House, PATIENCE, TOKEN, authorized, config, empty, engine, request};

/// A run that ends without any job.
const SKIPS: &str = "version: 1\nname: skips\non: {manual: {}}\nsteps:\n  never:\n    if: \"false\"\n    run: exit 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn only_who_names_this_server_and_holds_the_token_is_answered() {
    let house = House::build().await;

    for path in ["/api/v1/runs", "/api/v1/health", "/metrics", "/api/v1/no-such-route", "/no-such-route"] {
        House::refused(house.answer(empty(request(Method::GET, path))).await, 401, "unauthorized");
        let wrong = request(Method::GET, path).header(header::AUTHORIZATION, "Bearer 0123456789abcdeF");
        House::refused(house.answer(empty(wrong)).await, 401, "unauthorized");
    }
    let (status, _) = house.get("/api/v1/runs").await;
    assert_eq!(status, StatusCode::OK);

    let (status, health) = house.answer(empty(request(Method::GET, "/health"))).await;
    assert_eq!((status, &health["state"], &health["checks"]), (StatusCode::OK, &json!("ok"), &json!([])));
    let (_, health) = house.get("/health").await;
    assert!(health["checks"].as_array().is_some_and(|c| !c.is_empty()), "{health}");

    let (status, text) = house.answer(empty(request(Method::GET, "/"))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.as_str().is_some_and(|t| t.contains("/api/v1")), "{text}");

    let hint = House::refused(
        house.answer(empty(request(Method::GET, "/runs/0190a1b2-0000-7000-8000-000000000001"))).await,
        401,
        "unauthorized",
    );
    assert!(hint["detail"].as_str().is_some_and(|d| d.contains("kickwheel runs get 0190a1b2")), "{hint}");

    // A foreign page learns nothing, not even with the token, not even what is open to everybody else.
    for path in ["/api/v1/runs", "/health", "/", "/no-such-route"] {
        let rebound = authorized(Method::GET, path);
        let mut rebound = empty(rebound);
        rebound.headers_mut().insert(header::HOST, "evil.example:7070".parse().expect("a value"));
        House::refused(house.answer(rebound).await, 403, "foreign_host");
        let page = authorized(Method::GET, path).header(header::ORIGIN, "http://evil.example");
        House::refused(house.answer(empty(page)).await, 403, "foreign_origin");
        let sandboxed = authorized(Method::GET, path).header(header::ORIGIN, "null");
        House::refused(house.answer(empty(sandboxed)).await, 403, "foreign_origin");
    }
    let own = authorized(Method::GET, "/api/v1/runs").header(header::ORIGIN, "http://localhost:7070");
    assert_eq!(house.answer(empty(own)).await.0, StatusCode::OK);
    let nameless = Request::builder().uri("/health").body(Body::empty()).expect("a request");
    House::refused(house.answer(nameless).await, 403, "foreign_host");

    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_in_a_request_is_a_problem_with_a_code() {
    let house = House::build().await;

    House::refused(house.get("/api/v1/no-such-route").await, 404, "route_not_found");
    House::refused(house.get("/no-such-route").await, 404, "route_not_found");
    let wrong_method = authorized(Method::PUT, "/api/v1/runs");
    House::refused(house.answer(empty(wrong_method)).await, 405, "method_not_allowed");
    let wrong_method = authorized(Method::POST, "/health");
    House::refused(house.answer(empty(wrong_method)).await, 405, "method_not_allowed");

    House::refused(house.get("/api/v1/runs?stat=failed").await, 400, "query_invalid");
    House::refused(house.get("/api/v1/runs?state=done").await, 400, "state_invalid");
    House::refused(house.get("/api/v1/runs?since=2h").await, 400, "time_invalid");
    House::refused(house.get("/api/v1/runs?limit=0").await, 400, "limit_invalid");
    House::refused(house.get("/api/v1/runs?limit=1001").await, 400, "limit_invalid");

    let json = |body: String| {
        let request = authorized(Method::POST, "/api/v1/repos").header(header::CONTENT_TYPE, "application/json");
        request.body(Body::from(body)).expect("a request")
    };
    House::refused(house.answer(json("{".to_owned())).await, 400, "body_invalid");
    House::refused(house.answer(json("{}".to_owned())).await, 400, "body_invalid");
    House::refused(house.answer(json(" ".repeat(64 * 1024 + 1))).await, 413, "body_too_large");
    let form = authorized(Method::POST, "/api/v1/repos").header(header::CONTENT_TYPE, "text/plain");
    let form = form.body(Body::from("{}")).expect("a request");
    House::refused(house.answer(form).await, 415, "content_type");

    for path in ["runs/0190a1b2-0000-7000-8000-000000000001", "events/nothing", "workflows/nothing", "models/a%2Fb"] {
        let (status, problem) = house.get(&format!("/api/v1/{path}")).await;
        assert!(matches!(status.as_u16(), 400 | 404), "{path}: {problem}");
        assert!(problem["code"].is_string(), "{path}: {problem}");
    }
    let missing = house.get("/api/v1/datasets/churn%2Fraw").await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    assert!(missing.1["detail"].as_str().is_some_and(|d| d.contains("churn/raw")), "{}", missing.1);

    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_recorded_once_and_can_be_explained() {
    let house = House::build().await;
    let event = json!({
        "specversion": "1.0", "id": "e1", "source": "/tests", "type": "com.example.thing", "data": {"n": 1}
    });

    let (status, first) = house.post("/api/v1/events", &event).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let (status, again) = house.post("/api/v1/events", &event).await;
    assert_eq!((status, &again["id"]), (StatusCode::ACCEPTED, &first["id"]));
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));

    let id = first["id"].as_str().expect("a key");
    let (status, view) = house.get(&format!("/api/v1/events/{id}")).await;
    assert_eq!((status, &view["event"]["data"]["n"]), (StatusCode::OK, &json!(1)), "{view}");
    let (_, listed) = house.get("/api/v1/events").await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    let (status, explained) = house.get(&format!("/api/v1/explain?event={id}")).await;
    assert_eq!((status, &explained["decisions"]), (StatusCode::OK, &json!([])), "{explained}");

    let nameless = json!({"specversion": "1.0", "id": "", "source": "/tests", "type": "com.example.thing"});
    House::refused(house.post("/api/v1/events", &nameless).await, 400, "event_invalid");
    let large = json!({"specversion": "1.0", "id": "e2", "source": "/tests", "type": "t", "data": "x".repeat(1 << 20)});
    House::refused(house.post("/api/v1/events", &large).await, 413, "body_too_large");

    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_applied_paused_started_and_its_run_watched() {
    let house = House::build().await;

    let broken =
        json!({"file": "broken.yaml", "yaml": "version: 1\nname: b\non: {manual: {}}\nsteps:\n  a: {rnu: x}\n"});
    let problem = House::refused(house.post("/api/v1/workflows", &broken).await, 422, "workflow_has_mistakes");
    assert_eq!(problem["diagnostics"][0]["line"], 5, "{problem}");

    let (status, view) = house.post("/api/v1/workflows", &json!({"file": "skips.yaml", "yaml": SKIPS})).await;
    assert_eq!((status, &view["id"], &view["state"]), (StatusCode::OK, &json!("skips"), &json!("active")), "{view}");
    let (_, all) = house.get("/api/v1/workflows").await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1), "the broken one was not taken: {all}");

    let (status, paused) = house.post("/api/v1/workflows/skips/pause", &json!({})).await;
    assert_eq!((status, &paused["state"]), (StatusCode::OK, &json!("paused")));
    assert_eq!(house.post("/api/v1/workflows/skips/runs", &json!({})).await.0, StatusCode::CONFLICT);
    house.post("/api/v1/workflows/skips/resume", &json!({})).await;

    let (status, run) = house.post("/api/v1/workflows/skips/runs", &json!({"event_id": "once"})).await;
    assert_eq!(status, StatusCode::CREATED, "{run}");
    let id = run["id"].as_str().expect("an id").to_owned();
    let (mut seq, mut state) = (0, Value::Null);
    let watching = async {
        while state != "succeeded" {
            let (status, watched) = house.get(&format!("/api/v1/runs/{id}/watch?seq={seq}&wait_ms=5000")).await;
            assert_eq!(status, StatusCode::OK, "{watched}");
            seq = watched["seq"].as_u64().expect("a number");
            state = watched["run"]["state"].clone();
        }
    };
    tokio::time::timeout(PATIENCE, watching).await.expect("a run without jobs ends");

    let (_, detail) = house.get(&format!("/api/v1/runs/{id}")).await;
    assert_eq!((&detail["state"], &detail["steps"][0]["state"]), (&json!("succeeded"), &json!("skipped")), "{detail}");
    let (_, journal) = house.get(&format!("/api/v1/runs/{id}/journal")).await;
    assert!(journal["items"].as_array().is_some_and(|j| !j.is_empty()), "{journal}");
    let (_, tasks) = house.get(&format!("/api/v1/runs/{id}/tasks")).await;
    assert_eq!(tasks, json!({"items": []}));
    let (_, found) = house.get("/api/v1/runs?workflow=skips&state=succeeded,failed&limit=1").await;
    assert_eq!(found["items"][0]["id"], json!(id), "{found}");
    let (_, none) = house.get("/api/v1/runs?workflow=skips&state=running").await;
    assert_eq!(none["items"], json!([]));
    House::refused(house.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await, 409, "run_finished");
    let (status, page) = house.get(&format!("/runs/{id}")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.as_str().is_some_and(|p| p.contains("state succeeded")), "{page}");

    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hooks_nudge_reaches_the_triggers() {
    let house = House::build().await;
    let (status, _) = house.post("/api/v1/hooks/git", &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    tokio::time::timeout(PATIENCE, house.nudge.notified()).await.expect("the nudge was kept");
    house.engine.shutdown(PATIENCE).await;
}

/// Sends `text` and reads until the server closes.
async fn converse(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(text.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    // A server that refuses a head may reset the connection with the rest of it unread.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_socket_limits_heads_and_ends_long_polls_when_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine(folder.path().to_owned()).await;
    let listener = bind("127.0.0.1:0", Exposure::default()).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(engine.clone(), listener, config(&Arc::new(Notify::new())), async {
        let _ = stopped.await;
    }));

    let head = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n")
    };
    let fine = converse(address, &format!("{}\r\n", head("/health"))).await;
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let refused = converse(address, &format!("{}{many}\r\n", head("/health"))).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    let long = "x".repeat(64 * 1024);
    let refused = converse(address, &format!("{}X: {long}\r\n\r\n", head("/health"))).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");

    // A run that waits for its task, which never gets a place: the watcher has nothing to see.
    let slow =
        "version: 1\nname: slow\non: {manual: {}}\nsteps:\n  big:\n    run: \"true\"\n    resources: {cpu: 4000}\n";
    let apply = kickwheel_schemas::api::ApplyWorkflow { file: "slow.yaml".to_owned(), yaml: slow.to_owned() };
    engine.apply_workflow(apply).await.expect("it compiles");
    let run = engine.start_run("slow", kickwheel_schemas::api::StartRun::default()).await.expect("it starts");
    let watch = head(&format!("/api/v1/runs/{}/watch?seq=100000&wait_ms=30000", run.id));
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(format!("{watch}\r\n").as_bytes()).await.expect("it reads");
    // Answered after it: so the long poll is under way.
    assert!(converse(address, &format!("{}\r\n", head("/health"))).await.starts_with("HTTP/1.1 200"));

    stop.send(()).expect("it runs");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("at once, not after its wait").expect("text");
    if !answer.starts_with("HTTP/1.1 200") {
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stopping"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("retry-after"), "{answer}");
    }
    tokio::time::timeout(PATIENCE, server).await.expect("it ends").expect("without panic").expect("and without error");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    engine.shutdown(PATIENCE).await;
}
