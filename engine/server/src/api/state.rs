//! How the engine and its door are: health, doctor, and metrics.
//!
//! Health answers 200 also while the engine is paused, with the state in the body: a supervisor that restarts what is not
//! 200 would only make a full disk or an absent database worse.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use kickwheel_schemas::api::{Check, Health, Problem};

use crate::{access::who, routes::Door};

/// Outcomes of requests that are nothing to look at.
const HARMLESS: [&str; 2] = ["accepted", "nothing"];

/// `GET /health`: the one thing to be had without the token, and then without the checks, which name folders and hosts.
#[utoipa::path(get, path = "/health", tag = "state", responses((status = 200, body = Health)))]
pub async fn bare_health(State(door): State<Door>, headers: HeaderMap) -> Json<Health> {
    let mut health = door.engine().health().await;
    if who(&door, &headers).await.is_err() {
        health.checks.clear();
    }
    Json(health)
}

/// `GET /api/v1/health`.
#[utoipa::path(get, path = "/api/v1/health", tag = "state",
    responses((status = 200, body = Health), (status = "default", body = Problem)))]
pub async fn health(State(door): State<Door>) -> Json<Health> {
    Json(door.engine().health().await)
}

/// `GET doctor`.
#[utoipa::path(get, path = "/api/v1/doctor", tag = "state",
    responses((status = 200, body = Health), (status = "default", body = Problem)))]
pub async fn doctor(State(door): State<Door>) -> Json<Health> {
    let mut health = door.engine().doctor().await;
    health.checks.extend(door.engine().access_checks().await);
    health.checks.push(tls(&door));
    health.checks.extend(senders(&door));
    Json(health)
}

fn check(id: String, state: &str, message: String, help: Option<&str>) -> Check {
    Check { id, state: state.to_owned(), message, help: help.map(str::to_owned) }
}

fn tls(door: &Door) -> Check {
    let id = "tls".to_owned();
    let Some(tls) = door.tls() else {
        let message = if door.must_come_through_proxy() {
            "a trusted proxy speaks it in front of this server"
        } else {
            "not spoken: this server is reached from this machine only"
        };
        return check(id, "ok", message.to_owned(), None);
    };
    match tls.problem() {
        None => check(id, "ok", format!("{} is in force", tls.certificate().display()), None),
        Some(e) => {
            let help = "the certificate that was in force still is; put a pair there that fits, it is taken at once";
            check(id, "warning", format!("the changed certificate is not taken: cannot {e}"), Some(help))
        }
    }
}

/// What triggers refused since the start.
fn senders(door: &Door) -> Vec<Check> {
    let counts = door.hooks().counts.all();
    let refused = counts.into_iter().filter_map(|(trigger, counts)| {
        let told: Vec<String> = counts
            .iter()
            .filter(|(outcome, _)| !HARMLESS.contains(*outcome))
            .map(|(outcome, n)| format!("{n} {outcome}"))
            .collect();
        let id = if trigger.is_empty() { "webhooks".to_owned() } else { format!("trigger {trigger}") };
        let message = format!("refused since the start: {}", told.join(", "));
        let help = "docs/errors.md explains each; `kickwheel triggers ls` shows what has to be set at the sender's";
        (!told.is_empty()).then(|| check(id, "warning", message, Some(help)))
    });
    refused.collect()
}

/// The value of a label, as the text format has it.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `GET metrics`, in the text format of Prometheus.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "state",
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
pub async fn metrics(State(door): State<Door>) -> impl IntoResponse {
    let mut text = door.engine().metrics().await;
    let name = "kickwheel_webhook_requests_total";
    // Writing to a String cannot fail.
    let _ =
        writeln!(text, "# HELP {name} Requests to webhook triggers, by what became of them.\n# TYPE {name} counter");
    for (trigger, counts) in door.hooks().counts.all() {
        for (outcome, n) in counts {
            let trigger = label(&trigger);
            let _ = writeln!(text, "{name}{{trigger=\"{trigger}\",outcome=\"{outcome}\"}} {n}");
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_itself() {
        assert_eq!(label("plain"), "plain");
        assert_eq!(label("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
