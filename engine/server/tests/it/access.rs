//! Tokens with their roles, and secrets that never come out.

use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use kickwheel_server::openapi::Document;
use serde_json::{Value, json};
use utoipa::OpenApi as _;

use crate::house::{House, PATIENCE, request};

impl House {
    /// What the bearer of `token` is answered.
    pub async fn as_bearer(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut builder = request(method, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.answer(builder.body(body).expect("a request")).await
    }

    pub async fn token(&self, role: &str) -> String {
        let (status, made) = self.post("/api/v1/tokens", &json!({"name": format!("a {role}"), "role": role})).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["token"].as_str().expect("it is shown").to_owned()
    }

    pub async fn secret(&self, name: &str, value: &str) -> (StatusCode, Value) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let set = json!({"value_base64": STANDARD.encode(value)});
        self.as_bearer(crate::house::TOKEN, Method::PUT, &format!("/api/v1/secrets/{name}"), Some(&set)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_role_allows_until_it_is_revoked() {
    let house = House::build().await;
    let (status, made) = house.post("/api/v1/tokens", &json!({"name": "ci", "role": "viewer"})).await;
    assert_eq!((status, &made["state"], &made["role"]), (StatusCode::CREATED, &json!("active"), &json!("viewer")));
    let token = made["token"].as_str().expect("it is shown");
    assert!(token.starts_with("kw_") && token.len() == 3 + 64, "{token}");

    assert_eq!(house.as_bearer(token, Method::GET, "/api/v1/runs", None).await.0, StatusCode::OK);
    let send = json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t"});
    let refused = house.as_bearer(token, Method::POST, "/api/v1/events", Some(&send)).await;
    let problem = House::refused(refused, 403, "role_missing");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("operator") && d.contains("ci")), "{problem}");

    let (_, listed) = house.get("/api/v1/tokens").await;
    assert_eq!(listed["items"][0]["name"], "ci");
    assert!(!listed.to_string().contains(token) && listed["items"][0].get("token").is_none(), "{listed}");

    // Cached a moment ago, and over at once all the same.
    let revoked = house.as_bearer(crate::house::TOKEN, Method::DELETE, "/api/v1/tokens/ci", None).await;
    assert_eq!((revoked.0, &revoked.1["state"]), (StatusCode::OK, &json!("revoked")));
    House::refused(house.as_bearer(token, Method::GET, "/api/v1/runs", None).await, 401, "unauthorized");
    let again = house.as_bearer(crate::house::TOKEN, Method::DELETE, "/api/v1/tokens/ci", None).await;
    assert_eq!(again.1["revoked_at"], revoked.1["revoked_at"], "the first revocation stays");

    for unknown in [format!("kw_{}", "0".repeat(64)), "kw_".to_owned(), token[..66].to_owned(), token.to_uppercase()] {
        let answer = house.as_bearer(&unknown, Method::GET, "/api/v1/runs", None).await;
        House::refused(answer, 401, "unauthorized");
    }
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_expires_by_the_servers_clock() {
    let house = House::build().await;
    let create = json!({"name": "brief", "role": "admin", "expires_in_ms": 1500});
    let (_, made) = house.post("/api/v1/tokens", &create).await;
    let token = made["token"].as_str().expect("it is shown").to_owned();
    assert_eq!(house.as_bearer(&token, Method::GET, "/api/v1/runs", None).await.0, StatusCode::OK);
    let expired = async {
        while house.as_bearer(&token, Method::GET, "/api/v1/runs", None).await.0 == StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.expect("it is over");
    House::refused(house.as_bearer(&token, Method::GET, "/api/v1/runs", None).await, 401, "unauthorized");
    let (_, listed) = house.get("/api/v1/tokens").await;
    assert_eq!(listed["items"][0]["state"], "expired");

    for (wrong, status, code) in [
        (json!({"name": "", "role": "viewer"}), 400, "bad_name"),
        (json!({"name": "a", "role": "viewer", "expires_in_ms": 0}), 400, "expiry_invalid"),
        (json!({"name": "a", "role": "viewer", "project": "other"}), 404, "project_not_found"),
        (json!({"name": "a", "role": "king"}), 400, "body_invalid"),
    ] {
        House::refused(house.post("/api/v1/tokens", &wrong).await, status, code);
    }
    house.engine.shutdown(PATIENCE).await;
}

/// What each documented operation answers to a bearer: 403 says that the role does not suffice.
async fn forbidden(house: &House, token: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, item) in Document::openapi().paths.paths {
        if !path.starts_with("/api/v1/") && path != "/events" {
            continue;
        }
        let operations = [
            (Method::GET, item.get.is_some()),
            (Method::POST, item.post.is_some()),
            (Method::PUT, item.put.is_some()),
            (Method::DELETE, item.delete.is_some()),
        ];
        for (method, _) in operations.into_iter().filter(|(_, there)| *there) {
            let concrete = path.replace(['{', '}'], "x");
            let (status, answer) = house.as_bearer(token, method.clone(), &concrete, None).await;
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            if status == StatusCode::FORBIDDEN {
                assert_eq!(answer["code"], "role_missing", "{method} {path}");
                found.push((method.to_string(), path.clone()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_changes_something_needs_more_than_a_viewer_and_setting_up_needs_an_admin() {
    let house = House::build().await;
    let viewer = forbidden(&house, &house.token("viewer").await).await;
    for (method, path) in &viewer {
        let secret = ["/api/v1/tokens", "/api/v1/secrets"].iter().any(|p| path.starts_with(p));
        assert!(method != "GET" || secret, "{method} {path}");
    }
    for (path, item) in Document::openapi().paths.paths {
        for (method, there) in
            [("POST", item.post.is_some()), ("PUT", item.put.is_some()), ("DELETE", item.delete.is_some())]
        {
            let sender = path.starts_with("/hooks/");
            assert!(!there || sender || viewer.contains(&(method.to_owned(), path.clone())), "{method} {path}");
        }
    }
    let operator = forbidden(&house, &house.token("operator").await).await;
    let admins = |path: &str| operator.iter().any(|(_, p)| p == path);
    for path in ["/api/v1/tokens", "/api/v1/secrets/{name}", "/api/v1/triggers", "/api/v1/repos", "/api/v1/workflows"] {
        assert!(admins(path), "{path}");
    }
    for path in ["/api/v1/runs/{id}/cancel", "/api/v1/quarantine/{id}/replay", "/events", "/api/v1/runs"] {
        assert!(!admins(path), "{path}");
    }
    assert_eq!(forbidden(&house, &house.token("approver").await).await, operator);
    assert_eq!(forbidden(&house, &house.token("admin").await).await, []);
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_token_does_not_open_what_concerns_all() {
    let house = House::build().await;
    let create = json!({"name": "team", "role": "admin", "project": "default"});
    let (_, made) = house.post("/api/v1/tokens", &create).await;
    let token = made["token"].as_str().expect("it is shown");
    assert_eq!(house.as_bearer(token, Method::GET, "/api/v1/secrets", None).await.0, StatusCode::OK);
    for path in ["/api/v1/tokens", "/api/v1/doctor", "/metrics"] {
        House::refused(house.as_bearer(token, Method::GET, path, None).await, 403, "project_forbidden");
    }
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_goes_in_is_listed_without_its_value_and_survives_a_change_of_the_key() {
    let house = House::build().await;
    let (status, kept) = house.secret("deploy", "correct horse").await;
    assert_eq!((status, &kept["id"], &kept["state"]), (StatusCode::OK, &json!("deploy"), &json!("active")), "{kept}");
    let (_, listed) = house.get("/api/v1/secrets").await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    assert!(!listed.to_string().contains("horse") && !listed.to_string().contains("Y29ycmVjd"), "{listed}");
    House::refused(house.secret("a%2Fb", "x").await, 400, "secret_invalid");
    House::refused(house.secret("empty", "\n").await, 400, "secret_invalid");

    let (status, rekeyed) = house.post("/api/v1/rekey", &json!({})).await;
    assert_eq!((status, &rekeyed["secrets"]), (StatusCode::OK, &json!(1)), "{rekeyed}");
    assert_ne!(rekeyed["key_id"], kept["key_id"]);
    let opened = house.engine.secret_for_engine("deploy").await.expect("it opens");
    assert_eq!(opened.as_slice(), b"correct horse");
    House::refused(house.post("/api/v1/rekey", &json!({"new_key": "short"})).await, 409, "secrets_key");

    let remove = || house.as_bearer(crate::house::TOKEN, Method::DELETE, "/api/v1/secrets/deploy", None);
    // What a trigger signs with is not taken from it in silence.
    house.trigger("needs", json!({"kind": "cloudevents", "secrets": ["deploy"]})).await;
    House::refused(remove().await, 409, "secret_in_use");
    let forget = house.as_bearer(crate::house::TOKEN, Method::DELETE, "/api/v1/triggers/needs", None);
    assert!(forget.await.0.is_success());
    assert_eq!(remove().await.0, StatusCode::NO_CONTENT);
    House::refused(remove().await, 404, "secret_not_found");
    house.engine.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_of_tokens_that_end_soon() {
    let house = House::build().await;
    house.post("/api/v1/tokens", &json!({"name": "weekend", "role": "viewer", "expires_in_ms": 86_400_000})).await;
    let (_, health) = house.get("/api/v1/doctor").await;
    let check = |id: &str| health["checks"].as_array().expect("checks").iter().find(|c| c["id"] == id).cloned();
    let tokens = check("tokens").expect("it is checked");
    assert_eq!(tokens["state"], "warning");
    assert!(tokens["message"].as_str().is_some_and(|m| m.contains("weekend")), "{tokens}");
    for id in ["secrets", "quarantine", "tls"] {
        assert_eq!(check(id).expect("it is checked")["state"], "ok", "{id}");
    }
    house.engine.shutdown(PATIENCE).await;
}
