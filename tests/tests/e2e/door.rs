//! Who is let in, and what is refused.

use kickwheel_tests::harness::{Engine, on_each_database};
use serde_json::json;

#[test]
fn without_the_token_or_from_a_foreign_page_nothing_is_answered() {
    on_each_database(|database| {
        let engine = Engine::start(database);
        let api = engine.api();
        let token = format!("Bearer {}", api.token);
        let check = |headers: &[(&str, &str)], status: u16, code: &str| {
            let answer = api.bare("/api/v1/runs", headers);
            assert_eq!((answer.status, answer.code()), (status, code), "{headers:?}: {answer:?}");
        };
        check(&[], 401, "unauthorized");
        check(&[("authorization", "Bearer wrong")], 401, "unauthorized");
        check(&[("authorization", &token), ("host", "evil.example")], 403, "foreign_host");
        check(&[("authorization", &token), ("origin", "http://evil.example")], 403, "foreign_origin");
        check(&[("authorization", &token), ("origin", "null")], 403, "foreign_origin");
        check(&[("authorization", &token)], 200, "");
        let bare = api.bare("/health", &[]);
        assert_eq!((bare.status, &bare.body["state"], &bare.body["checks"]), (200, &json!("ok"), &json!([])));
    });
}

#[test]
fn malformed_input_is_refused_with_a_reason() {
    let yaml = "version: 1\nname: wheel\non: {manual: {}}\ninputs: {n: {type: integer, minimum: 1}}\nsteps: {turn: {run: 'true'}}\n";
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(yaml);
        let api = engine.api();
        let refused = |path: &str, body: serde_json::Value| {
            let answer = api.try_post(path, &body).expect("it answers");
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
            assert!(!answer.code().is_empty() && answer.body["detail"].is_string(), "{path}: {answer:?}");
            answer.body
        };
        refused("events", json!({"specversion": "1.0", "id": "", "source": "/tests", "type": "t"}));
        refused("events", json!({"specversion": "0.3", "id": "a", "source": "/tests", "type": "t"}));
        refused("events", json!({"id": "a"}));
        refused("workflows/wheel/runs", json!({"inputs": {"n": 0}}));
        refused("workflows/wheel/runs", json!({"inputs": {"n": "many"}}));
        refused("workflows/wheel/runs", json!({"inputs": {"n": 1, "unknown": 1}}));
        refused("workflows/wheel/runs", json!({}));
        refused("workflows/other/runs", json!({"inputs": {}}));
        refused("runs/nothing/cancel", json!({}));
        let broken = "version: 1\nname: broken\non: {manual: {}}\nsteps:\n  a: {run: x, nedes: [b]}\n  c: {needs: [d], run: y}\n";
        let problem = refused("workflows", json!({"file": "broken.yaml", "yaml": broken}));
        assert!(problem["diagnostics"].as_array().is_some_and(|d| d.len() >= 2), "{problem:#}");
        assert_eq!(engine.runs().len(), 0, "nothing of this started anything");
        let unknown = engine.cli(&["runs", "get", "nothing"]);
        assert_eq!(unknown.status.code(), Some(3));
    });
}
